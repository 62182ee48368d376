"""Which series of RELION's tables a stack is, and what the table that lists the series says of it.

The file of a series has its images; sizes, hand and voltage stand in a row of the table that lists it. That row is the
one of the table that is given. Where the file of the series is given alone, tables beside it or above are looked into.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from cryolithe.errors import FileFormatError, InputError
from cryolithe.files.names import is_file
from cryolithe.formats.alignment.tomogram_star import (
    IMAGE,
    NAME,
    OWN_COPY,
    SERIES,
    STACK,
    find_named,
    of_volumes,
    row_values,
)
from cryolithe.formats.files import PathLike, printable
from cryolithe.formats.reading import Reading
from cryolithe.formats.series_names import matching_name, tells_series, without_ending
from cryolithe.formats.star_tables import StarTable, read_star

TILT, NOMINAL = "rlnTomoYTilt", "rlnTomoNominalStageTiltAngle"
# Where a table names its images as parts of a stack: 000012@stack.mrc.
PART = "@"
_MOST_TABLES = 50
# Of tables that nobody named: particles' may have a hundred times that, and take seconds to read.
_LARGEST_LIST_BYTES = 2_000_000
_MOST_COLUMNS = 3


@dataclass(frozen=True)
class Listed:
    """What a table of series says of one.

    Attributes:
        path: that table.
        row: its values, by column.
        notes: for the user, where nobody gave that table.
    """

    path: Path
    row: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All that it says of the series but where volumes are: it is the same for equal rows."""
        return json.dumps(sorted((name, value) for name, value in self.row.items() if not of_volumes(name)))


@dataclass(frozen=True)
class SeriesTables:
    """A series in RELION's tables.

    Attributes:
        path: the file with its images.
        tables: of that file, or of it those of the series.
        listed: its row in the table that is given, or None where that has the images themselves.
        note: for the user.
    """

    path: Path
    tables: list[StarTable]
    listed: Listed | None = None
    note: str = ""

    @property
    def row(self) -> Mapping[str, str]:
        """What the given table says of the series, by column; nothing where that has the images themselves."""
        return self.listed.row if self.listed else {}


def find_series_table(path: PathLike, tilts: PathLike, reading: Reading) -> Path:
    """The file with the images of a series: ``path`` itself, or what a table of series names for it.

    Args:
        path: as for `series_tables`.
        tilts: likewise.
        reading: through which files are read.

    Raises:
        InputError: if a file cannot be read, or no series is that of the stack.
    """
    return series_tables(Path(path), tilts, reading).path


def series_table(path: PathLike, tilts: PathLike, reading: Reading) -> StarTable | None:
    """The table with the images of a series, of those of several in one file the one that its name tells.

    None where no table has tilt angles.

    Raises:
        InputError: if a file cannot be read, or no series is that of the stack.
    """
    found = series_tables(Path(path), tilts, reading)
    tables = [table for table in found.tables if of_images(table)]
    return one_table(found, tables, tilts)[0] if tables else None


def of_images(table: StarTable) -> bool:
    """Whether a table is of the images of a series: it has their tilt angles."""
    return TILT in table or NOMINAL in table


def listed_of(path: PathLike, tilts: PathLike, reading: Reading) -> Listed | None:
    """The row of a series in the table that is given, or in one that lists it where only its own is; else None.

    Raises:
        InputError: if a file cannot be read, or no series is that of the stack.
    """
    found = series_tables(Path(path), tilts, reading)
    return found.listed or listed_near(found.path, reading)


def further_tables(path: Path, tilts: PathLike, reading: Reading) -> dict[str, Path]:
    """The other files that tell of a series, by what they are: its own, and that which lists it.

    Args:
        path: the table that is given, as for `series_tables`.
        tilts: likewise.
        reading: through which files are read.

    Raises:
        InputError: if a file cannot be read, or no series is that of the stack.
    """
    own, listed = find_series_table(path, tilts, reading), listed_of(path, tilts, reading)
    found = {"star of the series": own, **({} if listed is None else {"star that lists the series": listed.path})}
    return {name: other for name, other in found.items() if other != path}


def listed_text(path: Path, tilts: PathLike, reading: Reading) -> dict[Path, str]:
    """What the table that lists a series says of it, by that table; nothing where there is none.

    Raises:
        InputError: as `further_tables`.
    """
    listed = listed_of(path, tilts, reading)
    return {} if listed is None else {listed.path: listed.text}


def listed_near(path: Path, reading: Reading) -> Listed | None:
    """The row of the first table above a series' own, or beside it, that names this very file.

    What it says is noted, and where a second one of that folder says something else. Tables that this program wrote
    (of volumes of the series) count where there is no other.
    """
    for folder in (path.resolve().parent.parent, path.resolve().parent):
        others = sorted(folder.glob("*.star"), key=lambda other: (other.stem.endswith(OWN_COPY), other.name))
        found = [listed for other in others[:_MOST_TABLES] if (listed := _listed_in(other, path, reading))]
        if not found:
            continue
        first, *more = found
        notes = [f"{first.path.name}, which lists {path.name}, tells what {path.name} does not: sizes, voltage, hand"]
        for other in (listed for listed in more if not listed.path.stem.endswith(OWN_COPY)):
            if columns := _differing(first, other):
                notes.append(
                    f"Warning: {first.path.name} and {other.path.name} both list {path.name} and differ in {columns}: "
                    f"{first.path.name} is taken; give the right one with --star"
                )
        return Listed(first.path, first.row, tuple(notes))
    return None


def _listed_in(other: Path, path: Path, reading: Reading) -> Listed | None:
    """The row of a table that names a series' file, or None."""
    try:
        far = other.samefile(path) or other.stat().st_size > _LARGEST_LIST_BYTES
        tables = [] if far else reading(read_star, other)
    except (InputError, OSError):
        return None
    for table in (table for table in tables if SERIES in table):
        for row, value in enumerate(table.text(SERIES)):
            named = find_named(other, value) if value.endswith(path.name) else None
            if named is not None and named.samefile(path):
                return Listed(other, row_values(table, row))
    return None


def _differing(one: Listed, other: Listed) -> str:
    """The columns in which two rows differ, with both values."""
    shared = [name for name in one.row if name in other.row and not of_volumes(name)]
    found = [
        f"{name} ({one.row[name]}, {other.row[name]})" for name in shared if not _same(one.row[name], other.row[name])
    ]
    return printable(", ".join(found[:_MOST_COLUMNS]) + (", ..." if len(found) > _MOST_COLUMNS else ""))


def _same(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def series_tables(path: Path, tilts: PathLike, reading: Reading) -> SeriesTables:
    """The tables of a stack's series.

    Args:
        path: STAR file of a series, or of tomograms or tilt series, of which one is chosen: that whose file of images
            or stack is the given one, or whose name that of the stack tells (see `matching_name`), or whose images are
            parts of the stack.
        tilts: the stack, or the file of a series that stands for it.
        reading: through which files are read.

    Raises:
        InputError: if a file cannot be read, or no series is that of the stack.
        FileFormatError: if a file holds no table.
    """
    tables = _read(path, reading)
    listing = next((table for table in tables if NAME in table and TILT not in table), None)
    if listing is None:
        return SeriesTables(path, tables)
    row = _row_of(listing, tilts, reading)
    chosen = listing.value(NAME, row)
    listed = Listed(path, row_values(listing, row))
    note = f"series {chosen} of {path.name} is taken"
    own = listed.row.get(SERIES, "")
    if not own:
        return SeriesTables(path, [table for table in tables if table.block == chosen] or tables, listed, note)
    found = find_named(path, own)
    if found is None:
        raise InputError(f"{path} names {own}, which is not there; give that table itself with --star")
    tables = _read(found, reading)
    several = sum(of_images(table) for table in tables) > 1
    named = [table for table in tables if several and table.block == chosen]
    return SeriesTables(found, named or tables, listed, note)


def one_table(found: SeriesTables, tables: list[StarTable], tilts: PathLike) -> tuple[StarTable, str]:
    """The table of a series, where there are several that which its name tells, and what to tell of it."""
    if len(tables) == 1:
        return tables[0], found.note
    blocks = [table.block for table in tables]
    chosen = _chosen(found.path, blocks, PurePath(tilts).name)
    return tables[blocks.index(chosen)], f"series {chosen} of {found.path.name} is taken"


def _row_of(listing: StarTable, tilts: PathLike, reading: Reading) -> int:
    """The row of a stack's series in a table that lists series.

    Raises:
        InputError: if there is none, or several.
    """
    path, names, stack = listing.path, listing.text(NAME), Path(tilts)
    rows = [row for row in range(len(names)) if _is_listed(listing, row, stack)]
    if not rows and matching_name(names, stack.name) is None and is_file(stack):
        rows = [row for row in range(len(names)) if _has_images_of(listing, row, stack, reading)]
    if len(rows) > 1:
        twice = printable(", ".join(names[row] for row in rows[:4]))[:200]
        raise InputError(f"{path} lists the images of {stack.name} {len(rows)} times ({twice}); keep one of them")
    return rows[0] if rows else names.index(_chosen(path, names, stack.name))


def _is_listed(listing: StarTable, row: int, stack: Path) -> bool:
    """Whether a row names a stack, or the file of a series that stands for one."""
    named = [listing.value(column, row) for column in (SERIES, STACK) if column in listing]
    found = (
        name.removesuffix(":mrc")
        for name in named
        if PurePath(name.replace("\\", "/")).name.removesuffix(":mrc") == stack.name
    )
    return any(_is_file_of(listing, name, stack) for name in found)


def _has_images_of(listing: StarTable, row: int, stack: Path, reading: Reading) -> bool:
    """Whether the images of a row's series are parts of a stack."""
    own = find_named(listing.path, listing.value(SERIES, row)) if SERIES in listing else None
    try:
        tables = [] if own is None else reading(read_star, own)
    except InputError:
        return False
    name = listing.value(NAME, row)
    tables = [table for table in tables if IMAGE in table]
    tables = [table for table in tables if len(tables) == 1 or table.block == name]
    first = next((value for table in tables for value in table.text(IMAGE)[:1]), "")
    return PART in first and _is_file_of(listing, first.partition(PART)[2], stack)


def _is_file_of(listing: StarTable, name: str, stack: Path) -> bool:
    found = find_named(listing.path, name)
    try:
        return found is not None and found.samefile(stack)
    except OSError:
        return False


def _chosen(path: Path, names: list[str], name: str) -> str:
    """The series that a stack's name tells; the only one where that name tells nothing."""
    chosen = names[0] if len(names) == 1 and not tells_series(name) else matching_name(names, name)
    if chosen is None:
        listed = printable(", ".join(names[:4]) + (", ..." if len(names) > 4 else ""))[:200]
        raise InputError(
            f"{path} lists {len(names)} series ({listed}), none of which the name {name} tells; expected "
            f"{without_ending(name)}: give the table of that series, or the stack under the series' name"
        )
    if names.count(chosen) > 1:
        raise InputError(f"{path} lists the series {printable(chosen)} {names.count(chosen)} times; keep one of them")
    return chosen


def _read(path: Path, reading: Reading) -> list[StarTable]:
    tables = [table for table in reading(read_star, path) if len(table)]
    if not tables:
        raise FileFormatError(f"{path} holds no table; expected a STAR file of RELION-5")
    return tables
