"""Electron counting: means, variances, halves, losses, and the scale from density to contrast."""

from __future__ import annotations

import math

import numpy as np
import pytest
from half_volumes import snr_of_halves

from cryolithe.errors import GeometryError, SettingsError
from cryolithe.simulation.detector import (
    Detector,
    as_contrast,
    count,
    expected_counts,
    interaction_constant,
    mtf,
    phase_per_voxel,
    transmission,
)

SHARP = Detector(dqe_zero=1.0, mtf_nyquist=1.0)


def smooth(shape, sigma, seed=0):
    """A contrast with the standard deviation ``sigma``."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return (sigma * values / values.std()).astype(np.float32)


def test_interaction_constants_are_the_tabulated_ones():
    assert interaction_constant(300) == pytest.approx(6.526e-4, rel=1e-3)
    assert interaction_constant(200) == pytest.approx(7.288e-4, rel=1e-3)
    assert phase_per_voxel(100.0, 300) == pytest.approx(0.163, abs=0.001)


def test_mean_and_variance_of_counts():
    contrast = np.zeros((200, 200), dtype=np.float32)
    contrast[:100] = 0.4
    halves = count(expected_counts(contrast, 30.0, SHARP), np.random.default_rng(1))
    total = halves.even + halves.odd
    for part, mean in ((total[:100], 42.0), (total[100:], 30.0)):
        error = math.sqrt(mean / part.size)
        assert part.mean() == pytest.approx(mean, abs=4 * error)
        assert part.var() == pytest.approx(mean, rel=4 * math.sqrt(2 / part.size))
    assert halves.even[100:].mean() == pytest.approx(15.0, abs=0.2)


def test_halves_correlate_only_through_the_signal():
    flat = count(expected_counts(np.zeros((256, 256), dtype=np.float32), 20.0, SHARP), np.random.default_rng(2))
    assert abs(np.corrcoef(flat.even.ravel(), flat.odd.ravel())[0, 1]) < 4 / 256
    contrast = smooth((256, 256), 0.1)
    seen = count(expected_counts(contrast, 20.0, SHARP), np.random.default_rng(2))
    noise = [half - 10 * (1 + contrast) for half in seen]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 4 / 256
    assert np.corrcoef(seen.even.ravel(), seen.odd.ravel())[0, 1] > 0.05


@pytest.mark.parametrize(("sigma", "electrons"), [(0.1, 40.0), (0.2, 100.0)])
def test_frank_and_al_ali_find_the_snr_put_in(sigma, electrons):
    """Each half has the signal variance (N σ / 2)² and the noise variance N / 2."""
    halves = as_contrast(count(expected_counts(smooth((512, 512), sigma), electrons, SHARP), np.random.default_rng(3)))
    assert snr_of_halves(*halves) == pytest.approx(sigma**2 * electrons / 2, rel=0.05)


def test_thickness_loss_goes_with_the_path():
    flat = -math.log(transmission(2000.0, 0.0, 330.0))
    assert flat == pytest.approx(2000 / 3300)
    for angle in (-60.0, 30.0, 60.0):
        path = -math.log(transmission(2000.0, angle, 330.0))
        assert path == pytest.approx(flat / math.cos(math.radians(angle)))
    assert transmission(2000.0, 90.0, 330.0) > 0


def test_mtf_is_smooth_and_meets_its_ends():
    curve = mtf((64, 64), Detector(mtf_nyquist=0.5, binning=1.0))[0]
    assert curve[0] == 1
    assert curve[32] == pytest.approx(0.5)
    assert (np.diff(curve) < 0).all()
    assert mtf((64, 64), Detector(mtf_nyquist=0.5, binning=2.0))[0, 32] == pytest.approx(0.5**0.25)


@pytest.mark.parametrize("shape", [(32, 32), (31, 40), (40, 31)])
def test_blur_keeps_the_mean(shape):
    contrast = smooth(shape, 0.1)
    expected = expected_counts(contrast, 50.0, Detector(binning=1.0))
    assert expected.shape == shape
    assert expected.mean() == pytest.approx(45 * (1 + contrast.mean()), rel=1e-4)
    assert expected.std() < 45 * 0.1


def test_contrast_of_halves_averages_to_that_of_the_image():
    halves = count(expected_counts(smooth((64, 64), 0.1), 20.0, SHARP), np.random.default_rng(4))
    even, odd = as_contrast(halves)
    total = halves.even + halves.odd
    assert (even + odd) / 2 == pytest.approx(total / total.mean() - 1, abs=1e-5)
    assert abs((even + odd).mean()) < 1e-5


def test_no_electrons_make_an_even_image():
    halves = as_contrast(count(np.zeros((8, 8), dtype=np.float32), np.random.default_rng(0)))
    assert not halves.even.any()
    assert not halves.odd.any()


def test_impossible_detectors():
    for wrong in ({"dqe_zero": 0.0}, {"mtf_nyquist": 1.1}, {"binning": 0.5}, {"mean_free_path_nm": -1.0}):
        with pytest.raises(SettingsError, match=next(iter(wrong)).split("_")[0]):
            Detector(**wrong)
    with pytest.raises(GeometryError, match="electrons"):
        expected_counts(np.zeros((8, 8), dtype=np.float32), -1.0, SHARP)
