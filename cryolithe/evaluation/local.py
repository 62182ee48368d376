"""Where two halves agree: a map of local correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array = NDArray[Any]

WINDOW_SIGMA_PX = 4.0
TRUNCATE = 3.0
SLAB_PX = 64
LEVELS = (0.5, 0.8)


@dataclass(frozen=True)
class Agreement:
    """Summary of an agreement map.

    Attributes:
        window_sigma_px: of the Gaussian window.
        mean: of the map.
        median: of the map.
        share_above: share of voxels above each of 0.5 and 0.8, by level.
    """

    window_sigma_px: float
    mean: float
    median: float
    share_above: dict[str, float]


def window_sigma_px(shape: tuple[int, ...]) -> float:
    """Width of the window: 4 pixels, and less in a thin volume."""
    return min(WINDOW_SIGMA_PX, min(shape) / 8)


def agreement_map(a: Array, b: Array, sigma_px: float) -> NDArray[np.float32]:
    """Pearson correlation of two volumes in a Gaussian window about each voxel.

    ``cov(a, b) / sqrt(var a · var b)`` with all moments weighted by the window, -1 to 1; 0 where one is constant.
    The map tells where the halves say the same. It is a first measure of confidence: what a network invents alike in
    both halves agrees, too.

    Args:
        a: real, shape ``(z, y, x)``.
        b: the same shape.
        sigma_px: of the window.
    """
    out = np.empty(a.shape, dtype=np.float32)
    halo = int(TRUNCATE * sigma_px + 0.5)
    # Small numbers keep the differences of squares below exact enough in float32.
    centre = [np.float32(v.mean(dtype=np.float64)) for v in (a, b)]
    scale = [np.float32(_spread(v, float(c)) or 1.0) for v, c in zip((a, b), centre, strict=True)]

    def smooth(values: Array) -> Array:
        return gaussian_filter(values, sigma_px, truncate=TRUNCATE)

    for start in range(0, len(a), SLAB_PX):
        stop = min(start + SLAB_PX, len(a))
        low, high = max(0, start - halo), min(len(a), stop + halo)
        x, y = ((v[low:high].astype(np.float32) - c) / s for v, c, s in zip((a, b), centre, scale, strict=True))
        mean_x, mean_y = smooth(x), smooth(y)
        covariance = smooth(x * y) - mean_x * mean_y
        spread = (smooth(x * x) - mean_x**2).clip(0) * (smooth(y * y) - mean_y**2).clip(0)
        found = np.divide(covariance, np.sqrt(spread), out=np.zeros_like(spread), where=spread > 1e-12)
        out[start:stop] = np.clip(found, -1, 1)[start - low : start - low + stop - start]
    return out


def summarise(agreement: NDArray[np.float32], sigma_px: float, inside: NDArray[np.bool_] | None = None) -> Agreement:
    """Mean, median and shares of a map, where ``inside`` is true."""
    values = agreement if inside is None else agreement[inside]
    shares = {str(level): float(np.count_nonzero(values > level) / values.size) for level in LEVELS}
    return Agreement(sigma_px, float(values.mean(dtype=np.float64)), float(np.median(values)), shares)


def _spread(values: Array, mean: float) -> float:
    """Standard deviation without a double-precision copy."""
    return math.sqrt(sum(float(((plane.astype(np.float64) - mean) ** 2).sum()) for plane in values) / values.size)
