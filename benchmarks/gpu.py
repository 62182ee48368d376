"""Everything about a GPU by one command: is it right, how fast is it, and what does training reach?

    python benchmarks/gpu.py --parts a,b,big,c,d --out FOLDER

Parts, in this order; each is saved as FOLDER/gpu_PART.json as soon as it is done, and as far as it came when it is
stopped:

    a    ``doctor`` with its self-test, and all tests marked ``gpu``
    b    seconds from file to file and of the computation alone, peak memory, and each stage beside its roofline:
         41 x 256 x 256 -> 256 x 256 x 256 and 41 x 800 x 800 -> 400 x 800 x 800, networks and FBP, beside the
         published program's times on an A100 (arXiv version of its paper, voxels 23:36, wavelets 3:07); once
         41 x 2048 x 2048 -> 512 x 2048 x 2048 with ``default``
    big  41 x 4096 x 4096, binned by 2 -> 1024 x 2048 x 2048 with ``default``
    c    training: points per second of the bundled architectures, against loader threads, and simulated series per
         second against worker processes
    d    training of ``fast`` and ``default`` by their recipes for --minutes each; models and tables are left in FOLDER

It needs no installation: ``PYTHONPATH=. python3 benchmarks/gpu.py`` runs from the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

TESTS = (
    "tests/reconstruction/test_gpu.py",
    "tests/cli/test_doctor.py",
    "tests/network/test_inference.py::test_the_kernel_for_gpus_pools_as_defined",
    "tests/network/test_inference.py::test_the_kernel_for_gpus_keeps_what_is_not_finite",
)
TILTS = 41
PUBLISHED_SECONDS = {"voxels": 23 * 60 + 36, "wavelets": 3 * 60 + 7}


@dataclass(frozen=True)
class Cell:
    """A series and how it is reconstructed.

    Attributes:
        images: pixels ``(y, x)`` of an image.
        depth: voxels along z.
        words: further words of the command.
        seconds: after which it is stopped.
        once: one run from file to file only.
    """

    images: tuple[int, int]
    depth: int
    words: tuple[str, ...]
    seconds: float = 90.0
    once: bool = False

    @property
    def name(self) -> str:
        """For tables."""
        size = f"{TILTS} x {self.images[0]} x {self.images[1]} -> {self.depth}"
        return f"{size}: {' '.join(self.words)}"


@dataclass(frozen=True)
class Training:
    """What is trained in part d, for how long, with which molecules, and where it is left."""

    minutes: float
    molecules: Path | None
    folder: Path
    models: tuple[str, ...] = ("fast", "default")


SMALL, USUAL = ((256, 256), 256), ((800, 800), 400)
CELLS = (
    Cell(*SMALL, ("--model", "default")),
    Cell(*SMALL, ("--method", "fbp")),
    Cell(*USUAL, ("--model", "default")),
    Cell(*USUAL, ("--method", "fbp")),
    Cell(*USUAL, ("--model", "fast")),
    Cell(*USUAL, ("--model", "default", "--precision", "bf16")),
    Cell(*USUAL, ("--model", "draft")),
    Cell(*SMALL, ("--method", "sirt")),
    Cell((2048, 2048), 512, ("--model", "default"), 150.0, once=True),
)
BIG = (Cell((4096, 4096), 1024, ("--model", "default", "--bin", "2"), 540.0, once=True),)


def run(words: Sequence[str], seconds: float, **more: Any) -> dict[str, Any]:
    """A command of this Python; the end of what it printed, how it ended, its seconds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, timeout=seconds, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **more,
        )  # fmt: skip
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, text = None, (error.stdout or b"").decode(errors="replace")
    return {"exit_code": code, "seconds": round(time.perf_counter() - start, 2), "output": text[-8000:]}


def part_a(save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Doctor and tests."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "cryolithe", "doctor", "--device", "cuda", "--folder", folder]
        found["doctor"] = run(words, 120)
        print(found["doctor"]["output"], flush=True)
        save(found)
        report = Path(folder) / "tests.xml"
        # Warnings of other versions of other programs are no failures here.
        options = [
            "-m",
            "pytest",
            "-q",
            "--continue-on-collection-errors",
            "-p",
            "no:cacheprovider",
            "-o",
            "filterwarnings=default",
            "--tb=short",
        ]
        found["tests"] = run([*options, "-rs", f"--junitxml={report}", *TESTS], 400)
        print(found["tests"]["output"], flush=True)
        if report.is_file():
            found["outcomes"] = outcomes(report)
    return found


def outcomes(report: Path) -> dict[str, Any]:
    """Numbers of tests by outcome, and the messages of those that failed."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures, slowest = {}, []
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        bad = [child for child in case if child.tag in ("failure", "error")]
        state = "failed" if bad else "skipped" if case.find("skipped") is not None else "passed"
        counts[state] += 1
        slowest.append((float(case.get("time") or 0), name))
        if bad:
            failures[name] = (bad[0].text or "")[-3000:]
    return {"counts": counts, "failures": failures, "slowest": sorted(slowest, reverse=True)[:8]}


def part_b(save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Speed of the usual sizes."""
    return measure(CELLS, save)


def part_big(save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Speed of a full-sized series."""
    return measure(BIG, save)


def measure(cells: Sequence[Cell], save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """All cells, one process each, on a series that those of one size share."""
    found: dict[str, Any] = {"published_seconds": PUBLISHED_SECONDS, "cells": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for cell in cells:
            stack = written(folder, cell.images)
            # A folder of its own: what a run that was stopped leaves is refused by the next.
            with tempfile.TemporaryDirectory(dir=folder) as own:
                measured = measured_cell(cell, stack, Path(own))
            found["cells"][cell.name] = measured
            print(cell.name, json.dumps(summary(measured)), sep="\n    ", flush=True)
            save(found)
    return found


def measured_cell(cell: Cell, stack: Path, folder: Path) -> dict[str, Any]:
    """One cell by a process of its own, whose volume and report go to an empty folder."""
    report = folder / "report.json"
    words = [str(ROOT / "benchmarks" / "gpu_cell.py"), str(report), *(["--once"] if cell.once else []), "--"]
    words += [str(stack), str(stack.with_suffix(".tlt")), "-o", str(folder / "volume.mrc")]
    done = run([*words, "--thickness", str(cell.depth), "--device", "cuda", *cell.words], cell.seconds)
    measured: dict[str, Any] = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    if done["exit_code"] != 0:
        measured["failed"] = done
    measured["process_seconds"] = done["seconds"]
    return measured


def summary(measured: dict[str, Any]) -> dict[str, Any]:
    """What a reader wants first."""
    found: dict[str, Any] = {"process": measured["process_seconds"]}
    for part in ("cold", "warm", "compute"):
        if part in measured:
            one = measured[part]
            found[part] = one["failed"] if "failed" in one else round(one["seconds"], 6)
            found[f"{part}: stages"] = one.get("stages")
            found[f"{part}: peak GB"] = round(one.get("gpu_peak_bytes", 0) / 1e9, 2)
    if "predicted_bytes" in measured.get("compute", {}):
        found["predicted GB"] = round(measured["compute"]["predicted_bytes"] / 1e9, 2)
        found["slab and batch"] = [measured["compute"]["slab_rows"], measured["compute"]["batch"]]
    if "failed" in measured:
        found["failed"] = measured["failed"]["output"][-1500:]
    return found


def table_of(cells: dict[str, Any], gpu: str) -> dict[str, Any]:
    """Seconds, memory and the longest stages of all cells."""
    columns = ("series, method", "computation, s", "file to file, s", "peak, GB", "the computation's longest stages, s")
    rows = []
    for name, measured in cells.items():
        compute = measured.get("compute", {})
        whole: dict[str, Any] = next(
            (measured[run] for run in ("warm", "cold") if "seconds" in measured.get(run, {})), {}
        )
        stages = sorted(compute.get("stages", {}).items(), key=lambda item: -item[1])[:3]
        peak = max(part.get("gpu_peak_bytes", 0) for part in (compute, whole))
        told = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in stages)
        seconds = (compute.get("seconds"), whole.get("seconds"))
        rows.append((name, *seconds, peak / 1e9 if peak else None, told or "-"))
    note = (
        "The computation alone: rows on the GPU, results left there. File to file: reading, preparation, self-check, "
        "writing to disk; without the start of Python. Published, voxels: 23:36 min, wavelets: 3:07 min for "
        "41 x 800 x 800 -> 400 on an A100."
    )
    return {"title": f"Seconds on one {gpu}", "columns": columns, "rows": rows, "note": note}


def rooflines(cells: dict[str, Any]) -> list[dict[str, Any]]:
    """A table for each cell whose stages were counted."""
    found = [(name, cell.get("compute", {}).get("roofline")) for name, cell in cells.items()]
    return [{**table, "title": f"Roofline of {name}"} for name, table in found if table]


def written(folder: Path, images: tuple[int, int]) -> Path:
    """A stack of counts of this size with its angles; an earlier one of another size is removed."""
    from cryolithe.formats import write_angles_deg, write_stack

    stack = folder / f"counts_{images[0]}_{images[1]}.mrc"
    if not stack.is_file():
        for old in folder.glob("counts_*"):
            old.unlink()
        rng = np.random.default_rng(0)
        # Filtered noise would take minutes here; counts of two electrons a pixel are as quick to reconstruct.
        noise = rng.integers(0, 60, (images[0] + TILTS, images[1]), dtype=np.int16)
        write_stack(stack, np.stack([noise[tilt : tilt + images[0]] for tilt in range(TILTS)]), 10.0, "counts")
        write_angles_deg(stack.with_suffix(".tlt"), tuple(float(a) for a in np.linspace(-60, 60, TILTS)))
    return stack


def part_c(save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Training throughput, and how far more loader threads and worker processes go."""
    found: dict[str, Any] = {}
    for model in ("default", "fast"):
        found[model] = run([str(ROOT / "benchmarks" / "gpu_training.py"), model], 150)
        print(model, found[model]["output"], flush=True)
        save(found)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "scaling.json"
        words = ["--model", "default", "--device", "cuda", "--seconds", "2", "--output", str(report)]
        found["scaling"] = run([str(ROOT / "benchmarks" / "loader_scaling.py"), *words], 200)
        print(found["scaling"]["output"], flush=True)
        if report.is_file():
            found |= json.loads(report.read_text(encoding="utf-8"))
    return found


def part_d(save: Callable[[dict[str, Any]], None], training: Training) -> dict[str, Any]:
    """Training by the recipes of the bundled models."""
    found: dict[str, Any] = {"minutes": training.minutes}
    for name in training.models:
        output = training.folder / f"gpu_{name}.safetensors"
        words = ["-m", "cryolithe", "train", str(ROOT / "configs" / f"train_{name}.yaml"), "-o", str(output)]
        words += ["--device", "cuda", "--overwrite", "--train-minutes", str(training.minutes)]
        words += ["--molecules", str(training.molecules)] if training.molecules else []
        found[name] = run(words, 60 * training.minutes + 600)
        print(name, found[name]["output"][-1500:], flush=True)
        save(found)
    return found


PLAIN = {"a": part_a, "b": part_b, "big": part_big, "c": part_c}
PARTS = {**PLAIN, "d": part_d}


def plan_of(parts: Sequence[str]) -> str:
    """What would be done, a line for each step."""
    lines = []
    for part in parts:
        lines.append(f"{part}: {(PARTS[part].__doc__ or '').splitlines()[0]}")
        cells = {"b": CELLS, "big": BIG}.get(part, ())
        lines += [f"    {cell.name}" for cell in cells]
        lines += [f"    {test}" for test in TESTS] if part == "a" else []
    return "\n".join(lines)


def environment() -> dict[str, Any]:
    """Where and of what the numbers were made."""
    import torch
    from common import command_line, commit, device

    visible = torch.cuda.is_available()
    return {
        "commit": commit(),
        "command": command_line(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": device(),
        "gpu": torch.cuda.get_device_name() if visible else None,
        "gpu_total_bytes": torch.cuda.mem_get_info()[1] if visible else None,
    }


def main() -> None:
    """Do the parts that are asked for, in their order."""
    options = argparse.ArgumentParser(prog="gpu.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--parts", default=",".join(PARTS), help="default: all")
    options.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the results")
    options.add_argument("--minutes", type=float, default=5.0, help="of training in part d, for each model")
    options.add_argument("--molecules", type=Path, metavar="HDF5", help="library for the recipes of part d")
    options.add_argument("--dry-run", action="store_true", help="say what would be done")
    arguments = options.parse_args()
    asked = arguments.parts.split(",")
    if unknown := [part for part in asked if part not in PARTS]:
        options.error(f"unknown part '{unknown[0]}'; known: {', '.join(PARTS)}")
    parts = [part for part in PARTS if part in asked]
    if arguments.dry_run:
        print(plan_of(parts))
        return
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    made = environment()
    if made["gpu"] is None:
        raise SystemExit("gpu.py measures a CUDA device and none is visible; --dry-run says what it would do")
    for part in parts:
        start = time.perf_counter()

        def save(found: dict[str, Any], part: str = part, start: float = start) -> None:
            kept = {
                "benchmark": f"gpu_{part}",
                "quick": False,
                **made,
                "seconds": round(time.perf_counter() - start, 1),
            }
            cells, more = found.get("cells"), found.get("tables", [])
            kept |= {**found, "tables": [table_of(cells, made["gpu"]), *rooflines(cells)] if cells else more}
            path = arguments.out / f"gpu_{part}.json"
            path.with_suffix(".partial").write_text(json.dumps(kept, indent=1, default=str) + "\n", encoding="utf-8")
            path.with_suffix(".partial").replace(path)

        print(f"== part {part}", flush=True)
        training = Training(arguments.minutes, arguments.molecules, arguments.out)
        save(part_d(save, training) if part == "d" else PLAIN[part](save))
        print(f"== part {part}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
