"""Half spectra made plane by plane against the library's own transform."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from cryolithe import spectra
from cryolithe.spectra import half_spectrum, spectrum_planes


def volume(shape, dtype=np.float32):
    return (7 + 3 * np.random.default_rng(0).standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("shape", [(6, 8, 10), (7, 5, 9), (16, 4, 5)])
@pytest.mark.parametrize(("dtype", "made", "tolerance"), [("f4", "c8", 1e-5), ("f8", "c16", 1e-12), ("i2", "c8", 1e-5)])
def test_it_is_the_transform_of_the_standardised_volume(shape, dtype, made, tolerance, monkeypatch):
    monkeypatch.setattr(spectra, "BLOCK_VALUES", 2 * shape[0] * (shape[2] // 2 + 1))  # blocks of two rows
    values = volume(shape, dtype)
    found = half_spectrum(values)
    assert found.dtype == np.dtype(made)
    plain = values.astype(np.float64)
    expected = scipy.fft.rfftn((plain - plain.mean()) / plain.std())
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


def test_weights_and_tapers_apply_after_the_mean():
    values = volume((8, 9, 10))
    weights = np.random.default_rng(1).uniform(0, 1, values.shape).astype(np.float32)
    tapers = [np.linspace(0.1, 1, n) for n in values.shape]
    expected = (values - np.average(values, weights=weights)) * weights
    expected = expected * tapers[0][:, None, None] * tapers[1][:, None] * tapers[2]
    expected = scipy.fft.rfftn(expected / np.sqrt(np.mean(expected**2)))
    assert half_spectrum(values, weights, tapers) == pytest.approx(expected, abs=2e-4)


def test_large_and_small_numbers_do_not_leave_float32():
    values = volume((6, 6, 6))
    for scale in (1e30, 1e-30):
        assert half_spectrum(values * np.float32(scale)) == pytest.approx(half_spectrum(values), abs=1e-4)


@pytest.mark.parametrize("shape", [(6, 8, 10), (7, 5, 9)])
def test_power_in_the_planes_is_that_of_the_volume(shape):
    values = volume(shape, np.float64)
    spectrum = half_spectrum(values)
    power = sum(float((p.times * np.abs(spectrum[p.index]) ** 2).sum()) for p in spectrum_planes(shape))
    assert power == pytest.approx(values.size**2)  # Parseval: unit variance times the number of coefficients
