"""What all benchmarks share: options, timing, the memory of a child process, tables and the record on disk."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from cryolithe import __version__
from cryolithe.diagnosis.machine import checkout_commit, cpu_model
from cryolithe.machine.device import choose_precision, precision_name
from cryolithe.report.json_files import write_json

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
RESULTS = FOLDER / "results"
SAMPLING_SECONDS = 0.02

# What `cryolithe reconstruct` is told for each method that is compared.
METHOD_WORDS = {
    "FBP": ["--method", "fbp"],
    "SIRT": ["--method", "sirt"],
    "default": ["--model", "default"],
    "fast": ["--model", "fast"],
    "draft": ["--model", "draft"],
}

Cell = str | int | float | bool | None


@dataclasses.dataclass(frozen=True)
class Table:
    """Results to be read: printed by a benchmark, and put into README.md by tables.py.

    Attributes:
        title: what is compared.
        columns: headings.
        rows: one cell per column each.
        note: what a reader must know beside the numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


class Timing(NamedTuple):
    """Seconds of repeated runs, and their median."""

    median: float
    repeats: list[float]


class ChildRun(NamedTuple):
    """A finished child process.

    Attributes:
        seconds: from its start to its end.
        sampled_peak_bytes: highest resident size among samples every 20 ms; may miss a short peak.
        kernel_peak_bytes: ru_maxrss of this very child, as Linux counts it; misses nothing, but is never less than
            what the parent held when it started the child.
    """

    seconds: float
    sampled_peak_bytes: int
    kernel_peak_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The larger of both numbers."""
        return max(self.sampled_peak_bytes, self.kernel_peak_bytes)


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark; ``read_arguments`` fills in the default output."""
    made = argparse.ArgumentParser(prog=f"{name}.py", description=description)
    made.add_argument("--quick", action="store_true", help="tiny sizes: does the script work? Not a measurement")
    made.add_argument("--output", type=Path, help=f"default: results/{name}.json (with --quick: {name}.quick.json)")
    return made


def read_arguments(made: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; quick runs have an output of their own and never replace a measurement."""
    arguments = made.parse_args()
    commit(), device()  # as they are at the start: a long run may see the checkout change
    if arguments.output is None:
        ending = ".quick.json" if arguments.quick else ".json"
        arguments.output = RESULTS / made.prog.replace(".py", ending)
    return arguments


def cryolithe_command() -> list[str]:
    """The real command, of the Python that runs this benchmark."""
    if (ROOT / "cryolithe" / "__main__.py").is_file():
        return [sys.executable, "-m", "cryolithe"]
    return [str(Path(sys.executable).with_name("cryolithe"))]


def median_seconds(call: Callable[[], object], repeats: int) -> Timing:
    """Time a call ``repeats`` times."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return Timing(statistics.median(seconds), seconds)


def peak_rss_of(command: Sequence[str], limit_seconds: float | None = None) -> ChildRun:
    """Run a command and watch its resident memory.

    Raises:
        RuntimeError: if it fails; holds the end of its standard error.
        subprocess.TimeoutExpired: if it was stopped because it took longer than ``limit_seconds``.
    """
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        watched, highest = psutil.Process(process.pid), 0
        while True:
            # The usage of this child alone; RUSAGE_CHILDREN would be the largest of all children so far.
            finished, status, usage = os.wait4(process.pid, os.WNOHANG)
            if finished:
                break
            if limit_seconds is not None and time.perf_counter() - start > limit_seconds:
                process.kill()
                process.wait()
                raise subprocess.TimeoutExpired(command, limit_seconds)
            highest = max(highest, watched.memory_info().rss)
            time.sleep(SAMPLING_SECONDS)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            text = errors.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}:\n{text}")
    return ChildRun(seconds, highest, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def model_of(sidecar: Path) -> dict[str, str] | None:
    """Name and hash of the model that made a volume, from the volume's sidecar; None for other methods."""
    model = json.loads(sidecar.read_text(encoding="utf-8"))["method"]["model"]
    return {"name": model["name"], "sha256": model["sha256"]} if model else None


def record(name: str, results: Mapping[str, Any], path: Path) -> None:
    """Print the tables among the results and write everything as JSON, with what is needed to repeat it."""
    for table in results.get("tables", ()):
        print_table(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = {
        "benchmark": name,
        "quick": "--quick" in sys.argv,
        "cryolithe": __version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device(),
        "command": command_line(),
    }
    write_json(path, {**written, **results})
    print(f"\nwritten: {path}")


@functools.cache
def commit() -> str:
    """Hash of the checkout's commit, with "-dirty" where anything but earlier results differs from it."""
    return checkout_commit() or "unknown"


@functools.cache
def code_of(*scripts: str) -> str:
    """SHA-256 of the package's code and of scripts of this folder, by patterns: what was found so far is of this."""
    files = [*sorted((ROOT / "cryolithe").rglob("*.py")), *(p for each in scripts for p in sorted(FOLDER.glob(each)))]
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@functools.cache
def device() -> dict[str, Cell]:
    """The machine, as far as it matters for speed."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16": precision_name(choose_precision("auto", torch.device("cpu"))) == "bf16",
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_1_min": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def command_line() -> str:
    """How this script was called; absolute paths are shortened to their last part."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def print_table(table: Table) -> None:
    """Print a table in columns, the first one to the left and the others to the right."""
    rows = [list(table.columns), *([text_of(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"\n{table.title}")
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *others]))
    if table.note:
        print(table.note)


def text_of(cell: Cell) -> str:
    """A cell as text: whole numbers in groups of three digits, others with four digits."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 1000:
        return f"{cell:,.0f}".replace(",", " ")
    return f"{cell:.4g}"
