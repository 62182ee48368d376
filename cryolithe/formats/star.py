"""Particle positions as RELION STAR files, through the starfile library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.files import PathLike, read_text, replacing

LIMIT_BYTES = 500_000_000


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
    voxels (its centre of a tomogram, see the conventions in the README).

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
    """

    position_px: NDArray[np.float64]
    kinds: tuple[str, ...]


def read_positions(path: PathLike, shape: tuple[int, ...], voxel_size_angstrom: float | None, name: str) -> Positions:
    """Read particle positions in RELION-5's columns (centred, Å) or older ones (``rlnCoordinateX``, voxels).

    Args:
        path: STAR file.
        shape: voxels ``(z, y, x)`` of the tomogram.
        voxel_size_angstrom: edge of a voxel; needed for centred coordinates.
        name: of the volume's file; chooses the tomogram where the table holds several: that whose name it starts with.

    Raises:
        FileFormatError: if the file is no STAR file, or has no coordinates.
        InputError: if no tomogram, or none that the name tells, is among several; or the voxel size is missing.
    """
    import starfile

    path = Path(path)
    read_text(path, "a STAR file", LIMIT_BYTES)
    try:
        tables: dict[str, Any] = starfile.read(path, always_dict=True)
    except Exception as error:  # the library's parser raises whatever it stumbles over
        raise FileFormatError(f"{path} is not a STAR file: {' '.join(str(error).split())[:120]}") from error
    centred = [f"rlnCenteredCoordinate{axis}Angst" for axis in "ZYX"]
    plain = [f"rlnCoordinate{axis}" for axis in "ZYX"]
    for table in tables.values():
        columns = set(getattr(table, "columns", ()))
        if columns >= set(centred) or columns >= set(plain):
            break
    else:
        raise FileFormatError(
            f"{path} holds no particle positions: expected the columns {', '.join(centred)}, "
            f"or {', '.join(plain)}; found {', '.join(sorted(map(str, columns))[:6]) if tables else 'no table'}"
        )
    if "rlnTomoName" in columns:
        tomograms = sorted(set(map(str, table["rlnTomoName"])))
        fitting = [tomogram for tomogram in tomograms if name.startswith(tomogram)]
        if len(tomograms) > 1 and not fitting:
            raise InputError(
                f"{path} holds particles of {len(tomograms)} tomograms ({', '.join(tomograms[:4])}), none of which the "
                f"name {name} starts with; give a file with the particles of this tomogram alone"
            )
        if len(tomograms) > 1:
            table = table[table["rlnTomoName"].astype(str) == max(fitting, key=len)]
    chosen = centred if columns >= set(centred) else plain
    try:
        position = table[chosen].to_numpy(dtype=np.float64)
    except ValueError as error:
        raise FileFormatError(f"{path} holds coordinates that are no numbers: {error}") from error
    if chosen is centred:
        if voxel_size_angstrom is None:
            raise InputError(f"{path} holds coordinates in Å, but the volume's header has no voxel size; put it there")
        position = position / voxel_size_angstrom + np.array(shape) / 2
    if not np.isfinite(position).all():
        raise FileFormatError(f"{path} holds coordinates that are not finite numbers")
    kind = next((c for c in ("cryolitheMolecule", "rlnClassNumber") if c in columns), None)
    kinds = tuple(str(value) for value in table[kind]) if kind else ("",) * len(position)
    return Positions(position, kinds)
