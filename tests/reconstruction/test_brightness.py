"""Images in proportion to counts are divided by their means, and that is told; all others stay as they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import shift
from tiny_series import made, voxels, write_series

import cryolithe
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.images.brightness import brightness_factors, brightness_of
from cryolithe.reconstruction.images.preparation import Preparation, check_images, prepare_stack
from cryolithe.tilts import TiltSeries

TOLD = "Brightness: "
SHAPE = (32, 64, 64)
ANGLES = np.arange(-60.0, 61.0, 3.0)
# Of the electrons of the image that is not tilted: a slab as thick as 0.8 mean free paths.
LEFT = np.exp(-0.8 * (1 / np.cos(np.radians(ANGLES)) - 1))


def factors_of(images, angles=ANGLES):
    return brightness_factors([brightness_of(np.asarray(image, np.float32)) for image in images], angles)


def counted(means, seed=0, pixels=48):
    rng = np.random.default_rng(seed)
    return rng.poisson(np.asarray(means)[:, None, None], (len(means), pixels, pixels)).astype(np.float32)


def test_counts_get_the_mean_of_the_median_image():
    images = counted(40 * LEFT)
    found = factors_of(images)
    means = found * images.mean(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(means, means.mean(), rtol=0.02)
    images[5, 7, 7] = 1e5
    np.testing.assert_allclose(factors_of(images), found, rtol=0.02)


@pytest.mark.parametrize("per_pixel", [0.4, 3.0, 300.0])
def test_few_and_many_electrons_are_counts(per_pixel):
    assert factors_of(counted(per_pixel * LEFT)) is not None


@pytest.mark.parametrize("shape", [(8, 8), (3, 9), (17, 2), (1, 5)])
def test_tiny_images_are_measured_or_left(shape):
    images = np.random.default_rng(1).poisson(90 * LEFT[:, None, None], (len(LEFT), *shape)).astype(np.float32)
    found = factors_of(images)
    assert min(shape) < 3 or found is not None


def test_an_image_of_a_long_exposure_is_brought_to_the_others():
    means = np.full(len(ANGLES), 20.0)
    means[20] *= 5
    found = factors_of(counted(means))
    assert found[20] == pytest.approx(0.2, rel=0.01)
    np.testing.assert_allclose(np.delete(found, 20), 1, rtol=0.02)


def test_hardly_an_electron_is_not_blown_up():
    means = np.full(len(ANGLES), 20.0)
    means[3] = 0.1
    assert factors_of(counted(means))[3] == 4


def test_a_bar_that_hides_nearly_half_of_an_image_has_no_share_in_its_light():
    images, plain = counted(40 * LEFT), factors_of(counted(40 * LEFT))
    for number, angle in enumerate(ANGLES):
        hidden = int(48 * 0.47 * max(angle - 30, 0) / 30)
        images[number, :, :hidden] = np.random.default_rng(number).poisson(0.4 * LEFT[number], (48, hidden))
    np.testing.assert_allclose(factors_of(images), plain, rtol=0.05)


def test_images_of_unknown_light_have_that_of_their_neighbours():
    images, plain = counted(40 * LEFT), factors_of(counted(40 * LEFT))
    images[25, :, :24] = 0  # as an alignment fills in, too wide to be replaced
    images[26] = images[26] - images[26].mean()
    np.testing.assert_allclose(factors_of(images), plain, rtol=0.03)


def test_counts_that_an_alignment_interpolated_are_counts():
    """A cubic kernel makes a few negative values of few electrons."""
    images = shift(counted(1.5 * LEFT, pixels=96), (0, 0.5, 0.5), order=3, mode="mirror")
    assert (images < 0).mean() > 0.03
    assert factors_of(images) is not None


def _normalised(images):
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    return centred / centred.std(axis=(1, 2), keepdims=True)


OTHERS = {
    "exposures of one length": lambda: counted(np.linspace(40, 42, len(ANGLES))),
    "normalised": lambda: _normalised(counted(40 * LEFT)),
    "normalised, moved": lambda: _normalised(counted(40 * LEFT)) + 20 * LEFT[:, None, None],
    "a level below zero": lambda: counted(40 * LEFT) - 30,
    "a dark field": lambda: counted(10 / np.cos(np.radians(ANGLES))),
    "a body in nothing": lambda: counted(40 * LEFT) * (np.abs(np.linspace(-1, 1, 48)) < 0.4),
    "no noise, one value each": lambda: np.broadcast_to(40 * LEFT[:, None, None], (len(ANGLES), 48, 48)),
    "wide borders": lambda: np.where(np.arange(48) < 24, 0, counted(40 * LEFT)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_images_stay_as_they_are(kind):
    assert factors_of(OTHERS[kind]()) is None


@pytest.fixture(scope="module")
def series():
    found = cryolithe.simulate(seed=1, snr_db=-5, shape=SHAPE)
    tilts = (found.tilts / found.tilts.std()).astype(np.float32)
    left = np.exp(-0.8 * (1 / np.cos(np.radians(found.angles_deg)) - 1)).astype(np.float32)
    left[7] *= 3
    relative = 1 + 0.134 * tilts
    return 55 * relative / relative.mean(axis=(1, 2), keepdims=True), left[:, None, None], found.angles_deg


def test_a_networks_volume_of_counts_is_that_of_relative_brightness(series, tmp_path):
    """Whatever each image's light is: the law is that a factor for each image changes nothing but the scale."""
    relative, left, angles = series
    words = ("--model", "draft", "--thickness", SHAPE[0], "--device", "cpu", "--contrast")
    even = made(*write_series(tmp_path, relative, angles, "even"), *words, "dark", "-o", tmp_path / "even_rec.mrc")
    assert TOLD not in even.stderr
    dim = write_series(tmp_path, relative * left, angles, "dim")
    told = made(*dim, *words, "dark", "-o", tmp_path / "dim_rec.mrc")
    assert told.stderr.count(TOLD) == 1
    assert "the standard deviation" not in told.stderr
    first, second = (voxels(tmp_path / f"{name}_rec.mrc") for name in ("even", "dim"))
    np.testing.assert_allclose(second, first * np.median(left), atol=2e-3 * first.std() * np.median(left))
    record = json.loads((tmp_path / "dim_rec.json").read_text())
    expected = np.median(left) / np.array([left.max(), left.min()])
    assert record["method"]["brightness_factors"] == pytest.approx(expected.tolist(), abs=1e-3)

    kept = made(*dim, *words, "dark", "--brightness", "keep", "-o", tmp_path / "kept_rec.mrc")
    assert TOLD not in kept.stderr
    assert np.corrcoef(voxels(tmp_path / "kept_rec.mrc").ravel(), first.ravel())[0, 1] < 0.999
    assert "brightness_factors" not in json.loads((tmp_path / "kept_rec.json").read_text())["method"]


def test_of_bright_density_the_mean_is_no_light(series, tmp_path):
    """As in a dark field."""
    relative, left, angles = series
    dim = write_series(tmp_path, relative * left, angles, "dim")
    words = ("--model", "draft", "--thickness", SHAPE[0], "--device", "cpu", "--contrast", "bright")
    assert TOLD not in made(*dim, *words, "-o", tmp_path / "dim_rec.mrc").stderr


def test_fbp_takes_counts_as_they_are(series, tmp_path):
    relative, left, angles = series
    dim = write_series(tmp_path, relative * left, angles, "dim")
    words = ("--method", "fbp", "--thickness", SHAPE[0], "--device", "cpu")
    assert TOLD not in made(*dim, *words, "-o", tmp_path / "dim_rec.mrc").stderr
    with pytest.warns(cryolithe.CryoLitheWarning, match=r"image 8 \("):
        wanted = cryolithe.fbp(relative * left, angles, thickness=SHAPE[0])
    np.testing.assert_allclose(voxels(tmp_path / "dim_rec.mrc"), wanted.voxels, atol=1e-4 * wanted.voxels.std())


def test_training_sees_what_reconstruction_sees(series):
    relative, left, angles = series
    from cryolithe.training.scaling import measure_scale

    tilts = np.arange(len(angles))
    plain, dim = (measure_scale(images, "counts", angles) for images in (relative, relative * left))
    assert dim.sigma == pytest.approx(plain.sigma * np.median(left), rel=1e-4)
    seen = dim.apply(relative * left, tilts).numpy()
    np.testing.assert_allclose(seen, plain.apply(relative, tilts).numpy(), atol=1e-3)


def test_halves_and_their_whole_are_treated_alike(series, tmp_path):
    """At the limit one half alone would be divided."""
    relative, left, angles = series
    paths = []
    for name, most in (("ts_EVN", 2.1), ("ts_ODD", 1.9)):
        light = np.ones_like(left)
        light[7] = most
        images = np.random.default_rng(int(10 * most)).poisson(relative * light).astype(np.float32)
        paths.append(write_series(tmp_path, images, angles, name))
    words = ("--model", "draft", "--thickness", SHAPE[0], "--device", "cpu", "--contrast", "dark")
    said = made("--even", paths[0][0], "--odd", paths[1][0], paths[0][1], *words)
    assert said.stdout.count("do not all look like counts") == 1
    assert TOLD not in said.stderr
    one = made(*paths[0], *words, "-o", tmp_path / "one.mrc")
    assert one.stderr.count(TOLD) == 1


def test_of_a_longer_exposure_no_outlier_is_told_but_of_a_blocked_one(series, tmp_path):
    relative, _, angles = series
    for name, light in (("long", 12), ("blocked", 0.02)):
        images = np.random.default_rng(2).poisson(
            relative * np.where(np.arange(len(angles)) == 9, light, 1)[:, None, None]
        )
        words = ("--model", "draft", "--thickness", SHAPE[0], "--device", "cpu", "--contrast", "dark")
        said = made(
            *write_series(tmp_path, images.astype(np.float32), angles, name), *words, "-o", tmp_path / f"{name}_rec.mrc"
        )
        assert said.stderr.count(TOLD) == 1
        assert ("image 10 (" in said.stderr) == (name == "blocked")


def test_checking_and_preparing_see_the_same_light():
    """Where a border is too wide to be replaced, an image's light is not known."""
    images = counted(np.where(np.arange(41) == 20, 400.0, 20.0))
    images[:20, :, :23] = 0
    how = Preparation(relative=True)
    checked = TiltSeries(images, TiltGeometry(tuple(ANGLES), images.shape[1:]), 10.0)
    assert prepare_stack(checked, how, None).multiplied is None
    assert any("image 21 (" in note for note in check_images(checked, how, "stack"))
