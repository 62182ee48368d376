"""Pixels that can only be defects: hot pixels and X-rays, told from the specimen by the spread of the images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolithe.images import clipped_sigma

# Pixels this many standard deviations out are clipped in what a network sees, ...
CLIP_SIGMAS = 12.0
# ... but never closer than this multiple of the deviation that all but one pixel in 2000 stay below.
TAIL_QUANTILE, TAIL_MARGIN = 0.9995, 1.5


class Spread(NamedTuple):
    """Variance of a prepared image without outliers, and the deviation that all but one pixel in 2000 stay below."""

    variance: float
    tail: float


def spread_of(image: NDArray[np.float32]) -> Spread:
    """Of an image whose mean is removed."""
    return Spread(clipped_sigma(image) ** 2, float(np.quantile(np.abs(image), TAIL_QUANTILE)))


def defect_limits(image: NDArray[np.float32]) -> tuple[np.floating, np.floating]:
    """Lowest and highest value of an image: further from its median is nothing that fills more than a few pixels."""
    middle = np.median(image)
    deviation = image - middle
    level = _outlier_level(clipped_sigma(deviation), float(np.quantile(np.abs(deviation), TAIL_QUANTILE)))
    return middle - level, middle + level


def defect_level(sigma: float, tails: list[float]) -> float:
    """Deviation from the mean beyond which a pixel of a series can only be a defect.

    What fills more than a few pixels of most images is part of the specimen, however dense.

    Args:
        sigma: standard deviation of the pixels of the series, outliers left out.
        tails: of each image, the deviation that all but one pixel in 2000 stay below.
    """
    return _outlier_level(sigma, float(np.median(tails)))


def _outlier_level(sigma: float, tail: float) -> float:
    return max(CLIP_SIGMAS * sigma, TAIL_MARGIN * tail)
