"""Contrast transfer, its correction, and radiation damage: zeros, energies, signs and published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft

from cryolithe.errors import GeometryError, SettingsError
from cryolithe.optics.exposure import critical_exposure, exposure_filter
from cryolithe.optics.transfer import (
    Optics,
    TiltedView,
    correct_image,
    ctf,
    filtered,
    form_image,
    source_envelope,
    tilted_defocus_um,
    wavelength_angstrom,
)

SHAPES = [(64, 64), (63, 80), (50, 77)]


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_wavelengths_are_the_tabulated_ones():
    assert wavelength_angstrom(300) == pytest.approx(0.019687, abs=2e-6)
    assert wavelength_angstrom(200) == pytest.approx(0.025079, abs=2e-6)
    assert wavelength_angstrom(100) == pytest.approx(0.037014, abs=3e-6)


@pytest.mark.parametrize("shape", [(256, 256), (255, 300), (300, 255)])
def test_zeros_lie_where_the_formula_puts_them(shape):
    """Without Cs and amplitude contrast zeros are at k² = n / (λ Δf)."""
    pixel, defocus = 4.0, 2.0
    optics = Optics(spherical_aberration_mm=0.0, amplitude_contrast=0.0, defocus_um=defocus)
    transfer = ctf(optics, shape, pixel)
    for row, size in ((transfer[0], shape[1]), (transfer[: shape[0] // 2 + 1, 0], shape[0])):
        k = np.arange(row.size) / (size * pixel)
        changes = np.flatnonzero(np.diff(np.sign(row[1:]))) + 1
        zeros = k[changes] + (k[1] - k[0]) * row[changes] / (row[changes] - row[changes + 1])
        expected = np.sqrt(np.arange(1, zeros.size + 1) / (wavelength_angstrom(300) * defocus * 1e4))
        assert zeros.size >= 5
        assert zeros == pytest.approx(expected, rel=0.004)


def test_the_closed_formula_with_everything_in_it():
    optics = Optics(200.0, 2.0, 0.1, 1.5, 0.2, 30.0, 40.0)
    ky, kx = np.fft.fftfreq(33, 3.0)[:, None], np.fft.rfftfreq(40, 3.0)[None]
    k, alpha = np.hypot(ky, kx), np.arctan2(ky, kx)
    wave = wavelength_angstrom(200)
    defocus = 1e4 * (1.5 + 0.2 * np.cos(2 * (alpha - math.radians(30))))
    gamma = math.pi * wave * defocus * k**2 - math.pi / 2 * 2e7 * wave**3 * k**4 + math.radians(40) + math.asin(0.1)
    assert ctf(optics, (33, 40), 3.0) == pytest.approx(np.sin(gamma), abs=2e-5)


def test_protein_is_dark_when_underfocused():
    transfer = ctf(Optics(), (64, 64), 10.0)
    assert transfer[0, 0] == pytest.approx(0.07)
    assert transfer[0, 5] > transfer[0, 0]


@pytest.mark.parametrize("shape", [(48, 64), (49, 63)])
def test_agreement_with_torch_ctf(shape):
    torch_ctf = pytest.importorskip("torch_ctf")
    optics = Optics(300.0, 2.7, 0.07, 3.0, 0.15, 25.0, 20.0)
    theirs = torch_ctf.calculate_ctf_2d(3.0, 0.15, 25.0, 300.0, 2.7, 0.07, 20.0, 5.0, shape, True, False)
    ours = ctf(optics, shape, 5.0)
    assert ours == pytest.approx(theirs.numpy(), abs=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_parseval(shape):
    """The energy of an image is that of its spectrum times the squared CTF."""
    signal, optics = noise(shape), Optics(defocus_um=2.5, astigmatism_um=0.1, astigmatism_angle_deg=20)
    out = form_image(signal, TiltedView(optics, 0.0, 6.0))
    full = np.abs(scipy.fft.fft2(signal.astype(np.float64))) ** 2
    ky, kx = np.fft.fftfreq(shape[0], 6.0)[:, None], np.fft.fftfreq(shape[1], 6.0)[None]
    wave = wavelength_angstrom(300)
    defocus = 1e4 * (2.5 + 0.1 * np.cos(2 * (np.arctan2(ky, kx) - math.radians(20))))
    k2 = ky**2 + kx**2
    gamma = math.pi * wave * defocus * k2 - math.pi / 2 * 2.7e7 * wave**3 * k2**2 + math.asin(0.07)
    # At the Nyquist lines of even sizes direction is ambiguous, which astigmatism feels: 1 % there.
    assert np.square(out).sum() == pytest.approx((full * np.sin(gamma) ** 2).sum() / signal.size, rel=0.01)
    assert out.dtype == np.float32
    assert out.shape == shape


@pytest.mark.parametrize("shape", SHAPES)
def test_flipping_turns_the_ctf_into_its_magnitude(shape):
    signal, optics = noise(shape), Optics(defocus_um=2.5)
    view = TiltedView(optics, 0.0, 6.0)
    flipped = correct_image(form_image(signal, view), view, "phase-flipped")
    assert flipped == pytest.approx(filtered(signal, np.abs(ctf(optics, shape, 6.0))), abs=1e-4)


def test_wiener_limits():
    signal, view = noise((64, 60)), TiltedView(Optics(amplitude_contrast=0.3, defocus_um=0.3), 0.0, 10.0)
    image = form_image(signal, view)
    assert correct_image(image, view, "wiener", 1e6) == pytest.approx(signal, abs=0.02)
    faint = correct_image(image, view, "wiener", 1e-4)
    assert faint == pytest.approx(1e-4 * filtered(image, ctf(view.optics, (64, 60), 10.0)), abs=1e-6)
    assert correct_image(image, view, "left") is image


@pytest.mark.parametrize(("angle", "handedness"), [(50.0, 1), (-50.0, 1), (50.0, -1)])
def test_defocus_gradient_with_two_points(angle, handedness):
    """At positive tilts the point at +x lies lower, so it is more defocused and its first zero comes earlier."""
    shape, pixel = (128, 1024), 8.0
    view = TiltedView(Optics(defocus_um=3.0), angle, pixel, handedness)
    offset = 320
    for sign in (-1, 1):
        signal = np.zeros(shape, dtype=np.float32)
        signal[64, 512 + sign * offset] = 1.0
        point = np.abs(scipy.fft.rfft(form_image(signal, view).sum(axis=0)))
        u = (512 + sign * offset - 511.5) * pixel
        defocus = 3.0 + handedness * u * math.tan(math.radians(angle)) * 1e-4
        expected = np.abs(ctf(Optics(defocus_um=defocus), (1, 1024), pixel)[0])
        assert tilted_defocus_um(3.0, np.array(u), angle, handedness) == pytest.approx(defocus)
        assert np.abs(point - expected).max() < 0.07  # see STRIP_PHASE_RAD
        lower = sign * angle * handedness > 0
        assert (defocus > 3.0) == lower


def test_strips_share_every_column():
    for angle, width in ((0.0, 64), (60.0, 512), (-70.0, 333), (90.0, 100)):
        defocus, share = TiltedView(Optics(), angle, 5.0).strips(width)
        assert share.shape == (defocus.size, width)
        assert share.sum(axis=0) == pytest.approx(np.ones(width), abs=1e-5)
    assert defocus.size > 5


@pytest.mark.parametrize("angle", [50.0, -60.0])
def test_correction_undoes_the_gradient(angle):
    """With strips a tilted image corrects almost as well as an untilted one; without them it does not."""
    signal, optics = noise((96, 512)), Optics(defocus_um=2.0)
    view, flat = TiltedView(optics, angle, 3.0), TiltedView(optics, 0.0, 3.0)
    image = form_image(signal, view)
    with_strips, without = (
        np.corrcoef(correct_image(image, v, "phase-flipped").ravel(), signal.ravel())[0, 1] for v in (view, flat)
    )
    assert with_strips > 0.83
    assert without < with_strips - 0.1


@pytest.mark.parametrize(("defocus_um", "cs_mm", "mrad"), [(18.0, 2.7, 0.05), (-2.0, 0.0, 0.1), (4.0, 1e3, 0.03)])
def test_a_source_blurs_an_image_by_how_its_rays_part(defocus_um, cs_mm, mrad):
    # Tilted by β, a wave's image moves by the gradient of the aberrations, (Cs λ² k³ - Δf k) β at each frequency k: the
    # mean over Gaussian directions, β ~ exp(-(β/α)²) along k, of the phase 2π (...) β.
    pixel, size = 5.0, 40
    optics = Optics(300.0, cs_mm, 0.07, defocus_um)
    found = source_envelope(optics, (size, size), pixel, mrad)[0]
    k = np.arange(size // 2 + 1) / (size * pixel)
    beta = np.linspace(-6, 6, 4001) * mrad * 1e-3
    weights = np.exp(-((beta / (mrad * 1e-3)) ** 2))
    moved = cs_mm * 1e7 * wavelength_angstrom(300.0) ** 2 * k**3 - defocus_um * 1e4 * k
    mean = (np.cos(2 * np.pi * moved[:, None] * beta) * weights).sum(axis=1) / weights.sum()
    assert found == pytest.approx(mean, abs=1e-5)
    assert found[0] == 1
    assert source_envelope(optics, (size, size), pixel, 0.0) == pytest.approx(1.0)


def test_published_critical_exposures():
    k = np.array([0.1, 0.25, 1 / 3])
    assert critical_exposure(k) == pytest.approx(0.245 * k**-1.665 + 2.81)
    assert critical_exposure(np.array([0.1]))[0] == pytest.approx(14.14, abs=0.01)
    assert critical_exposure(k, 200.0) == pytest.approx(0.8 * critical_exposure(k))
    assert critical_exposure(np.array([0.0]))[0] == math.inf


@pytest.mark.slow
def test_agreement_with_torch_fourier_filter():
    dose_weight = pytest.importorskip("torch_fourier_filter.dose_weight")
    torch = pytest.importorskip("torch")
    k = np.linspace(0.01, 0.4, 20)
    assert critical_exposure(k) == pytest.approx(dose_weight.critical_exposure(torch.from_numpy(k)).numpy())


@pytest.mark.parametrize("shape", SHAPES)
def test_exposure_filter(shape):
    kept = exposure_filter(shape, 5.0, 60.0)
    assert kept.shape == (shape[0], shape[1] // 2 + 1)
    assert kept[0, 0] == 1
    k = 3 / (shape[1] * 5.0)
    assert kept[0, 3] == pytest.approx(math.exp(-60 / (2 * (0.245 * k**-1.665 + 2.81))))
    assert exposure_filter(shape, 5.0, 0.0) == pytest.approx(1.0)
    twice = filtered(filtered(noise(shape), kept), kept)
    assert twice == pytest.approx(filtered(noise(shape), exposure_filter(shape, 5.0, 120.0)), abs=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"voltage_kv": 0.3},
        {"amplitude_contrast": 1.5},
        {"defocus_um": float("nan")},
        {"spherical_aberration_mm": -1.0},
    ],
)
def test_impossible_optics(wrong):
    with pytest.raises(SettingsError):
        Optics(**wrong)


def test_impossible_views_and_modes():
    view = TiltedView(Optics(), 0.0, 5.0)
    with pytest.raises(SettingsError, match="pixel size"):
        TiltedView(Optics(), 0.0, 0.0)
    with pytest.raises(SettingsError, match="handedness"):
        TiltedView(Optics(), 0.0, 5.0, 0)
    with pytest.raises(GeometryError, match="±90"):
        TiltedView(Optics(), 120.0, 5.0)
    with pytest.raises(SettingsError, match="did you mean 'wiener'"):
        correct_image(noise((16, 16)), view, "weiner")
    with pytest.raises(SettingsError, match="SNR"):
        correct_image(noise((16, 16)), view, "wiener", 0.0)
