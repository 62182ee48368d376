"""Known positions of particles, in voxels of the volume that is judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryolithe.evaluation.heldout import z_reversed
from cryolithe.formats.particles.star import Positions, read_positions


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


def turned_over_told(given: Path | Positions, record: Mapping[str, Any]) -> list[str]:
    """A note on positions of a file where the volume's z was turned round; none where it was not.

    Nobody tells of which sense the positions are: those that were found in this very volume fit it, and where the
    angles have the other sign it is the turned one that lies as RELION's does.

    Args:
        given: STAR file, or positions in voxels of this very volume.
        record: of the volume; empty where nobody knows how it was made.
    """
    if isinstance(given, Positions) or not z_reversed(record):
        return []
    geometry = record["geometry"]
    how = [f"--handedness {geometry['handedness']}"] if geometry.get("handedness") in ("aretomo", "warp") else []
    how += ["--flip-z"] if geometry.get("flip_z") else []
    return [
        f"The volume's z is turned round ({' and '.join(how)}), and the positions in {given.name} are taken as they "
        "are: right if they were found in this volume, or in one of the same sense of z. Those of RELION, or of a "
        "volume whose z is not turned, lie at other depths, and all scores of particles are then wrong: look at both "
        f"in napari, or give a volume that is made without {' and '.join(how)}."
    ]
