"""Low frequencies of the input are kept: there is little noise to remove there, and something to lose.

Predicting planes from their neighbours smooths along z, which costs some of the correlation with the specimen at
frequencies where noise is next to nothing (benchmarks/LOG.md). Up to where input and output hardly differ, the input is
the better of the two: ``result = output + G (input - output)`` with a Gaussian low pass G.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.metrics import fourier_shell_correlation

# Correlation of input and output down to which they hardly differ: noise is then at most a twentieth of the power.
SAME = 0.95
# A crossover below this would need more planes at a time than it is worth.
LEAST_PER_PX = 0.02
REACH = 4.0  # standard deviations at which the Gaussian is cut off

Plane = Callable[[int], NDArray[np.float32]]


def crossover_per_px(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Frequency in cycles per voxel at which the correlation of two volumes first falls below `SAME`; 0 if at once."""
    curve = fourier_shell_correlation(before, after)
    below = np.flatnonzero(~(curve.total[1:] >= SAME)) + 1
    if not below.size:
        return float(curve.frequency_per_px[-1])
    last, first = curve.total[below[0] - 1], curve.total[below[0]]
    if below[0] == 1 or not np.isfinite(last - first):
        return 0.0
    share = (last - SAME) / (last - first)
    step = curve.frequency_per_px[below[0]] - curve.frequency_per_px[below[0] - 1]
    return float(curve.frequency_per_px[below[0] - 1] + share * step)


def sigma_px(crossover: float) -> float | None:
    """Standard deviation of the Gaussian whose response at the crossover is one half; None where that is too low."""
    return None if crossover < LEAST_PER_PX else math.sqrt(2 * math.log(2)) / (2 * math.pi * crossover)


@dataclass
class KeptLow:
    """Planes of the output with the low frequencies of the input, asked for from the first to the last.

    Attributes:
        before: plane z of the input, shape ``(y, x)``.
        after: plane z of the output.
        usable: of each plane, whether it has content; others take no part.
        sigma: of the Gaussian, voxels.
    """

    before: Plane
    after: Plane
    usable: NDArray[np.bool_]
    sigma: float
    _lacking: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    _after: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    def plane(self, z: int) -> NDArray[np.float32]:
        """Plane z, which must have content."""
        reach = math.ceil(REACH * self.sigma)
        near = [n for n in range(max(0, z - reach), min(self.usable.size, z + reach + 1)) if self.usable[n]]
        for n in near:
            if n not in self._lacking:
                self._after[n] = self.after(n)
                self._lacking[n] = scipy.ndimage.gaussian_filter(
                    self.before(n) - self._after[n], self.sigma, mode="nearest", truncate=REACH
                )
        weights = np.exp(-0.5 * ((np.array(near) - z) / self.sigma) ** 2)
        weights /= weights.sum()
        total = self._after.pop(z)
        for n, weight in zip(near, weights, strict=True):
            total = total + np.float32(weight) * self._lacking[n]
        self._lacking = {n: values for n, values in self._lacking.items() if n >= z + 1 - reach}
        return total
