"""Specimens of membranes, filaments, bodies and a few molecules: what crowded proteins alone do not teach.

A scene has a kind, which says how likely each class of structure is; nothing in it overlaps, except that proteins sit
in membranes. Membranes come first, then bodies, what is embedded, filaments and molecules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryolithe.simulation import filaments
from cryolithe.simulation.bilayers import add_membranes
from cryolithe.simulation.bodies import add_body, uneven_background
from cryolithe.simulation.canvas import INSIDE, MEMBRANE, TAKEN, Canvas, try_place
from cryolithe.simulation.classes import Structure, protein_class
from cryolithe.simulation.crowd import MEMBRANE_PREFIX, place_filament, towards
from cryolithe.simulation.matter import add_matter
from cryolithe.simulation.membranes import Array, Surface
from cryolithe.simulation.molecules import Molecule, resampled
from cryolithe.simulation.packing import Poses
from cryolithe.simulation.procedural import procedural_molecule, small_molecule

Pair = tuple[float, float]
_TRIES = 6  # places for a filament
_FREE = 0.85  # of the subunits of a filament: it may end at something, but not pass through it
_KINDS = 3  # of small and of large molecules in a scene, at most
_OTHERS = ("body", "crystal", "gold", "filament", "microtubule")
_MEMBRANE_ANGSTROM = 46.0  # thickness by which an area follows from a volume


@dataclass(frozen=True)
class Scene:
    """How a scene of some kind is drawn.

    Attributes:
        share: part of the scenes that are of this kind.
        membranes: number of things made of membranes, (least, most).
        other: chance of each class of structure that is neither membrane nor protein.
        small: part of the box that small proteins fill; likewise ``large``.
        large: see above.
        proteins: chance of each class of proteins.
        embedded: chance of proteins in the membranes.
        shapes: kinds of membranes, see `cryolithe.simulation.bilayers`; empty for all.
        others: what ``other`` is the chance of; a name may come more than once.
        matter: what may fill much of the field, one of these before everything else, see `cryolithe.simulation.matter`.
    """

    share: float
    membranes: tuple[int, int]
    other: float
    small: Pair
    large: Pair
    proteins: float
    embedded: float
    shapes: tuple[str, ...] = ()
    others: tuple[str, ...] = _OTHERS
    matter: tuple[str, ...] = ()


_BODIES = {
    "body": (("droplet", "granule", "solid"), 3),
    "crystal": (("ice crystal", "protein crystal"), 1),
    "gold": (("gold",), 3),
}
SCENES = {
    "membranes": Scene(0.13, (2, 6), 0.0, (0, 0), (0, 0), 0.0, 0.3),
    "membranes and few": Scene(0.15, (1, 5), 0.65, (0.001, 0.01), (0.002, 0.02), 0.85, 0.6),
    # Between membranes and large proteins thin filaments are the first to be lost, so some scenes have many of them.
    "filaments": Scene(0.2, (0, 1), 0.8, (0.001, 0.02), (0.002, 0.04), 0.7, 0.3, others=("filament",) * 3 + _OTHERS),
    "mixed": Scene(0.22, (1, 4), 0.9, (0.003, 0.03), (0.005, 0.06), 0.95, 0.6),
    "sparse": Scene(0.04, (0, 1), 0.6, (0.0003, 0.003), (0.0003, 0.004), 0.6, 0.3),
    "almost empty": Scene(0.01, (0, 0), 0.05, (0.0001, 0.0005), (0.0001, 0.0005), 0.5, 0.0),
    "lattices": Scene(0.08, (0, 0), 0.15, (0, 0.01), (0, 0.02), 0.3, 0.0, matter=("lattice",)),
    "layers": Scene(0.07, (0, 0), 0.15, (0, 0.01), (0, 0.02), 0.3, 0.0, matter=("layers",)),
    "matter": Scene(
        0.1, (0, 2), 0.2, (0, 0.02), (0, 0.04), 0.5, 0.2, matter=("foil", "foil", "pores", "pores", "sponge")
    ),
}


def draw_diverse(
    shape: tuple[int, int, int], voxel: float, library: tuple[Molecule, ...], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw a scene.

    Args:
        shape: voxels ``(z, y, x)``.
        voxel: edge of a voxel, Å.
        library: molecules to place beside procedural ones; those named ``mb_...`` only in membranes, z outwards.
        rng: source of all randomness.

    Returns:
        density, and labels (see `cryolithe.simulation.classes.Structure`).
    """
    kinds = list(SCENES)
    kind = kinds[rng.choice(len(kinds), p=[SCENES[kind].share for kind in kinds])]
    return draw_scene(SCENES[kind], shape, voxel, library, rng)


def draw_scene(
    scene: Scene, shape: tuple[int, int, int], voxel: float, library: tuple[Molecule, ...], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Draw a scene of a kind, see ``draw_diverse``. It is never empty: something is in it at least."""
    build = Canvas(shape, voxel, slice(0, shape[2]), np.full((shape[0], shape[2]), 1e6, dtype=np.float32), rng)
    if scene.matter:
        add_matter(build, str(rng.choice(scene.matter)))
    surfaces: list[Surface] = []
    for _ in range(int(rng.integers(scene.membranes[0], scene.membranes[1] + 1))):
        surfaces += add_membranes(build, surfaces, scene.shapes)
    _add_bodies(build, scene)
    if surfaces and rng.random() < scene.embedded:
        _embed(build, surfaces, library)
    _add_filaments(build, scene)
    free = tuple(m for m in library if not m.name.startswith(MEMBRANE_PREFIX))
    for kind, filled in ((Structure.LARGE_PROTEIN, scene.large), (Structure.SMALL_PROTEIN, scene.small)):
        if rng.random() < scene.proteins:
            _add_proteins(build, _molecules_of(kind, free, rng), rng.uniform(*filled), kind)
    if not build.kind.any():
        add_body(build, "granule")
    if rng.random() < 0.4:
        build.density += uneven_background(shape, voxel, rng.uniform(0.01, 0.1), rng)
    names = np.array([0, *(int(Structure[name]) for name in build.classes)], dtype=np.uint8)
    return build.density, names[build.labels]


def _add_bodies(build: Canvas, scene: Scene) -> None:
    rng = build.rng
    for name in scene.others:
        if name in _BODIES and rng.random() < scene.other:
            kinds, most = _BODIES[name]
            for _ in range(int(rng.integers(1, most + 1))):
                add_body(build, str(rng.choice(kinds)))


def _embed(build: Canvas, surfaces: list[Surface], library: tuple[Molecule, ...]) -> None:
    """Molecules whose z axis is the outward normal and whose middle lies in the membrane."""
    rng = build.rng
    known = [m for m in library if m.name.startswith(MEMBRANE_PREFIX)]
    kinds = [
        known[rng.integers(len(known))] if known and rng.random() < 0.6 else procedural_molecule(rng, "embedded")
        for _ in range(int(rng.integers(1, 3)))
    ]
    area = float((build.kind == MEMBRANE).sum()) * build.voxel**3 / _MEMBRANE_ANGSTROM
    wanted = min(60, int(rng.poisson(area * 1e-5 * rng.uniform(0.2, 3.0))))
    high = np.array(build.shape)
    for _ in range(3 * wanted):
        points, normals = surfaces[rng.integers(len(surfaces))].sample(1, rng)
        place = np.rint(points[0] / build.voxel).astype(np.int64)
        # A hole or the end of a membrane holds no protein.
        if (place < 0).any() or (place >= high).any() or build.kind[tuple(place)] != MEMBRANE:
            continue
        molecule = kinds[rng.integers(len(kinds))]
        rotation = towards(normals[0], rng.uniform(0, 2 * math.pi))
        box = resampled(molecule, rotation, build.voxel)
        posed = (protein_class(molecule).name, box, box > INSIDE, rotation)
        if _meets_others(build, box > INSIDE, place, points[0], normals[0]):
            continue
        wanted -= try_place(build, posed, place, TAKEN) > 0
        if wanted <= 0:
            return


def _meets_others(
    build: Canvas, body: NDArray[np.bool_], place: NDArray[np.int64], point: Array, normal: Array
) -> bool:
    """Whether a molecule reaches into a membrane other than the one it sits in: far along the normal."""
    half = body.shape[0] // 2
    low, high = np.maximum(place - half, 0), np.minimum(place + half + 1, build.shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    inner = tuple(slice(int(a - p + half), int(b - p + half)) for a, b, p in zip(low, high, place, strict=True))
    along = sum((g * build.voxel - c) * n for g, c, n in zip(np.ogrid[box], point, normal, strict=True))
    return bool(((build.kind[box] == MEMBRANE) & body[inner] & (np.abs(along) > 60.0)).any())


def _add_filaments(build: Canvas, scene: Scene) -> None:
    """Single filaments and bundles in any direction, thin ones and microtubules."""
    rng = build.rng
    for name in scene.others:
        if name not in _FILAMENTS or rng.random() >= scene.other:
            continue
        kinds, shares = _FILAMENTS[name]
        for _ in range(int(rng.integers(1, 4))):
            kind = str(rng.choice(kinds, p=shares))
            several = rng.random() < (0.4 if kind == "actin" else 0.15)
            for _ in range(_TRIES):
                placed = [place_filament(build, one, name.upper(), _FREE) for one in _bundle(build, kind, several)]
                if any(one is not None for one in placed):
                    break


_FILAMENTS = {
    "filament": (("actin", "intermediate filament", "thick filament", "nucleic acid"), (0.4, 0.2, 0.1, 0.3)),
    "microtubule": (("microtubule",), (1.0,)),
}
_BUILDERS: dict[str, tuple[Callable[[filaments.Curve, float], filaments.Filament], float]] = {
    "actin": (filaments.actin, 80.0),
    "intermediate filament": (filaments.intermediate, 110.0),
    "thick filament": (filaments.thick, 320.0),
    "microtubule": (filaments.microtubule, 260.0),
    "nucleic acid": (lambda curve, _: filaments.nucleic_acid(curve), 22.0),
}


def _bundle(build: Canvas, kind: str, several: bool) -> list[filaments.Filament]:
    """One filament, or some alike side by side."""
    rng = build.rng
    edges = np.array(build.shape) * build.voxel
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    length = float(min(rng.uniform(0.4, 2.0) * edges.max(), 4000.0))
    start = rng.uniform(0, 1, size=3) * edges - direction * length / 2
    curve = filaments.worm_like_curve(start, direction, length, filaments.PERSISTENCE_ANGSTROM[kind], rng)
    builder, width = _BUILDERS[kind]
    level = rng.uniform(0.6, 1.2)
    across = Rotation.align_vectors(direction[None], np.array([[1.0, 0.0, 0.0]]))[0].as_matrix()
    spacing = width + rng.uniform(5.0, 60.0)
    offsets = [(0.0, 0.0)]
    if several:
        number = int(rng.integers(2, 8)) if width < 200 else 2
        offsets = [(spacing * (a + 0.5 * b), spacing * b * math.sqrt(0.75)) for a, b in _HEXAGON[:number]]
    made = []
    for first, second in offsets:
        moved = replace(curve, points=curve.points + first * across[:, 1] + second * across[:, 2])
        filament = builder(moved, rng.uniform(0, 2 * math.pi))
        made.append(replace(filament, levels=level * filament.levels))
    return made


_HEXAGON = ((0, 0), (1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))


def _molecules_of(kind: Structure, library: tuple[Molecule, ...], rng: np.random.Generator) -> tuple[Molecule, ...]:
    """A few kinds of molecules of a class, from the library and procedural."""
    known = [m for m in library if protein_class(m) == kind]
    chosen: list[Molecule] = []
    wanted = int(rng.integers(1, _KINDS + 1))
    while len(chosen) < wanted:
        if known and rng.random() < 0.6:
            chosen.append(known[rng.integers(len(known))])
            continue
        drawn = (small_molecule if kind == Structure.SMALL_PROTEIN else procedural_molecule)(rng, "procedural")
        if protein_class(drawn) == kind:
            chosen.append(drawn)
    return tuple(chosen)


def _add_proteins(build: Canvas, molecules: tuple[Molecule, ...], wanted: float, kind: Structure) -> None:
    """Place molecules where there is room until they fill a part of the box or places become rare."""
    if not molecules:
        return
    rng = build.rng
    poses = Poses(molecules, build.voxel, rng)
    levels = [rng.uniform(0.3, 1.3) if rng.random() < 0.4 else rng.uniform(0.8, 1.2) for _ in molecules]
    missing, misses = wanted * build.density.size, 0
    while missing > 0 and misses < 100:
        which = int(rng.integers(len(molecules)))
        _, box, body, rotation = poses.draw(which)
        posed = (kind.name, box * np.float32(levels[which]), body, rotation)
        if not body.any():
            misses += 20  # a molecule thinner than a voxel
            continue
        for _ in range(10):
            filled = try_place(build, posed, rng.integers(0, build.shape), MEMBRANE)
            misses = 0 if filled else misses + 1
            missing -= filled
            if filled:
                break
