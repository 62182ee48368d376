"""What is no biology in a specimen: gold, ice crystals, carbon film, the grain of amorphous ice, and damaged surfaces.

Densities are contrasts to amorphous ice in units of 2.5 V, as in `cryolithe.simulation.detector`. With mean inner
potentials of 4.5 V for ice, 9.1 V for amorphous carbon (Wanner et al. 2006, Ultramicroscopy 106, 341-345: 9.09 V at
1.75 g/cm³) and 20-30 V for gold (30 V from atomic scattering factors; less for what a weak-phase image cannot show),
carbon is (9.1 - 4.5) / 2.5 = 1.8 and gold 6-10. An ice crystal that stands out of the specimen has the contrast of ice
against vacuum: 4.5 / 2.5 = 1.8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = tuple[float, float, float]
GOLD_LEVEL = (6.0, 10.0)
SOLID = 0.3  # share of a voxel from which on it belongs to a body
CARBON_LEVEL = 1.8
CRYSTAL_LEVEL = 1.8
ICE_PEAK_PER_ANGSTROM = 1 / 3.7
_ICE_PEAK_WIDTH = 0.05  # 1/Å
_ICE_FLOOR = 0.06  # structure factor of water at long waves: density times kT times compressibility
_WATER_PER_ANGSTROM3 = 0.0311  # amorphous ice, 0.93 g/cm³
_WATER_CONTRAST = 1.8  # the mean inner potential of ice over the contrast of density 1: 4.5 V / 2.5 V
_TILE = 128


@dataclass(frozen=True)
class Solid:
    """A convex body with soft edges: a ball, or what half-spaces cut out.

    Attributes:
        centre_px: ``(z, y, x)``.
        radius_px: largest distance of its surface from the centre.
        level: density.
        faces: unit normals of half-spaces ``(k, 3)``; none for a ball.
        depths_px: distances of those faces from the centre, ``(k,)``.
    """

    centre_px: Point
    radius_px: float
    level: float
    faces: Array
    depths_px: Array


def gold_bead(
    centre_px: Point, diameter_angstrom: float, voxel_size_angstrom: float, rng: np.random.Generator
) -> Solid:
    """A gold fiducial: nearly a ball, with a few flat faces as colloidal gold has."""
    radius = diameter_angstrom / 2 / voxel_size_angstrom
    faces = _directions(int(rng.integers(4, 10)), rng)
    return Solid(centre_px, radius, float(rng.uniform(*GOLD_LEVEL)), faces, radius * rng.uniform(0.88, 1.0, len(faces)))


def ice_crystal(centre_px: Point, radius_px: float, rng: np.random.Generator) -> Solid:
    """A crystal of ice contamination: a convex body with flat faces."""
    faces = _directions(int(rng.integers(8, 16)), rng)
    depths = radius_px * rng.uniform(0.6, 1.0, len(faces))
    return Solid(centre_px, radius_px, CRYSTAL_LEVEL * float(rng.uniform(0.85, 1.1)), faces, depths)


def _directions(count: int, rng: np.random.Generator) -> Array:
    directions = rng.normal(size=(count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def solid_voxels(shape: tuple[int, ...], solid: Solid) -> tuple[tuple[slice, slice, slice], NDArray[np.float64]]:
    """The box of a grid ``(z, y, x)`` that holds a body, and how far it fills each voxel of the box, 0 to 1."""
    reach = math.ceil(solid.radius_px) + 2
    spans = [
        (min(max(round(c) - reach, 0), n), max(min(round(c) + reach + 1, n), 0))
        for c, n in zip(solid.centre_px, shape, strict=True)
    ]
    box = (slice(*spans[0]), slice(*spans[1]), slice(*spans[2]))
    grids = [g - c for g, c in zip(np.ogrid[box], solid.centre_px, strict=True)]
    depth = solid.radius_px - np.sqrt(grids[0] ** 2 + grids[1] ** 2 + grids[2] ** 2)
    for face, distance in zip(solid.faces, solid.depths_px, strict=True):
        depth = np.minimum(depth, distance - (face[0] * grids[0] + face[1] * grids[1] + face[2] * grids[2]))
    return box, np.clip(depth + 0.5, 0.0, 1.0)


def add_solid(density: NDArray[np.float32], solid: Solid) -> tuple[tuple[slice, slice, slice], NDArray[np.bool_]]:
    """Draw a body into a density ``(z, y, x)``.

    Returns:
        the box that holds it, and which voxels of the box it fills.
    """
    box, filled = solid_voxels(density.shape, solid)
    np.maximum(density[box], (solid.level * filled).astype(np.float32), out=density[box])
    return box, filled > SOLID


def add_carbon_film(
    density: NDArray[np.float32], top_px: float, thickness_px: float, hole: Point, grain: float = 0.05
) -> NDArray[np.bool_]:
    """Draw a carbon film with a round hole, flat across the grid.

    Args:
        density: ``(z, y, x)``, changed.
        top_px: z at which it begins.
        thickness_px: its thickness along z.
        hole: y and x of the middle of the hole and its radius, in voxels.
        grain: how much the rim departs from a circle, relative to the radius.

    Returns:
        which voxels are carbon.
    """
    depth, height, width = density.shape
    z = np.arange(depth)[:, None, None]
    y, x = np.ogrid[:height, :width]
    angle = np.arctan2(y - hole[0], x - hole[1])
    rim = hole[2] * (1 + grain * (0.6 * np.sin(3 * angle) + 0.4 * np.sin(7 * angle + 1)))
    outside = np.clip(np.hypot(y - hole[0], x - hole[1]) - rim + 0.5, 0, 1)
    slab = np.clip(thickness_px / 2 - np.abs(z - top_px - thickness_px / 2) + 0.5, 0, 1)
    rows = np.flatnonzero(slab[:, 0, 0] > 0)
    mask = np.zeros(density.shape, dtype=bool)
    for row in rows:
        film = (slab[row] * outside).astype(np.float32)
        np.maximum(density[row], np.float32(CARBON_LEVEL) * film, out=density[row])
        mask[row] = film > 0.3
    return mask


def ice_structure_factor(frequency_per_angstrom: Array) -> Array:
    """Structure factor of amorphous ice: a peak at 1/3.7 Å and a floor at long waves.

    The peak is where diffraction of vitreous ice has its first ring (Dubochet et al. 1988, Q. Rev. Biophys. 21, 129);
    the floor is the compressibility limit of water. Below the Nyquist frequency of voxels of 5-16 Å it is all but
    white.
    """
    peak = np.exp(-(((frequency_per_angstrom - ICE_PEAK_PER_ANGSTROM) / _ICE_PEAK_WIDTH) ** 2))
    return np.asarray(_ICE_FLOOR + 1.8 * peak)


def ice_sigma(voxel_size_angstrom: float) -> float:
    """Standard deviation of the density of amorphous ice in voxels, in units of protein's contrast.

    A voxel of volume V holds n V molecules with a variance of n V S, S the structure factor, so the relative
    fluctuation of its density is sqrt(S / (n V)), times the potential of ice over that of density 1.
    """
    volume = _WATER_PER_ANGSTROM3 * voxel_size_angstrom**3
    return _WATER_CONTRAST * math.sqrt(_mean_structure_factor(voxel_size_angstrom) / volume)


def _mean_structure_factor(voxel: float) -> float:
    frequency = np.linspace(0, math.sqrt(3) / (2 * voxel), 50)
    weight = np.where(frequency < 0.5 / voxel, frequency**2, 0) + 1e-12
    return float((ice_structure_factor(frequency) * weight).sum() / weight.sum())


def ice_tile(voxel_size_angstrom: float, rng: np.random.Generator, size: int = _TILE) -> NDArray[np.float32]:
    """A cube of the grain of amorphous ice, periodic, with mean 0 and standard deviation ``ice_sigma``.

    A Gaussian random field whose power follows ``ice_structure_factor``.
    """
    frequency = scipy.fft.fftfreq(size, voxel_size_angstrom)
    half = scipy.fft.rfftfreq(size, voxel_size_angstrom)
    radius = np.sqrt(frequency[:, None, None] ** 2 + frequency[:, None] ** 2 + half**2)
    spectrum = scipy.fft.rfftn(rng.standard_normal((size,) * 3, dtype=np.float32))
    spectrum *= np.sqrt(ice_structure_factor(radius)).astype(np.float32)
    spectrum[0, 0, 0] = 0
    field = scipy.fft.irfftn(spectrum, (size,) * 3).astype(np.float32)
    return np.asarray(field * np.float32(ice_sigma(voxel_size_angstrom) / field.std()))


def add_tiled(
    density: NDArray[np.float32], tile: NDArray[np.float32], weight: NDArray[np.float32], rng: np.random.Generator
) -> None:
    """Add a periodic cube of noise to a density ``(z, y, x)``, shifted and mirrored anew for every tile.

    So that rays through several tiles do not meet the same noise twice.

    Args:
        density: changed.
        tile: cube of noise.
        weight: factor for each z and x, ``(z, x)``.
        rng: source of randomness.
    """
    size = tile.shape[0]
    for corner in np.ndindex(*(-(-n // size) for n in density.shape)):
        box = tuple(slice(c * size, min((c + 1) * size, n)) for c, n in zip(corner, density.shape, strict=True))
        shift = rng.integers(0, size, size=3)
        axes = np.flatnonzero(rng.random(3) < 0.5)
        piece = np.flip(np.roll(tile, tuple(shift.tolist()), (0, 1, 2)), tuple(axes.tolist()))
        target = density[box]
        target += piece[tuple(slice(n) for n in target.shape)] * weight[box[0], None, box[2]]
