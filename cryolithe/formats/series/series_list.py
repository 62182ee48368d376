"""Lists of tilt series to reconstruct: a CSV file with a header row, its cells parted by commas or semicolons."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from cryolithe.errors import FileFormatError, InputError, nearest_name
from cryolithe.formats.alignment.alignments import alignment_files
from cryolithe.formats.files import PathLike, printable, read_text
from cryolithe.formats.series_entry import SeriesEntry

LIMIT_BYTES = 10_000_000
REQUIRED = ("tilts", "angles")
KNOWN = (*REQUIRED, "output")
FILES = ("dose", "ctf_file")  # settings that name files and align nothing


def read_series_list(path: PathLike) -> tuple[SeriesEntry, ...]:
    """Read a list of tilt series. Relative paths in it start at its own folder.

    Cells are separated by commas, or by semicolons or tabs where the header row has none.

    The columns ``tilts`` and ``angles`` are needed (not ``angles`` where a column names alignment files), ``output`` is
    optional, others become settings.

    Raises:
        InputError: if the file cannot be read, names no series, or gives two series the same output.
        FileFormatError: if it is no CSV file with these columns, or a row has too few or too many cells.
    """
    path = Path(path)
    text = read_text(path, "a series list", LIMIT_BYTES)
    delimiter = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    columns: list[str] | None = None
    entries: list[SeriesEntry] = []
    line_of_output: dict[Path, int] = {}
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if columns is None:
                columns = _checked_columns(cells, path)
                continue
            if len(cells) != len(columns):
                raise _wrong_count(columns, cells, f"{path}, line {reader.line_num}", delimiter)
            entry = _entry(columns, cells, path, reader.line_num)
            if entry.output is not None:
                earlier = line_of_output.setdefault(entry.output.resolve(), entry.line)
                if earlier != entry.line:
                    name = printable(cells[columns.index("output")])[:200]  # the folder may be another, of -o
                    raise InputError(
                        f"{path}, line {entry.line}: the output {name} is that of line {earlier} too; give every "
                        "series its own"
                    )
            entries.append(replace(entry, decimal_comma=delimiter != ","))
    except csv.Error as error:
        raise FileFormatError(f"{path}, line {reader.line_num}: expected comma-separated values, {error}") from error
    if columns is None:
        raise InputError(f"{path} is blank; expected a header row with the columns {', '.join(KNOWN)}")
    if not entries:
        raise InputError(f"{path} names no tilt series; add one row for each below the header row")
    return tuple(entries)


_CALLED = {",": "comma", ";": "semicolon", "\t": "tab"}


def _separator(text: str) -> str:
    """What separates cells: a comma, or what spreadsheets write instead where that alone is in the header row."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return next((other for other in (";", "\t") if other in header and "," not in header), ",")


def _checked_columns(names: list[str], path: Path) -> list[str]:
    aligned = any(_names_alignment(name) for name in names)
    missing = [name for name in REQUIRED if name not in names and not (aligned and name == "angles")]
    shown = printable(", ".join(f"{n}{nearest_name(n, missing) if n not in KNOWN else ''}" for n in names))[:200]
    if missing:
        mixed = "separated by commas alone, not by semicolons too: " if any(";" in name for name in names) else ""
        raise FileFormatError(
            f"{path}: the header row has no column '{missing[0]}', found: {shown}; "
            f"expected {mixed}tilts,angles and optionally output and settings"
        )
    if "" in names:
        raise FileFormatError(f"{path}: column {names.index('') + 1} has no name in the header row; found: {shown}")
    first_of: dict[str, str] = {}
    for name in names:
        before = first_of.setdefault(name.replace("-", "_"), name)
        if name != before or names.count(name) > 1:
            again = "" if name == before else f", once as '{printable(before)[:60]}'"
            raise FileFormatError(
                f"{path}: the header row has the column '{printable(name)[:60]}' twice{again}; keep one"
            )
    return names


def _wrong_count(columns: list[str], cells: list[str], place: str, delimiter: str) -> FileFormatError:
    names = printable(", ".join(columns))[:200]
    return FileFormatError(
        f"{place}: expected {len(columns)} cells ({names}), found {len(cells)}; "
        f"put a value that holds a {_CALLED[delimiter]} in double quotes"
    )


def _entry(columns: list[str], cells: list[str], path: Path, line: int) -> SeriesEntry:
    row = dict(zip(columns, cells, strict=True))
    # Such files may bring the angles; their paths start at the list's folder, too.
    files = [name for name in row if _names_alignment(name) and row[name]]
    for name in REQUIRED:
        if not row.get(name) and not (files and name == "angles"):
            raise InputError(f"{path}, line {line}: the cell '{name}' is empty; give a file name")
    return SeriesEntry(
        line=line,
        tilts=path.parent / row["tilts"],
        angles=path.parent / row["angles"] if row.get("angles") else None,
        output=path.parent / row["output"] if row.get("output") else None,
        settings={
            name: str(path.parent / cell) if name in files or name.replace("-", "_") in FILES else cell
            for name, cell in row.items()
            if name not in KNOWN and cell
        },
    )


def _names_alignment(column: str) -> bool:
    return column.replace("-", "_") in alignment_files()
