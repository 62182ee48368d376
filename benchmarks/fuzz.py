"""Does any file make a reader fail? Random and damaged files through every reader of a file that a user gives.

The law: a reader returns a value that fulfils what is said of it, or raises one of this program's errors: within
seconds, and without taking memory beyond what the file holds. Each reader runs in a process of its own whose memory is
limited; a process that dies or hangs is a failure of the input it had, and another goes on behind that input. Inputs
are made from (name of the parser, number of the input): every failure can be made again with --only and --input. A run
that was stopped goes on where it was, in every reader, as long as neither a reader nor this program has changed.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import select
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from common import Table, code_of, commit, parser, read_arguments, record

from cryolithe.report.json_files import write_json

HANG_SECONDS, MOST_SILENCES = 60.0, 15
REPORT_EVERY = 100
SAVE_SECONDS = 5.0
# Inputs of each reader before the next has its turn; then four times as many, and so on.
ROUND = 500
# Beyond what the process has when its imports are done; reached by a reader that believes a file's sizes.
EXTRA_BYTES = 400_000_000
SLOW_SECONDS = 5.0
MOST_MB = 300.0


def made_input(name: str, number: int, seeds: list[bytes]) -> bytes:
    """Input of a number: one in five without sense, the others valid files that were damaged."""
    from fuzzing.mutations import mutated, random_content

    random_ = random.Random(f"{name} {number}")
    return random_content(seeds, random_) if number % 5 == 0 else mutated(seeds, random_)


def attempt(read: Any, path: Path) -> str:
    """What becomes of a file: "accepted", "refused", or the failure."""
    from cryolithe.errors import CryoLitheError

    try:
        read(path)
    except CryoLitheError as error:
        text = str(error)
        if "\n" in text or len(text) > 2000:
            return f"message of {len(text)} characters, {text.count(chr(10)) + 1} lines"
        return "refused"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "/cryolithe/" in frame.filename] or frames
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:100]}"
    return "accepted"


def child(name: str, first: int, stop: int, tell: Callable[[dict[str, Any]], None]) -> None:
    """Feed inputs to one reader and tell what became of them."""
    from fuzzing.parsers import PARSERS

    warnings.simplefilter("ignore")
    chosen = next(one for one in PARSERS if one.name == name)
    with tempfile.TemporaryDirectory() as folder:
        seeds = chosen.seeds(Path(folder))
        path = Path(folder) / f"input{chosen.ending}"
        for content in seeds:
            path.write_bytes(content)
            attempt(chosen.read, path)  # imports on demand
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + EXTRA_BYTES, used + EXTRA_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        counts = {"accepted": 0, "refused": 0}
        slowest, slowest_input, before = 0.0, first, time.process_time()
        for number in range(first, stop):
            tell({"at": number})
            path.unlink()  # a map of the last input may be alive
            path.write_bytes(made_input(name, number, seeds))
            start = time.process_time()  # of this process: the machine may be busy
            found = attempt(chosen.read, path)
            took = time.process_time() - start
            if took > slowest:
                slowest, slowest_input = took, number
            if found in counts:
                counts[found] += 1
            else:
                tell({"failed": number, "how": found})
            if number % REPORT_EVERY == REPORT_EVERY - 1 or number == stop - 1:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
                state = {"counts": counts, "done": number + 1, "peak_mb": peak / 1024}
                state["seconds"] = time.process_time() - before
                tell({**state, "slowest": slowest, "slowest_input": slowest_input})
                counts, slowest, before = {"accepted": 0, "refused": 0}, 0.0, time.process_time()
        tell({"at": stop})


def new_total() -> dict[str, Any]:
    """Of a reader that has seen no input."""
    return {
        "inputs": 0, "accepted": 0, "refused": 0, "slowest": 0.0, "slowest_input": 0, "peak_mb": 0.0, "seconds": 0.0,
        "failures": [],
    }  # fmt: skip


def fuzz(name: str, total: dict[str, Any], stop: int, keep: Callable[[], bool]) -> None:
    """Run one reader over its inputs from ``total["inputs"]`` up to ``stop``, in child processes.

    Args:
        name: of the parser.
        total: what was found so far; it is changed.
        stop: number of the input behind the last.
        keep: called whenever the total is complete up to ``total["inputs"]``; whether to go on.
    """
    while total["inputs"] < stop:
        reports, pipe = os.pipe()
        process = os.fork()  # a new process has all imports; starting Python anew takes seconds
        if not process:
            os.close(reports)
            _end_as_child(name, total["inputs"], stop, pipe)
        os.close(pipe)
        ended = _watch(process, reports, total, keep)
        os.close(reports)
        if ended.why != "end":
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if ended.why == "asked":
            return
        if ended.last >= stop and not status:
            break
        how = "it hangs" if ended.why == "hangs" else f"the process ended with code {os.waitstatus_to_exitcode(status)}"
        total["failures"].append({"input": ended.last, "how": how})
        total["inputs"] = ended.last + 1
    keep()


def _end_as_child(name: str, first: int, stop: int, pipe: int) -> None:
    """Do a child's work and end the process, whatever happens."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # the C libraries' own messages
    code = 1
    try:
        with os.fdopen(pipe, "w", encoding="utf-8", buffering=1) as stream:
            child(name, first, stop, lambda report: print(json.dumps(report), file=stream))
        code = 0
    finally:
        os._exit(code)


class Ended(NamedTuple):
    """How a child ended, or was ended: at its last input; "end", "hangs", or because it was "asked" to."""

    last: int
    why: str


def _watch(process: int, reports: int, total: dict[str, Any], keep: Callable[[], bool]) -> Ended:
    """Take a child's reports into the total until it ends, hangs, or is not to go on."""
    rest, silent, used, last = b"", 0, cpu_seconds(process), total["inputs"]
    while True:
        ready, _, _ = select.select([reports], [], [], HANG_SECONDS)
        if not ready:
            silent += 1
            # On a busy machine silence says little; a process that waits for something uses no time, though.
            if cpu_seconds(process) - used > HANG_SECONDS or silent == MOST_SILENCES:
                return Ended(last, "hangs")
            continue
        silent, used = 0, cpu_seconds(process)
        block = os.read(reports, 65536)
        if not block:
            return Ended(last, "end")
        *lines, rest = (rest + block).split(b"\n")
        for told in map(json.loads, lines):
            if "failed" in told:
                total["failures"].append({"input": told["failed"], "how": told["how"]})
            elif "counts" in told:
                _add(total, told)
                if not keep():
                    return Ended(last, "asked")
            else:
                last = told["at"]


def _add(total: dict[str, Any], told: dict[str, Any]) -> None:
    for key in ("accepted", "refused"):
        total[key] += told["counts"][key]
    total["inputs"] = told["done"]
    total["seconds"] += told["seconds"]
    total["peak_mb"] = max(total["peak_mb"], told["peak_mb"])
    if told["slowest"] > total["slowest"]:
        total["slowest"], total["slowest_input"] = told["slowest"], told["slowest_input"]


def cpu_seconds(process: int) -> float:
    """Processor time of a process so far."""
    try:
        times = psutil.Process(process).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def table_of(found: dict[str, dict[str, Any]]) -> Table:
    """The readers beside what became of their inputs."""
    columns = ["parser", "inputs", "accepted", "refused", "inputs/s", "slowest s", "peak MB", "failures"]
    rows = [
        [
            name, f["inputs"], f["accepted"], f["refused"], f["inputs"] / f["seconds"] if f["seconds"] else None,
            f["slowest"], f["peak_mb"], len(f["failures"]),
        ]
        for name, f in found.items()
    ]  # fmt: skip
    note = (
        "One in five inputs is without sense, the others are valid files that were damaged. Peak: growth of the "
        "process' resident memory. A failure is any exception that is not this program's, a process that ends, or more "
        f"than {HANG_SECONDS:g} s of processor time."
    )
    return Table("Damaged files", columns, rows, note)


def code() -> str:
    """SHA-256 of all that decides what becomes of an input: a state is of this code alone."""
    return code_of("fuzz.py", "fuzzing/*.py")


@dataclass
class Kept:
    """What was found so far, on the disk as well: a run that was stopped or killed goes on from there.

    Attributes:
        path: of the state.
        found: by parser.
        ends: `time.monotonic` at which to stop.
        saved: when it was last written.
    """

    path: Path
    found: dict[str, dict[str, Any]]
    ends: float = math.inf
    saved: float = 0.0

    @classmethod
    def at(cls, path: Path) -> Kept:
        """The state of a path, if it is of this code; else a new one."""
        try:
            written = json.loads(path.read_text(encoding="utf-8"))
            return cls(path, dict(written["parsers"]) if written["code"] == code() else {})
        except (OSError, ValueError, KeyError, TypeError):
            return cls(path, {})

    def keep(self) -> bool:
        """Write it, every few seconds; whether there is time to go on."""
        if time.monotonic() > self.saved + SAVE_SECONDS:
            self.save()
        return time.monotonic() < self.ends

    def save(self) -> None:
        """Write it."""
        write_json(self.path, {"code": code(), "commit": commit(), "parsers": self.found})
        self.saved = time.monotonic()


def rounds(count: int) -> list[int]:
    """Inputs after which the next reader has its turn: a run that is stopped has seen about as many of each."""
    return [*(ROUND * 4**n for n in range(20) if ROUND * 4**n < count), count]


def main() -> None:
    """Fuzz all readers, or those that are named."""
    options = parser("fuzz", __doc__)
    options.add_argument("--inputs", type=int, default=100_000, help="for each parser")
    options.add_argument("--only", default="", help="names of parsers, separated by commas")
    options.add_argument("--input", type=int, help="make this input alone, of the one parser of --only, and tell")
    options.add_argument("--minutes", type=float, default=math.inf, help="stop after these; repeat to go on")
    options.add_argument("--state", type=Path, help="where to go on from; default: OUTPUT.partial")
    arguments = read_arguments(options)
    warnings.simplefilter("ignore")
    from fuzzing.parsers import PARSERS

    count = 200 if arguments.quick else arguments.inputs
    names = arguments.only.split(",") if arguments.only else [one.name for one in PARSERS]
    if unknown := set(names) - {one.name for one in PARSERS}:
        raise SystemExit(f"Error: there are no parsers {', '.join(sorted(unknown))}")
    if arguments.input is not None:
        found_one = new_total() | {"inputs": arguments.input}
        fuzz(names[0], found_one, arguments.input + 1, lambda: True)
        print(found_one)
        return
    kept = Kept.at(arguments.state or arguments.output.with_name(arguments.output.name + ".partial"))
    kept.ends = time.monotonic() + 60 * arguments.minutes
    for stop in rounds(count):
        for name in names:
            total = kept.found.setdefault(name, new_total())
            if total["inputs"] >= stop or time.monotonic() >= kept.ends:
                continue
            fuzz(name, total, stop, kept.keep)
            print(f"{name}: {total['inputs']} inputs, {len(total['failures'])} failures", flush=True)
            for how in sorted({failure["how"] for failure in total["failures"]})[:8]:
                example = next(failure["input"] for failure in total["failures"] if failure["how"] == how)
                print(f"   input {example}: {how}", flush=True)
    kept.save()
    found = {name: kept.found[name] for name in names}
    fewest = min(total["inputs"] for total in found.values())
    record("fuzz", {"inputs_each": fewest, "parsers": found, "tables": [table_of(found)]}, arguments.output)
    if fewest < count:
        print(f"not done: {fewest} of {count} inputs for each parser so far; repeat the command to go on")
    slow = [name for name, f in found.items() if f["slowest"] > SLOW_SECONDS or f["peak_mb"] > MOST_MB]
    if slow or any(f["failures"] for f in found.values()):
        raise SystemExit(f"failures: {sum(len(f['failures']) for f in found.values())}; too slow or large: {slow}")


if __name__ == "__main__":
    main()
