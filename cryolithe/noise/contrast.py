"""Brightness beyond spectra: level, slow background, histogram, thickness, and how noise follows brightness."""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.noise.rings import FloatArray

Image = NDArray[np.float32]

BLOCK_PX = 8
HISTOGRAM_SIGMAS, HISTOGRAM_BINS = 6.0, 48
HAS_LEVEL = 3.0  # mean over standard deviation, from which on an image's grey values are brightness
_FEWEST_FOR_THICKNESS = 5
_LEAST_RANGE = 0.3  # of 1 / cos θ: less says nothing of a thickness


def blocks(image: Image, size: int = BLOCK_PX) -> FloatArray:
    """Means of square blocks; what fills no block is cut off at the ends."""
    rows, columns = (n // size for n in image.shape)
    cut = np.asarray(image[: rows * size, : columns * size], dtype=np.float64)
    return np.asarray(cut.reshape(rows, size, columns, size).mean(axis=(1, 3)))


def _terms(y: FloatArray, x: FloatArray) -> FloatArray:
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)


def _axes(shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Coordinates from -1 to 1, ``(y, 1)`` and ``(1, x)``."""
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
    return y[:, None], x[None]


def background(image: Image, valid: NDArray[np.bool_]) -> FloatArray:
    """Constant and factors of x, y, x², xy, y² that fit an image, each axis from -1 to 1; shape ``(6,)``.

    Args:
        image: shape ``(y, x)``.
        valid: where it holds anything.
    """
    shape = (image.shape[0], image.shape[1])
    y, x = (np.broadcast_to(axis, shape).astype(np.float32) for axis in _axes(shape))
    kept = blocks(valid.astype(np.float32)) > 0.99
    if kept.sum() < 12:
        return np.array([float(image[valid].mean() if valid.any() else 0.0), 0, 0, 0, 0, 0])
    design = _terms(blocks(y)[kept], blocks(x)[kept])
    return np.asarray(np.linalg.lstsq(design, blocks(image)[kept], rcond=None)[0])


def drawn_background(factors: FloatArray, shape: tuple[int, int]) -> Image:
    """The background of factors of x, y, x², xy, y², with a mean of 0, shape ``shape``."""
    y, x = _axes(shape)
    a, b, c, d, e = factors
    image = a * x + b * y + c * x * x + d * x * y + e * y * y
    return (image - image.mean()).astype(np.float32)


def without_background(image: Image) -> Image:
    """An image without its fitted background, as spectra are measured."""
    found = background(image, np.ones(image.shape, dtype=bool))
    return image - np.float32(found[0]) - _uncentred(found[1:], (image.shape[0], image.shape[1]))


def _uncentred(factors: FloatArray, shape: tuple[int, int]) -> Image:
    y, x = _axes(shape)
    a, b, c, d, e = factors
    return np.asarray(a * x + b * y + c * x * x + d * x * y + e * y * y, dtype=np.float32)


def remove_background(image: Image, found: FloatArray) -> Image:
    """An image less a background found by `background`."""
    return np.asarray(image - np.float32(found[0]) - _uncentred(found[1:], (image.shape[0], image.shape[1])))


def histogram(image: Image, valid: NDArray[np.bool_]) -> FloatArray:
    """Counts of blocks by their brightness in standard deviations, shape ``(HISTOGRAM_BINS,)``."""
    values = blocks(image)[blocks(valid.astype(np.float32)) > 0.99]
    if values.size < 2 or not values.std() > 0:
        return np.zeros(HISTOGRAM_BINS)
    scaled = (values - values.mean()) / values.std()
    edge = HISTOGRAM_SIGMAS
    return np.histogram(np.clip(scaled, -edge, edge), HISTOGRAM_BINS, (-edge, edge))[0].astype(np.float64)


def slope_sums(noise: Image, brightness: Image, valid: NDArray[np.bool_]) -> FloatArray:
    """Sums ``(xx, xy, yy, n)`` of relative brightness x and relative variance y of blocks, for `variance_slope`.

    Args:
        noise: half difference.
        brightness: relative to its mean, minus 1.
        valid: where images hold anything.
    """
    kept = blocks(valid.astype(np.float32), 2 * BLOCK_PX) > 0.99
    variance, bright = blocks(noise * noise, 2 * BLOCK_PX)[kept], blocks(brightness, 2 * BLOCK_PX)[kept]
    if variance.size < 4 or not variance.mean() > 0:
        return np.zeros(4)
    y, x = variance / variance.mean() - 1, bright - bright.mean()
    return np.array([x @ x, x @ y, y @ y, float(x.size)])


def variance_slope(sums: FloatArray) -> tuple[float, float]:
    """Slope of the regression and its standard error; 0 and infinity where brightness does not vary."""
    xx, xy, yy, count = sums
    if not (xx > 0 and count > 4):
        return 0.0, math.inf
    slope = xy / xx
    return float(slope), float(math.sqrt(max(yy - slope * xy, 0.0) / ((count - 2) * xx)))


def thickness_paths(levels: FloatArray, angles_deg: FloatArray) -> float:
    """Thickness in mean free paths: ``ln level`` falls by it with ``1 / cos θ`` (Beer-Lambert); NaN if not known."""
    usable = np.isfinite(levels) & (np.abs(angles_deg) < 75)
    if usable.sum() < _FEWEST_FOR_THICKNESS or not (levels[usable] > 0).all():
        return math.nan
    way = 1 / np.cos(np.deg2rad(angles_deg[usable]))
    if np.ptp(way) < _LEAST_RANGE:
        return math.nan
    return float(-np.polyfit(way, np.log(levels[usable]), 1)[0])


def filled(image: Image) -> NDArray[np.bool_]:
    """Where an image is the same as its neighbours along x and y: borders that an alignment left empty."""
    flat = np.zeros(image.shape, dtype=bool)
    flat[:, 1:] = image[:, 1:] == image[:, :-1]
    flat[:, 0] = flat[:, 1] if image.shape[1] > 1 else False
    upright = np.zeros(image.shape, dtype=bool)
    upright[1:] = image[1:] == image[:-1]
    upright[0] = upright[1] if image.shape[0] > 1 else False
    both = flat & upright
    return np.asarray(scipy.ndimage.binary_opening(both, np.ones((3, 3), dtype=bool)))
