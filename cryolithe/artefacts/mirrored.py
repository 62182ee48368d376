"""Whether of two volumes one shows the other mirrored: through another sense of z, or turned half around an axis."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import fade, shell_of, times_counted

Array = NDArray[Any]

# A mirrored fit counts where it is so much better than that of the volumes as they are, and no chance.
CLEARLY, LEAST_SIGNIFICANCE = 1.5, 12.0
LOW_PER_PX = 0.12  # width of a Gaussian low pass: what two halves, or volumes of all methods, have in common
_BINNED_FROM = 64  # voxels along the shortest axis from which every other one does
_FLIPS = [axes for n in (1, 2, 3) for axes in itertools.combinations((0, 1, 2), n)]


@dataclass(frozen=True)
class Mirrored:
    """How much better the second of two volumes fits the first one mirrored.

    Attributes:
        axes: letters of those along which it is mirrored; none where the volumes fit best as they are, or not at all.
        plain: highest correlation of the volumes as they are, at any shift.
        flipped: that of the mirrored ones.
    """

    axes: str
    plain: float
    flipped: float

    @property
    def words(self) -> str:
        """For messages: how one lies to the other."""
        if len(self.axes) == 2:
            around = next(axis for axis in "zyx" if axis not in self.axes)
            return f"turned half around {around}"
        return f"mirrored along {' and '.join(self.axes)}" if len(self.axes) == 1 else "mirrored along z, y and x"

    @property
    def remedy(self) -> str:
        """For messages: what to do."""
        if self.axes == "z":
            return "reconstruct both with one sense of z (--handedness, --flip-z), or mirror one of them"
        return f"{'turn' if len(self.axes) == 2 else 'mirror'} one of them back"


def mirrored(first: Array, second: Array) -> Mirrored:
    """Compare two volumes in all mirrorings and at all shifts; a mirrored one counts where it fits clearly better.

    Every shell of frequencies is divided by its own power, so that neither a slab of ice nor a gradient, which are
    their own mirror images, speaks for anything. Polarity does not matter.

    Args:
        first: shape ``(z, y, x)``, finite, not constant.
        second: the same shape, likewise.
    """
    step = 2 if min(first.shape) >= _BINNED_FROM else 1
    a, b = (_windowed(_halved(volume) if step == 2 else volume) for volume in (first, second))
    shape = a.shape
    spectrum = scipy.fft.rfftn(a)
    frequency = np.sqrt(
        scipy.fft.fftfreq(shape[0])[:, None, None] ** 2
        + scipy.fft.fftfreq(shape[1])[:, None] ** 2
        + scipy.fft.rfftfreq(shape[2]) ** 2
    )
    other = scipy.fft.rfftn(b)
    low = np.exp(-((frequency / (LOW_PER_PX * step)) ** 2)).astype(np.float32)
    low[0, 0, 0] = 0
    times = np.broadcast_to(times_counted(shape[2]), low.shape)
    shell = shell_of(frequency, min(shape))
    count = np.bincount(shell.ravel(), times.ravel())
    powers = [np.bincount(shell.ravel(), (times * np.abs(each) ** 2).ravel()) for each in (spectrum, other)]
    level = np.sqrt(powers[0] * powers[1]) / np.maximum(count, 1)
    weight = low / np.maximum(level, max(float(level.max()) * 1e-12, 1e-300)).astype(np.float32)[shell]
    weighted = np.conj(spectrum) * (weight / float((times * low).sum()))
    plain = _highest(weighted * other, shape)[0]
    if plain * CLEARLY >= 1:  # no correlation is higher than 1
        return Mirrored("", plain, 0.0)
    found = {axes: _highest(weighted * scipy.fft.rfftn(np.flip(b, axes)), shape) for axes in _FLIPS}
    best = max(found, key=lambda axes: found[axes][0])
    flipped, significance = found[best]
    if flipped < CLEARLY * plain or significance < LEAST_SIGNIFICANCE:
        return Mirrored("", plain, flipped)
    return Mirrored("".join("zyx"[axis] for axis in best), plain, flipped)


def _highest(product: Array, shape: tuple[int, ...]) -> tuple[float, float]:
    """Largest magnitude of a correlation at all shifts, and by how many times it exceeds the usual one."""
    values = np.abs(scipy.fft.irfftn(product, shape)) * math.prod(shape)
    highest = float(values.max())
    return min(highest, 1.0), highest / max(float(np.sqrt((values**2).mean())), 1e-30)


def _windowed(volume: Array) -> Array:
    """Mean removed, and faded to nothing at all faces, so that opposite ones do not meet."""
    faded = (volume - volume.mean(dtype=np.float64)).astype(np.float32)
    for axis, size in enumerate(volume.shape):
        faded *= fade(size, size // 4).reshape([-1 if a == axis else 1 for a in range(3)])
    return faded


def _halved(volume: Array) -> Array:
    """Means of 2 × 2 × 2 voxels about the middle: the volume's mirror images stay those of the result."""
    z, y, x = (size // 2 for size in volume.shape)
    return np.asarray(volume[: 2 * z, : 2 * y, : 2 * x], np.float32).reshape(z, 2, y, 2, x, 2).mean((1, 3, 5))
