"""Binning and rotation of tilt images: where things land, and what stays the same."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from cryolithe.errors import SettingsError
from cryolithe.geometry import centre_px
from cryolithe.images import binned_size, clipped_sigma, fourier_crop, resample, rotate_axis, rotated_shape


def bead(shape, y, x, sigma=2.5):
    """A Gaussian at a position relative to the image's centre."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    squares = (rows - centre_px(shape[0]) - y) ** 2 + (columns - centre_px(shape[1]) - x) ** 2
    return np.exp(-squares / (2 * sigma**2)).astype(np.float32)


def position(image):
    """Centre of mass relative to the image's centre."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    total = image.sum(dtype=np.float64)
    return (
        (rows * image).sum() / total - centre_px(image.shape[0]),
        (columns * image).sum() / total - centre_px(image.shape[1]),
    )


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(60, 71),
    width=st.integers(60, 75),
    factor=st.integers(1, 4),
    y=st.floats(-8, 8),
    x=st.floats(-8, 8),
)
def test_binning_keeps_every_point_relative_to_the_centre(height, width, factor, y, x):
    binned = fourier_crop(bead((height, width), y, x, sigma=4.0), factor)
    assert binned.shape == (height // factor, width // factor)
    found = position(np.where(binned > 0.02, binned, 0))  # what rings around the bead is left out
    np.testing.assert_allclose(np.array(found) * factor, (y, x), atol=0.1)


def test_binning_keeps_means_and_smooth_values():
    image = bead((64, 48), 0, 0, sigma=6.0) + 3
    binned = fourier_crop(image, 2)
    assert binned.mean() == pytest.approx(image.mean(), rel=1e-5)
    blocks = image.reshape(32, 2, 24, 2).mean((1, 3))
    np.testing.assert_allclose(binned, blocks, atol=0.03)


def test_binning_white_noise_divides_its_variance_by_the_area():
    noise = np.random.default_rng(0).standard_normal((256, 240)).astype(np.float32)
    assert fourier_crop(noise, 4).var() == pytest.approx(1 / 16, rel=0.1)


def test_too_much_binning_is_refused():
    with pytest.raises(SettingsError, match="leaves 4"):
        binned_size(32, 8)


@pytest.mark.parametrize("angle", [0, 30, -30, 85, 90, -90, 91, 135, 180, 250])
@pytest.mark.parametrize("shape", [(60, 60), (61, 74), (74, 61)])
def test_a_point_on_the_tilt_axis_comes_to_lie_on_y(angle, shape):
    # The axis runs along (x, y) = (-sin, cos): counter-clockwise from y when y is drawn upwards.
    radians = np.deg2rad(angle)
    along, across = 12.0, 5.0
    x = -along * np.sin(radians) + across * np.cos(radians)
    y = along * np.cos(radians) + across * np.sin(radians)
    rotated = rotate_axis(bead(shape, y, x), angle)
    assert rotated.shape == rotated_shape(shape, angle)
    np.testing.assert_allclose(position(rotated), (along, across), atol=0.05)


def test_rotations_by_right_angles_only_move_pixels():
    image = np.random.default_rng(1).standard_normal((11, 16)).astype(np.float32)
    for angle in (90, -90, 180, 270, 360):
        rotated = rotate_axis(image, angle)
        np.testing.assert_array_equal(np.sort(rotated, axis=None), np.sort(image, axis=None))
        np.testing.assert_array_equal(rotate_axis(rotated, -angle), image)
        near = rotate_axis(image, angle + 1e-7)
        np.testing.assert_allclose(rotated[1:-1, 1:-1], near[1:-1, 1:-1], atol=1e-4)


def test_sigma_ignores_hot_pixels_but_not_a_specimen_on_an_empty_field():
    noise = np.random.default_rng(2).standard_normal(10_000).astype(np.float32)
    noise[:20] = 1000.0
    assert clipped_sigma(noise) == pytest.approx(1.0, abs=0.05)
    sparse = np.zeros(10_000, dtype=np.float32)
    sparse[:5] = 1.0
    assert clipped_sigma(sparse) > 0


def waves(shape, highest, seed=0):
    """A sum of waves of up to ``highest`` cycles per pixel about the middle, as a function of (y, x)."""
    rng = np.random.default_rng(seed)
    radius, angle, phase = highest * np.sqrt(rng.random(40)), *(2 * np.pi * rng.random((2, 40)))
    fy, fx = radius * np.sin(angle), radius * np.cos(angle)

    def at(y, x):
        return sum(np.cos(2 * np.pi * (a * y + b * x) + p) for a, b, p in zip(fy, fx, phase, strict=True)) / 40

    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return at, at(rows - centre_px(shape[0]), columns - centre_px(shape[1])).astype(np.float32)


@pytest.mark.parametrize(("factor", "highest", "error"), [(1, 0.25, 0.004), (2, 0.2, 0.01), (3, 0.13, 0.01)])
@pytest.mark.parametrize("shape", [(96, 90), (95, 101)])
def test_resampling_reads_a_band_limited_image_where_it_should(factor, highest, error, shape):
    """Against the waves themselves: turned by 17°, stretched by 2 %, moved by parts of a pixel."""
    at, image = waves(shape, highest)
    turn = np.deg2rad(17)
    matrix = 1.02 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    small = (40 // factor, 36 // factor)
    found = resample(image, matrix, (1.3, -2.6), small, factor)
    rows, columns = (np.mgrid[: small[0], : small[1]].T - [centre_px(n) for n in small]).T * factor
    x = matrix[0, 0] * columns + matrix[0, 1] * rows + 1.3
    y = matrix[1, 0] * columns + matrix[1, 1] * rows - 2.6
    assert found.std() > 0.05
    np.testing.assert_allclose(found, at(y, x), atol=error)


def test_resampling_agrees_with_scipy_s_splines():
    """For a smooth image any good interpolation gives the same."""
    _, image = waves((80, 70), 0.1)
    turned = scipy.ndimage.rotate(image.astype(np.float64), 30, reshape=False, order=3)
    turn = np.deg2rad(30)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    found = resample(image, matrix, (0.0, 0.0), image.shape)
    np.testing.assert_allclose(found[20:60, 20:50], turned[20:60, 20:50], atol=1e-3)


def test_binning_while_resampling_keeps_what_the_grid_cannot_hold_out():
    """White noise, turned by 30° and binned by 4, has a 16th of its variance: nothing folds back."""
    noise = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    turn = np.deg2rad(30)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    binned = resample(noise, matrix, (0.3, 0.4), (44, 44), 4)
    assert binned.var() == pytest.approx(1 / 16, rel=0.1)
