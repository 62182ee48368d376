"""Parts of specimens: the measures of membranes, filaments and solids, in Å whatever the voxel size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from drawn_filament import drawn_filament

from cryolithe.simulation import filaments, membranes, solids


def straight(length=4000.0, direction=(1.0, 0.0, 0.0), start=(0.0, 150.0, 150.0)):
    rng = np.random.default_rng(0)
    return filaments.worm_like_curve(np.array(start), np.array(direction), length, 1e18, rng)


def peak_distance(density, radii, half=45.0, step=0.5):
    """Distance of the two highest points of a profile against the distance from a mid-surface."""
    edges = np.arange(-half, half + step, step)
    weight, _ = np.histogram(radii, edges, weights=density)
    count, _ = np.histogram(radii, edges)
    profile = np.convolve(weight, np.ones(7), "same") / np.maximum(np.convolve(count, np.ones(7), "same"), 1)
    middles = (edges[1:] + edges[:-1]) / 2
    left, right = middles < 0, middles > 0
    return middles[right][profile[right].argmax()] - middles[left][profile[left].argmax()]


@pytest.mark.slow
@pytest.mark.parametrize("voxel", [5.0, 7.9, 10.0, 13.0])
@pytest.mark.parametrize("head", [35.0, 40.0])
def test_leaflets_are_as_far_apart_at_any_voxel_size(voxel, head):
    n = round(520 / voxel)
    centre = np.full(3, (n - 1) / 2 * voxel) + np.array([1.0, -2.0, 3.0])
    vesicle = membranes.draw_vesicle(centre, 190.0, np.random.default_rng(0), 0.0)
    density = np.zeros((n, n, n), dtype=np.float32)
    taken = membranes.add_membrane(density, voxel, vesicle, membranes.Bilayer(head))
    grid = np.indices(density.shape) * voxel - centre[:, None, None, None]
    radius = np.sqrt((grid**2).sum(axis=0)) - 190.0
    near = np.abs(radius) < 50
    assert peak_distance(density[near], radius[near]) == pytest.approx(head, abs=2.0)
    # The whole membrane is 4-5 nm thick, by volume over area.
    thickness = len(taken) * voxel**3 / (4 * np.pi * 190.0**2)
    assert 40 <= thickness <= 55
    assert density[np.abs(radius) > 50].max() == 0


@pytest.mark.parametrize("seed", range(4))
def test_surfaces_know_their_distance_and_their_outside(seed):
    rng = np.random.default_rng(seed)
    centre = np.array([400.0, 500.0, 600.0])
    surfaces = [
        membranes.draw_vesicle(centre, 400.0, rng),
        membranes.draw_sheet(centre, 800.0, rng),
        membranes.draw_tube(centre, 3000.0, 150.0, rng),
        *membranes.draw_organelle(centre, 700.0, rng),
    ]
    for surface in surfaces:
        points, normals = surface.sample(300, rng)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-9)
        for away in (-20.0, 0.0, 20.0):
            distance = surface.distance(points + away * normals)
            assert np.median(np.abs(distance - away)) < 1.5
            assert np.quantile(np.abs(distance - away), 0.95) < 8


def test_voxels_near_a_surface_are_all_found():
    vesicle = membranes.draw_vesicle(np.array([250.0, 300.0, 200.0]), 200.0, np.random.default_rng(1), 0.25)
    shape = (51, 60, 45)
    index, distance = membranes.voxels_near(vesicle, shape, 10.0, 30.0)
    every = vesicle.distance(np.moveaxis(np.indices(shape), 0, -1) * 10.0)
    np.testing.assert_array_equal(index, np.flatnonzero(np.abs(every) < 30))
    np.testing.assert_allclose(distance, every.reshape(-1)[index])


def test_membranes_within_membranes_keep_their_distance():
    rng = np.random.default_rng(3)
    outer, inner, *_ = membranes.draw_organelle(np.zeros(3), 900.0, rng)
    points, _ = inner.sample(500, rng)
    distance = outer.distance(points)
    assert -270 < np.median(distance) < -100
    assert distance.max() < -60


@pytest.mark.parametrize("radius", [60.0, 130.0, 250.0, 900.0])
def test_organelles_of_any_size_can_be_drawn(radius):
    rng = np.random.default_rng(0)
    for _ in range(30):
        surfaces = membranes.draw_organelle(np.zeros(3), radius, rng)
        assert all(s.gap_angstrom <= 0.45 * radius for s in surfaces if isinstance(s, membranes.Inner))


def axial_spectrum(filament, repeats, length):
    """Strength of axial repeats: the largest layer-line amplitude over angular orders, per subunit."""
    along = filament.positions[:, 0]
    angle = np.arctan2(filament.positions[:, 1] - 150, filament.positions[:, 2] - 150)
    orders = np.arange(-14, 15)
    inside = (along > 0.1 * length) & (along < 0.9 * length)
    phases = np.exp(1j * np.outer(orders, angle[inside]))
    weight = filament.levels[inside]
    return [np.abs(phases @ (weight * np.exp(2j * np.pi * along[inside] / r))).max() / weight.sum() for r in repeats]


def test_actin_repeats_as_published():
    filament = filaments.actin(straight())
    rise = np.diff(filament.positions[:, 0])
    np.testing.assert_allclose(rise, 27.5, atol=0.05)
    # In x, y, z, seen along the filament, the one-start helix is left-handed.
    y, x = filament.positions[:, 1] - 150, filament.positions[:, 2] - 150
    # The tangent is +z: a turn by +166.6° about it is right-handed.
    turn = np.rad2deg(np.angle(np.exp(1j * np.diff(np.arctan2(y, x)))))
    np.testing.assert_allclose(turn, -166.6, atol=0.1)
    # The two-start repeat of 55 Å is a layer line at 59 Å for the left-handed 1-start helix, and 27.5 Å is meridional.
    voxel = 5.0
    density = drawn_filament(filament, (800, 60, 60), voxel)
    power = (np.abs(np.fft.rfft(density[100:700], axis=0)) ** 2).sum(axis=(1, 2))
    repeat = voxel / np.fft.rfftfreq(600)[1:]
    band = (repeat > 45) & (repeat < 80)
    assert 52 < repeat[band][power[1:][band].argmax()] < 62
    line = density[100:700, 20:40, 34:].sum(axis=(1, 2))
    line = line - line.mean()
    correlation = np.correlate(line, line, "full")[600 - 1 :]
    assert 50 <= voxel * (8 + correlation[8:16].argmax()) <= 60
    assert axial_spectrum(filament, [27.5], 4000)[0] > 0.95


def test_microtubules_have_thirteen_protofilaments_and_a_three_start_lattice():
    filament = filaments.microtubule(straight())
    radius = np.hypot(filament.positions[:, 1] - 150, filament.positions[:, 2] - 150)
    np.testing.assert_allclose(2 * (radius + filament.radii_angstrom), 250, atol=8)
    angle = np.arctan2(filament.positions[:, 1] - 150, filament.positions[:, 2] - 150)
    strands = np.unique(np.rint(np.mod(angle - angle[0] + 1e-3, 2 * np.pi) / (2 * np.pi / 13)))
    assert len(strands) == 13
    monomer, dimer, other = axial_spectrum(filament, [40.0, 80.0, 55.0], 4000)
    assert monomer > 0.95
    assert dimer > 0.05 > 0.03 > other
    # From one protofilament to its neighbour the lattice moves by 3 monomers / 13, a left-handed way round.
    first = filament.positions[:13]
    np.testing.assert_allclose(np.diff(first[:, 0]), -3 * 40 / 13, atol=0.01)
    turn = np.angle(np.exp(1j * np.diff(angle[:13])))
    np.testing.assert_allclose(turn, 2 * np.pi / 13, atol=1e-3)


def test_subunits_are_turned_with_the_filament():
    rng = np.random.default_rng(0)
    curve = filaments.worm_like_curve(np.zeros(3), np.array([1.0, 2.0, 0.5]), 2000.0, 3000.0, rng)
    for filament in (filaments.actin(curve), filaments.microtubule(curve), filaments.nucleic_acid(curve)):
        turns = filament.rotations
        np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-9)
        np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-9)


def test_worm_like_curves_forget_their_direction_as_stated():
    rng = np.random.default_rng(0)
    cosines = []
    for _ in range(300):
        curve = filaments.worm_like_curve(np.zeros(3), np.array([0.0, 0.0, 1.0]), 500.0, 500.0, rng)
        cosines.append(curve.tangents[-1] @ curve.tangents[0])
    assert np.mean(cosines) == pytest.approx(np.exp(-1), abs=0.08)


def test_a_nucleic_acid_is_about_twenty_angstrom_thick():
    density = drawn_filament(filaments.nucleic_acid(straight(320.0)), (80, 80, 80), 4.0)
    section = density[40] > 0.5 * density[40].max()
    assert 2 * np.sqrt(section.sum() * 16 / np.pi) == pytest.approx(20, abs=4)


@pytest.mark.parametrize("voxel", [5.0, 10.0])
@pytest.mark.parametrize("diameter", [50.0, 150.0])
def test_gold_has_its_size_and_is_far_denser_than_protein(voxel, diameter):
    density = np.zeros((40, 40, 40), dtype=np.float32)
    bead = solids.gold_bead((20.0, 19.5, 18.7), diameter, voxel, np.random.default_rng(0))
    solids.add_solid(density, bead)
    assert solids.GOLD_LEVEL[0] <= density.max() <= solids.GOLD_LEVEL[1]
    measured = (6 * density.sum() / bead.level / np.pi) ** (1 / 3) * voxel
    assert measured == pytest.approx(diameter, rel=0.1)


def test_carbon_leaves_its_hole_free():
    density = np.zeros((30, 80, 80), dtype=np.float32)
    mask = solids.add_carbon_film(density, 10, 6, (40.0, 80.0, 50.0))
    assert set(np.flatnonzero(mask.any(axis=(1, 2)))) <= set(range(9, 18))
    assert not mask[:, 40, 40:].any()
    assert mask[13, 40, :25].all()
    assert density.max() == np.float32(solids.CARBON_LEVEL)


@pytest.mark.parametrize("voxel", [1.0, 5.0, 13.0])
def test_ice_follows_its_spectrum(voxel):
    tile = solids.ice_tile(voxel, np.random.default_rng(0), 64)
    assert tile.mean() == pytest.approx(0, abs=1e-3)
    assert tile.std() == pytest.approx(solids.ice_sigma(voxel), rel=1e-3)
    power = np.abs(np.fft.fftn(tile)) ** 2
    axis = np.fft.fftfreq(64, voxel)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    edges = np.linspace(0.02, 0.5, 12) / voxel
    shells = np.array([power[(radius >= a) & (radius < b)].mean() for a, b in itertools.pairwise(edges)])
    expected = np.array(
        [solids.ice_structure_factor(radius[(radius >= a) & (radius < b)]).mean() for a, b in itertools.pairwise(edges)]
    )
    np.testing.assert_allclose(shells / shells.sum(), expected / expected.sum(), rtol=0.2, atol=1e-3)
    if voxel == 1.0:
        peak = (edges[:-1] + edges[1:])[shells.argmax()] / 2
        assert peak == pytest.approx(1 / 3.7, abs=0.03)
