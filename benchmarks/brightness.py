"""What images of unequal light do to volumes, used as they were counted and divided by their means.

Electrons of a specimen are counted under another light for each tilt: what a slab of some mean free paths lets through,
exposures that grow with tilt, one exposure five times as long as the others. Each series is reconstructed with
``--brightness auto``, as users get it, and with ``keep``; FBP, which takes counts as they are, from images over their
means, too. Even light comes first, where nothing may change.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from common import Cell, Table, record
from numpy.typing import NDArray
from parts.scenes import placed_molecules
from parts.whole_runs import reconstructing, specimen_arguments

from cryolithe.fidelity import correlation
from cryolithe.simulation import make_specimen, project
from cryolithe.training.scoring import BENCHMARK_ANGLES_DEG, BENCHMARK_RECIPE

SEED = 43
ELECTRONS = 55.0  # a pixel of the image that is not tilted
SNR_DB = -5.0  # of that image
LONGEST = 5.0
KINDS = ("even light", "t = 0.3", "t = 0.6", "t = 1.2", "t = 0.6, exposures of 1 / cos", "one exposure of 5")


def light(kind: str, angles_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Electrons of each image in those of the one that is not tilted; ``t`` is a slab's thickness in free paths."""
    path = 1 / np.cos(np.radians(angles_deg))
    found = np.ones(len(angles_deg))
    if kind.startswith("t = "):
        found = np.exp(-float(kind.split()[2].rstrip(",")) * (path - 1))
    if kind.endswith("1 / cos"):
        found = found * path
    if kind == "one exposure of 5":
        found[np.abs(angles_deg).argmin()] = LONGEST
    return found


def counted(clean: NDArray[np.float32], lights: NDArray[np.float64], seed: list[int]) -> NDArray[np.float32]:
    """Electrons of all images, dense matter dark; ``clean`` are projections, dense matter bright."""
    signal = (clean - clean.mean()) / clean.std() * np.sqrt(10 ** (SNR_DB / 10) / ELECTRONS)
    rng = np.random.default_rng(seed)
    return rng.poisson(ELECTRONS * lights[:, None, None] * np.clip(1 - signal, 0, None)).astype(np.float32)


def main() -> None:
    """Measure every kind of light on a few specimens."""
    arguments = specimen_arguments("brightness", __doc__, ["default", "fast"])
    shape = (16, 48, 48) if arguments.quick else (48, 96, 96)
    kinds = ("even light", "t = 0.6") if arguments.quick else KINDS
    library = placed_molecules(arguments.molecules)
    geometry: dict[str, Any] = {"thickness": shape[0], "contrast": "dark"}
    methods = reconstructing(arguments.models, {", keep": {"brightness": "keep"}}, **geometry)
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in kinds}
    for number in range(arguments.specimens):
        specimen = make_specimen(replace(BENCHMARK_RECIPE, shape=shape), library, np.random.default_rng([SEED, number]))
        clean = project(specimen, BENCHMARK_ANGLES_DEG)
        for kind in kinds:
            images = counted(clean, light(kind, np.asarray(BENCHMARK_ANGLES_DEG)), [SEED, number, 1])
            relative = images / images.mean(axis=(1, 2), keepdims=True)
            series = {"FBP": images, "FBP, over means": relative, **{name: images for name in methods if name != "FBP"}}
            for name, given in series.items():
                volume = methods[name.split(", over")[0]](given, BENCHMARK_ANGLES_DEG, 10.0)
                score = abs(correlation(volume.voxels, specimen.density))
                found[kind].setdefault(name, []).append(score)
    columns = list(found[kinds[0]])
    rows: list[list[Cell]] = [[kind, *(float(np.median(found[kind][name])) for name in columns)] for kind in kinds]
    note = (
        f"Correlation with the truth, its sign left out; medians over {arguments.specimens} specimen(s) of "
        f"{' x '.join(map(str, shape))} voxels (z, y, x), {ELECTRONS:g} electrons a pixel and {SNR_DB:g} dB where the "
        "specimen is not tilted and light is even. keep: images as they were counted, which FBP takes; else over their "
        "means."
    )
    results = {"tables": [Table("Light of images", ["light", *columns], rows, note)], "repeats": found}
    record("brightness", results, arguments.output)


if __name__ == "__main__":
    main()
