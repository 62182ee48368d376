"""How fast: networks in voxels per second beside their floor, FBP beside ASTRA on the same cores, start-up.

Network cases are whole slabs as a run makes them (filter, lift, pool, layers, synthesis), bundled models also with
their share of FBP mixed in, which is what users wait for. They are as wide and thick as for
800 x 800 x 400 voxels; their number of rows is less, which only weighs the halo more. "Floor" is the time that the
layers' multiply-adds alone take at the speed of a large matrix product measured in the same run. "Definition" is the
network as its equations say, a patch for every point, nothing shared: what the published program computes.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, Table, Timing, cryolithe_command, median_seconds, parser, peak_rss_of, read_arguments, record

from cryolithe.formats import write_angles_deg, write_stack
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.machine.device import choose_device, choose_precision, keep_freed_memory, precision_name
from cryolithe.network import Head, InputWindow, Network, NetworkConfig, SliceSetConfig, build_network
from cryolithe.network.checkpoint import load_model
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp, sirt
from cryolithe.reconstruction.estimate import products_per_voxel
from cryolithe.reconstruction.slabwise.fusion import SHELLS, FusionCurve
from cryolithe.reconstruction.slabwise.methods import Compute, NetworkMethod, network_rows
from cryolithe.reconstruction.slabwise.mixing import finished_method
from cryolithe.reconstruction.slabwise.networks import fbp_share
from cryolithe.reconstruction.slabwise.plan import MOST_SLAB_ROWS
from cryolithe.sampling import pad_rows, point_columns, reflected_rows, row_windows, visible

ANGLES_DEG = tuple(float(a) for a in np.arange(-60.0, 60.1, 3.0))
FULL = (400, 800, 800)  # (z, y, x)
# Points whose patches the definition holds at once; more do not make it faster.
DEFINITION_POINTS = 64
SIRT_ROWS, SIRT_ITERATIONS = 16, 10
Row = list[str | int | float | bool | None]


def noise(height: int, width: int) -> torch.Tensor:
    """White images ``(tilts, height, width)``; speed does not depend on what they show."""
    return torch.from_numpy(
        np.random.default_rng(0).standard_normal((len(ANGLES_DEG), height, width), dtype=np.float32)
    )


def time_network(
    network: Network, compute: Compute, shape: tuple[int, int, int], repeats: int, share: float = 0.0
) -> Timing:
    """Seconds of a slab of ``shape``, with a share of filtered back-projection mixed in."""
    _, height, width = shape
    geometry, grid = TiltGeometry(ANGLES_DEG, (height, width)), VolumeGrid(shape)
    curve = FusionCurve(share, (1.0,) * SHELLS)  # whatever its amplitude, it takes as long
    method = finished_method(NetworkMethod(network, geometry, grid, compute), curve, geometry, grid)
    images = noise(height, width)

    def run(rows: int) -> None:
        method(images[:, reflected_rows(-method.halo_px, rows + 2 * method.halo_px, height)])
        if compute.device.type == "cuda":
            torch.cuda.synchronize()

    run(method.row_multiple)  # compiles
    return median_seconds(lambda: run(height), repeats)


@torch.inference_mode()
def time_definition(network: Network, precision: torch.dtype, width: int, repeats: int) -> tuple[Timing, int]:
    """Seconds of the network's equations for some points of one row of patches, and how many voxels these make."""
    config = network.config
    rows = noise(config.rows + config.head.stride - 1, width)
    geometry = TiltGeometry(ANGLES_DEG, (rows.shape[1], width))
    plain = build_network(config).to(precision).requires_grad_(False)
    padded = [
        pad_rows(filtered, window).to(precision)
        for filtered, window in zip(network_rows(rows, config.input), config.input.windows, strict=True)
    ]
    context = plain.tilt_context(torch.from_numpy(geometry.angles_rad).float()).to(precision)
    columns = point_columns(geometry, np.zeros(DEFINITION_POINTS), np.arange(DEFINITION_POINTS, dtype=np.float64))

    def run() -> None:
        windows = [row_windows(p, columns, w) for p, w in zip(padded, config.input.windows, strict=True)]
        plain(torch.cat(windows, dim=-1), visible(columns, width), context)

    run()
    return median_seconds(run, repeats), DEFINITION_POINTS * config.head.stride**3


def products_per_second(compute: Compute) -> float:
    """Multiply-adds per second of a large product; on a CPU of one core, times the cores."""
    size = 1024 if compute.device.type == "cpu" else 8192
    a = torch.ones((size, size), dtype=compute.precision, device=compute.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        for _ in range(4):
            a @ a
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - start) / 4)
    torch.set_num_threads(threads)
    return size**3 / best * (threads if compute.device.type == "cpu" else 1)


def network_row(name: str, config: NetworkConfig, compute: Compute, timing: Timing, voxels: int, goal: float) -> Row:
    """A line of the table: what, where, speed, goal, whether it is reached, and the floor."""
    speed = voxels / timing.median
    floor = products_per_second(compute) / products_per_voxel(config)
    reached = speed >= goal if goal else None
    where = f"{compute.device.type} {precision_name(compute.precision)}"
    return [name, where, round(speed), f">= {goal:.3g}" if goal else None, reached, f"{speed / floor:.0%}"]


def time_fbp(shape: tuple[int, int, int], repeats: int) -> Timing:
    """Seconds of projector, filter and back-projection, in slabs."""
    depth, height, width = shape
    images = noise(height, width)

    def run() -> None:
        projector = make_projector(TiltGeometry(ANGLES_DEG, (height, width)), (depth, width))
        for start in range(0, height, MOST_SLAB_ROWS):
            fbp(projector, images[:, start : start + MOST_SLAB_ROWS])

    return median_seconds(run, repeats)


def time_command(shape: tuple[int, int, int], flags: list[str], repeats: int) -> Timing:
    """Seconds of the command from its start to its end, with start-up, reading and writing."""
    depth, height, width = shape
    with tempfile.TemporaryDirectory() as name:
        stack, angles, output = (Path(name) / file for file in ("stack.mrc", "stack.tlt", "volume.mrc"))
        write_stack(stack, noise(height, width).numpy(), 10.0, "noise")
        write_angles_deg(angles, ANGLES_DEG)
        command = [*cryolithe_command(), "reconstruct", str(stack), str(angles), "-o", str(output), "--overwrite"]
        command += ["--thickness", str(depth), *flags]
        return median_seconds(lambda: peak_rss_of(command), repeats)


def time_astra(shape: tuple[int, int, int], slices: int, repeats: int) -> dict[str, Timing]:
    """Seconds of ASTRA's CPU FBP of ``slices`` slices by kind of projector; empty where ASTRA is not installed."""
    if importlib.util.find_spec("astra") is None:
        return {}
    from astra_agreement import AstraSlice

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


def network_rows_of_table(compute: Compute, quick: bool, repeats: int, seconds: dict[str, Any]) -> list[Row]:
    """All network cases on a device."""
    cpu = compute.device.type == "cpu"
    depth, _, width = (16, 8, 48) if quick else FULL
    high = 8 if quick else (64 if cpu else 800)
    rows: list[Row] = []
    for name, kind, goal in (
        ("default", "RowSet lv1", 0.0 if cpu else 5.12e7),
        ("fast", "RowSet lv1", 8e5 if cpu else 5.12e7),
        ("draft", "RowSet lv2", 2.5e6 if cpu else 0.0),
    ):
        model, shape = load_model(name), (depth, high, width)
        for share in dict.fromkeys((0.0, fbp_share(model, None))):
            title = f"{kind}, bundled `{name}`{f', {share:.0%} FBP mixed in' if share else ', alone'}"
            timing = time_network(model.network, compute, shape, repeats, share)
            seconds[f"{title}, {compute.device.type}"] = timing._asdict()
            rows.append(network_row(title, model.network.config, compute, timing, depth * high * width, goal))
    return rows + published_rows(compute, quick, repeats, seconds)


def published_rows(compute: Compute, quick: bool, repeats: int, seconds: dict[str, Any]) -> list[Row]:
    """The published architecture, by the engine and on a CPU also as its equations say."""
    cpu = compute.device.type == "cpu"
    depth, _, width = (16, 8, 48) if quick else FULL
    name, rows = "SliceSet, published size", list[Row]()
    network = build_network(SliceSetConfig(input=InputWindow(context_taps=0, unit_noise=False), head=Head(1)))
    height = 4 if quick else (16 if cpu else 64)
    shape = (depth // 4, height, width // 2) if cpu else (depth, height, width)
    timing, goal = time_network(network, compute, shape, 1), 0.0
    if cpu:
        best = float("inf")
        for precision in (torch.float32, torch.bfloat16):
            plain, voxels = time_definition(network, precision, width, repeats)
            seconds[f"{name}, definition {precision_name(precision)}"] = plain._asdict()
            where = f"cpu {precision_name(precision)}"
            rows.append([f"{name}, definition", where, round(voxels / plain.median), None, None, None])
            best = min(best, plain.median / voxels)
        goal = 3 / best
    seconds[f"{name}, {compute.device.type}"] = timing._asdict()
    return [*rows, network_row(name, network.config, compute, timing, shape[0] * shape[1] * shape[2], goal)]


def main() -> None:
    """Measure all and compare with the goals."""
    options = parser("engine", __doc__)
    options.add_argument("--device", default="cpu", help="cpu, or cuda: then results go to engine_cuda.json")
    options.add_argument("--precision", default="auto")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--astra-slices", type=int, default=16)
    options.add_argument("--full", action="store_true", help="also whole runs of 800 x 800 x 400 from file to file")
    arguments = read_arguments(options)
    device = choose_device(arguments.device)
    if device.type == "cuda":
        arguments.output = arguments.output.with_name(arguments.output.name.replace("engine", "engine_cuda"))
    keep_freed_memory()  # as the commands do
    compute = Compute(device, choose_precision(arguments.precision, device))
    quick, repeats = arguments.quick, 2 if arguments.quick else arguments.repeats
    shape = (16, 32, 48) if quick else FULL
    seconds: dict[str, Any] = {}
    networks = network_rows_of_table(compute, quick, repeats, seconds)
    tables = [
        Table(
            "Networks",
            ["network", "device", "voxels/s", "goal", "reached", "of the floor"],
            networks,
            f"Medians of {repeats}; 41 tilts, {shape[2]} pixels wide, {shape[0]} voxels thick. Definition: patches of "
            f"{DEFINITION_POINTS} points at a time; the goal of SliceSet is 3 times the faster one.",
        )
    ]
    others: list[Row] = []
    size = " x ".join(map(str, shape))
    if device.type == "cpu":
        astra = time_astra(shape, 2 if quick else arguments.astra_slices, repeats)
        per_volume = {
            kind: timing.median * shape[1] / (2 if quick else arguments.astra_slices) for kind, timing in astra.items()
        }
        timing = time_fbp(shape, repeats)
        goal = min(per_volume.values()) / 2 if per_volume else None
        others.append(["FBP (s)", size, timing.median, f"<= {goal:.3g}" if goal else None])
        others[-1].append(timing.median <= goal if goal else None)
        seconds |= {"FBP": timing._asdict()} | {f"ASTRA {k}": t._asdict() for k, t in astra.items()}
        others += [
            [f"ASTRA's CPU FBP, {kind} (s)", f"{size}, extrapolated", s, None, None] for kind, s in per_volume.items()
        ]
        timing = time_sirt(shape, 4 if quick else SIRT_ROWS, 1)
        others.append(
            [f"SIRT, {SIRT_ITERATIONS} iterations (s)", f"{SIRT_ROWS} rows of {size}", timing.median, None, None]
        )
        for words, limit in ((["--help"], 0.5), (["info", str(ROOT / "examples" / "needle" / "needle.mrc")], 0.7)):
            timing = median_seconds(lambda words=words: peak_rss_of([*cryolithe_command(), *words]), 5)  # type: ignore[misc]
            others.append(
                [f"start-up, cryolithe {words[0]} (s)", "", timing.median, f"< {limit}", timing.median < limit]
            )
    for method, goal in (("fbp", None), ("network", 10.0 if device.type == "cuda" else None)):
        if arguments.full or quick:
            timing = time_command(shape, ["--method", method, "--device", arguments.device], 1)
            seconds[f"{method}, file to file"] = timing._asdict()
            others.append([f"{method}, file to file (s)", size, timing.median, goal and f"<= {goal:g}", None])
            others[-1][-1] = timing.median <= goal if goal else None
    if others:
        tables.append(
            Table("Seconds", ["what", "task", "measured", "goal", "reached"], others, "Volumes are (z, y, x).")
        )
    record(
        "engine" if device.type == "cpu" else "engine_cuda", {"tables": tables, "seconds": seconds}, arguments.output
    )


if __name__ == "__main__":
    main()
