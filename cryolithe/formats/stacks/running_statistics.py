"""Statistics of a volume that is seen part by part."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats.stacks.mrc_header import VolumeStatistics

# Values whose statistics are computed at a time: they stay in a core's cache.
_PIECE = 1 << 15


class RunningStatistics:
    """Statistics of values that come in parts, merged without loss of digits (Chan, Golub and LeVeque 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self._minimum, self._maximum = math.inf, -math.inf
        self._mean = self._squares = 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Take in values of any shape and real dtype."""
        flat = values.reshape(-1)
        with np.errstate(invalid="ignore", over="ignore"):
            for first in range(0, flat.size, _PIECE):
                piece = flat[first : first + _PIECE]
                exact = piece.astype(np.float64)
                mean = float(exact.mean())
                exact -= mean
                rms = math.sqrt(float(np.square(exact, out=exact).mean()))
                self.merge(piece.size, VolumeStatistics(float(piece.min()), float(piece.max()), mean, rms))

    def merge(self, count: int, part: VolumeStatistics) -> None:
        """Take in the statistics of ``count`` values."""
        with np.errstate(invalid="ignore"):
            # Numpy's minimum keeps NaN, so that a value that is none does not go unnoticed.
            self._minimum = float(np.minimum(self._minimum, part.minimum))
            self._maximum = float(np.maximum(self._maximum, part.maximum))
        total = self.count + count
        step = part.mean - self._mean
        self._squares += part.rms**2 * count + step * step * (self.count * count / total)
        self._mean += step * (count / total)
        self.count = total

    def result(self) -> VolumeStatistics:
        """Return the statistics of all values so far (of none: NaN)."""
        if self.count == 0:
            return VolumeStatistics(math.nan, math.nan, math.nan, math.nan)
        return VolumeStatistics(self._minimum, self._maximum, self._mean, math.sqrt(self._squares / self.count))
