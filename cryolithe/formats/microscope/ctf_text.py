"""Defocus of each image as CTFFIND4 and 5 and AreTomo3 (``_CTF.txt``) write it.

A row for each image: number, defocus 1 and 2 in Å, direction of the first in degrees, phase shift
in radians, score, resolution; AreTomo3 appends the hand of the defocus gradient, CTFFIND5 other things. CTFFIND's
comments tell the microscope.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryolithe.errors import FileFormatError, SettingsError
from cryolithe.formats.files import finite_numbers, printable, read_text
from cryolithe.optics.ctf import Ctf, ImageCtf, Microscope

LIMIT_BYTES = 10_000_000
ANGSTROM_PER_UM = 1e4
# Fits of one image scatter by so much.
SAME_UM, SAME_SHIFT_DEG = 0.1, 5.0
KIND = "a file of defocus values"
# Columns of a row, and those of them that tell the CTF.
_COLUMNS_OF_A_ROW, _DECIDING = 7, 5
_NO_NUMBERS = frozenset({"inf", "infinity", "nan"})
_COLUMNS = re.compile(r"defocus\s*1", re.IGNORECASE)
_ARETOMO = re.compile(r"defocus 1 \[A\]|dfHand")
_NUMBER = r"\s*:\s*([-+.\deE]+)"
_OF_MICROSCOPE = {
    "voltage_kv": re.compile(r"acceleration\s+voltage" + _NUMBER, re.IGNORECASE),
    "spherical_aberration_mm": re.compile(r"spherical\s+aberration" + _NUMBER, re.IGNORECASE),
    "amplitude_contrast": re.compile(r"amplitude\s+contrast" + _NUMBER, re.IGNORECASE),
}


def has_columns(path: Path) -> bool:
    """Whether a text file names its columns as CTFFIND and AreTomo3 do."""
    text = read_text(path, KIND, LIMIT_BYTES)
    return any(line.startswith("#") and _COLUMNS.search(line) for line in text.splitlines())


@dataclass(frozen=True)
class Columns:
    """What a file says.

    Attributes:
        ctf: of its rows.
        numbers: of these rows, rising from 1 on; rows of some images may be missing.
        sorted_by_angle: whether the program is AreTomo3: it sorts a series by tilt angle before anything else.
    """

    ctf: Ctf
    numbers: tuple[int, ...]
    sorted_by_angle: bool


def read_columns(path: Path) -> Columns:
    """Read a file of CTFFIND or AreTomo3: its rows, ordered by their numbers.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is no such file, or rows are there twice.
    """
    lines = read_text(path, KIND, LIMIT_BYTES).splitlines()
    comments = "\n".join(line for line in lines if line.startswith("#"))
    rows = [_row(path, line) for line in lines if line.strip() and not line.startswith("#")]
    if not rows:
        raise FileFormatError(f"{path} holds no row of defocus values; the program that wrote it may have failed")
    rows.sort(key=lambda row: row[0])
    numbers = tuple(int(row[0]) for row in rows)
    if [row[0] for row in rows] != sorted({float(max(1, number)) for number in numbers}):
        raise FileFormatError(f"{path}: expected rows numbered 1 to {len(rows)}, found {_shown([r[0] for r in rows])}")
    images = tuple(
        image_ctf(path, u / ANGSTROM_PER_UM, v / ANGSTROM_PER_UM, angle, math.degrees(shift))
        for _, u, v, angle, shift, *_ in rows
    )
    found = {name: pattern.search(comments) for name, pattern in _OF_MICROSCOPE.items()}
    told = {name: least_numbers(path, match.group(1), 1)[0] for name, match in found.items() if match}
    hands = {row[7] for row in rows if len(row) > 7} if "dfhand" in comments.lower() else set()
    hand = -int(hands.pop()) if hands in ({1.0}, {-1.0}) else None
    return Columns(Ctf(images, Microscope(**told), hand), numbers, _ARETOMO.search(comments) is not None)


def image_ctf(path: Path, u_um: float, v_um: float, angle_deg: float, shift_deg: float) -> ImageCtf:
    """The values of an image.

    Raises:
        FileFormatError: if no microscope has them.
    """
    try:
        return ImageCtf(u_um, v_um, angle_deg, shift_deg)
    except SettingsError as error:
        raise FileFormatError(f"{path}: {error}") from error


def differ(one: ImageCtf, other: ImageCtf) -> bool:
    """Whether values are not those of two fits of the same image."""
    apart = max(abs(one.u_um - other.u_um), abs(one.v_um - other.v_um))
    return apart > SAME_UM or abs(one.phase_shift_deg - other.phase_shift_deg) > SAME_SHIFT_DEG


def _row(path: Path, line: str) -> list[float]:
    """A row; behind the phase shift stand scores, which CTFFIND writes as inf or nan where no ring fits."""
    deciding, scores = line.split()[:_DECIDING], line.split()[_DECIDING:]
    kept = ["0" if word.lower().lstrip("+-") in _NO_NUMBERS else word for word in scores]
    return least_numbers(path, " ".join((*deciding, *kept)), _COLUMNS_OF_A_ROW)


def least_numbers(path: Path, line: str, least: int) -> list[float]:
    """The numbers of a row.

    Raises:
        FileFormatError: if there are others, or fewer than so many.
    """
    numbers = finite_numbers(line.split())
    if numbers is None or len(numbers) < least:
        raise FileFormatError(
            f"{path}: expected at least {least} finite numbers in '{printable(line)[:40]}'; give the table of CTFFIND "
            "or AreTomo3 (_CTF.txt), IMOD's .defocus, RELION's .star or Warp's .xml"
        )
    return numbers


def _shown(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
