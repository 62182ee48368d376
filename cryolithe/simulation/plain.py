"""One small plain series: molecules and membranes, white noise, no optics; to try things with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolithe.simulation.molecules import Molecule
from cryolithe.simulation.specimen import SpecimenRecipe, add_white_noise, make_specimen, project

ANGLES_DEG = tuple(float(angle) for angle in np.arange(-60.0, 60.1, 3.0))
SHAPE = (64, 128, 128)
VOXEL_SIZE_ANGSTROM = 10.0


@dataclass(frozen=True)
class PlainSeries:
    """Images and the truth behind them.

    Attributes:
        images: shape ``(tilt, y, x)``, float32, dense = dark.
        angles_deg: of each image.
        voxel_size_angstrom: of images and truth.
        truth: shape ``(z, y, x)``, float32, dense = dark.
    """

    images: NDArray[np.float32]
    angles_deg: tuple[float, ...]
    voxel_size_angstrom: float
    truth: NDArray[np.float32]


def plain_series(
    library: tuple[Molecule, ...], snr_db: float, seed: int, shape: tuple[int, int, int] | None = None
) -> PlainSeries:
    """Draw a series of 41 images within ±60°; the same arguments give the same arrays.

    Args:
        library: molecules to place; procedural ones where it is empty.
        snr_db: signal over noise of the images.
        seed: of everything that is drawn.
        shape: voxels ``(z, y, x)``, of 10 Å; None for `SHAPE`.
    """
    rng = np.random.default_rng(seed)
    voxels = (VOXEL_SIZE_ANGSTROM, VOXEL_SIZE_ANGSTROM)
    recipe = SpecimenRecipe(shape or SHAPE, voxels, crowding=(0.06, 0.1), membranes=(1, 2), body_chance=0.0)
    specimen = make_specimen(recipe, library, rng)
    images = add_white_noise(project(specimen, ANGLES_DEG), snr_db, rng)
    return PlainSeries(-images, ANGLES_DEG, specimen.voxel_size_angstrom, -specimen.density)
