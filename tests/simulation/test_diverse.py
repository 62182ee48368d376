"""Diverse specimens: membranes of every kind, filaments, bodies and proteins with their labels."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_filament import drawn_filament

from cryolithe.simulation import SpecimenRecipe, Structure, bilayers, bodies, filaments, make_specimen, membranes
from cryolithe.simulation import diverse as diverse_scenes
from cryolithe.simulation.canvas import FREE, Canvas
from cryolithe.simulation.classes import MEMBRANES, mass_kda, membrane_classes
from cryolithe.simulation.procedural import procedural_molecule, small_molecule

SHAPE = (32, 64, 64)


def canvas(seed=0, shape=SHAPE, voxel=10.0):
    rng = np.random.default_rng(seed)
    return Canvas(shape, voxel, slice(0, shape[2]), np.full((shape[0], shape[2]), 1e6, dtype=np.float32), rng)


def diverse(seed, shape=SHAPE, voxel=10.0):
    recipe = SpecimenRecipe(shape=shape, voxel_size_angstrom=(voxel, voxel), diverse=1.0)
    return make_specimen(recipe, (), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def many():
    return [diverse([7, number], voxel=14.0) for number in range(30)]  # room for microtubules


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 128, 128), (17, 40, 33), (8, 8, 8)])
@pytest.mark.parametrize("voxel", [7.0, 14.0])
def test_any_shape_and_voxel_size_gives_a_specimen(shape, voxel):
    for seed in range(3):
        specimen = diverse(seed, shape, voxel)
        assert specimen.density.shape == specimen.labels.shape == shape
        assert specimen.density.dtype == np.float32
        assert specimen.labels.dtype == np.uint8
        assert np.isfinite(specimen.density).all()
        assert specimen.labels.max() <= max(Structure)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_specimen():
    for seed in range(3):
        one, other = diverse(seed), diverse(seed)
        np.testing.assert_array_equal(one.density, other.density)
        np.testing.assert_array_equal(one.labels, other.labels)
    assert (diverse(0).density != diverse(1).density).any()


def test_a_recipe_without_diverse_scenes_draws_no_number_for_them():
    recipe = SpecimenRecipe((16, 16, 16), (10.0, 10.0), (0.0, 0.0), membranes=(0, 0), body_chance=0, bead_chance=0)
    rng, twin = np.random.default_rng(0), np.random.default_rng(0)
    make_specimen(recipe, (), rng)
    twin.random(4)  # voxel size, chance of a body, crowding, chance of beads; a count of 0 to 0 needs no number
    assert rng.bit_generator.state == twin.bit_generator.state


@pytest.mark.slow
def test_every_class_occurs_in_a_third_of_the_scenes(many):
    seen = {kind: np.mean([(specimen.labels == kind).any() for specimen in many]) for kind in Structure}
    rare = {kind.name: share for kind, share in seen.items() if share < 1 / 3}
    assert not rare, seen


@pytest.mark.slow
def test_some_scenes_are_membranes_only(many):
    present = [set(np.unique(specimen.labels).tolist()) - {0} for specimen in many]
    assert sum(kinds <= {int(kind) for kind in MEMBRANES} for kinds in present) >= 3


@pytest.mark.slow
def test_scenes_are_almost_empty_but_never_empty():
    for seed in range(6):
        density, labels = diverse_scenes.draw_scene(
            diverse_scenes.SCENES["almost empty"], SHAPE, 10.0, (), np.random.default_rng(seed)
        )
        assert 0 < (labels > 0).mean() < 0.1
        assert density.std() > 0
    assert sum(scene.share for scene in diverse_scenes.SCENES.values()) == pytest.approx(1)


def test_labels_fit_densities(many):
    """What is labelled differs from ice, and what differs much from ice is labelled."""
    for specimen in many:
        values, labels = specimen.density, specimen.labels
        quiet = np.median(values[labels == 0])
        assert (np.abs(values[labels == 0] - quiet) > 0.6).mean() < 0.01
        for kind in (Structure.MICROTUBULE, Structure.SMALL_PROTEIN, Structure.LARGE_PROTEIN):
            if (labels == kind).any():
                assert values[labels == kind].mean() > quiet + 0.04
        if (labels == Structure.GOLD).any():
            assert values[labels == Structure.GOLD].max() > 2


def test_normals_are_told_apart_by_the_nearest_axis():
    normals = np.array([[1, 0, 0], [0, -2, 0.1], [0.2, 0, 5], [1, 1, 0], [1, 1, 1], [0, 1, -1.0]])
    expected = [Structure.MEMBRANE_Z, Structure.MEMBRANE_Y, Structure.MEMBRANE_X, *[Structure.MEMBRANE_OBLIQUE] * 3]
    assert membrane_classes(normals).tolist() == [int(kind) for kind in expected]


def test_sheets_lie_across_every_axis_equally_often():
    rng = np.random.default_rng(0)
    kinds = membrane_classes(np.array([bilayers.draw_normal(rng) for _ in range(2000)]))
    shares = [float((kinds == kind).mean()) for kind in MEMBRANES]
    np.testing.assert_allclose(shares, 0.25, atol=0.04)


def drawn(surface, bilayer, **place):
    build = canvas(**place)
    thing = bilayers.Membranes((surface,), bilayer, (), True)
    assert bilayers._draw(build, surface, thing, [])
    return build


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("heads", [30.0, 40.0, 50.0])
def test_a_profile_has_two_peaks_as_far_apart_as_drawn(axis, heads):
    middle = np.array([161.3, 148.7, 155.2])
    sheet = membranes.Sheet(
        middle, np.roll(np.eye(3), axis - 2, axis=1), np.zeros((1, 2)), np.zeros(1), np.zeros(1), 300.0
    )
    assert np.abs(sheet.frame[2]).argmax() == axis
    build = drawn(sheet, membranes.Bilayer(heads, 4.5, -0.3, 0.8), shape=(48, 48, 48), voxel=7.0)
    line = np.moveaxis(build.density, axis, 0)[:, 20, 20]
    fine = np.interp(np.arange(0, 47, 0.05), np.arange(48), line)
    places = np.arange(0, 47, 0.05) * 7.0 - middle[axis]
    low, high = places < 0, places > 0
    apart = places[high][fine[high].argmax()] - places[low][fine[low].argmax()]
    assert apart == pytest.approx(heads, abs=7.0)  # peaks are on voxels
    assert fine[np.abs(places).argmin()] < 0.5 * fine.max()
    assert build.classes == [MEMBRANES[axis].name]


def test_profiles_are_drawn_from_the_literature_and_some_tails_are_thinner_than_ice():
    rng = np.random.default_rng(0)
    made = [bilayers.draw_bilayer(rng) for _ in range(300)]
    heads = [bilayer.head_to_head_angstrom for bilayer in made]
    assert 30 <= min(heads) < 32
    assert 48 < max(heads) <= 50
    assert 0.4 < np.mean([bilayer.tails < 0 for bilayer in made]) < 0.9


def test_curvature_reaches_from_flat_to_ten_nanometres():
    radii, flat = [], 0
    for seed in range(200):
        surface = bilayers.draw_membranes(canvas(seed)).surfaces[0]
        if isinstance(surface, membranes.Vesicle):
            radii.append(np.linalg.eigvalsh(surface.inverse_squares).mean() ** -0.5)
        flat += isinstance(surface, membranes.Sheet) and not surface.amplitudes.any()
    assert min(radii) < 130
    assert max(radii) > 500
    assert flat > 20


@pytest.mark.slow
def test_membranes_of_different_things_keep_clear_of_each_other():
    for seed in range(12):
        build, groups = canvas(seed), []
        for _ in range(4):
            before = build.kind.copy()
            groups += bilayers.add_membranes(build, groups)
            new = (build.kind != FREE) & (before == FREE)
            assert ((build.kind != FREE) == (new | (before != FREE))).all()
        # Leaflets that met would add up.
        assert build.density.max() <= bilayers.LEVEL[1] * 1.1


def test_a_ball_is_a_hole_or_all_that_is_left():
    ball = bilayers.Ball(np.zeros(3), 100.0)
    places = np.array([[0.0, 0, 0], [0, 0, 100], [0, 300, 0]])
    np.testing.assert_allclose(ball.weight(places), [0, 0.5, 1], atol=1e-6)
    kept = bilayers.Ball(np.zeros(3), 100.0, kept=True)
    np.testing.assert_allclose(kept.weight(places), [1, 0.5, 0], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["droplet", "granule", "solid", "ice crystal", "protein crystal", "gold"])
def test_bodies_are_labelled_where_they_are_and_meet_nothing(kind):
    for seed in range(6):
        build = canvas(seed)
        assert bodies.add_body(build, kind)
        taken = build.kind != FREE
        assert (taken == (build.labels > 0)).all()
        assert np.abs(build.density[~taken]).max() < np.abs(build.density).max()
        before = build.density.copy()
        if bodies.add_body(build, kind):
            np.testing.assert_allclose(build.density[taken], before[taken], atol=1.3)
        full = canvas(seed)
        full.kind[:] = 2
        assert not bodies.add_body(full, kind)
        assert not full.density.any()


def test_a_background_varies_slowly_about_zero():
    field = bodies.uneven_background((32, 64, 48), 10.0, 0.05, np.random.default_rng(0))
    assert field.std() == pytest.approx(0.05, rel=1e-3)
    assert abs(field.mean()) < 1e-3
    assert all(np.abs(np.diff(field, axis=axis)).max() < 0.03 for axis in range(3))


@pytest.mark.parametrize(("build", "width"), [(filaments.intermediate, 110.0), (filaments.thick, 300.0)])
def test_thick_filaments_are_as_wide_as_measured(build, width):
    rng = np.random.default_rng(0)
    curve = filaments.worm_like_curve(np.array([0.0, 200, 200]), np.array([1.0, 0, 0]), 600.0, 1e18, rng)
    density = drawn_filament(build(curve), (60, 80, 80), 5.0)
    seen = density[15:45].max(axis=0) > 0.4
    assert np.ptp(np.nonzero(seen)[0]) * 5.0 == pytest.approx(width, rel=0.15)


@pytest.mark.slow
def test_small_molecules_are_smaller_than_others():
    rng = np.random.default_rng(0)
    small = [mass_kda(small_molecule(rng, "s")) for _ in range(20)]
    large = [mass_kda(procedural_molecule(rng, "l")) for _ in range(20)]
    assert 10 < np.median(small) < 80
    assert np.median(large) > np.median(small)


@pytest.mark.slow
def test_plain_specimens_are_labelled_too():
    recipe = SpecimenRecipe(SHAPE, (10.0, 10.0), (0.05, 0.1), membranes=(2, 2), body_chance=1.0, bead_chance=1.0)
    found = set()
    for seed in range(4):
        specimen = make_specimen(recipe, (), np.random.default_rng(seed))
        found |= set(np.unique(specimen.labels).tolist())
        proteins = np.isin(specimen.labels, (Structure.SMALL_PROTEIN, Structure.LARGE_PROTEIN))
        assert (specimen.density[proteins] > 0.15).all()
        assert (specimen.density[specimen.labels == Structure.GOLD] > 1).all()
        assert np.quantile(specimen.density[specimen.labels == 0], 0.9) < 0.15
    assert {int(Structure.GOLD), int(Structure.BODY), int(Structure.LARGE_PROTEIN)} <= found
    assert found & {int(kind) for kind in MEMBRANES}
