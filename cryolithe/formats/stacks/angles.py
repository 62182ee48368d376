"""Tilt angle files (.tlt, .rawtlt, .txt): one line per image, the angle in the first column."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from cryolithe.errors import FileFormatError, GeometryError, InputError
from cryolithe.formats.files import PathLike, file_beside, finite_numbers, printable, read_text, replacing
from cryolithe.formats.reading import Reading
from cryolithe.formats.series_names import possible_names
from cryolithe.formats.stacks.mdoc import read_mdoc_angles_deg
from cryolithe.geometry import FEW_IMAGES, check_angles_deg

LIMIT_BYTES = 1_000_000
FEWEST_COUNTED = 3  # fewer numbers in a row are no counting
# Angles of a stack's images in its order. A series' .mdoc without the stack's full name may be that of its frames.
_BESIDE = (".rawtlt", ".tlt", "_TLT.txt")
SURE_TILT_DEG = 10.0  # both signs, and so much: a tilt scheme
_WHOLE = re.compile(r"\+?\d{1,6}(\.0*)?")
_COLUMNS = re.compile(r"[\s,;]+")
_INTEGER = re.compile(r"[+-]?\d+")
_BLANKS = re.compile(r"[\s;]+")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,(\d+)\s*")


def read_angles_deg(path: PathLike, reading: Reading | None = None) -> tuple[float, ...]:
    """Return the tilt angles in degrees, in the order of the file.

    Columns are separated by blanks, tabs, commas or semicolons; only the first is read (AreTomo and SerialEM add
    an index and a dose). Blank lines and what follows ``#`` are ignored.

    An .mdoc of SerialEM gives the angles of its images.

    Args:
        path: the file.
        reading: through which it is read, where others ask for it too.

    Raises:
        InputError: if the file cannot be read, is empty, or an angle is outside ±90°, or all are equal or
            within ±π/2° (more than 5 images), which hints at radians or transforms.
        FileFormatError: if a line does not start with a number, the first of several columns counts the images or is
            never below 0 while another is a tilt scheme, or numbers seem to have decimal commas.
    """
    path = Path(path)
    if path.suffix.lower() == ".mdoc":
        return read_mdoc_angles_deg(path, reading)
    return (reading or Reading())(_read_lines, path)


def read_angles_of(path: PathLike, sections: int, reading: Reading | None = None) -> tuple[float, ...]:
    """The angles of a stack of so many images: as `read_angles_deg`, but they may all stand in one line.

    Raises:
        InputError: as `read_angles_deg`.
    """
    path, reading = Path(path), reading or Reading()
    angles = read_angles_deg(path, reading)
    if len(angles) == 1 < FEWEST_COUNTED <= sections and path.suffix.lower() != ".mdoc":
        line = reading(angles_in_one_line, path)
        if len(line) == sections:
            return line
    return angles


def angles_in_one_line(path: Path) -> tuple[float, ...]:
    """The angles of a file whose one line has several, degrees, or its only one; none where it has anything else.

    Raises:
        InputError: if the file cannot be read.
    """
    lines = (line.partition("#")[0].strip() for line in read_text(path, "an angle file", LIMIT_BYTES).splitlines())
    angles = tuple(finite_numbers(_COLUMNS.split(next(line for line in lines if line).rstrip(",;"))) or ())
    try:
        check_angles_deg(angles)
    except GeometryError:
        return ()
    return angles


def _read_lines(path: Path) -> tuple[float, ...]:
    """The angles of a text file."""
    if path.suffix.lower() == ".star":
        raise InputError(f"{path} is no angle file: give it with --star, which takes the alignment from it, too")
    text = read_text(path, "an angle file", LIMIT_BYTES)
    if text.startswith("# AreTomo Alignment"):  # its first column would pass for angles
        raise FileFormatError(f"{path} is an AreTomo alignment; give the angles alone (_TLT.txt, .tlt or .rawtlt)")
    angles: list[float] = []
    rows: list[list[str]] = []
    decimals: list[str] = []
    contents: list[str] = []
    beyond = ""
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        angles.append(_angle_deg(content, f"{path}, line {number}"))
        if not abs(angles[-1]) <= 90:  # also True for NaN
            beyond = beyond or f"line {number}: expected a tilt angle within ±90°, found '{printable(content)[:60]}'"
        contents.append(content)
        rows.append(_COLUMNS.split(content))
        comma = _DECIMAL_COMMA.fullmatch(content)
        decimals.append(comma.group(1) if comma else "")
        first = _BLANKS.split(content)[0]
        if first != content and _DECIMAL_COMMA.fullmatch(first):  # columns are parted by something else
            raise _decimal_comma(path, content)
    if not angles:
        raise InputError(f"{path} holds no angle; expected one line per image with the tilt angle in degrees")
    # "-60,00" and the two columns "-60,1" look alike; but an index does not have equally many digits in every line.
    decimal = len(decimals) > 1 and bool(decimals[0]) and len({len(digits) for digits in decimals}) == 1
    _refuse_index_column(path, rows, decimal)
    _refuse_other_column(path, rows)
    if beyond:  # of a column that is none of angles, that is told before
        raise InputError(f"{path}, {beyond}")
    # Where other lines are one whole number, there are no columns that a comma could part.
    single = any(_INTEGER.fullmatch(content) for content in contents)
    if decimal or (single and any(decimals)):
        raise _decimal_comma(path, next(row for row, comma in zip(contents, decimals, strict=True) if comma))
    try:
        check_angles_deg(tuple(angles))
    except GeometryError as error:
        raise InputError(f"{path}: {error}") from error
    return tuple(angles)


def _decimal_comma(path: Path, example: str) -> FileFormatError:
    return FileFormatError(
        f"{path} holds '{printable(example)[:60]}', which may have a decimal comma; "
        "write decimal points, and put blanks between columns"
    )


def angles_beside(tilts: Path) -> list[Path]:
    """Files beside a stack that tell the angles of its images in their order; halves have those of their series."""
    name = tilts.name.removesuffix(".gz").removesuffix(".bz2")
    bases = dict.fromkeys((Path(name).stem, *possible_names(name)))
    names = [(base, ending) for base in bases for ending in _BESIDE]
    return [path for base, ending in (*names, (name, ".mdoc")) if (path := file_beside(tilts, base, ending))]


def _refuse_index_column(path: Path, rows: list[list[str]], decimal: bool) -> None:
    """Raise FileFormatError if the first column counts the images: no tilt scheme has such angles beside columns.

    Args:
        path: the file.
        rows: the columns of each line.
        decimal: whether the first two columns may be one number with a decimal comma.
    """
    first = [row[0] for row in rows]
    if min(len(row) for row in rows) < 2 or len(rows) < FEWEST_COUNTED or not all(map(_WHOLE.fullmatch, first)):
        return
    numbers = [int(word.split(".")[0]) for word in first]
    counted = [list(range(start, start + len(rows))) for start in (0, 1)]
    permuted = len(rows) > FEW_IMAGES and sorted(numbers) in counted  # the order in which they were taken
    if numbers in counted or permuted:
        also = " (or the numbers have decimal commas, which must be points)" if decimal else ""
        raise FileFormatError(
            f"{path}: the first column counts the images ({first[0]}, {first[1]}, ...) and is no angle{also}; "
            f"put the angles into the first column, in the order of the images{_angles_in(rows)}"
        )


def _refuse_other_column(path: Path, rows: list[list[str]]) -> None:
    """Raise FileFormatError if another column is a tilt scheme, and the first one a dose or a time: never below 0.

    Shifts, which may stand behind the angles of a series to one side, are not evenly spaced.
    """
    columns = [finite_numbers(words) for words in zip(*rows, strict=False)]
    first = columns[0]
    if len(rows) < FEWEST_COUNTED or first is None or min(first) < 0:
        return
    for number, values in enumerate(columns[1:], start=2):
        if values is not None and _is_tilt_scheme(values):
            word = rows[0][number - 1], rows[1][number - 1]
            raise FileFormatError(
                f"{path}: column {number} ({word[0]}, {word[1]}, ...) looks like tilt angles, and the first one "
                f"({rows[0][0]}, {rows[1][0]}, ...) is never below 0, as doses and times are; put the angles into the "
                "first column, in the order of the images"
            )


def _is_tilt_scheme(values: Sequence[float]) -> bool:
    """Whether values are evenly spaced between angles of both signs."""
    ordered = sorted(values)
    steps = [b - a for a, b in pairwise(ordered)]
    middle = sorted(steps)[len(steps) // 2]
    even = middle > 0 and max(abs(step - middle) for step in steps) <= middle / 2
    return even and -90 <= ordered[0] < -SURE_TILT_DEG and SURE_TILT_DEG < ordered[-1] <= 90


def _angles_in(rows: list[list[str]]) -> str:
    """Which other column looks like angles, as a part of a sentence."""
    for column in range(1, min(len(row) for row in rows)):
        try:
            numbers = [float(row[column]) for row in rows]
        except ValueError:
            continue
        if min(numbers) < 0 and max(map(abs, numbers)) <= 90:
            return f": column {column + 1} looks like them ({rows[0][column]}, {rows[1][column]}, ...)"
    return ""


def _angle_deg(content: str, place: str) -> float:
    token = _COLUMNS.split(content)[0]
    shown = printable(content)[:60]
    try:
        angle = float(token)
    except ValueError:
        raise FileFormatError(f"{place}: expected a tilt angle in degrees, found '{shown}'") from None
    if "_" in token:  # Python's float accepts 1_0
        raise FileFormatError(f"{place}: expected a tilt angle in degrees, found '{shown}'")
    return angle


def write_angles_deg(path: PathLike, angles: Iterable[float], overwrite: bool = False) -> None:
    """Write one angle in degrees per line, with all its digits.

    Raises:
        GeometryError: if the angles can belong to no tilt series.
        OutputError: if the file exists and is not to be overwritten, or cannot be written.
    """
    values = tuple(float(angle) for angle in angles)
    check_angles_deg(values)
    with replacing(path, overwrite) as temporary:
        temporary.write_text("".join(f"{angle!r}\n" for angle in values), encoding="ascii")
