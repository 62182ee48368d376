"""The microscope in Fourier space: contrast transfer across a tilted specimen, and its correction.

Signs
    Defocus is positive when underfocused. ``CTF = sin γ``; an image of a weak phase object is ``1 - 2 CTF * phase``,
    so that protein is dark near zero frequency.

Defocus of a tilted specimen
    With ``u = x cos θ + z sin θ`` (`cryolithe.geometry`) the height towards the electron source is
    ``w = -x sin θ + z cos θ`` when the beam travels to -z at 0°. An underfocused lens is focused above the specimen, so
    what lies higher is less defocused: ``Δf(w) = Δf - w``. A column of the middle plane (z = 0) at the distance x from
    the axis has ``Δf + x sin θ``; it is seen at ``u = x cos θ``, so image column u has ``Δf + u tan θ``. With the beam
    travelling to +z the sign is the opposite (``handedness`` -1). The spread of defocus through the thickness is left
    out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, get_args

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.errors import GeometryError, SettingsError, nearest_name
from cryolithe.geometry import centre_px

Image = NDArray[np.float32]
CtfMode = Literal["left", "phase-flipped", "wiener", "none"]
CTF_MODES: tuple[str, ...] = get_args(CtfMode)
Undoing = Literal["flip", "multiply", "wiener"]
_Values = TypeVar("_Values", float, NDArray[np.float64])

ANGSTROM_PER_UM = 1e4
ANGSTROM_PER_MM = 1e7
# Phase between neighbouring strips at Nyquist: half-way the blend of two CTFs is at most 1 - cos(0.35) = 6 % too small.
STRIP_PHASE_RAD = 0.7
WIENER_SNR = 10.0
STEEPEST_DEG = 85.0  # the defocus gradient tan θ is taken from here beyond


@dataclass(frozen=True)
class Optics:
    """The state of the microscope for one image.

    Attributes:
        voltage_kv: acceleration voltage, kV.
        spherical_aberration_mm: Cs, mm.
        amplitude_contrast: part of the contrast that is amplitude contrast, 0 to 1.
        defocus_um: mean defocus on the tilt axis, µm, positive when underfocused.
        astigmatism_um: half of the difference between the largest and the smallest defocus, µm.
        astigmatism_angle_deg: direction of the largest defocus, from x towards y.
        phase_shift_deg: of a phase plate.

    Raises:
        SettingsError: if a value is not finite or out of range.
    """

    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.07
    defocus_um: float = 3.0
    astigmatism_um: float = 0.0
    astigmatism_angle_deg: float = 0.0
    phase_shift_deg: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not math.isfinite(value):
                raise SettingsError(f"{name} must be a finite number, got {value}")
        if not 20 <= self.voltage_kv <= 1500:
            raise SettingsError(f"the voltage must lie between 20 and 1500 kV, got {self.voltage_kv}")
        if self.spherical_aberration_mm < 0:
            raise SettingsError(f"Cs must be 0 mm or more, got {self.spherical_aberration_mm}")
        if not 0 <= self.amplitude_contrast <= 1:
            raise SettingsError(f"amplitude contrast must lie between 0 and 1, got {self.amplitude_contrast}")


def wavelength_angstrom(voltage_kv: float) -> float:
    """Relativistic wavelength of electrons, Å: ``12.2643 / sqrt(V + 0.97845e-6 V²)`` with V in volts."""
    volts = voltage_kv * 1e3
    return 12.26426 / math.sqrt(volts + 0.978476e-6 * volts * volts)


def phase_per_um(voltage_kv: float, squared: _Values) -> _Values:
    """By how much γ of `ctf` changes with each µm of defocus, rad: ``π λ k²``, with k² in 1/Å²."""
    return math.pi * wavelength_angstrom(voltage_kv) * ANGSTROM_PER_UM * squared


def phase_in_focus(optics: Optics, squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """γ of `ctf` without any defocus, rad: spherical aberration, phase plate, amplitude contrast; k² in 1/Å²."""
    wavelength = wavelength_angstrom(optics.voltage_kv)
    aberration = -math.pi / 2 * optics.spherical_aberration_mm * ANGSTROM_PER_MM * wavelength**3 * squared**2
    return aberration + (math.radians(optics.phase_shift_deg) + math.asin(optics.amplitude_contrast))


def reach_angstrom(voltage_kv: float, defocus_um: float, frequency: float) -> float:
    """How far defocus moves what a point gives to a frequency in 1/Å: ``λ Δf k``, the slope of γ over 2π."""
    return wavelength_angstrom(voltage_kv) * defocus_um * ANGSTROM_PER_UM * frequency


@functools.lru_cache(maxsize=4)
def frequencies(shape: tuple[int, int], pixel_size_angstrom: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Squared frequency, 1/Å², and direction, rad, of the half transform of an image, each ``(y, x // 2 + 1)``."""
    ky = np.fft.fftfreq(shape[0], pixel_size_angstrom)[:, None]
    kx = np.fft.rfftfreq(shape[1], pixel_size_angstrom)[None, :]
    squared, direction = ky**2 + kx**2, np.arctan2(ky, kx)
    squared.flags.writeable = direction.flags.writeable = False
    return squared, direction


def _phase_terms(optics: Optics, shape: tuple[int, int], pixel_size_angstrom: float) -> tuple[Image, Image]:
    """γ per µm of defocus, and what of γ does not depend on the mean defocus, each ``(y, x // 2 + 1)``."""
    squared, direction = frequencies(shape, pixel_size_angstrom)
    per_um, rest = phase_per_um(optics.voltage_kv, squared), phase_in_focus(optics, squared)
    if optics.astigmatism_um:
        azimuth = np.cos(2 * (direction - math.radians(optics.astigmatism_angle_deg)))
        rest += per_um * optics.astigmatism_um * azimuth
    return per_um.astype(np.float32), rest.astype(np.float32)


def ctf(optics: Optics, shape: tuple[int, int], pixel_size_angstrom: float) -> Image:
    """Contrast transfer function, ``sin γ``, on the half transform of an image.

    ``γ = π λ Δf(α) k² - π/2 Cs λ³ k⁴ + phase shift + asin(amplitude contrast)`` (Rohou & Grigorieff 2015, J. Struct.
    Biol. 192, 216-221).

    Args:
        optics: state of the microscope.
        shape: of the image, ``(y, x)``.
        pixel_size_angstrom: edge of a pixel.

    Returns:
        shape ``(y, x // 2 + 1)``, float32, for `scipy.fft.rfft2`.
    """
    per_um, rest = _phase_terms(optics, shape, pixel_size_angstrom)
    return np.sin(per_um * np.float32(optics.defocus_um) + rest)


def tilted_defocus_um(
    defocus_um: float, u_angstrom: NDArray[np.float64], angle_deg: float, handedness: int = 1
) -> NDArray[np.float64]:
    """Defocus of image columns at the distance u from the tilt axis, µm: ``Δf + u tan θ``, see the module.

    Args:
        defocus_um: on the tilt axis.
        u_angstrom: distances in the image, any shape.
        angle_deg: tilt angle; beyond 85° the gradient is that at 85°.
        handedness: 1 for a beam that travels to -z, -1 for one that travels to +z.
    """
    slope = math.tan(math.radians(np.clip(angle_deg, -STEEPEST_DEG, STEEPEST_DEG)))
    return defocus_um + handedness * np.asarray(u_angstrom) * slope / ANGSTROM_PER_UM


@dataclass(frozen=True)
class TiltedView:
    """One image of a tilted specimen.

    Attributes:
        optics: state of the microscope.
        angle_deg: tilt angle.
        pixel_size_angstrom: edge of a pixel.
        handedness: direction of the beam, see `tilted_defocus_um`.

    Raises:
        SettingsError: for a pixel size or handedness that cannot be.
        GeometryError: for an angle beyond ±90°.
    """

    optics: Optics
    angle_deg: float
    pixel_size_angstrom: float
    handedness: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.pixel_size_angstrom < math.inf:
            raise SettingsError(f"the pixel size must be positive, got {self.pixel_size_angstrom} Å")
        if self.handedness not in (1, -1):
            raise SettingsError(f"handedness is 1 or -1, got {self.handedness}")
        if not abs(self.angle_deg) <= 90:
            raise GeometryError(f"tilt angles must lie within ±90°, got {self.angle_deg}")

    def strips(self, width_px: int) -> tuple[NDArray[np.float64], Image]:
        """Defocus of strips across the image, µm, shape ``(S,)``, and the share of each in every column, ``(S, x)``.

        Shares fall linearly from a strip's middle to its neighbours' and sum to 1. The number of strips follows from
        `STRIP_PHASE_RAD`.
        """
        half = max(centre_px(width_px), 0.5)
        ends = np.array([-half, half]) * self.pixel_size_angstrom
        first, last = tilted_defocus_um(self.optics.defocus_um, ends, self.angle_deg, self.handedness)
        phase = phase_per_um(self.optics.voltage_kv, (0.5 / self.pixel_size_angstrom) ** 2)
        gaps = math.ceil(abs(last - first) * phase / STRIP_PHASE_RAD)
        if gaps == 0:
            return np.array([self.optics.defocus_um]), np.ones((1, width_px), dtype=np.float32)
        place = np.linspace(0, gaps, width_px) if width_px > 1 else np.array([gaps / 2])
        share = np.clip(1 - np.abs(place - np.arange(gaps + 1)[:, None]), 0, 1)
        return np.linspace(first, last, gaps + 1), share.astype(np.float32)


def form_image(signal: Image, view: TiltedView, transfer: Image | None = None) -> Image:
    """Apply the CTF as the microscope does: every column of the signal is spread with its own defocus.

    Args:
        signal: what would be seen without optics, shape ``(y, x)``.
        view: the image's optics and tilt.
        transfer: another factor in Fourier space, shape ``(y, x // 2 + 1)``.

    Returns:
        shape ``(y, x)``, float32.
    """
    shape = signal.shape[0], signal.shape[1]
    per_um, rest = _phase_terms(view.optics, shape, view.pixel_size_angstrom)
    total = np.zeros(per_um.shape, dtype=np.complex64)
    for defocus, share in zip(*view.strips(shape[1]), strict=True):
        total += scipy.fft.rfft2(signal * share) * np.sin(per_um * np.float32(defocus) + rest)
    if transfer is not None:
        total *= transfer
    return scipy.fft.irfft2(total, s=shape).astype(np.float32, copy=False)


def correct_image(image: Image, view: TiltedView, mode: CtfMode, snr: float = 1.0) -> Image:
    """Correct the CTF strip by strip, as tilt-series software does: each column is taken from its strip's correction.

    Args:
        image: recorded, shape ``(y, x)``.
        view: the image's optics and tilt.
        mode: "phase-flipped" multiplies by the CTF's sign, "wiener" by ``CTF / (CTF² + 1 / snr)``; "left" and "none"
            return the image as it is.
        snr: spectral signal-to-noise ratio for "wiener".

    Returns:
        shape ``(y, x)``, float32.

    Raises:
        SettingsError: for an unknown mode or an SNR that is not positive.
    """
    if mode not in CTF_MODES:
        raise SettingsError(f"unknown CTF mode '{mode}'{nearest_name(mode, CTF_MODES)}; known: {CTF_MODES}")
    if mode in ("left", "none"):
        return image
    if not snr > 0:
        raise SettingsError(f"a Wiener filter needs a positive SNR, got {snr}")

    def factor(transfer: Image) -> Image:
        return np.sign(transfer) if mode == "phase-flipped" else transfer / (transfer**2 + np.float32(1 / snr))

    return _by_strips(image, view, factor, 0)


def undo_ctf(image: Image, view: TiltedView, how: Undoing, snr: float = WIENER_SNR) -> Image:
    """Correct a recorded image's CTF strip by strip; beyond its borders the image is taken to be mirrored.

    Args:
        image: mean removed, tilt axis along y through its middle, shape ``(y, x)``.
        view: the image's optics and tilt.
        how: "flip" multiplies by the CTF's sign, so that its absolute value is left; "multiply" by the CTF, so that its
            square is left; "wiener" by ``CTF / (CTF² + 1 / snr)``.
        snr: spectral signal-to-noise ratio for "wiener", the same at all frequencies.

    Returns:
        shape ``(y, x)``, float32.
    """
    return _by_strips(image, view, _undoing(how, snr), spread_px(view, image.shape[1]))


def undo_ctf_in_depth(
    image: Image, view: TiltedView, how: Undoing, heights_um: Sequence[float], snr: float = WIENER_SNR
) -> Image:
    """Correct a recorded image's CTF anew for specimens at several heights, as `undo_ctf` does for the middle one.

    Strips of all heights share one ladder of defoci, so that a height costs no more than what it adds to its range.

    Args:
        image: as for `undo_ctf`.
        view: the image's optics and tilt.
        how: as for `undo_ctf`.
        heights_um: by how much each is less defocused than the middle, along the beam.
        snr: as for `undo_ctf`.

    Returns:
        shape ``(heights, y, x)``, float32.
    """
    height, width = image.shape
    half = max(centre_px(width), 0.5) * view.pixel_size_angstrom
    away = np.linspace(-half, half, width)
    middle = tilted_defocus_um(view.optics.defocus_um, away, view.angle_deg, view.handedness)
    wanted = middle - np.asarray(heights_um)[:, None]
    phase = phase_per_um(view.optics.voltage_kv, (0.5 / view.pixel_size_angstrom) ** 2)
    low, high = float(wanted.min()), float(wanted.max())
    gaps = max(1, math.ceil((high - low) * phase / STRIP_PHASE_RAD))
    ladder = np.linspace(low, high, gaps + 1)
    place = (wanted - low) / max(high - low, 1e-12) * gaps
    margin = spread_px(replace(view, optics=replace(view.optics, defocus_um=max(abs(low), abs(high)))), 1)
    made = np.zeros((len(heights_um), height, width), dtype=np.float32)
    for step, filtered_image in enumerate(_with_defoci(image, view, _undoing(how, snr), margin, ladder)):
        shares = np.clip(1 - np.abs(place - step), 0, 1).astype(np.float32)
        for number in np.flatnonzero(shares.any(1)):
            made[number] += filtered_image * shares[number]
    return made


def _undoing(how: Undoing, snr: float) -> Callable[[Image], Image]:
    """What a spectrum is multiplied by, from the CTF."""

    def factor(transfer: Image) -> Image:
        if how == "flip":
            return np.sign(transfer)
        return transfer if how == "multiply" else transfer / (transfer**2 + np.float32(1 / snr))

    return factor


def spread_px(view: TiltedView, width_px: int) -> int:
    """How far the CTF spreads a point, pixels: ``λ Δf k`` at Nyquist, of the most defocused strip."""
    defocus, _ = view.strips(width_px)
    most = float(np.abs(defocus).max()) + abs(view.optics.astigmatism_um)
    reach = reach_angstrom(view.optics.voltage_kv, most, 0.5 / view.pixel_size_angstrom)
    return math.ceil(reach / view.pixel_size_angstrom)


def _by_strips(image: Image, view: TiltedView, factor: Callable[[Image], Image], margin_px: int) -> Image:
    """Multiply the spectrum by a function of the CTF, each column by that of its strip.

    The image is mirrored about its borders for ``margin_px`` pixels, as far as it goes, and a few more for the speed of
    the transforms; it repeats itself where there is no margin.
    """
    defoci, shares = view.strips(image.shape[1])
    out = np.zeros(image.shape, dtype=np.float32)
    for filtered_image, share in zip(_with_defoci(image, view, factor, margin_px, defoci), shares, strict=True):
        seen = np.flatnonzero(share)
        columns = slice(int(seen[0]), int(seen[-1]) + 1)
        out[:, columns] += filtered_image[:, columns] * share[columns]
    return out


def _with_defoci(
    image: Image, view: TiltedView, factor: Callable[[Image], Image], margin_px: int, defoci_um: NDArray[np.float64]
) -> Iterator[Image]:
    """The whole image with its spectrum multiplied by a function of the CTF at each defocus, see `_by_strips`."""
    height, width = image.shape
    top, left = (min(margin_px, size // 2) for size in (height, width))
    whole, shape = image, (height, width)
    if margin_px:
        shape = _fast(height + 2 * top, 2 * height - 1), _fast(width + 2 * left, 2 * width - 1)
        whole = np.pad(image, ((top, shape[0] - height - top), (left, shape[1] - width - left)), mode="reflect")
    else:
        top = left = 0
    per_um, rest = _phase_terms(view.optics, shape, view.pixel_size_angstrom)
    spectrum = scipy.fft.rfft2(whole)
    for defocus in defoci_um:
        whole = scipy.fft.irfft2(spectrum * factor(np.sin(per_um * np.float32(defocus) + rest)), s=shape)
        yield whole[top : top + height, left : left + width]


def _fast(size: int, most: int) -> int:
    """A size that is transformed fast, if mirroring reaches as far."""
    fast = int(scipy.fft.next_fast_len(size, real=True))
    return fast if fast <= most else size


def source_envelope(
    optics: Optics, shape: tuple[int, int], pixel_size_angstrom: float, illumination_mrad: float
) -> Image:
    """What a source of finite size leaves of the contrast: ``exp(-(π α (Cs λ² k³ - Δf k))²)``.

    Frank 1973 (Optik 38, 519-536); Wade & Frank 1977 (Optik 49, 81-92). It matters far from focus.

    Args:
        optics: state of the microscope.
        shape: of the image, ``(y, x)``.
        pixel_size_angstrom: edge of a pixel.
        illumination_mrad: α, the angle at which the illumination has fallen to 1/e; 0 for a point.

    Returns:
        shape ``(y, x // 2 + 1)``, float32; 1 at zero frequency.
    """
    k = np.sqrt(frequencies(shape, pixel_size_angstrom)[0])
    cs = optics.spherical_aberration_mm * ANGSTROM_PER_MM
    blur = cs * wavelength_angstrom(optics.voltage_kv) ** 2 * k**3 - optics.defocus_um * ANGSTROM_PER_UM * k
    return np.exp(-((math.pi * 1e-3 * illumination_mrad * blur) ** 2)).astype(np.float32)


def filtered(image: Image, factor: Image) -> Image:
    """Multiply an image's half transform by a factor ``(y, x // 2 + 1)``; shape ``(y, x)``, float32."""
    return scipy.fft.irfft2(scipy.fft.rfft2(image) * factor, s=image.shape).astype(np.float32, copy=False)
