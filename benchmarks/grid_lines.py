"""Do the network's blocks show? Power in the Fourier planes of the block grid, relative to their neighbours.

A network that returns blocks of 2 (4) voxels may leave a pattern of that period: extra power in the plane k = N/2
(and N/4) of an axis. The measure is that plane's power over the median of the planes within ±6 of it. Without a line it
is 1 where the spectrum is flat, and less at N/2, where a falling spectrum has its minimum: compare with the truth.
"Network" is what users get, with its share of FBP, which has no blocks and may hide a line; "network alone" is where
one would show.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
import torch
from common import Table, parser, read_arguments, record
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry
from cryolithe.machine.device import keep_freed_memory
from cryolithe.network.checkpoint import load_model
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.slabwise.networks import fbp_share
from cryolithe.simulation import SpecimenRecipe, add_white_noise, make_specimen, project
from cryolithe.training.scoring import ALONE, BENCHMARK_ANGLES_DEG, FBP, NETWORK, finished_array, reconstruct_array

NEIGHBOURS = 6
PERIODS = (2, 4)
SEED = 20262


def line_ratios(volume: NDArray[np.float32]) -> dict[str, float]:
    """Power in the planes of each period along each axis, relative to the median of the neighbouring planes."""
    power = np.abs(scipy.fft.fftn(volume - volume.mean())) ** 2
    ratios = {}
    for axis, name in enumerate("zyx"):
        planes = power.sum(axis=tuple(n for n in range(3) if n != axis))
        size = planes.size
        for period in PERIODS:
            k = size // period
            near = [planes[(k + step) % size] for step in range(-NEIGHBOURS, NEIGHBOURS + 1) if step]
            ratios[f"{name}, N/{period}"] = float(planes[k] / np.median(near))
    return ratios


def main() -> None:
    """Measure truth, FBP and network, with FBP and alone, on a few specimens."""
    options = parser("grid_lines", __doc__)
    options.add_argument("--model", default="default", help="name of a bundled model or path")
    options.add_argument("--snr", type=float, default=0.0, metavar="DB", help="signal to noise in the images")
    options.add_argument("--specimens", type=int, default=3)
    arguments = read_arguments(options)
    keep_freed_memory()  # as the commands do
    model = load_model(arguments.model)
    share = fbp_share(model, None)
    shape = (32, 32, 32) if arguments.quick else (64, 128, 128)  # multiples of 4, so that the planes exist
    specimens = 1 if arguments.quick else arguments.specimens
    depth, height, width = shape
    projector = make_projector(TiltGeometry(BENCHMARK_ANGLES_DEG, (height, width)), (depth, width))
    found: dict[str, list[dict[str, float]]] = {"truth": [], FBP: [], NETWORK: [], ALONE: []}
    for number in range(specimens):
        specimen = make_specimen(SpecimenRecipe(shape), (), np.random.default_rng([SEED, number]))
        clean = project(specimen, BENCHMARK_ANGLES_DEG)
        images = add_white_noise(clean, arguments.snr, np.random.default_rng([SEED, number, 1]))
        images -= images.mean(axis=(1, 2), keepdims=True)
        found["truth"].append(line_ratios(specimen.density))
        found[FBP].append(line_ratios(fbp(projector, torch.from_numpy(images)).numpy()))
        alone = reconstruct_array(model.network, images, BENCHMARK_ANGLES_DEG, depth)
        found[NETWORK].append(line_ratios(finished_array(model.network, alone, images, BENCHMARK_ANGLES_DEG, share)))
        found[ALONE].append(line_ratios(alone))
    medians: dict[str, dict[str, Any]] = {
        name: {key: float(np.median([each[key] for each in ratios])) for key in ratios[0]}
        for name, ratios in found.items()
    }
    levels = model.network.config.head.stride.bit_length() - 1
    expected = {f"N/{2 ** (level + 1)}" for level in range(levels)}
    rows = [
        [f"{key} (block grid)" if key.split(", ")[1] in expected else key, *(medians[name][key] for name in found)]
        for key in medians["truth"]
    ]
    note = (
        "1 is no line where the spectrum is flat; at N/2, its minimum, compare with truth and FBP. "
        f"Model {model.name} {model.sha256[:12]}, {levels} wavelet level(s), fp32, {share:.0%} FBP. "
        f"Medians over {specimens} specimen(s) of {' x '.join(map(str, shape))} voxels (z, y, x), {arguments.snr:g} dB."
    )
    results = {
        "tables": [Table("Lines of the block grid", ["axis, plane", *found], rows, note)],
        "model": {"name": model.name, "sha256": model.sha256, "levels": levels, "fbp_share": share},
        "medians": medians,
        "repeats": found,
    }
    record("grid_lines", results, arguments.output)


if __name__ == "__main__":
    main()
