"""Matter that fills much of a field: lattices, stacks of many layers, foils, dense matter with pores, sponges.

Crowded molecules and single membranes do not teach a network what repeats or what is light in the dense. Cells of
two- and three-dimensional crystals are 3 to 25 nm wide: S-layers 3-35 nm (Sleytr et al. 2014, FEMS Microbiol. Rev. 38,
823), crystals of proteins in vivo 4-15 nm (Schönherr, Rudolph & Redecke 2018, Biol. Chem. 399, 751). Layers repeat
every 6.5 nm in lamellar bodies (Schmitz & Müller 1991, J. Lipid Res. 32, 1539), 15-18 nm in myelin (in pairs) and grana
(Daum et al. 2010, Plant Cell 22, 1299). Carbon is 1.8 times as dense above ice as protein (`solids`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryolithe.simulation.bilayers import draw_bilayer, draw_normal
from cryolithe.simulation.canvas import MEMBRANE, TAKEN, Canvas
from cryolithe.simulation.classes import MEMBRANES, Structure, membrane_classes
from cryolithe.simulation.membranes import Array

Field = NDArray[np.float32]
CELL_ANGSTROM = (35.0, 250.0)
PERIOD_ANGSTROM = (55.0, 220.0)
_CELL_POINTS = 24  # along each edge of a unit cell
_SUBUNITS = (1, 6)  # of a unit cell
_FINEST_PX = 2.5  # a shorter period no image shows


def add_matter(build: Canvas, kind: str) -> None:
    """Put matter of a kind into a part of the field: a half-space, a slab, a body, or all of it.

    Args:
        build: changed.
        kind: a name in ``KINDS``.
    """
    KINDS[kind](build)


def _lattice(build: Canvas) -> None:
    """A crystal in three dimensions, one layer of it, or such a layer rolled up to a tube."""
    rng, voxel = build.rng, build.voxel
    cell = np.maximum(_even_in_log(rng, CELL_ANGSTROM, 3), _FINEST_PX * voxel)
    if rng.random() < 0.3:
        cell[:] = cell[0]
    shear = np.eye(3) + np.triu(rng.uniform(-0.3, 0.3, size=(3, 3)) * (rng.random() < 0.5), 1)
    places = _places(build, _middle(build), Rotation.from_quat(rng.normal(size=4)).as_matrix())
    form = rng.choice(("crystal", "layer", "tube"), p=(0.6, 0.2, 0.2))
    weight = _region(build)
    if form == "tube":
        around = max(4, round(2 * math.pi * rng.uniform(80.0, 300.0) / cell[0]))
        radius = around * cell[0] / (2 * math.pi)
        angle, out = np.arctan2(places[1], places[2]), np.hypot(places[1], places[2]) - np.float32(radius)
        places = [angle * np.float32(radius), places[0], out]
        shear[0, 1:] = (rng.integers(0, 4) * cell[0] / cell[1], 0.0)
        shear[1, 2] = 0.0
        weight = np.ones(build.shape, dtype=np.float32)
    # Rows are the cell's edges in the frame of the places; fractions solve places = fractions @ edges.
    to_fractions = np.linalg.inv(cell[:, None] * shear).astype(np.float32)
    fractions = [sum(p * k for p, k in zip(places, column, strict=True)) for column in to_fractions.T]
    if form != "crystal":
        weight = weight * _soft((0.5 - np.abs(fractions[2])) * np.float32(cell[2]), voxel)
        fractions[2] = fractions[2] + np.float32(0.5)
    density = _unit_cell(cell, voxel, rng)
    points = [np.broadcast_to(f, build.shape) * np.float32(_CELL_POINTS) for f in fractions]
    drawn = scipy.ndimage.map_coordinates(density, points, order=1, mode="grid-wrap", output=np.float32)
    _add(build, rng.uniform(0.4, 1.4) * weight * drawn, weight > 0.5, Structure.CRYSTAL)


def _unit_cell(cell: Array, voxel: float, rng: np.random.Generator) -> Field:
    """A periodic density between 0 and 1, as fine as voxels can show: a few balls, or holes in what is full."""
    grid = np.stack(np.meshgrid(*[np.arange(_CELL_POINTS) / _CELL_POINTS] * 3, indexing="ij"), axis=-1)
    density = np.zeros(grid.shape[:3])
    for _ in range(int(rng.integers(_SUBUNITS[0], _SUBUNITS[1] + 1))):
        away = (grid - rng.random(3) + 0.5) % 1.0 - 0.5
        size = rng.uniform(0.1, 0.25) * float(cell.min())
        density += rng.uniform(0.5, 1.0) * np.exp(-(((away * cell) ** 2).sum(axis=-1)) / (2 * size**2))
    density = np.minimum(density, rng.uniform(0.6, 1.0))
    density = scipy.ndimage.gaussian_filter(density, 0.4 * voxel / cell * _CELL_POINTS, mode="wrap")
    density = (density - density.min()) / max(float(np.ptp(density)), 1e-6)
    return (1 - density if rng.random() < 0.2 else density).astype(np.float32)


def _layers(build: Canvas) -> None:
    """Bilayers that repeat: flat or wavy, around a line or around a point."""
    rng, voxel, bilayer = build.rng, build.voxel, draw_bilayer(build.rng)
    least = max(bilayer.head_to_head_angstrom + 2.5 * bilayer.head_sigma_angstrom + 15.0, _FINEST_PX * voxel)
    gaps = np.maximum(_even_in_log(rng, PERIOD_ANGSTROM, int(rng.integers(1, 3))), least)
    normal = draw_normal(rng)
    form = rng.choice(("flat", "line", "point"), p=(0.6, 0.2, 0.2))
    if form == "flat":
        frame = np.stack([normal, *_across(normal, rng)])
        along, first, second = _places(build, _middle(build), frame)
        depth = along + _waves(build, first, second)
    else:
        places = _places(build, _middle(build, 0.6), Rotation.from_quat(rng.normal(size=4)).as_matrix())
        depth = np.sqrt(sum(place**2 for place in places[: 2 if form == "line" else 3]))
    weight = _region(build)
    places_in_period = np.mod(depth, np.float32(gaps.sum()))
    nearest = np.full(build.shape, np.inf, dtype=np.float32)
    for start in (*np.cumsum(gaps), 0.0):
        away = places_in_period - np.float32(start)
        nearest = np.where(np.abs(away) < np.abs(nearest), away, nearest)
    body = (np.abs(nearest) < bilayer.head_to_head_angstrom / 2 + bilayer.head_sigma_angstrom) & (weight > 0.5)
    build.density += (weight * bilayer.profile(nearest.astype(np.float64), voxel)).astype(np.float32)
    build.kind[weight > 0.1] = TAKEN
    normals = np.stack([part[body] for part in np.gradient(depth)], axis=1)
    kinds, index = membrane_classes(normals), np.flatnonzero(body)
    for kind in MEMBRANES:
        if (kinds == kind).any():
            build.mark(index[kinds == kind], kind.name, MEMBRANE)


def _foil(build: Canvas) -> None:
    """A film with grain, which ends somewhere or has a hole."""
    rng, voxel = build.rng, build.voxel
    normal = draw_normal(rng) if rng.random() < 0.5 else np.array([1.0, 0.0, 0.0])
    frame = np.stack([normal, *_across(normal, rng)])
    along, first, second = _places(build, _middle(build), frame)
    half = rng.uniform(30.0, 200.0)
    weight = _soft(half - np.abs(along + 0.3 * _waves(build, first, second)), voxel)
    fate = rng.random()
    if fate < 0.8:
        size = float(max(build.shape)) * voxel
        centre = [rng.uniform(-0.7, 0.7) * size for _ in range(2)]
        radius = rng.uniform(0.2, 1.2) * size
        outside = np.hypot(first - np.float32(centre[0]), second - np.float32(centre[1])) - np.float32(radius)
        weight = weight * _soft(outside if fate < 0.5 else -outside, voxel)
    if not (weight > 0.5).any():
        return
    level = rng.uniform(0.6, 2.2) * (1 + rng.uniform(0.0, 0.3) * _grain(build))
    _add(build, weight * level, weight > 0.3, Structure.BODY)


def _pores(build: Canvas) -> None:
    """Dense matter with light balls, channels or clefts in it."""
    rng, voxel = build.rng, build.voxel
    weight = _region(build)
    open_part = np.zeros(build.shape, dtype=np.float32)
    radii, wanted = sorted(rng.uniform(40.0, 250.0, size=2)), rng.uniform(0.03, 0.5)
    stretched = rng.uniform(1.0, 6.0) if rng.random() < 0.4 else 1.0
    for _ in range(200):
        turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
        places = _places(build, _middle(build, 1.1), turn)
        radius = np.float32(rng.uniform(*radii))
        away = np.sqrt((places[0] / np.float32(stretched)) ** 2 + places[1] ** 2 + places[2] ** 2)
        open_part = np.maximum(open_part, _soft(radius - away, voxel))
        if open_part.mean() > wanted:
            break
    weight = weight * (1 - np.float32(rng.uniform(0.6, 1.0)) * open_part)
    level = rng.uniform(0.3, 1.2) * (1 + rng.uniform(0.0, 0.4) * _grain(build))
    _add(build, weight * level, (weight > 0.3) & (open_part < 0.5), Structure.BODY)


def _sponge(build: Canvas) -> None:
    """Rods, sheets or blobs of any size: where a random field with one grain is above a threshold."""
    rng, voxel = build.rng, build.voxel
    sizes = _even_in_log(rng, (1.2 * voxel, 10.0 * voxel), 3) / voxel
    if rng.random() < 0.5:
        sizes[:] = sizes[0]
    turn = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    waves = np.meshgrid(*(np.fft.fftfreq(n) for n in build.shape[:2]), np.fft.rfftfreq(build.shape[2]), indexing="ij")
    turned = [sum(w * k for w, k in zip(waves, row, strict=True)) * size for row, size in zip(turn, sizes, strict=True)]
    spectrum = np.fft.rfftn(rng.standard_normal(build.shape, dtype=np.float32))
    spectrum *= np.exp(-2 * math.pi**2 * sum(part**2 for part in turned))
    field = np.fft.irfftn(spectrum, build.shape, axes=(0, 1, 2)).astype(np.float32)
    field = (field - field.mean()) / (field.std() + 1e-6)
    weight = _region(build) / (1 + np.exp(-(field - rng.uniform(-0.5, 1.5)) / rng.uniform(0.05, 0.5)))
    _add(build, rng.uniform(0.3, 1.2) * weight, weight > 0.5, Structure.BODY)


KINDS: dict[str, Callable[[Canvas], None]] = {
    "lattice": _lattice,
    "layers": _layers,
    "foil": _foil,
    "pores": _pores,
    "sponge": _sponge,
}


def _add(build: Canvas, density: Field, body: NDArray[np.bool_], structure: Structure) -> None:
    build.density += density.astype(np.float32)
    build.mark_box((slice(0, build.shape[0]), slice(0, build.shape[1]), slice(0, build.shape[2])), body, structure.name)


def _region(build: Canvas) -> Field:
    """Where matter is, 0 to 1, with an edge of about a voxel."""
    rng, voxel = build.rng, build.voxel
    form = rng.choice(("all", "half", "slab", "body"), p=(0.15, 0.25, 0.25, 0.35))
    if form == "all":
        return np.ones(build.shape, dtype=np.float32)
    edges = np.array(build.shape) * voxel
    normal = draw_normal(rng)
    along, first, second = _places(build, _middle(build), np.stack([normal, *_across(normal, rng)]))
    if form == "half":
        return _soft(along + 0.3 * _waves(build, first, second), voxel)
    if form == "slab":
        half = rng.uniform(0.1, 0.5) * float(edges.min())
        return _soft(np.float32(half) - np.abs(along + 0.3 * _waves(build, first, second)), voxel)
    halves = rng.uniform(0.2, 0.45, size=3) * float(np.sqrt(edges.min() * edges.max()))
    if rng.random() < 0.5:  # a block
        inside = np.minimum(
            np.minimum(halves[0] - np.abs(along), halves[1] - np.abs(first)), halves[2] - np.abs(second)
        )
    else:
        scaled = np.sqrt((along / halves[0]) ** 2 + (first / halves[1]) ** 2 + (second / halves[2]) ** 2)
        inside = (1 - scaled) * float(halves.min())
    return _soft(inside, voxel)


def _places(build: Canvas, centre: Array, frame: Array) -> list[Field]:
    """Coordinates of all voxels along the rows of a frame, from a centre, Å."""
    grids = np.ogrid[tuple(slice(n) for n in build.shape)]
    away = [(g * build.voxel - c).astype(np.float32) for g, c in zip(grids, centre, strict=True)]
    return [sum(a * np.float32(k) for a, k in zip(away, row, strict=True)) for row in frame]


def _middle(build: Canvas, spread: float = 0.5) -> Array:
    """A point of the field, within a part of it about its middle, Å."""
    edges = np.array(build.shape) * build.voxel
    return edges * (0.5 + spread * build.rng.uniform(-0.5, 0.5, size=3))


def _across(normal: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Two unit vectors across a normal and each other."""
    first = np.cross(normal, rng.normal(size=3))
    first /= np.linalg.norm(first)
    return first, np.cross(normal, first)


def _waves(build: Canvas, first: Field, second: Field) -> Field:
    """How far a surface departs from a plane, Å; often not at all."""
    rng = build.rng
    if rng.random() < 0.4:
        return np.zeros((1, 1, 1), dtype=np.float32)
    length = float(max(build.shape)) * build.voxel * rng.uniform(0.4, 1.5)
    turn = rng.uniform(0, 2 * math.pi)
    wave = (2 * math.pi / length) * (math.cos(turn) * first + math.sin(turn) * second) + rng.uniform(0, 6.28)
    return (length * rng.uniform(0.0, 0.05) * np.sin(wave)).astype(np.float32)


def _grain(build: Canvas) -> Field:
    """A random field of standard deviation 1, smooth over one to three voxels."""
    field = build.rng.standard_normal(build.shape, dtype=np.float32)
    field = scipy.ndimage.gaussian_filter(field, build.rng.uniform(0.7, 3.0))
    return np.asarray(field / (field.std() + 1e-6))


def _soft(inside_angstrom: NDArray[np.floating], voxel: float) -> Field:
    """0 outside, 1 inside, over a voxel."""
    return np.clip(inside_angstrom / voxel + 0.5, 0, 1).astype(np.float32)


def _even_in_log(rng: np.random.Generator, span: tuple[float, float], number: int) -> Array:
    return np.exp(rng.uniform(math.log(span[0]), math.log(span[1]), size=number))
