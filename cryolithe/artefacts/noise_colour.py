"""The colour of noise: by which factors it becomes white, and whether images have it.

Detectors, the correction of motion, and interpolation leave noise whose power depends on frequency. A network that
learned on white noise takes such noise for something else; filtered so that it is white, it is what the network knows.

Curves are given at ``POINTS`` frequencies, evenly from 0 to 0.5 cycles per pixel; what lies between is interpolated.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

POINTS = 17
# Factors relative to that at low frequencies; a greater one would magnify what interpolation lost.
LEAST_GAIN, MOST_GAIN = 0.5, 4.0
# Below the first, halves of frames also differ by what the beam changes; the factor there is 1, as on average between.
FIRST_PER_PX, SECOND_PER_PX = 0.06, 0.13
# Noise that changes by less is white.
FLAT_DB = 1.5
# Where images hold little beside noise.
NOISY_PER_PX = 0.2
_BORDER_PX = 24
# Frequencies, cycles per pixel, between which the logarithm of a drawn power spectrum is a line.
COLOUR_KNOTS = (0.0, 0.06, 0.125, 0.25, 0.5)

Gain = tuple[float, ...]
FloatArray = NDArray[np.float64]


def frequencies_per_px() -> FloatArray:
    """Those of a curve."""
    return np.linspace(0.0, 0.5, POINTS)


def radial_power(image: NDArray[np.floating]) -> FloatArray:
    """Mean power of an image about each frequency of a curve, in the squared units of its pixels.

    Args:
        image: shape ``(y, x)``, any mean.
    """
    window = np.outer(*(np.hanning(size + 2)[1:-1] for size in image.shape))
    spectrum = scipy.fft.rfft2((image - image.mean()) * window)
    power = np.abs(spectrum) ** 2 / (window**2).sum()
    place = _radius(image.shape) * 2 * (POINTS - 1)
    below = np.floor(place).astype(np.int64)
    share = place - below
    inside = place < POINTS - 1
    sums, weights = np.zeros(POINTS), np.zeros(POINTS)
    for offset, part in ((0, 1 - share), (1, share)):
        number = (below + offset)[inside]
        weights += np.bincount(number, part[inside], POINTS)
        sums += np.bincount(number, (part * power)[inside], POINTS)
    return sums / np.maximum(weights, 1e-12)


def whitening_gain(noise_power: FloatArray) -> Gain | None:
    """The factors that make noise white, 1 at low frequencies; None where it is white already.

    Args:
        noise_power: of noise alone, at each frequency of a curve.
    """
    frequency = frequencies_per_px()
    low = float(noise_power[(frequency >= FIRST_PER_PX) & (frequency <= SECOND_PER_PX)].mean())
    power = np.where(frequency < FIRST_PER_PX, low, noise_power)
    if power.min() <= 0:
        return None
    gain = np.clip(np.sqrt(low / power), LEAST_GAIN, MOST_GAIN)
    if 20 * np.log10(gain.max() / gain.min()) < FLAT_DB:
        return None
    return tuple(round(float(one), 4) for one in gain)


def has_colour(power: FloatArray, gain: Gain) -> bool:
    """Whether images have the colour that a gain makes white, or are nearer to white noise.

    Their power is compared at frequencies where there is little beside noise: it changes as ``gain**-2`` does, or less.

    Args:
        power: mean of the images', at each frequency of a curve.
        gain: factors.
    """
    band = frequencies_per_px() >= NOISY_PER_PX
    ours = np.log(np.maximum(power[band], np.finfo(np.float64).tiny))
    wanted = -2 * np.log(np.asarray(gain)[band])
    ours, wanted = ours - ours.mean(), wanted - wanted.mean()
    return bool(ours @ wanted > 0.5 * (wanted @ wanted))


def filtered(image: NDArray[np.float32], gain: Gain) -> NDArray[np.float32]:
    """An image ``(y, x)`` with its frequencies multiplied; it is mirrored beyond its borders."""
    border = [min(_BORDER_PX, size - 1) for size in image.shape]
    padded = np.pad(image, [(size, size) for size in border], mode="reflect")
    response = np.interp(_radius(padded.shape), frequencies_per_px(), gain).astype(np.float32)
    made = scipy.fft.irfft2(scipy.fft.rfft2(padded) * response, s=padded.shape)
    inside = made[border[0] : border[0] + image.shape[0], border[1] : border[1] + image.shape[1]]
    return np.ascontiguousarray(inside, dtype=np.float32)


def _radius(shape: tuple[int, ...]) -> FloatArray:
    """Frequency of each coefficient of ``rfft2``, cycles per pixel."""
    radius: FloatArray = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    return radius


def draw_colour(deviation_db: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Power at `COLOUR_KNOTS` of noise as an unknown detector, binning and interpolation leave it, shape ``(knots,)``.

    Args:
        deviation_db: standard deviation of each of them, decibels.
        rng: source of randomness.
    """
    return np.asarray(10 ** (deviation_db * rng.standard_normal(len(COLOUR_KNOTS)) / 10))


def drawn_power(frequency_per_px: FloatArray, power: FloatArray) -> FloatArray:
    """The power of `draw_colour` at any frequencies, cycles per pixel, in their shape."""
    found: FloatArray = np.exp(np.interp(frequency_per_px, COLOUR_KNOTS, np.log(power)))
    return found
