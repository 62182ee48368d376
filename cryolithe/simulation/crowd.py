"""Cells: molecules crowded among membranes, filaments and solids, in a slab that reaches beyond the field of view.

Densities are contrasts to amorphous ice, protein about 1, ``(z, y, x)``. The uniform ice of the slab itself, and the
vacuum outside, are 0: a slab of even thickness adds a constant to every image.

Order of things: carbon film, membranes, gold, proteins in membranes, filaments, bodies, ribosomes, molecules; then
cytosol fills what is left, the slab is cut, its faces become uneven, those of a lamella are damaged, and ice crystals
are put on the surfaces. What is placed does not overlap what is there,
except that membrane proteins sit in membranes.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.errors import SettingsError
from cryolithe.simulation import filaments, membranes, solids
from cryolithe.simulation.bodies import add_body
from cryolithe.simulation.canvas import FREE, INSIDE, MEMBRANE, TAKEN, Canvas, try_place
from cryolithe.simulation.cell import Array, Cell, CellRecipe
from cryolithe.simulation.cytosol import fill_cytosol, roughen_faces
from cryolithe.simulation.molecules import Molecule, resampled
from cryolithe.simulation.packing import add_molecules, add_particles
from cryolithe.simulation.procedural import large_particle

MEMBRANE_PREFIX = "mb_"


def with_grain(cell: Cell, rng: np.random.Generator, amplitude: float = 1.0) -> NDArray[np.float32]:
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
    build = Canvas(shape, voxel, slice(margin, margin + width), slab, rng)
    build.block_outside(0.0 if not lamella else -60.0 / voxel)
    if not lamella and rng.random() < recipe.carbon_chance:
        _add_carbon(build)
    surfaces = _add_membranes(build, recipe, lamella)
    _add_gold(build, recipe)
    _add_membrane_proteins(build, recipe, surfaces, tuple(m for m in library if m.name.startswith(MEMBRANE_PREFIX)))
    _add_filaments(build, recipe)
    _add_bodies(build, recipe)
    _add_ribosomes(build, recipe)
    wanted = float(rng.uniform(*recipe.crowding))
    reached = add_molecules(build, recipe, tuple(m for m in library if not m.name.startswith(MEMBRANE_PREFIX)), wanted)
    fill_cytosol(build, recipe, surfaces)
    _cut_slab(build)
    roughen_faces(build, recipe)
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


def check_fits(recipe: CellRecipe, library: tuple[Molecule, ...]) -> None:
    """Refuse a field that a molecule does not fit into in any orientation, even at the largest voxels.

    Raises:
        SettingsError: names the molecule and both sizes.
    """
    edges = _edges_angstrom(recipe)
    for molecule in library:
        if not fits(recipe, molecule):
            extent = _extent_angstrom(molecule)
            have, need = (" x ".join(f"{length:.0f}" for length in lengths) for lengths in (edges, extent))
            raise SettingsError(
                f"the field of {have} Å is smaller than molecule '{molecule.name}' ({need} Å); enlarge cell.shape or "
                f"put the molecule into hold_out"
            )


def fits(recipe: CellRecipe, molecule: Molecule) -> bool:
    """Whether a molecule fits into the field in some orientation, at the largest voxels."""
    return bool((_extent_angstrom(molecule) <= _edges_angstrom(recipe)).all())


def _edges_angstrom(recipe: CellRecipe) -> NDArray[np.float64]:
    """Of the largest field, from the shortest."""
    return np.sort(np.array(recipe.shape) * recipe.voxel_size_angstrom[1])


def _extent_angstrom(molecule: Molecule) -> NDArray[np.float64]:
    """Along each axis, from the shortest."""
    filled = np.argwhere(molecule.density > INSIDE)
    return np.sort((np.ptp(filled, axis=0) + 1) * molecule.voxel_size_angstrom) if len(filled) else np.zeros(3)


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


def _add_membranes(build: Canvas, recipe: CellRecipe, lamella: bool) -> list[membranes.Surface]:
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
                build.mark(taken, "membrane", MEMBRANE)
                drawn.append(surface)
    return drawn


def _draw_surfaces(kind: str, build: Canvas, recipe: CellRecipe, room: float) -> tuple[membranes.Surface, ...]:
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


def _is_clear(build: Canvas, surface: membranes.Surface, least: float) -> bool:
    """Whether a surface crosses no membrane and lies in the slab by a share of its points at least."""
    points, _ = surface.sample(400, build.rng)
    voxels = np.rint(points / build.voxel).astype(int)
    inside = (voxels >= 0).all(axis=1) & (voxels < np.array(build.shape)).all(axis=1)
    if not inside.any():
        return False
    z, y, x = voxels[inside].T
    kinds = build.kind[z, y, x]
    return not (kinds == MEMBRANE).any() and bool((kinds == FREE).mean() > least)


def _add_carbon(build: Canvas) -> None:
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
    build.mark(np.flatnonzero(mask), "carbon", TAKEN)
    # Amorphous carbon has a grain of its own.
    box = np.flatnonzero(mask.any(axis=(1, 2)))
    for z in box:
        row = build.density[z]
        row[mask[z]] += (0.15 * rng.standard_normal(int(mask[z].sum()))).astype(np.float32)


def _add_gold(build: Canvas, recipe: CellRecipe) -> None:
    for _ in range(build.count(recipe.gold)):
        for _ in range(8):
            place = build.place_angstrom() / build.voxel
            diameter = 10 * build.rng.uniform(*recipe.gold_diameter_nm)
            centre = (float(place[0]), float(place[1]), float(place[2]))
            bead = solids.gold_bead(centre, diameter, build.voxel, build.rng)
            box, filled = solids.solid_voxels(build.shape, bead)
            if (build.kind[box][filled > solids.SOLID] == FREE).all():
                box, body = solids.add_solid(build.density, bead)
                build.mark_box(box, body, "gold")
                build.record("gold", place, np.eye(3))
                break


def _add_crystals(build: Canvas, recipe: CellRecipe) -> None:
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


def _cut_slab(build: Canvas) -> None:
    """Remove what is outside the slab."""
    inside = np.clip(build.slab + 0.5, 0, 1).astype(np.float32)
    for z in np.flatnonzero((inside < 1).any(axis=1)):
        build.density[z] *= inside[z]
        build.labels[z][:, build.slab[z, build.field] <= 0] = 0


def _damage_faces(build: Canvas, recipe: CellRecipe) -> None:
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
    build: Canvas, recipe: CellRecipe, surfaces: list[membranes.Surface], library: tuple[Molecule, ...]
) -> None:
    """Molecules whose z axis is the outward normal and whose centre of mass lies on the mid-surface."""
    if not library or not surfaces:
        return
    density_per_a2 = build.rng.uniform(*recipe.membrane_proteins) * 1e-5
    # The area in the grid follows from the membrane voxels: a bilayer is about 46 Å thick.
    area = float((build.kind == MEMBRANE).sum()) * build.voxel**3 / 46.0
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
        if (build.kind[tuple(probe.T)] == TAKEN).any():
            continue
        molecule = library[build.rng.integers(len(library))]
        rotation = towards(normals[0], build.rng.uniform(0, 2 * math.pi))
        box = resampled(molecule, rotation, build.voxel)
        posed = (molecule.name, box, box > INSIDE, rotation)
        done += try_place(build, posed, np.rint(place).astype(int), TAKEN) > 0


def towards(normal: Array, spin: float) -> Array:
    """A rotation acting on ``(z, y, x)`` that takes z to a direction, after a turn about z."""
    across = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    across /= np.linalg.norm(across)
    other = np.cross(normal, across)
    first = math.cos(spin) * across + math.sin(spin) * other
    return np.stack([normal, first, np.cross(normal, first)], axis=-1)


def _add_bodies(build: Canvas, recipe: CellRecipe) -> None:
    """Droplets, granules and dense bodies; those that find no room are left out."""
    if recipe.bodies[1] > 0:
        for _ in range(build.count(recipe.bodies)):
            add_body(build, str(build.rng.choice(("droplet", "granule", "solid"))))


def _add_ribosomes(build: Canvas, recipe: CellRecipe) -> None:
    """Large particles at their concentration in the slab."""
    if recipe.ribosomes_micromolar[1] <= 0:
        return
    per_angstrom3 = build.rng.uniform(*recipe.ribosomes_micromolar) * 6.02214e-10
    inside = float((build.slab > 0).mean()) * build.density.size * build.voxel**3
    add_particles(build, large_particle(build.rng, "large_particle"), int(build.rng.poisson(per_angstrom3 * inside)))


def _add_filaments(build: Canvas, recipe: CellRecipe) -> None:
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
            placed = place_filament(build, drawn, drawn.kind)
            if placed is None or kind == "nucleic acid":
                continue
            for position, rotation in zip(placed.positions, placed.rotations, strict=True):
                build.record(kind, position / build.voxel, rotation)


def place_filament(
    build: Canvas, filament: filaments.Filament, name: str, fewest: float = 0.5
) -> filaments.Filament | None:
    """Draw the subunits of a filament that meet nothing, and take their voxels for a class.

    Returns:
        those subunits; None where they are less than the share ``fewest``, and nothing was drawn.
    """
    high = np.array(build.shape) * build.voxel + 50
    inside = np.logical_and(filament.positions > -50, filament.positions < high).all(axis=1)
    filament = filament.chosen(np.asarray(inside))
    index, value, owner = filaments.blob_voxels(filament, build.shape, build.voxel)
    if not index.size:
        return None
    met = (build.kind.reshape(-1)[index] != FREE) & (value > INSIDE)
    free = np.ones(len(filament.positions), dtype=bool)
    free[owner[met]] = False
    if free.mean() < fewest:
        return None
    kept = free[owner]
    np.maximum.at(build.density.reshape(-1), index[kept], value[kept])
    build.mark(np.unique(index[kept & (value > INSIDE)]), name, TAKEN)
    return filament.chosen(free)
