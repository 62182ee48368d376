"""What a cell holds beside the molecules that are resolved: cytosol, other fillings of compartments, uneven faces.

Concentration
    Cytoplasm has 200-300 mg of protein per ml, the matrix of mitochondria up to twice that (Fulton 1982, Cell 30,
    345-347), vesicles and vacuoles little. Most of it is proteins of 20-100 kDa, too small to be seen one by one: the
    background that resolved complexes have less contrast against than against ice. Its mean density is its mass by
    `classes.DALTON_PER_ANGSTROM3`, as that of molecules.

Grain
    The number of proteins fluctuates, less than by chance as they keep clear of each other: the power of the density
    at frequency k is ``mean * I * S(0) * F(k)²`` with I the integral of one protein's density, S(0) =
    (1 - φ)⁴ / (1 + 2φ)² for hard spheres that take the share φ of the volume with their water, about 1.1 ml/g (Percus &
    Yevick 1958, Phys. Rev. 110, 1-13), and F of a ball of their size (Guinier).

Unevenness
    Over tens to hundreds of nm the concentration of cytoplasm varies like a fractal mass: light scattering by tissue
    gives a power of density that falls about as k⁻³ (Hunter et al. 2006, Phys. Rev. Lett. 97, 138102; Schmitt & Kumar
    1996, Opt. Lett. 21, 1310-1312). Here it is the exponential of a Gaussian field of that power.

Faces
    A lamella's faces have streaks and waves (Schaffer et al. 2017, J. Struct. Biol. 197, 73-82), and so has the surface
    of plunge-frozen ice. What stands out of the even slab has the density of ice over vacuum, what is missing its
    negative.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.arrays.spectra import times_counted
from cryolithe.simulation import solids
from cryolithe.simulation.canvas import FREE, INSIDE, Canvas
from cryolithe.simulation.cell import CellRecipe
from cryolithe.simulation.classes import DALTON_PER_ANGSTROM3
from cryolithe.simulation.membranes import Array, Inner, Sheet, Surface

Field = NDArray[np.float32]
DALTON_PER_ANGSTROM3_OF_MG_ML = 6.02214e-4  # 1 mg/ml
HYDRATED_ML_PER_G = 1.1
UNRESOLVED_KDA = (20.0, 50.0)
ICE_OVER_VACUUM = solids.CRYSTAL_LEVEL
_STEP_ANGSTROM = 75.0  # of the coarse grids of slow fields
_LONGEST_ANGSTROM = 4000.0  # where the power of the unevenness levels off
_BEYOND_ANGSTROM = 3000.0  # by which a coarse grid is larger, as its field repeats
_TILE = 96


def density_of(mg_per_ml: float) -> float:
    """Mean density of a concentration of protein."""
    return mg_per_ml * DALTON_PER_ANGSTROM3_OF_MG_ML / DALTON_PER_ANGSTROM3


def grain_tile(voxel_angstrom: float, kda: float, mg_per_ml: float, rng: np.random.Generator) -> Field:
    """A periodic cube of the grain of a protein solution, of mean 0, per root of its mean density."""
    integral = 1000 * kda / DALTON_PER_ANGSTROM3
    filled = min(0.6, HYDRATED_ML_PER_G * mg_per_ml / 1000)
    structure = (1 - filled) ** 4 / (1 + 2 * filled) ** 2
    radius = (3 * integral / (4 * math.pi)) ** (1 / 3)
    white = rng.standard_normal((_TILE,) * 3, dtype=np.float32)
    # Guinier: F(q) = exp(-q² R² / 10), a Gaussian of standard deviation R / sqrt(5) in space.
    smooth = scipy.ndimage.gaussian_filter(white, radius / math.sqrt(5) / voxel_angstrom, mode="wrap")
    smooth -= smooth.mean()
    return np.asarray(smooth * np.float32(math.sqrt(integral * structure / voxel_angstrom**3)), dtype=np.float32)


def slow_field(shape: tuple[int, ...], voxel_angstrom: float, exponent: float, rng: np.random.Generator) -> Field:
    """A Gaussian field of variance 1 on a coarse grid over a box of ``shape`` voxels, its power falling as k^-exponent.

    Returns:
        the field at points ``_STEP_ANGSTROM`` apart from voxel 0 on; `refined` brings planes of it to voxels.
    """
    points = [math.ceil(n * voxel_angstrom / _STEP_ANGSTROM) + 2 for n in shape]
    large = [scipy.fft.next_fast_len(n + round(_BEYOND_ANGSTROM / _STEP_ANGSTROM), real=True) for n in points]
    axes = [scipy.fft.fftfreq(n, _STEP_ANGSTROM) for n in large[:-1]] + [scipy.fft.rfftfreq(large[-1], _STEP_ANGSTROM)]
    squares = sum(np.square(axis) for axis in np.meshgrid(*axes, indexing="ij", sparse=True))
    power = (squares + _LONGEST_ANGSTROM**-2.0) ** (-exponent / 2)
    white = rng.standard_normal(large, dtype=np.float32)
    field = scipy.fft.irfftn(scipy.fft.rfftn(white) * np.sqrt(power).astype(np.float32), large)
    # The variance by the power, not by this draw: longest waves make one box denser than another.
    field *= 1 / math.sqrt(float((power * times_counted(large[-1])).sum()) / math.prod(large))
    return np.ascontiguousarray(field[tuple(slice(n) for n in points)], dtype=np.float32)


def refined(coarse: Field, shape: tuple[int, ...], step_voxels: float) -> Field:
    """A coarse grid's values at voxels, linear between its points; axes beyond the length of ``shape`` are kept."""
    for axis, size in enumerate(shape):
        place = np.arange(size) / step_voxels
        low = np.minimum(place.astype(np.int64), coarse.shape[axis] - 2)
        part = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(coarse.ndim)])
        below = np.take(coarse, low, axis)
        coarse = below + part * (np.take(coarse, low + 1, axis) - below)
    return coarse


def fill_cytosol(build: Canvas, recipe: CellRecipe, surfaces: list[Surface]) -> None:
    """Put cytosol, and what fills the compartments, around all that is drawn; nothing into membranes and bodies.

    Labels stay: the background is no structure.

    Args:
        build: changed.
        recipe: concentration and unevenness.
        surfaces: membranes, outer ones before those inside them.
    """
    rng, voxel = build.rng, build.voxel
    if recipe.cytosol_mg_ml[1] <= 0:
        return
    mg_per_ml = float(rng.uniform(*recipe.cytosol_mg_ml))
    sigma = float(rng.uniform(*recipe.cytosol_variation))
    step = _STEP_ANGSTROM / voxel
    grown = slow_field(build.shape, voxel, 3.0, rng)
    amount = density_of(mg_per_ml) * np.exp(np.float32(sigma) * grown - np.float32(sigma**2 / 2))
    amount *= _compartments(amount.shape, mg_per_ml, surfaces, rng)
    grain = np.zeros(build.shape, dtype=np.float32)
    tile = grain_tile(voxel, float(rng.uniform(*UNRESOLVED_KDA)), mg_per_ml, rng)
    solids.add_tiled(grain, tile, np.ones((build.shape[0], build.shape[2]), dtype=np.float32), rng)
    across = refined(np.moveaxis(amount, 0, 2), build.shape[1:], step)  # (y, x, coarse z)
    for z in range(build.shape[0]):
        low = min(int(z / step), across.shape[2] - 2)
        part = np.float32(z / step - low)
        level = across[..., low] + part * (across[..., low + 1] - across[..., low])
        there = build.density[z]
        room = 1 - np.clip(there, 0, 1)
        room[(build.kind[z] != FREE) & (there < INSIDE)] = 0  # tails of lipids, cores of droplets, vacuum
        there += room * (level + np.sqrt(level) * grain[z])


def _compartments(
    shape: tuple[int, ...], mg_per_ml: float, surfaces: list[Surface], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Concentration over that of the cytosol on the coarse grid: other behind each membrane."""
    points: Array = np.stack(np.meshgrid(*(np.arange(n) * _STEP_ANGSTROM for n in shape), indexing="ij"), axis=-1)
    share = np.ones(shape, dtype=np.float32)
    for surface in surfaces:
        if isinstance(surface, Sheet):  # cytosol on one side, anything on the other
            wanted = rng.uniform(0.0, 1.2)
        elif isinstance(surface, Inner):
            dense = rng.random() < 0.5
            wanted = rng.uniform(300.0, 500.0) / mg_per_ml if dense else rng.uniform(0.0, 0.8)
        else:
            wanted = rng.uniform(0.0, 0.6)
        share[surface.distance(points) < 0] = wanted
    return share


def roughen_faces(build: Canvas, recipe: CellRecipe) -> None:
    """Add and remove ice at the faces of the slab; call it when the slab is cut."""
    if recipe.roughness_nm[1] <= 0:
        return
    rng, voxel = build.rng, build.voxel
    sigma = 10 * float(rng.uniform(*recipe.roughness_nm)) / voxel
    # Of a surface that is a fractal as well, the power falls as k^-3 (in two dimensions).
    faces = [
        refined(slow_field(build.shape[1:], voxel, 3.0, rng), build.shape[1:], _STEP_ANGSTROM / voxel) for _ in range(2)
    ]
    middle = build.slab.argmax(axis=0)
    for z in np.flatnonzero((np.abs(build.slab) < 4 * sigma + 1).any(axis=1)):
        height = np.float32(sigma) * np.where(z < middle[None, :], faces[0], faces[1])
        before = np.clip(build.slab[z] + np.float32(0.5), 0, 1)[None]
        after = np.clip(build.slab[z][None] + height + np.float32(0.5), 0, 1)
        there = build.density[z]
        there *= np.minimum(1, after / np.maximum(before, 1e-3))
        there += np.float32(ICE_OVER_VACUUM) * (after - before)
        build.labels[z][(after < 0.5)[:, build.field]] = 0
