"""Defocus of each image as CTFFIND4 and 5, AreTomo3 (``_CTF.txt``) and IMOD (``.defocus``) write it.

CTFFIND and AreTomo3: a row for each image: number, defocus 1 and 2 in Å, direction of the first in degrees, phase shift
in radians, score, resolution; AreTomo3 appends the hand of the defocus gradient, CTFFIND5 other things. CTFFIND's
comments tell the microscope.

IMOD: rows of first and last view (from 1), lowest and highest angle, defocus in nm. The first row of version 2 ends in
the number 2. Version 3 begins with a row of flags, zeros and the number 3; by the flags, rows go on with a second
defocus and the direction of the first (1; 2: in radians), phase shift (4; 8: in radians), cut-on frequency (32), and
angles have the other sign (16). A view's defocus is interpolated between the middles of rows, as rows may be of ranges
that overlap. Files before version 2 may count views from 0, which ctfphaseflip mends, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryolithe.ctf import Ctf, ImageCtf, Microscope
from cryolithe.errors import FileFormatError, InputError, SettingsError
from cryolithe.formats.files import finite_numbers, printable, read_text

LIMIT_BYTES = 10_000_000
ANGSTROM_PER_UM, NM_PER_UM = 1e4, 1e3
NEAR_DEG, MOST_OFFSET_DEG = 1.5, 30.0
ASTIGMATIC, ANGLE_IN_RADIANS, SHIFTED, SHIFT_IN_RADIANS, INVERTED, CUT_ON = 1, 2, 4, 8, 16, 32
KIND = "a file of defocus values"
_COLUMNS = re.compile(r"defocus\s*1", re.IGNORECASE)
_ARETOMO = re.compile(r"defocus 1 \[A\]|dfHand")
_NUMBER = r"\s*:\s*([-+.\deE]+)"
_OF_MICROSCOPE = {
    "voltage_kv": re.compile("acceleration voltage" + _NUMBER, re.IGNORECASE),
    "spherical_aberration_mm": re.compile("spherical aberration" + _NUMBER, re.IGNORECASE),
    "amplitude_contrast": re.compile("amplitude contrast" + _NUMBER, re.IGNORECASE),
}


@dataclass(frozen=True)
class Views:
    """A row of IMOD's file: views from 1, angles, and what it says of them."""

    first: int
    last: int
    low_deg: float
    high_deg: float
    ctf: ImageCtf


def has_columns(path: Path) -> bool:
    """Whether a text file names its columns as CTFFIND and AreTomo3 do."""
    text = read_text(path, KIND, LIMIT_BYTES)
    return any(line.startswith("#") and _COLUMNS.search(line) for line in text.splitlines())


def read_columns(path: Path) -> tuple[Ctf, bool]:
    """Read a file of CTFFIND or AreTomo3: its rows, ordered by their numbers.

    Returns:
        the values, and whether they are AreTomo3's: it sorts a series by tilt angle before anything else.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is no such file, or rows are missing or there twice.
    """
    lines = read_text(path, KIND, LIMIT_BYTES).splitlines()
    comments = "\n".join(line for line in lines if line.startswith("#"))
    rows = [_numbers(path, line, 7) for line in lines if line.strip() and not line.startswith("#")]
    if not rows:
        raise FileFormatError(f"{path} holds no row of defocus values; the program that wrote it may have failed")
    rows.sort(key=lambda row: row[0])
    if [row[0] for row in rows] != list(range(1, len(rows) + 1)):
        raise FileFormatError(f"{path}: expected rows numbered 1 to {len(rows)}, found {_shown([r[0] for r in rows])}")
    images = tuple(
        _image(path, row[1] / ANGSTROM_PER_UM, row[2] / ANGSTROM_PER_UM, row[3], math.degrees(row[4])) for row in rows
    )
    found = {name: pattern.search(comments) for name, pattern in _OF_MICROSCOPE.items()}
    told = {name: _numbers(path, match.group(1), 1)[0] for name, match in found.items() if match}
    hands = {row[7] for row in rows if len(row) > 7} if "dfhand" in comments.lower() else set()
    hand = -int(hands.pop()) if hands in ({1.0}, {-1.0}) else None
    return Ctf(images, Microscope(**told), hand), _ARETOMO.search(comments) is not None


def read_views(path: Path) -> tuple[Views, ...]:
    """Read a file of IMOD.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is no such file.
    """
    text = read_text(path, KIND, LIMIT_BYTES)
    rows = [_numbers(path, line, 5) for line in text.splitlines() if line.strip()]
    if not rows:
        raise FileFormatError(f"{path} holds no row of defocus values; save them in ctfplotter")
    flags, version = 0, rows[0][5] if len(rows[0]) > 5 else 1
    if version >= 3 and not any(rows[0][1:5]):
        if version != 3:
            raise FileFormatError(f"{path} is of version {version:g}; expected 1, 2 or 3")
        flags, rows = _whole(path, rows[0][0]), rows[1:]
    elif version not in (1, 2):
        raise FileFormatError(f"{path} begins with a row that is of no version; expected that of 2 or 3 of IMOD's file")
    views = [_views(path, row, flags) for row in rows]
    if not views:
        raise FileFormatError(f"{path} holds no row of defocus values; save them in ctfplotter")
    if version < 2 and min(row.first for row in views) == 0:
        views = [replace(row, first=row.first + 1, last=row.last + 1) for row in views]
    if min(row.first for row in views) < 1 or any(row.last < row.first for row in views):
        raise FileFormatError(f"{path}: expected views from 1 on, the first before the last; ctfplotter writes them so")
    return tuple(sorted(views, key=lambda row: (row.first + row.last, row.first)))


def of_views(
    path: Path, views: Sequence[Views], sections: int, used: Sequence[int], angles_deg: Sequence[float]
) -> tuple[ImageCtf, ...]:
    """The values of images of a stack.

    Args:
        path: of the file, for messages.
        views: its rows.
        sections: images of the stack.
        used: numbers from 0 of those that are wanted.
        angles_deg: of these, which are compared with those of the file.

    Raises:
        InputError: if views or angles do not fit.
    """
    last = max(row.last for row in views)
    if last > sections:
        raise InputError(f"{path} tells of view {last}, but the stack holds {sections}; give the file of this stack")
    _check_angles(path, views, dict(zip((n + 1 for n in used), angles_deg, strict=True)))
    middles = [(row.first + row.last) / 2 for row in views]
    values = []
    for row in views:
        ctf, double = row.ctf, 2 * math.radians(row.ctf.angle_deg)
        astigmatism = ctf.astigmatism_um
        values.append(
            [ctf.defocus_um, astigmatism * math.cos(double), astigmatism * math.sin(double), ctf.phase_shift_deg]
        )
    made = []
    for number in used:
        mean, along, across, shift = (float(np.interp(number + 1, middles, column)) for column in np.array(values).T)
        astigmatism = math.hypot(along, across)
        angle = math.degrees(math.atan2(across, along)) / 2
        made.append(ImageCtf(mean + astigmatism, mean - astigmatism, angle, shift))
    return tuple(made)


def _check_angles(path: Path, views: Sequence[Views], angles: dict[int, float]) -> None:
    """Raise InputError where rows have other angles than their views, but for one offset of all."""
    ends = [(row, view) for row in views for view in {row.first, row.last} if view in angles]
    single = [angles[row.first] - row.low_deg for row in views if row.first == row.last and row.first in angles]
    offset = float(np.median(single)) if single else 0.0
    offset = offset if abs(offset) <= MOST_OFFSET_DEG else 0.0
    for row, view in ends:
        angle = angles[view] - offset
        if not row.low_deg - NEAR_DEG <= angle <= row.high_deg + NEAR_DEG:
            raise InputError(
                f"{path} says {row.low_deg:g}° to {row.high_deg:g}° of view {view}, whose angle is "
                f"{angles[view]:g}°; give the file of this stack, whose images are in the same order"
            )


def _views(path: Path, row: Sequence[float], flags: int) -> Views:
    astigmatic, shifted = bool(flags & ASTIGMATIC), bool(flags & SHIFTED)
    expected = 5 + 2 * astigmatic + shifted + bool(flags & CUT_ON)
    if len(row) < expected:
        raise FileFormatError(f"{path}: expected {expected} numbers in each row by its flags {flags}, found {len(row)}")
    first, last = _whole(path, row[0]), _whole(path, row[1])
    low, high = sorted((-row[2], -row[3]) if flags & INVERTED else (row[2], row[3]))
    u = row[4] / NM_PER_UM
    v, angle, shift = u, 0.0, 0.0
    if astigmatic:
        v, angle = row[5] / NM_PER_UM, math.degrees(row[6]) if flags & ANGLE_IN_RADIANS else row[6]
    if shifted:
        told = row[5 + 2 * astigmatic]
        shift = abs(math.degrees(told) if flags & SHIFT_IN_RADIANS else told)
    return Views(first, last, low, high, _image(path, u, v, angle, shift))


def _image(path: Path, u_um: float, v_um: float, angle_deg: float, shift_deg: float) -> ImageCtf:
    try:
        return ImageCtf(u_um, v_um, angle_deg, shift_deg)
    except SettingsError as error:
        raise FileFormatError(f"{path}: {error}") from error


def _whole(path: Path, value: float) -> int:
    if not 0 <= value < 2**31 or value != int(value):
        raise FileFormatError(f"{path}: expected a whole number at the beginning of a row, found {value:g}")
    return int(value)


def _numbers(path: Path, line: str, least: int) -> list[float]:
    numbers = finite_numbers(line.split())
    if numbers is None or len(numbers) < least:
        raise FileFormatError(
            f"{path}: expected at least {least} numbers in '{printable(line)[:40]}'; give the table of CTFFIND or "
            "AreTomo3 (_CTF.txt), IMOD's .defocus, RELION's .star or Warp's .xml"
        )
    return numbers


def _shown(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
