"""Known positions of particles, in voxels of the volume that is judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryolithe.formats.particles.star import Positions, read_positions
from cryolithe.formats.record import turned_over_told


def turned_told(given: Path | Positions, record: Mapping[str, Any]) -> tuple[str, ...]:
    """`turned_over_told` of positions of a file; those in voxels of this very volume fit it."""
    return () if isinstance(given, Positions) else turned_over_told(given.name, record)


def known_positions(
    given: Path | Positions, name: str, shape: tuple[int, ...], voxel_size_angstrom: float | None
) -> tuple[Positions, list[str], list[str]]:
    """The positions, with notes and warnings; those that lie outside of the volume are told.

    Args:
        given: STAR file, or the positions.
        name: of the volume's file: tells which of the table's tomograms it is.
        shape: voxels ``(z, y, x)``.
        voxel_size_angstrom: edge of a voxel, or None.
    """
    if isinstance(given, Positions):
        return given, list(given.notes), list(given.outside_told(shape))
    found = read_positions(given, shape, voxel_size_angstrom, name)
    notes = [f"Particles of {found.tomogram} taken from {given.name}."] if found.tomogram else []
    outside = found.outside_told(shape)
    if outside and voxel_size_angstrom is None:
        outside = (
            f"{outside[0]} The volume's header has no voxel size, so that their coordinates are taken to count its "
            "voxels, whatever pixels they count: put the voxel size there.",
        )
    return found, [*notes, *found.notes], list(outside)
