"""Filaments: actin, microtubules, nucleic acids and thick ones, as subunits along worm-like curves.

Points are ``(z, y, x)`` in Å. Handedness is that of right-handed x, y, z axes: actin's one-start helix is left-handed
(-166.6° and 27.5 Å per subunit: Dominguez & Holmes 2011, Annu. Rev. Biophys. 40, 169), which shows as two strands that
repeat every 55 Å. Microtubules have 13 protofilaments of monomers 40 Å apart, alpha and beta in turn (80 Å), each
9.2 Å behind its neighbour: a left-handed 3-start lattice (Nogales & Wang 2006, Curr. Opin. Struct. Biol. 16, 221).
Intermediate filaments are 110 Å wide, five protofibrils about a hollow middle, 42.5 Å and 73.7° from one to the next
(vimentin: Eibauer et al. 2024, Nat. Struct. Mol. Biol. 31, 939). Thick filaments of muscle have a shaft of 150 Å and
crowns of three pairs of heads every 143 Å (Craig & Woodhead 2006, Curr. Opin. Struct. Biol. 16, 204).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ACTIN_RISE_ANGSTROM = 27.5
ACTIN_TWIST_DEG = -166.6
TUBULIN_RISE_ANGSTROM = 40.0
PROTOFILAMENTS = 13
INTERMEDIATE_RISE_ANGSTROM = 42.5
INTERMEDIATE_TWIST_DEG = 73.7
CROWN_ANGSTROM = 143.0
PERSISTENCE_ANGSTROM = {
    "actin": 1.0e5,
    "microtubule": 1.0e7,
    "nucleic acid": 500.0,
    "intermediate filament": 1.0e4,
    "thick filament": 1.0e7,
}
_STEP_ANGSTROM = 10.0


@dataclass(frozen=True)
class Filament:
    """The subunits of a filament.

    Attributes:
        kind: a key of ``PERSISTENCE_ANGSTROM``.
        positions: centres, ``(n, 3)``.
        rotations: ``(n, 3, 3)``, acting on ``(z, y, x)``: a subunit's z axis is turned along the filament and its x
            axis away from the filament's axis.
        radii_angstrom: of the blob that stands for each subunit, ``(n,)``.
        levels: density of each, ``(n,)``.
    """

    kind: str
    positions: Array
    rotations: Array
    radii_angstrom: Array
    levels: Array

    def chosen(self, mask: NDArray[np.bool_]) -> Filament:
        """The filament with some of its subunits."""
        return Filament(
            self.kind, self.positions[mask], self.rotations[mask], self.radii_angstrom[mask], self.levels[mask]
        )


@dataclass(frozen=True)
class Curve:
    """A smooth curve with a frame that turns as little as possible along it.

    Attributes:
        points: ``(n, 3)``, evenly spaced.
        tangents: unit vectors, ``(n, 3)``.
        normals: unit vectors across, ``(n, 3)``.
        step_angstrom: distance between points.
    """

    points: Array
    tangents: Array
    normals: Array
    step_angstrom: float

    @property
    def length_angstrom(self) -> float:
        """Length of the curve."""
        return (len(self.points) - 1) * self.step_angstrom

    def frames(self, along_angstrom: Array) -> tuple[Array, Array, Array, Array]:
        """Points, tangents, normals and binormals, ``(n, 3)`` each, at arc lengths; right-handed in x, y, z."""
        place = np.clip(along_angstrom / self.step_angstrom, 0, len(self.points) - 1.000001)
        index = place.astype(int)
        part = (place - index)[:, None]
        point, tangent, normal = (
            (1 - part) * values[index] + part * values[index + 1]
            for values in (self.points, self.tangents, self.normals)
        )
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        normal -= (normal * tangent).sum(axis=1, keepdims=True) * tangent
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        # The cross product of x, y, z components changes its sign when components are written z, y, x.
        return point, tangent, normal, -np.cross(tangent, normal)


def worm_like_curve(
    start: Array, direction: Array, length_angstrom: float, persistence_angstrom: float, rng: np.random.Generator
) -> Curve:
    """A curve whose direction wanders: the mean cosine between tangents a length s apart is exp(-s / persistence).

    Args:
        start: its first point.
        direction: its first tangent.
        length_angstrom: its length.
        persistence_angstrom: persistence length; infinite for a straight one.
        rng: source of randomness.
    """
    steps = max(2, math.ceil(length_angstrom / _STEP_ANGSTROM))
    kicks = rng.normal(size=(steps, 3)) * math.sqrt(_STEP_ANGSTROM / persistence_angstrom)
    tangent = np.asarray(direction, dtype=np.float64) / np.linalg.norm(direction)
    normal = np.cross(tangent, np.eye(3)[np.argmin(np.abs(tangent))])
    normal /= np.linalg.norm(normal)
    tangents, normals = [tangent], [normal]
    for kick in kicks:
        tangent = tangent + kick - (kick @ tangent) * tangent
        tangent /= np.linalg.norm(tangent)
        normal = normal - (normal @ tangent) * tangent
        normal /= np.linalg.norm(normal)
        tangents.append(tangent)
        normals.append(normal)
    directions = np.array(tangents)
    moves = np.cumsum((directions[:-1] + directions[1:]) / 2, axis=0) * _STEP_ANGSTROM
    points = np.asarray(start) + np.vstack([np.zeros(3), moves])
    return Curve(points, directions, np.array(normals), _STEP_ANGSTROM)


def _helical(kind: str, curve: Curve, along: Array, angles: Array, blob: tuple[float, float, Array]) -> Filament:
    """Subunits at arc lengths and angles about the curve; ``blob`` is distance from the axis, radius, and levels."""
    distance, radius, levels = blob
    point, tangent, normal, binormal = curve.frames(along)
    radial = np.cos(angles)[:, None] * normal + np.sin(angles)[:, None] * binormal
    # Columns z, y, x of a rotation with determinant +1.
    rotations = np.stack([tangent, np.cross(radial, tangent), radial], axis=-1)
    return Filament(kind, point + distance * radial, rotations, np.full(len(along), radius), levels)


def actin(curve: Curve, phase: float = 0.0) -> Filament:
    """An actin filament along a curve, about 80 Å across; ``phase`` in radians turns it about its axis."""
    along = np.arange(0.0, curve.length_angstrom, ACTIN_RISE_ANGSTROM)
    angles = phase + math.radians(ACTIN_TWIST_DEG) * np.arange(len(along), dtype=np.float64)
    return _helical("actin", curve, along, angles, (19.0, 22.0, np.ones(len(along))))


def microtubule(curve: Curve, phase: float = 0.0) -> Filament:
    """A microtubule of 13 protofilaments along a curve, 250 Å across; ``phase`` in radians turns it about its axis."""
    rows = np.arange(0.0, curve.length_angstrom, TUBULIN_RISE_ANGSTROM)
    row, strand = (a.ravel() for a in np.meshgrid(np.arange(len(rows)), np.arange(PROTOFILAMENTS), indexing="ij"))
    # Once round, the lattice has moved by 3 monomers; a left-handed start goes down where the angle goes up.
    along = row * TUBULIN_RISE_ANGSTROM - strand * (3 * TUBULIN_RISE_ANGSTROM / PROTOFILAMENTS)
    along += 3 * TUBULIN_RISE_ANGSTROM
    fits = along < curve.length_angstrom
    row, strand, along = row[fits], strand[fits], along[fits]
    angles = np.asarray(phase + strand * (2 * math.pi / PROTOFILAMENTS), dtype=np.float64)
    return _helical("microtubule", curve, along, angles, (104.0, 23.0, np.where(row % 2 == 0, 1.0, 0.85)))


def nucleic_acid(curve: Curve) -> Filament:
    """A bare double-stranded chain 20 Å across, drawn as overlapping blobs; denser than protein for its phosphorus."""
    along = np.arange(0.0, curve.length_angstrom, _STEP_ANGSTROM)
    levels = np.full(len(along), 1.3)
    return _helical("nucleic acid", curve, along, np.zeros(len(along)), (0.0, 10.0, levels))


def intermediate(curve: Curve, phase: float = 0.0) -> Filament:
    """An intermediate filament along a curve, about 110 Å across; ``phase`` in radians turns it about its axis."""
    along = np.arange(0.0, curve.length_angstrom, INTERMEDIATE_RISE_ANGSTROM / 2)
    angles = phase + math.radians(INTERMEDIATE_TWIST_DEG) * np.arange(len(along), dtype=np.float64)
    return _helical("intermediate filament", curve, along, angles, (34.0, 20.0, np.ones(len(along))))


def thick(curve: Curve, phase: float = 0.0) -> Filament:
    """A thick filament along a curve: a shaft 150 Å across with heads; ``phase`` in radians turns it about its axis."""
    shaft_along = np.arange(0.0, curve.length_angstrom, 40.0)
    shaft = _helical("thick filament", curve, shaft_along, 0 * shaft_along, (0.0, 75.0, np.full(len(shaft_along), 0.9)))
    crown, head = (a.ravel() for a in np.meshgrid(np.arange(0.0, curve.length_angstrom, CROWN_ANGSTROM), range(6)))
    angles = phase + crown / CROWN_ANGSTROM * math.radians(40.0) + (head // 2) * math.radians(120.0) + 0.25 * (head % 2)
    along = np.minimum(crown + 30.0 * (head % 2), curve.length_angstrom)
    heads = _helical("thick filament", curve, along, angles, (125.0, 26.0, np.full(len(along), 0.8)))
    return Filament(
        "thick filament",
        np.concatenate([shaft.positions, heads.positions]),
        np.concatenate([shaft.rotations, heads.rotations]),
        np.concatenate([shaft.radii_angstrom, heads.radii_angstrom]),
        np.concatenate([shaft.levels, heads.levels]),
    )


def blob_voxels(
    filament: Filament, shape: tuple[int, int, int], voxel_size_angstrom: float
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """The voxels of soft balls that stand for subunits.

    Returns:
        flat indices of voxels in a grid ``(z, y, x)``, their densities, and the subunit of each; a voxel may come more
        than once.
    """
    empty = np.zeros(0, dtype=np.int64)
    if not len(filament.positions):
        return empty, np.zeros(0, dtype=np.float32), empty
    soft = math.hypot(2.5, voxel_size_angstrom / math.sqrt(12)) / voxel_size_angstrom
    radii = filament.radii_angstrom / voxel_size_angstrom
    half = math.ceil(radii.max() + 2.5 * soft)
    axis = np.arange(-half, half + 1)
    stencil = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    stencil = stencil[(stencil**2).sum(axis=1) <= (half + 1) ** 2]
    parts = []
    for first in range(0, len(radii), 2000):
        chosen = slice(first, first + 2000)
        place = filament.positions[chosen] / voxel_size_angstrom
        nearest = np.rint(place).astype(np.int64)
        voxels = nearest[:, None] + stencil
        away = np.linalg.norm(voxels - place[:, None], axis=-1)
        beyond = np.clip((away - radii[chosen, None]) / (0.6 * soft), -30, 30)
        value = filament.levels[chosen, None] / (1 + np.exp(beyond))
        # A blob thinner than a voxel is as faint as its share of the voxel.
        value *= np.minimum(1.0, (radii[chosen, None] / 0.62) ** 2)
        used = (value > 0.02) & (voxels >= 0).all(axis=-1) & (voxels < np.array(shape)).all(axis=-1)
        owner = np.broadcast_to(np.arange(first, first + len(place))[:, None], used.shape)[used]
        parts.append((np.ravel_multi_index(tuple(voxels[used].T), shape), value[used].astype(np.float32), owner))
    index, value, owner = (np.concatenate(part) for part in zip(*parts, strict=True))
    return index, value, owner
