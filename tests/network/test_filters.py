"""Responses against their formulas, and what one padding rule has to keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cryolithe.errors import SettingsError
from cryolithe.filters import (
    EDGE_PX,
    WINDOWS,
    extend_rows,
    filter_rows,
    gaussian_response,
    octave_response,
    padded_length,
    ramp_response,
    unit_noise_gain,
)

SIZES = [1, 2, 7, 13, 64, 101, 128, 243]  # 13 and 243 are padded to an odd length


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def full_spectrum(response, length):
    """The even response at all ``length`` frequencies."""
    half = response.double()
    return torch.cat([half, half[1 : (length + 1) // 2].flip(0)])


@pytest.mark.parametrize("length", [96, 243, 256, 1000])
def test_the_ramp_is_the_absolute_frequency(length):
    f = np.fft.rfftfreq(length)
    response = ramp_response(length).numpy()
    assert abs(response - f).max() < 0.3 / length
    away = f > 0.05
    assert response[away] == pytest.approx(f[away], rel=0.45 / length)
    assert 0 < response[0] < f[1] / 2  # the mean is lowered, not lost
    assert (np.diff(response) > 0).all()


@pytest.mark.parametrize(
    ("window", "at_nyquist"),
    [("ramp", 1.0), ("shepp-logan", 2 / math.pi), ("cosine", 0.0), ("hamming", 0.08), ("hann", 0.0)],
)
def test_windows_are_one_at_zero_and_known_at_nyquist(window, at_nyquist):
    f = np.linspace(0, 0.5, 51)
    gain = WINDOWS[window](f)
    assert gain[0] == pytest.approx(1)
    assert gain[-1] == pytest.approx(at_nyquist, abs=1e-12)
    assert (np.diff(gain) <= 1e-12).all()
    ratio = ramp_response(100, window) / ramp_response(100)
    assert ratio.numpy() == pytest.approx(gain, abs=1e-6)


def test_every_window_was_looked_at():
    assert set(WINDOWS) == {"ramp", "shepp-logan", "cosine", "hamming", "hann"}


def test_an_unknown_window_names_the_nearest():
    with pytest.raises(SettingsError, match=r"unknown filter 'cosin' \(did you mean 'cosine'\?\); known filters: ramp"):
        ramp_response(64, "cosin")


@pytest.mark.parametrize("length", [64, 81, 100, 243])
@pytest.mark.parametrize(
    "response_of", [ramp_response, lambda n: ramp_response(n, "cosine"), lambda n: gaussian_response(n, 2.5)]
)
def test_unit_noise_gain_is_one_by_parseval(length, response_of):
    response = response_of(length)
    scaled = unit_noise_gain(response, length)
    assert (full_spectrum(scaled, length) ** 2).mean().item() == pytest.approx(1, abs=1e-6)
    ratio = scaled / response
    assert ratio[1:-1].numpy() == pytest.approx(ratio[1].item(), rel=1e-6)


@pytest.mark.parametrize("size", [200, 243])
def test_white_noise_keeps_its_variance(size):
    length = padded_length(size)
    fine = unit_noise_gain(ramp_response(length, "cosine"), length)
    coarse = unit_noise_gain(gaussian_response(length, 2.5), length)
    for filtered in filter_rows(noise(2000, size), fine, coarse):
        assert filtered[:, 20:-20].std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("sigma", [2.0, 2.5])
def test_the_gaussian_blurs_by_its_sigma(sigma):
    rows = torch.zeros(3, 101, dtype=torch.float64)
    rows[:, 30:70] = noise(3, 40)
    (blurred,) = filter_rows(rows, gaussian_response(padded_length(101), sigma))
    direct = scipy.ndimage.gaussian_filter1d(rows.numpy(), sigma, truncate=8)
    assert blurred.numpy() == pytest.approx(direct, abs=1e-6)
    assert blurred.sum().item() == pytest.approx(rows.sum().item(), abs=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_the_padding_keeps_the_row_and_falls_to_zero(size):
    length = padded_length(size)
    assert length >= 2 * size
    rows = noise(4, size) + 3
    out = extend_rows(rows, length)
    assert out.shape == (4, length)
    left = (length - size) // 2
    assert torch.equal(out[:, left : left + size], rows)
    edge = min(EDGE_PX, size)
    for side, mean in ((out[:, :left].flip(1), rows[:, :edge]), (out[:, left + size :], rows[:, size - edge :])):
        share = side / mean.mean(1, keepdim=True)
        steps = np.arange(1, side.shape[1] + 1) / (side.shape[1] + 1)
        assert share.numpy() == pytest.approx(np.tile((1 + np.cos(np.pi * steps)) / 2, (4, 1)), abs=1e-6)


@pytest.mark.parametrize("size", SIZES[2:])
def test_a_constant_row_is_continued_without_a_step(size):
    length = padded_length(size)
    out = extend_rows(torch.ones(size, dtype=torch.float64), length)
    steps = torch.cat([out, out[:1]]).diff().abs()  # around the circle
    assert steps.max() < 1.1 * math.pi / (length - size)
    assert out.min() >= 0
    assert out.max() == 1


@pytest.mark.parametrize("size", [50, 64, 101])
def test_an_even_extension_is_mirrored_with_its_row(size):
    rows = noise(size)
    length = size + 2 * 40
    assert torch.allclose(extend_rows(rows.flip(0), length), extend_rows(rows, length).flip(0), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_filtering_is_linear_row_by_row_and_keeps_the_length(size):
    length = padded_length(size)
    ramp, blur = ramp_response(length, "hann"), gaussian_response(length, 1.5)
    a, b = noise(2, 3, size), noise(2, 3, size, seed=1)
    both = filter_rows(a, ramp, blur)
    assert [tuple(f.shape) for f in both] == [(2, 3, size)] * 2
    for response, filtered in zip((ramp, blur), both, strict=True):
        (of_b,) = filter_rows(b, response)
        (of_sum,) = filter_rows(2 * a - 3 * b, response)
        assert torch.allclose(of_sum, 2 * filtered - 3 * of_b, atol=1e-12)
        (alone,) = filter_rows(a[1, 2], response)
        assert torch.allclose(alone, filtered[1, 2], atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(60, 90), st.integers(-10, 10), st.sampled_from(sorted(WINDOWS)))
def test_a_shifted_row_is_filtered_to_a_shifted_row(size, shift, window):
    row = torch.zeros(size, dtype=torch.float64)
    row[25:35] = noise(10)
    response = ramp_response(padded_length(size), window)
    here, there = filter_rows(row, response)[0], filter_rows(row.roll(shift), response)[0]
    inside = slice(12, size - 12)
    assert torch.allclose(here.roll(shift)[inside], there[inside], atol=1e-12)


def test_finer_rows_hold_the_same_values_and_those_between():
    """A cosine well inside a long row, filtered at twice the sampling: known in closed form at half pixels."""
    size, frequency = 512, 0.21
    taper = torch.hann_window(size, periodic=False, dtype=torch.float64)
    at = torch.arange(size, dtype=torch.float64)
    rows = (taper * torch.cos(2 * torch.pi * frequency * at))[None]
    flat = torch.ones(padded_length(size) // 2 + 1)
    (coarse,), (fine,) = filter_rows(rows, flat), filter_rows(rows, flat, per_px=2)
    assert fine.shape == (1, 2 * size)
    assert fine[:, ::2].numpy() == pytest.approx(coarse.numpy(), abs=1e-6)
    between = at[:-1] + 0.5
    wanted = torch.sin(torch.pi * between / (size - 1)) ** 2 * torch.cos(2 * torch.pi * frequency * between)
    assert fine[0, 1:-1:2].numpy() == pytest.approx(wanted.numpy(), abs=1e-4)


def test_octave_bands_tile_the_frequencies():
    """Squares of neighbouring bands add up to 1 between the middle of the first and the last."""
    total = sum(octave_response(4096, band) ** 2 for band in range(6))
    f = torch.arange(total.shape[0]) / 4096
    assert total[(f <= 0.25) & (f >= 0.25 / 2**5)].numpy() == pytest.approx(1, abs=1e-5)
    assert octave_response(4096, 0)[f >= 0.5].abs().max() < 1e-3
