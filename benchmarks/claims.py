"""Do the numbers of the pages equal those of the results? claims.yaml binds them; ``--write`` puts today's in.

A claim binds cells of a table, by its first heading, row label and column, or numbers in a sentence. Its text holds
``{file > key > key: format}``: a place in a JSON file (of a result's table: title, row, column), and how it is printed.
``<name>`` stands for a group of the row label's pattern. Without options the numbers that differ are listed, exit code
1; with ``--uncovered`` also those that no claim covers.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import FOLDER, ROOT

from cryolithe.files.yaml_table import read_yaml_table

CLAIMS = FOLDER / "claims.yaml"
PLACE = re.compile(r"\{([^{}]+):\s*([^{}:]+)\}")
NUMBER = r"[-−]?(?:\d[\d ]*\d|\d)?(?:\.\d+)?"
# Numbers that somebody measured have a decimal point, or a unit of such things.
MEASURED = re.compile(r"(?<![\w./§-])[-−+]?\d*\.\d+(?![\w.]*\d)|(?<![\w.])\d+ dB")


@dataclass(frozen=True)
class Found:
    """A place of a page that a claim covers: from where to where, what stands there, what should."""

    page: str
    start: int
    stop: int
    printed: str
    expected: str
    what: str

    @property
    def right(self) -> bool:
        """Whether they are the same."""
        return self.printed == self.expected


def same_label(text: object) -> str:
    """A label without layout: bold, code, other minus signs, a plus."""
    return re.sub(r"[*`]|^\+", "", str(text).replace("−", "-")).strip()


def inner(values: Any, key: str) -> Any:
    """The value of a key, whose layout does not matter."""
    for name, value in values.items():
        if same_label(name) == same_label(key):
            return value
    raise KeyError(f"no '{key}' among {', '.join(map(str, values))}"[:300])


@functools.cache
def content(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def value_at(values: Any, keys: list[str]) -> float:
    """The number at a place: keys one below the other, or title, row and column of a table.

    Raises:
        KeyError: if there is none.
    """
    tables = {table["title"]: table for table in values.get("tables", ())} if isinstance(values, dict) else {}
    if keys[0] in tables and len(keys) == 3:
        table = tables[keys[0]]
        rows = {same_label(row[0]): row for row in reversed(table["rows"])}
        found = dict(zip(table["columns"], inner(rows, keys[1]), strict=True))
        return number_in(inner(found, keys[2]))
    for key in keys:
        values = inner(values, key)
    return number_in(values)


def number_in(cell: Any) -> float:
    """The first number of a cell; a cell may be text, such as "4.49 ± 2.64" or "~9 680"."""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return float(cell)
    match = re.search(r"[-−]?\d+(?: \d{3})*(?:\.\d+)?", str(cell))
    if match is None:
        raise KeyError(f"'{cell}' is no number")
    return float(match[0].replace(" ", "").replace("−", "-"))


def printed(value: float, form: str) -> str:
    """A number as a page has it.

    Forms: Python's; ``n``: whole, in groups of three; ``g2``: likewise, of two digits that count; ``z.3f``: .123.
    """
    if form.startswith("z"):
        return format(value, form[1:]).replace("0.", ".", 1)
    if form in ("n", "g2"):
        return f"{float(f'{value:.2g}') if form == 'g2' else value:,.0f}".replace(",", " ")
    return format(value, form).replace("-", "−")


@dataclass(frozen=True)
class Texts:
    """What claims are made with.

    Attributes:
        files: by the names that claims use.
    """

    files: dict[str, Path]

    def values(self, text: str, groups: dict[str, str]) -> list[tuple[float, str]]:
        """The numbers of a text, each as it is and as it is printed."""
        found = []
        for place, form in PLACE.findall(text):
            for name, group in groups.items():
                place = place.replace(f"<{name}>", group)  # noqa: PLW2901
            file, *keys = (part.strip() for part in place.split(" > "))
            value = value_at(content(inner(self.files, file)), keys)
            found.append((value, printed(value, form.strip())))
        return found


def filled(text: str, numbers: list[str]) -> str:
    """A text with numbers in its places."""
    left = iter(numbers)
    return PLACE.sub(lambda _: next(left), text)


def table_rows(page: str) -> Iterator[tuple[list[str], list[tuple[int, int]], list[str]]]:
    """Rows of all tables: headings, where each cell's text stands in the page, and the texts."""
    head: list[str] = []
    place = 0
    for line in page.splitlines(keepends=True):
        if line.startswith("|"):
            edges = [m.start() for m in re.finditer(r"(?<!\\)\|", line)]
            cells = [line[a + 1 : b] for a, b in itertools.pairwise(edges)]
            starts = [place + a + 1 + len(c) - len(c.lstrip()) for a, c in zip(edges, cells, strict=False)]
            texts = [cell.strip() for cell in cells]
            if not head:
                head = texts
            elif not set("".join(texts)) <= set("-: "):
                yield head, [(start, start + len(text)) for start, text in zip(starts, texts, strict=True)], texts
        else:
            head = []
        place += len(line)


def of_table(claim: dict[str, Any], name: str, page: str, texts: Texts) -> Iterator[Found]:
    """What a claim says of a table.

    Raises:
        KeyError: if the page has no such table, or a claimed row or column is not there.
    """
    pattern, rows = re.compile(claim.get("row", ".*")), claim.get("rows", {})
    below = claim.get("below", {})
    seen, missing = 0, {same_label(label) for label in rows}
    for head, spans, cells in table_rows(page):
        if same_label(head[0]) != same_label(claim["first"]):
            continue
        label = same_label(cells[0])
        missing.discard(label)
        match = pattern.fullmatch(label)
        own: dict[str, str] = next((value for key, value in rows.items() if same_label(key) == label), {})
        wanted = {**(claim.get("cells", {}) if match else {}), **own}
        groups = {"row": label, **(match.groupdict() if match else {})}
        made = {column: texts.values(text, groups) for column, text in wanted.items()}
        raw = {column: [value for value, _ in values] for column, values in made.items()}
        for heading, (start, stop), cell in zip(head, spans, cells, strict=True):
            if heading not in wanted:
                continue
            seen += 1
            expected = filled(wanted[heading], [shown for _, shown in made[heading]])
            if heading in below.get("columns", ()) and any(
                a < b for a, b in zip(raw[heading], raw[below["than"]], strict=True)
            ):
                expected += " ↓"
            if re.search(r"\*\*.*\*\*", cell) and "**" not in expected:  # which is the best is for people to say
                expected = f"**{expected}**"
            yield Found(name, start, stop, cell, expected, f"{label}: {heading}")
        if gone := set(wanted) - set(head):
            raise KeyError(f"no column {', '.join(sorted(gone))} in the table '{claim['first']}'")
    if not seen or missing:
        raise KeyError(f"{name}: no table '{claim['first']}' with the rows {', '.join(missing) or claim.get('row')}")


def of_sentence(claim: dict[str, Any], name: str, page: str, texts: Texts) -> Iterator[Found]:
    """What a claim says of a sentence, whose lines may be wrapped anywhere.

    Raises:
        KeyError: if the page has no such sentence.
    """
    parts = PLACE.split(claim["text"])
    literal = [re.sub(r"(?:\\ |\\\n|\s)+", r"\\s+", re.escape(part)) for part in parts[::3]]
    match = re.search(f"({NUMBER})".join(literal), page)
    if match is None:
        raise KeyError(f"{name}: the page does not say '{claim['text'][:80]}'")
    for number, (_, expected) in enumerate(texts.values(claim["text"], {}), start=1):
        what = " ".join(match[0].split())[:60]
        yield Found(name, *match.span(number), " ".join(match[number].split()), expected, what)


def check(claims: Path = CLAIMS, root: Path = ROOT) -> tuple[list[Found], list[str]]:
    """All that claims cover, and what is wrong with claims themselves."""
    told = read_yaml_table(claims, "table")
    texts = Texts({name: root / path for name, path in told["files"].items()})
    found, wrong = [], []
    for kind, look in (("tables", of_table), ("sentences", of_sentence)):
        for claim in told.get(kind, ()):
            try:
                page = (root / claim["page"]).read_text(encoding="utf-8")
                found += list(look(claim, claim["page"], page, texts))
            except (KeyError, OSError) as error:
                wrong.append(f"{claim['page']}: {error}")
    return found, wrong


def write(found: list[Found], root: Path) -> int:
    """Put what should stand there into the pages; how many numbers or cells were changed."""
    changed = 0
    for name in {one.page for one in found}:
        page = (root / name).read_text(encoding="utf-8")
        for one in sorted((o for o in found if o.page == name), key=lambda o: -o.start):
            if not one.right:
                page, changed = page[: one.start] + one.expected + page[one.stop :], changed + 1
        (root / name).write_text(page, encoding="utf-8")
    return changed


def uncovered(found: list[Found], root: Path) -> Iterator[str]:
    """Numbers of the pages with claims that look measured and that no claim covers, each with what is about it."""
    for name in sorted({one.page for one in found}):
        page = (root / name).read_text(encoding="utf-8").partition("<!-- results:begin -->")[0]
        spans = [(one.start, one.stop) for one in found if one.page == name]
        spans += [cells[0] for _, cells, _ in table_rows(page)]  # labels
        last = -1
        for match in MEASURED.finditer(page):
            if any(start <= match.start() < stop for start, stop in spans):
                continue
            line = page.count("\n", 0, match.start()) + 1
            if line != last:
                about = page[max(0, match.start() - 50) : match.end() + 50]
                yield f"{name}:{line}: ...{' '.join(about.split())}..."
            last = line


def main() -> None:
    """List what differs, or mend it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--write", action="store_true", help="put the numbers of the results into the pages")
    options.add_argument("--uncovered", action="store_true", help="also list numbers that no claim covers")
    options.add_argument("--root", type=Path, default=ROOT)
    arguments = options.parse_args()
    found, wrong = check(arguments.root / "benchmarks" / CLAIMS.name, arguments.root)
    differ = [one for one in found if not one.right]
    for one in differ:
        print(f"{one.page}, {one.what}: '{one.printed}', the result says '{one.expected}'")
    print(*wrong, sep="\n" if wrong else "")
    if arguments.write:
        print(f"{write(found, arguments.root)} places changed")
    if arguments.uncovered:
        lines = list(uncovered(found, arguments.root))
        print(f"\nCovered by no claim, in {len(lines)} lines:", *lines, sep="\n")
    print(f"{len(found)} places are claimed, {len(differ)} differed, {len(wrong)} claims fit no page")
    raise SystemExit(1 if wrong or (differ and not arguments.write) else 0)


if __name__ == "__main__":
    main()
