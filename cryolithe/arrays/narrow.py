"""Values of wide types as float32, which keeps seven digits: what all of them have in common is taken off before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A mean that is so many standard deviations costs float32 three of its digits of what varies.
FAR = 1000.0
_SLICES = 16  # that are looked at, evenly spaced


def common_value(values: Any, axis: int = 0) -> float:
    """What to take off values before they become float32: their mean, where it is far from 0, else 0.

    Types that float32 holds are not looked at. What is constant or not finite does not count.

    Args:
        values: an array, or what gives one when it is indexed.
        axis: along which slices are read, the one that costs least.
    """
    if np.can_cast(values.dtype, np.float32):
        return 0.0
    size = values.shape[axis]
    found = []
    for number in sorted({round(place) for place in np.linspace(0, size - 1, min(size, _SLICES))}):
        part = np.asarray(values[(slice(None),) * axis + (number,)], dtype=np.float64)
        part = part[np.isfinite(part)]
        if part.size and part.min() < part.max():
            centre = float(part.mean())
            found.append((centre, float((part - centre).std())))
    if not found:
        return 0.0
    mean, deviation = (float(np.median(column)) for column in zip(*found, strict=True))
    return float(np.rint(mean)) if abs(mean) > FAR * deviation else 0.0


def narrowed(values: Any, common: float | None = None) -> NDArray[Any]:
    """Values less what they have in common, as float32; the same array where that is nothing.

    Args:
        values: an array.
        common: what to take off; found here unless it is given.
    """
    taken = common_value(values) if common is None else common
    if not taken:
        return np.asarray(values)
    if np.ndim(values) < 2:
        return np.asarray(np.asarray(values, dtype=np.float64) - taken, dtype=np.float32)
    made = np.empty(values.shape, np.float32)
    for number, part in enumerate(values):  # wide copies of one slice at a time
        made[number] = np.asarray(part, dtype=np.float64) - taken
    return made
