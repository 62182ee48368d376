"""Put the results in results/*.json into README.md, between its two markers; results of --quick are left out.

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


def section(name: str, result: dict[str, Any], folder: str) -> list[str]:
    """Lines of one result: where it comes from, its tables and figures."""
    device = result["device"]
    bf16 = "with" if device["bf16"] else "without"
    origin = (
        f"`{result['command']}`, {result['date'][:10]}, commit `{result['commit'][:12]}"
        f"{'-dirty' if result['commit'].endswith('-dirty') else ''}`. {device['cpu']}, {device['cores']} cores, "
        f"{bf16} bf16, {device['memory_gb']} GB, torch {device['torch']}."
    )
    tables = [line for table in result["tables"] for line in markdown_table(table)]
    figures = [line for file in result.get("figures", ()) for line in (f"![{Path(file).stem}]({folder}/{file})", "")]
    caption = [f"*{result['caption']}*", ""] if figures and "caption" in result else []
    return [f"### {name}", "", origin, "", *tables, *figures, *caption]


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


def main() -> None:
    """Rewrite the part between the markers."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--results", type=Path, default=RESULTS)
    options.add_argument("--readme", type=Path, default=FOLDER / "README.md")
    options.add_argument("--quick", action="store_true", help="print the part instead of writing it, quick runs too")
    arguments = options.parse_args()
    lines: list[str] = []
    shown: list[dict[str, Any]] = []
    for path in sorted(arguments.results.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        # Scores of a model are shown by its card (docs/models.md); rows that go on elsewhere have no tables.
        if "benchmark" not in result or "tables" not in result:
            continue
        if result["quick"] and not arguments.quick:
            continue
        shown.append(result)
        lines += section(path.stem, result, arguments.results.name)
    lines += losses_section(shown)
    made = wrapped("\n".join(lines).strip())
    if arguments.quick:
        print(made)
        return
    text = arguments.readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise SystemExit(f"{arguments.readme} must hold the line {BEGIN} once and, after it, the line {END} once")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    body = made or "No results yet."
    arguments.readme.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")
    print(f"{arguments.readme}: {sum(line.startswith('### ') for line in lines)} results")


if __name__ == "__main__":
    main()
