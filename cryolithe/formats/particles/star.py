"""Particle positions as RELION STAR files, written by the starfile library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.files import PathLike, replacing
from cryolithe.formats.particles.particle_columns import SAME_SIZE, origins_zyx, pixel_sizes_angstrom, rows_of_tomogram
from cryolithe.formats.star_tables import StarTable, read_star

LIMIT_BYTES = 500_000_000

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Particle:
    """Where a molecule is and how it is turned.

    Attributes:
        tomogram: name of the tomogram.
        kind: name of the molecule.
        label: its number in the label volume.
        position_px: ``(z, y, x)`` of its centre in voxels of the tomogram.
        euler_deg: RELION's rot, tilt and psi.
    """

    tomogram: str
    kind: str
    label: int
    position_px: tuple[float, float, float]
    euler_deg: tuple[float, float, float]


def write_particles(
    path: PathLike,
    particles: Sequence[Particle],
    shape: tuple[int, int, int],
    voxel_size_angstrom: float,
    overwrite: bool = False,
) -> None:
    """Write particles with RELION-5's column names.

    Coordinates are centred and in Å, as RELION-5 has them: (position - N / 2) times the voxel size for each axis of N
    voxels (its centre of a tomogram, see docs/conventions.md).

    Args:
        path: file to write.
        particles: what to write; none gives an empty table.
        shape: voxels ``(z, y, x)`` of the tomogram.
        voxel_size_angstrom: edge of a voxel.
        overwrite: replace an existing file.
    """
    import pandas
    import starfile

    position = np.array([p.position_px for p in particles], dtype=np.float64).reshape(-1, 3)
    centred = (position - np.array(shape) / 2) * voxel_size_angstrom
    euler = np.array([p.euler_deg for p in particles], dtype=np.float64).reshape(-1, 3)
    table = pandas.DataFrame(
        {
            "rlnTomoName": [p.tomogram for p in particles],
            "rlnCenteredCoordinateXAngst": centred[:, 2].round(3),
            "rlnCenteredCoordinateYAngst": centred[:, 1].round(3),
            "rlnCenteredCoordinateZAngst": centred[:, 0].round(3),
            "rlnAngleRot": euler[:, 0].round(4),
            "rlnAngleTilt": euler[:, 1].round(4),
            "rlnAnglePsi": euler[:, 2].round(4),
            "rlnClassNumber": [p.label for p in particles],
            "cryolitheMolecule": [p.kind for p in particles],
        }
    )
    with replacing(path, overwrite) as temporary:
        starfile.write({"particles": table}, temporary)
        # The library's first line tells the time; the same particles are to give the same bytes.
        lines = temporary.read_text(encoding="utf-8").splitlines(keepends=True)
        temporary.write_text("".join(line for line in lines if not line.startswith("#")), encoding="utf-8")


@dataclass(frozen=True)
class Positions:
    """Particle positions of one tomogram.

    Attributes:
        position_px: ``(z, y, x)`` in voxels of the tomogram, shape ``(N, 3)``.
        kinds: name of each particle's molecule; the number of its class where the file has no names; empty strings
            where it has neither.
        tomogram: whose they are, as the table calls it; an empty string where it does not.
        notes: what was done with the table's coordinates.
    """

    position_px: NDArray[np.float64]
    kinds: tuple[str, ...]
    tomogram: str = ""
    notes: tuple[str, ...] = ()

    def inside(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which of them lie in a volume, shape ``(N,)``."""
        inside = (self.position_px > -0.5) & (self.position_px < np.array(shape) - 0.5)
        return np.asarray(inside.all(axis=1))

    def outside_told(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """A sentence on those that lie outside a volume; none where all lie in it."""
        out = len(self.position_px) - int(np.count_nonzero(self.inside(shape)))
        size = " x ".join(map(str, shape))
        told = f"{out} of {len(self.position_px)} particles lie outside the volume of {size} voxels (z, y, x)"
        return (f"{told} and do not count.",) if out else ()


def read_positions(path: PathLike, shape: tuple[int, ...], voxel_size_angstrom: float | None, name: str) -> Positions:
    """Read particle positions in RELION-5's columns (centred, Å) or older ones (``rlnCoordinateX``).

    Those count pixels of the size that the table tells, or voxels (see `particle_columns`). Shifts that a refinement
    found (``rlnOriginXAngst``) are subtracted, as RELION does it.

    Args:
        path: STAR file.
        shape: voxels ``(z, y, x)`` of the tomogram.
        voxel_size_angstrom: edge of a voxel; needed for centred coordinates.
        name: of the volume's file: tells which of the table's tomograms it is (see `matching_name`).

    Raises:
        FileFormatError: if the file is no STAR file, or has no coordinates.
        InputError: if the table's tomograms have other names, or the voxel size is missing.
    """
    path = Path(path)
    centred = [f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX"]
    plain = [f"rlnCoordinate{axis}" for axis in "ZYX"]
    none = f"{path} holds no particle positions: expected the columns {', '.join(centred)}, or {', '.join(plain)}"
    try:
        tables = read_star(path, LIMIT_BYTES)
    except FileFormatError as error:
        raise FileFormatError(f"{none}; {error}") from error
    table = next((t for t in tables if any(all(c in t for c in columns) for columns in (centred, plain))), None)
    if table is None:
        columns = sorted(column for found in tables for column in found.names)
        raise FileFormatError(f"{none}; found {', '.join(columns[:6]) or 'no table'}")
    chosen = centred if all(column in table for column in centred) else plain
    try:
        position = np.stack([table.numbers(column) for column in chosen], axis=-1)
    except FileFormatError as error:
        raise FileFormatError(f"{path} holds coordinates that are no finite numbers: {error}") from error
    tomogram, here, told = rows_of_tomogram(table, name)
    position = position[here]
    if chosen is centred:
        if voxel_size_angstrom is None:
            raise InputError(f"{path} holds coordinates in Å, but the volume's header has no voxel size; put it there")
        position = position / voxel_size_angstrom + np.array(shape) / 2
        position, notes = _shifted(table, here, position, voxel_size_angstrom)
    else:
        position, notes = _in_voxels(tables, table, here, position, voxel_size_angstrom)
    kind = next((c for c in ("cryolitheMolecule", "rlnClassNumber") if c in table), None)
    kinds = table.text(kind) if kind else [""] * len(table)
    return Positions(position, tuple(kinds[number] for number in here), tomogram, (*told, *notes))


def _in_voxels(
    tables: list[StarTable], table: StarTable, rows: list[int], position: FloatArray, voxel_size_angstrom: float | None
) -> tuple[FloatArray, tuple[str, ...]]:
    """Coordinates in pixels as voxels of the volume, with a note where these differ."""
    told = pixel_sizes_angstrom(tables, table, rows, voxel_size_angstrom)
    notes: tuple[str, ...] = ()
    if (old := origins_zyx(table, rows, "")) is not None and origins_zyx(table, rows, "Angst") is None:
        position, notes = position - old, (f"Origins (rlnOriginX) subtracted from the positions of {table.path.name}.",)
    if told is None or voxel_size_angstrom is None:
        of_pixels = voxel_size_angstrom or (told[0][:, None] if told else None)
        position, shifted = _shifted(table, rows, position, of_pixels)
        return position, (*notes, *shifted)
    sizes, column = told
    scales = sizes / voxel_size_angstrom
    if (np.abs(scales - 1) > SAME_SIZE).any():
        position = position * scales[:, None]
        shown = " and ".join(f"{size:g}" for size in sorted(set(sizes.tolist()))[:3])
        notes += (f"Coordinates of {table.path.name} count pixels of {shown} Å ({column}), not the volume's voxels.",)
    position, shifted = _shifted(table, rows, position, voxel_size_angstrom)
    return position, (*notes, *shifted)


def _shifted(
    table: StarTable, rows: list[int], position: FloatArray, voxel_size_angstrom: float | FloatArray | None
) -> tuple[FloatArray, tuple[str, ...]]:
    """Positions less the shifts in Å that a refinement found, with a note where there are such."""
    origins = origins_zyx(table, rows, "Angst")
    if origins is None:
        return position, ()
    if voxel_size_angstrom is None:
        raise InputError(
            f"{table.path} holds shifts in Å (rlnOriginXAngst), but the volume's header has no voxel size; put it there"
        )
    note = f"Origins (rlnOriginXAngst) subtracted from the positions of {table.path.name}."
    return position - origins / voxel_size_angstrom, (note,)
