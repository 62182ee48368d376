"""Noise that is made white: the factors, what has the colour, and a model that asks for it."""

from __future__ import annotations

import json

import mrcfile
import numpy as np
import pytest
from tiny_series import ANGLES, CONFIG, made, run, write_series

from cryolithe.adapt.colour import lab_gain, white_series
from cryolithe.artefacts.noise_colour import (
    MOST_GAIN,
    POINTS,
    filtered,
    frequencies_per_px,
    has_colour,
    radial_power,
    whitening_gain,
)
from cryolithe.errors import ModelError
from cryolithe.network import build_network
from cryolithe.network.checkpoint import load_model, save_network
from cryolithe.reconstruction.setup.whitening import noise_gain

SIZES = ((150, 131), (128, 160), (97, 96))


def coloured(shape, sigma_px, seed=0, count=12):
    rng = np.random.default_rng(seed)
    f2 = np.fft.fftfreq(shape[0])[:, None] ** 2 + np.fft.rfftfreq(shape[1]) ** 2
    spectrum = np.fft.rfft2(rng.standard_normal((count, *shape)))
    noise = np.fft.irfft2(spectrum * np.exp(-2 * np.pi**2 * sigma_px**2 * f2), s=shape)
    return (noise / noise.std()).astype(np.float32)


def mean_power(images):
    return np.mean([radial_power(image) for image in images], axis=0)


@pytest.mark.parametrize("shape", SIZES)
def test_the_power_of_white_noise_is_its_variance_at_every_frequency(shape):
    images = 3 * np.random.default_rng(1).standard_normal((12, *shape)) + 100
    np.testing.assert_allclose(mean_power(images)[3:], 9, rtol=0.1)
    assert whitening_gain(mean_power(images)) is None


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("sigma_px", [0.4, 0.6])
def test_coloured_noise_becomes_white(shape, sigma_px):
    """Of other images than those by which the factors were found."""
    gain = whitening_gain(mean_power(coloured(shape, sigma_px)))
    assert gain is not None
    white = mean_power([filtered(image, gain) for image in coloured(shape, sigma_px, seed=5)])
    reached = (np.asarray(gain) < MOST_GAIN) & (frequencies_per_px() > 0.1)
    assert reached.sum() > 8
    assert np.ptp(10 * np.log10(white[reached])) < 1.2
    # In closed form: a Gaussian dampens by exp(-2 pi^2 sigma^2 f^2), relative to the first frequency that counts.
    f = frequencies_per_px()
    wanted = np.exp(2 * np.pi**2 * sigma_px**2 * (f**2 - 0.09**2))
    np.testing.assert_allclose(np.asarray(gain)[reached], wanted[reached], rtol=0.1)


def test_a_filter_multiplies_each_frequency_by_its_factor():
    gain = tuple(1 + 0.1 * number for number in range(POINTS))
    y, x = np.mgrid[:96, :128]
    for fy, fx in ((0.0, 0.125), (0.25, 0.0), (0.1875, 0.25)):
        wave = np.cos(2 * np.pi * (fy * y + fx * x)).astype(np.float32)
        factor = np.interp(np.hypot(fy, fx), frequencies_per_px(), gain)
        np.testing.assert_allclose(filtered(wave, gain)[30:-30, 30:-30], factor * wave[30:-30, 30:-30], atol=0.02)
    image = np.random.default_rng(0).standard_normal((31, 44)).astype(np.float32)
    np.testing.assert_allclose(filtered(image, (1.0,) * POINTS), image, atol=1e-5)


@pytest.mark.parametrize("sigma_px", [0.4, 0.7])
@pytest.mark.parametrize("smooth", [0.0, 0.5])
def test_images_are_told_by_their_noise(sigma_px, smooth):
    """With a specimen of the noise's strength in them, which fills low frequencies."""
    shape = (120, 140)
    gain = whitening_gain(mean_power(coloured(shape, sigma_px)))
    specimen = smooth * coloured(shape, 4.0, seed=9)
    assert has_colour(mean_power(coloured(shape, sigma_px, seed=2) + specimen), gain)
    white = np.random.default_rng(3).standard_normal((12, *shape))
    assert not has_colour(mean_power(white + specimen), gain)


def model_with(path, gain, **more):
    import torch

    torch.manual_seed(0)
    card = {"made": "for a test", **more}
    save_network(path, build_network(CONFIG), card if gain is None else {**card, "noise_gain": list(gain)})
    return path


@pytest.mark.parametrize("wrong", [3, [1.0] * 4, [1.0] * 16 + [99.0], [1.0] * 16 + ["a"], [True] * POINTS])
def test_a_card_with_other_factors_is_refused(tmp_path, wrong):
    model = model_with(tmp_path / "m.safetensors", None, noise_gain=wrong)
    with pytest.raises(ModelError, match="noise_gain"):
        noise_gain(load_model(str(model)))
    stack, angles = write_series(tmp_path)
    result = run(stack, angles, "-o", tmp_path / "v.mrc", "--model", model, "--device", "cpu")
    assert result.exit_code == 2
    assert result.stderr.count("\n") <= 4
    assert "noise_gain" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("sigma_px", [0.0, 0.7])
def test_a_reconstruction_filters_images_of_that_colour_and_no_others(tmp_path, sigma_px):
    """Filtered, a volume is that of images which were filtered before, for a model that asks for nothing."""
    shape = (64, 72)
    gain = whitening_gain(mean_power(coloured(shape, 0.7)))
    plain, asks = model_with(tmp_path / "plain.safetensors", None), model_with(tmp_path / "asks.safetensors", gain)
    images = coloured(shape, sigma_px, seed=4, count=len(ANGLES))
    images = images - images.mean(axis=(1, 2), keepdims=True)
    series = write_series(tmp_path, images)
    wanted = images if not sigma_px else np.array([filtered(image, gain) for image in images])
    before = write_series(tmp_path, wanted, name="before")
    words = ("--device", "cpu", "--precision", "fp32", "--contrast", "dark", "--thickness", 16)
    told = made(*series, "-o", tmp_path / "a.mrc", "--model", asks, *words)
    assert ("made white" in told.stderr) is bool(sigma_px)
    assert ("stay as they are" in told.stderr) is not bool(sigma_px)
    made(*before, "-o", tmp_path / "b.mrc", "--model", plain, *words)
    a, b = (mrcfile.read(tmp_path / f"{name}.mrc") for name in "ab")
    np.testing.assert_allclose(a, b, atol=0.01 * b.std())
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["method"]["noise_whitened"] is bool(sigma_px)


def test_a_labs_noise_is_measured_by_halves_whatever_they_share(tmp_path):
    from test_adapt import series_of

    shape, count = (96, 110), 16
    angles = tuple(float(a) for a in np.linspace(-60, 60, count))
    shared = coloured(shape, 3.0, seed=1, count=count)
    halves = [shared + coloured(shape, 0.6, seed=seed, count=count) for seed in (2, 3)]
    series = series_of(tmp_path, halves, angles, depth=24)
    gain = lab_gain([series], [range(10, 80)])
    assert gain is not None
    alone = whitening_gain(mean_power(coloured(shape, 0.6, seed=7, count=count)))
    np.testing.assert_allclose(gain, alone, rtol=0.15)
    white = white_series(series, gain)
    left = lab_gain([white], [range(10, 80)])
    assert left is None or max(left) < 1.5 < max(gain)
    rows = [half.rows(0, shape[0]).numpy() for half in white.halves]
    assert np.std(rows[0]) == pytest.approx(1, rel=0.05)
    # The images as they were are still there.
    kept = series.halves[0].rows(0, 5).numpy() * series.halves[0].divisor
    np.testing.assert_allclose(kept, halves[0][:, :5], rtol=1e-5, atol=1e-5)
