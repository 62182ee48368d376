"""Does a session on a cluster survive the death of a worker, and give the files of a local run?

A real Dask scheduler and real worker processes on this machine, without nannies: a worker that is killed does not come
back, as if its machine had been lost. The real command sends a folder of simulated series there; as soon as a series
has finished slabs and unfinished ones, the process that holds its lock is killed (SIGKILL). Every volume is then
compared byte by byte with that of a run of the same command in one process. Needs Linux and ``cryolithe[dask]``.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import ROOT, Table, cryolithe_command, model_of, parser, read_arguments, record

from cryolithe.formats import write_angles_deg, write_stack

ANGLES_DEG = tuple(float(a) for a in np.arange(-56.0, 56.1, 8.0))
WIDTH, THICKNESS = 128, 24
# Volumes are made by slabs of at most 128 rows: five of them in a series, three in a quick one.
ROWS, QUICK_ROWS = 640, 384
LIMIT_SECONDS = 3600.0
# Labels of volumes carry a date: the same one in all runs.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "86400"}


@dataclass(frozen=True)
class Death:
    """What a worker had done when it was killed.

    Attributes:
        series: name of the output.
        slabs: that its journal had.
        seconds: after the start of the command.
    """

    series: str
    slabs: int
    seconds: float


def write_session(folder: Path, series: int, rows: int) -> None:
    """Stacks of counts with some smooth matter, each with its own noise, and their angle files."""
    y, x = np.mgrid[:rows, :WIDTH].astype(np.float32)
    for number in range(series):
        rng = np.random.default_rng(number)
        images = np.empty((len(ANGLES_DEG), rows, WIDTH), dtype=np.int16)
        places = rng.uniform((0, -40, -8), (rows, 40, 8), (60, 3))
        for image, angle in zip(images, np.deg2rad(ANGLES_DEG), strict=True):
            density = np.zeros((rows, WIDTH), dtype=np.float32)
            for row, across, depth in places:
                column = (WIDTH - 1) / 2 + across * np.cos(angle) + depth * np.sin(angle)
                density += np.exp(-((y - row) ** 2 + (x - column) ** 2) / 18)
            image[:] = rng.poisson(40 * np.exp(-0.3 * density))
        write_stack(folder / f"ts_{number:02d}.mrc", images, 10.0, "simulated counts")
        write_angles_deg(folder / f"ts_{number:02d}.tlt", ANGLES_DEG)


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, dict[int, Path]]]:
    """A scheduler and workers as processes of their own; the address, and the log of each worker by its process."""
    told = folder / "scheduler.json"
    processes: list[subprocess.Popen[bytes]] = []

    def start(kind: str, *words: str) -> int:
        log = folder / f"{kind}_{len(processes)}.log"
        with log.open("w") as output:
            command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *words]
            processes.append(subprocess.Popen(command, stdout=output, stderr=output, env=ENVIRONMENT, cwd=folder))
        return processes[-1].pid

    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(told))
        wait_for(lambda: told.is_file() and told.read_text().endswith("}"), "the scheduler")
        address = json.loads(told.read_text())["address"]
        logs = {}
        for _ in range(workers):
            pid = start("worker", address, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
            logs[pid] = folder / f"worker_{len(processes) - 1}.log"
        wait_for(lambda: all("Registered to" in log.read_text() for log in logs.values()), "the workers")
        yield address, logs
    finally:
        for process in reversed(processes):  # a worker that has lost its scheduler waits for another
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(happened: Callable[[], bool], what: str, seconds: float = 600.0) -> None:
    """Wait until something is true.

    Raises:
        TimeoutError: if it does not become so.
    """
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come up in {seconds:g} s")
        time.sleep(0.05)


def run_session(session: Path, output: Path, words: list[str]) -> subprocess.Popen[bytes]:
    """The real command, started."""
    command = [*cryolithe_command(), "reconstruct", str(session), "-o", str(output), *words]
    with (output / "command.log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)


def kill_one(
    output: Path, command: subprocess.Popen[bytes], slabs_of_a_series: int, started: float
) -> tuple[int, Death]:
    """Kill the worker of a series of which some slabs are done and some are not.

    Raises:
        RuntimeError: if the command ends before there is such a series.
    """
    while command.poll() is None:
        for journal in output.glob("*.partial/journal.jsonl"):
            try:
                slabs = journal.read_bytes().count(b"\n") - 1
                owner = lock_owner(journal.with_name("lock"))
            except OSError:  # it has just finished
                continue
            if owner is not None and 1 <= slabs < slabs_of_a_series - 1:
                os.kill(owner, signal.SIGKILL)
                return owner, Death(journal.parent.name.removesuffix(".partial"), slabs, time.monotonic() - started)
        time.sleep(0.005)
    raise RuntimeError(f"no series was caught unfinished: {(output / 'command.log').read_text()[-1000:]}")


def lock_owner(path: Path) -> int | None:
    """The process that holds a lock on a file, as the kernel tells it."""
    inode = str(path.stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].split(":")[2] == inode:
            return int(words[4])
    return None


def finished(command: subprocess.Popen[bytes], output: Path) -> None:
    """Wait for a session; it must succeed.

    Raises:
        RuntimeError: if it fails.
    """
    if command.wait(LIMIT_SECONDS):
        raise RuntimeError(f"exit code {command.returncode}: {(output / 'command.log').read_text()[-2000:]}")


def statuses(output: Path) -> dict[str, str]:
    """What the summary says of each series."""
    with (output / "cryolithe_summary.csv").open(newline="", encoding="utf-8") as file:
        return {row["series"]: row["status"] for row in csv.DictReader(file)}


def main() -> None:
    """Run both, compare."""
    options = parser("cluster", __doc__)
    options.add_argument("--series", type=int, default=24)
    options.add_argument("--workers", type=int, default=3)
    options.add_argument("--model", default="draft", help="name of a bundled model or path")
    arguments = read_arguments(options)
    series, workers = (4, 2) if arguments.quick else (arguments.series, arguments.workers)
    rows = QUICK_ROWS if arguments.quick else ROWS
    words = ["--model", arguments.model, "--thickness", str(THICKNESS), "--device", "cpu", "--precision", "fp32"]
    with tempfile.TemporaryDirectory() as name:
        session, spread, local, logs_folder = (Path(name) / n for n in ("session", "spread", "local", "logs"))
        for folder in (session, spread, local, logs_folder):
            folder.mkdir()
        write_session(session, series, rows)
        with cluster(logs_folder, workers) as (address, logs):
            started = time.monotonic()
            command = run_session(session, spread, [*words, "--scheduler", address])
            killed, death = kill_one(spread, command, rows // 128, started)
            finished(command, spread)
            seconds = time.monotonic() - started
            others = "".join(log.read_text() for pid, log in logs.items() if pid != killed)
        started = time.monotonic()
        finished(run_session(session, local, words), local)
        local_seconds = time.monotonic() - started
        told = statuses(spread)
        equal = [
            path.name for path in local.glob("*_rec.mrc") if path.read_bytes() == (spread / path.name).read_bytes()
        ]
        left = [path.name for path in spread.glob("*.partial")]
        model = model_of(spread / death.series.replace(".mrc", ".json"))
    resumed = re.search(r"Going on with an unfinished run: (\d+) slabs", others)
    done = sum(status == "done" for status in told.values())
    found = {
        "series": series,
        "workers": workers,
        "killed": death.__dict__,
        "resumed_slabs": int(resumed.group(1)) if resumed else None,
        "done": done,
        "equal_to_local": len(equal),
        "left_behind": left,
        "seconds": seconds,
        "local_seconds": local_seconds,
        "model": model,
    }
    note = (
        f"{len(ANGLES_DEG)} x {rows} x {WIDTH} int16 -> {THICKNESS} x {rows} x {WIDTH} each, model {arguments.model}, "
        f"one thread a worker, all on one machine. Right: the bytes of the volume are those of a local run. The killed "
        f"worker had {death.slabs} of {rows // 128} slabs of {death.series}; who took it over went on from slab "
        f"{found['resumed_slabs']}."
    )
    columns = ["session", "series", "done", "right", "unfinished folders left", "seconds", "local seconds"]
    row = [f"{workers} workers, one killed", series, done, len(equal), len(left), seconds, local_seconds]
    table = Table("A worker is killed in mid-series", columns, [row], note)
    record("cluster", {"tables": [table], "runs": found}, arguments.output)
    if len(equal) != series or done != series or left:
        raise SystemExit("Error: not all series are right")


if __name__ == "__main__":
    main()
