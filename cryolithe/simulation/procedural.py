"""Molecules that never were: protein-like bodies in endless variety, so that a network cannot learn them by heart.

A body is one or several copies, turned about an axis, of a few ellipsoidal domains, each packed with rods as thick and
as far apart as helices and strands are (centre lines about 10 Å apart; Chothia, Levitt & Richardson 1981, J. Mol. Biol.
145, 215). So the density has the texture of protein at 4-15 Å: smooth at first sight, ribbed at the second, with clefts
between domains and holes along symmetry axes.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from cryolithe.simulation.molecules import Molecule, normalised

Points = NDArray[np.float64]
VOXEL_ANGSTROM = 4.0
_ROD_SPACING_ANGSTROM = 9.0
_ROD_STEP_ANGSTROM = 2.0
_BLUR_ANGSTROM = 3.2  # of a point of a rod: side chains and B-factor together
_SYMMETRIES, _SYMMETRY_WEIGHTS = (1, 2, 3, 4, 5, 6, 7), (0.4, 0.22, 0.1, 0.1, 0.06, 0.08, 0.04)


def procedural_library(number: int, rng: np.random.Generator) -> tuple[Molecule, ...]:
    """Molecules named ``procedural_1`` and so on."""
    return tuple(procedural_molecule(rng, f"procedural_{index + 1}") for index in range(number))


def procedural_molecule(rng: np.random.Generator, name: str) -> Molecule:
    """Draw a molecule of some 30 kDa to 1 MDa, its symmetry axis along z.

    Args:
        rng: source of all randomness.
        name: its name.
    """
    copies = int(rng.choice(_SYMMETRIES, p=_SYMMETRY_WEIGHTS))
    unit = _domains(rng, max(1, round(rng.integers(1, 7) / math.sqrt(copies))))
    # Rotations act on (z, y, x) as on (x, y, z): the first axis is the symmetry axis.
    turns = Rotation.from_rotvec(np.outer(np.arange(copies) * 2 * math.pi / copies, (1.0, 0.0, 0.0)))
    shifted = unit if copies == 1 else unit + np.array([0.0, 0.0, _touching_angstrom(unit, turns[1])])
    points = np.concatenate([turn.apply(shifted) for turn in turns])
    if copies > 1 and rng.random() < 0.4:  # a second ring, upside down
        height = float(np.ptp(unit[:, 0])) * rng.uniform(0.85, 1.0)
        turned = Rotation.from_rotvec([0.0, 0.0, math.pi]).apply(points)
        up = np.array([height / 2, 0.0, 0.0])
        points = np.concatenate([points + up, turned - up])
    return Molecule(name, normalised(blurred(points - points.mean(axis=0)), VOXEL_ANGSTROM), VOXEL_ANGSTROM)


def small_molecule(rng: np.random.Generator, name: str) -> Molecule:
    """Draw a molecule of some 20 to 100 kDa, without symmetry.

    Args:
        rng: source of all randomness.
        name: its name.
    """
    points = _domains(rng, int(rng.integers(1, 4)))
    return Molecule(name, normalised(blurred(points), VOXEL_ANGSTROM), VOXEL_ANGSTROM)


def large_particle(rng: np.random.Generator, name: str) -> Molecule:
    """Draw a particle of 2 to 4 MDa in two unequal parts, of protein and RNA: as large and as dense as ribosomes are.

    No ribosome's shape is in it. Nucleic acid has a mean inner potential above protein's, as it is denser (1.7 against
    1.35 g/cm³) and holds phosphorus: the whole is up to 1.3 times as dense as protein.

    Args:
        rng: source of all randomness.
        name: its name.
    """
    voxel, half = 2 * VOXEL_ANGSTROM, 20
    grids = np.ogrid[(slice(-half, half + 1),) * 3]
    body = np.zeros((2 * half + 1,) * 3, dtype=np.float32)
    large, small = rng.uniform(90.0, 110.0), rng.uniform(60.0, 80.0)
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    for radius, along in ((large, -0.4 * small), (small, large - 0.5 * small)):
        semi = radius * rng.uniform(0.85, 1.15, size=3) / voxel
        parts = [
            ((grid - along * unit / voxel) / length) ** 2
            for grid, unit, length in zip(grids, direction, semi, strict=True)
        ]
        distance = (np.sqrt(parts[0] + parts[1] + parts[2]) - 1) * radius / voxel
        body = np.maximum(body, np.clip(0.5 - distance, 0, 1).astype(np.float32))
    grain = scipy.ndimage.gaussian_filter(rng.standard_normal(body.shape, dtype=np.float32), 1.5)
    body *= np.clip(1 + 0.35 * grain / grain.std(), 0, 2)
    level = np.float32(rng.uniform(1.05, 1.3))
    return Molecule(name, normalised(body, voxel) * level, voxel)


def _touching_angstrom(unit: Points, turn: Rotation) -> float:
    """How far from the symmetry axis, in Å, a unit just touches its next copy."""
    away = 2.5 * float(np.linalg.norm(unit, axis=1).max()) / turn.magnitude()
    while away > 0:
        moved = unit + np.array([0.0, 0.0, away])
        if cKDTree(moved).query(turn.apply(moved))[0].min() < _ROD_SPACING_ANGSTROM:
            break
        away -= 2.0
    return max(away, 0.0)


def _domains(rng: np.random.Generator, number: int) -> Points:
    """Points of the rods of some touching domains, about their common middle, ``(n, 3)`` in Å."""
    centres, radii = [np.zeros(3)], [rng.uniform(15.0, 30.0)]
    for _ in range(number - 1):
        base = int(rng.integers(len(centres)))
        radius = rng.uniform(12.0, 28.0)
        step = rng.normal(size=3)
        centres.append(centres[base] + 0.95 * (radii[base] + radius) * step / np.linalg.norm(step))
        radii.append(radius)
    parts = [centre + rods(rng, radius) for centre, radius in zip(centres, radii, strict=True)]
    points = np.concatenate(parts)
    return np.asarray(points - points.mean(axis=0))


def rods(rng: np.random.Generator | np.random.RandomState, radius_angstrom: float) -> Points:
    """Rods in an ellipsoid, mostly along each other and at least a spacing apart; points along them, Å."""
    axes = radius_angstrom * rng.uniform(0.75, 1.3, size=3)
    main = rng.normal(size=3)
    main /= np.linalg.norm(main)
    found: Points = np.zeros((0, 3))
    for _ in range(int(60 + 12 * (radius_angstrom / _ROD_SPACING_ANGSTROM) ** 3)):
        direction = main + rng.uniform(0.1, 0.8) * rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        length = rng.uniform(8.0, 45.0)
        along = np.arange(-length / 2, length / 2, _ROD_STEP_ANGSTROM)
        rod = rng.uniform(-1, 1, size=3) * axes + along[:, None] * direction
        rod = rod[((rod / axes) ** 2).sum(axis=1) < 1]
        if len(rod) < 3:
            continue
        # There are few points, and a tree of them would serve a single question.
        if not len(found) or cdist(found, rod).min() > _ROD_SPACING_ANGSTROM:
            found = np.concatenate([found, rod])
    return found if len(found) else np.zeros((1, 3))


def blurred(points: Points) -> NDArray[np.float32]:
    """Blurred points on a grid of odd size with room around them."""
    half = math.ceil((np.abs(points).max() + 4 * _BLUR_ANGSTROM) / VOXEL_ANGSTROM)
    edges = (np.arange(2 * half + 2) - half - 0.5) * VOXEL_ANGSTROM
    counts = np.histogramdd(points, bins=(edges, edges, edges))[0].astype(np.float32)
    blurred: NDArray[np.float32] = scipy.ndimage.gaussian_filter(counts, _BLUR_ANGSTROM / VOXEL_ANGSTROM)
    # The chain fills the room between the rods: a part of the density is a smooth body.
    body = scipy.ndimage.gaussian_filter(counts, 2 * _BLUR_ANGSTROM / VOXEL_ANGSTROM)
    return np.asarray(blurred + 4 * body, dtype=np.float32)
