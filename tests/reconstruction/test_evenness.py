"""Gradients and vignettes across images are taken out where they are strong, and told; others stay as they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tiny_series import made, voxels, write_series

import cryolithe
from cryolithe.reconstruction.images.evenness import surface_of, unevenness, without_surface

TOLD = "Uneven images: "
SHAPE = (32, 64, 64)


def places(shape):
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return y, x


@pytest.mark.parametrize("shape", [(40, 64), (64, 41), (3, 2), (1, 1)])
def test_a_quadratic_surface_is_found_as_it_is(shape):
    y, x = places(shape)
    surface = (1 + 3 * x - 2 * y + x**2 - y**2 + 0.5 * x * y).astype(np.float32)
    left = without_surface(surface, surface_of(surface))
    np.testing.assert_allclose(left, left.mean(), atol=1e-5)


def test_share_and_smoothness_are_those_of_surface_and_noise():
    rng = np.random.default_rng(0)
    _, x = places((64, 96))
    noise = rng.standard_normal(x.shape)
    ramp = x / x.std()
    for share in (0.0, 0.1, 2.0):
        found = surface_of((noise + np.sqrt(share) * ramp).astype(np.float32))
        assert found.share == pytest.approx(share, rel=0.08, abs=0.02)
        assert found.smooth == pytest.approx(0, abs=0.05)
    blurred = noise[1:, 1:] + noise[:-1, 1:] + noise[1:, :-1] + noise[:-1, :-1]
    assert surface_of(blurred.astype(np.float32)).smooth == pytest.approx(0.5, abs=0.05)


def noisy(image, deviations=0.25):
    return (image + deviations * np.random.default_rng(0).standard_normal(image.shape)).astype(np.float32)


def test_of_little_noise_a_surface_is_a_part_of_the_specimen():
    y, x = places((64, 64))
    shade = (0.3 * (x**2 + y**2) + 0.2 * x).astype(np.float32)
    assert surface_of(noisy(shade, 0.01)).share > 0.12
    blurred = noisy(shade) + gaussian_filter(noisy(0 * shade, 4), 3)
    assert unevenness([surface_of(blurred.astype(np.float32))] * 5) == 0
    assert unevenness([surface_of(noisy(shade))] * 5) > 0


BODIES = {
    "ball": lambda y, x: np.sqrt(np.clip(0.3 - x**2 - y**2, 0, None)),
    "larger ball": lambda y, x: np.sqrt(np.clip(0.7 - x**2 - y**2, 0, None)),
    "ball at a side": lambda y, x: np.sqrt(np.clip(0.3 - (x - 0.5) ** 2 - y**2, 0, None)),
    "vesicle": lambda y, x: np.sqrt(np.clip(0.7 - x**2 - y**2, 0, None)) - np.sqrt(np.clip(0.3 - x**2 - y**2, 0, None)),
    "half a field": lambda y, x: 0.5 * (x > 0.3),
    "edge of a hole": lambda y, x: 0.5 * (np.hypot(x - 2, y) < 1.7),
    "ridge": lambda y, x: np.exp(-(((x - 0.2 * y) / 0.3) ** 2)),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_large_body_in_noise_is_no_light(body):
    """Whose projection is in good part a surface of the second order, but is not only that."""
    y, x = places((96, 96))
    image = BODIES[body](y, x)
    image = image / image.std()
    assert surface_of(noisy(image, 1)).share > 0.12
    assert unevenness([surface_of(noisy(1.3 * image, 1))] * 5) == 0
    light = image * 0.3 + 1.5 * (0.8 * x + 0.6 * y)
    assert unevenness([surface_of(noisy(light, 1))] * 5) > 0


@pytest.fixture(scope="module")
def series():
    found = cryolithe.simulate(seed=1, snr_db=-5, shape=SHAPE)
    return (found.tilts / found.tilts.std()).astype(np.float32), found.angles_deg


@pytest.mark.parametrize("method", [("--method", "fbp"), ("--model", "draft")])
def test_a_gradient_changes_the_volume_hardly(series, method, tmp_path):
    """Of images of 55 electrons a pixel, brighter by 40 % at one side, and darker in the corners."""
    tilts, angles = series
    words = (*method, "--thickness", SHAPE[0], "--contrast", "dark", "--device", "cpu")
    plain = 55 * (1 + 0.134 * tilts)
    even = made(*write_series(tmp_path, plain, angles, "even"), *words, "-o", tmp_path / "even_rec.mrc")
    assert TOLD not in even.stderr
    y, x = places(tilts.shape[1:])
    shaded = (plain * (1 + 0.2 * x) * (1 - 0.1 * (x**2 + y**2))).astype(np.float32)
    uneven = made(*write_series(tmp_path, shaded, angles, "uneven"), *words, "-o", tmp_path / "uneven_rec.mrc")
    assert uneven.stderr.count(TOLD) == 1
    first, second = (voxels(tmp_path / f"{name}_rec.mrc").ravel() for name in ("even", "uneven"))
    assert np.corrcoef(first, second)[0, 1] > 0.96
    record = json.loads((tmp_path / "uneven_rec.json").read_text())
    assert record["method"]["unevenness"] > 0.5
    assert "unevenness" not in json.loads((tmp_path / "even_rec.json").read_text())["method"]


def test_a_ball_as_large_as_the_field_is_no_light(tmp_path):
    """Its projection is the same at every tilt."""
    y, x = places((64, 64))
    ball = 2 * np.sqrt(np.clip(0.35 - x**2 - y**2, 0, None)).astype(np.float32)
    rng = np.random.default_rng(0)
    angles = np.arange(-60, 61, 6.0)
    images = np.stack([ball + rng.standard_normal(ball.shape).astype(np.float32) / 2 for _ in angles])
    assert np.median([surface_of(image).share for image in images]) > 0.2
    result = made(*write_series(tmp_path, images, angles), "--method", "fbp", "--thickness", 32)
    assert TOLD not in result.stderr


def test_images_in_memory_and_in_a_file_are_made_even_alike(series, tmp_path):
    tilts, angles = series
    y, x = places(tilts.shape[1:])
    shaded = (tilts + 2 * x - y).astype(np.float32)
    made(*write_series(tmp_path, shaded, angles), "--method", "fbp", "--thickness", 32, "-o", tmp_path / "file.mrc")
    held = cryolithe.fbp(shaded, angles, 5.0, thickness=32)
    assert any(note.startswith(TOLD) for note in held.notes)
    assert np.array_equal(voxels(tmp_path / "file.mrc"), held.voxels)


def test_a_gradient_of_one_image_alone_stays(series, tmp_path):
    tilts, angles = series
    shaded = tilts.copy()
    shaded[3] += 2 * places(tilts.shape[1:])[1]
    result = made(*write_series(tmp_path, shaded, angles), "--method", "fbp", "--thickness", 32)
    assert TOLD not in result.stderr
