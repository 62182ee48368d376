"""Run the tests with the oldest versions that pyproject.toml promises: of Python, and of every dependency.

    python tests/oldest.py                          python3.10, all lower bounds, tests that are not slow
    python tests/oldest.py --torch 2.13.0 -k mrc    another torch, where the oldest cannot be had; the rest is pytest's

The versions are read from pyproject.toml, so that a bound which is changed there is the one that is tested.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENT = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*>=\s*([0-9][0-9A-Za-z.]*)\s*(?:;\s*(.*))?")
# What checks the source and not the program, or would bring another torch.
NOT_INSTALLED = {"ruff", "mypy", "types-PyYAML", "types-psutil"}
# Old packages call what newer ones below them have deprecated since (matplotlib 3.8 and pyparsing, say).
FORGIVEN = ("-W", "ignore::DeprecationWarning")
RUNNERS = ("pytest>=8", "pytest-xdist>=3.8", "hypothesis>=6.100")


def oldest(requirement: str) -> str:
    """``numpy>=1.26; marker`` as ``numpy==1.26; marker``.

    >>> oldest("zarr>=3.0; python_version >= '3.11'")
    "zarr==3.0; python_version >= '3.11'"
    """
    found = REQUIREMENT.fullmatch(requirement)
    if found is None:
        raise SystemExit(f"pyproject.toml: expected NAME>=VERSION, found {requirement!r}: give a lower bound")
    name, version, marker = found.groups()
    return f"{name}=={version}" + (f"; {marker}" if marker else "")


def pins(project: dict, torch: str | None = None) -> list[str]:
    """The lower bounds of what the package needs."""
    found = [oldest(requirement) for requirement in project["dependencies"]]
    return [f"torch=={torch}" if torch and pin.startswith("torch==") else pin for pin in found]


def tools_of_tests(project: dict) -> list[str]:
    """What some tests compare with, of any version that goes with these; such tests skip without it."""
    wanted = project["optional-dependencies"]["test"]
    return [one for one in wanted if re.split(r"[\s>=;]", one, maxsplit=1)[0] not in NOT_INSTALLED]


def main() -> int:
    """Make a virtual environment, install, run; the exit code is pytest's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest = project["requires-python"].removeprefix(">=")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=f"python{lowest}", help="interpreter (default: %(default)s)")
    parser.add_argument("--torch", help="version in place of the oldest one")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-oldest", help="folder (default: %(default)s)")
    given, rest = parser.parse_known_args()
    wanted = pins(project, given.torch)
    sys.stdout.write("\n".join(["oldest versions:", *wanted, ""]))
    sys.stdout.flush()
    subprocess.run([given.python, "-m", "venv", str(given.venv)], check=True)
    python = given.venv / "bin" / "python"
    constraints = given.venv / "oldest.txt"
    constraints.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
    subprocess.run([*pip, "--editable", str(ROOT), *RUNNERS], check=True)
    for tool in tools_of_tests(project):
        if subprocess.run([*pip, tool], check=False, capture_output=True).returncode:
            sys.stdout.write(f"left out, for it does not go with these versions: {tool}\n")
    tests = rest or ["-m", "not slow"]
    return subprocess.run([str(python), "-m", "pytest", *FORGIVEN, *tests], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
