"""What ``cryolithe info`` says of local alignments whose file alone does not tell the images: RELION's and IMOD's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cryolithe.alignment import IDENTITY
from cryolithe.bending import RawBend, largest_px
from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.alignment.bends_imod import LocalBend, local_facts, read_local
from cryolithe.formats.alignment.bends_relion import COEFFICIENTS, HEIGHT, KIND, WIDTH, image_fields
from cryolithe.formats.alignment.bends_x_tilt import X_TILT, read_x_tilts_deg
from cryolithe.formats.alignment.imod import TiltCommand, read_tilts_deg
from cryolithe.formats.alignment.relion_listing import listed_near
from cryolithe.formats.alignment.tomogram_star import find_image, find_named
from cryolithe.formats.facts import Fact, local_fact
from cryolithe.formats.reading import Reading
from cryolithe.formats.stacks.mrc import read_mrc
from cryolithe.formats.star_tables import StarTable, read_star

_IMAGE, _SERIES = "rlnMicrographName", "rlnTomoTiltSeriesStarFile"


def relion_local_fact(table: StarTable, series: Mapping[str, str] | None = None) -> Fact:
    """The deformations of a series.

    Args:
        table: its images.
        series: what the table of tomograms says of it; None to look for that table beside the images' own, or above.
    """
    if COEFFICIENTS not in table:
        return _x_tilt_fact(table)
    if series is None:
        listed = listed_near(table.path, Reading())
        series = listed.row if listed is not None and KIND in listed.row else None
    if series is None:
        return local_fact(len(table), also="how large they are needs the table that lists the series (tomograms.star)")
    shape = _image_shape(table)
    if shape is None:
        return local_fact(len(table), also=f"{_kind(series)}; how large they are needs the images, which are not there")
    try:
        fields = image_fields(series, table.text(COEFFICIENTS), shape, 1)
    except FileFormatError as error:
        return local_fact(len(table), also=f"which cannot be read: {error}")
    largest = max((largest_px(RawBend(IDENTITY, (0.0, 0.0), field), shape) for field in fields), default=0.0)
    return local_fact(len(table), largest, _kind(series))


def _x_tilt_fact(table: StarTable) -> Fact:
    """What is said of X tilts that differ among images."""
    try:
        _, own = read_x_tilts_deg(table)
    except InputError as error:
        return local_fact(0, also=f"which cannot be undone: {error}")
    if not own.any():
        return local_fact(0)
    return local_fact(len(table), also=f"by {X_TILT}, which differs by up to {np.abs(own).max():.2f}° from its median")


def relion_series_facts(table: StarTable) -> list[Fact]:
    """The deformations of all series of a table of tomograms; none where it has none."""
    if KIND not in table:
        return []
    told, lines = {}, []
    for row, name in enumerate(table.text(_SERIES)):
        found = find_named(table.path, name)
        images = None if found is None else _images(found)
        if images is None:
            continue
        series = {column: table.value(column, row) for column in table.names}
        fact = relion_local_fact(images, series)
        told[name] = fact.value
        lines += [f"{Path(name).stem}: {fact.text}"] if fact.value["images"] else []
    return [Fact("local_shifts", told, lines or "none")]


def imod_local_fact(tilt: TiltCommand) -> Fact:
    """The local alignments that tilt.com names, in pixels of the unbinned stack."""
    if tilt.local is None:
        return local_fact(0)
    try:
        areas = read_local(tilt.local)
    except InputError as error:
        return local_fact(0, also=f"{tilt.local.name} cannot be read, or holds none: {error}")
    views = areas.tilts_deg.shape[2]
    used = [view for view in range(views) if view + 1 not in tilt.excluded]
    used = [view for view in used if tilt.included is None or view + 1 in tilt.included]
    angles = tilt.listed_angles_deg
    try:
        angles = angles or (() if tilt.angles is None else read_tilts_deg(tilt.angles, "tilt angles"))
    except InputError:
        angles = ()
    if tilt.full_image_px is None or len(angles) != views:
        shifts = next(fact for fact in local_facts(tilt.local) if fact.name == "largest_shift_px")
        return local_fact(len(used), also=f"{tilt.local.name}, shifts of up to {shifts.text}")
    width, height = tilt.full_image_px
    areas = areas.scaled((tilt.local_scale or 1.0) * tilt.image_binned)
    middle = width / 2 + 0.5, height / 2 + 0.5
    bends = [
        LocalBend(areas, view, angles[view] + tilt.angle_offset_deg, -tilt.x_axis_tilt_deg, middle) for view in used
    ]
    middle_z, depth = tilt.shift_px[1], tilt.thickness_px or 0.0
    faces = middle_z - depth / 2, middle_z + depth / 2
    largest = max((largest_px(bend, (height, width), bend.angle_deg, faces) for bend in bends), default=0.0)
    also = "" if depth else "; in the middle of the volume, whose thickness it does not tell"
    return local_fact(len(used), largest, f"{tilt.local.name}{also}")


def _kind(series: Mapping[str, str]) -> str:
    return f"{series.get(KIND, 'unknown')}, {series.get(WIDTH, '?')} x {series.get(HEIGHT, '?')}"


def _images(path: Path) -> StarTable | None:
    try:
        return next((table for table in read_star(path) if _IMAGE in table), None)
    except InputError:
        return None


def _image_shape(table: StarTable) -> tuple[int, int] | None:
    """Pixels ``(y, x)`` of the images, as the first file that is there has them."""
    for name in table.text(_IMAGE)[:1]:
        stack = name.partition("@")[2]
        found = find_named(table.path, stack) if stack else find_image(table.path, name)
        if found is None:
            return None
        try:
            height, width = read_mrc(found).data.shape[-2:]
        except InputError:
            return None
        return height, width
    return None
