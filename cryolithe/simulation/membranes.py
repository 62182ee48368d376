"""Lipid bilayers: vesicles, tubes, bent sheets and membranes within membranes.

A membrane is a surface that tells the signed distance of points (Å; positive outside) and draws points on itself with
outward normals. Its density follows from the distance alone, so the bilayer is as thick on any grid. Points are
``(z, y, x)`` in Å; voxel (0, 0, 0) has its middle at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]
_BLOCKS = (8, 2)  # voxels along the edge of the blocks in which a surface is looked for, large ones first
_CHUNK = 400_000  # points evaluated at a time
_CURVE_STEP_ANGSTROM = 6.0


@dataclass(frozen=True)
class Bilayer:
    """The profile of a membrane across its thickness.

    Attributes:
        head_to_head_angstrom: distance of the two layers of head groups; fluid bilayers have 35-40 Å. It
            can be measured by cryo-EM (Heberle et al. 2020, PNAS 117, 19943).
        head_sigma_angstrom: width of a layer of head groups; the whole membrane is about 2.5 of it thicker.
        tails: density between the leaflets, relative to the head groups.
        level: density of the head groups; protein is 1.
    """

    head_to_head_angstrom: float = 37.0
    head_sigma_angstrom: float = 4.5
    tails: float = 0.15
    level: float = 0.9

    @property
    def reach_angstrom(self) -> float:
        """Distance from the mid-surface at which the density has vanished."""
        return self.head_to_head_angstrom / 2 + 4 * self.head_sigma_angstrom

    def profile(self, distance_angstrom: Array, voxel_size_angstrom: float) -> Array:
        """Density at distances from the mid-surface, averaged over voxels (which widens a layer by v²/12)."""
        sigma2 = self.head_sigma_angstrom**2 + voxel_size_angstrom**2 / 12
        height = self.head_sigma_angstrom / math.sqrt(sigma2)
        half = self.head_to_head_angstrom / 2
        heads = height * np.exp(-((np.abs(distance_angstrom) - half) ** 2) / (2 * sigma2))
        tails = self.tails / (1 + np.exp(np.clip((np.abs(distance_angstrom) - half) / 2.0, -30, 30)))
        return np.asarray(self.level * (heads + tails))


class Surface(Protocol):
    """What a membrane is drawn on."""

    def distance(self, points: Array) -> Array:
        """Signed distance in Å of points ``(..., 3)``, exact to first order near the surface; positive outside."""
        ...

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Points on the surface and outward unit normals, ``(count, 3)`` each."""
        ...


@dataclass(frozen=True)
class Vesicle:
    """A closed membrane: an ellipsoid deformed by zonal harmonics of low order.

    Its radius along the unit vector u is ``(u' D u)^(-1/2) * (1 + sum_k c_k P_l(u . d_k))`` with l = 2 or 3.

    Attributes:
        centre: Å.
        inverse_squares: the matrix D, ``(3, 3)``, 1/Å².
        axes: unit vectors d_k, ``(k, 3)``.
        orders: l of each.
        amplitudes: c_k.
    """

    centre: Array
    inverse_squares: Array
    axes: Array
    orders: tuple[int, ...]
    amplitudes: tuple[float, ...]

    def radius_and_slope(self, units: Array) -> tuple[Array, Array]:
        """Radius along unit vectors ``(..., 3)`` and its gradient with respect to them."""
        turned = units @ self.inverse_squares
        ellipsoid = 1 / np.sqrt(np.maximum(np.einsum("...i,...i->...", turned, units), 1e-30))
        cosines = units @ self.axes.T
        squares = cosines * cosines
        quadratic = np.array(self.orders) == 2
        values = np.where(quadratic, (3 * squares - 1) / 2, (5 * squares - 3) * cosines / 2)
        changes = np.where(quadratic, 3 * cosines, (15 * squares - 3) / 2)
        amplitudes = np.array(self.amplitudes)
        bulge = 1 + values @ amplitudes
        slope = (changes * amplitudes) @ self.axes
        slope = slope * ellipsoid[..., None] - (ellipsoid * ellipsoid * ellipsoid * bulge)[..., None] * turned
        return ellipsoid * bulge, slope

    def distance(self, points: Array) -> Array:
        """See Surface."""
        return self._distance_and_gradient(points)[0]

    def _distance_and_gradient(self, points: Array) -> tuple[Array, Array]:
        offset = points - self.centre
        r = np.linalg.norm(offset, axis=-1) + 1e-6
        units = offset / r[..., None]
        radius, slope = self.radius_and_slope(units)
        along = np.einsum("...i,...i->...", slope, units)
        gradient = units - (slope - along[..., None] * units) / r[..., None]
        steepness = np.linalg.norm(gradient, axis=-1)
        # Far inside, the direction changes quickly and the gradient says nothing.
        steepness = np.where(r < 0.4 * radius, 1.0, steepness)
        return (r - radius) / steepness, gradient / np.maximum(np.linalg.norm(gradient, axis=-1), 1e-9)[..., None]

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """See Surface; even over the surface up to the deformation."""
        units = rng.normal(size=(4 * count, 3))
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        radius = self.radius_and_slope(units)[0]
        kept = np.argsort(rng.random(4 * count) / radius**2)[:count]
        points = self.centre + units[kept] * radius[kept, None]
        return points, self._distance_and_gradient(points)[1]


@dataclass(frozen=True)
class Tube:
    """A bent tube with open ends.

    Attributes:
        curve: points of its axis, ``(n, 3)``, a few Å apart.
        radius_angstrom: distance of the mid-surface from the axis.
    """

    curve: Array
    radius_angstrom: float

    def distance(self, points: Array) -> Array:
        """See Surface."""
        flat = points.reshape(-1, 3)
        away, nearest = cKDTree(self.curve).query(flat)
        # Beyond its ends a tube is no surface: points nearest to the last point of the axis are called far outside.
        away = np.where((nearest == 0) | (nearest == len(self.curve) - 1), away + 1e4, away)
        return (away - self.radius_angstrom).reshape(points.shape[:-1])

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """See Surface."""
        index = rng.integers(1, len(self.curve) - 1, size=count)
        tangent = self.curve[index + 1] - self.curve[index - 1]
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        normal = np.cross(tangent, rng.normal(size=(count, 3)))
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        return self.curve[index] + self.radius_angstrom * normal, normal


@dataclass(frozen=True)
class Sheet:
    """A bent sheet: a height of a few long waves over a plane, reaching through the whole grid.

    Attributes:
        centre: a point of the plane, Å.
        frame: ``(3, 3)``: two unit vectors in the plane, then its normal.
        waves: wave vectors in the plane, ``(k, 2)``, 1/Å (angular).
        amplitudes: Å.
        phases: radians.
        extent_angstrom: half-width of the part from which points are drawn.
    """

    centre: Array
    frame: Array
    waves: Array
    amplitudes: Array
    phases: Array
    extent_angstrom: float

    def _height(self, plane: Array) -> tuple[Array, Array]:
        angle = plane @ self.waves.T + self.phases
        return np.sin(angle) @ self.amplitudes, (np.cos(angle) * self.amplitudes) @ self.waves

    def distance(self, points: Array) -> Array:
        """See Surface; "outside" is the side of the normal."""
        local = (points - self.centre) @ self.frame.T
        height, slope = self._height(local[..., :2])
        return np.asarray((local[..., 2] - height) / np.sqrt(1 + (slope**2).sum(axis=-1)))

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """See Surface."""
        plane = rng.uniform(-self.extent_angstrom, self.extent_angstrom, size=(count, 2))
        height, slope = self._height(plane)
        local = np.column_stack([-slope, np.ones(count)])
        local /= np.linalg.norm(local, axis=1, keepdims=True)
        return self.centre + np.column_stack([plane, height]) @ self.frame, local @ self.frame


@dataclass(frozen=True)
class Inner:
    """A membrane at an even distance inside another one.

    Attributes:
        outer: the membrane around it.
        gap_angstrom: distance between the two mid-surfaces.
    """

    outer: Surface
    gap_angstrom: float

    def distance(self, points: Array) -> Array:
        """See Surface."""
        return self.outer.distance(points) + self.gap_angstrom

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """See Surface."""
        points, normals = self.outer.sample(count, rng)
        return points - self.gap_angstrom * normals, normals


def draw_vesicle(centre: Array, radius_angstrom: float, rng: np.random.Generator, deformation: float = 0.15) -> Vesicle:
    """A vesicle of about a mean radius.

    Args:
        centre: ``(z, y, x)`` in Å.
        radius_angstrom: mean semi-axis.
        rng: source of randomness.
        deformation: relative size of the departures from a sphere.
    """
    semi = radius_angstrom * (1 + deformation * rng.uniform(-1, 1, size=3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    axes = rng.normal(size=(4, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    amplitudes = tuple((0.35 * deformation * rng.uniform(-1, 1, size=4)).tolist())
    middle = np.asarray(centre, dtype=np.float64)
    return Vesicle(middle, turn @ np.diag(semi**-2.0) @ turn.T, axes, (2, 2, 3, 3), amplitudes)


def draw_tube(start: Array, length_angstrom: float, radius_angstrom: float, rng: np.random.Generator) -> Tube:
    """A tube that bends over several of its radii, through a point in its middle.

    Args:
        start: its middle, ``(z, y, x)`` in Å.
        length_angstrom: length of its axis.
        radius_angstrom: radius of its mid-surface.
        rng: source of randomness.
    """
    steps = max(8, int(length_angstrom / _CURVE_STEP_ANGSTROM))
    along = np.linspace(-0.5, 0.5, steps)[:, None] * length_angstrom
    frame = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    curve = along * frame[0]
    for direction in frame[1:]:
        for k in (1, 2):
            wave = length_angstrom / k
            # Curvature (2 pi / wave)² * amplitude stays below 1 / (4 radii): the tube does not cut itself.
            largest = min(0.12 * wave, wave**2 / (4 * math.pi**2 * 4 * radius_angstrom) / 2)
            amplitude = largest * rng.uniform(-1, 1)
            curve = curve + amplitude * np.sin(2 * math.pi * along / wave + rng.uniform(0, 2 * math.pi)) * direction
    return Tube(np.asarray(start) + curve - curve[steps // 2], radius_angstrom)


def draw_sheet(centre: Array, extent_angstrom: float, rng: np.random.Generator, upright: float = 0.7) -> Sheet:
    """A bent sheet through a point.

    Args:
        centre: ``(z, y, x)`` in Å.
        extent_angstrom: half-width of the region of interest; its waves are about as long.
        rng: source of randomness.
        upright: 1 for sheets that stand along z, 0 for any direction.
    """
    normal = rng.normal(size=3) * np.array([1 - upright, 1, 1])
    normal /= np.linalg.norm(normal)
    first = np.cross(normal, rng.normal(size=3))
    first /= np.linalg.norm(first)
    frame = np.stack([first, np.cross(normal, first), normal])
    direction = rng.uniform(0, 2 * math.pi, size=3)
    length = extent_angstrom * rng.uniform(0.8, 2.5, size=3)
    waves = np.column_stack([np.cos(direction), np.sin(direction)]) * (2 * math.pi / length)[:, None]
    amplitudes = length * rng.uniform(0.0, 0.05, size=3)
    return Sheet(
        np.asarray(centre, dtype=np.float64), frame, waves, amplitudes, rng.uniform(0, 6.28, size=3), extent_angstrom
    )


def draw_organelle(centre: Array, radius_angstrom: float, rng: np.random.Generator) -> tuple[Surface, ...]:
    """Membrane within membrane: two parallel membranes, sometimes more, and smaller vesicles inside.

    Args:
        centre: ``(z, y, x)`` in Å.
        radius_angstrom: mean radius of the outermost membrane.
        rng: source of randomness.
    """
    outer = draw_vesicle(centre, radius_angstrom, rng, 0.12)
    surfaces: list[Surface] = [outer]
    depth = 0.0
    # Spaces between membranes are 10-30 nm wide (mitochondria, nuclear envelopes, multilamellar vesicles).
    for _ in range(int(rng.integers(1, 3))):
        deeper = depth + rng.uniform(110.0, 260.0)
        if deeper > 0.45 * radius_angstrom:
            break
        depth = deeper
        surfaces.append(Inner(outer, depth))
    room = 0.75 * (radius_angstrom - depth)
    small: list[tuple[Array, float]] = []
    for _ in range(int(rng.integers(0, 4))):
        radius = rng.uniform(0.2, 0.4) * room
        direction = rng.normal(size=3)
        place = np.asarray(centre) + direction / np.linalg.norm(direction) * rng.uniform(0, room - 1.25 * radius)
        if radius > 110 and all(np.linalg.norm(place - p) > 1.25 * (radius + r) + 60 for p, r in small):
            small.append((place, radius))
            surfaces.append(draw_vesicle(place, radius, rng, 0.1))
    return tuple(surfaces)


def voxels_near(
    surface: Surface, shape: tuple[int, int, int], voxel_size_angstrom: float, reach_angstrom: float
) -> tuple[NDArray[np.int64], Array]:
    """Voxels of a grid within a reach of a surface: flat indices, ascending, and signed distances in Å.

    The grid is searched in blocks first, so that the cost follows the surface and not the grid.
    """
    coarse, fine = _BLOCKS
    counts = tuple(-(-n // coarse) for n in shape)
    grids = np.meshgrid(*(np.arange(n) * coarse for n in counts), indexing="ij")
    corners = _near_blocks(
        surface, np.stack(grids, axis=-1).reshape(-1, 3), coarse, voxel_size_angstrom, reach_angstrom
    )
    corners = (corners[:, None] + _cube(coarse, fine)).reshape(-1, 3)
    corners = _near_blocks(surface, corners, fine, voxel_size_angstrom, reach_angstrom)
    flat, distances = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for part in _parts(corners, _CHUNK // fine**3):
        voxels = (part[:, None] + _cube(fine, 1)).reshape(-1, 3)
        voxels = voxels[(voxels < np.array(shape)).all(axis=1)]
        distance = surface.distance(_middles(voxels, voxel_size_angstrom))
        near = np.abs(distance) < reach_angstrom
        flat.append(np.ravel_multi_index(tuple(voxels[near].T), shape))
        distances.append(distance[near])
    index, distance = np.concatenate(flat), np.concatenate(distances)
    order = np.argsort(index, kind="stable")
    return index[order], distance[order]


def _cube(edge: int, step: int) -> NDArray[np.int64]:
    """Corners of blocks of ``step`` voxels in a block of ``edge``, ``(n, 3)``."""
    axis = np.arange(0, edge, step)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


def _near_blocks(
    surface: Surface, corners: NDArray[np.int64], edge: int, voxel_size_angstrom: float, reach_angstrom: float
) -> NDArray[np.int64]:
    """The blocks of voxels that a surface may come near to.

    A first-order distance can be off far from the surface: blocks are kept generously.
    """
    away = reach_angstrom + 1.25 * math.sqrt(3) / 2 * edge * voxel_size_angstrom
    kept = [corners[:0]]
    for part in _parts(corners, _CHUNK):
        distance = surface.distance(_middles(part + (edge - 1) / 2, voxel_size_angstrom))
        kept.append(part[np.abs(distance) < away])
    return np.concatenate(kept)


def _middles(voxels: NDArray[Any], voxel_size_angstrom: float) -> Array:
    return np.asarray(voxels * voxel_size_angstrom, dtype=np.float64)


def _parts(array: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [array[i : i + size] for i in range(0, len(array), size)]


def add_membrane(
    density: NDArray[np.float32], voxel_size_angstrom: float, surface: Surface, bilayer: Bilayer
) -> NDArray[np.int64]:
    """Draw a membrane into a density ``(z, y, x)``, which must be contiguous.

    Returns:
        flat indices of the voxels of the membrane: those within its head groups.
    """
    shape = (density.shape[0], density.shape[1], density.shape[2])
    index, distance = voxels_near(surface, shape, voxel_size_angstrom, bilayer.reach_angstrom + voxel_size_angstrom / 2)
    values = bilayer.profile(distance, voxel_size_angstrom).astype(np.float32)
    flat = density.reshape(-1)
    flat[index] = np.maximum(flat[index], values)
    half = bilayer.head_to_head_angstrom / 2 + 1.25 * bilayer.head_sigma_angstrom
    return index[np.abs(distance) < max(half, voxel_size_angstrom / 2)]
