"""What is left of an image without a part that changes smoothly: how strong it is, and whether it is mostly noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Most correlation of neighbouring pixels of what is left, in the median image: noise of an aligned, interpolated stack
# has up to 0.6, images of little noise 0.8 and more, in which a smooth part is specimen.
MOST_SMOOTH = 0.7
_LEAST = 1e-300


class Remainder(NamedTuple):
    """What is left of an image.

    Attributes:
        power: its variance, above 0.
        smooth: correlation of its neighbouring pixels.
    """

    power: float
    smooth: float


def remainder_of(image: NDArray[np.float32], part: NDArray[np.float32]) -> Remainder:
    """What is left of an image ``(y, x)`` without a part of it, of the same shape."""
    rest = image - part
    rest -= rest.mean(dtype=np.float64).astype(np.float32)
    power = max(_mean_product(rest, rest), _LEAST)
    neighbours = ((rest[1:], rest[:-1]), (rest[:, 1:], rest[:, :-1]))
    pairs = [_mean_product(a, b) for a, b in neighbours if a.size]
    return Remainder(power, float(np.mean(pairs)) / power if pairs else 1.0)


def _mean_product(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """In float64, of which no array of that size is made."""
    return float(np.einsum("ij,ij->", a, b, dtype=np.float64)) / a.size
