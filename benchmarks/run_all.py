"""Run the benchmarks of the CPU one after the other and check that their results make sense; ``make benchmarks``.

A script that is missing, or needs a molecule library that was not given, is named and left out; quick runs place
procedural molecules instead. Exit code 1 if any failed or wrote a number that cannot be.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import FOLDER

# Full runs fit into an hour on two cores; what takes longer has its own command in README.md.
SCRIPTS: dict[str, list[str]] = {
    "astra_agreement": [],
    "grid_lines": [],
    "fusion": [],
    "wedge": [],
    "uncertainty": ["--models", "default", "fast"],
    "memory": ["--rows", "128", "--max-memory", "3.2", "--methods", "network", "--evaluate", "512"],
    "speed": [],
    "real": [],
    "quality": [],
    "realism": [],
}
QUICK_ONLY: dict[str, list[str]] = {
    "engine": [],
    "empiar": [],
    "cluster": [],
    "polarity": [],
    "raw_stack": [],
    "cpu_training": [],
    "dual": [],
}
TAKE_MOLECULES = {"fusion", "wedge", "quality", "realism", "polarity", "dual"}
# No score of ours lies outside: correlations, shares, and times and sizes that are positive.
LOWEST, HIGHEST = -1e3, 1e12


def problems(result: dict[str, Any]) -> list[str]:
    """What cannot be right in a result: no table, an empty one, rows of another length, numbers that are none."""
    tables = result.get("tables", [])
    found = [] if tables else ["it has no table"]
    for table in tables:
        if not table["rows"]:
            found.append(f"table '{table['title']}' is empty")
        for row in table["rows"]:
            if len(row) != len(table["columns"]):
                found.append(f"table '{table['title']}': {len(row)} cells in a row of {len(table['columns'])} columns")
            numbers = [cell for cell in row if isinstance(cell, int | float) and not isinstance(cell, bool)]
            bad = [n for n in numbers if not math.isfinite(n) or not LOWEST < n < HIGHEST]
            found += [f"table '{table['title']}', row '{row[0]}': {n}" for n in bad]
            if all(cell in (None, "-", "nan") for cell in row[1:]):
                found.append(f"table '{table['title']}', row '{row[0]}': nothing was measured")
    return found


def run(name: str, words: list[str], output: Path) -> tuple[str, list[str]]:
    """Run a script; returns a line on it and what is wrong."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, str(FOLDER / f"{name}.py"), *words, "--output", str(output)], check=False)
    took = f"{time.perf_counter() - start:.0f} s"
    if done.returncode:
        return f"{name}: FAILED with exit code {done.returncode} after {took}", ["it failed"]
    if not output.is_file():
        return f"{name}: FAILED, nothing was written ({took})", ["it wrote nothing"]
    wrong = problems(json.loads(output.read_text(encoding="utf-8")))
    return f"{name}: {'; '.join(wrong) if wrong else 'ok'} ({took})", wrong


def main() -> None:
    """Run all, then say how each went."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="tiny sizes; results are not kept")
    options.add_argument("--molecules", type=Path, help="molecule library; see training_data/README.md")
    options.add_argument("--only", default="", help="names of scripts, separated by commas")
    arguments = options.parse_args()
    if arguments.molecules and not arguments.molecules.is_file():
        raise SystemExit(
            f"Error: there is no molecule library {arguments.molecules}; training_data/README.md tells more"
        )
    scripts = SCRIPTS | QUICK_ONLY if arguments.quick else SCRIPTS
    wanted = arguments.only.split(",") if arguments.only else list(scripts)
    lines, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            if not (FOLDER / f"{name}.py").is_file():
                lines.append(f"{name}: left out, there is no benchmarks/{name}.py")
                continue
            if name in TAKE_MOLECULES and not arguments.molecules and not arguments.quick:
                # It would run with procedural molecules, and replace numbers that were made with real ones.
                lines.append(f"{name}: left out, it needs a molecule library: give MOLECULES=library.h5 to make")
                continue
            words = ["--quick"] if arguments.quick else scripts.get(name, [])
            if name in TAKE_MOLECULES and arguments.molecules:
                words = [*words, "--molecules", str(arguments.molecules)]
            output = (Path(folder) if arguments.quick else FOLDER / "results") / f"{name}.json"
            line, wrong = run(name, words, output)
            lines.append(line)
            failed = failed or bool(wrong)
            print(f"\n== {line}\n", flush=True)
    print("\n".join(lines))
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
