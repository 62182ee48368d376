"""Cells: molecules crowded among membranes, filaments and solids, in a slab that reaches beyond the field of view.

Densities are contrasts to amorphous ice, protein about 1, ``(z, y, x)``. The uniform ice of the slab itself, and the
vacuum outside, are 0: a slab of even thickness adds a constant to every image.

Order of things: membranes, carbon film, gold, proteins in membranes, filaments, molecules; then the slab is cut, the
faces of a lamella are damaged, and ice crystals are put on the surfaces. What is placed does not overlap what is there,
except that membrane proteins sit in membranes.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryolithe.errors import SettingsError
from cryolithe.simulation import filaments, membranes, solids
from cryolithe.simulation.molecules import Molecule, resampled

Array = NDArray[np.float64]
Pair = tuple[float, float]
Span = tuple[int, int]
MEMBRANE_PREFIX = "mb_"
_INSIDE = 0.15  # density above which a voxel belongs to a molecule
_FREE, _MEMBRANE, _TAKEN = 0, 1, 2
_BIN = 3  # voxels along the edge of a cell of the grid on which free places are looked for
_TRIES = 10  # places tried for a molecule in a round
_MOST_ROUNDS = 14
_ORIENTATIONS = 12  # drawn per molecule; the 24 turns of the cube make 288 of them
_MOST_VOXELS = 2**31


@dataclass(frozen=True)
class CellRecipe:
    """What a cell may contain; each pair is (least, most) of a uniform draw.

    Attributes:
        shape: voxels of the field of view, ``(z, y, x)``.
        voxel_size_angstrom: edge of a voxel.
        margin: part of the field's width by which the specimen goes on at either end of x.
        crowding: fraction of the free volume of the slab to fill with molecules.
        cluster_share: part of the molecules that come in clusters of one kind.
        cluster_size: molecules in a cluster.
        vesicles: number of vesicles per µm² of slab; likewise ``tubes``, ``organelles``, ``actin``,
            ``microtubules``, ``nucleic_acids``, ``gold`` and ``crystals``.
        tubes: number of membrane tubes.
        organelles: number of membranes within membranes.
        sheets: number of bent sheets through the slab, in all.
        vesicle_radius_nm: mean radius of vesicles; organelles are up to twice as large, tubes 10-30 nm.
        membrane_proteins: number per 1000 nm² of membrane.
        actin: number of actin filaments.
        microtubules: number of microtubules.
        nucleic_acids: number of bare chains.
        gold: number of gold fiducials.
        gold_diameter_nm: their size.
        carbon_chance: chance of a carbon film with a hole whose rim crosses the field (not in a lamella).
        crystals: number of ice crystals on the surfaces.
        lamella_chance: chance that the slab was cut by a focused ion beam: its faces cut through what is there and
            are damaged.
        thickness_nm: thickness of the slab; what does not fit the field's depth is cut by it.
        pretilt_deg: angle of a lamella about y.
        damage_nm: depth of the damaged layer at the faces of a lamella.

    Raises:
        SettingsError: if a range is empty or negative, or the shape or voxel size is impossible.
    """

    shape: tuple[int, int, int] = (128, 256, 256)
    voxel_size_angstrom: Pair = (8.0, 13.0)
    margin: float = 0.5
    crowding: Pair = (0.05, 0.25)
    cluster_share: float = 0.2
    cluster_size: Span = (3, 12)
    vesicles: Pair = (0.0, 60.0)
    tubes: Pair = (0.0, 25.0)
    organelles: Pair = (0.0, 8.0)
    sheets: Span = (0, 1)
    vesicle_radius_nm: Pair = (20.0, 80.0)
    membrane_proteins: Pair = (0.5, 3.0)
    actin: Pair = (0.0, 60.0)
    microtubules: Pair = (0.0, 10.0)
    nucleic_acids: Pair = (0.0, 40.0)
    gold: Pair = (0.0, 30.0)
    gold_diameter_nm: Pair = (5.0, 15.0)
    carbon_chance: float = 0.05
    crystals: Pair = (0.0, 3.0)
    lamella_chance: float = 0.5
    thickness_nm: Pair = (80.0, 300.0)
    pretilt_deg: Pair = (-6.0, 6.0)
    damage_nm: Pair = (5.0, 20.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 8:
            raise SettingsError(f"a field needs at least 8 voxels along z, y and x, got {self.shape}")
        if math.prod(self.shape) * (1 + 2 * max(self.margin, 0)) > _MOST_VOXELS:
            raise SettingsError(f"a field of {self.shape} voxels with its margins is too large; at most 2^31 voxels")
        for name, value in vars(self).items():
            if isinstance(value, tuple) and len(value) == 2:
                low, high = value
                if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                    raise SettingsError(f"{name} must be (least, most), got {value}")
                if low < 0 and name != "pretilt_deg":
                    raise SettingsError(f"{name} must not be negative, got {value}")
        if self.voxel_size_angstrom[0] <= 0 or self.thickness_nm[0] <= 0:
            raise SettingsError("the voxel size and the thickness must be above 0")
        if self.crowding[1] > 1 or not 0 <= self.margin <= 4 or max(map(abs, self.pretilt_deg)) > 45:
            raise SettingsError("crowding goes up to 1, margin from 0 to 4, and pretilt_deg to 45")
        for name in ("cluster_share", "carbon_chance", "lamella_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is a share from 0 to 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Placement:
    """A molecule or body in the field of view.

    Attributes:
        name: its class.
        label: its number in the label mask.
        position_px: ``(z, y, x)`` of its centre in voxels of the field.
        rotation: ``(3, 3)``, from the reference to the specimen, acting on ``(z, y, x)``.
        euler_deg: the same as RELION's rot, tilt and psi.
    """

    name: str
    label: int
    position_px: tuple[float, float, float]
    rotation: Array
    euler_deg: tuple[float, float, float]


@dataclass(frozen=True)
class Cell:
    """A specimen.

    Attributes:
        density: ``(z, y, x)`` float32; x goes beyond the field of view at both ends.
        field: the part of x that is the field of view.
        labels: ``(z, y, x)`` uint16 of the field: 0 is ice, else the number of a class.
        classes: names; the label of ``classes[i]`` is ``i + 1``.
        placements: what is in the field.
        voxel_size_angstrom: edge of a voxel.
        slab_px: depth below the nearer surface of the slab, ``(z, x)`` float32, negative in vacuum.
        wanted_crowding: fraction of the free volume that was to be filled with molecules.
        reached_crowding: what fitted.
        lamella: whether the slab was cut by an ion beam.
    """

    density: NDArray[np.float32]
    field: slice
    labels: NDArray[np.uint16]
    classes: tuple[str, ...]
    placements: tuple[Placement, ...]
    voxel_size_angstrom: float
    slab_px: NDArray[np.float32]
    wanted_crowding: float
    reached_crowding: float
    lamella: bool


def relion_euler_deg(rotation: Array) -> tuple[float, float, float]:
    """RELION's rot, tilt and psi of a rotation ``(3, 3)`` that takes the reference to the specimen, acting on z, y, x.

    RELION's matrix, which takes the reference to the specimen, is the transpose of Rz(rot) Ry(tilt) Rz(psi).
    """
    m = np.asarray(rotation)[::-1, ::-1].T
    sine = math.hypot(m[0, 2], m[1, 2])
    tilt = math.atan2(sine, m[2, 2])
    if sine > 1e-9:
        rot, psi = math.atan2(m[1, 2], m[0, 2]), math.atan2(m[2, 1], -m[2, 0])
    else:
        rot, psi = math.atan2(m[1, 0], m[1, 1]), 0.0
    return math.degrees(rot), math.degrees(tilt), math.degrees(psi)


def ice_noise(cell: Cell, rng: np.random.Generator, amplitude: float = 1.0) -> NDArray[np.float32]:
    """The density of a cell with the grain of amorphous ice inside its slab: what is imaged, not what is sought.

    Args:
        cell: not changed.
        rng: source of randomness.
        amplitude: 1 for the physical strength, see ``solids.ice_sigma``.
    """
    density = cell.density.copy()
    weight = (amplitude * np.clip(cell.slab_px + 0.5, 0, 1)).astype(np.float32)
    solids.add_tiled(density, solids.ice_tile(cell.voxel_size_angstrom, rng), weight, rng)
    return density


def make_cell(recipe: CellRecipe, library: tuple[Molecule, ...], rng: np.random.Generator) -> Cell:
    """Draw a cell.

    Args:
        recipe: what it may contain.
        library: molecules; those whose name starts with ``mb_`` only sit in membranes, their z axis outwards.
        rng: source of all randomness: the same state gives the same bytes.
    """
    voxel = float(rng.uniform(*recipe.voxel_size_angstrom))
    depth, height, width = recipe.shape
    margin = round(recipe.margin * width)
    shape = (depth, height, width + 2 * margin)
    lamella = bool(rng.random() < recipe.lamella_chance)
    slab = _slab(shape, voxel, recipe, lamella, rng)
    build = _Build(shape, voxel, slice(margin, margin + width), slab, rng)
    build.block_outside(0.0 if not lamella else -60.0 / voxel)
    surfaces = _add_membranes(build, recipe, lamella)
    if not lamella and rng.random() < recipe.carbon_chance:
        _add_carbon(build)
    _add_gold(build, recipe)
    _add_membrane_proteins(build, recipe, surfaces, tuple(m for m in library if m.name.startswith(MEMBRANE_PREFIX)))
    _add_filaments(build, recipe)
    wanted = float(rng.uniform(*recipe.crowding))
    reached = _add_molecules(build, recipe, tuple(m for m in library if not m.name.startswith(MEMBRANE_PREFIX)), wanted)
    _cut_slab(build)
    if lamella:
        _damage_faces(build, recipe)
    _add_crystals(build, recipe)
    return Cell(
        build.density,
        build.field,
        build.labels,
        tuple(build.classes),
        tuple(build.placements),
        voxel,
        slab,
        wanted,
        reached,
        lamella,
    )


def _slab(
    shape: tuple[int, int, int], voxel: float, recipe: CellRecipe, lamella: bool, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Depth below the nearer surface in voxels, ``(z, x)``."""
    thickness = rng.uniform(*recipe.thickness_nm) * 10 / voxel
    tilt = math.radians(rng.uniform(*recipe.pretilt_deg)) if lamella else 0.0
    room = max(0.0, shape[0] - thickness)
    middle = (shape[0] - 1) / 2 + 0.25 * room * rng.uniform(-1, 1)
    z, x = np.ogrid[: shape[0], : shape[2]]
    off = (z - middle) * math.cos(tilt) - (x - (shape[2] - 1) / 2) * math.sin(tilt)
    return (thickness / 2 - np.abs(off)).astype(np.float32)


@dataclass
class _Build:
    """A cell while it is drawn."""

    shape: tuple[int, int, int]
    voxel: float
    field: slice
    slab: NDArray[np.float32]
    rng: np.random.Generator
    classes: list[str] = dataclasses.field(default_factory=list)
    placements: list[Placement] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.density = np.zeros(self.shape, dtype=np.float32)
        self.kind = np.zeros(self.shape, dtype=np.uint8)
        width = self.field.stop - self.field.start
        self.labels = np.zeros((*self.shape[:2], width), dtype=np.uint16)

    @property
    def area_um2(self) -> float:
        """Area of the specimen across the beam, µm²."""
        return self.shape[1] * self.shape[2] * (self.voxel * 1e-4) ** 2

    def block_outside(self, reach_px: float) -> None:
        """Call everything further than a reach outside the slab taken."""
        outside = self.slab < reach_px
        for z in range(self.shape[0]):
            self.kind[z, :, outside[z]] = _TAKEN

    def label(self, name: str) -> int:
        """The number of a class, new or known."""
        if name not in self.classes:
            self.classes.append(name)
        return self.classes.index(name) + 1

    def mark(self, index: NDArray[np.int64], name: str, kind: int) -> None:
        """Take voxels, given as flat indices, for a class."""
        flat = self.kind.reshape(-1)
        flat[index] = np.maximum(flat[index], kind)
        z, y, x = np.unravel_index(index, self.shape)
        seen = (x >= self.field.start) & (x < self.field.stop)
        self.labels[z[seen], y[seen], x[seen] - self.field.start] = self.label(name)

    def mark_box(self, box: tuple[slice, ...], body: NDArray[np.bool_], name: str) -> None:
        """Take the voxels of a body in a box for a class."""
        self.kind[box][body] = _TAKEN
        first, last = max(box[2].start, self.field.start), min(box[2].stop, self.field.stop)
        label = self.label(name)
        if first < last:
            part = self.labels[box[0], box[1], first - self.field.start : last - self.field.start]
            part[body[:, :, first - box[2].start : last - box[2].start]] = label

    def record(self, name: str, position: Array, rotation: Array) -> None:
        """Write down a placement, if its centre is in the field and in the slab."""
        z, y, x = (float(v) for v in position)
        x -= self.field.start
        inside = 0 <= z <= self.shape[0] - 1 and 0 <= y <= self.shape[1] - 1 and 0 <= x <= self.labels.shape[2] - 1
        if inside and self.slab[round(z), round(x) + self.field.start] > 0:
            euler = relion_euler_deg(rotation)
            self.placements.append(Placement(name, self.label(name), (z, y, x), rotation, euler))

    def count(self, per_um2: Pair) -> int:
        """Draw a number of things from a range per µm²."""
        return int(self.rng.poisson(self.rng.uniform(*per_um2) * self.area_um2))

    def place_angstrom(self, outside: float = 0.0) -> Array:
        """A random place in the slab, Å; up to ``outside`` Å beyond the grid across the beam."""
        y, x = (self.rng.uniform(-outside / self.voxel, n + outside / self.voxel) for n in self.shape[1:])
        column = np.flatnonzero(self.slab[:, int(np.clip(x, 0, self.shape[2] - 1))] > 0)
        low, high = (column[0], column[-1]) if column.size else (0, self.shape[0] - 1)
        return np.array([self.rng.uniform(low, high), y, x]) * self.voxel


def _add_membranes(build: _Build, recipe: CellRecipe, lamella: bool) -> list[membranes.Surface]:
    """Membranes that keep clear of each other, up to what fits."""
    rng, drawn = build.rng, list[membranes.Surface]()
    room = float(build.slab.max()) * build.voxel
    for kind, number in (
        ("sheet", int(rng.integers(recipe.sheets[0], recipe.sheets[1] + 1))),
        ("organelle", build.count(recipe.organelles)),
        ("tube", build.count(recipe.tubes)),
        ("vesicle", build.count(recipe.vesicles)),
    ):
        for _ in range(number):
            for _ in range(6):
                group = _draw_surfaces(kind, build, recipe, room if not lamella else math.inf)
                if _is_clear(build, group[0], 0.4 if lamella or kind != "vesicle" else 0.9):
                    break
            else:
                continue
            ranges = ((35, 40), (4, 5), (0, 0.25), (0.7, 1))
            bilayer = membranes.Bilayer(*(float(rng.uniform(*pair)) for pair in ranges))
            for surface in group:
                taken = membranes.add_membrane(build.density, build.voxel, surface, bilayer)
                build.mark(taken, "membrane", _MEMBRANE)
                drawn.append(surface)
    return drawn


def _draw_surfaces(kind: str, build: _Build, recipe: CellRecipe, room: float) -> tuple[membranes.Surface, ...]:
    """Surfaces of one thing; ``room`` is half the thickness in Å of a slab that they must fit, or infinite."""
    rng = build.rng
    radius = 10 * rng.uniform(*recipe.vesicle_radius_nm)
    if kind == "vesicle":
        radius = min(radius, 0.8 * room)
        return (membranes.draw_vesicle(build.place_angstrom(radius), radius, rng),)
    if kind == "organelle":
        large = radius * rng.uniform(1.3, 2.0)
        return membranes.draw_organelle(build.place_angstrom(large), min(max(large, 600.0), 1.2 * room), rng)
    if kind == "tube":
        return (membranes.draw_tube(build.place_angstrom(300.0), rng.uniform(1500, 5000), rng.uniform(100, 300), rng),)
    return (membranes.draw_sheet(build.place_angstrom(), 0.5 * min(build.shape[1:]) * build.voxel, rng),)


def _is_clear(build: _Build, surface: membranes.Surface, least: float) -> bool:
    """Whether a surface crosses no membrane and lies in the slab by a share of its points at least."""
    points, _ = surface.sample(400, build.rng)
    voxels = np.rint(points / build.voxel).astype(int)
    inside = (voxels >= 0).all(axis=1) & (voxels < np.array(build.shape)).all(axis=1)
    if not inside.any():
        return False
    z, y, x = voxels[inside].T
    kinds = build.kind[z, y, x]
    return not (kinds == _MEMBRANE).any() and bool((kinds == _FREE).mean() > least)


def _add_carbon(build: _Build) -> None:
    rng, height = build.rng, build.shape[1]
    thickness = rng.uniform(100, 200) / build.voxel
    rows = np.flatnonzero(build.slab[:, 0] > 0)
    top = rows[-1] - thickness if rng.random() < 0.5 else rows[0]
    radius = rng.uniform(5000, 10000) / build.voxel
    middle = (build.field.start + build.field.stop) / 2
    angle = rng.uniform(0, 2 * math.pi)
    away = radius + rng.uniform(-0.3, 0.3) * min(height, build.labels.shape[2])
    hole = (height / 2 + away * math.sin(angle), middle + away * math.cos(angle), radius)
    mask = solids.add_carbon_film(build.density, float(top), thickness, hole)
    build.mark(np.flatnonzero(mask), "carbon", _TAKEN)
    # Amorphous carbon has a grain of its own.
    box = np.flatnonzero(mask.any(axis=(1, 2)))
    for z in box:
        row = build.density[z]
        row[mask[z]] += (0.15 * rng.standard_normal(int(mask[z].sum()))).astype(np.float32)


def _add_gold(build: _Build, recipe: CellRecipe) -> None:
    for _ in range(build.count(recipe.gold)):
        for _ in range(8):
            place = build.place_angstrom() / build.voxel
            if build.kind[tuple(np.minimum(place.astype(int), np.array(build.shape) - 1))] == _FREE:
                diameter = 10 * build.rng.uniform(*recipe.gold_diameter_nm)
                centre = (float(place[0]), float(place[1]), float(place[2]))
                box, body = solids.add_solid(build.density, solids.gold_bead(centre, diameter, build.voxel, build.rng))
                build.mark_box(box, body, "gold")
                build.record("gold", place, np.eye(3))
                break


def _add_crystals(build: _Build, recipe: CellRecipe) -> None:
    """Ice crystals that sit on the faces of the slab, half out of it."""
    for _ in range(build.count(recipe.crystals)):
        place = build.place_angstrom() / build.voxel
        rows = np.flatnonzero(build.slab[:, min(int(place[2]), build.shape[2] - 1)] > 0)
        if not rows.size:
            continue
        radius = build.rng.uniform(150, 600) / build.voxel
        upper = build.rng.random() < 0.5
        z = float(rows[0] - 0.6 * radius if upper else rows[-1] + 0.6 * radius)
        box, body = solids.add_solid(
            build.density, solids.ice_crystal((z, float(place[1]), float(place[2])), radius, build.rng)
        )
        build.mark_box(box, body, "ice crystal")


def _cut_slab(build: _Build) -> None:
    """Remove what is outside the slab."""
    inside = np.clip(build.slab + 0.5, 0, 1).astype(np.float32)
    for z in np.flatnonzero((inside < 1).any(axis=1)):
        build.density[z] *= inside[z]
        build.labels[z][:, build.slab[z, build.field] <= 0] = 0


def _damage_faces(build: _Build, recipe: CellRecipe) -> None:
    """Turn the layers below the faces of a lamella into noise by degrees."""
    rng, voxel = build.rng, build.voxel
    depth = rng.uniform(*recipe.damage_nm) * 10 / voxel
    tile = scipy.ndimage.gaussian_filter(solids.ice_tile(voxel, rng, 64), 12.0 / voxel, mode="wrap")
    tile *= np.float32(rng.uniform(0.2, 0.5) / tile.std())
    harm = 1 / (1 + np.exp(np.clip((build.slab - depth) / max(0.25 * depth, 0.3), -30, 30)))
    harm = (harm * rng.uniform(0.4, 0.9)).astype(np.float32)
    inside = np.clip(build.slab + 0.5, 0, 1).astype(np.float32)
    for z in range(build.shape[0]):
        build.density[z] *= 1 - harm[z]
    solids.add_tiled(build.density, tile, harm * inside, rng)


def _add_membrane_proteins(
    build: _Build, recipe: CellRecipe, surfaces: list[membranes.Surface], library: tuple[Molecule, ...]
) -> None:
    """Molecules whose z axis is the outward normal and whose centre of mass lies on the mid-surface."""
    if not library or not surfaces:
        return
    density_per_a2 = build.rng.uniform(*recipe.membrane_proteins) * 1e-5
    # The area in the grid follows from the membrane voxels: a bilayer is about 46 Å thick.
    area = float((build.kind == _MEMBRANE).sum()) * build.voxel**3 / 46.0
    wanted = build.rng.poisson(density_per_a2 * area)
    done = 0
    for _ in range(3 * int(wanted)):
        if done >= wanted:
            break
        surface = surfaces[build.rng.integers(len(surfaces))]
        points, normals = surface.sample(1, build.rng)
        place = points[0] / build.voxel
        if (place < 0).any() or (place > np.array(build.shape) - 1).any():
            continue
        along = place + np.outer((-20.0, 0.0, 20.0), normals[0]) / build.voxel
        probe = np.clip(np.rint(along), 0, np.array(build.shape) - 1).astype(int)
        if (build.kind[tuple(probe.T)] == _TAKEN).any():
            continue
        molecule = library[build.rng.integers(len(library))]
        rotation = _towards(normals[0], build.rng.uniform(0, 2 * math.pi))
        box = resampled(molecule, rotation, build.voxel)
        posed = (molecule.name, box, box > _INSIDE, rotation)
        done += _try_place(build, posed, np.rint(place).astype(int), _TAKEN) > 0


def _towards(normal: Array, spin: float) -> Array:
    """A rotation acting on ``(z, y, x)`` that takes z to a direction, after a turn about z."""
    across = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    across /= np.linalg.norm(across)
    other = np.cross(normal, across)
    first = math.cos(spin) * across + math.sin(spin) * other
    return np.stack([normal, first, np.cross(normal, first)], axis=-1)


_Posed = tuple[str, NDArray[np.float32], NDArray[np.bool_], Array]


def _try_place(build: _Build, posed: _Posed, centre: NDArray[np.int64], blocking: int) -> int:
    """Draw a posed molecule centred on a voxel if nothing of a blocking kind is in the way; the voxels it fills."""
    name, box, body, rotation = posed
    corner = centre - box.shape[0] // 2
    low = np.maximum(corner, 0)
    high = np.minimum(corner + box.shape[0], build.shape)
    if (low >= high).any():
        return 0
    target = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    source = tuple(slice(int(a - c), int(b - c)) for a, b, c in zip(low, high, corner, strict=True))
    inner = body[source]
    taken = build.kind[target] >= blocking
    middle = tuple(n // 2 for n in taken.shape)
    if (taken[middle] and inner[middle]) or (taken & inner).any():
        return 0
    np.maximum(build.density[target], box[source], out=build.density[target])
    build.mark_box(target, inner, name)
    build.record(name, centre.astype(np.float64), rotation)
    return int(inner.sum())


def _add_filaments(build: _Build, recipe: CellRecipe) -> None:
    """Filaments through the slab; subunits that meet something are left out, and so are mostly blocked filaments."""
    rng = build.rng
    for kind, number in (
        ("microtubule", build.count(recipe.microtubules)),
        ("actin", build.count(recipe.actin)),
        ("nucleic acid", build.count(recipe.nucleic_acids)),
    ):
        bundle = rng.normal(size=3) * np.array([0.25, 1, 1])
        for _ in range(number):
            if kind == "nucleic acid" or rng.random() < 0.4:
                bundle = rng.normal(size=3) * np.array([0.25, 1, 1])
            direction = bundle + 0.1 * rng.normal(size=3) * np.linalg.norm(bundle)
            direction /= np.linalg.norm(direction)
            length = rng.uniform(800, 4000) if kind == "nucleic acid" else rng.uniform(2000, 15000)
            start = build.place_angstrom() - direction * length / 2
            curve = filaments.worm_like_curve(start, direction, length, filaments.PERSISTENCE_ANGSTROM[kind], rng)
            if kind == "microtubule":
                drawn = filaments.microtubule(curve, rng.uniform(0, 6.28))
            elif kind == "actin":
                drawn = filaments.actin(curve, rng.uniform(0, 6.28))
            else:
                drawn = filaments.nucleic_acid(curve)
            _place_filament(build, drawn)


def _place_filament(build: _Build, filament: filaments.Filament) -> None:
    high = np.array(build.shape) * build.voxel + 50
    inside = np.logical_and(filament.positions > -50, filament.positions < high).all(axis=1)
    filament = filament.chosen(np.asarray(inside))
    index, value, owner = filaments.blob_voxels(filament, build.shape, build.voxel)
    if not index.size:
        return
    met = (build.kind.reshape(-1)[index] != _FREE) & (value > _INSIDE)
    free = np.ones(len(filament.positions), dtype=bool)
    free[owner[met]] = False
    if free.mean() < 0.5:
        return
    kept = free[owner]
    np.maximum.at(build.density.reshape(-1), index[kept], value[kept])
    build.mark(np.unique(index[kept & (value > _INSIDE)]), filament.kind, _TAKEN)
    if filament.kind != "nucleic acid":
        for position, rotation in zip(filament.positions[free], filament.rotations[free], strict=True):
            build.record(filament.kind, position / build.voxel, rotation)


class _Poses:
    """Rotated molecules: a few orientations drawn for each, and the 24 exact turns of the cube of each."""

    def __init__(self, library: tuple[Molecule, ...], voxel: float, rng: np.random.Generator) -> None:
        self.library, self.voxel, self.rng = library, voxel, rng
        self.drawn: list[list[_Posed]] = [[] for _ in library]
        self.volumes = np.array([(m.density > _INSIDE).sum() * (m.voxel_size_angstrom / voxel) ** 3 for m in library])
        self.radii = (3 * np.maximum(self.volumes, 1e-9) / (4 * math.pi)) ** (1 / 3)

    def draw(self, which: int) -> _Posed:
        """A molecule in a random orientation."""
        number = int(self.rng.integers(_ORIENTATIONS))
        drawn = self.drawn[which]
        if number >= len(drawn):
            rotation = Rotation.from_quat(self.rng.normal(size=4)).as_matrix()
            box = resampled(self.library[which], rotation, self.voxel)
            drawn.append((self.library[which].name, box, box > _INSIDE, rotation))
            return drawn[-1]
        name, box, body, rotation = drawn[number]
        turn = _CUBE_TURNS[self.rng.integers(len(_CUBE_TURNS))]
        return name, _turned(box, turn), _turned(body, turn), turn @ rotation


def _cube_turns() -> tuple[Array, ...]:
    turns = []
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for signs in np.ndindex(2, 2, 2):
            matrix = np.zeros((3, 3))
            matrix[(0, 1, 2), order] = 1 - 2 * np.array(signs)
            if np.linalg.det(matrix) > 0:
                turns.append(matrix)
    return tuple(turns)


_CUBE_TURNS = _cube_turns()


def _turned(box: NDArray[Any], turn: Array) -> NDArray[Any]:
    """A cube of odd size rotated about its middle by one of the 24 turns of the cube."""
    order = np.abs(turn).argmax(axis=1)
    signs = turn[(0, 1, 2), order]
    moved = box.transpose(tuple(order.tolist()))
    return np.ascontiguousarray(np.flip(moved, tuple(np.flatnonzero(signs < 0).tolist())))


def _add_molecules(build: _Build, recipe: CellRecipe, library: tuple[Molecule, ...], wanted: float) -> float:
    """Place molecules where there is room until the crowding is reached or nothing fits; the fraction reached.

    Places are drawn from those further from anything than most of a molecule's radius, by a distance map on a coarser
    grid that is made anew every round, and then tested voxel by voxel.
    """
    free = int((build.kind == _FREE).sum())
    if not library or wanted <= 0 or free == 0:
        return 0.0
    poses = _Poses(library, build.voxel, build.rng)
    filled, goal = 0, wanted * free
    for number in range(_MOST_ROUNDS):
        if filled >= goal:
            break
        places = _Places(build.kind)
        before = filled
        # Large molecules find room early or not at all; the reach asked for shrinks from round to round.
        filled = _round(build, recipe, poses, places, (filled, goal, 1.0 - 0.05 * number))
        if filled - before < 0.003 * goal:
            break
    return filled / free


class _Places:
    """Free places, sorted by how far they are from anything."""

    def __init__(self, kind: NDArray[np.uint8]) -> None:
        blocks = np.add.reduceat(kind != _FREE, np.arange(0, kind.shape[0], _BIN), axis=0, dtype=np.uint8)
        for axis in (1, 2):
            blocks = np.add.reduceat(blocks, np.arange(0, kind.shape[axis], _BIN), axis=axis)
        room = scipy.ndimage.distance_transform_edt(blocks < 0.5 * _BIN**3).astype(np.float32) * _BIN
        self.shape = room.shape
        flat = room.reshape(-1)
        some = np.flatnonzero(flat > 0)
        order = np.argsort(-flat[some], kind="stable")
        self.index, self.room = some[order], flat[some][order]

    def number(self, radius_px: float) -> int:
        """How many places are at least this far from anything."""
        return int(np.searchsorted(-self.room, -radius_px, side="right"))


def _round(build: _Build, recipe: CellRecipe, poses: _Poses, places: _Places, aim: tuple[int, float, float]) -> int:
    """Place molecules by one map of free places, until it is used up; the voxels filled."""
    filled, goal, reach = aim
    rng, recent = build.rng, 1.0
    limits = [places.number(max(1.0, reach * float(r))) for r in poses.radii]
    fitting = np.flatnonzero(np.array(limits) > 0)
    if not fitting.size:
        return filled
    while filled < goal and recent > 0.15:
        which = int(fitting[rng.integers(len(fitting))])
        copies = 1
        if rng.random() < recipe.cluster_share / max(1.0, sum(recipe.cluster_size) / 2):
            copies = int(rng.integers(recipe.cluster_size[0], recipe.cluster_size[1] + 1))
        seed: Array | None = None
        for _ in range(copies):
            placed = False
            posed = poses.draw(which)
            for _ in range(_TRIES):
                centre = _candidate(build, places, limits[which], seed, 2.2 * float(poses.radii[which]))
                volume = _try_place(build, posed, centre, _MEMBRANE)
                if volume:
                    filled += volume
                    placed, seed = True, centre.astype(np.float64)
                    break
            recent += 0.01 * (float(placed) - recent)
            if not placed:
                break
    return filled


def _candidate(build: _Build, places: _Places, limit: int, seed: Array | None, step: float) -> NDArray[np.int64]:
    """A place to try: any that has room, or one beside the last member of a cluster."""
    rng = build.rng
    if seed is not None:
        direction = rng.normal(size=3)
        moved = seed + direction / np.linalg.norm(direction) * step * rng.uniform(1.0, 1.5)
        return np.clip(np.rint(moved), 0, np.array(build.shape) - 1).astype(np.int64)
    block = np.array(np.unravel_index(places.index[rng.integers(limit)], places.shape))
    return np.minimum(block * _BIN + rng.integers(0, _BIN, size=3), np.array(build.shape) - 1).astype(np.int64)
