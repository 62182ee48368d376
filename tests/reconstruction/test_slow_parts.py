"""What changes slowly across images goes around a network: the network does not see it, the volume has it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tiny_series import made, voxels, write_series

import cryolithe
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.confidence.members import choose_members, stack_of
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.images.slow import LEAST_SHARE, SlowPart, slow_of, slow_part, without_slow
from cryolithe.tilts import TiltSeries

TOLD = "goes around the network"
SHAPE = (32, 96, 96)
NEIGHBOURS = ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1]))


def part_of(images):
    found = [slow_of(image) for image in images]
    return SlowPart(np.stack([slow.squares for slow in found]), images.shape[1:], 1.0)


@pytest.mark.parametrize("shape", [(40, 64), (61, 43), (7, 9), (1, 1), (3, 100)])
def test_an_image_is_its_slow_part_and_the_rest(shape):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((3, *shape)).astype(np.float32) + 5
    rest = np.stack([without_slow(image, slow_of(image)) for image in images])
    np.testing.assert_allclose(rest + part_of(images).rows(0, shape[0]), images, atol=2e-6)


def test_rows_beyond_an_image_mirror_it():
    images = np.random.default_rng(0).standard_normal((2, 30, 40)).astype(np.float32)
    part = part_of(images)
    whole = part.rows(0, 30)
    np.testing.assert_allclose(part.rows(-3, 36), np.concatenate([whole[:, 2::-1], whole, whole[:, :-4:-1]], 1))
    np.testing.assert_allclose(part.rows(11, 5), whole[:, 11:16])


def test_a_constant_is_slow_and_so_is_a_wide_wave():
    x = np.arange(256)
    even = np.full((50, 70), 3, np.float32)
    assert np.abs(without_slow(even, slow_of(even))).max() < 1e-5
    for wave_px, least, most in ((200, 0.85, 0.95), (100, 0.5, 0.65), (40, 0.0, 0.06)):
        image = np.broadcast_to(np.cos(2 * np.pi * (x + 0.5) / wave_px), (256, 256)).astype(np.float32)
        rest = without_slow(image, slow_of(image))
        inside = (slice(None), slice(48, -48))
        kept = float((image * (image - rest))[inside].mean() / np.square(image)[inside].mean())
        assert least <= kept <= most, wave_px


def test_little_of_it_stays_in_the_images_and_so_does_that_of_little_noise():
    rng = np.random.default_rng(0)
    bump = 5 * gaussian_filter(np.pad(np.ones((1, 1)), 48).astype(np.float64), 20)
    bump = (bump / bump.max()).astype(np.float32)

    def gate(size, noise):
        one = size * bump + noise * rng.standard_normal(bump.shape).astype(np.float32)
        return slow_part([slow_of(one)] * 5, one.shape)

    assert gate(1, 1) is None
    assert gate(5, 1).share > LEAST_SHARE
    blurred = gaussian_filter(rng.standard_normal(bump.shape), 3).astype(np.float32)
    assert slow_part([slow_of(5 * bump + blurred)] * 5, bump.shape) is None


@pytest.mark.parametrize("unit", [1.0, 1e-16])
@pytest.mark.parametrize("shape", [(61, 43), (128, 130), (150, 301)])
def test_what_is_measured_is_what_is_taken_out(shape, unit):
    """In whatever unit images are; a part is measured by what is near, and taken out as a whole."""
    slope = np.add.outer(np.linspace(0, 3, shape[0]) ** 2, np.linspace(0, 2, shape[1]))
    image = (slope + np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    found = slow_of(np.float32(unit) * image)
    rest = without_slow(image, slow_of(image)).astype(np.float64)
    assert found.share == pytest.approx((image - rest).var() / rest.var(), rel=1e-4)
    sides = [np.mean((rest - rest.mean())[a] * (rest - rest.mean())[b]) for a, b in NEIGHBOURS]
    assert found.smooth == pytest.approx(np.mean(sides) / rest.var(), abs=1e-4)


@pytest.mark.parametrize("uneven", [False, True])
def test_prepared_images_and_their_slow_part_are_the_images(uneven, tmp_path):
    """Of a stack that a surface was taken out of, too."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((5, 60, 70)).astype(np.float32)
    images += np.float32(6 if uneven else 0.1) * np.linspace(0, 1, 70, dtype=np.float32)
    series = TiltSeries(images, TiltGeometry((-40.0, -20.0, 0.0, 20.0, 40.0), (60, 70)))
    whole = prepare_stack(series, Preparation(), None)
    parts = [prepare_stack(series, Preparation(slow_from=0.0), path) for path in (None, tmp_path / "stack.f32")]
    assert {bool(stack.unevenness) for stack in (whole, *parts)} == {uneven}
    for part in parts:
        np.testing.assert_allclose(part.read_rows(0, 60) + part.slow_rows(0, 60), whole.read_rows(0, 60), atol=2e-6)
    np.testing.assert_array_equal(parts[0].slow.squares, parts[1].slow.squares)


@pytest.fixture(scope="module")
def series():
    """A cell's piece without light, and with ice that is thicker around its middle."""
    found = cryolithe.simulate(seed=1, snr_db=-5, shape=SHAPE)
    plain = (found.tilts / found.tilts.std()).astype(np.float32)
    y, x = np.mgrid[-1 : 1 : SHAPE[1] * 1j, -1 : 1 : SHAPE[2] * 1j]
    lens = np.exp(-((x - 0.2) ** 2 + (y + 0.1) ** 2) / 0.8)
    return plain, (plain - 4 * lens / np.ptp(lens)).astype(np.float32), found.angles_deg


@pytest.fixture(scope="module")
def volumes(series, tmp_path_factory):
    """By name: of the plain and the uneven series, by the command."""
    folder = tmp_path_factory.mktemp("slow")
    plain, uneven, angles = series
    more = 2 * uneven - plain
    common = ("--thickness", SHAPE[0], "--contrast", "dark", "--device", "cpu")
    runs = {
        "plain": (plain, ("--model", "draft")),
        "uneven": (uneven, ("--model", "draft")),
        "more": (more, ("--model", "draft")),
        "alone": (uneven, ("--model", "draft", "--fbp-share", 0)),
        "plain alone": (plain, ("--model", "draft", "--fbp-share", 0)),
        "fbp": (uneven, ("--method", "fbp")),
        "plain fbp": (plain, ("--method", "fbp")),
    }
    found = {}
    for name, (images, words) in runs.items():
        out = folder / f"{name}_rec.mrc"
        told = made(*write_series(folder, images, angles, name.replace(" ", "_")), *words, *common, "-o", out).stderr
        found[name] = voxels(out), told, json.loads(out.with_suffix(".json").read_text())
    return found


def like(one, other):
    return float(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1])


def test_it_is_told_where_it_is(volumes):
    assert {name for name, (_, told, _) in volumes.items() if TOLD in told} == {"uneven", "more"}
    assert {name for name, (*_, record) in volumes.items() if "slow_share" in record["method"]} == {"uneven", "more"}


def test_the_network_does_not_see_it(volumes):
    """But for what little of the lens is not slow, it makes the same volume; where it sees the lens, it does not."""
    back = volumes["fbp"][0] - volumes["plain fbp"][0]
    hidden = like(volumes["uneven"][0] - back, volumes["plain"][0])
    seen = like(volumes["alone"][0] - back, volumes["plain alone"][0])
    assert hidden > 0.97
    assert seen < hidden - 0.05


def test_details_stay_as_they_are_without_it(volumes):
    fine = [volume - gaussian_filter(volume, 4) for volume in (volumes["uneven"][0], volumes["plain"][0])]
    assert like(*fine) > 0.98


@pytest.mark.parametrize(("name", "times"), [("uneven", 1), ("more", 2)])
def test_the_volume_has_as_much_of_it_as_filtered_back_projection(volumes, name, times):
    whole = gaussian_filter(volumes[name][0] - volumes["plain"][0], 4)
    back = times * gaussian_filter(volumes["fbp"][0] - volumes["plain fbp"][0], 4)
    assert like(whole, back) > 0.97
    assert np.polyfit(back.ravel(), whole.ravel(), 1)[0] == pytest.approx(1, abs=0.15)


def test_slabs_make_no_difference(series, tmp_path, monkeypatch):
    _, uneven, angles = series
    settings = {"model": "draft", "thickness": SHAPE[0], "contrast": "dark"}
    whole = cryolithe.reconstruct(uneven, angles, 10.0, **settings)
    monkeypatch.setattr("cryolithe.reconstruction.slabwise.plan.MOST_SLAB_ROWS", 16)
    slabs = cryolithe.reconstruct(uneven, angles, 10.0, **settings)
    np.testing.assert_allclose(slabs.voxels, whole.voxels, atol=1e-4 * whole.voxels.std())


@pytest.mark.parametrize("member", choose_members(np.arange(-60, 61, 10.0)), ids=lambda member: member.name)
def test_members_of_an_ensemble_have_their_own_slow_rows(member):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((13, 40, 30)).astype(np.float32)
    geometry = TiltGeometry(tuple(np.arange(-60, 61, 10.0).tolist()), (40, 30))
    whole = PreparedStack(images, geometry, 1.0, 9.0, slow=part_of(images))
    of_member = stack_of(whole, member)
    expected = whole.slow_rows(0, 40)[list(member.tilts)].flip(member.axes)
    for first, rows in ((0, 40), (3, 11), (25, 15)):
        np.testing.assert_array_equal(of_member.slow_rows(first, rows), expected[:, first : first + rows])
        shown = of_member.read_rows(first, rows).clamp(-9, 9) + expected[:, first : first + rows]
        np.testing.assert_allclose(of_member.seen_rows(first, rows), shown, atol=1e-6)


def test_maps_of_confidence_take_it_for_held_by_the_images(series, tmp_path):
    plain, uneven, angles = series
    found = {}
    for name, images in (("plain", plain), ("uneven", uneven)):
        words = ("--model", "draft", "--thickness", SHAPE[0], "--contrast", "dark", "--device", "cpu", "--confidence")
        made(*write_series(tmp_path, images, angles, name), *words, "-o", tmp_path / f"{name}_rec.mrc")
        found[name] = voxels(tmp_path / f"{name}_rec_confidence.mrc"), voxels(tmp_path / f"{name}_rec_unsupported.mrc")
    for first, second in zip(*found.values(), strict=True):
        assert second.mean() == pytest.approx(first.mean(), abs=0.02)
