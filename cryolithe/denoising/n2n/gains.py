"""Amplitudes by shell of spatial frequency, which a loss of correlations does not see.

For output o and target t of pairs held back, ``g(q) = Re <o, t>_q / <o, o>_q`` minimises ``|g o - t|²`` in every
shell: the Wiener gain of the phases that were learned. A few rows that are held back of a faint volume tell it badly:
with n coefficients of a shell its variance is ``<t - g o, t - g o> / (n <o, o>)``, and a gain that follows
chance erases one band and passes the next. So it is drawn towards what is known beforehand, as much as its variance
says: the gain of the weights that a training began with, else a factor of 1, which an output that was learned by least
squares has, with the deviation `PRIOR_SIGMA`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import fade, shell_of, times_counted

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

SHELLS = 32  # from 0 to Nyquist
MOST_GAIN = 10.0
PRIOR_SIGMA = 0.4
_TIED = 1.5  # by how much fading makes chance larger (variance), about
_SMOOTHING = 2.0  # shells: the gain then reaches less than `GAIN_REACH_PX` in the volume
GAIN_REACH_PX = 24
TAPER_PX = 8


@dataclass(frozen=True)
class ShellGain:
    """Factors at the frequencies 0 to 0.5 per voxel in equal steps; beyond Nyquist the last one holds.

    Attributes:
        factors: at least two.
    """

    factors: tuple[float, ...] = (1.0, 1.0)

    @property
    def is_one(self) -> bool:
        """Whether it changes nothing."""
        return all(factor == 1 for factor in self.factors)

    def at(self, frequency_per_px: Array) -> FloatArray:
        """Factors at any frequencies, linear between the known ones."""
        return np.interp(frequency_per_px, np.linspace(0, 0.5, len(self.factors)), self.factors)

    def apply(self, volume: NDArray[np.float32]) -> NDArray[np.float32]:
        """A volume with its amplitudes multiplied, shape ``(z, y, x)``; the borders are mirrored, not joined.

        Memory: the half spectrum of the volume, as large as the volume itself.
        """
        if self.is_one:
            return volume
        pads = [min(GAIN_REACH_PX, size - 1) for size in volume.shape]
        padded = np.pad(volume, [(pad, pad) for pad in pads], mode="reflect")
        spectrum = scipy.fft.rfftn(padded, overwrite_x=True)
        ky, kx = scipy.fft.fftfreq(padded.shape[1])[:, None], scipy.fft.rfftfreq(padded.shape[2])
        across = ky**2 + kx**2
        for index, kz in enumerate(scipy.fft.fftfreq(padded.shape[0])):
            spectrum[index] *= self.at(np.sqrt(kz**2 + across)).astype(np.float32)
        result = scipy.fft.irfftn(spectrum, padded.shape, overwrite_x=True)
        inside = tuple(slice(pad, pad + size) for pad, size in zip(pads, volume.shape, strict=True))
        return np.ascontiguousarray(result[inside], dtype=np.float32)

    def plain(self) -> dict[str, Any]:
        """Values of JSON."""
        return {"factors": list(self.factors)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> ShellGain:
        """The gain that `plain` wrote.

        Raises:
            ValueError: if it is none.
        """
        factors = tuple(float(factor) for factor in values["factors"])
        if len(factors) < 2 or not all(0 <= factor <= MOST_GAIN for factor in factors):
            raise ValueError(f"a gain has two or more factors between 0 and {MOST_GAIN:g}")
        return cls(factors)


ONE = ShellGain()


def fit_gain(pairs: Iterable[tuple[Array, Array]], shells: int = SHELLS, prior: ShellGain = ONE) -> ShellGain:
    """Gain by shell that makes outputs most alike to targets (see the module).

    Args:
        pairs: output and target, each of shape ``(z, y, x)``, any box.
        shells: of the result, from 0 to Nyquist.
        prior: what is known beforehand: that of the weights a training began with.

    Returns:
        factors between 0 and ``MOST_GAIN``; where a shell tells nothing, those of its neighbours.
    """
    sums, count = np.zeros((3, shells)), np.zeros(shells)
    for output, target in pairs:
        sums += shell_sums(output, target, shells)
        count += _counts(np.shape(output), shells)
    cross, power, other = sums
    told = power > power.max() * 1e-12
    left = other - np.divide(cross**2, power, out=np.zeros(shells), where=told)
    variance = np.divide(_TIED * left, count * power, out=np.full(shells, np.inf), where=told & (count > 0))
    # As so many more products with outputs of the prior's factor: the quotient is then the most likely one of both.
    weight = np.where(told, variance / PRIOR_SIGMA**2, 0.0) * power
    return gain_of(cross + weight * prior.at(np.linspace(0, 0.5, shells)), power + weight)


def gain_of(cross: FloatArray, power: FloatArray) -> ShellGain:
    """The gain of products of outputs and targets, and of the outputs' powers, by shell from 0 to Nyquist."""
    shells = cross.size
    known = power > power.max() * 1e-12
    known[0] = False  # the mean, and what the fading of the borders makes of it
    if not known.any():
        return ShellGain()
    places = np.arange(shells)
    ratio = np.divide(cross, power, out=np.zeros(shells), where=known)
    factors = _smoothed(ratio, known.astype(float))
    factors = np.interp(places, places[known], np.clip(factors, 0, MOST_GAIN)[known])
    return ShellGain(tuple(float(factor) for factor in factors))


def _smoothed(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Lines fitted to the surroundings of each value: a gain with steps from shell to shell would ring."""
    places = np.arange(values.size, dtype=float)
    apart = places - places[:, None]
    kernel = weights * np.exp(-0.5 * (apart / _SMOOTHING) ** 2)
    s0, s1, s2 = (((apart**n) * kernel).sum(axis=1) for n in range(3))
    flat, slope = kernel @ values, (apart * kernel) @ values
    spread = s0 * s2 - s1**2
    lines = np.divide(s2 * flat - s1 * slope, spread, out=np.zeros_like(flat), where=spread > 1e-9)
    return np.where(spread > 1e-9, lines, flat / np.maximum(s0, 1e-300))


def _counts(shape: Sequence[int], shells: int) -> FloatArray:
    """Coefficients of the full spectrum in each shell, shape ``(shells,)``."""
    shell, times = _shells(shape, shells)
    weights = np.broadcast_to(times, (*shape[:2], len(times))).ravel()
    counts: FloatArray = np.bincount(shell, weights, minlength=shells + 1)[:shells].astype(np.float64)
    return counts


def shell_sums(first: Array, second: Array, shells: int) -> FloatArray:
    """Products, powers of the first, and powers of the second volume by shell up to Nyquist, shape ``(3, shells)``.

    The borders are faded, which an edge would correlate by.
    """
    a, b = (scipy.fft.rfftn(_faded(np.asarray(values, np.float32))) for values in (first, second))
    shell, times = _shells(first.shape, shells)
    terms = ((a * b.conj()).real, np.abs(a) ** 2, np.abs(b) ** 2)
    return np.stack([np.bincount(shell, (times * t).ravel(), minlength=shells + 1)[:shells] for t in terms])


def power_densities(values: Array, shells: int) -> FloatArray:
    """Power of each frequency, a mean over a shell, shape ``(shells,)``: 1 for white noise of variance 1.

    Shells of small arrays that hold no frequency have what lies between their neighbours.
    """
    count = _counts(values.shape, shells)
    faded = math.prod(float(np.square(fade(size, TAPER_PX), dtype=np.float64).sum()) for size in values.shape)
    held = np.flatnonzero(count)
    return np.interp(np.arange(shells), held, shell_sums(values, values, shells)[1][held] / (count[held] * faded))


def _shells(shape: Sequence[int], shells: int) -> tuple[NDArray[np.intp], FloatArray]:
    """Shell of each coefficient of a half spectrum, flat (``shells`` beyond Nyquist), and `times_counted`."""
    z, y, x = shape
    axes = np.meshgrid(scipy.fft.fftfreq(z), scipy.fft.fftfreq(y), scipy.fft.rfftfreq(x), indexing="ij", sparse=True)
    radius = np.sqrt(axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2)
    return np.minimum(shell_of(radius, 2 * (shells - 1)), shells).ravel(), times_counted(x)


def _faded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values without their mean, faded to 0 at the borders, which would correlate by themselves."""
    faded = values - values.mean(dtype=np.float64)
    for axis, size in enumerate(values.shape):
        faded = faded * fade(size, TAPER_PX).reshape([-1 if n == axis else 1 for n in range(3)])
    return np.asarray(faded, dtype=np.float32)
