"""Pixels that can only be defects: hot pixels and X-rays, told from the specimen by the spread of the images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from cryolithe.images import clipped_sigma

# Pixels this many standard deviations out are clipped in what a network sees, ...
CLIP_SIGMAS = 12.0
# ... but never closer than this multiple of the deviation that all but one pixel in 2000 stay below, or of the median
# of 3 × 3 pixels: of a spot 2.6 pixels wide at half its height the one in the middle is this much denser.
TAIL_QUANTILE, TAIL_MARGIN, NOISE_SIGMAS = 0.9995, 1.5, 2.0


class Spread(NamedTuple):
    """Variance of a prepared image without outliers, and the deviation up to which there is specimen (`tail_of`)."""

    variance: float
    tail: float

    def times(self, factor: float) -> Spread:
        """Of the image multiplied by a factor above 0."""
        return Spread(self.variance * factor**2, self.tail * factor)


def spread_of(image: NDArray[np.float32]) -> Spread:
    """Of an image whose mean is removed."""
    sigma = clipped_sigma(image)
    return Spread(sigma**2, tail_of(image, sigma))


def tail_of(deviation: NDArray[np.float32], sigma: float) -> float:
    """The deviation that all but one pixel in 2000 stay below, or that of what is dense there but no defect.

    Args:
        deviation: of an image from its middle, shape ``(y, x)``.
        sigma: standard deviation of its pixels, outliers left out.
    """
    tail = _usual_tail(deviation)
    return max(tail, float(_smooth(deviation, np.abs(deviation) > _outlier_level(sigma, tail), sigma).max(initial=0.0)))


def defect_limits(image: NDArray[np.float32]) -> tuple[np.floating, np.floating]:
    """Lowest and highest value of an image: further from its median is nothing that fills more than a few pixels.

    Where the whole image is at hand, `without_defects` does better: one bead there does not hide what lies elsewhere.

    Args:
        image: shape ``(y, x)``.
    """
    middle = np.median(image)
    deviation = image - middle
    sigma = clipped_sigma(deviation)
    level = _outlier_level(sigma, tail_of(deviation, sigma))
    return middle - level, middle + level


def without_defects(image: NDArray[np.float32], some: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """An image whose defects are clipped; a bead, or a block of hot pixels as smooth, keeps its own pixels as they are.

    Args:
        image: shape ``(y, x)``.
        some: pixels of it that tell of its values; all without.
    """
    seen = image if some is None else some
    middle = np.median(seen)
    deviation = seen - middle
    sigma = clipped_sigma(deviation)
    level = _outlier_level(sigma, _usual_tail(deviation))
    clipped = np.clip(image, middle - level, middle + level)
    beyond = clipped != image
    if beyond.any():
        groups, count = label(beyond, np.ones((3, 3)))
        group = groups[beyond]
        levels = np.full(count + 1, level, dtype=np.float32)
        np.maximum.at(levels, group, TAIL_MARGIN * _smooth(image - middle, beyond, sigma))
        clipped[beyond] = np.clip(image[beyond], middle - levels[group], middle + levels[group])
    return clipped


def defect_level(sigma: float, tails: list[float]) -> float:
    """Deviation from the mean beyond which a pixel of a series can only be a defect.

    What fills more than a few pixels of most images, or is as smooth as a bead, is part of the specimen, however dense.

    Args:
        sigma: standard deviation of the pixels of the series, outliers left out.
        tails: of each image (`tail_of`).
    """
    return _outlier_level(sigma, float(np.median(tails)))


def _outlier_level(sigma: float, tail: float) -> float:
    return max(CLIP_SIGMAS * sigma, TAIL_MARGIN * tail)


def _usual_tail(deviation: NDArray[np.float32]) -> float:
    return float(np.quantile(np.abs(deviation), TAIL_QUANTILE))


def _smooth(deviation: NDArray[np.float32], chosen: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """How dense it is around each chosen pixel of an image, 0 where the pixel is a defect.

    A bead is smooth: its neighbours are nearly as dense. Where a defect is spread over some, by binning or
    interpolation, most of the nine pixels around it are not.
    """
    far = np.argwhere(chosen)
    steps = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1), indexing="ij"), axis=-1).reshape(1, 9, 2)
    around = np.clip(far[:, None] + steps, 0, np.array(deviation.shape) - 1)
    values = deviation[far[:, 0], far[:, 1]]
    # The noise of a pixel is larger than that of a median.
    dense = np.median(deviation[around[..., 0], around[..., 1]], axis=1) * np.sign(values) + NOISE_SIGMAS * sigma
    return np.where(TAIL_MARGIN * dense >= np.abs(values), dense, 0).astype(np.float32)
