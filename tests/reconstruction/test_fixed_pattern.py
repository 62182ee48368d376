"""What is fixed to the detector is told, and what only seems to be is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import rotate
from tiny_series import made, write_series

import cryolithe
from cryolithe.artefacts.fixed_pattern import shared_pattern

TOLD = "all images hold the same pattern"
EDGE = 128


@pytest.fixture(scope="module")
def series():
    found = cryolithe.simulate(seed=3, snr_db=-5, shape=(32, EDGE, EDGE))
    return found.tilts, found.angles_deg


def pattern(share, images, seed=1):
    """White, of such a share of the variance of images that hold it."""
    values = np.random.default_rng(seed).standard_normal(images.shape[1:])
    return (values * images.std() * np.sqrt(share / (1 - share))).astype(np.float32)


def beads_at(places, tilts=12):
    """Noiseless images of beads at ``(z, y, x)`` from the centre of the field, the tilt axis along y."""
    y, x = np.mgrid[:EDGE, :EDGE] - EDGE / 2
    images = [
        sum(np.exp(-((x - bx * np.cos(a) - bz * np.sin(a)) ** 2 + (y - by) ** 2) / 2) for bz, by, bx in places)
        for a in np.deg2rad(np.linspace(-60, 60, tilts))
    ]
    return np.array(images, np.float32)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("edge", [128, 200, 1100])
def test_share_is_that_of_the_power(share, edge):
    noise = np.random.default_rng(0).standard_normal((8, edge, edge)).astype(np.float32)
    assert shared_pattern(noise) == 0
    assert shared_pattern(noise + pattern(share, noise)) == pytest.approx(share, rel=0.15, abs=0.03)


def passed(images, kind):
    """Images less their finest details."""
    ky, kx = np.fft.fftfreq(images.shape[-2])[:, None], np.fft.rfftfreq(images.shape[-1])
    kept = {
        "square": (np.abs(ky) <= 0.33) & (kx <= 0.33),
        "wide": (np.abs(ky) <= 0.4) & (kx <= 0.4),
        "circle": np.hypot(ky, kx) <= 0.4,
        "soft": np.exp(-2 * (np.pi * 2 * np.hypot(ky, kx)) ** 2),
        "very soft": np.exp(-2 * (np.pi * 3 * np.hypot(ky, kx)) ** 2),
    }[kind]
    return np.fft.irfft2(np.fft.rfft2(images) * kept, s=images.shape[-2:]).astype(np.float32)


@pytest.mark.parametrize("kind", ["square", "wide", "circle", "soft", "very soft"])
def test_images_that_were_low_passed_hold_no_pattern(kind):
    """A few coefficients of the finest details are left, or only what rounding and windows make of a specimen."""
    for seed in range(8):
        noise = np.random.default_rng(seed).standard_normal((12, EDGE, EDGE))
        seen = np.random.default_rng(100 + seed).standard_normal((EDGE, EDGE))
        assert shared_pattern(passed(noise + 3 * passed(seen, "very soft"), kind)) == 0


@pytest.mark.parametrize("kind", ["square", "wide"])
def test_a_pattern_is_low_passed_with_its_images(kind):
    noise = np.random.default_rng(0).standard_normal((12, 400, 400))
    assert shared_pattern(passed(noise + pattern(0.15, noise), kind)) == pytest.approx(0.15, abs=0.05)


@pytest.mark.parametrize("turned_deg", [0, 30, 45, 90])
def test_what_lies_on_the_tilt_axis_is_no_pattern(turned_deg):
    """Beads, and a grainy wire all along it, with and without noise, whatever the axis' direction."""
    beads = beads_at([(0, 0, 0), (0, 30, 0), (20, -9, 31), (-15, 20, -40)])
    wire = np.repeat(beads_at([(0, place, 0) for place in range(-60, 60, 7)], tilts=1), 12, axis=0)
    noise = 0.05 * np.random.default_rng(0).standard_normal(beads.shape).astype(np.float32)
    for images in (beads, wire):
        turned = rotate(images, turned_deg, axes=(1, 2), reshape=False, order=1)
        assert shared_pattern(turned) == 0
        assert shared_pattern(turned + noise) == 0


def test_the_light_fill_of_turned_images_is_no_pattern(series):
    """Corners of turned images are filled with one grey, the same everywhere."""
    turned = rotate(series[0], 20, axes=(1, 2), reshape=False, order=1, cval=float(series[0].mean() + 3))
    assert shared_pattern(turned) == 0


@pytest.mark.parametrize("method", [("--method", "fbp"), ("--model", "draft")])
def test_a_run_tells_a_pattern(series, method, tmp_path):
    images, angles = series
    words = (*method, "--thickness", 32, "--contrast", "dark", "--device", "cpu")
    hot = images.copy()
    hot[:, 40, ::9] = 40 * images.std()  # pixels that are clipped spoil nothing
    assert TOLD not in made(*write_series(tmp_path, hot, angles, "right"), *words).stderr
    spoilt = made(*write_series(tmp_path, images + pattern(0.15, images), angles, "spoilt"), *words).stderr
    assert spoilt.count(TOLD) == 1
    # The stack was aligned after the pattern came in: nothing lies at the same place in all images.
    moved = np.stack([np.roll(image, 3 * n, axis=(0, 1)) for n, image in enumerate(images * 0 + pattern(0.15, images))])
    assert TOLD not in made(*write_series(tmp_path, images + moved, angles, "moved"), *words).stderr


@pytest.mark.parametrize("turned_deg", [5, 30])
def test_a_border_that_all_images_share_is_no_pattern(turned_deg, series, tmp_path):
    """An aligned stack whose images were turned alike, its corners filled with zeros."""
    images, angles = series
    inside = rotate(np.ones(images.shape[1:]), turned_deg, reshape=False, order=0) > 0
    counts = np.where(inside, 300 + 17 * images / images.std(), 0).astype(np.float32)
    words = ("--method", "fbp", "--thickness", 32, "--device", "cpu")
    assert TOLD not in made(*write_series(tmp_path, counts, angles, "bordered"), *words).stderr


def test_tilts_close_together_say_nothing(series, tmp_path):
    images, angles = series
    few = np.abs(np.asarray(angles)) < 10
    words = ("--method", "fbp", "--thickness", 32, "--device", "cpu")
    still = images[few] + pattern(0.3, images)
    assert TOLD not in made(*write_series(tmp_path, still, np.asarray(angles)[few], "few"), *words).stderr
