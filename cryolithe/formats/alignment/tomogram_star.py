"""RELION-5's table of tomograms: which tilt series it names, and the same table with our volumes in it.

Labels and files: https://relion.readthedocs.io/en/latest/Reference/STA/Datatypes/tomogram_set.html. The text of every
value is kept as it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cryolithe.errors import FileFormatError, InputError
from cryolithe.files.names import is_file
from cryolithe.formats.alignment.relion_pixels import named_stack, pixels_of
from cryolithe.formats.cells import UnreadableCellError, told_number
from cryolithe.formats.files import PathLike, printable, replacing
from cryolithe.formats.reading import Reading
from cryolithe.formats.series_entry import SeriesEntry
from cryolithe.formats.star_tables import LIMIT_BYTES, StarTable, read_star, star_document

NAME, SERIES, STACK = "rlnTomoName", "rlnTomoTiltSeriesStarFile", "rlnTomoTiltSeriesName"
VOLUME, BINNING = "rlnTomoReconstructedTomogram", "rlnTomoTomogramBinning"
PIXEL, DEPTH, IMAGE = "rlnTomoTiltSeriesPixelSize", "rlnTomoSizeZ", "rlnMicrographName"
SIZES = ("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ")
HALVES = ("rlnTomoReconstructedTomogramHalf1", "rlnTomoReconstructedTomogramHalf2")
OWN_COPY = "_cryolithe"  # how names of tables end that this program writes with its volumes in them
MOVIE = "rlnMicrographMovieName"
_WHOLE_PATH = re.compile(r"/+|[A-Za-z]:/+")
_MOST_ENDS = 12
EVEN, ODD = "rlnMicrographNameEven", "rlnMicrographNameOdd"


def read_tomogram_star(path: PathLike, reading: Reading | None = None) -> tuple[SeriesEntry, ...]:
    """Read the tilt series that a RELION-5 table of tomograms or tilt series names.

    RELION's paths start at its project's folder: they are looked for from the folder of the file upwards. The star
    file of each series brings its angles and its alignment, as with ``--star``. A series whose images are not one
    stack has that as its problem.

    Args:
        path: the table.
        reading: through which files are read, where others ask for them too.

    Raises:
        InputError: if the file cannot be read or names no series.
        FileFormatError: if it has no such table.
    """
    path, reading = Path(path), reading or Reading()
    table = _global_table(path, reading)
    entries = []
    for row in range(len(table)):
        name = table.value(NAME, row)
        series = _found(path, table.value(SERIES, row))
        stack, problem = _stack(table, row, series, reading)
        settings = {"star": str(path)}
        told: dict[str, float] = {}
        unreadable: dict[str, str] = {}
        for setting, tag in (("pixel_size", PIXEL), ("thickness", DEPTH)):
            try:
                told[setting] = _positive(table, tag, row)
            except UnreadableCellError as error:
                unreadable[setting] = str(error)
        of_table = told.get("pixel_size") or 0.0
        pixels = pixels_of(named_stack(stack), of_table, row_values(table, row)) if of_table else None
        if pixels is not None and pixels.binned == 1:
            settings["pixel_size"] = table.value(PIXEL, row)
        depth = (told.get("thickness") or 0.0) / (pixels.binned if pixels else 1) or None
        entry = SeriesEntry(row + 1, stack, None, None, settings, name, problem, depth, unreadable=unreadable)
        entries.append(entry)
    stacks = [entry.tilts for entry in entries]
    entries = [
        replace(entry, problem=f"{path} lists the images of {entry.tilts} {stacks.count(entry.tilts)} times; keep one")
        if stacks.count(entry.tilts) > 1 and not entry.problem
        else entry
        for entry in entries
    ]
    if not entries:
        raise InputError(f"{path} names no tilt series: its table data_global is empty")
    return tuple(entries)


def row_values(table: StarTable, row: int) -> dict[str, str]:
    """What a row of a table says, by column."""
    return {column: table.value(column, row) for column in table.names}


def of_volumes(column: str) -> bool:
    """Whether a column of a table of tomograms tells where volumes are, and not of what images they are."""
    return column.startswith(VOLUME) or column == BINNING


def is_tomogram_table(path: Path, reading: Reading) -> bool:
    """Whether a STAR file lists tilt series, and not the images of one; yes for what cannot be read as either."""
    try:
        tables = reading(read_star, path)
    except InputError:
        return True
    return any(SERIES in table for table in tables) or not any(map(_of_one_series, tables))


def _of_one_series(table: StarTable) -> bool:
    """Whether a table is of the images of a series, or of the movies of which they will be made."""
    return IMAGE in table or (MOVIE in table and NAME not in table)


def listed_series(path: Path, reading: Reading) -> tuple[Path, ...]:
    """The files with the images of each series that a table lists.

    Args:
        path: the table.
        reading: through which it is read.

    Raises:
        FileFormatError: if it lists no series.
        InputError: if it cannot be read.
    """
    return tuple(_found(path, name) for name in _global_table(path, reading).text(SERIES))


def series_images(path: Path, reading: Reading) -> tuple[Path, ...]:
    """The files of a series' images, in the order of its table.

    Args:
        path: STAR file of one tilt series, with ``rlnMicrographName``.
        reading: through which it is read.

    Raises:
        InputError: if the file cannot be read, lists no images or images of a stack, or one of them is not there.
    """
    return _image_files(path, IMAGE, reading)


def half_images(path: Path, reading: Reading) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """The files of a series' images of even and of odd frames, in the order of its table.

    Args:
        path: STAR file of one tilt series, with ``rlnMicrographNameEven`` and ``rlnMicrographNameOdd``, as RELION-5's
            motion correction writes them where it is to save images for denoising.
        reading: through which it is read.

    Raises:
        InputError: if the file cannot be read, lists no such images, or one of them twice, or is not there.
    """
    halves = _image_files(path, EVEN, reading), _image_files(path, ODD, reading)
    named = [file.resolve() for half in halves for file in half]
    twice = next((number for number, file in enumerate(named) if file in named[:number]), None)
    if twice is not None:
        raise InputError(
            f"{path} names {printable(named[twice].name)[:100]} twice among its even and odd images: expected a file "
            "of its own for each half of each image"
        )
    return halves


def _of_movies(path: Path, reading: Reading) -> str:
    """What to do with the table of a series that has no images yet; empty for any other table."""
    if not any(MOVIE in table for table in reading(read_star, path)):
        return ""
    return (
        f"{path} is the table of one series whose movies ({MOVIE}) are not corrected yet: it lacks {IMAGE} and an "
        "alignment; give the series' table of RELION's AlignTiltSeries"
    )


def _image_files(path: Path, column: str, reading: Reading) -> tuple[Path, ...]:
    """The files that a column of a series' table names."""
    tables = [found for found in reading(read_star, path) if IMAGE in found]
    if len(tables) > 1:
        raise InputError(f"{path} holds {len(tables)} series; give a file for each, as RELION-5 writes them")
    names = tables[0].text(column) if tables and column in tables[0] else []
    halves = "; RELION-5 writes it if motion correction saves images for denoising" if column != IMAGE else ""
    if not tables and (told := _of_movies(path, reading)):
        raise InputError(told)
    if not names:
        raise InputError(f"{path} lists no images: expected the column {column}{halves}")
    if all(name.strip().lower() in ("", "none") for name in names):
        raise InputError(f"{path} lists no images: its column {column} is empty{halves}")
    if any("@" in name for name in names):
        stack = printable(names[0].partition("@")[2])[:100]
        raise InputError(f"{path} names images of the stack {stack}; give that stack, and --star {path}")
    found = []
    for name in names:
        file = find_image(path, name)
        if file is None:
            raise InputError(
                f"{path} names the image {printable(name)[:100]}, which is not there; give the table where "
                "it lies in its project, or mend the paths in a copy of it"
            )
        found.append(file)
    return tuple(found)


def find_named(star: Path, name: str) -> Path | None:
    """A file that a table of RELION names, or None if it is nowhere.

    Its paths start at the project's folder: they are looked for from the table's folder upwards, then from here. A
    job's folder that was copied out of its project has them in ``tilt_series`` beside the table. Warp writes tables on
    Windows, whose paths have backslashes.

    Args:
        star: the table.
        name: as it stands there.
    """
    for spelt in dict.fromkeys((name, name.replace("\\", "/"))):
        above = (folder / spelt for folder in (*star.resolve().parents, Path()))
        found = next((p for p in (*above, star.parent / "tilt_series" / Path(spelt).name) if is_file(p)), None)
        if found is not None:
            return found
    return None


def find_image(star: Path, name: str) -> Path | None:
    """A file of one image that a table of RELION names, as `find_named`, or None if it is nowhere.

    Of whole paths in a project that was moved, the longest end of several names that is there is taken, which
    `moved_images` tells. Tables and stacks are not looked for so: every project has a ``Tomograms/job009``.

    Args:
        star: the table.
        name: as it stands there.
    """
    return find_named(star, name) or _by_end(star, name)


def _by_end(star: Path, name: str) -> Path | None:
    ends = _moved_ends(name.replace("\\", "/"))
    return next((p for end in ends for folder in (*star.resolve().parents, Path()) if is_file(p := folder / end)), None)


def _moved_ends(name: str) -> Iterator[str]:
    """What a whole path may be in a project that was moved: its ends, the longest first, of two names at least."""
    whole = _WHOLE_PATH.match(name)
    parts = name[whole.end() :].split("/")[-_MOST_ENDS:] if whole else []
    yield from ("/".join(parts[start:]) for start in range(len(parts) - 1))


def moved_images(table: StarTable) -> str:
    """A note where a table names whole paths of images that are not there, but in the project that it lies in."""
    names = [name for name in (table.text(IMAGE) if IMAGE in table else []) if "@" not in name]
    away = [name for name in names if find_named(table.path, name) is None]
    found = {name: file for name in away if (file := _by_end(table.path, name)) is not None}
    if not found:
        return ""
    name, file = next(iter(found.items()))
    whole = len(found) == len(names)
    others = ", and so are the other images" if whole else f", as for {len(found)} of {len(names)} images in all"
    return f"{printable(name)[:100]} of {table.path.name} is not there; {file} is taken{others}"


@dataclass(frozen=True)
class MadeTomogram:
    """A volume for a row of the table.

    Attributes:
        path: as the table is to name it.
        shape: its voxels ``(z, y, x)``.
        voxel_size_angstrom: edge of a voxel, or None where nobody knows it.
        bin: of the images of the stack that it was made of.
    """

    path: str
    shape: tuple[int, int, int]
    voxel_size_angstrom: float | None
    bin: int

    def binning(self, pixel_angstrom: float) -> float:
        """Its voxels in pixels of the table; in those of the stack where the table tells none."""
        known = self.voxel_size_angstrom and 0 < pixel_angstrom < math.inf
        return round((self.voxel_size_angstrom or 0.0) / pixel_angstrom, 2) if known else float(self.bin)


def project_folder(path: Path, reading: Reading) -> Path | None:
    """RELION's project folder: the one at which the paths of a table of tomograms start, or None if none fits.

    Raises:
        FileFormatError: if it is no table of tomograms.
    """
    names = _global_table(path, reading).text(SERIES)
    parents = path.resolve().parents
    return next((folder for folder in parents if any(is_file(folder / name) for name in names)), None)


def write_tomogram_star(
    source: PathLike,
    target: PathLike,
    volumes: Mapping[str, MadeTomogram],
    overwrite: bool = False,
    reading: Reading | None = None,
) -> None:
    """Write the user's table again with the paths of our volumes (``rlnTomoReconstructedTomogram``) in it.

    Binning and sizes become those of the volumes where they differ: RELION counts positions from half the size. Halves
    of another reconstruction are named no more (``None``). All else stays as it is: tables, columns, rows, and the text
    of each value. Rows of other tomograms keep their volume, or get RELION's ``None`` where the column is new.

    Args:
        source: the user's file.
        target: file to write; may be ``source`` with ``overwrite``.
        volumes: by name of the tomogram.
        overwrite: replace an existing file.
        reading: through which the file is read, where others ask for it too.

    Raises:
        OutputError: if ``target`` exists and is not to be replaced, or cannot be written.
        FileFormatError: if ``source`` is no table of tomograms.
    """
    source = Path(source)
    table = _global_table(source, reading or Reading())
    names = table.text(NAME)
    document = star_document(source, LIMIT_BYTES)
    block = next(found for found in document if found.find_values(f"_{NAME}") and found.find_values(f"_{SERIES}"))
    loop = block.find_loop(f"_{NAME}").get_loop()  # None for a table of one row, written as names and values
    for column, value in ((VOLUME, "None"), (BINNING, "1")):
        if not block.find_values(f"_{column}"):
            if loop is None:
                block.set_pair(f"_{column}", value)
            else:
                loop.add_columns([f"_{column}"], value)
    paths, binnings = (block.find_values(f"_{column}") for column in (VOLUME, BINNING))
    for row, name in enumerate(names):
        if name not in volumes:
            continue
        made = volumes[name]
        binning = made.binning(_size(table.value(PIXEL, row)) if PIXEL in table else 0.0)
        paths[row], binnings[row] = _quoted(made.path), f"{binning:g}"
        for column, size in zip(SIZES, made.shape[::-1], strict=True):
            sizes = block.find_values(f"_{column}")
            if sizes and abs(_size(sizes[row]) - size * binning) >= binning:
                sizes[row] = f"{size * binning:g}"
        for column in HALVES:
            if halves := block.find_values(f"_{column}"):
                halves[row] = "None"
    with replacing(target, overwrite) as temporary:
        document.write_file(str(temporary))


def _size(text: str) -> float:
    """A size of the table; infinite where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.inf


def _global_table(path: Path, reading: Reading) -> StarTable:
    for table in reading(read_star, path):
        if NAME in table and SERIES in table:
            return table
    raise FileFormatError(
        f"{path} is no table of tomograms: expected the columns {NAME} and {SERIES}; "
        "give the tilt_series.star or tomograms.star of RELION-5"
    )


def _stack(table: StarTable, row: int, series: Path, reading: Reading) -> tuple[Path, str]:
    """The stack of a series, and what is against it."""
    if STACK in table:
        return _found(table.path, table.value(STACK, row).removesuffix(":mrc")), ""
    if not is_file(series):
        return series, ""  # what is missing is told when the series is looked at
    try:
        images = _images(series, table.value(NAME, row), reading)
    except InputError as error:
        return series, str(error)
    if not any("@" in image for image in images):
        return series, ""  # single files: see `series_images`
    numbers, _, names = zip(*(image.partition("@") for image in images), strict=True)
    if len(set(names)) != 1 or not all(number.isdecimal() for number in numbers):
        return series, (
            f"{series} names images of several stacks ({printable(images[0])[:60]}, ...); expected those of one stack "
            "(1@stack, 2@stack, ...), or a file for each"
        )
    return _found(table.path, names[0]), ""


def _images(series: Path, name: str, reading: Reading) -> list[str]:
    """Names of the images in a series' own file; where it holds several series, of that with this name."""
    tables = [found for found in reading(read_star, series) if IMAGE in found]
    chosen = tables if len(tables) == 1 else [found for found in tables if found.block == name]
    if not tables:
        raise FileFormatError(_of_movies(series, reading) or f"{series} has no column {IMAGE}")
    if not chosen:
        raise InputError(f"{series} holds {len(tables)} series, none of which is called {printable(name)[:100]}")
    if not len(chosen[0]):
        raise InputError(f"{series} lists no images")
    return chosen[0].text(IMAGE)


def _positive(table: StarTable, tag: str, row: int) -> float:
    """A positive number of the table, or 0 where it is not told: RELION has 0 or below where it knows none."""
    value = told_number(table.path, tag, table.value(tag, row)) if tag in table else None
    return max(value or 0.0, 0.0)


def _found(star: Path, name: str) -> Path:
    """A path of the table; where the file is not there, the path from the table's own folder."""
    return find_named(star, name) or star.parent / name


def _quoted(value: str) -> str:
    """A value as STAR has it; RELION reads plain words best."""
    from gemmi import cif

    plain = not any(c.isspace() or c in "'\"#" for c in value) and value[:1] not in ("_", "$", "[", "]", ";", "")
    return value if plain else str(cif.quote(value))
