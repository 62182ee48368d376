"""Does any file make a reader fail? Random and damaged files through every reader of a file that a user gives.

The law: a reader returns a value that fulfils what is said of it, or raises one of this program's errors: within
seconds, and without taking memory beyond what the file holds. Each reader runs in a process of its own whose memory is
limited; a process that dies or hangs is a failure of the input it had, and another goes on behind that input. Inputs
are made from (name of the parser, number of the input): every failure can be made again with --only and --first. A run
that was stopped goes on behind the last reader that it finished.
"""

from __future__ import annotations

import json
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
from pathlib import Path
from typing import Any

import psutil
from common import Table, commit, parser, read_arguments, record

HANG_SECONDS, MOST_SILENCES = 60.0, 15
REPORT_EVERY = 100
# Beyond what the process has when its imports are done; reached by a reader that believes a file's sizes.
EXTRA_BYTES = 400_000_000
SLOW_SECONDS = 5.0
MOST_MB = 300.0


def made_input(name: str, number: int, seeds: list[bytes]) -> bytes:
    """Input of a number: one in five without sense, the others valid files that were damaged."""
    from mutations import mutated, random_content

    random_ = random.Random(f"{name} {number}")
    return random_content(seeds, random_) if number % 5 == 0 else mutated(seeds, random_)


def attempt(read: Any, path: Path) -> str:
    """What becomes of a file: "accepted", "refused", or the failure."""
    from cryolithe.errors import CryoLitheError

    try:
        read(path)
    except CryoLitheError as error:
        text = str(error)
        if "\n" in text or len(text) > 4000:
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
    from fuzz_parsers import PARSERS

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
        slowest, slowest_input = 0.0, first
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
                state = {"counts": counts, "peak_mb": peak / 1024}
                tell({**state, "slowest": slowest, "slowest_input": slowest_input})
                counts, slowest = {"accepted": 0, "refused": 0}, 0.0
        tell({"at": stop})


def fuzz(name: str, first: int, count: int) -> dict[str, Any]:
    """Run one reader over ``count`` inputs in child processes; what was found."""
    total: dict[str, Any] = {"inputs": 0, "accepted": 0, "refused": 0, "slowest": 0.0, "slowest_input": first}
    total |= {"peak_mb": 0.0, "failures": []}
    at, stop = first, first + count
    started = time.perf_counter()
    while at < stop:
        reports, pipe = os.pipe()
        process = os.fork()  # a new process has all imports; starting Python anew takes seconds
        if not process:
            os.close(reports)
            _end_as_child(name, at, stop, pipe)
        os.close(pipe)
        last, hung = _watch(process, reports, total, at)
        os.close(reports)
        if hung:
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if last >= stop and not status:
            break
        how = "it hangs" if hung else f"the process ended with code {os.waitstatus_to_exitcode(status)}"
        total["failures"].append({"input": last, "how": how})
        at = last + 1
    total["inputs"] = count
    total["seconds"] = time.perf_counter() - started
    return total


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


def _watch(process: int, reports: int, total: dict[str, Any], last: int) -> tuple[int, bool]:
    """Take a child's reports into the total until it ends or hangs; returns its last input, and whether it hung."""
    rest, silent, used = b"", 0, cpu_seconds(process)
    while True:
        ready, _, _ = select.select([reports], [], [], HANG_SECONDS)
        if not ready:
            silent += 1
            # On a busy machine silence says little; a process that waits for something uses no time, though.
            if cpu_seconds(process) - used > HANG_SECONDS or silent == MOST_SILENCES:
                return last, True
            continue
        silent, used = 0, cpu_seconds(process)
        block = os.read(reports, 65536)
        if not block:
            return last, False
        *lines, rest = (rest + block).split(b"\n")
        for told in map(json.loads, lines):
            if "failed" in told:
                total["failures"].append({"input": told["failed"], "how": told["how"]})
            elif "counts" in told:
                for key in ("accepted", "refused"):
                    total[key] += told["counts"][key]
                total["peak_mb"] = max(total["peak_mb"], told["peak_mb"])
                if told["slowest"] > total["slowest"]:
                    total["slowest"], total["slowest_input"] = told["slowest"], told["slowest_input"]
            else:
                last = told["at"]


def cpu_seconds(process: int) -> float:
    """Processor time of a process so far."""
    try:
        times = psutil.Process(process).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def table_of(found: dict[str, dict[str, Any]]) -> Table:
    """The readers beside what became of their inputs."""
    columns = ["parser", "inputs", "accepted", "refused", "slowest s", "peak MB", "failures"]
    rows = [
        [name, f["inputs"], f["accepted"], f["refused"], f["slowest"], f["peak_mb"], len(f["failures"])]
        for name, f in found.items()
    ]
    note = (
        "One in five inputs is without sense, the others are valid files that were damaged. Peak: growth of the "
        "process' resident memory. A failure is any exception that is not this program's, a process that ends, or more "
        f"than {HANG_SECONDS:g} s of processor time."
    )
    return Table("Damaged files", columns, rows, note)


def earlier(path: Path, count: int) -> dict[str, dict[str, Any]]:
    """What a run that was stopped has written, if it was of the same commit and as many inputs."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        same = written["commit"] == commit() and written["inputs_each"] == count
        return dict(written["parsers"]) if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def main() -> None:
    """Fuzz all readers, or those that are named."""
    options = parser("fuzz", __doc__)
    options.add_argument("--inputs", type=int, default=100_000, help="for each parser")
    options.add_argument("--first", type=int, default=0, help="number of the first input")
    options.add_argument("--only", default="", help="names of parsers, separated by commas")
    arguments = read_arguments(options)
    warnings.simplefilter("ignore")
    from fuzz_parsers import PARSERS

    count = 200 if arguments.quick else arguments.inputs
    names = arguments.only.split(",") if arguments.only else [one.name for one in PARSERS]
    found = earlier(arguments.output, count)
    for name in [name for name in names if name not in found]:
        found[name] = fuzz(name, arguments.first, count)
        failures = found[name]["failures"]
        print(f"{name}: {found[name]['seconds']:.0f} s, {len(failures)} failures", flush=True)
        for how in sorted({failure["how"] for failure in failures})[:8]:
            example = next(failure["input"] for failure in failures if failure["how"] == how)
            print(f"   input {example}: {how}", flush=True)
        record("fuzz", {"inputs_each": count, "parsers": found, "tables": [table_of(found)]}, arguments.output)
    slow = [name for name, f in found.items() if f["slowest"] > SLOW_SECONDS or f["peak_mb"] > MOST_MB]
    if slow or any(f["failures"] for f in found.values()):
        raise SystemExit(f"failures: {sum(len(f['failures']) for f in found.values())}; too slow or large: {slow}")


if __name__ == "__main__":
    main()
