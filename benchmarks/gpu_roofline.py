"""A roofline for each stage of a slab: operations and bytes counted, seconds measured, beside what the device can do.

    python benchmarks/gpu_roofline.py --device cuda --model default --series 41 800 800 --depth 400 --rows 128

Operations are multiplications and additions; bytes are those that a stage cannot do without: what it takes and what it
gives, once (of a trunk: for each of its convolutions; of Fourier transforms: for each axis). Peaks are measured in the
same run, by a large product in the stage's precision and by a large copy. The roofline is the larger of operations and
bytes, each divided by its peak; a stage at 100 % of it cannot become faster. On a GPU seconds are between events on
its stream, on a CPU by its clock, with one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.inference import engine as engines
from cryolithe.machine.device import choose_device, network_precision
from cryolithe.network import RowSet
from cryolithe.network.checkpoint import load_model
from cryolithe.projector import classical, make_projector
from cryolithe.projector.footprint import PIXELS_PER_VOXEL
from cryolithe.reconstruction.slabwise.fusion import SHELLS, FusionCurve
from cryolithe.reconstruction.slabwise.methods import Compute, FbpMethod, NetworkMethod, SirtMethod
from cryolithe.reconstruction.slabwise.mixing import finished_method
from cryolithe.reconstruction.slabwise.networks import make_network_method

FLAT = FusionCurve(0.3, (1.0,) * SHELLS)
COLUMNS = ("stage", "G operations", "GB", "seconds", "of all", "roofline, s", "bound by", "of the roofline")


@dataclass(frozen=True)
class Work:
    """Operations, bytes, and whether it is done in the network's precision; else in float32."""

    operations: float
    bytes: float
    low: bool = False


@dataclass(frozen=True)
class Peaks:
    """What a device does at most in a second: operations in the network's precision and in float32, bytes moved."""

    low: float
    float32: float
    bytes: float
    link: float


@dataclass(frozen=True)
class Stage:
    """What was counted and measured of a stage."""

    name: str
    operations: float
    bytes: float
    seconds: float
    low: bool

    def roofline(self, peaks: Peaks) -> tuple[float, str]:
        """The least seconds that it can take, and what forbids less."""
        if self.name.startswith("copy"):
            return self.bytes / peaks.link, "link"
        products = self.operations / (peaks.low if self.low else peaks.float32)
        moved = self.bytes / peaks.bytes
        return (products, "operations") if products > moved else (moved, "memory")


class Meter:
    """Seconds and work by stage.

    Args:
        device: whose time it is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.work: dict[str, list[Work]] = defaultdict(list)
        self._marks: dict[str, list[tuple[Any, Any]]] = defaultdict(list)

    def mark(self) -> Any:
        """Now, on the device."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def timed(self, call: Callable[..., Any], told: Callable[..., tuple[str, Work]]) -> Callable[..., Any]:
        """A call that is measured.

        Args:
            call: anything.
            told: says of its result and its arguments which stage it is, and what it does.
        """

        def wrapped(*arguments: Any, **named: Any) -> Any:
            start = self.mark()
            result = call(*arguments, **named)
            stop = self.mark()
            name, work = told(result, *arguments)
            self.work[name].append(work)
            self._marks[name].append((start, stop))
            return result

        return wrapped

    def seconds(self, name: str) -> float:
        """Of all calls of a stage."""
        if self.device.type != "cuda":
            return sum(stop - start for start, stop in self._marks[name])
        torch.cuda.synchronize(self.device)
        return sum(start.elapsed_time(stop) for start, stop in self._marks[name]) / 1e3

    def stages(self, times: float) -> list[Stage]:
        """All stages in the order in which they came first, so many times."""
        return [
            Stage(
                name,
                times * sum(one.operations for one in work),
                times * sum(one.bytes for one in work),
                times * self.seconds(name),
                work[0].low,
            )
            for name, work in self.work.items()
        ]


def size(*tensors: torch.Tensor) -> float:
    """Bytes."""
    return float(sum(one.numel() * one.element_size() for one in tensors))


def of_lift(
    _: None, rows: list[torch.Tensor], windows: Any, maps: torch.Tensor, lifted: torch.Tensor
) -> tuple[str, Work]:
    """Windows times maps; on a GPU rows are then stored in the network's precision."""
    tilts, count, width = rows[0].shape
    operations = 2.0 * count * tilts * (width + 2) * maps.shape[1] * maps.shape[2]
    return "lift", Work(operations, size(*rows, maps, lifted))


def of_pool(made: torch.Tensor, lifted: torch.Tensor, start: torch.Tensor, *places: torch.Tensor) -> tuple[str, Work]:
    """An interpolation, a ReLU and a sum for each tilt."""
    return "pool", Work(5.0 * made.numel() * start.shape[0], size(lifted, start, *places, made))


def of_layers(made: torch.Tensor, x: torch.Tensor, steps: Any, combine: Any) -> tuple[str, Work]:
    """Products with weights."""
    weights = [step.weight for step in steps]
    positions = x.numel() / x.shape[-1]
    operations = 2.0 * positions * sum(weight.numel() for weight in weights)
    return "join" if steps is combine else "encode", Work(operations, size(x, made, *weights), True)


def of_trunk(made: torch.Tensor, joined: torch.Tensor, beside: Any, trunk: Any) -> tuple[str, Work]:
    """Convolutions with all that goes in and out of each, on the blocks that later ones see."""
    wanted = [size - sum(ends) for size, ends in zip(joined.shape[1:4], beside, strict=True)]
    reach, item, width = sum(trunk.spacings) + len(trunk.spacings), trunk.last.weight.element_size(), joined.shape[-1]

    def blocks(within: int) -> int:
        return math.prod(size + sum(ends) for size, ends in zip(wanted, beside.within(within), strict=True))

    operations, moved, before = 0.0, 0.0, blocks(reach)
    for step in [step for spacing in trunk.spacings for step in (spacing, 1)]:
        reach -= step
        after = blocks(reach)
        operations += 2.0 * 27 * width**2 * after
        moved += item * width * (before + after)
        before = after
    for layer in (trunk.widen, trunk.narrow, trunk.last):
        operations += 2.0 * layer.weight.numel() * before
        moved += item * before * sum(layer.weight.shape[:2])
    return "trunk", Work(operations, moved + size(*trunk.parameters()), True)


def of_synthesis(made: torch.Tensor, values: torch.Tensor, taps: int) -> tuple[str, Work]:
    """A filter along each axis; without wavelets nothing but a copy."""
    return "synthesis", Work(3.0 * 2 * taps * made.numel() if taps else 0.0, size(values, made))


def of_filter(name: str, made: Any, rows: torch.Tensor) -> tuple[str, Work]:
    """One transform there and one back for each result."""
    results = made if isinstance(made, list) else [made]
    results = getattr(made, "rows", results)
    length = 2 * rows.shape[-1]
    lines = rows.numel() / rows.shape[-1]
    transform = 2.5 * length * math.log2(length)
    moved = 4.0 * length * lines * (2 + 3 * len(results))
    return name, Work(transform * lines * (1 + len(results)), moved)


def of_projection(name: str, made: torch.Tensor, given: torch.Tensor, entries: float) -> tuple[str, Work]:
    """A product and a sum for each weight and row; weights (12 bytes each) are read for every 64 rows."""
    rows = given.shape[1]
    return name, Work(2.0 * entries * rows, size(given, made) + 12 * entries * math.ceil(rows / 64))


def of_planes(made: torch.Tensor, volume: torch.Tensor, plane_values: float) -> tuple[str, Work]:
    """Two-dimensional transforms of mirrored planes, there and back."""
    planes = volume.shape[1]
    operations = planes * 2 * 2.5 * plane_values * math.log2(plane_values)
    return "fusion: planes", Work(operations, planes * plane_values * 4 * 2 * 5 + 2 * size(volume))


@contextlib.contextmanager
def replaced(changes: list[tuple[Any, str, Callable[[Any], Any]]]) -> Iterator[None]:
    """Replace attributes of objects by what is made of them, for a while."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for (owner, name, original), (_, _, change) in zip(before, changes, strict=True):
        setattr(owner, name, change(original))
    try:
        yield
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)


def changes_of(method: Any, meter: Meter) -> list[tuple[Any, str, Callable[[Any], Any]]]:
    """What has to be watched of a method."""

    def watch(owner: Any, name: str, told: Callable[..., tuple[str, Work]]) -> tuple[Any, str, Callable[[Any], Any]]:
        return owner, name, lambda call: meter.timed(call, told)

    def projection(projector: Any, way: str, name: str) -> tuple[Any, str, Callable[[Any], Any]]:
        entries = math.prod(projector.slice_shape) * projector.geometry.tilts * PIXELS_PER_VOXEL
        return watch(projector, way, lambda made, given: of_projection(name, made, given, entries))

    if isinstance(method, FbpMethod):
        filtered = watch(classical, "filter_rows", lambda made, rows, *more: of_filter("filter", made, rows))
        return [filtered, projection(method.projector, "adjoint", "back-projection")]
    if isinstance(method, SirtMethod):
        ways = {"forward": "projection", "adjoint": "back-projection"}
        return [projection(method.projector, way, name) for way, name in ways.items()]
    engine = getattr(method.engine, "_engine", method.engine)
    taps = 8 if method.config.head.stride > 1 else 0
    combine = engine.network.combine
    found = [
        watch(method.sampling, "inputs", lambda made, rows, first: of_filter("filter", made, rows)),
        watch(engines, "lift_rows", of_lift),
        watch(engines, "apply_steps", lambda made, x, steps: of_layers(made, x, steps, combine)),
        watch(engine, "pool", of_pool),
        watch(method.sampling, "volume", lambda made, values, *more: of_synthesis(made, values, taps)),
    ]
    if method.trunk is not None:
        found.append(
            watch(method.engine, "_refined", lambda made, joined, beside: of_trunk(made, joined, beside, method.trunk))
        )
    if method.fusion is not None:
        mirrored = math.prod(method.fusion._planes._lengths())
        found += [
            watch(method.fusion, "_filtered", lambda made, rows: of_filter("fusion: filter", made, rows)),
            projection(method.fusion.projector, "adjoint", "fusion: back-projection"),
            watch(method.fusion, "_planes", lambda made, volume: of_planes(made, volume, mirrored)),
        ]
    return found


def measured(method: Any, rows: torch.Tensor, times: float = 1.0) -> list[Stage]:
    """All stages of a slab, its copies to and from the device, and what is not in any stage.

    Args:
        method: for slabs.
        rows: of the detector, on the host.
        times: by which everything is multiplied: slabs of a volume.
    """
    device = method.device
    pinned = rows.pin_memory() if device.type == "cuda" else rows
    there = pinned.to(device)
    method(there)  # compiles, and fills what is kept between slabs
    meter = Meter(device)
    arriving = meter.timed(lambda: pinned.to(device, copy=True), lambda made: ("copy: rows", Work(0, size(made))))
    there = arriving()
    start = meter.mark()
    with replaced(changes_of(method, meter)):
        values = method(there)
    meter._marks["whole"].append((start, meter.mark()))
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=device.type == "cuda")
    meter.timed(lambda: host.copy_(values), lambda made: ("copy: voxels", Work(0, size(made))))()
    stages = meter.stages(times)
    inside = sum(stage.seconds for stage in stages if not stage.name.startswith("copy"))
    rest = times * meter.seconds("whole") - inside
    return [*stages, Stage("the rest: rows kept and joined", 0.0, 0.0, rest, False)]


def peaks(device: torch.device, precision: torch.dtype) -> Peaks:
    """Measure a device: large products, a large copy in its memory, a large copy to it."""
    side, length = (8192, 1 << 28) if device.type == "cuda" else (512, 1 << 22)

    def best(call: Callable[[], Any]) -> float:
        seconds = []
        for _ in range(6):
            meter = Meter(device)
            meter.timed(call, lambda made: ("one", Work(0, 0)))()
            seconds.append(meter.seconds("one"))
        return min(seconds)

    def products(dtype: torch.dtype) -> float:
        a = torch.randn((side, side), device=device).to(dtype)
        return 2.0 * side**3 / best(lambda: a @ a)

    source = torch.ones(length, device=device)
    target = torch.empty_like(source)
    host = torch.ones(length // 4, pin_memory=device.type == "cuda")
    moved = 2.0 * size(source) / best(lambda: target.copy_(source))
    link = size(host) / best(lambda: host.to(device, copy=True))
    return Peaks(products(precision), products(torch.float32), moved, link)


def table_of(stages: list[Stage], limits: Peaks, title: str) -> dict[str, Any]:
    """Stages with their rooflines, for readers."""
    whole = sum(stage.seconds for stage in stages if not stage.name.startswith("copy"))
    rows: list[tuple[str | float | None, ...]] = []
    for stage in stages:
        least, bound = stage.roofline(limits)
        share = f"{stage.seconds / whole:.0%}" if whole > 0 and not stage.name.startswith("copy") else None
        counted = stage.operations > 0 or stage.bytes > 0
        reached = f"{least / stage.seconds:.0%}" if counted and stage.seconds > 0 else None
        rows.append(
            (
                stage.name, stage.operations / 1e9 or None, stage.bytes / 1e9 or None, stage.seconds, share,
                least if counted else None, bound if counted else None, reached,
            )
        )  # fmt: skip
    note = (
        f"Measured peaks: {limits.low / 1e12:.3g} T operations/s in the network's precision, "
        f"{limits.float32 / 1e12:.3g} in float32, "
        f"{limits.bytes / 1e9:.3g} GB/s of memory, {limits.link / 1e9:.3g} GB/s to the device."
    )
    return {"title": title, "columns": COLUMNS, "rows": rows, "note": note}


def method_of(arguments: argparse.Namespace, device: torch.device) -> Any:
    """The method that the command line names, for one slab of its rows."""
    tilts, height, width = arguments.series
    geometry = TiltGeometry(tuple(float(a) for a in np.linspace(-60, 60, tilts)), (height, width))
    grid = VolumeGrid((arguments.depth, arguments.rows, width))
    projector = make_projector(geometry, (arguments.depth, width), device)
    if arguments.model in ("fbp", "sirt"):
        return FbpMethod(projector, classical.WINDOW) if arguments.model == "fbp" else SirtMethod(projector, 5)
    model = load_model(arguments.model)
    threads = 1 if device.type == "cpu" else None
    compute = Compute(device, network_precision(arguments.precision, device), threads)
    method = make_network_method(model, geometry, grid, compute)
    fusible = isinstance(model.network, RowSet) and not model.convention.published
    return finished_method(method, FLAT, geometry, grid) if fusible else method


def print_table(table: dict[str, Any]) -> None:
    """In columns."""
    cells = [table["columns"], *(["-" if c is None else f"{c:.4g}" if isinstance(c, float) else str(c) for c in row]
                                 for row in table["rows"])]  # fmt: skip
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    print(table["title"])
    for row in cells:
        print("  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]))
    print(table["note"])


def main() -> None:
    """Measure the slab that the command line describes."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--device", default="auto")
    options.add_argument("--precision", default="auto")
    options.add_argument("--model", default="default", help="a model, fbp or sirt")
    options.add_argument("--series", type=int, nargs=3, default=(41, 800, 800), metavar=("TILTS", "Y", "X"))
    options.add_argument("--depth", type=int, default=400)
    options.add_argument("--rows", type=int, default=128, help="of the slab")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--output", type=Path, help="JSON")
    arguments = options.parse_args()
    device = choose_device(arguments.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    method = method_of(arguments, device)
    whole = arguments.rows + -arguments.rows % method.row_multiple + 2 * method.halo_px
    shape = (arguments.series[0], whole, arguments.series[2])
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    runs = [measured(method, rows) for _ in range(arguments.repeats)]
    # Of each stage the median; they are the same in every run.
    stages = [
        Stage(s[0].name, s[0].operations, s[0].bytes, statistics.median(one.seconds for one in s), s[0].low)
        for s in zip(*runs, strict=True)
    ]
    precision = method.compute.precision if isinstance(method, NetworkMethod) else torch.float32
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "one thread of the CPU"
    what = f"{arguments.model}, {str(precision).removeprefix('torch.')}"
    title = f"Roofline of a slab of {arguments.rows} rows: {what}, on {name}"
    table = table_of(stages, peaks(device, precision), title)
    print_table(table)
    if arguments.output:
        arguments.output.write_text(json.dumps({"tables": [table]}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
