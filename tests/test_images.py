"""Binning and rotation of tilt images: where things land, and what stays the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryolithe.errors import SettingsError
from cryolithe.geometry import centre_px
from cryolithe.images import binned_size, clipped_sigma, fourier_crop, rotate_axis, rotated_shape


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
