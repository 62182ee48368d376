"""Tilt angle files (.tlt, .rawtlt, .txt): one line per image, the angle in the first column."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

from cryolithe.errors import FileFormatError, GeometryError, InputError
from cryolithe.formats.files import PathLike, printable, read_text, replacing
from cryolithe.formats.mdoc import read_mdoc_angles_deg
from cryolithe.geometry import check_angles_deg

LIMIT_BYTES = 1_000_000
FEW_IMAGES = 5  # so few may well lie close together
_COLUMNS = re.compile(r"[\s,;]+")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,(\d+)\s*")


def read_angles_deg(path: PathLike) -> tuple[float, ...]:
    """Return the tilt angles in degrees, in the order of the file.

    Columns are separated by blanks, tabs, commas or semicolons; only the first is read (AreTomo and SerialEM add
    an index and a dose). Blank lines and what follows ``#`` are ignored.

    An .mdoc of SerialEM gives the angles of its images.

    Raises:
        InputError: if the file cannot be read, is empty, or an angle is outside ±90°, or all are equal or
            within ±π/2° (more than 5 images), which hints at radians or transforms.
        FileFormatError: if a line does not start with a number, or numbers seem to have decimal commas.
    """
    path = Path(path)
    if path.suffix.lower() == ".mdoc":
        return read_mdoc_angles_deg(path)
    if path.suffix.lower() == ".star":
        raise InputError(f"{path} is no angle file: give it with --star, which takes the alignment from it, too")
    text = read_text(path, "an angle file", LIMIT_BYTES)
    if text.startswith("# AreTomo Alignment"):  # its first column would pass for angles
        raise FileFormatError(f"{path} is an AreTomo alignment; give the angles alone (_TLT.txt, .tlt or .rawtlt)")
    angles: list[float] = []
    seconds: list[float | None] = []
    decimals: list[str] = []
    example = ""
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        angles.append(_angle_deg(content, f"{path}, line {number}"))
        example = example or content
        seconds.append(_second_number(content))
        comma = _DECIMAL_COMMA.fullmatch(content)
        decimals.append(comma.group(1) if comma else "")
    if not angles:
        raise InputError(f"{path} holds no angle; expected one line per image with the tilt angle in degrees")
    # "-60,00" and the two columns "-60,1" look alike; but an index does not have equally many digits in every line.
    if len(decimals) > 1 and decimals[0] and len({len(digits) for digits in decimals}) == 1:
        raise FileFormatError(
            f"{path} holds '{example}', which may have a decimal comma; "
            "write decimal points, and put blanks between columns"
        )
    _refuse_index_column(path, angles, seconds)
    try:
        check_angles_deg(tuple(angles))
    except GeometryError as error:
        raise InputError(f"{path}: {error}") from error
    if len(angles) > FEW_IMAGES and max(map(abs, angles)) < math.pi / 2:
        raise InputError(
            f"{path}: all {len(angles)} angles are within ±{max(map(abs, angles)):.3g}°, too little for a tilt series; "
            "give degrees (not radians), and angles rather than transforms (.xf)"
        )
    return tuple(angles)


def _second_number(content: str) -> float | None:
    """The number in the second column, or None."""
    try:
        return float(_COLUMNS.split(content)[1])
    except (IndexError, ValueError):
        return None


def _refuse_index_column(path: Path, first: list[float], second: list[float | None]) -> None:
    """Raise FileFormatError if the first column counts the images and the second looks like their angles."""
    counting = [[float(n) for n in range(start, start + len(first))] for start in (0, 1)]
    numbers = [value for value in second if value is not None]
    looks_like_angles = len(numbers) == len(first) and min(numbers) < 0 and max(map(abs, numbers)) <= 90
    if len(first) > FEW_IMAGES and first in counting and looks_like_angles:
        raise FileFormatError(
            f"{path}: the first column counts the images ({first[0]:g}, {first[1]:g}, ...) and the second looks like "
            f"their angles ({numbers[0]:g}, {numbers[1]:g}, ...); put the angles into the first column"
        )


def _angle_deg(content: str, place: str) -> float:
    token = _COLUMNS.split(content)[0]
    shown = printable(content)[:60]
    try:
        angle = float(token)
    except ValueError:
        raise FileFormatError(f"{place}: expected a tilt angle in degrees, found '{shown}'") from None
    if "_" in token:  # Python's float accepts 1_0
        raise FileFormatError(f"{place}: expected a tilt angle in degrees, found '{shown}'")
    if not abs(angle) <= 90:  # also True for NaN
        raise InputError(f"{place}: expected a tilt angle within ±90°, found '{shown}'")
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
