"""Has anything become slower than another commit? Both are run in turn, so that a busy machine slows both alike.

    python benchmarks/regressions.py --against v0.3 --repeats 5

The other commit is checked out beside this one (``git worktree``), which goes when all is done. Each case is the
command in a process of its own, from its start to its end, as a user runs it; what the start alone takes is a case,
too. The table has medians, and the median of the quotients of neighbouring runs: above 1, this checkout is slower.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Table, parser, read_arguments, record

from cryolithe.formats import write_angles_deg, write_stack

TILTS = 41
FULL, QUICK = 256, 24


@dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        name: for the table.
        words: after ``cryolithe reconstruct STACK ANGLES -o OUTPUT``.
        share: of the usual side of the volume.
        images: side of the images where that is more than the volume's: for binning.
    """

    name: str
    words: tuple[str, ...]
    share: float = 1.0
    images: float = 1.0


CASES = (
    Case("start: --help", ()),
    Case("FBP", ("--method", "fbp")),
    Case("SIRT, 10 iterations", ("--method", "sirt", "--iterations", "10"), 0.75),
    Case("draft", ("--model", "draft")),
    Case("fast", ("--model", "fast")),
    Case("fast, without FBP", ("--model", "fast", "--fbp-share", "0")),
    Case("preparation: binned by 4", ("--method", "fbp", "--bin", "4"), 0.5, 4.0),
)


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Path]:
    """Another commit's files in a folder, which goes afterwards."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def words_of(case: Case, side: int, folder: Path) -> list[str]:
    """The command's words; its series is made where it is not there yet."""
    if case.name.startswith("start"):
        return ["--help"]
    volume = max(8, int(side * case.share))
    images = int(volume * case.images)
    stack = folder / f"series_{images}.mrc"
    if not stack.is_file():
        rng = np.random.default_rng(0)
        write_stack(stack, rng.standard_normal((TILTS, images, images), dtype=np.float32), 10.0, "noise")
        write_angles_deg(stack.with_suffix(".tlt"), tuple(float(a) for a in np.linspace(-60, 60, TILTS)))
    output = ["-o", str(folder / "volume.mrc"), "--overwrite", "--thickness", str(volume), "--device", "cpu"]
    return ["reconstruct", str(stack), str(stack.with_suffix(".tlt")), *output, *case.words]


def seconds_of(tree: Path, words: Sequence[str]) -> tuple[float | None, str]:
    """Seconds of the command from a checkout; None where it fails, with its last words."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cryolithe", *words],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        return None, (done.stderr or done.stdout).strip().splitlines()[-1][:160]
    return seconds, ""


def compared(trees: tuple[Path, Path], words: Sequence[str], repeats: int) -> dict[str, Any]:
    """Seconds of this checkout and of the other one, in turn; which is first alternates, the first round is dropped."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(repeats + 1):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        made: dict[int, float] = {}
        for which in order:
            seconds, told = seconds_of(trees[which], words)
            if seconds is None:
                return {"failed": f"{'this' if which == 0 else 'the other'}: {told}"}
            made[which] = seconds
        if number or repeats == 1:  # compiled code is written to caches in the first round
            for which, seconds in made.items():
                found[which].append(seconds)
    return {"this": found[0], "other": found[1]}


def row_of(name: str, found: dict[str, Any]) -> tuple[str | float | None, ...]:
    """A line of the table."""
    if "failed" in found:
        return (f"{name} ({found['failed']})", None, None, None)
    quotients = [a / b for a, b in zip(found["this"], found["other"], strict=True)]
    return (name, statistics.median(found["this"]), statistics.median(found["other"]), statistics.median(quotients))


def main() -> None:
    """Compare all cases, or those that are named."""
    options: argparse.ArgumentParser = parser("regressions", __doc__)
    options.formatter_class = argparse.RawTextHelpFormatter
    options.add_argument("--against", required=True, metavar="COMMIT", help="the other checkout")
    options.add_argument("--repeats", type=int, default=5, help="of each, after one that does not count")
    options.add_argument("--side", type=int, help=f"of the volumes; default {FULL}, with --quick {QUICK}")
    options.add_argument("--cases", help="beginnings of their names, separated by commas; default: all")
    arguments = read_arguments(options)
    side = arguments.side or (QUICK if arguments.quick else FULL)
    repeats = 1 if arguments.quick else arguments.repeats
    asked = arguments.cases.split(",") if arguments.cases else [""]
    cases = [case for case in CASES if any(case.name.startswith(start) for start in asked)]
    results: dict[str, Any] = {"against": arguments.against, "side": side, "cases": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with checkout(arguments.against, folder / "other") as other:
            for case in cases:
                found = compared((ROOT, other), words_of(case, side, folder), repeats)
                results["cases"][case.name] = found
                print(row_of(case.name, found), flush=True)
    note = f"Commands from start to end on noise, {TILTS} tilts, volumes of up to {side}³; both in turn, in one run."
    rows = [row_of(name, found) for name, found in results["cases"].items()]
    columns = ("case", "this checkout, s", f"{arguments.against}, s", "quotient of neighbours")
    results["tables"] = [Table("Slower than before?", columns, rows, note)]
    record("regressions", results, arguments.output)


if __name__ == "__main__":
    main()
