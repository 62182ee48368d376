"""Run the benchmarks of the CPU one after the other and check that their results make sense; ``make benchmarks``.

A full run needs a checkout without changes, leaves out what has a result of this very commit (or of one whose code is
the same) and so goes on where an earlier one stopped; at its end it names the tables that are of another commit. A
script that is missing, or needs a molecule library that was not given, is named and left out; quick runs place
procedural molecules instead. Exit code 1 if any failed or wrote a number that cannot be.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import FOLDER, RESULTS, ROOT, commit

# Results, and the words of the script of the same name. Full runs of these fit into an hour on two cores.
SCRIPTS: dict[str, list[str]] = {
    "astra_agreement": [],
    "grid_lines": [],
    "fusion": [],
    "wedge": [],
    "uncertainty": ["--models", "default", "fast"],
    "memory": ["--max-memory", "2.4", "--model", "fast"],
    "speed": [],
    "real": [],
    "uneven": [],
    "brightness": [],
    "tilt_schemes": [],
    "quality": [],
    "realism": [],
}
# With --long, too: hours. README.md tells how long each takes.
LONG: dict[str, list[str]] = {
    "simulation": [],
    "cluster": [],
    "raw_stack": [],
    "raw_stack_patches": ["--patches"],
    "bends": [],
    "hand": [],
    "polarity": [],
    "close_membranes": [],
    "solid_bodies": [],
    "lattices": [],
    "misplaced": [],
    "rings": [],
    "cpu_training": [],
    "engine": [],
    "kills": [],
    "finetune": [],
    "noise_profile": [],
    "adapt": [],
    "denoise": [],
    "denoise_images": [],
    "dual": ["--minutes", "30"],
    "ablations": [],
    "known": [],
    "fuzz": ["--inputs", "100000"],
}
# Scripts of README.md's table that no full run has, and why.
LEFT_OUT = {
    "empiar": "needs deposited series",
    "regressions": "needs a commit to compare with: --against",
    "backbones": "needs Topaz-Denoise, and choices of what to train",
    "gpu": "needs a GPU",
    "gpu_roofline": "needs a GPU",
    "loader_scaling": "a part of gpu.py",
    "tables": "measures nothing",
    "claims": "measures nothing",
    "fell": "measures nothing",
}
QUICK_ONLY: dict[str, list[str]] = {
    "engine": [],
    "empiar": [],
    "cluster": [],
    "polarity": [],
    "close_membranes": [],
    "solid_bodies": [],
    "lattices": [],
    "misplaced": [],
    "rings": [],
    "raw_stack": [],
    "bends": [],
    "hand": [],
    "cpu_training": [],
    "dual": [],
}
TAKE_MOLECULES = {
    "fusion", "wedge", "quality", "realism", "polarity", "dual", "uncertainty", "simulation", "finetune",
    "noise_profile", "denoise", "denoise_images", "ablations", "known", "uneven", "brightness",
    "tilt_schemes", "misplaced", "rings",
}  # fmt: skip
# What decides what every benchmark finds, beside its own script and what that uses.
CODE = ("cryolithe", "benchmarks/baselines", "configs", "training_data", "pyproject.toml")
# Scores of the bundled models are results, which lie beside them.
NO_CODE = tuple(f":(exclude)cryolithe/network/bundled/*.{kind}.json" for kind in ("scores", "procedural"))
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


def script_of(name: str) -> str | None:
    """The script that makes a result: of the same name, or of its beginning; None where there is none."""
    names = (name.rsplit("_", n)[0] for n in range(3))
    return next((each for each in names if (FOLDER / f"{each}.py").is_file()), None)


def run(name: str, words: list[str], output: Path) -> tuple[str, list[str]]:
    """Run a script; returns a line on it and what is wrong."""
    start = time.perf_counter()
    script = str(FOLDER / f"{script_of(name)}.py")
    done = subprocess.run([sys.executable, script, *words, "--output", str(output)], check=False)
    took = f"{time.perf_counter() - start:.0f} s"
    if done.returncode:
        return f"{name}: FAILED with exit code {done.returncode} after {took}", ["it failed"]
    if not output.is_file():
        return f"{name}: FAILED, nothing was written ({took})", ["it wrote nothing"]
    wrong = problems(json.loads(output.read_text(encoding="utf-8")))
    return f"{name}: {'; '.join(wrong) if wrong else 'ok'} ({took})", wrong


def commit_of(path: Path) -> str | None:
    """The commit of a result; None where there is none, or it is of a quick run."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return None if result.get("quick") else str(result["commit"])
    except (OSError, ValueError, KeyError):
        return None


def used_by(text: str) -> set[str]:
    """Modules that a script imports ("parts.scenes") or names ("killed.py"), also those that are none of ours."""
    found = {name.replace("/", ".") for name in re.findall(r"\b([\w/]+)\.py\b", text)}
    found |= set(re.findall(r"^ *import +([\w.]+)", text, re.MULTILINE))
    for module, names in re.findall(r"^ *from +([\w.]+) +import +(\([^)]*\)|.*)", text, re.MULTILINE):
        found |= {module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))}
    return found


def scripts_of(name: str) -> set[str]:
    """The script of a result and those of this folder that it imports or names, as paths in the checkout."""
    paths = [path for inner in (".", "parts", "fuzzing") for path in (FOLDER / inner).glob("*.py")]
    everything = {".".join(path.relative_to(FOLDER).with_suffix("").parts): path for path in paths}
    found: set[str] = set()
    own = script_of(name)
    waiting = set() if own is None else {own}
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= (used_by(everything[module].read_text(encoding="utf-8")) & set(everything)) - found
    return {f"benchmarks/{module.replace('.', '/')}.py" for module in found}


def same_code(other: str, name: str) -> bool:
    """Whether a commit has the code of the present one that makes a result; a checkout with changes has that of none.

    A change of one benchmark's script does not make the results of the others old.
    """
    if other == commit():
        return not other.endswith("-dirty")
    if "-" in other or commit().endswith("-dirty"):
        return False
    code = (*CODE, *NO_CODE, *sorted(scripts_of(name)))
    differ = ["git", "-C", str(ROOT), "diff", "--quiet", other, commit(), "--", *code]
    return subprocess.run(differ, capture_output=True, check=False).returncode == 0


def of_other_commits(results: Path) -> list[str]:
    """Lines on the results with tables that are not of this commit."""
    lines = []
    for path in sorted(results.glob("*.json")):
        made = commit_of(path)
        if made is not None and made != commit() and "tables" in json.loads(path.read_text(encoding="utf-8")):
            lines.append(
                f"{path.stem}: of {made[:12]}{', whose code is the same' if same_code(made, path.stem) else ''}"
            )
    return lines


def main() -> None:
    """Run all, then say how each went."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="tiny sizes; results are not kept")
    options.add_argument("--molecules", type=Path, help="molecule library; see training_data/README.md")
    options.add_argument("--only", default="", help="names of results, separated by commas")
    options.add_argument("--long", action="store_true", help="also those that take hours")
    options.add_argument("--again", action="store_true", help="also those that have a result of this commit")
    options.add_argument("--dirty", action="store_true", help="although the checkout has changes; results say so")
    options.add_argument("--results", type=Path, default=RESULTS, help="where results are, and go")
    arguments = options.parse_args()
    if arguments.molecules and not arguments.molecules.is_file():
        raise SystemExit(
            f"Error: there is no molecule library {arguments.molecules}; training_data/README.md tells more"
        )
    if commit().endswith("-dirty") and not (arguments.quick or arguments.dirty):
        raise SystemExit(
            "Error: the checkout has changes: commit them, so that results tell what made them (or --dirty)"
        )
    scripts = SCRIPTS | QUICK_ONLY if arguments.quick else SCRIPTS | (LONG if arguments.long else {})
    wanted = arguments.only.split(",") if arguments.only else list(scripts)
    lines, failed = [], False
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            if script_of(name) is None:
                lines.append(f"{name}: left out, there is no benchmarks/{name}.py")
                continue
            if name in TAKE_MOLECULES and not arguments.molecules and not arguments.quick:
                # It would run with procedural molecules, and replace numbers that were made with real ones.
                lines.append(f"{name}: left out, it needs a molecule library: give MOLECULES=library.h5 to make")
                continue
            output = (Path(folder) if arguments.quick else arguments.results) / f"{name}.json"
            made = None if arguments.quick or arguments.again else commit_of(output)
            if made is not None and same_code(made, name):
                lines.append(f"{name}: done already, by {made[:12]}")
                continue
            words = ["--quick"] if arguments.quick else (scripts | LONG).get(name, [])
            if name in TAKE_MOLECULES and arguments.molecules:
                words = [*words, "--molecules", str(arguments.molecules)]
            line, wrong = run(name, words, output)
            lines.append(line)
            failed = failed or bool(wrong)
            print(f"\n== {line}\n", flush=True)
    print("\n".join(lines))
    if not arguments.quick:
        left = [name for name in LONG if name not in wanted]
        print(f"left out without --long: {', '.join(left)}" if left else "", end="\n" if left else "")
        print("never run by this command:", "; ".join(f"{name} ({why})" for name, why in LEFT_OUT.items()))
        others = of_other_commits(arguments.results)
        print("all tables are of this commit" if not others else "tables of other commits:", *others, sep="\n   ")
        print("next: python benchmarks/tables.py, python benchmarks/claims.py --write")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
