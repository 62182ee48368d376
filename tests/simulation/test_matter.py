"""Matter that fills much of a field: lattices repeat, pores are lighter than what is about them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from cryolithe.simulation import Structure, matter
from cryolithe.simulation.canvas import Canvas
from cryolithe.simulation.classes import MEMBRANES
from cryolithe.simulation.diverse import Scene, draw_scene

SHAPE, VOXEL = (32, 64, 64), 10.0


def scene(kind, seed, shape=SHAPE, voxel=VOXEL):
    alone = Scene(1.0, (0, 0), 0.0, (0, 0), (0, 0), 0.0, 0.0, matter=(kind,))
    return draw_scene(alone, shape, voxel, (), np.random.default_rng(seed))


@pytest.fixture(params=sorted(matter.KINDS))
def kind(request):
    return request.param


@pytest.mark.parametrize("shape", [SHAPE, (17, 40, 33), (8, 8, 8)])
@pytest.mark.parametrize("voxel", [5.0, 16.0])
def test_any_shape_and_voxel_size_gives_matter(kind, shape, voxel):
    for seed in range(3):
        density, labels = scene(kind, seed, shape, voxel)
        assert density.shape == labels.shape == shape
        assert density.dtype == np.float32
        assert np.isfinite(density).all()
        assert np.abs(density).max() < 10


def test_the_same_seed_gives_the_same_matter(kind):
    np.testing.assert_array_equal(scene(kind, 0)[0], scene(kind, 0)[0])
    assert (scene(kind, 0)[0] != scene(kind, 1)[0]).any()


def test_matter_fills_little_or_much(kind):
    expected = {*map(int, MEMBRANES)} if kind == "layers" else {int(Structure.CRYSTAL), int(Structure.BODY)}
    filled = []
    for seed in range(16):
        labels = scene(kind, seed)[1]
        filled.append(np.isin(labels, list(expected)).mean())
    assert max(filled) > 0.15, filled
    assert np.mean(filled) > 0.05, filled


def test_lattices_repeat():
    """A few frequencies hold most of the power of a lattice, many that of a body without one."""
    shares = []
    for seed in range(12):
        density = scene("lattice", seed)[0]
        power = np.abs(scipy.fft.rfftn(density - density.mean())) ** 2
        waves = np.sqrt(
            sum(
                np.square(w)
                for w in np.meshgrid(*map(np.fft.fftfreq, SHAPE[:2]), np.fft.rfftfreq(SHAPE[2]), indexing="ij")
            )
        )
        fine = np.sort(power[waves > 0.06])[::-1]
        shares.append(fine[: len(fine) // 100].sum() / fine.sum())
    assert np.median(shares) > 0.7, shares


def test_unit_cells_are_periodic_and_between_0_and_1():
    rng = np.random.default_rng(0)
    for _ in range(5):
        cell = matter._unit_cell(np.array([40.0, 80.0, 120.0]), VOXEL, rng)
        assert cell.min() == 0
        assert cell.max() == 1
        steps = np.abs(np.diff(cell, axis=2)).max()
        assert np.abs(cell[..., 0] - cell[..., -1]).max() < 1.5 * steps


def test_what_lies_in_pores_is_lighter_than_what_is_about_them():
    seen = 0
    for seed in range(12):
        density, labels = scene("pores", seed)
        dense = labels == Structure.BODY
        if 0.2 < dense.mean() < 0.9:
            seen += 1
            assert np.median(density[dense]) > np.median(density[~dense]) + 0.1
    assert seen >= 3


def test_layers_are_labelled_where_they_are_dense_and_by_their_normals():
    build = Canvas(
        SHAPE, VOXEL, slice(0, SHAPE[2]), np.full((SHAPE[0], SHAPE[2]), 1e6, np.float32), np.random.default_rng(3)
    )
    matter.add_matter(build, "layers")
    body = build.labels > 0
    assert body.any()
    assert build.density[body].mean() > build.density[~body].mean() + 0.05
