"""Whether two stacks are the halves of one series: the same specimen, image by image, with the same sign.

Only low frequencies are looked at, means of blocks of pixels: there the specimen stands above the noise of a half.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Independent noise correlates by nothing, and what both show by more than nothing.
OPPOSITE, BETTER, SIGMAS = 0.1, 0.1, 5.0
_COARSE, _FINE = 16, 32  # blocks along the shorter side of an image
_MIRRORS = {"along x": (False, True), "along y": (True, False), "along x and y": (True, True)}


def fault_of_halves(even: NDArray[Any], odd: NDArray[Any]) -> str:
    """What is wrong with the images of two halves, as the end of a sentence; empty where nothing is.

    Args:
        even: stack ``(tilt, y, x)`` of even frames.
        odd: that of odd frames, of the same shape.
    """
    found, by_chance = _low_correlation(even, odd)
    if found < -max(OPPOSITE, by_chance):
        correlate = f"the low frequencies of their images correlate by {found:.2f}"
        return f"are of opposite contrast: {correlate}; invert one of them"
    block = max(1, min(even.shape[1:]) // _FINE)
    first, second = (np.stack([_unit(_block_means(image, block)) for image in stack]) for stack in (even, odd))
    shape = tuple(size // block for size in even.shape[1:])
    alike = first @ second.T
    own = np.diagonal(alike)
    margin = max(BETTER, SIGMAS / math.sqrt(first.shape[1]))
    others = np.flatnonzero(alike.max(axis=1) - own > margin)
    if 2 * len(others) > len(own) > 1:
        one = int(others[0])
        return (
            f"have their images in different orders: {len(others)} of {len(own)} are more like another image of the "
            f"other half (image {one + 1} of the first like image {int(alike[one].argmax()) + 1} of the second); give "
            "halves in one order"
        )
    margin = max(BETTER, SIGMAS / math.sqrt(first.size))
    for name, (y, x) in _MIRRORS.items():
        turned = second.reshape(-1, *shape)[:, :: -1 if y else 1, :: -1 if x else 1].reshape(len(second), -1)
        if float((first * turned).sum(axis=1).mean() - own.mean()) > margin:
            return f"are mirror images {name} of each other; give halves as one program wrote them"
    return ""


def _low_correlation(even: NDArray[Any], odd: NDArray[Any]) -> tuple[float, float]:
    """Correlation of images at low frequencies, mean over them, and how far from 0 chance brings it."""
    block = max(1, min(even.shape[1:]) // _COARSE)
    found, samples = [], 1
    for pair in zip(even, odd, strict=True):
        a, b = (_block_means(image, block).ravel() for image in pair)
        samples = a.size
        if a.any() and b.any():
            found.append(float(_unit(a) @ _unit(b)))
    return float(np.mean(found)) if found else 0.0, SIGMAS / math.sqrt(samples * max(1, len(found)))


def _block_means(image: NDArray[Any], block: int) -> NDArray[np.float64]:
    """Means of square blocks, less their mean."""
    rows, columns = (size // block for size in image.shape)
    part = np.asarray(image[: rows * block, : columns * block], np.float64)
    finite = np.nan_to_num(part, posinf=0.0, neginf=0.0)
    means: NDArray[np.float64] = finite.reshape(rows, block, columns, block).mean(axis=(1, 3))
    return means - means.mean()


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values as a vector of length 1, or 0 where there are none."""
    flat = values.ravel()
    length = float(np.sqrt(flat @ flat))
    return flat / length if length else flat
