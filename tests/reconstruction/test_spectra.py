"""Half spectra made plane by plane against the library's own transform."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.fft

from cryolithe.arrays import spectra
from cryolithe.arrays.spectra import half_spectrum, shell_of, spectrum_planes, times_counted


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


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_a_half_spectrum_counts_as_often_as_the_whole_one_holds_it(size):
    values = volume((3, 4, size), "f8")
    half, whole = np.abs(scipy.fft.rfftn(values)) ** 2, np.abs(scipy.fft.fftn(values)) ** 2
    assert (times_counted(size) * half).sum() == pytest.approx(whole.sum())


def test_shells_are_those_of_the_nearest_multiple_and_never_of_the_even_one():
    assert shell_of(np.array([0, 0.049, 0.05, 0.149, 0.15, 0.25, 0.5]), 10).tolist() == [0, 0, 1, 1, 2, 3, 5]
    assert int(shell_of(0.3, 10)) == 3


def test_how_often_coefficients_count_is_written_once():
    for path in Path(spectra.__file__).parent.rglob("*.py"):
        if path.name != "spectra.py":
            assert not re.search(r"2\.0, 1\.0\)|== 0\.5\), 1\.0", path.read_text(encoding="utf-8")), path
