"""What different images of a series have in common, whose noise is independent: a fixed pattern, and what leaks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cryolithe.noise.rings import Corner, FloatArray, ring_means

_Spectrum = NDArray[np.complex128]
_Image = NDArray[np.float32]


class FixedPattern:
    """Sums for the cross-spectrum of all pairs of different images, one in either half, patch by patch.

    ``Σ_t≠u E_t O_u* = (Σ E_t) (Σ O_t)* - Σ E_t O_t*``.
    """

    def __init__(self) -> None:
        self._sums: dict[Corner, tuple[_Spectrum, _Spectrum, _Spectrum, int]] = {}

    def add(self, place: Corner, even: _Spectrum, odd: _Spectrum) -> None:
        """Count a patch of an image."""
        first, second, own, count = self._sums.get(place, (0.0, 0.0, 0.0, 0))
        self._sums[place] = (first + even, second + odd, own + even * odd.conj(), count + 1)

    def power(self, size: int) -> FloatArray:
        """Mean over all pairs, by rings; 0 where there are none."""
        total, pairs = np.zeros(size // 2), 0
        for first, second, own, count in self._sums.values():
            if count > 1:
                total += ring_means((first * second.conj() - own).real)
                pairs += count * (count - 1)
        return total / max(pairs, 1)


class Leak:
    """Correlation of the half differences of images with the averages of the images before and behind them.

    An image's own average holds noise that goes with its half difference wherever one half has more noise than the
    other. Its neighbour's average shows nearly the same specimen, with noise that has nothing to do with either.
    """

    def __init__(self) -> None:
        self._before: tuple[_Image, _Image, NDArray[np.bool_]] | None = None
        self._product = self._noises = self._means = 0.0

    def add(self, mean: _Image, noise: _Image, valid: NDArray[np.bool_]) -> None:
        """Count an image: its average, its half difference, and where it holds anything."""
        if self._before is not None:
            mean_before, noise_before, valid_before = self._before
            both = valid & valid_before
            self._count(mean_before[both], noise[both])
            self._count(mean[both], noise_before[both])
        self._before = mean, noise, valid

    def _count(self, mean: _Image, noise: _Image) -> None:
        if mean.size:
            first, second = (values - values.mean(dtype=np.float64) for values in (mean, noise))
            self._product += float(first @ second)
            self._means += float(first @ first)
            self._noises += float(second @ second)

    @property
    def correlation(self) -> float:
        """Of all images; 0 where there is nothing."""
        length = math.sqrt(self._noises) * math.sqrt(self._means)
        return self._product / length if length > 0 else 0.0
