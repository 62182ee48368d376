"""Indices beyond the ends of an axis, folded back into it: the two ways of NumPy's ``pad``, by its names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def symmetric(positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions folded into ``0 ... size - 1`` by mirrors at the borders: the first and last one stand twice.

    >>> symmetric(np.arange(-2, 6), 4).tolist()
    [1, 0, 0, 1, 2, 3, 3, 2]
    """
    folded = positions % (2 * size)
    return np.minimum(folded, 2 * size - 1 - folded)


def reflected(positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions folded into ``0 ... size - 1`` by mirrors at the first and the last one, which stand once.

    >>> reflected(np.arange(-2, 6), 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    if size == 1:
        return np.zeros_like(positions)
    folded = positions % (2 * size - 2)
    return np.minimum(folded, 2 * size - 2 - folded)
