"""What lies beyond the end of an axis: its mirror image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def reflected(positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions folded into ``0 ... size - 1`` by mirrors at the first and the last pixel.

    >>> reflected(np.arange(-2, 6), 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    if size == 1:
        return np.zeros_like(positions)
    folded = np.abs(positions) % (2 * (size - 1))
    return np.where(folded >= size, 2 * (size - 1) - folded, folded)
