"""Power spectra of images by rings of frequency, from patches in a Hann window (Welch 1967).

Frequencies are in cycles per pixel; ring n of patches of P pixels lies at ``n / P``, n = 1 ... P / 2. White noise of
variance v has a power of v in every ring.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import shell_of, times_counted

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

PATCH_PX = 256
MOST_PATCHES = 25  # of an image: spread over it
_FIRST_RING = 0.05
_HANN_SHARE = 0.5  # of a ring's coefficients that a Hann window leaves independent of each other


class Corner(NamedTuple):
    """First row and column of a patch."""

    y: int
    x: int


def patch_size(shape: tuple[int, int]) -> int:
    """Edge of the patches of an image, even."""
    return min(PATCH_PX, 2 * (min(shape) // 2))


def corners(shape: tuple[int, int], size: int, apart: bool = False) -> tuple[Corner, ...]:
    """Where patches lie that cover an image evenly, at most `MOST_PATCHES` of them; ``apart``: without overlap."""
    counts = [max(1, length // size if apart else -(-length // size)) for length in shape]
    while counts[0] * counts[1] > MOST_PATCHES:
        counts[int(np.argmax(counts))] -= 1
    starts = [np.linspace(0, length - size, count).round() for length, count in zip(shape, counts, strict=True)]
    return tuple(Corner(int(y), int(x)) for y in starts[0] for x in starts[1])


@functools.lru_cache(maxsize=4)
def hann(size: int) -> FloatArray:
    """Window of a patch with a mean square of 1."""
    line = np.hanning(size + 2)[1:-1]
    window = line[:, None] * line
    window /= np.sqrt(np.mean(window**2))
    window.flags.writeable = False
    return window


@functools.lru_cache(maxsize=4)
def _rings(size: int) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
    """Ring of each coefficient of a half transform, how often it counts, and the coefficients of each ring."""
    ky, kx = scipy.fft.fftfreq(size)[:, None], scipy.fft.rfftfreq(size)[None]
    ring = shell_of(np.hypot(ky, kx), size)
    times: FloatArray = np.broadcast_to(times_counted(size), ring.shape).copy()
    counts: FloatArray = np.asarray(np.bincount(ring.ravel(), times.ravel()))
    return ring, times, counts


def frequencies(size: int) -> FloatArray:
    """Of the rings of patches of an edge, cycles per pixel, shape ``(size // 2,)``."""
    return np.arange(1, size // 2 + 1) / size


def independent(size: int, patches: int) -> FloatArray:
    """About how many independent complex coefficients each ring of some patches holds, shape ``(size // 2,)``.

    The first ring holds hardly any: what the window mixes into it of the mean is gone with the mean.
    """
    counts = _rings(size)[2][1 : size // 2 + 1] / 2 * _HANN_SHARE
    counts[0] *= _FIRST_RING
    return np.asarray(patches * counts)


def weights(size: int) -> FloatArray:
    """Coefficients of each ring: what a power spectrum is weighed by in a sum over an image, ``(size // 2,)``."""
    return _rings(size)[2][1 : size // 2 + 1]


def ring_means(values: Array) -> FloatArray:
    """Means over the rings of a real array on the half transform of a square patch, shape ``(size // 2,)``."""
    size = values.shape[0]
    ring, times, counts = _rings(size)
    sums = np.bincount(ring.ravel(), (times * values).ravel(), minlength=counts.size)
    return (sums / counts)[1 : size // 2 + 1]


def transform(image: Array, corner: Corner, size: int) -> NDArray[np.complex128]:
    """Half transform of a patch without its mean, in the window; white noise of variance v has the power v."""
    patch = np.asarray(image[corner.y : corner.y + size, corner.x : corner.x + size], dtype=np.float64)
    return np.asarray(scipy.fft.rfft2((patch - patch.mean()) * hann(size)) / size)


def power(image: Array, size: int, places: Iterable[Corner] | None = None) -> FloatArray:
    """Power of an image by rings, shape ``(size // 2,)``."""
    chosen = tuple(places) if places is not None else corners((image.shape[0], image.shape[1]), size)
    return np.mean([ring_means(np.abs(transform(image, place, size)) ** 2) for place in chosen], axis=0)


def powers(images: Sequence[Array] | Array, size: int) -> FloatArray:
    """Of several images, shape ``(images, size // 2)``."""
    return np.stack([power(image, size) for image in images])


def radius(shape: tuple[int, int]) -> FloatArray:
    """Frequency of each coefficient of a half transform, cycles per pixel, shape ``(y, x // 2 + 1)``."""
    return np.hypot(scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])[None])


def on_rings(curve: FloatArray, frequency: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """A curve on the half transform of an image; beyond its ends it goes on evenly, shape ``(y, x // 2 + 1)``."""
    return np.interp(radius(shape), frequency, curve)
