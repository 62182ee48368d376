"""RELION-5's table of tomograms: which tilt series it names, and the same table with our volumes in it.

Labels and files: https://relion.readthedocs.io/en/latest/Reference/STA/Datatypes/tomogram_set.html. The text of every
value is kept as it is, through the gemmi library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.files import PathLike, is_file, printable, read_text, replacing
from cryolithe.formats.series_list import SeriesEntry

LIMIT_BYTES = 100_000_000
NAME, SERIES, STACK = "_rlnTomoName", "_rlnTomoTiltSeriesStarFile", "_rlnTomoTiltSeriesName"
VOLUME, BINNING = "_rlnTomoReconstructedTomogram", "_rlnTomoTomogramBinning"
PIXEL, DEPTH, IMAGE = "_rlnTomoTiltSeriesPixelSize", "_rlnTomoSizeZ", "_rlnMicrographName"


def read_tomogram_star(path: PathLike) -> tuple[SeriesEntry, ...]:
    """Read the tilt series that a RELION-5 table of tomograms or tilt series names.

    RELION's paths start at its project's folder: they are looked for from the folder of the file upwards. The star
    file of each series brings its angles and its alignment, as with ``--star``. A series whose images are not one
    stack has that as its problem.

    Raises:
        InputError: if the file cannot be read or names no series.
        FileFormatError: if it has no such table.
    """
    path = Path(path)
    table = _global_table(_document(path), path)
    entries = []
    for row in range(len(table)):
        name = table.value(NAME, row)
        series = _found(path, table.value(SERIES, row))
        stack, problem = _stack(table, row, series, path)
        settings = {"star": str(series)}
        if _positive(table, PIXEL, row):
            settings["pixel_size"] = table.value(PIXEL, row)
        depth = _positive(table, DEPTH, row)
        entries.append(SeriesEntry(row + 1, stack, None, None, settings, name, problem, depth))
    if not entries:
        raise InputError(f"{path} names no tilt series: its table data_global is empty")
    return tuple(entries)


def is_tomogram_table(path: PathLike) -> bool:
    """Whether a STAR file lists tilt series, and not the images of one; yes for what cannot be read as either."""
    try:
        tables = _tables(_document(Path(path)))
    except InputError:
        return True
    return any(SERIES in table.tags for table in tables) or not any(IMAGE in table.tags for table in tables)


def series_images(path: PathLike) -> tuple[Path, ...]:
    """The files of a series' images, in the order of its table.

    Args:
        path: STAR file of one tilt series, with ``rlnMicrographName``.

    Raises:
        InputError: if the file cannot be read, lists no images or images of a stack, or one of them is not there.
    """
    path = Path(path)
    table = next((found for found in _tables(_document(path)) if IMAGE in found.tags), None)
    names = [] if table is None else [table.value(IMAGE, row) for row in range(len(table))]
    if not names:
        raise InputError(f"{path} lists no images: expected the column {IMAGE[1:]}")
    if any("@" in name for name in names):
        stack = printable(names[0].partition("@")[2])[:100]
        raise InputError(f"{path} names images of the stack {stack}; give that stack, and --star {path}")
    found = []
    for name in names:
        file = find_named(path, name)
        if file is None:
            raise InputError(f"{path} names the image {printable(name)[:100]}, which is not there")
        found.append(file)
    return tuple(found)


def find_named(star: Path, name: str) -> Path | None:
    """A file that a table of RELION names, or None if it is nowhere.

    Its paths start at the project's folder: they are looked for from the table's folder upwards, then from here. A
    job's folder that was copied out of its project has them in ``tilt_series`` beside the table.

    Args:
        star: the table.
        name: as it stands there.
    """
    above = (folder / name for folder in (*star.resolve().parents, Path()))
    return next((p for p in (*above, star.parent / "tilt_series" / Path(name).name) if is_file(p)), None)


def project_folder(path: PathLike) -> Path | None:
    """RELION's project folder: the one at which the paths of a table of tomograms start, or None if none fits."""
    path = Path(path)
    table = _global_table(_document(path), path)
    names = [table.value(SERIES, row) for row in range(len(table))]
    parents = path.resolve().parents
    return next((folder for folder in parents if any(is_file(folder / name) for name in names)), None)


def write_tomogram_star(
    source: PathLike, target: PathLike, volumes: Mapping[str, tuple[str, int]], overwrite: bool = False
) -> None:
    """Write the user's table again with the paths of our volumes (``rlnTomoReconstructedTomogram``) in it.

    All else stays as it is: tables, columns, rows, and the text of each value. Rows of other tomograms keep their
    volume, or get RELION's ``None`` where the column is new.

    Args:
        source: the user's file.
        target: file to write; may be ``source`` with ``overwrite``.
        volumes: path of the volume and binning by name of the tomogram.
        overwrite: replace an existing file.

    Raises:
        OutputError: if ``target`` exists and is not to be replaced, or cannot be written.
    """
    source = Path(source)
    document = _document(source)
    table = _global_table(document, source)
    for tag in (VOLUME, BINNING):
        if tag not in table.tags:
            table.loop.add_columns([tag], "None" if tag == VOLUME else "1")
    names, paths, binnings = (table.column(tag) for tag in (NAME, VOLUME, BINNING))
    for row, name in enumerate(map(_plain, names)):
        if name in volumes:
            volume, binning = volumes[name]
            paths[row], binnings[row] = _quoted(volume), str(binning)
    with replacing(target, overwrite) as temporary:
        document.write_file(str(temporary))


class _Table:
    """A loop of a STAR file and its columns."""

    def __init__(self, block: Any, loop: Any) -> None:
        self.block, self.loop = block, loop

    @property
    def tags(self) -> list[str]:
        return list(self.loop.tags)

    def __len__(self) -> int:
        return int(self.loop.length())

    def column(self, tag: str) -> Any:
        return self.block.find_values(tag)

    def value(self, tag: str, row: int) -> str:
        return _plain(self.column(tag)[row])


def _document(path: Path) -> Any:
    from gemmi import cif

    text = read_text(path, "a STAR file", LIMIT_BYTES)
    try:
        return cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise FileFormatError(f"{path} is not a STAR file: {printable(str(error))[:160]}") from error


def _tables(document: Any) -> list[_Table]:
    return [_Table(block, item.loop) for block in document for item in block if item.loop is not None]


def _global_table(document: Any, path: Path) -> _Table:
    for table in _tables(document):
        if {NAME, SERIES} <= set(table.tags):
            return table
    raise FileFormatError(
        f"{path} is no table of tomograms: expected the columns {NAME[1:]} and {SERIES[1:]}; "
        "give the tilt_series.star or tomograms.star of RELION-5"
    )


def _stack(table: _Table, row: int, series: Path, path: Path) -> tuple[Path, str]:
    """The stack of a series, and what is against it."""
    if STACK in table.tags:
        return _found(path, table.value(STACK, row).removesuffix(":mrc")), ""
    if not is_file(series):
        return series, ""  # what is missing is told when the series is looked at
    try:
        tilts = next((found for found in _tables(_document(series)) if IMAGE in found.tags), None)
    except InputError as error:
        return series, str(error)
    if tilts is None:
        return series, f"{series} has no column {IMAGE[1:]}"
    images = [tilts.value(IMAGE, n) for n in range(len(tilts))]
    if not images:
        return series, f"{series} lists no images"
    if not any("@" in image for image in images):
        return series, ""  # single files: see `series_images`
    numbers, _, names = zip(*(image.partition("@") for image in images), strict=True)
    if len(set(names)) != 1 or not all(number.isdecimal() for number in numbers):
        return series, (
            f"{series} names images of several stacks ({printable(images[0])[:60]}, ...); expected those of one stack "
            "(1@stack, 2@stack, ...), or a file for each"
        )
    return _found(path, names[0]), ""


def _positive(table: _Table, tag: str, row: int) -> float | None:
    """A number of the table, or None where it is not told."""
    try:
        value = float(table.value(tag, row)) if tag in table.tags else 0.0
    except ValueError:
        return None
    return value if value > 0 and math.isfinite(value) else None


def _found(star: Path, name: str) -> Path:
    """A path of the table; where the file is not there, the path from the table's own folder."""
    return find_named(star, name) or star.parent / name


def _plain(value: str) -> str:
    from gemmi import cif

    return str(cif.as_string(value))


def _quoted(value: str) -> str:
    """A value as STAR has it; RELION reads plain words best."""
    from gemmi import cif

    plain = not any(c.isspace() or c in "'\"#" for c in value) and value[:1] not in ("_", "$", "[", "]", ";", "")
    return value if plain else str(cif.quote(value))
