"""Closed forms and laws of the metrics, and a second, slower way to compute the shells."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryolithe.errors import GeometryError, InputError
from cryolithe.geometry import TiltGeometry, centre_px
from cryolithe.metrics import (
    fourier_shell_correlation,
    mean_correlation,
    resolution_at,
    scaled_snr_db,
)

SHAPES = [(16, 16, 16), (15, 15, 15), (9, 12, 15), (8, 14, 11), (20, 13, 10)]


def noise(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def frequencies(shape):
    return np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")


def filtered(volume, gain_of_radius):
    radius = np.sqrt(sum(f**2 for f in frequencies(volume.shape)))
    return np.fft.ifftn(np.fft.fftn(volume) * gain_of_radius(radius)).real


def loop_fsc(a, b, inside):
    """Correlate shell by shell over the full spectrum; ``inside(kx, kz)`` chooses the coefficients."""
    fa, fb = np.fft.fftn(a - a.mean()), np.fft.fftn(b - b.mean())
    kz, ky, kx = frequencies(a.shape)
    radius = np.sqrt(kz**2 + ky**2 + kx**2)
    chosen = inside(kx, kz)
    shortest = min(a.shape)
    values = []
    for shell in range(shortest // 2 + 1):
        keep = chosen & (np.floor(radius * shortest + 0.5) == shell) & (radius > 0)
        x, y = fa[keep], fb[keep]
        power = math.sqrt((abs(x) ** 2).sum() * (abs(y) ** 2).sum())
        values.append((x * y.conj()).sum().real / power if power else math.nan)
    return np.array(values)


def within(low, high):
    """Choose coefficients by the slope kz/kx, which grows with the tilt angle from -90° to 90°."""

    def inside(kx, kz):
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = kz / kx
        steps = np.tan(np.deg2rad([low, high]))
        return ((kx == 0) & (kz == 0)) | ((kx != 0) & (slope >= steps[0] - 1e-9) & (slope <= steps[1] + 1e-9))

    return inside


@pytest.mark.parametrize("shape", SHAPES)
def test_fsc_of_a_volume_with_itself_is_one_in_every_kind_of_coefficient(shape):
    a = noise(shape)
    curve = fourier_shell_correlation(a, 3 * a - 7, tilt_range_deg=(-50, 50))
    assert curve.frequency_per_px == pytest.approx(np.arange(min(shape) // 2 + 1) / min(shape))
    for values in curve.columns().values():
        assert values[2:] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_fsc_agrees_with_a_loop_over_the_full_spectrum(shape):
    a, b = noise(shape, 1, np.float64), noise(shape, 2, np.float64)
    b += a
    curve = fourier_shell_correlation(a, b, tilt_range_deg=(-37, 58))
    inside = within(-37, 58)
    assert curve.total == pytest.approx(loop_fsc(a, b, lambda kx, kz: np.full(kx.shape, True)), nan_ok=True)
    # Not the last shell: a Nyquist coefficient has no sign, and so no side of an asymmetric wedge.
    assert curve.measured[:-1] == pytest.approx(loop_fsc(a, b, inside)[:-1], nan_ok=True)
    assert curve.missing[:-1] == pytest.approx(loop_fsc(a, b, lambda x, z: ~inside(x, z))[:-1], nan_ok=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_counts_are_those_of_the_full_spectrum(shape):
    radius = np.sqrt(sum(f**2 for f in frequencies(shape)))
    shells = np.floor(radius * min(shape) + 0.5).astype(int)[radius > 0]
    counts = fourier_shell_correlation(noise(shape), noise(shape, 1)).counts
    assert counts.tolist() == np.bincount(shells)[: min(shape) // 2 + 1].tolist()


def test_a_cubic_box_has_no_first_shell():
    curve = fourier_shell_correlation(noise((8, 8, 8)), noise((8, 8, 8), 1), tilt_range_deg=(-60, 60))
    assert np.isnan(curve.total[0])
    assert np.isnan(curve.missing[0])
    assert np.isfinite(curve.total[1:]).all()


def test_independent_noise_spreads_by_one_over_the_root_of_the_count():
    scores = []
    for seed in range(12):
        curve = fourier_shell_correlation(noise((24, 24, 24), 2 * seed), noise((24, 24, 24), 2 * seed + 1))
        scores.append(curve.total[1:] * np.sqrt(curve.counts[1:]))
    assert np.std(scores) == pytest.approx(1, abs=0.2)
    assert np.mean(scores) == pytest.approx(0, abs=0.3)


def test_half_maps_correlate_as_signal_over_signal_plus_noise():
    shape = (40, 40, 40)
    signal = filtered(noise(shape, 3), lambda r: np.exp(-((r / 0.25) ** 2)))  # power gain S(r) = exp(-2 (r/0.25)²)
    curve = fourier_shell_correlation(signal + 0.5 * noise(shape, 4), signal + 0.5 * noise(shape, 5))
    snr = np.exp(-2 * (curve.frequency_per_px / 0.25) ** 2) / 0.25
    assert curve.total[4:] == pytest.approx((snr / (snr + 1))[4:], abs=0.06)


def test_a_radial_filter_leaves_the_correlation_at_one():
    a = noise((18, 20, 23), dtype=np.float64)
    curve = fourier_shell_correlation(a, filtered(a, lambda r: (r < 0.3) * np.exp(-3 * r)))
    inside = (curve.frequency_per_px > 0) & (curve.frequency_per_px < 0.25)
    assert curve.total[inside] == pytest.approx(1, abs=0.02)
    narrow = fourier_shell_correlation(a, filtered(a, lambda r: np.floor(r * 18 + 0.5) + 1))  # constant in a shell
    assert narrow.total[1:] == pytest.approx(1)


def test_scale_does_not_overflow():
    a, b = noise((8, 8, 8)), noise((8, 8, 8), 1)
    expected = fourier_shell_correlation(a, b).total
    assert fourier_shell_correlation(a * np.float32(1e25), b * np.float32(1e-25)).total == pytest.approx(
        expected, nan_ok=True, abs=1e-5
    )


@pytest.mark.parametrize("tilt_range", [(-60, 60), (-20, 60), (-51, 49), (-90, 30), (-40, 90)])
def test_a_volume_filled_in_only_inside_the_wedge_agrees_only_there(tilt_range):
    shape = (21, 15, 25)  # odd: no Nyquist coefficients
    a, other = noise(shape, 6, np.float64), noise(shape, 7, np.float64)
    kz, _, kx = frequencies(shape)
    keep = np.zeros(shape, dtype=bool)
    for index in np.ndindex(shape):
        angle = math.degrees(math.atan2(kz[index], kx[index]))
        turned = [angle + turn for turn in (-180, 0, 180)]
        on_axis = kx[index] == 0 and kz[index] == 0
        keep[index] = on_axis or any(tilt_range[0] - 1e-9 <= t <= tilt_range[1] + 1e-9 for t in turned)
    b = np.fft.ifftn(np.where(keep, np.fft.fftn(a), np.fft.fftn(other))).real
    curve = fourier_shell_correlation(a, b, tilt_range_deg=tilt_range)
    assert curve.measured[1:] == pytest.approx(1)
    assert abs(mean_correlation(curve.missing)) < 0.2
    assert (curve.missing[3:] < 0.5).all()


@pytest.mark.parametrize(("angle_deg", "column"), [(40.0, "measured"), (-40.0, "missing")])
def test_what_an_image_sees_is_measured_at_its_angle(angle_deg, column):
    """A wave along the detector of an image at +40° lies inside -20..60°, one seen at -40° does not."""
    size = 32
    z, x = np.meshgrid(*[np.arange(size) - centre_px(size)] * 2, indexing="ij")
    u = TiltGeometry((angle_deg,), (size, size)).columns(x, z)[0]
    wave = np.cos(2 * np.pi * 0.25 * u) * np.exp(-(x**2 + z**2) / 2 / 6**2)
    wave = np.repeat(wave[:, None], size, axis=1)
    a, b = (10 * wave + 0.1 * noise(wave.shape, seed) for seed in (8, 9))
    curve = fourier_shell_correlation(a, b, tilt_range_deg=(-20, 60))
    shell = size // 4
    other = {"measured": "missing", "missing": "measured"}[column]
    assert curve.columns()[column][shell] > 0.99
    assert curve.columns()[other][shell] < 0.5


def test_a_mask_confines_the_comparison():
    a, b = noise((16, 16, 16)), noise((16, 16, 16), 1)
    b[4:12, 4:12, 4:12] = a[4:12, 4:12, 4:12]
    mask = np.zeros(a.shape, dtype=np.int8)
    mask[4:12, 4:12, 4:12] = 1
    assert fourier_shell_correlation(a, b, mask=mask).total[1:] == pytest.approx(1, abs=1e-5)
    assert mean_correlation(fourier_shell_correlation(a, b).total) < 0.5
    shifted = fourier_shell_correlation(a + 100, noise(a.shape, 2) - 100, mask=mask).total
    assert abs(mean_correlation(shifted)) < 0.2  # the mask's own edge does not correlate


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float16, np.float64])
def test_real_types_are_accepted(dtype):
    a = (10 * noise((10, 10, 10)) + 100).astype(dtype)
    assert fourier_shell_correlation(a, a).total[1:] == pytest.approx(1, abs=1e-5)
    assert a.mean() == pytest.approx(100, rel=0.05)  # untouched


def test_unusable_volumes_are_named_with_numbers():
    a = noise((8, 8, 8))
    bad = a.copy()
    bad[0, 0, :3] = np.nan
    with pytest.raises(InputError, match="second volume: 3 of 512 voxels are not finite"):
        fourier_shell_correlation(a, bad)
    with pytest.raises(InputError, match="all 512 voxels are 2"):
        fourier_shell_correlation(a, np.full_like(a, 2))
    with pytest.raises(InputError, match=r"\(8, 8, 8\) but the second volume has \(8, 8, 9\)"):
        fourier_shell_correlation(a, noise((8, 8, 9)))
    with pytest.raises(InputError, match="at least 4 voxels"):
        fourier_shell_correlation(a[:2], a[:2])
    with pytest.raises(InputError, match="real array"):
        fourier_shell_correlation(a[0], a[0])
    with pytest.raises(InputError, match="mask is 0 in all 512"):
        fourier_shell_correlation(a, a, mask=np.zeros_like(a))
    with pytest.raises(InputError, match="0 or more"):
        fourier_shell_correlation(a, a, mask=-np.ones_like(a))
    half = np.zeros_like(a)
    half[:4] = 1
    with pytest.raises(InputError, match="inside the mask are 0"):
        fourier_shell_correlation(a, a * (1 - half), mask=half)
    for empty in ((60, -60), (-100, 60), (10, 10), (math.nan, 60)):
        with pytest.raises(GeometryError, match="tilt range"):
            fourier_shell_correlation(a, a, tilt_range_deg=empty)


def test_resolution_interpolates_the_first_crossing():
    frequency = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    values = np.array([np.nan, 1.0, 0.8, 0.2, 0.6, 0.0])
    found = resolution_at(values, frequency, 0.5, 10.0)
    assert (found.value, found.unit, found.reached) == (pytest.approx(10 / 0.25), "Å", True)
    assert resolution_at(values, frequency, 0.5).value == pytest.approx(4)
    assert resolution_at(values, frequency, 0.5).unit == "px"
    assert resolution_at(values, frequency, 0.65).value == pytest.approx(1 / 0.225)  # nearer to the shell above
    gap = np.where(frequency == 0.2, np.nan, values)
    assert resolution_at(gap, frequency, 0.6).value == pytest.approx(5)


def test_resolution_of_curves_that_do_not_cross():
    frequency = np.array([0.0, 0.1, 0.2, 0.5])
    above = resolution_at(np.ones(4), frequency, 0.143, 3.0)
    assert (above.value, above.reached) == (pytest.approx(6), False)
    below = resolution_at(np.zeros(4), frequency, 0.143, 3.0)
    assert (below.value, below.reached) == (math.inf, True)
    assert math.isnan(resolution_at(np.full(4, np.nan), frequency, 0.5).value)


def test_mean_leaves_out_both_ends_and_gaps():
    assert mean_correlation(np.array([np.nan, 1.0, np.nan, 0.5, -9.0])) == 0.75
    assert math.isnan(mean_correlation(np.array([1.0, 2.0])))


@pytest.mark.parametrize("sign", [1, -1])
def test_snr_is_that_of_the_least_squares_line(sign):
    r = noise((9, 10, 11), 1, np.float64) + 5
    e = sign * 3 * r + noise(r.shape, 2) + 40
    line = np.polyval(np.polyfit(e.ravel(), r.ravel(), 1), e)
    expected = 10 * np.log10(((r - r.mean()) ** 2).sum() / ((r - line) ** 2).sum())
    assert scaled_snr_db(r, e) == pytest.approx(expected)
    assert scaled_snr_db(r, 7 * e - 3) == pytest.approx(expected)


def test_snr_at_its_ends():
    r = noise((6, 6, 6))
    assert scaled_snr_db(r, 2 * r) > 100
    assert scaled_snr_db(r, np.ones_like(r)) == 0
    with pytest.raises(InputError, match="constant"):
        scaled_snr_db(np.ones_like(r), r)
    with pytest.raises(InputError, match="shape"):
        scaled_snr_db(r, r[1:])
    with pytest.raises(InputError, match="finite"):
        scaled_snr_db(r, r * np.nan)
