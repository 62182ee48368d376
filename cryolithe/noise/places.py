"""Where spectra and pieces of noise are taken of an image that may have empty borders."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.noise.contrast import filled
from cryolithe.noise.rings import Corner, corners

MOST_FILLED = 0.02  # of a patch
_FINEST = 256  # squares of blocks are looked for, of which the shorter side has at most about so many
_FLAT_PX = 9  # what is the same over fewer pixels may be counts of few levels

Mask = NDArray[np.bool_]


def holds_anything(first: NDArray[np.float32], second: NDArray[np.float32]) -> Mask:
    """Where two halves of an image hold anything: both have the same empty borders."""
    return np.asarray(~(filled(first) & filled(second)))


def clear_square(valid: Mask) -> tuple[Corner, int]:
    """The largest square of an image without empty borders: its corner, and its edge in pixels; 0 where all is empty.

    Args:
        valid: where the image holds anything, shape ``(y, x)``.
    """
    block = max(1, min(valid.shape) // _FINEST)
    rows, columns = (size // block for size in valid.shape)
    parts = valid[: rows * block, : columns * block].reshape(rows, block, columns, block)
    empty = parts.mean(axis=(1, 3)) < 0.5
    # Beyond the image is empty, too, so that strips along its sides count, and spots within it do not.
    flat = max(1, _FLAT_PX // block)
    opened = scipy.ndimage.binary_opening(np.pad(empty, flat, constant_values=True), np.ones((flat, flat), bool))
    empty &= opened[flat:-flat, flat:-flat]
    edges = _largest_squares(~empty)
    y, x = np.unravel_index(int(edges.argmax()), edges.shape)
    edge = int(edges[y, x])
    return Corner((int(y) - edge + 1) * block, (int(x) - edge + 1) * block), edge * block


def _largest_squares(clear: Mask) -> NDArray[np.int64]:
    """Edge of the largest square of clear pixels whose last row and column each pixel is in, shape ``(y, x)``."""
    rows, columns = clear.shape
    edges = np.zeros((rows + 1, columns + 1), dtype=np.int64)
    # Along the antidiagonals, as each pixel asks the three before it.
    for total in range(rows + columns - 1):
        y = np.arange(max(0, total - columns + 1), min(rows, total + 1))
        x = total - y
        before = np.minimum(np.minimum(edges[y, x + 1], edges[y + 1, x]), edges[y, x])
        edges[y + 1, x + 1] = np.where(clear[y, x], before + 1, 0)
    return edges[1:, 1:]


def usable(valid: Mask, size: int, apart: bool = False) -> tuple[Corner, ...]:
    """Corners of patches that hold an image nearly everywhere, spread over it as `corners` does.

    Where none of those does, one in the largest part of the image without borders, if that is large enough.
    """
    empty = ~valid
    places = corners((valid.shape[0], valid.shape[1]), size, apart)
    found = tuple(p for p in places if empty[p.y : p.y + size, p.x : p.x + size].mean() <= MOST_FILLED)
    if found:
        return found
    corner, edge = clear_square(valid)
    if edge < size:
        return ()
    middle = (edge - size) // 2
    return (Corner(corner.y + middle, corner.x + middle),)
