"""How fast: the network in voxels per second, FBP of a small tomogram in seconds, SIRT, and ASTRA on the same CPU."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Table, Timing, cryolithe_command, median_seconds, parser, peak_rss_of, read_arguments, record

from cryolithe.device import keep_freed_memory
from cryolithe.formats import write_angles_deg, write_stack
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.network.checkpoint import Model, load_model
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp, sirt
from cryolithe.reconstruct.methods import Compute, NetworkMethod
from cryolithe.reconstruct.plan import MOST_SLAB_ROWS
from cryolithe.sampling import reflected_rows

ANGLES_DEG = tuple(float(a) for a in np.arange(-60.0, 60.1, 3.0))
GOAL_VOXELS_PER_SECOND = 100_000
GOAL_FBP_SECONDS = 60
SIRT_ROWS, SIRT_ITERATIONS = 64, 10


def noise(height: int, width: int) -> torch.Tensor:
    """White images ``(tilts, height, width)``; speed does not depend on what they show."""
    return torch.from_numpy(
        np.random.default_rng(0).standard_normal((len(ANGLES_DEG), height, width), dtype=np.float32)
    )


def time_network(model: Model, precision: torch.dtype, shape: tuple[int, int, int], repeats: int) -> Timing:
    """Seconds of a whole volume: filter, sample, encode, combine and synthesise, in slabs as a run does it."""
    _, height, width = shape
    compute = Compute(precision=precision)
    images = noise(height, width)

    def run(rows: int) -> None:
        method = NetworkMethod(model.network, TiltGeometry(ANGLES_DEG, (height, width)), VolumeGrid(shape), compute)
        for start in range(0, rows, MOST_SLAB_ROWS):
            slab = min(MOST_SLAB_ROWS, rows - start)
            method(images[:, reflected_rows(start - method.halo_px, slab + 2 * method.halo_px, height)])

    run(min(8, height))
    return median_seconds(lambda: run(height), repeats)


def time_fbp(shape: tuple[int, int, int], repeats: int) -> Timing:
    """Seconds of projector, filter and back-projection, in slabs."""
    depth, height, width = shape
    images = noise(height, width)

    def run() -> None:
        projector = make_projector(TiltGeometry(ANGLES_DEG, (height, width)), (depth, width))
        for start in range(0, height, MOST_SLAB_ROWS):
            fbp(projector, images[:, start : start + MOST_SLAB_ROWS])

    return median_seconds(run, repeats)


def time_fbp_command(shape: tuple[int, int, int], repeats: int) -> Timing:
    """Seconds of the command from its start to its end, with start-up, reading and writing."""
    depth, height, width = shape
    with tempfile.TemporaryDirectory() as name:
        stack, angles, output = (Path(name) / file for file in ("stack.mrc", "stack.tlt", "volume.mrc"))
        write_stack(stack, noise(height, width).numpy(), 10.0, "noise")
        write_angles_deg(angles, ANGLES_DEG)
        command = [*cryolithe_command(), "reconstruct", str(stack), str(angles), "-o", str(output), "--overwrite"]
        command += ["--method", "fbp", "--device", "cpu", "--thickness", str(depth)]
        return median_seconds(lambda: peak_rss_of(command), repeats)


def time_astra(shape: tuple[int, int, int], slices: int, repeats: int) -> dict[str, Timing]:
    """Seconds of ASTRA's CPU FBP of ``slices`` slices by kind of projector; empty where ASTRA is not installed."""
    try:
        from astra_agreement import AstraSlice
    except ImportError:
        return {}
    depth, _, width = shape
    images = noise(slices, width).numpy()
    timings = {}
    for kind in ("linear", "strip"):
        program = AstraSlice(np.asarray(ANGLES_DEG), (depth, width), width, kind)

        def run(program: Any = program) -> None:
            for row in range(slices):
                program.fbp(np.ascontiguousarray(images[:, row]))

        timings[kind] = median_seconds(run, repeats)
        program.close()
    return timings


def time_sirt(shape: tuple[int, int, int], rows: int, repeats: int) -> Timing:
    """Seconds of a few iterations for a slab of ``rows`` rows."""
    depth, _, width = shape
    images = noise(rows, width)

    def run() -> None:
        sirt(make_projector(TiltGeometry(ANGLES_DEG, (rows, width)), (depth, width)), images, SIRT_ITERATIONS)

    return median_seconds(run, repeats)


def main() -> None:
    """Measure all and compare with the goals."""
    options = parser("speed", __doc__)
    options.add_argument("--model", default="default", help="name of a bundled model or path")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--astra-slices", type=int, default=16)
    arguments = read_arguments(options)
    keep_freed_memory()  # as the commands do
    model = load_model(arguments.model)
    repeats, slices, sirt_rows = arguments.repeats, arguments.astra_slices, SIRT_ROWS
    small, large = (128, 256, 256), (256, 512, 512)  # (z, y, x)
    if arguments.quick:
        small, large, repeats, slices, sirt_rows = (8, 16, 32), (16, 32, 48), 2, 2, 4
    timings: dict[str, Timing] = {}
    rows: list[list[str | int | float | bool | None]] = []
    voxels, tilts = int(np.prod(small)), len(ANGLES_DEG)
    task = f"{tilts} x {small[1]} x {small[2]} -> {' x '.join(map(str, small))}"
    for name, precision in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        timings[f"network {name}"] = timing = time_network(model, precision, small, repeats)
        speed = round(voxels / timing.median)
        # The goal is one of the program; which precision it takes by itself depends on the hardware.
        rows.append([f"network {name} (voxels/s)", task, speed, f">= {GOAL_VOXELS_PER_SECOND}"])
        rows[-1].append(speed >= GOAL_VOXELS_PER_SECOND)
    task = f"{tilts} x {large[1]} x {large[2]} -> {' x '.join(map(str, large))}"
    for label, timing in (("FBP", time_fbp(large, repeats)), ("FBP, file to file", time_fbp_command(large, repeats))):
        timings[label] = timing
        rows.append([f"{label} (s)", task, timing.median, f"< {GOAL_FBP_SECONDS}", timing.median < GOAL_FBP_SECONDS])
    for kind, timing in time_astra(large, slices, repeats).items():
        label = f"ASTRA CPU FBP, {kind}"
        timings[f"{label}, {slices} slices"] = timing
        rows.append([f"{label} (s)", f"{task}, extrapolated", timing.median * large[1] / slices, None, None])
    label = f"SIRT, {SIRT_ITERATIONS} iterations"
    timings[label] = timing = time_sirt(large, sirt_rows, repeats)
    rows.append([f"{label} (s)", f"{tilts} x {sirt_rows} x {large[2]} -> {large[0]} x {sirt_rows} x {large[2]}"])
    rows[-1] += [timing.median, None, None]
    note = (
        f"Medians of {repeats}; volumes are (z, y, x). ASTRA reconstructs slice by slice: measured on {slices} slices "
        f"and multiplied up to {large[1]}. Model: {model.name} {model.sha256[:12]}."
    )
    table = Table("Speed on the CPU", ["what", "task", "measured", "goal", "reached"], rows, note)
    seconds = {name: timing._asdict() for name, timing in timings.items()}
    results = {"tables": [table], "model": {"name": model.name, "sha256": model.sha256}, "seconds": seconds}
    record("speed", {**results, "voxels": {"network": voxels, "fbp": int(np.prod(large))}}, arguments.output)


if __name__ == "__main__":
    main()
