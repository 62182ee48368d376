"""What became worse since another commit: numbers of all results and scores that both have, by table, row and column.

A column's name says whether more is better; numbers of columns that say neither are left out, and told with --skipped.
Printed as a table in markdown; nothing is run.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from claims import number_in
from common import ROOT, text_of
from tables import markdown_table

PLACES = ("benchmarks/results/*.json", "cryolithe/network/bundled/*.json")
# The first that is found in a column's name, or in the last key of a score, decides; with what change is told.
LOWER = r"\bs\b|seconds|lost|\bGB\b|memory|loss|wrong|fail|error|lines|streaks|slowest|peak|resolution"
HIGHER = (
    r"SNR|snr|dB|FSC|fsc|gain|SSIM|F1|AUC|\br\b|correlation|found|confidence|0\.8-6|1\.5-8|membranes|filaments|proteins"
)
HIGHER += r"|voxels/s|inputs/s|missing|measured|difference"
# Of what was measured in seconds or bytes, machines and their load change more.
OF_MACHINES = r"\bs\b|seconds|\bGB\b|memory|peak|slowest|/s"


Where = tuple[str, str, str, str]


class Cell(NamedTuple):
    """A number of a result: which file, table and row, which column, and the number."""

    where: Where
    value: float


def numbers(name: str, result: dict[str, Any]) -> Iterator[Cell]:
    """Numbers of a result's tables, or of a file of scores."""
    if "tables" in result:
        for table in result["tables"]:
            seen: dict[str, int] = {}
            for row in table["rows"]:
                # Several columns of words may be a row's label together.
                words = [str(cell) for cell in row if isinstance(cell, str) and not re.match(r"[~>=−-]*\s*\d", cell)]
                label = ", ".join(word for word in dict.fromkeys([str(row[0]), *words]) if word != "-")
                seen[label] = seen.get(label, 0) + 1
                label += f" ({seen[label]})" if seen[label] > 1 else ""
                for column, cell in zip(table["columns"][1:], row[1:], strict=True):
                    if isinstance(cell, bool) or cell is None:
                        continue
                    parts = str(cell).split(" / ") if isinstance(cell, str) else [cell]
                    for number, part in enumerate(parts, start=1):
                        heading = f"{column}, {number}" if len(parts) > 1 else column
                        with suppress(KeyError):
                            yield Cell((name, table["title"], label, heading), number_in(part))
        return
    for part in ("scores", "classes"):
        yield from nested(name, part, (), result.get(part, {}))


def nested(name: str, part: str, keys: tuple[str, ...], values: Any) -> Iterator[Cell]:
    """Numbers of tables within tables; the last key is the column, the others are the row's label."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from nested(name, part, (*keys, key), value)
    elif isinstance(values, int | float) and not isinstance(values, bool) and keys[-1] != "frequency_per_px":
        yield Cell((name, part, ", ".join(keys[:-1]), keys[-1]), float(values))


def direction(row: str, column: str) -> int:
    """1 where more is better, -1 where less is (also than the goal that a row tells), 0 where names do not say."""
    if column == "measured" and "<=" in row:
        return -1
    for pattern, sign in ((r"/s\b", 1), (LOWER, -1), (HIGHER, 1)):
        if re.search(pattern, column):
            return sign
    return 0


def of_commit(commit: str | None) -> dict[Where, float]:
    """All numbers of a commit, or of the files that lie here.

    Raises:
        SystemExit: if there is no such commit.
    """
    if commit is None:
        files = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for each in PLACES for p in ROOT.glob(each)}
    else:
        listed = git("ls-tree", "-r", "--name-only", commit).splitlines()
        names = [name for name in listed if any(fnmatch.fnmatch(name, each) for each in PLACES)]
        files = {name: git("show", f"{commit}:{name}") for name in names}
    found: dict[Where, float] = {}
    for name, text in sorted(files.items()):
        result = json.loads(text)
        if isinstance(result, dict) and not result.get("quick"):
            found |= {cell.where: cell.value for cell in numbers(name.rpartition("/")[2], result)}
    return found


def git(*words: str) -> str:
    """What git prints.

    Raises:
        SystemExit: with git's words, if it fails.
    """
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"Error: {' '.join(done.stderr.split())}")
    return done.stdout


def worse(
    before: dict[Where, float],
    now: dict[Where, float],
    margins: dict[str, float],
) -> list[tuple[Where, float, float]]:
    """Numbers that fell by more than a margin, the largest share of their size first.

    Args:
        before: numbers of the other commit.
        now: those of today.
        margins: ``score``: absolute, of scores; ``db``: of decibels; ``machine``: relative, of seconds and memory.
    """
    found = []
    for where in before.keys() & now.keys():
        old, new, (row, column) = before[where], now[where], where[-2:]
        change = direction(row, column) * (new - old)
        if re.search(OF_MACHINES, column) or (column == "measured" and re.search(OF_MACHINES, row)):
            limit = margins["machine"] * abs(old)
        else:
            limit = margins["db"] if re.search(r"(dB|_db|gain[^,]*)(, 1)?$", column) else margins["score"]
        if change < -limit:
            found.append((where, old, new))
    return sorted(found, key=lambda one: (one[0][:2], -abs(one[2] - one[1]) / max(abs(one[1]), 1e-9)))


def main() -> None:
    """Compare the results that lie here with those of a commit."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--against", required=True, metavar="COMMIT", help="with which to compare")
    options.add_argument("--margin", type=float, default=0.005, help="by which scores may fall (correlations, FSC, F1)")
    options.add_argument("--margin-db", type=float, default=0.1, help="by which decibels may fall")
    options.add_argument("--margin-machine", type=float, default=0.15, help="share by which seconds or bytes may grow")
    options.add_argument("--skipped", action="store_true", help="also name the columns that say neither")
    arguments = options.parse_args()
    before, now = of_commit(arguments.against), of_commit(None)
    margins = {"score": arguments.margin, "db": arguments.margin_db, "machine": arguments.margin_machine}
    fell = worse(before, now, margins)
    both = before.keys() & now.keys()
    rows = [[*where, text_of(old), text_of(new)] for where, old, new in fell]
    if rows:
        columns = ["result", "table", "row", "column", arguments.against[:12], "now"]
        print("\n".join(markdown_table({"title": "What fell", "columns": columns, "rows": rows})))
    changed = sum(before[where] != now[where] for where in both)
    print(f"{len(both)} numbers in both, {changed} differ, {len(fell)} became worse by more than the margin", end=" ")
    print(
        f"(scores {arguments.margin:g}, {arguments.margin_db:g} dB, seconds and memory {arguments.margin_machine:.0%})"
    )
    gone = sorted({where[:2] for where in before.keys() - now.keys()} - {where[:2] for where in now})
    for name, title in gone:
        print(f"gone: {name}, {title}")
    if arguments.skipped:
        print("neither:", ", ".join(sorted({where[-1] for where in both if not direction(*where[-2:])})))


if __name__ == "__main__":
    main()
