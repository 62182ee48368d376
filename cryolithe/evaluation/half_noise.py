"""Whether two halves have noise in common: of frames that are in both, of a denoiser for both, of the detector.

Halves ``E = S + N + C``, ``O = S + N' + C``, with noise C in common, correlate by r, of which ``r / (1 - r) = (|S|² +
|C|²) / |N|²`` in a ring of frequencies. A specimen's power falls towards Nyquist by more than noise does, or comes and
goes with the CTF (benchmarks/LOG.md); what noise has in common is even. Only clear images of which the CTF has its
first maximum just below Nyquist look alike. Where a specimen stands out pixel by pixel (beads, edges), whose power need
not fall, nothing is asked.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import middle
from cryolithe.artefacts.fixed_pattern import shared_pattern

# Images, spread over the series, and pixels of their middle along both axes, of which details are enough to tell.
MOST_IMAGES, PART = 12, 512
# Rings of frequencies, cycles per pixel, without rows and columns.
RINGS, OFF_AXES_PER_PX = ((0.3, 0.35), (0.35, 0.4), (0.4, 0.45), (0.45, 0.5)), 0.05
# Deviations of the noise by which a specimen's finest details stand out of it, and the part of the pixels of which
# they must not, else nothing is said of the noise.
_STANDS_OUT, LEAST_QUIET = 6.0, 0.5
# Correlation that is no chance, and least r / (1 - r) of the rings by the greatest where noise is in common.
WORTH_A_WORD, EVEN = 0.1, 0.8
CLEAR, CERTAIN = 0.35, 5.0
SPREAD = 1.5  # deviations by chance of the rings with least and most of some
_MOST_SIGMAS = 4.0  # beads and hot pixels have power at all frequencies

Image = NDArray[np.float32]
FloatArray = NDArray[np.float64]
_Sums = FloatArray  # of a product, of both powers, of the pixels that these are of, and of all


class NoiseInCommon(NamedTuple):
    """What halves have in common beside their specimen.

    Attributes:
        correlation: of their finest details; 0 where that may be the specimen, or chance.
        pattern: of the power of the finest details, what is in all images of the first half alike.
    """

    correlation: float
    pattern: float

    @property
    def is_clear(self) -> bool:
        """Whether what learns from one half to foretell the other would learn noise."""
        return self.correlation > CLEAR


def noise_in_common(even: NDArray[Any], odd: NDArray[Any], left_out: Collection[int] = ()) -> NoiseInCommon:
    """Ask two halves for noise that both hold.

    Args:
        even: stack ``(tilt, y, x)`` of even frames.
        odd: that of odd frames, of the same shape.
        left_out: numbers, from 1, of images that nobody will use.
    """
    used = [place for place in range(len(even)) if place + 1 not in left_out]
    if not used:
        return NoiseInCommon(0.0, 0.0)
    chosen = [used[place] for place in np.unique(np.linspace(0, len(used) - 1, MOST_IMAGES).round().astype(int))]
    images = [(_usual(even[number]), _usual(odd[number])) for number in chosen]
    pattern = shared_pattern(one for one, _ in images)
    rings = np.sum([_products(_by_ring(one), _by_ring(other)) for one, other in images], axis=0)
    sums = rings.sum(axis=0)
    if sums[3] < LEAST_QUIET * sums[4]:
        return NoiseInCommon(0.0, pattern)
    # A ring holds about an eighth of the coefficients of an image, of which each has a real and an imaginary part.
    found, deviation = sorted(map(_correlation, rings)), 1 / math.sqrt(max(1.0, sums[3] / 4 / 8))
    least, most = _ratio(found[0] + SPREAD * deviation), _ratio(found[-1] - SPREAD * deviation)
    if found[0] < max(WORTH_A_WORD, CERTAIN * deviation / 2) or least < EVEN * most:
        return NoiseInCommon(0.0, pattern)
    return NoiseInCommon(_correlation(sums), pattern)


def _ratio(correlation: float) -> float:
    """What is in common over what is not."""
    return correlation / max(1e-9, 1 - min(correlation, 1.0))


def _correlation(sums: _Sums) -> float:
    product, first, second = sums[:3]
    return float(product / math.sqrt(first * second)) if first > 0 and second > 0 else 0.0


def _products(one: Sequence[FloatArray], other: Sequence[FloatArray]) -> FloatArray:
    """Of two images by rings, without the places at which a specimen stands out of their noise, ``(rings, sums)``."""
    sums: list[_Sums] = []
    for first, second in zip(one, other, strict=True):
        noise = 1.4826 * float(np.median(np.abs(first - second)))
        quiet = np.abs(first + second) <= _STANDS_OUT * noise
        a, b = first[quiet], second[quiet]
        sums.append(np.array([float(a @ b), float(a @ a), float(b @ b), len(a), quiet.size]))
    return np.array(sums)


def _by_ring(image: Image) -> list[FloatArray]:
    """An image's details of each ring of frequencies, as values of its pixels."""
    window = np.hanning(image.shape[0] + 2)[1:-1, None] * np.hanning(image.shape[1] + 2)[1:-1]
    spectrum = scipy.fft.rfft2(image * window)
    ky, kx = np.abs(scipy.fft.fftfreq(image.shape[0]))[:, None], scipy.fft.rfftfreq(image.shape[1])
    radius = np.hypot(ky, kx)
    radius[(ky <= OFF_AXES_PER_PX) | (kx <= OFF_AXES_PER_PX)] = 0.0
    inner = tuple(slice(size // 5, size - size // 5) for size in image.shape)  # the window leaves little of the rest
    return [scipy.fft.irfft2(spectrum * ((radius >= low) & (radius < high)), image.shape)[inner] for low, high in RINGS]


def _usual(image: NDArray[Any]) -> Image:
    """The middle of an image about its median, without what is far from it."""
    rows, columns = (middle(size, PART) for size in image.shape)
    values = np.nan_to_num(np.asarray(image[rows, columns], np.float64), posinf=0.0, neginf=0.0)
    values -= np.median(values)
    most = _MOST_SIGMAS * 1.4826 * float(np.median(np.abs(values)))
    values = np.clip(values, -most, most)
    return np.asarray(values - values.mean(), np.float32)
