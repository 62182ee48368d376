"""Orders of a lattice that a network loses are told, by their period and direction; nothing else is taken for one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from tiny_series import made, write_series

from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.projector import make_projector
from cryolithe.reconstruction.slabwise.fusion import FusionCurve, curve_of_record
from cryolithe.reconstruction.slabwise.orders import FEWEST_TILTS, LostOrder, lost_orders, lost_told

ANGLES = tuple(float(a) for a in range(-60, 61, 3))
SHAPE = (48, 96, 112)


def noise(seed, shape=SHAPE):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def wave(frequency, shape=SHAPE):
    """A plane wave in a crystal that is smaller than the field."""
    z, y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    phase = frequency[0] * z[:, None, None] + frequency[1] * y[:, None] + frequency[2] * x
    inside = (z[:, None, None] / 20) ** 2 + (y[:, None] / 40) ** 2 + (x / 45) ** 2 < 1
    return (inside * np.cos(2 * np.pi * phase)).astype(np.float32)


def found(ours, back, angles=ANGLES):
    return lost_orders([(torch.from_numpy(ours), torch.from_numpy(back))], angles)


@pytest.mark.parametrize("frequency", [(0.0, 0.0, 0.25), (0.0, 0.2, 0.0), (0.0, 0.15, 0.1), (0.05, 0.1, -0.15)])
@pytest.mark.parametrize("kept", [0.0, 0.2, 0.8])
def test_what_is_kept_of_a_wave_is_told_where_it_is_little(frequency, kept):
    crystal = wave(frequency)
    orders = found(kept * crystal + 0.3 * noise(1), crystal + noise(2))
    if kept > 0.5:
        assert orders == ()
        return
    (order,) = orders
    assert order.kept == pytest.approx(kept, abs=0.1)
    assert order.period_px == pytest.approx(1 / math.hypot(*frequency), rel=0.08)
    assert "a lattice" in lost_told(orders, 10.0)


def test_a_lattice_of_a_corner_of_a_wide_part_is_found():
    shape = (40, 64, 400)
    crystal = np.zeros(shape, np.float32)
    crystal[:, :, 20:110] = wave((0.0, 0.0, 0.2), (40, 64, 90))
    (order,) = found(0.3 * noise(1, shape), crystal + 0.7 * noise(2, shape))
    assert order.period_px == pytest.approx(5, rel=0.05)


def test_what_is_no_lattice_is_not_told():
    z, y, x = np.indices(SHAPE).astype(np.float32)
    rng = np.random.default_rng(0)
    places = rng.uniform((4, 4, 4), np.array(SHAPE) - 4, (30, 3))
    beads = sum(np.exp(-((z - a) ** 2 + (y - b) ** 2 + (x - c) ** 2) / 6) for a, b, c in places)
    sheet = np.exp(-((0.8 * y + 0.6 * x - 90) ** 2) / 4)
    ball = (z - 24) ** 2 + (y - 50) ** 2 + (x - 60) ** 2 < 18**2
    nothing = np.zeros(SHAPE, np.float32)
    for specimen in (0 * x, 20 * beads, 8 * sheet, 4.0 * ball):
        assert found(nothing, (specimen + noise(3)).astype(np.float32)) == ()


def test_coloured_noise_is_no_lattice():
    projector = make_projector(TiltGeometry(ANGLES, (SHAPE[1], SHAPE[2])), (SHAPE[0], SHAPE[2]))
    rows = torch.from_numpy(noise(4, (len(ANGLES), SHAPE[1], SHAPE[2])))
    rows = rows + rows.roll(1, 1) + rows.roll(1, 2)
    assert found(np.zeros(SHAPE, np.float32), projector.adjoint(rows).numpy()) == ()


def test_few_tilts_and_parts_that_are_not_finite_tell_nothing():
    crystal = wave((0.0, 0.0, 0.25)) + 0.3 * noise(1)
    nothing = np.zeros(SHAPE, np.float32)
    assert found(nothing, crystal)
    assert found(nothing, crystal, ANGLES[: FEWEST_TILTS - 1]) == ()
    assert found(nothing + np.float32(np.nan), crystal) == ()
    assert found(nothing[:8], crystal[:8]) == ()


def test_an_order_is_told_once_by_its_direction():
    crystal = wave((0.0, 0.0, 0.25)) + wave((0.0, 0.2, 0.0)) + wave((0.0, 0.18, 0.18)) + 0.3 * noise(1)
    pair = torch.zeros(SHAPE), torch.from_numpy(crystal)
    orders = lost_orders([pair, pair], ANGLES)
    assert len(orders) == 3
    told = lost_told(orders, 10.0)
    for words in ("40 Å along x", "Å along y", "across x and y", "(0% of it kept)"):
        assert words in told
    assert "4 voxels along x" in lost_told(orders, None)
    assert lost_told((), 10.0) == ""


def test_the_record_holds_what_is_lost():
    lost = (LostOrder((0.0, 0.0, 0.25), 0.1), LostOrder((0.1, -0.2, 0.0), 0.2))
    curve = FusionCurve(0.3, (1.0, 0.5), lost)
    assert curve_of_record(json.loads(json.dumps(curve.record()))) == curve
    assert "lost_orders" not in FusionCurve(0.3, (1.0, 0.5)).record()


@pytest.mark.slow
def test_the_command_warns_of_a_lattice_whose_planes_lie_across_the_tilt_axis(tmp_path):
    """Tilts near 0° alone show the planes across x; those across y stay."""
    shape = (48, 112, 112)
    grid = VolumeGrid(shape)
    specimen = wave((0.0, 0.0, 0.25), shape) + wave((0.0, 0.25, 0.0), shape)
    geometry = TiltGeometry(ANGLES, (grid.shape[1], grid.shape[2]))
    images = -make_projector(geometry, (shape[0], shape[2])).forward(torch.from_numpy(specimen)).numpy()
    images += 1.4 * images.std() * noise(5, images.shape)
    out = tmp_path / "v.mrc"
    words = ("--thickness", shape[0], "--contrast", "dark", "--device", "cpu", "-o", out, "--model", "fast")
    files = write_series(tmp_path, images, ANGLES, "lattice", 10.0)
    warned = [line for line in made(*files, *words).stderr.splitlines() if "a lattice" in line]
    assert len(warned) == 1
    assert warned[0].startswith("Warning: ")
    assert "40 Å along x" in warned[0]
    assert "along y" not in warned[0]
    record = json.loads(out.with_suffix(".json").read_text())
    assert any("a lattice" in warning for warning in record["warnings"])
    assert record["method"]["fusion"]["lost_orders"]
    noisy = write_series(tmp_path, noise(6, images.shape), ANGLES, "noise", 10.0)
    assert "a lattice" not in made(*noisy, *words, "--overwrite").stderr
