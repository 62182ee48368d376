"""What brightness that changes across all images does to volumes, with and without a surface taken out of each image.

Counts of a thin specimen are multiplied by one gradient, one vignette, or one darker patch, the same for all tilts,
before they are drawn. Each series is reconstructed as users get it (a surface is taken out of each image, or what
changes slowly goes around the network), and once more with all that left in. Even images come first: there nothing may
change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
from common import Cell, Table, record
from numpy.typing import NDArray
from parts.scenes import placed_molecules
from parts.whole_runs import reconstructing, specimen_arguments

from cryolithe.fidelity import correlation
from cryolithe.reconstruction.images import preparation
from cryolithe.simulation import make_specimen, project
from cryolithe.training.scoring import BENCHMARK_ANGLES_DEG, BENCHMARK_RECIPE

SEED = 41
ELECTRONS = 55.0  # a pixel of one image
SNR_DB = -5.0  # of the even images
KINDS = (
    *("even", "gradient 10 %", "gradient 20 %", "gradient 40 %", "gradient 80 %"),
    *("vignette 20 %", "vignette 40 %", "patch 20 %", "patch 40 %"),
)


def brightness(kind: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Relative light ``(y, x)``: a gradient from side to side by so much, a loss at the edges, or in a patch."""
    y, x = (np.linspace(-1.0, 1.0, size) for size in shape)
    name, *amount = kind.split()
    share = float(amount[0]) / 100 if amount else 0.0
    if name == "patch":
        return np.asarray(1 - share * np.exp(-((x - 0.2) ** 2 + (y[:, None] + 0.1) ** 2) / 0.3))
    if name == "vignette":
        return np.asarray(1 - share * (y[:, None] ** 2 + x**2))
    return np.asarray(1 + share * (0.8 * x + 0.6 * y[:, None]) / 2)


def counted(clean: NDArray[np.float32], light: NDArray[np.float64], seed: list[int]) -> NDArray[np.float32]:
    """Electrons of all images under some light; ``clean`` are projections, dense matter bright."""
    signal = (clean - clean.mean()) / clean.std() * np.sqrt(10 ** (SNR_DB / 10) / ELECTRONS)
    rng = np.random.default_rng(seed)
    return rng.poisson(ELECTRONS * light * np.clip(1 + signal, 0, None)).astype(np.float32)


def main() -> None:
    """Measure every kind on a few specimens."""
    arguments = specimen_arguments("uneven", __doc__, ["default", "draft"])
    shape = (16, 48, 48) if arguments.quick else (48, 96, 96)
    kinds = ("even", "gradient 40 %") if arguments.quick else KINDS
    library = placed_molecules(arguments.molecules)
    geometry: dict[str, Any] = {"thickness": shape[0], "contrast": "bright"}

    methods = reconstructing(arguments.models, **geometry)
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    shares: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(arguments.specimens):
        specimen = make_specimen(replace(BENCHMARK_RECIPE, shape=shape), library, np.random.default_rng([SEED, number]))
        clean = project(specimen, BENCHMARK_ANGLES_DEG)
        for kind in kinds:
            images = counted(clean, brightness(kind, shape[1:]), [SEED, number, 1])
            for name, method in methods.items():
                series = images, BENCHMARK_ANGLES_DEG, 10.0
                volume = method(*series)
                with (
                    mock.patch.object(preparation, "unevenness", return_value=0.0),
                    mock.patch.object(preparation, "slow_part", return_value=None),
                ):
                    left = method(*series)
                found[kind].setdefault(name, []).append(correlation(volume.voxels, specimen.density))
                found[kind].setdefault(f"{name}, left in", []).append(correlation(left.voxels, specimen.density))
            taken = volume.record["method"].get("unevenness")
            shares[kind].append(0.0 if taken is None else float(taken))
    columns = list(found[kinds[0]])
    rows: list[list[Cell]] = [
        [kind, float(np.median(shares[kind])), *(float(np.median(found[kind][name])) for name in columns)]
        for kind in kinds
    ]
    note = (
        f"Correlation with the truth; medians over {arguments.specimens} specimen(s) of {' x '.join(map(str, shape))} "
        f"voxels (z, y, x), {ELECTRONS:g} electrons a pixel, {SNR_DB:g} dB. Share: variance of the surfaces taken "
        "out, of that of all else; 0 where they stay."
    )
    results = {
        "tables": [Table("Uneven images", ["images", "share", *columns], rows, note)],
        "shares": shares,
        "repeats": found,
    }
    record("uneven", results, arguments.output)


if __name__ == "__main__":
    main()
