"""Real runs of the command that are killed: processes that start at once, and what must hold after each kill.

Starting Python and torch takes seconds, in which there is nothing to kill. So one process imports everything and forks
a child for each run; the child calls the very function that the command calls, and is a process like any other.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# From where the moments of kills are counted: moving the results takes milliseconds of a run of a second.
MARKS = ("start", "journal", "first slab", "last slab")
# Reads arguments as JSON, one list a line; tells the number of the child's process, then how it ended.
SERVER = """
import json, os, signal, sys
import cryolithe.cli, cryolithe.cli.reconstruct, cryolithe.cli.session, cryolithe.session.batch
import cryolithe.reconstruction.slabwise.plan
cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS = int(sys.argv[1])
for line in sys.stdin:
    words, errors = json.loads(line)
    child = os.fork()
    if not child:
        descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            cryolithe.cli.main(words, prog_name="cryolithe")
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        finally:
            os._exit(1)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Run:
    """A run of the command: its process, and how it ends."""

    pid: int
    server: subprocess.Popen[str]
    errors: Path
    code: int | None = None

    def kill(self) -> None:
        """Kill it as the kernel would for want of memory; a run that has ended is left alone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet; a killed process stays until the server has waited for it."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def wait(self) -> int:
        """How it ended: its exit code, or minus the signal."""
        if self.code is None:
            assert self.server.stdout is not None
            self.code = int(self.server.stdout.readline())
        return self.code

    @property
    def message(self) -> str:
        """What it wrote to standard error."""
        return self.errors.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Forks:
    """Starts runs of the command, one at a time."""

    server: subprocess.Popen[str]
    folder: Path

    def start(self, words: list[str]) -> Run:
        """Start a run with these arguments."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        errors = self.folder / "errors.txt"
        print(json.dumps([words, str(errors)]), file=self.server.stdin, flush=True)
        return Run(int(self.server.stdout.readline()), self.server, errors)


@contextmanager
def forks(folder: Path, rows: int) -> Iterator[Forks]:
    """Runs that start at once, for as long as the context lasts.

    Args:
        folder: for their messages.
        rows: of their slabs; so small a volume would be one slab.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": "86400"}
    command = [sys.executable, "-c", SERVER, str(rows)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as server:
        try:
            yield Forks(server, folder)
        finally:
            server.kill()


def content(path: Path) -> Any:
    """Bytes of a file, or of all files of a folder; a record without its times."""
    if path.suffix == ".png":
        return "a drawing"  # which tells how long the run took
    if path.suffix == ".json" and path.is_file():
        return timeless(path)
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def timeless(sidecar: Path) -> dict[str, Any]:
    """A record without its times."""
    return dict(_without_times(json.loads(sidecar.read_text(encoding="utf-8"))))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in ("date", "seconds")}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


@dataclass
class Case:
    """A command, what it makes when nothing disturbs it, and what its kills met.

    Attributes:
        name: of the case.
        words: the command's arguments.
        output: the volume, in a folder in which nothing else lies than what the command makes.
        made: all that it makes, by name: bytes, or a record without times.
        seconds: that an undisturbed run takes from each of `MARKS` to its end.
        kills: by what had been done when they came.
        wrong: what must not be.
    """

    name: str
    words: list[str]
    output: Path
    made: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def partial(self) -> Path:
        """The working folder, or the first of them: halves have one each."""
        return next(iter(self._partials), self.output.with_name(self.output.name + ".partial"))

    @property
    def _partials(self) -> list[Path]:
        return sorted(path for path in self.output.parent.glob("[!.]*.partial") if path.is_dir())

    @property
    def record(self) -> dict[str, Any]:
        """What the undisturbed run recorded of the first of its volumes that was made by slabs."""
        records = (made for name, made in self.made.items() if name.endswith(".json"))
        return next((record for record in records if "compute" in record), {})

    def products(self) -> dict[str, Any]:
        """All that is there, by name, but for working folders and hidden files."""
        found = (path for path in sorted(self.output.parent.iterdir()) if not path.name.startswith("."))
        return {path.name: content(path) for path in found if path.suffix != ".partial"}

    def clear(self) -> None:
        """Remove what a run made."""
        shutil.rmtree(self.output.parent, ignore_errors=True)
        self.output.parent.mkdir(parents=True)

    def wait_for(self, mark: str, run: Run) -> None:
        """Wait until a run has come as far as one of `MARKS`, or has ended."""
        wanted = {"start": 0, "journal": 1, "first slab": 2, "last slab": self.slabs}[mark]
        while wanted and run.alive and not self.output.exists():
            with suppress(OSError):
                if (self.partial / "journal.jsonl").read_bytes().count(b"\n") >= wanted:
                    return
            time.sleep(0.001)

    def done(self) -> bool:
        """Whether all is there; whatever is there must then be that of the undisturbed run."""
        there = {name for name in self.made if (self.output.parent / name).exists()}
        for name in sorted(there):
            if content(self.output.parent / name) != self.made[name]:
                self.wrong.append(f"{self.name}: {name} is not that of the undisturbed run")
        return len(there) == len(self.made)

    def stage(self) -> str:
        """What has been done so far, from what lies on the disk."""
        if self.output.exists():
            return "output in place" if not self.output.with_suffix(".json").exists() else "record in place"
        if not self._partials:
            return "before the journal" if not self.products() else "a half in place"
        journal = self.partial / "journal.jsonl"
        if (self.partial / "commit.json").exists():
            return "about to be moved"
        if not journal.exists():
            return "before the journal"
        slabs = journal.read_bytes().count(b"\n") - 1
        if slabs < 1:
            return "preparing images"
        finishing = any((self.partial / name).exists() for name in ("sidecar.json",)) or slabs >= self.slabs
        return "all slabs done" if finishing else "between slabs"

    @property
    def slabs(self) -> int:
        """How many slabs the undisturbed run made; one while that is not known."""
        if not self.record:
            return 1
        rows = int(self.record["volume"]["shape_zyx"][1])
        return -(-rows // int(self.record["compute"]["slab_rows"]))


def undisturbed(case: Case, runs: Forks) -> None:
    """Make the volume once, and time it."""
    for _ in range(2):  # the first run also waits for what the disk has not in memory
        case.clear()
        run = runs.start(case.words)
        reached = {}
        for mark in MARKS:
            case.wait_for(mark, run)
            reached[mark] = time.perf_counter()
        if run.wait():
            raise RuntimeError(f"{case.name}: {run.message}")
        case.seconds = {mark: time.perf_counter() - moment for mark, moment in reached.items()}
        case.made = case.products()
    case.clear()


def kill_until_done(case: Case, runs: Forks, random_: random.Random, most: int) -> int:
    """Run the command and kill it at random moments, at most ``most`` times, until it is done; returns the kills."""
    kills = 0
    while True:
        run = runs.start(case.words)
        if kills < most:
            mark = random_.choice(MARKS)
            case.wait_for(mark, run)
            time.sleep(random_.uniform(0, 1.1 * case.seconds[mark]))
            run.kill()
        code = run.wait()
        if code == -signal.SIGKILL:
            kills += 1
            stage = case.stage()
            case.kills[stage] = case.kills.get(stage, 0) + 1
            if case.done():
                break
            continue
        if code:
            case.wrong.append(f"{case.name}: exit code {code} after {kills} kills: {run.message.strip()[-200:]}")
        elif not case.done():
            case.wrong.append(f"{case.name}: exit code 0 and no complete output")
        elif case.partial.exists():
            case.wrong.append(f"{case.name}: a working folder is left behind")
        elif more := set(case.products()) - set(case.made):
            case.wrong.append(f"{case.name}: {', '.join(sorted(more))} is left behind")
        break
    case.clear()
    return kills
