"""Particle positions as a RELION-5 STAR file, through the starfile library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cryolithe.formats.files import PathLike, replacing


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
