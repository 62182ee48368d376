"""Seconds and peak memory against the size of the volume: FBP, SIRT, networks and ASTRA, from file to file.

Each cell is one process that reads a stack of 41 white images and writes a volume, with start-up, reading and writing;
its time and its peak resident memory are counted (and the GPU's, as torch counts it). A cell that would take longer
than --minutes is made of a part of its rows (y), which stand alone behind each other: its seconds are then
extrapolated along a line through two runs, and its memory is that of the slabs that fit the part. Finished cells are
kept: a run that was stopped goes on where it was, and one of other cells writes a table of all.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import METHOD_WORDS, Cell, Table, commit, device, parser, peak_rss_of, read_arguments, record, text_of

from cryolithe.formats import read_tilt_series, write_angles_deg, write_stack
from cryolithe.machine.device import choose_device
from cryolithe.report.json_files import write_json

ANGLES_DEG = tuple(float(a) for a in np.arange(-60.0, 60.1, 3.0))
SIZES = (  # (z, y, x)
    (256, 256, 256),
    (512, 512, 512),
    (512, 1024, 1024),
    (512, 2048, 2048),
    (1024, 2048, 2048),
)
QUICK = ((16, 48, 64),)
# SliceSet has random weights: it cannot tell the images' contrast, and trials of the wedge would be of no use.
SLICESET_WORDS = ["--model", "SLICESET", "--contrast", "dark", "--wedge-trust", "full"]
METHODS = {**METHOD_WORDS, "SliceSet": SLICESET_WORDS, "ASTRA": []}
# Rows of the first run; the second has at least MORE times as many, so that what does not grow with them (start-up, the
# rows beyond the ends that a network looks at) is told from what does.
FIRST_ROWS = {"FBP": 64, "SIRT": 8, "default": 8, "fast": 8, "draft": 8, "SliceSet": 2, "ASTRA": 4}
MORE = 3
SLACK = 3.0  # a run is stopped after so many times the minutes it should take at most
# Two runs tell seconds a row from those of the start only if the longer one takes so many times as long.
TELLING = 1.4
Run = dict[str, Any]


def reconstruct_here(words: list[str], report: Path) -> None:
    """``cryolithe reconstruct`` in this process; the GPU's peak goes into the report."""
    from cryolithe.cli import main as command

    command(["reconstruct", *words], standalone_mode=False)
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
    report.write_text(json.dumps({"gpu_peak_bytes": gpu}), encoding="utf-8")


def astra_here(stack: Path, depth: int, where: str, report: Path) -> None:
    """ASTRA's FBP with its ramp, slice by slice; as fast on a CPU as ASTRA is (its linear projector)."""
    import astra
    from astra_agreement import AstraSlice

    series = read_tilt_series(stack, stack.with_suffix(".tlt"))
    _, rows, width = series.images.shape
    gpu = where.startswith("cuda")
    if gpu and not astra.use_cuda():
        raise SystemExit("this ASTRA has no CUDA")
    volume = np.lib.format.open_memmap(stack.with_suffix(".npy"), "w+", np.float32, (rows, depth, width))
    program = AstraSlice(np.asarray(ANGLES_DEG), (depth, width), width, "cuda" if gpu else "linear")
    for row in range(rows):
        sinogram = np.stack([series.image(n)[row] for n in range(len(ANGLES_DEG))]).astype(np.float32)
        volume[row] = program.fbp(sinogram, "FBP_CUDA" if gpu else "FBP")
    program.close()
    report.write_text(json.dumps({"gpu_peak_bytes": 0}), encoding="utf-8")  # torch does not see ASTRA's memory


def write_sliceset(path: Path) -> None:
    """A SliceSet of the published size with random weights; speed does not depend on them."""
    from cryolithe.network import Head, InputWindow, SliceSetConfig, build_network
    from cryolithe.network.checkpoint import save_network

    network = build_network(SliceSetConfig(input=InputWindow(context_taps=0, unit_noise=False), head=Head(1)))
    with torch.no_grad():
        for leaf in network.parameters():
            leaf.copy_(0.02 * torch.randn(leaf.shape, generator=torch.Generator().manual_seed(0)))
    save_network(path, network, {"name": "SliceSet of the published size, random weights"})


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all cells share: the device as the command takes it, its memory limit, the time limit, temporary files."""

    where: str
    max_memory_gb: float
    minutes: float
    folder: Path

    def run(self, size: tuple[int, int, int], method: str, rows: int, expected_seconds: float = 0.0) -> Run:
        """Measure a number of rows in a process of its own."""
        depth, _, width = size
        stack, report = self.folder / "stack.mrc", self.folder / "report.json"
        output = self.folder / "volume.mrc"
        images = np.random.default_rng(0).standard_normal((len(ANGLES_DEG), rows, width), dtype=np.float32)
        write_stack(stack, images, 10.0, "noise", overwrite=True)
        write_angles_deg(stack.with_suffix(".tlt"), ANGLES_DEG, overwrite=True)
        del images
        command = [sys.executable, str(Path(__file__).resolve()), "--child", method, str(report)]
        if method == "ASTRA":
            command += [str(stack), str(depth), self.where]
        else:
            words = [word.replace("SLICESET", str(self.folder / "sliceset.safetensors")) for word in METHODS[method]]
            command += [str(stack), str(stack.with_suffix(".tlt")), "-o", str(output), "--overwrite", *words]
            command += ["--thickness", str(depth), "--device", self.where]
            # On a GPU the limit is the GPU's own memory, as by default.
            command += [] if self.where.startswith("cuda") else ["--max-memory", str(self.max_memory_gb)]
        try:
            done = peak_rss_of(command, limit_seconds=max(60 * self.minutes * SLACK, expected_seconds))
        except subprocess.TimeoutExpired:
            return {"rows": rows, "stopped": True}
        except RuntimeError as error:
            return {"rows": rows, "failed": str(error).strip().splitlines()[-1]}
        finally:
            for leftover in (stack, stack.with_suffix(".npy")):
                leftover.unlink(missing_ok=True)
        found: Run = {"rows": rows, "seconds": done.seconds, "peak_bytes": done.peak_bytes}
        found |= json.loads(report.read_text(encoding="utf-8"))
        if method != "ASTRA":
            found["slab_rows"] = json.loads(output.with_suffix(".json").read_text())["compute"]["slab_rows"]
            output.unlink()
        return found

    def cell(self, size: tuple[int, int, int], method: str) -> dict[str, Any]:
        """All runs of a cell: a few rows, and then all of them, or as many as the time allows."""
        height, limit = size[1], 60 * self.minutes
        runs = [self.run(size, method, min(FIRST_ROWS[method], height))]
        if "seconds" in runs[0] and runs[0]["rows"] < height:
            first = runs[0]["rows"]
            fitting = int(first * limit / runs[0]["seconds"])
            rows = height if fitting >= height else max(fitting - fitting % 8, MORE * first)
            rows = min(rows, height)
            # Without a second run the first one tells nothing: it may be all start and rows beyond the ends.
            runs.append(self.run(size, method, rows, runs[0]["seconds"] * rows / first))
            if "seconds" in runs[1]:  # again with what is known of start-up now, which may well be all rows
                slope = (runs[1]["seconds"] - runs[0]["seconds"]) / max(1, runs[1]["rows"] - first)
                fitting = runs[1]["rows"] + int((limit - runs[1]["seconds"]) / max(slope, 1e-6))
                fitting = height if fitting >= height else fitting - fitting % 8
                if slope > 0 and fitting >= 2 * runs[1]["rows"]:
                    runs.append(self.run(size, method, fitting))
                while telling(runs) is False and runs[-1]["rows"] < height:
                    runs.append(self.run(size, method, min(3 * runs[-1]["rows"], height)))
        return {"runs": runs, **summary(runs, height), "commit": commit(), "date": today()}


def telling(runs: list[Run]) -> bool | None:
    """Whether the last two runs tell the seconds of a row from those of the start; None where one was stopped."""
    if any("seconds" not in run for run in runs[-2:]):
        return None
    return bool(runs[-1]["seconds"] > TELLING * runs[-2]["seconds"])


def today() -> str:
    """Date and time, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def summary(runs: list[Run], height: int) -> dict[str, Any]:
    """Seconds and memory of a cell, and whether all its rows were run."""
    good = [run for run in runs if "seconds" in run]
    if not good:
        return {"seconds": None, "why": runs[-1].get("failed", f"more than the limit for {runs[-1]['rows']} rows")}
    last = good[-1]
    seconds, whole = last["seconds"], last["rows"] >= height
    if not whole and len(good) == 1:
        return {"seconds": None, "why": runs[-1].get("failed", f"more than the limit for {runs[-1]['rows']} rows")}
    if not whole and not telling(good):  # the very first run may have compiled or read what later ones find
        return {"seconds": None, "why": f"{last['rows']} rows take hardly longer than {good[-2]['rows']}"}
    if not whole:
        first = good[-2]
        slope = (last["seconds"] - first["seconds"]) / (last["rows"] - first["rows"])
        seconds += slope * (height - last["rows"])
    slab = last.get("slab_rows", 1)
    return {
        "seconds": seconds,
        "rows": last["rows"],
        "extrapolated": not whole,
        "peak_bytes": last["peak_bytes"],
        "gpu_peak_bytes": last["gpu_peak_bytes"],
        # Fewer rows than a slab of the whole volume: a full slab needs more.
        "memory_complete": whole or last["rows"] > slab,
    }


def table_of(cells: dict[str, Any], sizes: list[tuple[int, int, int]], methods: list[str], gpu: bool) -> Table:
    """One row for each size; ~ marks what was extrapolated, >= memory of less than a full slab."""
    columns = ["volume (z, y, x)"]
    for method in methods:
        columns += [f"{method} s", f"{method} GB"]
    rows: list[list[Cell]] = []
    parts, whys = [], []
    for size in sizes:
        row: list[Cell] = [" x ".join(map(str, size))]
        for method in methods:
            cell = cells.get(key(size, method), {"seconds": None, "why": "not asked for"})
            if cell["seconds"] is None:
                row += ["-", "-"]
                whys.append(f"{method} at {size[2]}: {cell['why']}")
                continue
            rounded = text_of(float(f"{cell['seconds']:.3g}"))
            row.append(f"~{rounded}" if cell["extrapolated"] else rounded)
            memory = f"{cell['peak_bytes'] / 1e9:.2f}" + (f" + {cell['gpu_peak_bytes'] / 1e9:.2f}" if gpu else "")
            row.append(memory if cell["memory_complete"] else f">= {memory}")
            if cell["extrapolated"]:
                parts.append(f"{method} {' x '.join(map(str, size))}: {cell['rows']}")
        rows.append(row)
    note = (
        f"{len(ANGLES_DEG)} images, float32, from file to file with start-up; SIRT with 30 iterations; SliceSet of the "
        "published size; ASTRA's FBP with its ramp, slice by slice. Memory: peak resident size of the process"
        + (", and after + the GPU's as torch counts it (ASTRA's own is not seen)" if gpu else "")
        + "; 1 GB is 10⁹ bytes."
    )
    if parts:
        note += f" ~: extrapolated from a part of the rows ({'; '.join(parts)})."
        note += (
            " Rows that neighbouring slabs of a whole run share are made once for each: up to 10 % more for networks."
        )
        note += " >=: the part is less than a slab of the whole run, which needs more."
    if whys:
        note += f" -: not measured ({'; '.join(whys)})."
    return Table("Seconds and peak memory", columns, rows, note)


def key(size: tuple[int, int, int], method: str) -> str:
    """Name of a cell."""
    return f"{' x '.join(map(str, size))}, {method}"


def earlier_cells(paths: tuple[Path, ...], same: dict[str, Any]) -> dict[str, Any]:
    """Cells that were finished with the same device and limits."""
    for path in paths:
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.get("conditions") == same:
                return dict(found["cells"])
    return {}


def main() -> None:
    """Measure what is missing, then write the table."""
    if sys.argv[1:2] == ["--child"]:
        method, report, *words = sys.argv[2:]
        if method == "ASTRA":
            astra_here(Path(words[0]), int(words[1]), words[2], Path(report))
        else:
            reconstruct_here(words, Path(report))
        return
    options = parser("speed", __doc__)
    options.add_argument("--device", default="cpu", help="cpu, or cuda: then results go to speed_cuda.json")
    options.add_argument("--minutes", type=float, default=1.0, help="at most for the run of a cell; more: part of it")
    options.add_argument("--max-memory", type=float, default=4.0, metavar="GB", help="limit for our methods on a CPU")
    options.add_argument("--sizes", default="", help="widths or shapes, such as 256,512x1024x1024; default: all")
    options.add_argument("--methods", default=",".join(METHODS), help=f"any of {', '.join(METHODS)}")
    options.add_argument("--fresh", action="store_true", help="measure again what is asked for and there already")
    options.add_argument("--workdir", type=Path, help="for temporary files; up to 10 GB for the largest volume")
    arguments = read_arguments(options)
    gpu = choose_device(arguments.device).type == "cuda"
    if gpu:
        arguments.output = arguments.output.with_name(arguments.output.name.replace("speed", "speed_cuda"))
    wanted = arguments.sizes.split(",") if arguments.sizes else []
    every = QUICK if arguments.quick else SIZES
    sizes = [s for s in every if not wanted or {str(s[2]), "x".join(map(str, s))} & set(wanted)]
    methods = arguments.methods.split(",")
    if not sizes or any(method not in METHODS for method in methods):
        raise SystemExit(f"expected sizes among {SIZES} and methods among {', '.join(METHODS)}")
    machine = {name: device()[name] for name in ("cpu", "cores", "threads", "torch")}
    if gpu:
        machine["gpu"] = torch.cuda.get_device_name()
    same = {"machine": machine, "minutes": arguments.minutes, "max_memory": arguments.max_memory}
    kept = arguments.output.with_name(arguments.output.name + ".partial")  # tables.py does not take it for a result
    cells = earlier_cells((kept, arguments.output), same)
    for size in every:
        for name in {key(size, method) for method in METHODS} & set(cells):
            cells[name] |= summary(cells[name]["runs"], size[1])
    if arguments.fresh:
        asked = {key(size, method) for size in sizes for method in methods}
        cells = {name: cell for name, cell in cells.items() if name not in asked}
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.workdir) as name:
        bench = Bench(arguments.device, arguments.max_memory, arguments.minutes, Path(name))
        write_sliceset(bench.folder / "sliceset.safetensors")
        for size in sizes:
            for method in methods:
                if key(size, method) not in cells:
                    cells[key(size, method)] = bench.cell(size, method)
                    write_json(kept, {"conditions": same, "cells": cells})
                    shown = cells[key(size, method)]
                    print(f"{key(size, method)}: {shown['seconds'] or shown['why']}", flush=True)
    sizes = [size for size in every if any(key(size, method) in cells for method in METHODS)]
    methods = [method for method in METHODS if any(key(size, method) in cells for size in sizes)]
    tables = [table_of(cells, sizes, methods, gpu)]
    record("speed_cuda" if gpu else "speed", {"tables": tables, "conditions": same, "cells": cells}, arguments.output)
    kept.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
