"""RELION-5's tilt-series tables, read with the starfile library.

RELION's projection is ``Rz(ZRot) Ry(YTilt) Rx(XTilt)`` about N // 2, then a shift in Å: ``p = Rz q + s``; so here
A = Rz(-ZRot) and d = -A s. Rx is that of `cryolithe.alignment`.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from cryolithe.alignment import Alignment, ImageAlignment, rotation
from cryolithe.errors import FileFormatError, GeometryError, InputError
from cryolithe.formats.files import PathLike, printable, read_text
from cryolithe.formats.tomogram_star import find_named

LIMIT_BYTES = 50_000_000
TILT, AXIS, SHIFT_X, SHIFT_Y = "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst"
# X tilts of single images that differ by less are the same.
SAME_TILT_DEG = 0.01
# Where a table names its images as parts of a stack: 000012@stack.mrc.
_PART = "@"


def read_tilt_series_star(path: PathLike, name: str, sections: int, pixel_size_angstrom: float | None) -> Alignment:
    """Read the table of one tilt series, or a table of series that names it.

    Args:
        path: STAR file with ``rlnTomoYTilt``, ``rlnTomoZRot`` and shifts, or with ``rlnTomoTiltSeriesStarFile``.
        name: of the stack's file; chooses the series where there are several: that whose name it starts with.
        sections: images of the stack.
        pixel_size_angstrom: of the stack; shifts are in Å.

    Raises:
        FileFormatError: if the file is no STAR file, lacks a column or holds what is no number.
        InputError: if no series fits the name, the images do not fit the stack, or the pixel size is not known.
    """
    path, series, tables = _series_tables(Path(path), name)
    images = next((table for table in tables.values() if TILT in table.columns), None)
    if images is None:
        old = any("rlnTomoProjX" in table.columns for table in tables.values())
        found = ", ".join(str(c) for table in tables.values() for c in table.columns)[:120]
        raise FileFormatError(
            f"{path} holds {'projection matrices of RELION-4' if old else f'no column {TILT}, found: {found}'}; "
            "give the tilt-series table of an aligned series of RELION-5"
        )
    return _alignment(path, images, series, sections, pixel_size_angstrom)


def find_series_table(path: PathLike, name: str) -> Path:
    """The file with the images of a series: ``path`` itself, or what a table of series names for it.

    Args:
        path: as for `read_tilt_series_star`.
        name: likewise.

    Raises:
        InputError: if a file cannot be read, or no series fits the name.
    """
    return _series_tables(Path(path), name)[0]


def _series_tables(path: Path, name: str) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The file of a series, its row in the table that lists it (or nothing), and the tables of the file."""
    tables = _read(path)
    listing = next((t for t in tables.values() if "rlnTomoName" in t.columns and TILT not in t.columns), None)
    if listing is None:
        return path, {}, tables
    series = _chosen_series(path, listing, name)
    listed = str(series.get("rlnTomoTiltSeriesStarFile", ""))
    if listed:
        found = find_named(path, listed)
        if found is None:
            raise InputError(f"{path} names {listed}, which is not there; give that table itself with --star")
        path = found
        tables = _read(path)
    elif str(series["rlnTomoName"]) in tables:
        tables = {"": tables[str(series["rlnTomoName"])]}
    return path, series, tables


def _alignment(
    path: Path, table: Any, series: dict[str, Any], sections: int, pixel_size_angstrom: float | None
) -> Alignment:
    numbers = {column: _column(path, table, column) for column in (TILT, AXIS, SHIFT_X, SHIFT_Y)}
    x_tilts = _column(path, table, "rlnTomoXTilt") if "rlnTomoXTilt" in table.columns else np.zeros(len(table))
    if np.ptp(x_tilts) > SAME_TILT_DEG:
        raise InputError(
            f"{path}: rlnTomoXTilt differs among images ({x_tilts.min():g}° to {x_tilts.max():g}°), which cannot "
            "be reconstructed row by row; align with one X tilt for all images"
        )
    notes = []
    of_table = _value(path, series, "rlnTomoTiltSeriesPixelSize")
    pixel = pixel_size_angstrom or of_table
    if pixel is None:
        raise InputError(
            f"{path} gives shifts in Å, but neither it nor the stack tells the pixel size; give --pixel-size"
        )
    binned = pixel / of_table if of_table else 1.0
    if abs(binned - round(binned)) > 0.02 * binned or round(binned) < 1:
        raise InputError(
            f"{path} is for pixels of {of_table:g} Å but those of the stack are {pixel:g} Å, no whole multiple; "
            "give the stack that was aligned, or its --pixel-size"
        )
    if round(binned) > 1:
        notes.append(
            f"the stack's pixels are {round(binned)} times those that RELION aligned; its sizes are divided by it"
        )
    rows = []
    places = _sections(path, table, sections)
    for place, tilt, axis, x, y in zip(places, *(numbers[c] for c in (TILT, AXIS, SHIFT_X, SHIFT_Y)), strict=True):
        matrix = rotation(-float(axis))
        (a, b), (c, d) = matrix
        sx, sy = float(x) / pixel, float(y) / pixel
        rows.append(ImageAlignment(place, float(tilt), matrix, (-(a * sx + b * sy), -(c * sx + d * sy))))
    rows.sort(key=lambda row: row.section)
    size = [_value(path, series, f"rlnTomoSize{axis}") for axis in "XY"]
    x_size, y_size = (None if n is None else n / round(binned) for n in size)
    z_size = None
    if "rlnTomoSizeZ" in series:
        # A useless depth is refused where nothing replaces it.
        with suppress(ValueError):
            z_size = math.nan
            z_size = float(series["rlnTomoSizeZ"]) / round(binned)
    try:
        return Alignment(
            tuple(rows),
            sections,
            centre="relion",
            aligned_shape=(round(y_size), round(x_size)) if x_size and y_size else None,
            thickness_px=z_size,
            x_tilt_deg=float(np.median(x_tilts)),
            pixel_size_angstrom=pixel,
            notes=tuple(notes),
        )
    except GeometryError as error:
        raise InputError(f"{path}: {error}") from error


def _sections(path: Path, table: Any, sections: int) -> list[int]:
    """Index in the stack of each row: told by N@stack, else the order of the rows."""
    names = [str(value) for value in table["rlnMicrographName"]] if "rlnMicrographName" in table.columns else []
    parts = [name.partition(_PART)[0] for name in names if _PART in name]
    if parts and len(parts) == len(names) and all(part.isdecimal() for part in parts):
        places = [int(part) - 1 for part in parts]
        if len(set(places)) != len(places) or min(places) < 0 or max(places) >= sections:
            raise InputError(
                f"{path} names the images {min(places) + 1} to {max(places) + 1} of its stack, {len(places)} of them, "
                f"which do not fit a stack of {sections}; give the stack that was aligned"
            )
        return places
    if len(table) != sections:
        raise InputError(
            f"{path} holds {len(table)} images but the stack holds {sections}; give a stack of the very images in the "
            "table, in its order"
        )
    return list(range(sections))


def _chosen_series(path: Path, table: Any, name: str) -> dict[str, Any]:
    names = [str(value) for value in table["rlnTomoName"]]
    fitting = [number for number, tomogram in enumerate(names) if name.startswith(tomogram)]
    if len(names) > 1 and not fitting:
        raise InputError(
            f"{path} lists {len(names)} series ({', '.join(names[:4])}), none of which the name {name} starts with; "
            "give the table of this series alone"
        )
    chosen = max(fitting, key=lambda number: len(names[number])) if fitting else 0
    return dict(table.iloc[chosen])


def _read(path: Path) -> dict[str, Any]:
    import pandas
    import starfile

    read_text(path, "a STAR file", LIMIT_BYTES)
    try:
        tables = starfile.read(path, always_dict=True)
    except Exception as error:  # the library's parser raises whatever it stumbles over
        raise FileFormatError(f"{path} is not a STAR file: {' '.join(str(error).split())[:120]}") from error
    found = {}
    for name, content in tables.items():
        # The library gives a table of one row, written as names and values, as a dictionary.
        table = pandas.DataFrame([content]) if isinstance(content, dict) else content
        if hasattr(table, "columns") and len(table):
            found[str(name)] = table
    if not found:
        raise FileFormatError(f"{path} holds no table; expected a STAR file of RELION-5")
    return found


def _column(path: Path, table: Any, name: str) -> Any:
    if name not in table.columns:
        raise FileFormatError(
            f"{path} has no column {name}; give the tilt-series table of an aligned series of RELION-5"
        )
    try:
        values = table[name].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{path}: {name} holds what is no number: {printable(str(error))[:80]}") from error
    if not np.isfinite(values).all():
        raise FileFormatError(f"{path}: {name} holds a value that is not finite")
    return values


def _value(path: Path, series: dict[str, Any], name: str) -> float | None:
    """A positive number of the series, or None where it is not told."""
    if name not in series:
        return None
    try:
        value = float(series[name])
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise FileFormatError(
            f"{path}: expected a positive number for {name}, found '{printable(str(series[name]))[:40]}'"
        )
    return value
