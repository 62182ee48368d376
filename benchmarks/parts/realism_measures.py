"""What spectra say of tilt series, alike for real and simulated ones: arrays to numbers.

Powers are in units of the noise: half the power of the difference of neighbouring tilts between 75 and 45 Å, where
cells have all but none, so neither the scale of the images nor their thickness matters. All windows are Hann's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
NOISE_BAND_ANGSTROM = (45.0, 75.0)
STEEPEST_STEP_DEG = 4.5  # neighbours are tilts no further apart


@dataclass(frozen=True)
class TiltSpectra:
    """Mean spectra of the tilts of a range, and of pairs of neighbours.

    Attributes:
        angstrom: wavelengths of the rings.
        power: of single images over the noise.
        cross: of neighbouring tilts over the noise; may be negative.
        floor: the noise, in units of the images' squares.
    """

    angstrom: NDArray[np.float64]
    power: NDArray[np.float64]
    cross: NDArray[np.float64]
    floor: float

    @property
    def snr(self) -> NDArray[np.float64]:
        """``r / (1 - r)`` of neighbouring tilts in each ring."""
        return self.cross / np.maximum(self.power - self.cross, 1e-9)

    def at(self, angstrom: float, values: NDArray[np.float64]) -> float:
        """Mean of a curve over the rings within a factor of 1.13 of a wavelength: single rings of few tilts scatter."""
        near = np.abs(np.log(self.angstrom / angstrom)) < np.log(1.13)
        near |= np.abs(np.log(self.angstrom / angstrom)) == np.abs(np.log(self.angstrom / angstrom)).min()
        return float(values[near].mean())


def spectrum(image: Floats) -> NDArray[np.complex128]:
    """Half transform of a square image in a Hann window; white noise of variance v has a mean power of v."""
    hann = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])
    centred = np.asarray(image, dtype=np.float64) - image.mean()
    return np.asarray(np.fft.rfft2(centred * hann) / np.sqrt((hann**2).sum()))


def radial(values: Floats, pixel_angstrom: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies, 1/Å, and the means of a half transform's values ``(y, x // 2 + 1)`` over rings up to Nyquist."""
    size = values.shape[0]
    ring = np.rint(size * np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])).astype(int).ravel()
    mean = np.bincount(ring, values.ravel()) / np.bincount(ring)
    rings = np.arange(1, size // 2 + 1)
    return rings / (size * pixel_angstrom), mean[rings]


def tiles(images: Floats, side: int) -> list[Floats]:
    """Square windows along y about the tilt axis, half overlapping: each a stack ``(tilt, side, side)``."""
    height, width = images.shape[1:]
    left = (width - side) // 2
    return [images[:, top : top + side, left : left + side] for top in range(0, height - side + 1, side // 2)]


def of_windows(
    stacks: list[Floats], angles_deg: list[NDArray[np.float64]], pixel_angstrom: float, tilts_deg: tuple[float, float]
) -> TiltSpectra:
    """Spectra of the tilts whose absolute angle lies in a range, over stacks ``(tilt, side, side)`` in order of angle.

    Raises:
        ValueError: if there is no pair of neighbours.
    """
    powers, crosses, noises = [], [], []
    frequency = np.zeros(0)
    for images, angles in zip(stacks, angles_deg, strict=True):
        chosen = np.flatnonzero((np.abs(angles) >= tilts_deg[0]) & (np.abs(angles) < tilts_deg[1]))
        made = {int(tilt): spectrum(images[tilt]) for tilt in chosen}
        for tilt, one in made.items():
            frequency, power = radial(np.abs(one) ** 2, pixel_angstrom)
            powers.append(power)
            if tilt + 1 in made and angles[tilt + 1] - angles[tilt] < STEEPEST_STEP_DEG:
                other = made[tilt + 1]
                crosses.append(radial((one * other.conj()).real, pixel_angstrom)[1])
                noises.append(radial(np.abs(one - other) ** 2 / 2, pixel_angstrom)[1])
    if not crosses:
        raise ValueError(f"no neighbouring tilts between {tilts_deg[0]} and {tilts_deg[1]} degrees")
    angstrom = 1 / frequency
    in_band = (angstrom > NOISE_BAND_ANGSTROM[0]) & (angstrom < NOISE_BAND_ANGSTROM[1])
    floor = float(np.mean(noises, axis=0)[in_band].mean())
    return TiltSpectra(angstrom, np.mean(powers, axis=0) / floor, np.mean(crosses, axis=0) / floor, floor)


def of_image(image: Floats, pixel_angstrom: float, side: int, floor_angstrom: tuple[float, float]) -> TiltSpectra:
    """Mean power of the windows of one image over its mean in a band where it is nearly all noise; no cross power."""
    steps = [range(0, length - side + 1, side // 2) for length in image.shape]
    found = [
        radial(np.abs(spectrum(image[y : y + side, x : x + side])) ** 2, pixel_angstrom)
        for y in steps[0]
        for x in steps[1]
    ]
    angstrom, power = 1 / found[0][0], np.mean([power for _, power in found], axis=0)
    floor = float(power[(angstrom > floor_angstrom[0]) & (angstrom < floor_angstrom[1])].mean())
    return TiltSpectra(angstrom, power / floor, np.full(len(power), np.nan), floor)


def decibels(values: float) -> float:
    """10 log10; what is not above 0 is called -30 dB."""
    return float(10 * np.log10(max(values, 1e-3)))
