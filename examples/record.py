"""Follow the first pages as a new user does, and write down what was typed, what was printed, and how long it took.

python examples/record.py -o docs/five_minutes_recorded.md

makes an environment in an empty folder, installs this checkout, and types the commands of README.md and those of
docs/first_tomogram.md as they stand there, each page in an empty folder. A command that fails ends the recording.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/first_tomogram.md")
COLUMNS = 120
HEAD = """# The five-minute start, recorded

The commands of the [front page](../README.md) and of the [first tomogram](first_tomogram.md), typed as they stand there
by `python examples/record.py`, each page in an empty folder, with all that was printed; long lines are folded. Minutes
are those of the clock, other work on the machine included; processor time is that of all cores together.
"""


@dataclass(frozen=True)
class Step:
    """A command that was typed.

    Attributes:
        page: on which it stands.
        command: as it stands there.
        output: of both streams, as it came.
        seconds: that it took.
        processor_seconds: of all cores together, which a machine that is busy otherwise does not lengthen.
    """

    page: str
    command: str
    output: str
    seconds: float
    processor_seconds: float


def commands_of(text: str) -> list[str]:
    """What a page has the reader type, in order: lines that begin with ``$`` in its console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.M | re.S)
    joined = (re.sub(r" *\\\n\s*", " ", block) for block in blocks)
    return [line[2:] for block in joined for line in block.splitlines() if line.startswith("$ ")]


def typed(page: str, command: str, folder: Path, programs: Path | None) -> Step:
    """Run a command in a folder, with the programs of an environment before all others.

    Raises:
        SystemExit: if it fails.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if programs is not None:
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    started, before = time.monotonic(), os.times()
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    seconds, after = time.monotonic() - started, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"$ {command}\n{done.stdout}({seconds:.0f} s)", flush=True)
    if done.returncode:
        sys.exit(f"{page}: exit code {done.returncode} of: {command}")
    return Step(page, command, done.stdout, seconds, used)


def folded(output: str, hidden: Path) -> list[str]:
    """Lines as a terminal of 120 columns shows them, without the name of the folder in which it all happened."""
    lines = output.replace(f"{hidden}/", "").rstrip().splitlines()
    return [line[start : start + COLUMNS] for line in lines for start in range(0, max(1, len(line)), COLUMNS)]


def minutes(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def machine() -> str:
    """Processor, cores, system."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else []
    load = f", load average {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    processor = names[0] if names else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}{load}"


def page_of(steps: list[Step], folder: Path, told: str) -> str:
    """The page, in markdown."""
    total = sum(step.seconds for step in steps)
    used = sum(step.processor_seconds for step in steps)
    lines = [HEAD, told, "", "| command | minutes | of processor time |", "|---|---:|---:|"]
    lines += [f"| `{s.command}` | {minutes(s.seconds)} | {minutes(s.processor_seconds)} |" for s in steps]
    lines += [f"| all of it | {minutes(total)} | {minutes(used)} |", ""]
    page = ""
    for step in steps:
        if step.page != page:
            page = step.page
            lines += [f"## {page}", ""]
        lines += ["```console", f"$ {step.command}", *folded(step.output, folder), "```", ""]
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description="Record the first steps of a new user.")
    options.add_argument("-o", "--output", type=Path, required=True, help="page to write (.md)")
    options.add_argument("--programs", type=Path, help="bin folder of an environment to use, instead of a new one")
    options.add_argument("--constraint", type=Path, help="for pip, such as constraints.txt")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="new-user-") as name:
        folder, programs = Path(name), arguments.programs
        steps = []
        if programs is None:
            pip = ".venv/bin/pip install --quiet --disable-pip-version-check"
            pinned = f" --constraint {arguments.constraint.resolve()}" if arguments.constraint else ""
            steps.append(typed("Installation", "python3 -m venv .venv", folder, None))
            installed = typed("Installation", f"{pip}{pinned} {ROOT}", folder, None)
            steps.append(replace(installed, command="pip install .", output=""))
            programs = folder / ".venv" / "bin"
        for page in PAGES:
            place = folder / Path(page).stem
            place.mkdir()
            for command in commands_of((ROOT / page).read_text(encoding="utf-8")):
                steps.append(typed(page, command, place, programs))
        version = typed("", "cryolithe --version", folder, programs).output.strip().replace(", version", "")
        before = "\nThe program was installed before." if arguments.programs else ""
        told = f"{datetime.date.today().isoformat()}, {version}, {machine()}.{before}"
        arguments.output.write_text(page_of(steps, folder, told), encoding="utf-8")


if __name__ == "__main__":
    main()
