"""Positions and templates that a user brings to the judges: read, checked against the volume, refused in one line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from cryolithe.errors import InputError
from cryolithe.evaluation.inputs import open_volume
from cryolithe.evaluation.picking import binned
from cryolithe.formats import read_volume
from cryolithe.formats.particles.star import LIMIT_BYTES, Particle, read_positions, write_particles
from cryolithe.formats.star_tables import read_star

CENTRED = "rlnCenteredCoordinateXAngst"
CLEAR = 5.0  # standard errors
ACROSS = 4  # voxels of a binned particle, where its brightness is looked at


@dataclass(frozen=True)
class Places:
    """Positions of one series within its volume.

    Attributes:
        position_px: ``(z, y, x)``, shape ``(N, 3)``.
        source: file that they came from.
        notes: what was left out.
    """

    position_px: NDArray[np.float64]
    source: Path
    notes: tuple[str, ...]


def places_of(source: Path, series: str, volume: Path) -> Places:
    """Read the positions of a series that lie in its volume.

    Args:
        source: STAR file of one or several series, centred coordinates in Å (RELION 5).
        series: how the table calls it.
        volume: an FBP of it, which tells shape and voxel size.

    Raises:
        InputError: if there are none, if coordinates are voxels of an unknown volume, or if most lie outside.
    """
    if not source.is_file():
        raise InputError(f"{source} does not exist; positions go there as a STAR file, or name one with --particles")
    opened = read_volume(volume)
    shape, voxel = opened.voxels.shape, opened.voxel_size_angstrom
    found = read_positions(source, shape, voxel, f"{series}_rec.mrc")
    if not any(CENTRED in table for table in read_star(source, LIMIT_BYTES)):
        raise InputError(
            f"{source} has coordinates in voxels (rlnCoordinateX) of a volume that is not known here; expected "
            f"{CENTRED}, Y and Z, which are (coordinate - N/2) x voxel size for N voxels along the axis"
        )
    places, size = found.position_px, np.array(shape)
    inside = ((places > -0.5) & (places < size - 0.5)).all(axis=1)
    if not len(places):
        raise InputError(f"{source} holds no position of {series}; expected the particles of that series")
    if 2 * np.count_nonzero(inside) < len(places):
        raise InputError(
            f"{source}: {np.count_nonzero(inside)} of {len(places)} positions of {series} lie in the volume of "
            f"{' x '.join(map(str, shape))} voxels (z, y, x) of {voxel:g} Å; expected most: are they Å from the middle "
            "of the same tomogram, and are the manifest's pixel size and --thickness right?"
        )
    kept = places[inside]
    outside = len(places) - len(kept)
    notes = (f"{outside} of {len(places)} positions lie outside the volume and do not count",) if outside else ()
    return Places(kept, source, notes)


def write_places(places: Places, volume: Path) -> Path:
    """Write positions as those of a volume, beside it, for `cryolithe.evaluation`."""
    path = volume.with_name(f"{volume.stem}_particles.star")
    opened = read_volume(volume, is_volume=True)
    depth, height, width = opened.voxels.shape
    particles = [
        Particle(volume.stem, "particle", 1, (float(z), float(y), float(x)), (0.0, 0.0, 0.0))
        for z, y, x in places.position_px
    ]
    write_particles(path, particles, (depth, height, width), float(opened.voxel_size_angstrom or 1.0), overwrite=True)
    return path


def check_places(places: Places, volume: Path, diameter_angstrom: float) -> tuple[str, ...]:
    """Look whether particles stand where they should, dark in an FBP; say it where that cannot be seen.

    Raises:
        InputError: if the places are clearly bright, or clearly darker when they are mirrored along z.
    """
    opened = read_volume(volume)
    assert opened.voxel_size_angstrom is not None
    diameter_px = diameter_angstrom / opened.voxel_size_angstrom
    factor = max(1, math.floor(diameter_px / ACROSS))
    smooth = gaussian_filter(binned(np.asarray(opened.voxels), factor), diameter_px / factor / 4)
    at = (places.position_px - (factor - 1) / 2) / factor
    mirrored = at.copy()
    mirrored[:, 0] = (opened.voxels.shape[0] - 1 - places.position_px[:, 0] - (factor - 1) / 2) / factor
    here, there = _darkness(smooth, at), _darkness(smooth, mirrored)
    if here < -CLEAR:
        raise InputError(
            f"{places.source}: the places are brighter than the rest of {volume.name} by {-here:.0f} standard errors; "
            "expected dense = dark: correct stack_contrast in the manifest (--manifests), or the positions"
        )
    if there > here + CLEAR:
        raise InputError(
            f"{places.source}: the places are darker than the rest by {here:.1f} standard errors, but by {there:.1f} "
            "when mirrored along z; change the sign of rlnCenteredCoordinateZAngst, or of the tilt angles"
        )
    if here < 2:
        return (f"the places are no darker than elsewhere in FBP ({here:.1f} standard errors): do they belong there?",)
    return ()


def _darkness(smooth: NDArray[Any], at: NDArray[np.float64]) -> float:
    """How much darker a smooth volume is at some places than all over, in standard errors."""
    values = map_coordinates(smooth, at.T, order=1, mode="nearest")
    spread = float(smooth.std()) / math.sqrt(len(at))
    return float(smooth.mean() - values.mean()) / spread if spread > 0 else 0.0


def check_template(path: Path, diameter_angstrom: float) -> None:
    """Refuse a map that is missing, has no voxel size, is smaller than the particle, or dense = dark.

    Raises:
        InputError: names what was found.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; the template (a map, dense = bright) goes there, or use --template")
    named = open_volume(path, [], True)
    voxels, voxel = named.voxels, named.voxel_size_angstrom
    if not voxel:
        raise InputError(f"{path} does not tell its voxel size; expected Å in its header, as EMDB's maps have")
    width = min(voxels.shape) * voxel
    if width < diameter_angstrom:
        raise InputError(f"{path} is {width:.0f} Å wide; expected a map of a whole particle of {diameter_angstrom:g} Å")
    axes = np.ogrid[tuple(slice(-(n - 1) / 2, n / 2) for n in voxels.shape)]
    away = np.sqrt(sum(axis**2 for axis in axes)) * voxel
    inside = away <= diameter_angstrom / 2
    if inside.all() or voxels[inside].mean() <= voxels[~inside].mean():
        raise InputError(
            f"{path} is not denser in the middle than around it; expected one particle in the middle of its box, "
            "dense = bright (multiply by -1 if dense is dark)"
        )
