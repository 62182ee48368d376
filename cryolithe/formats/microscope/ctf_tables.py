"""Defocus of each image as RELION-5's tilt-series tables and Warp's .xml have it, with the angles of their images.

RELION: rlnDefocusU, rlnDefocusV in Å, rlnDefocusAngle, rlnPhaseShift in degrees; microscope and rlnTomoHand stand in
the table that lists the series. Its depth grows to the right at negative tilt angles and is added to the defocus times
the hand, so that the hand of `cryolithe.optics.ctf` is ``-rlnTomoHand``.

Warp: the parameters of <CTF> (defocus and the difference of both directions in µm, phase shift in π), and for single
images the grids GridCTF, GridCTFDefocusDelta, GridCTFDefocusAngle, GridCTFPhase, whose Z counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from cryolithe.errors import FileFormatError, SettingsError
from cryolithe.formats.alignment.relion import relion_rows
from cryolithe.formats.alignment.relion_listing import NOMINAL, TILT, Listed, find_series_table, listed_of, series_table
from cryolithe.formats.alignment.warp import warp_number, warp_rows, warp_series
from cryolithe.formats.cells import told_number
from cryolithe.formats.files import PathLike
from cryolithe.formats.image_rows import FileRows
from cryolithe.formats.reading import Reading
from cryolithe.formats.star_tables import StarTable, read_star
from cryolithe.optics.ctf import Ctf, ImageCtf, Microscope

ANGSTROM_PER_UM = 1e4
_U, _V, _ANGLE, _SHIFT = "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift"
_MICROSCOPE = {
    "voltage_kv": "rlnVoltage",
    "spherical_aberration_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
_HAND = "rlnTomoHand"
# Warp: the grid of a parameter, the parameter itself, and what its unit is in ours.
_GRIDS = {"Defocus": "GridCTF", "DefocusDelta": "GridCTFDefocusDelta", "DefocusAngle": "GridCTFDefocusAngle"}
_GRIDS |= {"PhaseShift": "GridCTFPhase"}


@dataclass(frozen=True)
class Told:
    """What a table tells: of which images its rows are, and the values, one for each row."""

    rows: FileRows
    ctf: Ctf


def read_relion_ctf(path: Path, tilts: PathLike, reading: Reading) -> Told | None:
    """Angles and values of the images of a series; None where the table has no defocus.

    Raises:
        InputError: if the file cannot be read, or no series has the name.
        FileFormatError: if a value is no number, or nothing tells which image a defocus is of.
    """
    listed = listed_of(path, tilts, reading)
    found, table = find_series_table(path, tilts, reading), series_table(path, tilts, reading)
    single = next((other for other in reading(read_star, found) if _U in other), None)
    if table is None and single is not None:  # Gctf's, or RELION's of micrographs
        raise FileFormatError(
            f"{found} tells the defocus of {len(single)} images but no tilt angle ({TILT} or {NOMINAL}), by which they "
            "are matched; give the tilt-series table, or a table of CTFFIND's kind with a row for each image of the "
            "stack"
        )
    if table is None or _U not in table:
        return None
    u = table.numbers(_U) / ANGSTROM_PER_UM
    v = table.numbers(_V) / ANGSTROM_PER_UM if _V in table else u
    angle, shift = (table.numbers(name) if name in table else 0 * u for name in (_ANGLE, _SHIFT))
    if not (u.any() or v.any()):  # as tables are written before the defocus is known
        return None
    rows = zip(u.tolist(), v.tolist(), angle.tolist(), shift.tolist(), strict=True)
    images = tuple(_image(found, *row) for row in rows)
    hand, hand_by = _number(listed, table, _HAND)
    angles = table.numbers(TILT if TILT in table else NOMINAL)
    lens = _relion_microscope(listed, table)
    by = {name: file.name for name, (_, file) in lens.items()} | {"hand": hand_by.name}
    microscope = Microscope(**{name: value for name, (value, _) in lens.items()})
    by = {name: file for name, file in by.items() if file != path.name}
    ctf = Ctf(images, microscope, -int(hand) if hand in (1.0, -1.0) else None, told_by=by)
    return Told(relion_rows(table, tuple(angles.tolist())), ctf)


def read_relion_microscope(path: Path, tilts: PathLike, reading: Reading) -> dict[str, tuple[float, Path]]:
    """What the tables of a series tell of the microscope, with a defocus or without: each value, and its file.

    Raises:
        InputError: if the file cannot be read, or no series has the name.
    """
    listed, table = listed_of(path, tilts, reading), series_table(path, tilts, reading)
    return {} if table is None else _relion_microscope(listed, table)


def _relion_microscope(listed: Listed | None, table: StarTable) -> dict[str, tuple[float, Path]]:
    found = {name: _number(listed, table, column) for name, column in _MICROSCOPE.items()}
    return {name: (value, file) for name, (value, file) in found.items() if value is not None}


def read_warp_ctf(path: Path) -> Told | None:
    """Angles, of the sign that we give them, and values of all images of a series; None where no defocus is told.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is no tilt series of Warp, or a value is no number.
    """
    root = warp_series(path)
    rows = warp_rows(path, root)
    count = len(rows.angles_deg)
    told = _parameters(path, root, tuple(_GRIDS))
    columns = {name: _of_images(path, root, grid, count, told.get(name)) for name, grid in _GRIDS.items()}
    defocus = columns["Defocus"]
    if defocus is None or not any(defocus):
        return None
    delta, direction, shift = (
        columns[name] or [0.0] * count for name in ("DefocusDelta", "DefocusAngle", "PhaseShift")
    )
    images = tuple(
        _image(path, mean + half / 2, mean - half / 2, angle, 180.0 * pi)
        for mean, half, angle, pi in zip(defocus, delta, direction, shift, strict=True)
    )
    return Told(rows, Ctf(images, read_warp_microscope(path)))


def read_warp_microscope(path: Path) -> Microscope:
    """What Warp's .xml tells of the microscope, with a defocus or without.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is no tilt series of Warp, or a value is no number.
    """
    told = _parameters(path, warp_series(path), ("Voltage", "Cs", "Amplitude"))
    return Microscope(told.get("Voltage"), told.get("Cs"), told.get("Amplitude"))


def _parameters(path: Path, root: ElementTree.Element, names: tuple[str, ...]) -> dict[str, float]:
    """Those of <CTF> that have one of some names."""
    found = ((str(node.get("Name")), node.get("Value") or "") for node in root.iterfind("CTF/Param"))
    return {name: warp_number(path, name, value) for name, value in found if name in names}


def _of_images(path: Path, root: ElementTree.Element, grid: str, count: int, whole: float | None) -> list[float] | None:
    """A value for each image: of the grid, if it has one for each or for all; else that of the series.

    Warp begins with grids of one node, which is 0, until something is estimated.
    """
    nodes = [] if (found := root.find(grid)) is None else list(found.iter("Node"))
    if len(nodes) <= 1:
        value = warp_number(path, grid, nodes[0].get("Value") or "") if nodes else 0.0
        return [value] * count if value else None if whole is None else [whole] * count
    values: dict[int, float] = {}
    for node in nodes:
        values[round(warp_number(path, grid, node.get("Z") or "0"))] = warp_number(path, grid, node.get("Value") or "")
    if sorted(values) != list(range(count)) or len(nodes) != count:
        raise FileFormatError(
            f"{path}: expected one node of <{grid}> for each of {count} images, found {len(nodes)}; other grids are "
            "not read: give a table of CTFFIND's kind with --ctf-file"
        )
    return [values[number] for number in range(count)]


def _image(path: Path, u_um: float, v_um: float, angle_deg: float, shift_deg: float) -> ImageCtf:
    try:
        return ImageCtf(u_um, v_um, angle_deg, shift_deg)
    except SettingsError as error:
        raise FileFormatError(f"{path}: {error}") from error


def _number(listed: Listed | None, table: StarTable, column: str) -> tuple[float | None, Path]:
    """A number of the series, from the table that lists it or the first of its images, and that table's file."""
    value = None if listed is None else told_number(listed.path, column, listed.row.get(column))
    if listed is not None and value is not None:
        return value, listed.path
    return told_number(table.path, column, table.value(column, 0)) if column in table else None, table.path
