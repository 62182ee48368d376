"""Where two halves agree: a map of local correlation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
_COPIES = 16  # arrays of a block's size that are alive at once, those within the filters counted in
_BINS = 4096


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
    for start, block in agreement_slabs(a, b, sigma_px):
        out[start : start + len(block)] = block
    return out


def agreement_slabs(
    a: Array, b: Array, sigma_px: float, memory_bytes: int | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The map of `agreement_map` in slabs of whole sections, (first section, values).

    Args:
        a: real, shape ``(z, y, x)``.
        b: the same shape.
        sigma_px: of the window.
        memory_bytes: that the arrays of a step may take, about; slabs and the blocks that they are made of follow it,
            the values do not. A block is at least one section high and one row deep, with its surroundings.
    """
    halo = int(TRUNCATE * sigma_px + 0.5)
    depth, height, width = a.shape
    planes, rows = SLAB_PX, height
    if memory_bytes is not None:
        planes = max(1, min(SLAB_PX, memory_bytes // (4 * 4 * height * width)))
        rows = memory_bytes // (_COPIES * 4 * (planes + 2 * halo) * width) - 2 * halo
        rows = max(1, min(height, rows))
    # Small numbers keep the differences of squares below exact enough in float32.
    centre = [np.float32(v.mean(dtype=np.float64)) for v in (a, b)]
    scale = [np.float32(_spread(v, float(c)) or 1.0) for v, c in zip((a, b), centre, strict=True)]

    def smooth(values: Array) -> Array:
        return gaussian_filter(values, sigma_px, truncate=TRUNCATE)

    def block(z: slice, y: slice) -> NDArray[np.float32]:
        wide = tuple(slice(max(0, c.start - halo), min(n, c.stop + halo)) for c, n in ((z, depth), (y, height)))
        p, q = ((v[wide].astype(np.float32) - c) / s for v, c, s in zip((a, b), centre, scale, strict=True))
        mean_p, mean_q = smooth(p), smooth(q)
        covariance = smooth(p * q) - mean_p * mean_q
        spread = (smooth(p * p) - mean_p**2).clip(0) * (smooth(q * q) - mean_q**2).clip(0)
        found = np.divide(covariance, np.sqrt(spread), out=np.zeros_like(spread), where=spread > 1e-12)
        inner = tuple(slice(c.start - w.start, c.stop - w.start) for c, w in zip((z, y), wide, strict=True))
        return np.clip(found[inner], -1, 1)

    for start in range(0, depth, planes):
        z = slice(start, min(start + planes, depth))
        parts = [block(z, slice(row, min(row + rows, height))) for row in range(0, height, rows)]
        yield start, np.concatenate(parts, axis=1)


def summarise(agreement: NDArray[Any], sigma_px: float, inside: NDArray[np.bool_] | None = None) -> Agreement:
    """Mean, median and shares of a map, where ``inside`` is true; section by section, so that it may be a file."""

    def sections() -> Iterator[NDArray[np.float32]]:
        for z, section in enumerate(agreement):
            yield np.asarray(section).ravel() if inside is None else section[inside[z]]

    count = sum(section.size for section in sections())
    total = sum(float(section.sum(dtype=np.float64)) for section in sections())
    above = {str(level): sum(int(np.count_nonzero(s > level)) for s in sections()) / count for level in LEVELS}
    return Agreement(sigma_px, total / count, _median(sections, count), above)


def _median(sections: Callable[[], Iterator[NDArray[np.float32]]], count: int) -> float:
    """Exact median of values from -1 to 1: only those of the bins that hold it are kept and sorted."""
    edges = np.linspace(-1, 1, _BINS + 1)

    def bins(section: NDArray[np.float32]) -> NDArray[np.intp]:
        return np.clip(np.searchsorted(edges, section, side="right") - 1, 0, _BINS - 1)

    counts = np.zeros(_BINS, dtype=np.int64)
    for section in sections():
        counts += np.bincount(bins(section), minlength=_BINS)
    below = np.cumsum(counts)
    middle = ((count - 1) // 2, count // 2)
    first, last = (int(np.searchsorted(below, rank, side="right")) for rank in middle)
    kept = np.sort(np.concatenate([s[((found := bins(s)) >= first) & (found <= last)] for s in sections()]))
    before = int(below[first - 1]) if first else 0
    return float(np.mean([kept[rank - before] for rank in middle], dtype=np.float32))


def _spread(values: Array, mean: float) -> float:
    """Standard deviation without a double-precision copy."""
    return math.sqrt(sum(float(((plane.astype(np.float64) - mean) ** 2).sum()) for plane in values) / values.size)
