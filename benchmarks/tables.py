"""Put the results in results/*.json into README.md, between its two markers; results of --quick are left out.

What is to be said of a result beside its tables stands in results/NAME.md, and is put below them: nothing that is
written between the markers by hand stays. A test holds that what stands there is what the results make.


What baselines do better than our first model is put together from all results under "Where FBP wins".
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import FOLDER, RESULTS, text_of
from wrap import wrapped

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def markdown_table(table: dict[str, Any]) -> list[str]:
    """Lines of one table; numbers stand at the right."""
    aligned = ["---" if n == 0 else "---:" for n in range(len(table["columns"]))]
    rows = [table["columns"], aligned, *([text_of(cell) for cell in row] for row in table["rows"])]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [f"**{table['title']}**", "", *lines, "", *([table["note"], ""] if table.get("note") else [])]


def section(name: str, result: dict[str, Any], folder: Path) -> list[str]:
    """Lines of one result: where it comes from, its tables and figures, and what is said of them."""
    device = result["device"]
    bf16 = "with" if device["bf16"] else "without"
    origin = (
        f"`{result['command']}`, {result['date'][:10]}, commit `{result['commit'][:12]}"
        f"{'-dirty' if result['commit'].endswith('-dirty') else ''}`. {device['cpu']}, {device['cores']} cores, "
        f"{bf16} bf16, {device['memory_gb']} GB, torch {device['torch']}."
    )
    tables = [line for table in result["tables"] for line in markdown_table(table)]
    figures = [
        line for file in result.get("figures", ()) for line in (f"![{Path(file).stem}]({folder.name}/{file})", "")
    ]
    caption = [f"*{result['caption']}*", ""] if figures and "caption" in result else []
    said = folder / f"{name}.md"
    prose = [said.read_text(encoding="utf-8").strip(), ""] if said.is_file() else []
    return [f"### {name}", "", origin, "", *tables, *figures, *caption, *prose]


def commits_section(results: dict[str, dict[str, Any]]) -> list[str]:
    """Lines that tell which results are of which commit, those of the latest first."""
    of_commit: dict[str, list[str]] = {}
    for name, result in sorted(results.items(), key=lambda entry: entry[1]["date"], reverse=True):
        of_commit.setdefault(result["commit"][:12], []).append(name)
    rows = []
    for commit, names in of_commit.items():
        dates = sorted({results[name]["date"][:10] for name in names})
        rows.append([commit, " to ".join(dict.fromkeys((dates[0], dates[-1]))), ", ".join(sorted(names))])
    return [
        "### Of which commit",
        "",
        *markdown_table({"title": "", "columns": ["commit", "made", "results"], "rows": rows})[2:],
    ]


def losses_section(results: list[dict[str, Any]]) -> list[str]:
    """Lines on where a baseline beats our first model, by the numbers of all results that compare them."""
    compared = [result for result in results if "losses" in result]
    if not compared:
        return []
    lines = ["### Where FBP wins", ""]
    lines += ["Every cell of the tables above in which a method without our networks beats the first of them, on the "]
    lines[-1] += "means. A row “oracle” had the truth to choose by: no user can do as well with that method."
    lines += [""]
    for result in compared:
        found, model = result["losses"]["found"], result["losses"]["model"]
        where = f"`{result['benchmark']}.py`, {model}"
        if not found:
            lines += [f"{where}: none found in these sets.", ""]
            continue
        better: dict[tuple[str, float], list[str]] = {}
        for one in found:
            cell = (f"{one['where']}: {one['measure']}", one["model"])
            better.setdefault(cell, []).append(f"{one['baseline']} {text_of(one['value'])}")
        rows = [[title, value, "; ".join(names)] for (title, value), names in better.items()]
        lines += markdown_table({"title": where, "columns": ["set: measure", "ours", "better"], "rows": rows})
    untested = dict.fromkeys(text for result in compared for text in result["losses"]["not_tested"])
    return [*lines, f"Not tested: {'; '.join(untested)}.", ""]


def region(results: Path, quick: bool = False) -> str:
    """What belongs between the markers, from the results of a folder; quick ones too, if they are wanted.

    Raises:
        SystemExit: if something is said of a result that is not there.
    """
    lines: list[str] = []
    shown: dict[str, dict[str, Any]] = {}
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        # Scores of a model are shown by its card (docs/models.md); rows that go on elsewhere have no tables.
        if "benchmark" not in result or "tables" not in result or (result["quick"] and not quick):
            continue
        shown[path.stem] = result
        lines += section(path.stem, result, results)
    if alone := [path.name for path in sorted(results.glob("*.md")) if path.stem not in shown]:
        raise SystemExit(f"Error: {', '.join(alone)}: there is no result of this name with tables")
    if not lines:
        return "No results yet."
    return wrapped("\n".join([*commits_section(shown), *lines, *losses_section(list(shown.values()))]).strip())


def parted(readme: Path) -> tuple[str, str, str]:
    """The text before, between and behind the markers."""
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(f"{readme} must hold the line {BEGIN} once and, after it, the line {END} once")
    before, rest = text.split(BEGIN)
    between, after = rest.split(END)
    return before, between, after


def main() -> None:
    """Rewrite the part between the markers."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--results", type=Path, default=RESULTS)
    options.add_argument("--readme", type=Path, default=FOLDER / "README.md")
    options.add_argument("--quick", action="store_true", help="print the part instead of writing it, quick runs too")
    arguments = options.parse_args()
    made = region(arguments.results, arguments.quick)
    if arguments.quick:
        print(made)
        return
    before, _, after = parted(arguments.readme)
    arguments.readme.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}", encoding="utf-8")
    print(f"{arguments.readme}: {made.count('### ')} results")


if __name__ == "__main__":
    main()
