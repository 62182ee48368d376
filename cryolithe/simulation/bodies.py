"""Bodies for training: droplets, granules, crystals with and without a visible lattice, beads; and uneven backgrounds.

A lipid droplet has a core of esters that is about as dense as ice, and a single leaflet around it (Thiam, Farese &
Walther 2013, Nat. Rev. Mol. Cell Biol. 14, 775). Crystals of protein have cells of 40-150 Å; the lattice of ice (3.7 Å)
is finer than any voxel here, so its crystals are even.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryolithe.simulation import solids
from cryolithe.simulation.canvas import FREE, Canvas
from cryolithe.simulation.classes import Structure
from cryolithe.simulation.membranes import Array

_TRIES = 10
_INSIDE_ANGSTROM = -3.0  # depth from which on a voxel belongs to a body
Box = tuple[slice, slice, slice]


def add_body(build: Canvas, kind: str) -> bool:
    """Put a body where it meets nothing; smaller ones are tried as long as there is no room.

    Args:
        build: changed.
        kind: "droplet", "granule", "solid", "ice crystal", "protein crystal" or "gold".

    Returns:
        whether there was room.
    """
    rng = build.rng
    edges = np.array(build.shape) * build.voxel
    low, high = _RADII_ANGSTROM[kind]
    radius = low * (max(low, min(high, 0.3 * float(edges.max()))) / low) ** rng.random()
    for _ in range(_TRIES):
        centre = rng.uniform(0.0, 1.0, size=3) * edges
        facets = kind in ("ice crystal", "gold") or (kind in ("solid", "protein crystal") and rng.random() < 0.6)
        box, depth = _shape(build, centre, radius, facets)
        body = depth > _INSIDE_ANGSTROM
        if body.any() and (build.kind[box][depth > -build.voxel] == FREE).all():
            density = _filled(build, depth, kind)
            target = build.density[box]
            target[...] = np.where(density > 0, np.maximum(target, density), target + density)
            build.mark_box(box, body, _CLASSES[kind].name)
            return True
        radius = max(low, 0.8 * radius)
    return False


_RADII_ANGSTROM = {
    "droplet": (80.0, 300.0),
    "granule": (60.0, 200.0),
    "solid": (60.0, 220.0),
    "ice crystal": (50.0, 160.0),
    "protein crystal": (80.0, 300.0),
    "gold": (25.0, 60.0),
}
_CLASSES = {
    "droplet": Structure.BODY,
    "granule": Structure.BODY,
    "solid": Structure.BODY,
    "ice crystal": Structure.CRYSTAL,
    "protein crystal": Structure.CRYSTAL,
    "gold": Structure.GOLD,
}


def _shape(build: Canvas, centre: Array, radius: float, facets: bool) -> tuple[Box, NDArray[np.float32]]:
    """A box of the grid and the depth of its voxels below a surface, Å: an ellipsoid, perhaps cut by planes."""
    rng, voxel = build.rng, build.voxel
    semi = radius * rng.uniform(0.7, 1.0, size=3)
    reach = radius + 12.0 + voxel
    spans = [
        slice(max(0, math.floor((c - reach) / voxel)), min(n, math.ceil((c + reach) / voxel) + 1))
        for c, n in zip(centre, build.shape, strict=True)
    ]
    box = (spans[0], spans[1], spans[2])
    grid = np.stack(np.broadcast_arrays(*np.ogrid[box]), axis=-1).astype(np.float32) * np.float32(voxel)
    offset = grid - centre.astype(np.float32)
    turned = offset @ Rotation.from_quat(rng.normal(size=4)).as_matrix().astype(np.float32) / semi.astype(np.float32)
    scaled = np.sqrt((turned**2).sum(axis=-1)) + np.float32(1e-6)
    slope = np.sqrt(((turned / semi.astype(np.float32)) ** 2).sum(axis=-1)) / scaled + np.float32(1e-6)
    depth = (1 - scaled) / slope
    if facets:
        for face in rng.normal(size=(int(rng.integers(6, 13)), 3)):
            unit = (face / np.linalg.norm(face)).astype(np.float32)
            depth = np.minimum(depth, np.float32(radius * rng.uniform(0.5, 0.9)) - offset @ unit)
    return box, depth.astype(np.float32)


def _filled(build: Canvas, depth: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """The density of a body by the depth below its surface."""
    rng, voxel = build.rng, build.voxel
    inside = np.clip(depth / np.float32(voxel) + 0.5, 0, 1)
    if kind == "gold":
        return inside * np.float32(rng.uniform(*solids.GOLD_LEVEL))
    if kind == "ice crystal":
        return inside * np.float32(solids.CRYSTAL_LEVEL * rng.uniform(0.85, 1.1))
    if kind == "droplet":
        sigma2 = rng.uniform(4.0, 6.0) ** 2 + voxel**2 / 12
        rim = np.exp(-((depth + 2) ** 2) / np.float32(2 * sigma2)) * np.float32(5.0 / math.sqrt(sigma2))
        return (inside * rng.uniform(-0.2, 0.4) + rim * rng.uniform(0.5, 1.0)).astype(np.float32)
    level = rng.uniform(0.3, 1.3)
    if kind == "protein crystal":
        return (inside * level * _lattice(depth.shape, voxel, rng)).astype(np.float32)
    if kind == "granule" or rng.random() < 0.3:
        grain = scipy.ndimage.gaussian_filter(rng.standard_normal(depth.shape, dtype=np.float32), rng.uniform(0.8, 3.0))
        return (inside * level * np.clip(1 + rng.uniform(0, 0.7) * grain / (grain.std() + 1e-6), 0, 3)).astype(
            np.float32
        )
    if rng.random() < 0.5:  # layers that follow the surface
        period = rng.uniform(4.0, 20.0) * voxel
        inside = inside * (1 + rng.uniform(0.1, 0.9) * np.sign(np.sin(2 * math.pi * depth / period)))
    return (inside * level).astype(np.float32)


def _lattice(shape: tuple[int, ...], voxel: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A periodic density of cells of 40-150 Å, between 0 and about 2, as a few harmonics above a threshold."""
    cell = np.maximum(rng.uniform(40, 150, size=3), 3 * voxel)
    shear = np.eye(3) + np.triu(rng.uniform(-0.3, 0.3, size=(3, 3)), 1)
    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    reciprocal = np.linalg.inv(cell[:, None] * shear) @ turn.T  # columns: waves of the cell, in turned axes
    grids = np.ogrid[tuple(slice(n) for n in shape)]
    found = np.zeros(shape, dtype=np.float32)
    for index in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, -1, 1), (2, 0, 0), (0, 2, 1)):
        wave = np.array(index) @ reciprocal.T * voxel
        if np.linalg.norm(wave) > 0.4:
            continue
        phase = sum(np.float32(2 * math.pi * k) * g for k, g in zip(wave, grids, strict=True))
        found += np.float32(rng.uniform(0.3, 1) / np.linalg.norm(index)) * np.cos(
            phase + np.float32(rng.uniform(0, 6.3))
        )
    found -= found.mean()
    return np.asarray(np.clip(0.5 + 0.8 * found / (found.std() + 1e-6), 0, 2.5), dtype=np.float32)


def uneven_background(
    shape: tuple[int, int, int], voxel: float, amplitude: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A slowly varying density of mean 0: waves of 300 Å and longer, longer ones stronger.

    Args:
        shape: of the grid, ``(z, y, x)``.
        voxel: edge of a voxel, Å.
        amplitude: its standard deviation.
        rng: source of randomness.
    """
    modes = [min(n, 1 + math.ceil(2 * n * voxel / 300.0)) for n in shape]
    field = rng.normal(size=modes)
    orders = np.ogrid[tuple(slice(k) for k in modes)]
    squares = sum((k / (n * voxel)) ** 2 for k, n in zip(orders, shape, strict=True))
    field = field / (squares + 1e-6) ** 0.75 * (squares < (2 / 300.0) ** 2)
    field[0, 0, 0] = 0.0
    for axis, (k, n) in enumerate(zip(modes, shape, strict=True)):
        waves = np.cos(math.pi * np.arange(k)[:, None] * (np.arange(n) + 0.5) / n)
        field = np.moveaxis(np.tensordot(field, waves, axes=(axis, 0)), -1, axis)
    spread = float(field.std())
    return np.asarray(field * (amplitude / spread if spread > 0 else 0.0), dtype=np.float32)
