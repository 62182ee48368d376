"""Membranes of every kind for training: flat to 10 nm of radius, along every axis, in stacks, whole and broken.

Profiles are drawn anew for each membrane. Heads are 30-50 Å apart: 30 Å in bilayers of 12 carbons a chain, 35-38 Å in
fluid phosphatidylcholine and 45 Å and more in gels and with long or ordered chains (Nagle & Tristram-Nagle 2000,
Biochim. Biophys. Acta 1469, 159; Kučerka et al. 2011, Biochim. Biophys. Acta 1808, 2761; in cryo-EM images: Heberle et
al. 2020, PNAS 117, 19943). The chains are less dense than water (0.28-0.30 against 0.334 electrons/Å³, heads 0.42-0.47,
protein 0.43), so between leaflets a bilayer lies somewhat below solvent, if proteins do not fill it.

Stacks: grana have membranes 4 nm thick, 3.2-3.6 nm apart on the stroma's side and about 4.7 nm on the lumen's (Daum et
al. 2010, Plant Cell 22, 1299); sheets of the endoplasmic reticulum are 30-50 nm wide (Shibata et al. 2010, Cell 143,
774), the two membranes of a nucleus and those of cristae 10-50 nm apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cryolithe.simulation.canvas import MEMBRANE, Canvas
from cryolithe.simulation.classes import MEMBRANES, Structure, membrane_classes
from cryolithe.simulation.membranes import (
    Array,
    Bilayer,
    Inner,
    Sheet,
    Surface,
    draw_organelle,
    draw_tube,
    draw_vesicle,
    voxels_near,
)

HEAD_TO_HEAD_ANGSTROM = (30.0, 50.0)
HEAD_SIGMA_ANGSTROM = (3.5, 6.5)
TAILS = (-0.4, 0.2)
LEVEL = (0.5, 1.2)
SMALLEST_RADIUS_ANGSTROM, LARGEST_RADIUS_ANGSTROM = 100.0, 1000.0
SHAPES = {"sheet": 0.3, "stack": 0.2, "vesicle": 0.3, "tube": 0.12, "organelle": 0.08}
_CLEAR_ANGSTROM = 85.0  # between mid-surfaces of membranes that do not belong together
_EDGE_ANGSTROM = 8.0  # over which a membrane ends
_TRIES = 8


@dataclass(frozen=True)
class Ball:
    """A ball in which a membrane has a hole, or outside of which it is missing.

    Attributes:
        centre: ``(z, y, x)``, Å.
        radius_angstrom: its radius.
        kept: whether the membrane is what lies inside.
    """

    centre: Array
    radius_angstrom: float
    kept: bool = False

    def weight(self, points: Array) -> Array:
        """How much of the membrane is left at points ``(n, 3)``, 0 to 1."""
        outside = np.linalg.norm(points - self.centre, axis=1) - self.radius_angstrom
        return _soft(-outside if self.kept else outside)


@dataclass(frozen=True)
class Membranes:
    """Membranes that belong together.

    Attributes:
        surfaces: they do not cross.
        bilayer: their profile.
        balls: where they are broken.
        closed: whether they may not be cut where they would meet others.
    """

    surfaces: tuple[Surface, ...]
    bilayer: Bilayer
    balls: tuple[Ball, ...]
    closed: bool


def draw_bilayer(rng: np.random.Generator) -> Bilayer:
    """A profile, see above."""
    ranges = (HEAD_TO_HEAD_ANGSTROM, HEAD_SIGMA_ANGSTROM, TAILS, LEVEL)
    return Bilayer(*(float(rng.uniform(*pair)) for pair in ranges))


def draw_normal(rng: np.random.Generator) -> Array:
    """A direction near z, y or x (within 15 degrees) or oblique, equally often."""
    axis = int(rng.integers(4))
    if axis < 3:
        return _unit(np.eye(3)[axis] + math.tan(math.radians(15.0)) * rng.uniform(0, 1) * _unit(rng.normal(size=3)))
    while True:
        normal = _unit(rng.normal(size=3))
        if membrane_classes(normal[None])[0] == Structure.MEMBRANE_OBLIQUE:
            return normal


def flat_sheet(centre: Array, normal: Array, extent_angstrom: float, rng: np.random.Generator) -> Sheet:
    """A sheet about a plane of some normal, flat or with long waves.

    Args:
        centre: a point of the plane, Å.
        normal: of the plane, a unit vector.
        extent_angstrom: half-width of the region of interest.
        rng: source of randomness.
    """
    first = _unit(np.cross(normal, rng.normal(size=3)))
    frame = np.stack([first, np.cross(normal, first), normal])
    direction, length = rng.uniform(0, 2 * math.pi, size=2), extent_angstrom * rng.uniform(0.8, 3.0, size=2)
    waves = np.column_stack([np.cos(direction), np.sin(direction)]) * (2 * math.pi / length)[:, None]
    amplitudes = length * (0.0 if rng.random() < 0.4 else 0.04) * rng.uniform(0, 1, size=2)
    return Sheet(np.asarray(centre), frame, waves, amplitudes, rng.uniform(0, 6.28, size=2), extent_angstrom)


def draw_membranes(build: Canvas, shapes: tuple[str, ...] = ()) -> Membranes:
    """Membranes of one thing, somewhere in the grid or cut by its faces; of any kind or of some, see ``SHAPES``."""
    rng, bilayer = build.rng, draw_bilayer(build.rng)
    edges = np.array(build.shape) * build.voxel
    centre = rng.uniform(-0.1, 1.1, size=3) * edges
    weights = np.array([SHAPES[shape] for shape in shapes or SHAPES])
    kind = rng.choice(shapes or tuple(SHAPES), p=weights / weights.sum())
    if kind in ("sheet", "stack"):
        sheet = flat_sheet(np.clip(centre, 0, edges), draw_normal(rng), 0.5 * float(edges.max()), rng)
        gaps = (0.0, *_gaps(bilayer, rng)) if kind == "stack" else (0.0,)
        surfaces: tuple[Surface, ...] = tuple(
            replace(sheet, centre=sheet.centre + depth * sheet.frame[2]) for depth in np.cumsum(gaps)
        )
    elif kind == "vesicle":
        # Even in curvature, so that small ones are as frequent as large ones.
        radius = 1 / rng.uniform(1 / LARGEST_RADIUS_ANGSTROM, 1 / SMALLEST_RADIUS_ANGSTROM)
        outer = draw_vesicle(centre, radius, rng, rng.uniform(0, 0.15))
        gap = _least_gap(bilayer) + rng.uniform(0, 150)
        surfaces = (outer, Inner(outer, gap)) if rng.random() < 0.3 and gap < 0.5 * radius else (outer,)
    elif kind == "tube":
        radius = rng.uniform(SMALLEST_RADIUS_ANGSTROM, 3 * SMALLEST_RADIUS_ANGSTROM)
        # Long enough for its ends to lie outside: what ends inside is cut by a ball.
        surfaces = (draw_tube(centre, 2.5 * float(edges.max()), radius, rng),)
    else:
        surfaces = draw_organelle(centre, rng.uniform(350, 900), rng)
    return Membranes(surfaces, bilayer, _balls(surfaces[0], edges, rng), kind in ("vesicle", "organelle"))


def add_membranes(build: Canvas, before: list[Surface], shapes: tuple[str, ...] = ()) -> list[Surface]:
    """Draw membranes of one thing that meet none of those before; none if there is no room. Their surfaces.

    Closed ones are tried elsewhere where they would cross another one, open ones end before it.
    """
    high = np.array(build.shape) * build.voxel
    for _ in range(_TRIES):
        drawn = draw_membranes(build, shapes)
        points, _ = drawn.surfaces[0].sample(200, build.rng)
        points = points[((points > -_CLEAR_ANGSTROM) & (points < high + _CLEAR_ANGSTROM)).all(axis=1)]
        meets = [bool((np.abs(other.distance(points)) < _CLEAR_ANGSTROM).any()) for other in before]
        if len(points) and not (drawn.closed and any(meets)):
            others = [] if drawn.closed else before
            return [s for s in drawn.surfaces if _draw(build, s, drawn, others)]
    return []


def _draw(build: Canvas, surface: Surface, drawn: Membranes, others: list[Surface]) -> bool:
    """Draw one membrane and label it; whether any of it lies in the grid."""
    bilayer, voxel = drawn.bilayer, build.voxel
    index, distance = voxels_near(surface, build.shape, voxel, bilayer.reach_angstrom + voxel / 2)
    points: Array = np.stack(np.unravel_index(index, build.shape), axis=1).astype(np.float64) * voxel
    weight = np.ones(len(index))
    for ball in drawn.balls:
        weight *= ball.weight(points)
    for other in others:
        weight *= _soft(np.abs(other.distance(points)) - _CLEAR_ANGSTROM)
    flat = build.density.reshape(-1)
    flat[index] += (weight * bilayer.profile(distance, voxel)).astype(np.float32)
    half = max(bilayer.head_to_head_angstrom / 2 + 1.25 * bilayer.head_sigma_angstrom, voxel / 2)
    body = (np.abs(distance) < half) & (weight > 0.5)
    kinds = membrane_classes(_normals(surface, points[body], distance[body]))
    for kind in MEMBRANES:
        if (kinds == kind).any():
            build.mark(index[body][kinds == kind], kind.name, MEMBRANE)
    return bool(body.any())


def _normals(surface: Surface, points: Array, distance: Array) -> Array:
    """Gradients of the distance at points ``(n, 3)``."""
    moved = (surface.distance(points + step) - distance for step in 2.0 * np.eye(3))
    return np.stack(list(moved), axis=1)


def _balls(surface: Surface, edges: Array, rng: np.random.Generator) -> tuple[Ball, ...]:
    """Nothing, holes, or an open edge."""
    fate = rng.random()
    if fate < 0.65:
        return ()
    if fate < 0.82:
        points, _ = surface.sample(int(rng.integers(1, 8)), rng)
        return tuple(Ball(point, float(rng.uniform(50, 400))) for point in points)
    # An edge is a part of a large ball's surface through a point of the membrane.
    points, _ = surface.sample(40, rng)
    inside = points[((points > 0) & (points < edges)).all(axis=1)]
    point = inside[0] if len(inside) else points[0]
    radius = float(edges.max()) * rng.uniform(0.4, 3.0)
    return (Ball(point + radius * _unit(rng.normal(size=3)), radius, bool(rng.random() < 0.5)),)


def _least_gap(bilayer: Bilayer) -> float:
    """Distance of mid-surfaces of two membranes with 2 nm of solvent between them."""
    return bilayer.head_to_head_angstrom + 2.5 * bilayer.head_sigma_angstrom + 20.0


def _gaps(bilayer: Bilayer, rng: np.random.Generator) -> list[float]:
    """Distances of the mid-surfaces of a stack: thylakoids, cristae and pairs of two widths."""
    least = _least_gap(bilayer)
    kind = rng.choice(("grana", "cristae", "narrow", "wide"), p=(0.3, 0.2, 0.25, 0.25))
    if kind == "narrow":
        return [least + rng.uniform(0, 120)]
    if kind == "wide":
        return [rng.uniform(200, 500)]
    if kind == "grana":
        pair = (least, least + rng.uniform(10, 60))
        return [pair[number % 2] for number in range(int(rng.integers(2, 8)))]
    pair = (least + rng.uniform(0, 100), rng.uniform(150, 500))
    return [pair[number % 2] for number in range(int(rng.integers(2, 6)))]


def _soft(away_angstrom: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(away_angstrom / (0.25 * _EDGE_ANGSTROM), -30, 30))))


def _unit(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector))
