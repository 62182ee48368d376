"""How much of a volume is right in all: told by tilts that it did not see, compared with the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.confidence.doubt import (
    LAW,
    Ensemble,
    correlation_size,
    error_size,
    expected_correlation,
    expected_error,
    moments_of,
    window_of,
    without_noise,
)
from cryolithe.reconstruction.confidence.explained import Seen, explained, shared_of, sums_of

SHAPE = (32, 48, 64)
ANGLES = tuple(float(angle) for angle in range(-60, 61, 3))


def white(seed, shape=SHAPE):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def coloured(seed, shape=SHAPE, sigma_px=1.2):
    """A specimen without directions, of unit deviation."""
    values = gaussian_filter(white(seed, shape), sigma_px, mode="wrap")
    return values / values.std()


def squared_correlation(a, b):
    return float((a * b).sum() ** 2 / ((a**2).sum() * (b**2).sum()))


def projectors(shape=SHAPE, angles=ANGLES):
    """Of even and of odd tilts."""
    return [make_projector(TiltGeometry(angles[n::2], shape[1:]), (shape[0], shape[2])) for n in (0, 1)]


def rows_of(specimen, halves, strength, scale=1.0):
    """Everything that images and two halves of a volume tell.

    Args:
        specimen: the truth.
        halves: two volumes.
        strength: deviation of the noise of images over that of the images.
        scale: of the images.
    """
    rng = np.random.default_rng(7)
    shadows, images, again = projectors(), [], []
    for shadow in shadows:
        clean = shadow.forward(torch.from_numpy(specimen))
        noise = torch.from_numpy(rng.standard_normal(clean.shape).astype(np.float32))
        images.append(scale * fbp(shadow, clean + strength * clean.std() * noise))
    even, odd = (torch.from_numpy(half.astype(np.float32)) for half in halves)
    again = [fbp(shadow, shadow.forward(half)) for shadow, half in zip(shadows[::-1], (even, odd), strict=True)]
    whole = (even + odd) / 2
    return Ensemble(whole, (even, odd), (whole, whole), (images[0], images[1]), (again[0], again[1]))


def told(*parts):
    return explained([sums_of(Seen.of(rows), ANGLES) for rows in parts])


def volumes(specimen, invented, alone, amplitude=1.0):
    """Two halves: what they show, what both invent, and what each has for itself."""
    both = amplitude * specimen + invented * coloured(2)
    return [both + alone * coloured(seed) for seed in (3, 4)]


@pytest.mark.parametrize("strength", [0.3, 0.6])
@pytest.mark.parametrize(
    ("invented", "alone", "amplitude"), [(0.0, 0.3, 1.0), (1.0, 0.3, 0.4), (0.5, 1.0, 1.0), (2.0, 0.0, 0.5)]
)
def test_what_is_right_is_found_without_the_truth_even_where_all_runs_agree(strength, invented, alone, amplitude):
    specimen = coloured(1)
    halves = volumes(specimen, invented, alone, amplitude)
    found = told(rows_of(specimen, halves, strength))
    true = squared_correlation(sum(halves) / 2, specimen)
    assert found.share == pytest.approx(true, abs=0.12)
    assert found.measured == pytest.approx(true, abs=0.12)
    assert found.finest_per_px > 0.1


def test_where_noise_hides_the_finest_of_the_specimen_less_is_claimed_rather_than_more():
    specimen = coloured(1)
    halves = volumes(specimen, 0.5, 0.5)
    true = squared_correlation(sum(halves) / 2, specimen)
    clear, noisy = (told(rows_of(specimen, halves, strength)) for strength in (0.3, 4.0))
    assert noisy.finest_per_px < clear.finest_per_px
    assert true - 0.3 < noisy.share < true + 0.05


def test_a_sharper_specimen_than_the_volume_shows_is_counted():
    fine, coarse = (coloured(1, sigma_px=sigma) for sigma in (0.8, 2.0))
    found = told(rows_of(fine, [coarse, coarse], 0.3))
    assert found.share == pytest.approx(squared_correlation(coarse, fine), abs=0.12)


def test_neither_the_unit_of_images_nor_that_of_volumes_matters():
    specimen = coloured(1)
    halves = volumes(specimen, 0.5, 0.3)
    one = told(rows_of(specimen, halves, 1.0))
    other = told(rows_of(specimen, [5 * half for half in halves], 1.0, scale=0.1))
    assert other.share == pytest.approx(one.share, rel=1e-3)
    turned = told(rows_of(specimen, [-half for half in halves], 1.0))
    assert turned.share == 0  # of the other contrast than its images


def test_images_that_show_nothing_and_volumes_that_are_nothing_explain_nothing():
    nothing, halves = np.zeros(SHAPE, np.float32), [coloured(3), coloured(4)]
    rows = rows_of(coloured(1), halves, 0.0)
    noise = tuple(
        fbp(shadow, torch.from_numpy(white(n, (len(ANGLES[n::2]), *SHAPE[1:]))))
        for n, shadow in enumerate(projectors())
    )
    of_noise = Ensemble(rows.whole, rows.halves, rows.mirrors, (noise[0], noise[1]), rows.again)
    assert told(of_noise).share < 0.02
    flat = rows_of(coloured(1), [nothing, nothing], 0.3)
    assert told(flat).share == 0
    assert told(rows, flat).share < 0.05  # other specimens than the images show


def test_planes_of_two_halves_share_what_back_projections_of_a_thick_specimen_share():
    shape = (128, 8, 320)
    specimen, angles = torch.from_numpy(white(5, shape)), ANGLES
    first, second = (fbp(one, one.forward(specimen)) for one in projectors(shape, angles))
    z, x = np.fft.fftfreq(shape[0])[:, None, None], np.fft.rfftfreq(shape[2])[None, None, :]
    truth, even, odd = (np.fft.rfftn(values.numpy(), axes=(0, 2)) for values in (specimen, first, second))
    inside = np.abs(np.degrees(np.arctan2(z, x))) < 55
    across = np.broadcast_to(np.hypot(z, x), truth.shape)
    scale = 1 / (shape[0] * np.radians(3))
    for low, high in ((0.1, 0.3), (0.3, 0.5), (0.5, 0.6), (0.6, 0.8)):
        here = inside & (across >= low * scale) & (across < high * scale)
        power, gains = (np.abs(truth) ** 2)[here].sum(), [(f * truth.conj()).real[here].sum() for f in (even, odd)]
        shared = (even * odd.conj()).real[here].sum() * power / (gains[0] * gains[1])
        assert float(shared_of(across[here], angles, shape[0]).mean()) == pytest.approx(shared, abs=0.15)


@pytest.mark.parametrize("invented", [0.6, 1.5])
def test_maps_have_the_size_that_images_tell(invented):
    """The error of what all runs share is invisible to them, and yet it is stated."""
    specimen = coloured(1)
    rows = rows_of(specimen, volumes(specimen, invented, 0.3), 0.5)
    found = told(rows)
    window = window_of(SHAPE)
    moments = moments_of(rows, window)
    law = LAW.times(error_size(found.share, moments))
    square = expected_error(moments, law).square()
    total = moments["total"]
    assert float(square.mean()) == pytest.approx((1 - found.share) * float(total.mean()), rel=1e-4)
    local = expected_correlation(without_noise(rows, window), moments, law)
    size = correlation_size(found.share, local, total)
    sized = expected_correlation(without_noise(rows, window), moments, law, size)
    assert float((sized**2 * total).sum() / total.sum()) == pytest.approx(found.share, rel=0.02)
    volume, truth = rows.whole.numpy(), specimen
    fitted = truth * float((truth * volume).sum() / (truth**2).sum())
    assert float(square.mean()) == pytest.approx(float(((volume - fitted) ** 2).mean()), rel=0.35)
