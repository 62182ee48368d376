"""From density to contrast, and from contrast to counted electrons.

Contrast of protein in ice
    Mean inner potentials follow from atomic scattering factors and densities (isolated atoms, which dominate: Vulović
    et al. 2013, J. Struct. Biol. 183, 19-32): 4.5 V for vitreous ice of 0.93 g/cm³ and 7.9 V for protein of 1.35
    g/cm³. Density 1 is the 90th percentile of a map at 10 Å, which blurs a molecule: for such a map to hold the phase
    of its atoms, density 1 stands for about 2.5 V over ice (2.2-2.5 V for maps of known mass). The interaction
    constant σ = 2π m e λ / h² (Kirkland, Advanced Computing in Electron Microscopy, chapter 5) is 6.53e-4 rad/(V Å) at
    300 kV; 100 Å of density 1 shift the phase by 0.16 rad.

Loss
    What electrons lose to a slab is not only brightness. Elastic scattering by single atoms, finer than any pixel here,
    takes the share ``1 - exp(-t / Λ_el)`` out of the wave that interferes: those electrons are counted and carry no
    contrast of what is coarser, so all contrast shrinks by ``exp(-t / (Λ_el cos θ))``. By the cross sections of
    Langmore & Smith 1992 (Ultramicroscopy 46, 349-373) Λ_el at 300 kV is 560 nm in ice and 430 nm in dry protein.
    Protein also scatters more electrons out of a zero-loss image than ice does: amplitude contrast that differs from
    place to place and does not depend on defocus (Himes & Grigorieff 2021, IUCrJ 8, 943-953). With the paths of 197 nm
    in dry protein and 375 nm in ice of Vulović et al. 2013, 100 Å of density 1 lose 2.4 %. It is delocalised: a loss E
    of about 20 eV has a characteristic angle θ_E = E / (2 E0), and the intensity a half width of some
    ``0.5 λ / θ_E^(3/4)``, 2 nm at 300 kV (Egerton 2007, Ultramicroscopy 107, 575-586).

Counting
    The expected image is blurred by the detector's MTF, then electrons are counted: Poisson noise is white, so
    ``DQE(k) = DQE(0) MTF(k)²``, with DQE(0) the share of electrons that are counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import GeometryError, SettingsError
from cryolithe.optics.transfer import STEEPEST_DEG, filtered, wavelength_angstrom

Image = NDArray[np.float32]

PROTEIN_MINUS_ICE_V = 2.5
LOSS_PATH_PROTEIN_NM, LOSS_PATH_ICE_NM, PLASMON_KEV = 197.0, 375.0, 0.02
_ELECTRON_REST_KEV = 510.99895
LEAST_BRIGHTNESS = 0.02  # of the mean: a weak-phase image of something very dense would go below zero
STEEPEST_COSINE = math.cos(math.radians(STEEPEST_DEG))


@dataclass(frozen=True)
class Detector:
    """A counting detector and the specimen's loss of electrons on the way to it.

    Attributes:
        dqe_zero: share of the electrons that are counted, DQE(0).
        mtf_nyquist: MTF at Nyquist of the detector's own pixels.
        binning: image pixel over detector pixel: how little of the MTF's fall an image sees.
        mean_free_path_nm: thickness after which 1/e of the electrons remain in a zero-loss image. Rice et al. 2018
            (J. Struct. Biol. 204, 38-44) measured 395 nm in ice at 300 kV; the cross sections used by Vulović et al.
            2013 give 375 nm for ice and 197 nm for dry protein, so a crowded cell lies between.
        elastic_path_nm: thickness after which contrast has fallen to 1/e by scattering from atoms; None for never.
        zero_loss: whether what scatters more also loses more electrons, as behind an energy filter's slit.

    Raises:
        SettingsError: if a value is out of range.
    """

    dqe_zero: float = 0.9
    mtf_nyquist: float = 0.6
    binning: float = 4.0
    mean_free_path_nm: float = 330.0
    elastic_path_nm: float | None = None
    zero_loss: bool = False

    def __post_init__(self) -> None:
        for name in ("dqe_zero", "mtf_nyquist"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingsError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        if not 1 <= self.binning < math.inf:
            raise SettingsError(f"binning must be at least 1, got {self.binning}")
        if not self.mean_free_path_nm > 0:
            raise SettingsError(f"mean_free_path_nm must be positive, got {self.mean_free_path_nm} nm")
        if self.elastic_path_nm is not None and not self.elastic_path_nm > 0:
            raise SettingsError(f"elastic_path_nm must be positive, got {self.elastic_path_nm} nm")


class Halves(NamedTuple):
    """Counts of the even and the odd frames of an image, each ``(y, x)`` float32."""

    even: Image
    odd: Image


def interaction_constant(voltage_kv: float) -> float:
    """Phase per potential and length, rad/(V Å): ``2π / (λ V) (m c² + eV) / (2 m c² + eV)``."""
    rest = _ELECTRON_REST_KEV
    relativity = (rest + voltage_kv) / (2 * rest + voltage_kv)
    return 2 * math.pi / (wavelength_angstrom(voltage_kv) * voltage_kv * 1e3) * relativity


def phase_per_voxel(voxel_size_angstrom: float, voltage_kv: float) -> float:
    """Phase shift, rad, of one voxel of density 1 (protein) against ice: the scale of density to contrast."""
    return interaction_constant(voltage_kv) * PROTEIN_MINUS_ICE_V * voxel_size_angstrom


def transmission(thickness_angstrom: float, angle_deg: float, mean_free_path_nm: float) -> float:
    """Share of the electrons that pass a slab without loss: ``exp(-t / (Λ cos θ))``; beyond 85° as at 85°."""
    cosine = max(math.cos(math.radians(angle_deg)), STEEPEST_COSINE)
    return math.exp(-thickness_angstrom / (10 * mean_free_path_nm * cosine))


def loss_over_phase(voltage_kv: float) -> float:
    """Contrast by loss over twice the phase of the same density: ``(1/197 nm - 1/375 nm) / (2 σ 2.5 V)``.

    Cross sections for loss and the interaction constant change alike with voltage, as 1 / v² and 1 / v: the small
    difference is left out, so this is the value at any voltage times v(300 kV) / v.
    """
    per_angstrom = 0.1 * (1 / LOSS_PATH_PROTEIN_NM - 1 / LOSS_PATH_ICE_NM)
    return (
        per_angstrom / (2 * phase_per_voxel(1.0, 300.0)) * interaction_constant(voltage_kv) / interaction_constant(300)
    )


def delocalised(shape: tuple[int, int], pixel_size_angstrom: float, voltage_kv: float) -> Image:
    """Transfer of contrast by loss on the half transform of an image: a Lorentzian's, ``exp(-2π k w)``; 1 at zero."""
    ky = np.fft.fftfreq(shape[0], pixel_size_angstrom)[:, None]
    kx = np.fft.rfftfreq(shape[1], pixel_size_angstrom)[None]
    angle = PLASMON_KEV / (2 * voltage_kv)
    width = 0.25 * wavelength_angstrom(voltage_kv) / angle**0.75
    return np.exp(-2 * math.pi * width * np.hypot(ky, kx)).astype(np.float32)


def coherent_share(thickness_angstrom: float, angle_deg: float, detector: Detector) -> float:
    """Share of the contrast that scattering by single atoms leaves, see the module."""
    if detector.elastic_path_nm is None:
        return 1.0
    return transmission(thickness_angstrom, angle_deg, detector.elastic_path_nm)


def mtf(shape: tuple[int, int], detector: Detector) -> Image:
    """Modulation transfer on the half transform of an image, ``(y, x // 2 + 1)``, float32.

    A Gaussian in frequency, ``MTF(k) = MTF(Nyquist) ^ (k / Nyquist)²`` with k in cycles per detector pixel: smooth,
    1 at zero, and near the published curves of counting detectors up to Nyquist.
    """
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    of_nyquist = np.hypot(ky, kx) / (0.5 * detector.binning)
    return (detector.mtf_nyquist ** (of_nyquist**2)).astype(np.float32)


def expected_counts(contrast: Image, electrons_per_px: float, detector: Detector) -> Image:
    """Mean counts of an image: ``electrons · DQE(0) · (1 + MTF * contrast)``, never negative.

    Args:
        contrast: relative brightness minus 1, shape ``(y, x)``.
        electrons_per_px: that reach the detector without specimen contrast.
        detector: what counts them.

    Returns:
        shape ``(y, x)``, float32.

    Raises:
        GeometryError: for a negative number of electrons.
    """
    if not electrons_per_px >= 0:
        raise GeometryError(f"the electrons per pixel must not be negative, got {electrons_per_px}")
    brightness = 1 + filtered(contrast, mtf((contrast.shape[0], contrast.shape[1]), detector))
    return np.maximum(brightness, LEAST_BRIGHTNESS) * np.float32(electrons_per_px * detector.dqe_zero)


def count(expected: Image, rng: np.random.Generator) -> Halves:
    """Count electrons in two halves of the frames: independent Poisson draws of half the expected counts each."""
    half = expected.astype(np.float64) / 2
    return Halves(rng.poisson(half).astype(np.float32), rng.poisson(half).astype(np.float32))


def as_contrast(halves: Halves) -> Halves:
    """Counts as relative brightness: both halves divided by half the mean of the whole image, minus 1.

    The average of the two is the whole image, treated likewise; its mean is 0. An image without any electron is 0.
    """
    mean = float(halves.even.mean(dtype=np.float64) + halves.odd.mean(dtype=np.float64)) / 2
    if mean == 0:
        return Halves(np.zeros_like(halves.even), np.zeros_like(halves.odd))
    scale = np.float32(1 / mean)
    return Halves(halves.even * scale - np.float32(1), halves.odd * scale - np.float32(1))
