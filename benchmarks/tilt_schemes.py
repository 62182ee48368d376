"""What the angles of a series do to volumes: even steps, images left out, retaken or swept finely on one side.

Every scheme sees the same specimens with the same noise in each image. A column "alike" is of the network whose tilts
all count alike, as they do in `cryolithe.network.layers.crowd_shares` only where none lie closer than is usual.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import Cell, Table, record
from numpy.typing import NDArray
from parts.scenes import placed_molecules
from parts.whole_runs import reconstructing, specimen_arguments

from cryolithe.fidelity import correlation
from cryolithe.network import rowset
from cryolithe.simulation import make_specimen, project
from cryolithe.training.scoring import BENCHMARK_ANGLES_DEG, BENCHMARK_RECIPE

SEED = 77
SNR_DB = -5.0  # of images in even steps of 3°

Angles = NDArray[np.float64]


def schemes() -> dict[str, Angles]:
    """Tilt angles in degrees, by what to call them."""
    fine, coarse = np.arange(-60, 61, 3.0), np.arange(-60, 61, 6.0)
    rng = np.random.default_rng(SEED)

    def left_out(count: int) -> Angles:
        return np.sort(np.delete(fine, rng.permutation(len(fine))[:count]))

    return {
        "steps of 3°": fine,
        "steps of 6°": coarse,
        "steps of 3°, each 0.5° away (deviation)": fine + rng.normal(scale=0.5, size=len(fine)),
        "steps of 3°, 10 images left out": left_out(10),
        "steps of 3°, 20 images left out": left_out(20),
        "steps of 6°, all taken twice": np.repeat(coarse, 2),
        "steps of 6°, that at 30° seven times": np.sort(np.r_[coarse, [30.0] * 6]),
        "steps of 6°, and 16 images from 30 to 33.75°": np.sort(np.r_[coarse, np.arange(30, 34, 0.25)]),
        "steps of 6°, and 16 images from -2 to 1.75°": np.sort(np.r_[coarse, np.arange(-2, 2, 0.25)]),
        "steps of 1° within 10°, of 5° beyond": np.r_[
            np.arange(-60, -12, 5.0), np.arange(-10, 11, 1.0), np.arange(15, 61, 5.0)
        ],
    }


def main() -> None:
    """Measure every scheme on a few specimens."""
    arguments = specimen_arguments("tilt_schemes", __doc__, ["default", "fast"])
    shape = (16, 48, 48) if arguments.quick else (48, 96, 96)
    chosen = schemes()
    if arguments.quick:
        chosen = {name: chosen[name] for name in list(chosen)[1::6]}
    library = placed_molecules(arguments.molecules)
    geometry: dict[str, Any] = {"thickness": shape[0], "contrast": "bright"}

    methods = reconstructing(arguments.models, **geometry)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in chosen}
    for number in range(arguments.specimens):
        specimen = make_specimen(replace(BENCHMARK_RECIPE, shape=shape), library, np.random.default_rng([SEED, number]))
        noise = float(project(specimen, BENCHMARK_ANGLES_DEG).std() * 10 ** (-SNR_DB / 20))
        for name, angles_deg in chosen.items():
            clean = project(specimen, tuple(angles_deg.tolist()))
            drawn = np.random.default_rng([SEED, number, 1]).normal(scale=noise, size=clean.shape)
            series = (clean + drawn).astype(np.float32), angles_deg, 10.0
            volumes = {method: make(*series) for method, make in methods.items()}
            with mock.patch.object(rowset, "crowd_shares", torch.ones_like):
                volumes |= {f"{model}, alike": methods[model](*series) for model in arguments.models}
            for method, volume in volumes.items():
                found[name].setdefault(method, []).append(correlation(volume.voxels, specimen.density))
    columns = list(next(iter(found.values())))
    rows: list[list[Cell]] = [
        [name, len(chosen[name]), *(float(np.median(found[name][column])) for column in columns)] for name in chosen
    ]
    note = (
        f"Correlation with the truth; medians over {arguments.specimens} specimen(s) of "
        f"{' x '.join(map(str, shape))} voxels (z, y, x), {SNR_DB:g} dB."
    )
    table = Table("Tilt schemes", ["angles", "images", *columns], rows, note)
    record("tilt_schemes", {"tables": [table], "repeats": found}, arguments.output)


if __name__ == "__main__":
    main()
