"""Whole cells: seeds, crowding without overlap, labels, orientations, and slabs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
from scipy.spatial.transform import Rotation

from cryolithe.errors import SettingsError
from cryolithe.simulation.cell import CellRecipe, relion_euler_deg
from cryolithe.simulation.crowd import make_cell, with_grain
from cryolithe.simulation.molecules import Molecule, resampled
from cryolithe.simulation.procedural import procedural_library, procedural_molecule

PARTS = ("vesicles", "tubes", "organelles", "sheets", "actin", "microtubules", "nucleic_acids", "gold", "crystals")
BARE = dict.fromkeys(PARTS, (0, 0))
FULL = {
    "vesicles": (150.0, 150.0),
    "organelles": (20.0, 20.0),
    "tubes": (60.0, 60.0),
    "actin": (200.0, 200.0),
    "microtubules": (60.0, 60.0),
    "nucleic_acids": (150.0, 150.0),
    "gold": (150.0, 150.0),
    "crystals": (60.0, 60.0),
    "vesicle_radius_nm": (15.0, 25.0),
    "membrane_proteins": (10.0, 10.0),
}


def marked(name="arrow"):
    """A molecule without symmetry: unlike along every axis, its z axis the long one."""
    z, y, x = np.indices((13, 11, 9)) - np.array([6, 5, 4])[:, None, None, None]
    density = np.exp(-(z**2 / 20 + y**2 / 8 + x**2 / 4)) + np.exp(-((z - 4) ** 2 + (y - 3) ** 2 + x**2) / 3)
    return Molecule(name, (density / density.max() * 1.1).astype(np.float32), 10.0)


LIBRARY = (marked(), procedural_molecule(np.random.default_rng(0), "blob"), marked("mb_pore"))


def cell(seed=0, library=LIBRARY, shape=(48, 96, 96), **recipe):
    settings = {"voxel_size_angstrom": (10.0, 10.0), "carbon_chance": 0.0, "lamella_chance": 0.0, **recipe}
    return make_cell(CellRecipe(shape, **settings), library, np.random.default_rng(seed))


@pytest.mark.slow
@pytest.mark.parametrize("lamella", [0.0, 1.0])
def test_the_same_seed_gives_the_same_bytes(lamella):
    small = {"shape": (32, 64, 64), "lamella_chance": lamella, **FULL}
    first, again, other = (cell(s, **small) for s in (3, 3, 4))
    assert first.density.tobytes() == again.density.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert [p.position_px for p in first.placements] == [p.position_px for p in again.placements]
    assert first.density.tobytes() != other.density.tobytes()
    noisy = [with_grain(first, np.random.default_rng(s)) for s in (0, 0, 1)]
    assert noisy[0].tobytes() == noisy[1].tobytes() != noisy[2].tobytes()


@pytest.mark.slow
def test_a_cell_holds_everything_and_labels_what_it_holds():
    made = [cell(s, carbon_chance=1.0, crowding=(0.1, 0.1), **FULL) for s in range(3)]
    names = {"membrane", "actin", "microtubule", "nucleic acid", "gold", "carbon", "ice crystal"}
    assert names | {"arrow", "blob", "mb_pore"} == set().union(*(set(m.classes) for m in made))
    for m in made:
        assert m.density.dtype == np.float32
        assert m.density.shape == (48, 96, 96 * 2)
        assert m.field == slice(48, 144)
        assert m.labels.dtype == np.uint16
        assert m.labels.shape == (48, 96, 96)
        assert np.isfinite(m.density).all()
        assert m.labels.max() <= len(m.classes)
        seen = m.density[:, :, m.field]
        assert seen[m.labels > 0].mean() > 10 * np.abs(seen[m.labels == 0]).mean()
        for p in m.placements:
            assert m.classes[p.label - 1] == p.name
            assert all(0 <= v <= n - 1 for v, n in zip(p.position_px, m.labels.shape, strict=True))
            np.testing.assert_allclose(p.rotation @ p.rotation.T, np.eye(3), atol=1e-9)
            assert np.linalg.det(p.rotation) == pytest.approx(1)


def test_placements_tell_where_each_molecule_is_and_how_it_is_turned():
    """Drawing the molecules again from the placements alone gives the density."""
    made = cell(1, (LIBRARY[0],), crowding=(0.15, 0.15), margin=0.25, **BARE)
    again = np.zeros(made.labels.shape, dtype=np.float32)
    padded = np.pad(again, 20)
    for p in made.placements:
        box = resampled(LIBRARY[0], p.rotation, 10.0)
        corner = [round(v) + 20 - box.shape[0] // 2 for v in p.position_px]
        target = tuple(slice(c, c + box.shape[0]) for c in corner)
        padded[target] = np.maximum(padded[target], box)
    inner = (slice(None), slice(None), slice(10, -10))  # molecules centred outside the field reach into it
    again = padded[20:-20, 20:-20, 20:-20][inner]
    seen = made.density[:, :, made.field][inner]
    assert len(made.placements) > 20
    assert np.corrcoef(again.ravel(), seen.ravel())[0, 1] > 0.995


def test_relion_angles_turn_the_reference_into_the_specimen():
    rng = np.random.default_rng(0)
    for turn in (*Rotation.random(20, rng=rng).as_matrix(), np.eye(3), np.diag([1.0, -1.0, -1.0])):
        rot, tilt, psi = np.deg2rad(relion_euler_deg(turn[::-1, ::-1]))
        a, b, c = (
            np.array([[np.cos(t), np.sin(t), 0], [-np.sin(t), np.cos(t), 0], [0, 0, 1]]) for t in (rot, 0.0, psi)
        )
        b = np.array([[np.cos(tilt), 0, -np.sin(tilt)], [0, 1, 0], [np.sin(tilt), 0, np.cos(tilt)]])
        np.testing.assert_allclose(c @ b @ a, turn, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [0.1, 0.3])
def test_molecules_crowd_without_overlap(wanted):
    made = cell(2, crowding=(wanted, wanted), margin=0.0, thickness_nm=(900, 900), **BARE)
    assert made.wanted_crowding == wanted
    assert made.reached_crowding == pytest.approx(wanted, abs=0.01)
    # Each molecule keeps its volume: the mask holds the volumes of all.
    assert (made.labels > 0).mean() == pytest.approx(wanted, rel=0.12)


@pytest.mark.slow
def test_impossible_crowding_stops_with_what_fitted():
    made = cell(0, crowding=(0.95, 0.95), margin=0.0, thickness_nm=(900, 900), shape=(32, 48, 48), **BARE)
    assert 0.2 < made.reached_crowding < 0.6
    huge = Molecule("huge", np.ones((80, 80, 80), dtype=np.float32), 10.0)
    nothing = cell(0, (huge,), shape=(32, 32, 32), vesicles=(500.0, 500.0))
    assert nothing.reached_crowding < 1
    assert cell(0, ()).reached_crowding == 0


def test_membrane_proteins_point_outwards():
    recipe = {**BARE, "vesicles": (600.0, 600.0), "vesicle_radius_nm": (15.0, 20.0), "membrane_proteins": (10.0, 10.0)}
    made = cell(5, crowding=(0.0, 0.0), margin=0.0, shape=(64, 96, 96), **recipe)
    placed = [p for p in made.placements if p.name == "mb_pore"]
    assert len(placed) >= 5
    membrane = (made.labels == made.classes.index("membrane") + 1) | (made.labels == placed[0].label)
    away = scipy.ndimage.distance_transform_edt(~membrane)
    for p in placed:
        # On the membrane, and leaving it along the z axis of the molecule.
        assert away[tuple(round(v) for v in p.position_px)] <= 2
        np.testing.assert_allclose(np.linalg.norm(p.rotation[:, 0]), 1)


def test_a_lamella_is_cut_and_has_damaged_faces():
    slab = {"lamella_chance": 1.0, "thickness_nm": (40, 40), "pretilt_deg": (5, 5)}
    made = cell(1, shape=(64, 64, 64), crowding=(0.2, 0.2), **slab, **BARE)
    assert made.lamella
    outside = np.broadcast_to((made.slab_px < -1)[:, None], made.density.shape)
    assert not made.density[outside].any()
    assert not made.labels[outside[:, :, made.field]].any()
    thickness = (made.slab_px > 0).sum(axis=0).mean() * 10
    assert thickness == pytest.approx(400 / np.cos(np.deg2rad(5)), abs=8)
    middle = [np.flatnonzero(made.slab_px[:, x] > 0).mean() for x in (10, 117)]
    assert (middle[1] - middle[0]) / 107 == pytest.approx(np.tan(np.deg2rad(5)), rel=0.15)
    skin = np.broadcast_to(((made.slab_px > 0) & (made.slab_px < 2))[:, None], made.density.shape)
    assert (made.density[skin] < -0.1).mean() > 0.02


@pytest.mark.parametrize(
    "bad",
    [
        {"voxel_size_angstrom": (0.0, 10.0)},
        {"voxel_size_angstrom": (10.0, 5.0)},
        {"crowding": (0.0, 1.5)},
        {"gold": (-1.0, 2.0)},
        {"margin": -0.1},
        {"lamella_chance": 2.0},
        {"thickness_nm": (float("nan"), 1.0)},
        {"shape": (4, 64, 64)},
        {"shape": (10**5, 10**5, 64)},
    ],
)
def test_impossible_recipes_are_refused(bad):
    with pytest.raises(SettingsError):
        dataclasses.replace(CellRecipe(), **bad)


def test_gold_meets_nothing():
    """Where beads may only lie in free space, the voxels of gold are those of whole beads."""
    made = cell(3, gold=(800.0, 800.0), gold_diameter_nm=(6.0, 6.0), vesicles=(300.0, 300.0), crowding=(0.0, 0.0))
    gold = made.labels == made.classes.index("gold") + 1
    beads = [p for p in made.placements if p.name == "gold"]
    assert len(beads) > 5
    z, y, x = np.indices(gold.shape)
    for bead in beads:
        away = np.sqrt(sum((g - c) ** 2 for g, c in zip((z, y, x), bead.position_px, strict=True)))
        assert gold[away < 1.8].all()  # the least depth of a facet is 0.85 of the radius of 3 voxels


def test_procedural_molecules_differ_and_are_connected():
    library = procedural_library(8, np.random.default_rng(5))
    masses = [(m.density > 0.15).sum() * m.voxel_size_angstrom**3 / 1212 for m in library]  # kDa, at 1.35 g/cm³
    assert len({round(mass) for mass in masses}) == len(masses)
    assert all(15 < mass < 5000 for mass in masses)
    for molecule in library:
        parts, _ = scipy.ndimage.label(molecule.density > 0.05)
        assert np.bincount(parts.ravel())[1:].max() > 0.95 * (parts > 0).sum()
