"""The images of all frames, where those of the even and of the odd ones lie in two stacks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryolithe.tilts import Images


class MeanImages:
    """An array ``(tilt, y, x)`` of which each image is the mean of two, made when it is asked for.

    Args:
        even: images of the even frames.
        odd: of the odd ones, of the same shape.

    Attributes:
        parts: both.

    Raises:
        ValueError: if they have other shapes.
    """

    def __init__(self, even: Images, odd: Images) -> None:
        if even.shape != odd.shape:
            raise ValueError(f"images of shape {even.shape} and {odd.shape} have no mean")
        self.parts = even, odd
        self.shape = even.shape
        self.ndim = 3

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        """Image ``number``, from 0; shape ``(y, x)``."""
        even, odd = (np.asarray(part[number], dtype=np.float32) for part in self.parts)
        mean: NDArray[np.float32] = even + (odd - even) * np.float32(0.5)
        return mean
