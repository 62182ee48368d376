"""Whether two stacks are the halves of one series: the same specimen, image by image, with the same sign.

Only low frequencies are looked at, means of blocks of pixels: there the specimen stands above the noise of a half.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Images = NDArray[np.float64]

# Independent noise correlates by nothing, and what both show by more than nothing.
OPPOSITE, BETTER, SIGMAS = 0.1, 0.1, 5.0
FAR = 6.0  # median deviations: one in 20 000 of noise, and what is no specimen
# Of the finest details of an image with itself, when one was rounded to 8 bits; of halves of few frames .5 at most.
COPIED = 0.995
_MOST_TOLD = 6
_PART = 512  # pixels along both axes, of which copies are told
_BLOCKS = 32  # along the shorter side of an image
_MIRRORS = {"along x": (1, -1), "along y": (-1, 1), "along x and y": (-1, -1)}  # steps along (y, x)


@dataclass(frozen=True)
class HalfDoubts:
    """What speaks against two stacks being halves, as ends of sentences; empty where nothing does.

    Attributes:
        opposite: one is inverted.
        unlike: their images are in different orders, or mirror images.
        same: they have images in common, however scaled: their noise would count as signal.
    """

    opposite: str = ""
    unlike: str = ""
    same: str = ""


def doubts_of_halves(even: NDArray[Any], odd: NDArray[Any], left_out: Collection[int] = ()) -> HalfDoubts:
    """Compare the images of two halves.

    Args:
        even: stack ``(tilt, y, x)`` of even frames.
        odd: that of odd frames, of the same shape.
        left_out: numbers, from 1, of images that nobody will use and that may be the same.
    """
    block = max(1, min(even.shape[1:]) // _BLOCKS)
    first, second = (np.stack([_block_means(image, block) for image in stack]) for stack in (even, odd))
    opposite = _opposite(first, second)
    first, second = (np.stack([_usual(image) for image in half]) for half in (first, second))
    return HalfDoubts(opposite, _reordered(first, second) or _mirrored(first, second), _same(even, odd, left_out))


def _same(even: NDArray[Any], odd: NDArray[Any], left_out: Collection[int]) -> str:
    """Whether images of both halves are one, by their finest details, where halves have noise of their own."""
    same = [
        number
        for number, (one, other) in enumerate(zip(even, odd, strict=True), start=1)
        if number not in left_out and _unit(_details(one)) @ _unit(_details(other)) > COPIED
    ]
    if not same:
        return ""
    told = ", ".join(map(str, same[:_MOST_TOLD])) + (", ..." if len(same) > _MOST_TOLD else "")
    which = f"image {told}" if len(same) == 1 else f"images {told}"
    return (
        f"have the same noise in {which}: what is in both by mistake counts as signal; give the two halves of the "
        "frames, or leave such images out"
    )


def _details(image: NDArray[Any]) -> _Images:
    """Differences along both axes, what changes from pixel to pixel; edges and hot pixels count as noise does.

    Of the middle of a large image, which has enough of them.
    """
    rows, columns = (slice(max(0, (size - _PART) // 2), (size + _PART) // 2) for size in image.shape)
    part = np.asarray(image[rows, columns], np.float64)
    found = np.nan_to_num(np.diff(np.diff(part, axis=0), axis=1), posinf=0.0, neginf=0.0)
    most = FAR * float(np.median(np.abs(found)))
    return np.clip(found, -most, most)


def _opposite(first: _Images, second: _Images) -> str:
    """Whether one half is inverted, by blocks of twice the size: their noise is half."""
    if min(first.shape[1:]) > 1:
        first, second = (np.stack([_block_means(image, 2) for image in half]) for half in (first, second))
    pairs = list(zip(first, second, strict=True))
    found = [float(_unit(a) @ _unit(b)) for a, b in pairs if a.any() and b.any()]
    mean, by_chance = float(np.mean(found or [0.0])), SIGMAS / math.sqrt(first.size)
    if mean > -max(OPPOSITE, by_chance):
        return ""
    correlate = f"the low frequencies of their images correlate by {mean:.2f}"
    return f"are of opposite contrast: {correlate}; invert one of them"


def _reordered(first: _Images, second: _Images) -> str:
    """Whether most images of one half are more like another image of the other half than like their own."""
    alike = np.stack([_unit(image) for image in first]) @ np.stack([_unit(image) for image in second]).T
    own = np.diagonal(alike)
    margin = max(BETTER, SIGMAS / math.sqrt(first[0].size))
    others = np.flatnonzero(alike.max(axis=1) - own > margin)
    if not 2 * len(others) > len(own) > 1:
        return ""
    one = int(others[0])
    return (
        f"have their images in different orders: {len(others)} of {len(own)} are more like another image of the "
        f"other half (image {one + 1} of the first like image {int(alike[one].argmax()) + 1} of the second); give "
        "halves in one order"
    )


def _mirrored(first: _Images, second: _Images) -> str:
    """Whether the images of one half are more like the mirrored ones of the other."""
    own = _mean_correlation(first, second)
    margin = max(BETTER, SIGMAS / math.sqrt(first.size))
    for name, (y, x) in _MIRRORS.items():
        if _mean_correlation(first, second[:, ::y, ::x]) - own > margin:
            return f"are mirror images {name} of each other; give halves as one program wrote them"
    return ""


def _mean_correlation(first: _Images, second: _Images) -> float:
    return float(np.mean([_unit(a) @ _unit(b) for a, b in zip(first, second, strict=True)]))


def _block_means(image: NDArray[Any], block: int) -> _Images:
    """Means of square blocks, less their mean."""
    rows, columns = (size // block for size in image.shape)
    part = np.asarray(image[: rows * block, : columns * block], np.float64)
    finite = np.nan_to_num(part, posinf=0.0, neginf=0.0)
    means: _Images = finite.reshape(rows, block, columns, block).mean(axis=(1, 3))
    return means - means.mean()


def _usual(means: _Images) -> _Images:
    """Means without those far from all others, such as borders of one value, which an alignment left in one half."""
    middle = np.median(means)
    away = np.abs(means - middle)
    usual: _Images = np.where(away > FAR * np.median(away), middle, means) - middle
    return usual - usual.mean()


def _unit(values: _Images) -> _Images:
    """Values as a vector of length 1, or 0 where there are none."""
    flat = values.ravel()
    length = float(np.sqrt(flat @ flat))
    return flat / length if length else flat
