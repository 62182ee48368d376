"""Images that have another tilt axis than they are said to have, or are not aligned, are told of; right ones never."""

import functools
import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift
from tiny_series import made, write_series

import cryolithe
from cryolithe.geometry import TiltGeometry
from cryolithe.images import rotate_axis
from cryolithe.reconstruction.evidence.common_lines import coarse_images, far_pairs, line_warnings
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
from cryolithe.tilts import TiltSeries

SIZE = 128


@pytest.fixture(scope="module", params=[2, 4, 6])
def series(request):
    found = cryolithe.simulate(seed=request.param, snr_db=0, shape=(32, SIZE, SIZE))
    return found.tilts, np.array(found.angles_deg)


def warned(images, angles, axis_deg=0.0):
    series = TiltSeries(images, TiltGeometry(tuple(map(float, angles)), images.shape[1:]))
    stack = prepare_stack(series, Preparation(tilt_axis_deg=axis_deg), None)
    return line_warnings(stack, *coarse_images(stack))


@functools.cache
def wide(snr_db):
    found = cryolithe.simulate(seed=4, snr_db=snr_db, shape=(32, 192, 192))
    return found.tilts, found.angles_deg


def turned(axis_deg, snr_db):
    """The middle of images as a microscope takes them whose tilt axis lies so."""
    images, angles = wide(snr_db)
    found = np.stack([rotate_axis(image, -axis_deg) for image in images])
    y, x = (np.array(found.shape[1:]) - SIZE) // 2
    return found[:, y : y + SIZE, x : x + SIZE].copy(), angles


def told_deg(lines):
    (line,) = lines
    return float(re.search(r"at about (-?[\d.]+)°", line)[1])


def moved(images, share, seed=0):
    shifts = np.random.default_rng(seed).normal(0, share * SIZE, (len(images), 2))
    return np.stack([shift(image, by, order=1, mode="mirror") for image, by in zip(images, shifts, strict=True)])


def test_right_images_never_warn_in_whatever_order_and_polarity(series):
    images, angles = series
    for order in (np.arange(len(angles)), np.argsort(np.abs(angles), kind="stable")):
        assert not warned(images[order], angles[order])
    assert not warned(-images, angles)
    assert not warned(images[:, ::-1].copy(), angles)
    assert not warned(moved(images, 0.002), angles)


def test_an_axis_along_x_is_told(series):
    images, angles = series
    assert told_deg(warned(images.transpose(0, 2, 1).copy(), angles)) in (90, 85, -85)


@pytest.mark.parametrize("axis_deg", [-84.0, -50.0, 40.0, 85.3])
def test_the_axis_that_is_told_is_the_one_to_give(axis_deg):
    raw, angles = turned(axis_deg, -5)
    told = told_deg(warned(raw, angles))
    assert abs(told - axis_deg) <= 5
    assert not warned(raw, angles, told)


@pytest.mark.parametrize("axis_deg", [-20.0, -8.0, 10.0, 16.0])
def test_an_axis_that_is_a_little_wrong_is_told_and_nothing_where_it_is_right(axis_deg):
    """The sign of a small angle, or 85° for 95°."""
    raw, angles = turned(axis_deg, -3)
    assert abs(told_deg(warned(raw, angles)) - axis_deg) <= 2
    for near in (-2.0, 0.0, 2.0):
        assert not warned(raw, angles, axis_deg + near)


def test_images_that_are_not_aligned_are_told_with_the_size_of_their_shifts(series):
    images, angles = series
    (line,) = warned(moved(images, 0.05), angles)
    assert "the images are not aligned" in line
    assert 3 <= int(re.search(r"some (\d+) pixels", line)[1]) <= 16  # 6.4 in each direction
    (line,) = warned(moved(images, 0.05).transpose(0, 2, 1).copy(), angles)
    assert told_deg((line,)) in (90, 85, -85)
    assert "not aligned" in line


def test_a_drift_along_the_axis_is_no_other_axis(series):
    images, angles = series
    for most in (8, 16):
        drift = np.linspace(-most, most, len(images)) / 2
        drifted = np.stack(
            [shift(image, (by, 0), order=1, mode="mirror") for image, by in zip(images, drift, strict=True)]
        )
        (line,) = warned(drifted, angles)
        assert "the images are not aligned: along the tilt axis" in line


@pytest.mark.parametrize("kind", ["gain", "weak", "moved"])
def test_patterns_of_the_detector_do_not_pass_for_another_axis(kind):
    found = cryolithe.simulate(seed=2, snr_db=-10, shape=(32, SIZE, SIZE))
    images, rng = found.tilts - found.tilts.mean(), np.random.default_rng(3)
    columns = images.std() * (rng.normal(size=2 * SIZE) if kind != "weak" else 3.0 * (rng.random(2 * SIZE) < 0.1))
    starts = rng.integers(0, SIZE, len(images)) // (1 if kind == "moved" else SIZE)
    for strength in (0.1, 0.3, 1.0):
        rows = np.stack([strength * columns[start : start + SIZE] for start in starts])
        assert not warned((images + rows[:, None, :]).astype(np.float32), found.angles_deg)
    assert not warned((images + rows[:, :, None]).astype(np.float32), found.angles_deg)


def walls(normal_deg, seed, snr_db=0.0):
    """Images of three upright walls, whose projections turn with the tilt unless they run along an edge."""
    rng, angles = np.random.default_rng(seed), np.arange(-60, 61, 3.0)
    turn = np.deg2rad(normal_deg)
    normal, along = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    place = rng.uniform(-1.5 * SIZE, 1.5 * SIZE, 100_000)[:, None] * along
    place = place + rng.choice(rng.uniform(-25, 25, 3), 100_000)[:, None] * normal
    z = rng.uniform(-20, 20, len(place))
    edges = np.linspace(-SIZE / 2, SIZE / 2, SIZE + 1)
    images = []
    for angle in np.deg2rad(angles):
        x = place[:, 1] * np.cos(angle) + z * np.sin(angle)
        images.append(gaussian_filter(np.histogram2d(place[:, 0], x, [edges, edges])[0], 0.7))
    images = np.array(images, dtype=np.float32)
    return images + rng.normal(0, images.std() * 10 ** (-snr_db / 20), images.shape).astype(np.float32), angles


@pytest.mark.parametrize("normal_deg", [0, 6, 15, 60, 90])
@pytest.mark.parametrize("snr_db", [0, -10])
def test_walls_alone_do_not_pass_for_another_axis(normal_deg, snr_db):
    for seed in range(2):
        assert not warned(*walls(normal_deg, seed, snr_db))


def bars_beside_the_axis(turn_deg, seed):
    """Images of short bars near the tilt axis, which look alike in all tilts, whatever direction is taken for it.

    The bars lie across one direction, so that its profiles stand out of the noise most.
    """
    rng, angles = np.random.default_rng(seed), np.arange(-60, 61, 3.0)
    turn, along = np.deg2rad(turn_deg), rng.uniform(-9, 9, (24, 200))
    y = rng.uniform(-SIZE / 2, SIZE / 2, (24, 1)) + along * np.sin(turn)
    x = rng.normal(0, 3, (24, 1)) + along * np.cos(turn)
    edges = np.linspace(-SIZE / 2, SIZE / 2, SIZE + 1)
    images = []
    for angle in np.deg2rad(angles):
        seen = np.histogram2d(y.ravel(), x.ravel() * np.cos(angle), [edges, edges])[0]
        images.append(gaussian_filter(seen, 1.0))
    images = np.array(images, dtype=np.float32)
    return images + rng.normal(0, 4.5 * images.std(), images.shape).astype(np.float32), angles


@pytest.mark.parametrize("turn_deg", [10, -14])
def test_a_direction_of_strong_profiles_does_not_pass_for_another_axis(turn_deg):
    for seed in range(4):
        assert not warned(*bars_beside_the_axis(turn_deg, seed))


def test_nothing_is_said_of_noise_of_small_images_of_few_tilts_or_of_a_narrow_range(series):
    images, angles = series
    across = images.transpose(0, 2, 1).copy()
    rng = np.random.default_rng(0)
    assert not warned(rng.normal(size=images.shape).astype(np.float32), angles)
    assert not warned(across[:, :80, :80].copy(), angles)
    assert not warned(across[:6], angles[:6])
    assert not warned(across, angles / 10)
    assert len(far_pairs(angles))
    for first, second in far_pairs(angles):
        assert abs(np.cos(np.deg2rad(angles[first])) - np.cos(np.deg2rad(angles[second]))) > 0.3


def test_the_command_tells_of_an_axis_along_x(tmp_path):
    found = cryolithe.simulate(seed=4, snr_db=-5, shape=(32, SIZE, SIZE))
    stack, angles = write_series(tmp_path, found.tilts.transpose(0, 2, 1).copy(), found.angles_deg)
    words = (stack, angles, "--method", "fbp", "--thickness", 8, "--contrast", "dark")
    assert "Warning: the images share lines at about" in made(*words, "-o", tmp_path / "wrong.mrc").output
    assert "share lines" not in made(*words, "--tilt-axis", 90, "-o", tmp_path / "right.mrc").output
