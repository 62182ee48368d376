"""Orders of a lattice that a network loses are told and go around it; nothing else is taken for one."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tiny_series import made, voxels, write_series

from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.confidence.members import choose_members, stack_of
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.slabwise.fusion import FusionCurve, curve_of_record
from cryolithe.reconstruction.slabwise.lattice import REACH, lattice_part
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
@pytest.mark.parametrize("kept", [0.0, 0.2, 0.7, 0.9])
def test_what_is_kept_of_a_wave_is_told_where_it_is_little(frequency, kept):
    crystal = wave(frequency)
    orders = found(kept * crystal + 0.3 * noise(1), crystal + noise(2))
    if kept > 0.8:
        assert orders == ()
        return
    (order,) = orders
    assert order.kept == pytest.approx(kept, abs=0.1)
    assert order.period_px == pytest.approx(1 / math.hypot(*frequency), rel=0.08)
    assert "a lattice" in lost_told(orders, orders, {}, False, 10.0)


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
    told = lost_told(orders, orders, {}, False, 10.0)
    for words in (
        "40 Å along x",
        "Å along y",
        "across x and y",
        "(0% of it kept)",
        "are taken from the back-projection.",
    ):
        assert words in told
    assert "pattern of the detector" not in told
    assert "a pattern of the detector, which looks the same" in lost_told(orders, orders, {}, True, 10.0)
    first = min(orders, key=lambda order: order.frequency_per_px[1])
    one, others = lost_told(orders, [first], {}, False, None).split(" are taken from the back-projection; ")
    assert "4 voxels along x" in one
    assert "along y" not in one
    assert "along y" in others
    assert "and stay weak" in others


def test_the_record_holds_what_is_lost():
    lost = (LostOrder((0.0, 0.0, 0.25), 0.1), LostOrder((0.1, -0.2, 0.0), 0.2))
    curve = FusionCurve(0.3, (1.0, 0.5), lost)
    assert curve_of_record(json.loads(json.dumps(curve.record()))) == curve
    assert "lost_orders" not in FusionCurve(0.3, (1.0, 0.5)).record()


# What goes around the network


def crystal_images(frequencies, shape=SHAPE, seed=5, level=1.4):
    """Images of crystals with noise, and their geometry."""
    specimen = sum(wave(frequency, shape) for frequency in frequencies)
    geometry = TiltGeometry(ANGLES, (shape[1], shape[2]))
    images = make_projector(geometry, (shape[0], shape[2])).forward(torch.from_numpy(specimen)).numpy()
    return images + np.float32(level * images.std()) * noise(seed, images.shape), geometry, specimen


def projected_back(part, geometry, depth):
    rows = torch.from_numpy(part.rows(0, geometry.image_shape[0]))
    return fbp(make_projector(geometry, (depth, geometry.image_shape[1])), rows).numpy()


def strength(volume, frequency):
    """Amplitude of a wave in the middle of a volume, and its phase."""
    crystal, z, y, x = wave((0.0, 0.0, 0.0), volume.shape), *(np.arange(n) - (n - 1) / 2 for n in volume.shape)
    phase = frequency[0] * z[:, None, None] + frequency[1] * y[:, None] + frequency[2] * x
    return complex(2 * (volume * crystal * np.exp(-2j * np.pi * phase)).sum() / crystal.sum())


@pytest.mark.parametrize("frequency", [(0.0, 0.0, 0.25), (0.0, 0.2, 0.0), (0.0, 0.15, 0.1), (0.05, 0.1, -0.15)])
def test_an_order_goes_around_as_back_projection_shows_it(frequency):
    images, geometry, _ = crystal_images([frequency])
    whole = fbp(make_projector(geometry, (SHAPE[0], SHAPE[2])), torch.from_numpy(images)).numpy()
    for kept in (0.0, 0.4):
        part = lattice_part(images, geometry, SHAPE[0], (LostOrder(frequency, kept),))
        made = projected_back(part, geometry, SHAPE[0])
        assert abs(strength(made, frequency) / strength(whole, frequency) - (1 - kept)) < 0.2 * (1 - kept)
    clean = crystal_images([frequency], level=0.0)[0]
    orders = (LostOrder(frequency, 0.0),)
    noises = [
        projected_back(lattice_part(one, geometry, SHAPE[0], orders), geometry, SHAPE[0]) for one in (images, clean)
    ]
    all_of_it = whole - fbp(make_projector(geometry, (SHAPE[0], SHAPE[2])), torch.from_numpy(clean)).numpy()
    assert (noises[0] - noises[1]).std() < 0.2 * all_of_it.std()


def test_orders_that_lie_close_are_taken_once():
    orders = (LostOrder((0.0, 0.0, 0.25), 0.0), LostOrder((0.0, 0.01, 0.25), 0.0))
    images, geometry, _ = crystal_images([(0.0, 0.0, 0.25)])
    one, both = (lattice_part(images, geometry, SHAPE[0], some).rows(0, SHAPE[1]) for some in (orders[:1], orders))
    place = np.argmax(np.abs(np.fft.fft2(one[20])))
    found = [np.abs(np.fft.fft2(rows[20])).ravel()[place] for rows in (one, both, images)]
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[0] == pytest.approx(found[2], rel=1e-3)


@pytest.mark.parametrize("shape", [(96, 112), (333, 301), (400, 258)])
def test_a_row_of_what_goes_around_is_the_same_in_slabs_of_any_height(shape):
    geometry = TiltGeometry(ANGLES[::8], shape)
    images = noise(3, (geometry.tilts, *shape)) + np.cos(0.3 * np.arange(shape[1])).astype(np.float32)
    orders = tuple(LostOrder(place, 0.1) for place in ((0.0, 0.15, 0.1), (0.0, 0.2, 0.0), (0.02, -0.1, 0.15)))
    part = lattice_part(images, geometry, 4, orders)  # so thin that all images show all
    assert len(part.orders) == len(orders)
    whole = part.rows(0, shape[0])
    for height in (1, 3, 8, 16, 24):
        for first in range(0, shape[0] - height, 61):
            np.testing.assert_array_equal(part.rows(first, height), whole[:, first : first + height])
    np.testing.assert_array_equal(part.rows(-3, 5), np.concatenate([whole[:, 2::-1], whole[:, :2]], 1))


def test_what_goes_around_is_what_images_hold_there():
    """Against the definition: values of the whole transform, weighed, at k and -k."""
    shape, order = (45, 52), LostOrder((0.0, 0.2, -0.1), 0.0)
    geometry = TiltGeometry((0.0, 0.1), shape)
    images = noise(3, (1, *shape)).repeat(2, axis=0)  # an order in one image alone is a fringe
    made = lattice_part(images, geometry, 16, (order,)).rows(0, shape[0])[0]
    y, x = np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")
    away = [np.hypot(y - sign * 0.2, x + sign * 0.1) / REACH for sign in (1, -1)]
    weight = sum(0.5 + 0.5 * np.cos(np.pi * np.clip(2 * one - 1, 0, 1)) for one in away)
    np.testing.assert_allclose(made, np.fft.ifft2(np.fft.fft2(images[0]) * weight).real, atol=1e-5)


def test_a_pattern_of_the_detector_does_not_go_around():
    """It stands in all images alike, also in those whose central slice is far from the order."""
    images, geometry, _ = crystal_images([(0.0, 0.0, 0.25)])
    order = LostOrder((0.0, 0.0, 0.25), 0.0)
    assert lattice_part(images, geometry, SHAPE[0], (order,)).orders == (order,)
    stripes = np.cos(2 * np.pi * 0.25 * np.arange(SHAPE[2])).astype(np.float32)
    fixed = noise(1, images.shape) + stripes
    part = lattice_part(fixed, geometry, SHAPE[0], (order,))
    assert (part.orders, part.alone) == ((), ())
    assert not part.rows(0, 8).any()


def fringes(tilts, frequency, level=1.0):
    """Images of a specimen without any lattice, some of them with a wave; and the orders that this makes."""
    geometry = TiltGeometry(ANGLES, (SHAPE[1], SHAPE[2]))
    body = gaussian_filter(noise(8), 3)
    images = make_projector(geometry, (SHAPE[0], SHAPE[2])).forward(torch.from_numpy(body)).numpy()
    images = images / images.std() + noise(9, images.shape)
    y, x = np.indices(geometry.image_shape)
    images[list(tilts)] += np.float32(level) * np.cos(2 * np.pi * (frequency[0] * y + frequency[1] * x))
    turns = np.deg2rad(np.array(ANGLES)[list(tilts)])
    orders = [LostOrder((frequency[1] * np.sin(t), frequency[0], frequency[1] * np.cos(t)), 0.01) for t in turns]
    return images.astype(np.float32), geometry, tuple(orders)


@pytest.mark.parametrize("frequency", [(0.11, 0.27), (0.0, 0.25), (0.2, 0.0), (0.3, 0.05)])
@pytest.mark.parametrize("tilts", [(27,), (3, 11, 20, 33)])
def test_a_fringe_of_single_images_is_no_lattice(tilts, frequency):
    images, geometry, orders = fringes(tilts, frequency)
    part = lattice_part(images, geometry, SHAPE[0], orders)
    assert part.orders == ()
    assert not part.rows(0, 8).any()
    if len(tilts) == 1 or frequency[0] < 0.2:
        assert tuple(tilt for _, tilt in part.alone) == tilts


def test_one_crystal_lends_its_thick_orders_belief_and_a_fringe_gets_none():
    frequencies = [(0.0, 0.0, 0.25), (0.0, 0.2, 0.0)]
    images, geometry, _ = crystal_images(frequencies, level=0.3)
    lost = tuple(LostOrder(one, 0.1) for one in frequencies)
    assert set(lattice_part(images, geometry, SHAPE[0], lost).orders) == set(lost)
    _, _, (fringe,) = fringes((27,), (0.11, 0.27))
    y, x = np.indices(geometry.image_shape)
    images[27] += 2 * images.std() * np.cos(2 * np.pi * (0.11 * y + 0.27 * x)).astype(np.float32)
    part = lattice_part(images, geometry, SHAPE[0], (*lost, fringe))
    assert set(part.orders) == set(lost)
    assert part.alone == ((fringe, 27),)


@pytest.mark.parametrize("frequency", [(0.0, 0.25, 0.0), (0.0, 0.2, 0.01), (0.0, 0.0, 0.25)])
def test_an_order_whose_power_falls_with_dose_is_still_that_of_a_crystal(frequency):
    """Dose-symmetric, 41 images of 3 e/Å²: of 12 Å a tenth of the power is left after the first third."""
    clean, geometry, _ = crystal_images([frequency], level=0.0)
    angles = np.array(ANGLES)
    taken = np.argsort(np.argsort(np.abs(angles) + 0.1 * (angles < 0)))
    damaged = clean * np.exp(-taken / 12)[:, None, None].astype(np.float32)
    images = damaged + np.float32(0.3 * clean.std()) * noise(6, clean.shape)
    part = lattice_part(images, geometry, SHAPE[0], (LostOrder(frequency, 0.1),))
    assert part.orders
    assert not part.alone


def test_images_of_fringes_are_told_by_their_numbers():
    lost = tuple(LostOrder((0.0, 0.0, x), 0.01) for x in (0.25, 0.2))
    one = lost_told(lost[:1], (), {lost[0]: 28}, False, 10.0)
    assert one.startswith("waves of 40 Å along x (1% of it kept) stand in image 28 alone, as fringes do")
    assert one.endswith("--exclude 28")
    assert "a lattice which" not in one
    both = lost_told(lost, lost[1:], {lost[0]: 28}, False, 10.0)
    assert "50 Å along x (1% of it kept) are taken from the back-projection; waves of 40 Å" in both
    two = lost_told(lost, (), {lost[0]: 28, lost[1]: 3}, False, 10.0)
    assert "stand in one of the images 3,28 each" in two


@pytest.mark.slow
def test_the_command_does_not_paint_a_fringe_of_one_image_through_the_volume(tmp_path):
    images, _, (order,) = fringes((27,), (0.11, 0.27), 1.5)
    files = write_series(tmp_path, -images, ANGLES, "fringe", 10.0)
    words = ("--thickness", SHAPE[0], "--contrast", "dark", "--device", "cpu")
    told = made(*files, *words, "-o", tmp_path / "v.mrc", "--model", "fast").stderr
    assert "stand in image 28 alone" in told
    assert "--exclude 28" in told
    made(*files, *words[:2], "--device", "cpu", "-o", tmp_path / "f.mrc", "--method", "fbp")
    drawn, shown = (abs(strength(voxels(tmp_path / name), order.frequency_per_px)) for name in ("v.mrc", "f.mrc"))
    assert drawn < 0.4 * shown


@pytest.mark.parametrize("name", ["even", "odd", "mirror_x", "mirror_y"])
def test_members_of_an_ensemble_have_what_is_theirs_of_it(name):
    images, geometry, _ = crystal_images([(0.0, 0.15, 0.1)])
    order = LostOrder((0.0, 0.15, 0.1), 0.0)
    stack = PreparedStack(images, geometry, 1.0, math.inf)
    part = lattice_part(images, geometry, SHAPE[0], (order,))
    (member,) = (one for one in choose_members(geometry.angles_deg) if one.name == name)
    own = stack_of(stack, member)
    assert own.base is stack
    whole = stack_of(PreparedStack(part.rows(0, SHAPE[1]), geometry, 1.0, math.inf), member)
    found = own.rows_of_base(lambda first, rows: torch.from_numpy(part.rows(first, rows)), 5, 9)
    torch.testing.assert_close(found, whole.read_rows(5, 9))


@pytest.mark.slow
def test_the_command_keeps_a_lattice_whose_planes_lie_across_x_and_tells_of_it(tmp_path):
    """Tilts near 0° alone show these; those across y stay."""
    shape, across = (48, 112, 112), (0.0, 0.0, 0.25)
    images, _, specimen = crystal_images([across, (0.0, 0.25, 0.0)], shape)
    images = -images
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
    made(*files, "--thickness", shape[0], "--device", "cpu", "-o", tmp_path / "f.mrc", "--method", "fbp")
    alone = tmp_path / "alone.mrc"
    assert "a lattice" not in made(*files, *words[:-4], "-o", alone, "--model", "fast", "--fbp-share", 0).stderr
    kept, shown, lost = (abs(strength(voxels(path), across)) for path in (out, tmp_path / "f.mrc", alone))
    assert 0.9 * shown < kept < 1.4 * shown
    assert lost < 0.5 * shown
    assert np.corrcoef(-voxels(out).ravel(), specimen.ravel())[0, 1] > 0.4
    noisy = write_series(tmp_path, noise(6, images.shape), ANGLES, "noise", 10.0)
    assert "a lattice" not in made(*noisy, *words, "--overwrite").stderr
