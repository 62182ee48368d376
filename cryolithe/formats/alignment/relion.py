"""RELION-5's tilt-series tables.

RELION's projection is ``Rz(ZRot) Ry(YTilt) Rx(XTilt)`` about N // 2, then a shift in Å: ``p = Rz q + s``; so here
A = Rz(-ZRot) and d = -A s. Rx is that of `cryolithe.alignment`. Deformations: `alignment.bends_relion`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryolithe.alignment import Alignment, ImageAlignment, rotation
from cryolithe.bending import RawBend
from cryolithe.errors import FileFormatError, GeometryError, InputError
from cryolithe.formats.alignment.alignment_format import AlignmentFile, AlignmentFormat, Beside, Named, Stack
from cryolithe.formats.alignment.bends_relion import COEFFICIENTS, image_fields
from cryolithe.formats.alignment.bends_x_tilt import XTiltBend, read_x_tilts_deg
from cryolithe.formats.alignment.image_order import RANGE_DEG, ImageOrder, image_order, opposite_signs
from cryolithe.formats.alignment.relion_listing import (
    NOMINAL,
    PART,
    TILT,
    further_tables,
    listed_near,
    listed_text,
    one_table,
    series_tables,
)
from cryolithe.formats.alignment.relion_pixels import Images, checked_pixels, is_resampled
from cryolithe.formats.alignment.tomogram_star import PIXEL, STACK, find_named, moved_images, series_images
from cryolithe.formats.files import PathLike, printable
from cryolithe.formats.image_rows import FileRows
from cryolithe.formats.reading import Reading
from cryolithe.formats.series_names import matching_name, tells_series
from cryolithe.formats.star_tables import StarTable, read_star

AXIS, SHIFT_X, SHIFT_Y = "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst"


def read_tilt_series_star(
    path: PathLike,
    tilts: PathLike,
    sections: int,
    known: Images,
    order: ImageOrder | None = None,
    reading: Reading | None = None,
) -> Alignment:
    """Read the table of one tilt series, or a table of series that names it.

    Args:
        path: STAR file with ``rlnTomoYTilt``, ``rlnTomoZRot`` and shifts, or with ``rlnTomoTiltSeriesStarFile``.
        tilts: the stack; tells which series it is where the table lists series (see `relion_listing.series_tables`).
        sections: images of the stack.
        known: of the images of the stack: their pixels, as shifts are in Å, and their size.
        order: what is known of the order of the stack's images; None where the rows are the images.
        reading: through which files are read, where others ask for them too.

    Raises:
        FileFormatError: if the file is no STAR file, lacks a column or holds what is no number.
        InputError: if no series has the name, the images do not fit the stack or are in another order, or the pixel
            size is not known.
    """
    reading = reading or Reading()
    found = series_tables(Path(path), tilts, reading)
    tables = [table for table in found.tables if TILT in table]
    if not tables:
        old = any("rlnTomoProjX" in table for table in found.tables)
        columns = ", ".join(column for table in found.tables for column in table.names)[:120]
        held = "projection matrices (RELION-4, WarpTools)" if old else f"no column {TILT}, found: {columns}"
        also = ", or --warp with the .xml of Warp" if old else ""
        raise FileFormatError(
            f"{found.path} holds {held}; give the tilt-series table of an aligned series of RELION-5{also}"
        )
    images, note = one_table(found, tables, tilts)
    near = None if found.listed else listed_near(found.path, reading)
    listed = near.row if near else found.row
    known = replace(known, named=known.named or _names_stack(images, listed, Path(tilts)))
    listed = _of_these_pixels(listed, known) if near else listed
    made = _alignment(images, listed, sections, known)
    if COEFFICIENTS in images and known.shape is not None:
        made = _with_deformations(made, images, listed, known.shape)
    ordered = [] if order is None else _order_notes(images, Path(tilts).name, sections, order)
    notes = [note, *(near.notes if near else ()), moved_images(images), *_own_doubt(images), *ordered]
    return replace(made, notes=(*(line for line in notes if line), *made.notes))


def _with_deformations(
    made: Alignment, table: StarTable, listed: Mapping[str, str], image_shape: tuple[int, int]
) -> Alignment:
    """With the deformations of the images; a note where they cannot be read."""
    of_table = _value(table.path, listed, PIXEL)
    binned = round((made.pixel_size_angstrom or 1.0) / of_table) if of_table else 1
    try:
        fields = image_fields(listed, table.text(COEFFICIENTS), image_shape, binned)
    except FileFormatError as error:
        note = f"Warning: the deformations of images in {table.path.name} are not applied: {error}"
        return replace(made, notes=(*made.notes, note))
    of_section = dict(zip(_sections(table, made.sections)[0], fields, strict=True))

    def bent(image: ImageAlignment) -> ImageAlignment:
        bend = RawBend(image.matrix, image.shift_px, of_section[image.section])
        turned = image.bend
        return replace(image, bend=replace(turned, seen=bend) if isinstance(turned, XTiltBend) else bend)

    return replace(made, images=tuple(map(bent, made.images)), local=table.path.name)


def _own_doubt(table: StarTable) -> tuple[str, ...]:
    """A warning where the angles of a table contradict the microscope's, which it has beside them."""
    if NOMINAL not in table:
        return ()
    nominal, refined = table.numbers(NOMINAL), table.numbers(TILT)
    name = table.path.name
    if opposite_signs(refined.tolist(), nominal.tolist()):
        return (
            f"Warning: {TILT} and {NOMINAL} of {name} have opposite signs, which mirrors the volume along z: {TILT} is "
            "taken",
        )
    differences = refined - nominal
    far = np.flatnonzero(np.abs(differences - np.median(differences)) > RANGE_DEG)
    if not far.size:
        return ()
    row = int(far[0])
    return (
        f"Warning: {TILT} of row {row + 1} of {name} is {refined[row]:g}°, {NOMINAL} {nominal[row]:g}°: "
        f"{far.size} of {len(table)} rows are more than {RANGE_DEG:g}° further apart than the others; {TILT} is taken",
    )


def _order_notes(table: StarTable, name: str, sections: int, order: ImageOrder) -> list[str]:
    """Compare the order of the rows with that of the images; return what to tell."""
    places, told = _sections(table, sections)
    angles = [table.numbers(column).tolist() for column in (NOMINAL, TILT) if column in table]
    return [_other_stack(table, name), order.compared(table.path, places, angles, told)]


def _of_these_pixels(listed: Mapping[str, str], known: Images) -> Mapping[str, str]:
    """The row of a table that nobody gave; nothing where a stack was resampled, to which its sizes do not apply."""
    try:
        of_table = float(listed.get(PIXEL, "nan"))
    except ValueError:
        return listed
    return {} if of_table > 0 and is_resampled(known, of_table, listed) else listed


def _names_stack(table: StarTable, listed: Mapping[str, str], tilts: Path) -> bool:
    """Whether the images of a table are parts of this very stack, or the table that lists it names that for them."""
    names = {value.partition(PART)[2] for value in _image_names(table)} | {listed.get(STACK, "").removesuffix(":mrc")}
    found = (find_named(table.path, name) for name in names if name)
    return tilts.exists() and any(path is not None and path.samefile(tilts) for path in found)


def _other_stack(table: StarTable, name: str) -> str:
    """A note where a table names images of another stack than the one that is given."""
    stack = next((value.partition(PART)[2] for value in _image_names(table) if PART in value), "")
    if not stack or matching_name([stack], name) is not None or not tells_series(name):
        return ""
    return f"{table.path.name} is of the images of {printable(stack)[:100]}; {name} is taken for them"


def _pixels(path: Path, series: Mapping[str, str], known: Images) -> tuple[float, int, tuple[str, ...]]:
    """The pixel size of images, how many times RELION's it is, and what to tell of it."""
    of_table = _value(path, series, PIXEL)
    if of_table is None:
        if known.pixel_angstrom is None:
            raise InputError(
                f"{path} gives shifts in Å, but neither it nor the stack tells the pixel size; give --pixel-size"
            )
        return known.pixel_angstrom, 1, ()
    found = checked_pixels(known, of_table, series, path)
    notes = []
    if found.of_table:
        why = "which tells these very files" if known.listed or known.named else "which tells images of this size"
        notes.append(
            f"a pixel size of {found.angstrom:g} Å is taken from RELION's table, {why}, but the header says "
            f"{known.pixel_angstrom:g} Å"
        )
    if found.binned > 1:
        notes.append(
            f"the stack's pixels are {found.binned} times those that RELION aligned; its sizes are divided by it"
        )
    return found.angstrom, found.binned, tuple(notes)


def _alignment(table: StarTable, series: Mapping[str, str], sections: int, known: Images) -> Alignment:
    path = table.path
    for column in (TILT, AXIS, SHIFT_X, SHIFT_Y):
        if column not in table:
            raise FileFormatError(
                f"{path} has no column {column}; give the tilt-series table of an aligned series of RELION-5"
            )
    numbers = {column: table.numbers(column) for column in (TILT, AXIS, SHIFT_X, SHIFT_Y)}
    x_tilt, own_x_tilts = read_x_tilts_deg(table)
    pixel, binned, notes = _pixels(path, series, known)
    rows = []
    places, _ = _sections(table, sections)
    columns = (numbers[c] for c in (TILT, AXIS, SHIFT_X, SHIFT_Y))
    for place, tilt, axis, x, y, own in zip(places, *columns, own_x_tilts, strict=True):
        matrix = rotation(-float(axis))
        (a, b), (c, d) = matrix
        sx, sy = float(x) / pixel, float(y) / pixel
        bend = XTiltBend(float(own), float(tilt)) if own_x_tilts.any() else None
        rows.append(ImageAlignment(place, float(tilt), matrix, (-(a * sx + b * sy), -(c * sx + d * sy)), bend))
    rows.sort(key=lambda row: row.section)
    size = [_value(path, series, f"rlnTomoSize{axis}") for axis in "XY"]
    x_size, y_size = (None if n is None else n / binned for n in size)
    z_size = None
    if "rlnTomoSizeZ" in series:
        # A useless depth is refused where nothing replaces it.
        with suppress(ValueError):
            z_size = math.nan
            z_size = float(series["rlnTomoSizeZ"]) / binned
    try:
        return Alignment(
            tuple(rows),
            sections,
            centre="relion",
            aligned_shape=(round(y_size), round(x_size)) if x_size and y_size else None,
            thickness_px=z_size,
            x_tilt_deg=x_tilt,
            pixel_size_angstrom=pixel,
            notes=notes,
            local=path.name if own_x_tilts.any() else "",
        )
    except GeometryError as error:
        raise InputError(f"{path}: {error}") from error


def _image_names(table: StarTable) -> list[str]:
    return table.text("rlnMicrographName") if "rlnMicrographName" in table else []


def _sections(table: StarTable, sections: int) -> tuple[list[int], bool]:
    """Index in the stack of each row, and whether the table tells it (N@stack): else it is the order of the rows."""
    path, places = table.path, _named_places(table)
    if places:
        if len(set(places)) != len(places) or min(places) < 0 or max(places) >= sections:
            raise InputError(
                f"{path} names the images {min(places) + 1} to {max(places) + 1} of its stack, {len(places)} of them, "
                f"which do not fit a stack of {sections}; give the stack that was aligned"
            )
        return places, True
    if len(table) != sections:
        raise InputError(
            f"{path} holds {len(table)} images but the stack holds {sections}; give a stack of the very images in the "
            "table, in its order"
        )
    return list(range(sections)), False


def _named_places(table: StarTable) -> list[int]:
    """The number from 0 of each row's image in the stack, as the rows name it (N@stack); empty where they do not."""
    names = _image_names(table)
    parts = [name.partition(PART)[0] for name in names if PART in name]
    named = len(parts) == len(names) and all(part.isdecimal() for part in parts)
    return [int(part) - 1 for part in parts] if named else []


def relion_rows(table: StarTable, angles_deg: tuple[float, ...]) -> FileRows:
    """The rows of a table with their angles, and with the images of a stack that they name."""
    places = tuple(_named_places(table))
    return FileRows(angles_deg, places, named=bool(places))


def _value(path: Path, series: Mapping[str, str], name: str) -> float | None:
    """A positive number of the series, or None where it is not told."""
    if name not in series:
        return None
    try:
        value = float(series[name])
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise FileFormatError(f"{path}: expected a positive number for {name}, found '{printable(series[name])[:40]}'")
    return value


def _of_stack(named: Named, stack: Stack) -> Alignment:
    # The images of a table that names single files are in the order of its rows.
    listed = named.angles is None and named.tilts.suffix.lower() in RELION.tables
    order = None if listed else image_order(named, stack.sections)
    known = Images(stack.pixel_size_angstrom, stack.pixel_size_asked, stack.image_shape, listed=listed)
    return read_tilt_series_star(named.files["star"], named.tilts, stack.sections, known, order, named.reading)


def _of_series(named: Named) -> dict[str, Path]:
    """The table with the images of the series, where the one that is given lists series; else one that lists it."""
    return further_tables(named.files["star"], named.tilts, named.reading)


def _rows(named: Named) -> dict[Path, str]:
    return listed_text(named.files["star"], named.tilts, named.reading)


def _beside(beside: Beside) -> dict[str, Path]:
    """The table of a raw stack's series, by its column of tilts: a STAR file of a stack's name may hold particles.

    One that cannot be read is nothing that is known of the stack.
    """
    found = [path for path in beside.files.get("star", ()) if _is_of_series(path, beside.reading)]
    table = None if beside.aligned else replace(beside, files={"star": found}).only("star")
    return {} if table is None else {"star": table}


def _is_of_series(path: Path, reading: Reading) -> bool:
    try:
        return any(TILT in table for table in reading(read_star, path) if len(table))
    except InputError:
        return False


RELION = AlignmentFormat(
    "RELION",
    (
        AlignmentFile(
            "star",
            "RELION-5: aligned tilt series, or the table that lists it.",
            frozenset({"angles", "axis", "shifts"}),
            beside=("{}.star", "tilt_series/{}.star"),  # it may hold particles: no proof of a raw stack
        ),
    ),
    _of_stack,
    _of_series,
    tables={".star": series_images},
    centre="relion",
    pair=_beside,
    rows=_rows,
)
