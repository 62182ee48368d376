"""Defocus of each image as IMOD (``.defocus``) writes it; also AreTomo3, as ``_CTF_Imod.txt``.

Rows of first and last view (from 1), lowest and highest angle, defocus in nm. The first row of version 2 ends in
the number 2. Version 3 begins with a row of flags, zeros and the number 3; by the flags, rows go on with a second
defocus and the direction of the first (1; 2: in radians), phase shift (4; 8: in radians), cut-on frequency (32), and
angles have the other sign (16). A view's defocus is interpolated between the middles of rows, as rows may be of ranges
that overlap. Files before version 2 may count views from 0, which ctfphaseflip mends, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.angle_signs import Way, sign_notes, sign_of
from cryolithe.formats.files import finite_numbers, read_text
from cryolithe.formats.image_rows import Rows, SeriesImages, by_angle, possible_rows
from cryolithe.formats.microscope.ctf_text import KIND, LIMIT_BYTES, differ, image_ctf, least_numbers
from cryolithe.optics.ctf import Ctf, ImageCtf

NM_PER_UM = 1e3
# Below that a column is hardly one of defocus in nm.
LEAST_UM = 0.1
NEAR_DEG, SAME_DEG, MOST_OFFSET_DEG = 1.5, 0.1, 30.0
ASTIGMATIC, ANGLE_IN_RADIANS, SHIFTED, SHIFT_IN_RADIANS, INVERTED, CUT_ON = 1, 2, 4, 8, 16, 32


@dataclass(frozen=True)
class Views:
    """A row of IMOD's file: views from 1, angles, and what it says of them."""

    first: int
    last: int
    low_deg: float
    high_deg: float
    ctf: ImageCtf


def read_views(path: Path) -> tuple[Views, ...]:
    """Read a file of IMOD.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is no such file.
    """
    text = read_text(path, KIND, LIMIT_BYTES)
    rows = [least_numbers(path, line, 5) for line in text.splitlines() if line.strip()]
    if not rows:
        raise FileFormatError(f"{path} holds no row of defocus values; save them in ctfplotter")
    flags, version = 0, rows[0][5] if len(rows[0]) > 5 else 1
    if version >= 3 and not any(rows[0][1:5]):
        if version != 3:
            raise FileFormatError(f"{path} is of version {version:g}; expected 1, 2 or 3")
        flags, rows = _whole(path, rows[0][0]), rows[1:]
    elif version not in (1, 2):
        raise FileFormatError(
            f"{path} begins with a row that is of no version; expected that of 2 or 3 of IMOD's file; tables of "
            "CTFFIND and AreTomo3 need their comments (#), which name the columns"
        )
    views = [_views(path, row, flags) for row in rows]
    if not views:
        raise FileFormatError(f"{path} holds no row of defocus values; save them in ctfplotter")
    if version < 2 and min(row.first for row in views) == 0:
        views = [replace(row, first=row.first + 1, last=row.last + 1) for row in views]
    if min(row.first for row in views) < 1 or any(row.last < row.first for row in views):
        raise FileFormatError(f"{path}: expected views from 1 on, the first before the last; ctfplotter writes them so")
    return tuple(sorted(views, key=lambda row: (row.first + row.last, row.first)))


def is_views(path: Path) -> bool:
    """Whether a text file is one of IMOD's, whatever its name: its version says so, or its rows do, which have five.

    Raises:
        InputError: if it cannot be read.
    """
    rows = [finite_numbers(line.split()) for line in read_text(path, KIND, LIMIT_BYTES).splitlines() if line.strip()]
    if not rows or not rows[0] or not all(rows):
        return False
    if rows[0][5:6] not in ([2], [3]) and any(len(row or ()) != 5 for row in rows):
        return False
    try:
        views = read_views(path)
    except FileFormatError:
        return False
    angles = [angle for row in views for angle in (row.low_deg, row.high_deg)]
    return max(map(abs, angles)) <= 90 and min(row.ctf.defocus_um for row in views) >= LEAST_UM


def of_views(path: Path, views: Sequence[Views], series: SeriesImages) -> Ctf:
    """The values of the images of a series that are used.

    Views are counted in the stack that the defocus was measured on: the raw one, the aligned one, or that of the images
    that are used. Their angles tell which.

    Args:
        path: of the file, for messages.
        views: its rows.
        series: whose images are wanted.

    Raises:
        InputError: if views or angles do not fit, or fit in two ways.
    """
    found, refusal = dict[int, tuple[Rows, float]](), InputError()
    for one, side in series.signs.items():
        try:
            found[one] = _rows(path, views, side)
        except InputError as error:
            refusal = error if one > 0 else refusal
    if not found:
        raise refusal
    ways = {
        one: Way(rows.places(series.used), min(offset, offset - series.signs[one].offset_deg, key=abs))
        for one, (rows, offset) in found.items()
    }
    sign = sign_of(ways, series.angles_deg, series.stage_sign)
    rows, _ = found[sign or 1]
    places = [place + 1 for place in rows.places(series.used)]
    made = _values(views, places)
    if sign == 0 and not any(map(differ, made, _values(views, [place + 1 for place in ways[-1].rows]))):
        sign = 1
    notes = [f"the views of {path.name} {rows.note}"] if rows.note else []
    notes += sign_notes(path.name, "defoci", sign, of_warp=False)
    first, last = min(row.first for row in views), max(row.last for row in views)
    if outside := sum(not first <= view <= last for view in places):
        notes.append(
            f"Warning: {path.name} tells of views {first} to {last} alone; {outside} of {len(places)} images get the "
            "defocus of the nearest of them"
        )
    return Ctf(tuple(made), notes=tuple(notes))


def _values(views: Sequence[Views], places: Sequence[int]) -> list[ImageCtf]:
    """The values at views, from 1, between the middles of the rows."""
    columns = []
    for row in views:
        ctf, double = row.ctf, 2 * math.radians(row.ctf.angle_deg)
        astigmatism = ctf.astigmatism_um
        columns.append(
            [ctf.defocus_um, astigmatism * math.cos(double), astigmatism * math.sin(double), ctf.phase_shift_deg]
        )
    middles, made = [(row.first + row.last) / 2 for row in views], []
    for view in places:
        mean, along, across, shift = (float(np.interp(view, middles, column)) for column in np.array(columns).T)
        astigmatism = math.hypot(along, across)
        angle = math.degrees(math.atan2(across, along)) / 2
        made.append(ImageCtf(mean + astigmatism, mean - astigmatism, angle, shift))
    return made


def _rows(path: Path, views: Sequence[Views], series: SeriesImages) -> tuple[Rows, float]:
    """Of which images the views are: those whose angles fit, with no offset if there is such a reading; the offset."""
    last, possible = max(row.last for row in views), list(possible_rows(series))
    if last > series.sections:
        raise InputError(
            f"{path} tells of view {last}, but the stack holds {series.sections}; give the file of this stack"
        )
    ordered = [by_angle(rows, series) for rows in possible]
    possible += [rows for rows in ordered if rows is not None and rows not in possible]
    fitting: list[tuple[float, Rows]] = []
    refusal = ""
    for rows in possible:
        if last <= len(rows.images):
            found = _offset_deg(path, views, rows, series)
            refusal = refusal or (found if isinstance(found, str) else "")
            fitting += [] if isinstance(found, str) else [(found, rows)]
    if not fitting:
        raise InputError(refusal)
    least = min(abs(offset) for offset, _ in fitting)
    nearest = next((rows, offset) for offset, rows in fitting if abs(offset) <= least + SAME_DEG)
    # An offset of all angles may be the tilt of the specimen, or the step from one image to the next.
    if least <= NEAR_DEG or len({rows.places(series.used) for _, rows in fitting}) == 1:
        return nearest
    raise InputError(
        f"{path}: its views may be counted in more than one way among the {series.sections} images of the stack, "
        f"{len(series.used)} of which are used, and the angles do not tell which; give a file with a row for each image"
    )


def _offset_deg(path: Path, views: Sequence[Views], rows: Rows, series: SeriesImages) -> float | str:
    """The offset between the angles of views and of their images; or what is against their being the same."""
    known = series.angle_of
    angles = {view: known[image] for view, image in enumerate(rows.images, start=1) if image in known}
    ends = [(row, view) for row in views for view in {row.first, row.last} if view in angles]
    single = [angles[row.first] - row.low_deg for row in views if row.first == row.last and row.first in angles]
    offset = float(np.median(single)) if single else 0.0
    offset = offset if abs(offset) <= MOST_OFFSET_DEG else 0.0
    for row, view in ends:
        angle = angles[view] - offset
        if not row.low_deg - NEAR_DEG <= angle <= row.high_deg + NEAR_DEG:
            return (
                f"{path} says {row.low_deg:g}° to {row.high_deg:g}° of view {view}, whose angle is "
                f"{angles[view]:g}°; give the file of this stack, whose images are in the same order"
            )
    return offset


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
    return Views(first, last, low, high, image_ctf(path, u, v, angle, shift))


def _whole(path: Path, value: float) -> int:
    if not 0 <= value < 2**31 or value != int(value):
        raise FileFormatError(f"{path}: expected a whole number at the beginning of a row, found {value:g}")
    return int(value)
