"""Single images of a half that are not those of the other half: blank, inverted, or of something else.

What both halves show of a tilt, and only that, they have in common with each other and with other tilts. An image E of
the even and one O of the odd frames show ``E = S + N``, ``O = S + N'``; another tilt shows A, much of which is S. As
``E·A`` and ``O·A`` hold the same S, they are about equal, whatever the noise: at high tilts, and of images that are bad
in both halves, both are small. Where only one of them is, that half shows something else.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.artefacts.borders import EVEN_COUNTS_PX, even_share

_Images = NDArray[np.float64]

BLANK = 0.1  # of an image, by which more is blank in one half than in the other: both have the same borders
OPPOSITE = 0.1  # correlation, of the other sign, of halves one of which is inverted
CERTAIN = 4.0  # standard deviations
SHOWS = 0.35  # of what the other half has in common with another tilt: less, and it shows something else
OWN = 0.5  # of the same: what halves of one tilt have in common at least
MOST_TOLD = 6


def named(numbers: Sequence[int]) -> str:
    """Numbers of images for messages."""
    told = ", ".join(map(str, numbers[:MOST_TOLD])) + (", ..." if len(numbers) > MOST_TOLD else "")
    return f"image {told}" if len(numbers) == 1 else f"images {told}"


def doubt_of_singles(
    stacks: tuple[NDArray[Any], NDArray[Any]], means: tuple[_Images, _Images], left_out: Collection[int]
) -> str:
    """What speaks against single images as halves of one tilt, as the end of a sentence; empty for nothing.

    Args:
        stacks: of even and of odd frames, of the same shape ``(tilt, y, x)``.
        means: of their blocks, each with a mean of 0.
        left_out: numbers, from 1, of images that nobody uses.
    """
    asked = [place for place in range(len(stacks[0])) if place + 1 not in left_out]
    if blank := _told_blank({place: _more_even(stacks[0][place], stacks[1][place]) for place in asked}):
        return blank
    own, chance, even, odd = _in_common(*means)
    opposite = [place for place in asked if own[place] < -max(OPPOSITE, CERTAIN * chance[place])]
    if opposite:
        return (
            f"are of opposite contrast in {named([place + 1 for place in opposite])} (low frequencies correlate by "
            f"{own[opposite].min():.2f}); invert such images in one of them, or leave them out"
        )
    most, least = np.maximum(even, odd), np.minimum(even, odd)
    apart = (
        (least < SHOWS * most) & (own < OWN * most) & (most - np.maximum(least, own) > CERTAIN * math.sqrt(2) * chance)
    )
    foreign = [place for place in asked if apart[place]]
    if not foreign:
        return ""
    first = foreign[0]
    return (
        f"show something else in {named([place + 1 for place in foreign])}: that of the "
        f"{'second' if even[first] > odd[first] else 'first'} is not like images of other tilts (correlation "
        f"{least[first]:.2f}), that of the {'first' if even[first] > odd[first] else 'second'} is ({most[first]:.2f}); "
        "write it again, or leave such images out"
    )


def _more_even(image: NDArray[Any], other: NDArray[Any]) -> float:
    """What part of an image is blank, less that of another."""
    return even_share(image, EVEN_COUNTS_PX) - even_share(other, EVEN_COUNTS_PX)


def _told_blank(more: dict[int, float]) -> str:
    """Of images that are blank in one half only, those of the half that has more of them.

    Args:
        more: what part of each image is blank in the first half, less that in the second.
    """
    first, second = ([place for place, part in more.items() if sign * part > BLANK] for sign in (1, -1))
    if not first and not second:
        return ""
    which, other, places = ("first", "second", first) if len(first) >= len(second) else ("second", "first", second)
    part = min(abs(more[place]) for place in places)
    return (
        f"do not hold the same: {named([place + 1 for place in places])} of the {which} {'are' if places[1:] else 'is'}"
        f" blank, in {part:.0%}{' or more' if places[1:] else ''} of the pixels, where the {other} is not; write the "
        f"{which} again, or leave such images out"
    )


def _in_common(first: _Images, second: _Images) -> tuple[_Images, _Images, _Images, _Images]:
    """Of each image, by correlations of its two halves.

    Returns:
        that of the halves; its deviation by chance; and that of the even and of the odd half with the other tilt that
        both together are most alike, 0 for a single image.
    """
    a, b = (np.stack([unit(image) for image in half]) for half in (first, second))
    own = np.asarray((a * b).sum(axis=1))
    chance = np.array([_chance(one, other) for one, other in zip(first, second, strict=True)])
    both = np.stack([unit(image) for image in a + b])
    even, odd = a @ both.T, b @ both.T
    if len(own) < 2:
        return own, chance, np.zeros(1), np.zeros(1)
    together = even + odd
    np.fill_diagonal(together, -math.inf)
    like = np.arange(len(own)), together.argmax(axis=1)
    return own, chance, even[like], odd[like]


def _chance(first: _Images, second: _Images) -> float:
    """Standard deviation of the correlation of two fields that have these spectra and nothing in common.

    Its variance is ``Σ P Q / (Σ P Σ Q)`` over coefficients with the powers P and Q: coloured noise has less of them.
    """
    ky, kx = (scipy.fft.fftfreq(size) * min(first.shape) for size in first.shape)
    ring = np.rint(np.hypot(ky[:, None], kx)).astype(np.intp).ravel()
    count = np.bincount(ring)
    sums = [np.bincount(ring, np.abs(scipy.fft.fft2(image)).ravel() ** 2) for image in (first, second)]
    whole = float(sums[0].sum() * sums[1].sum())
    return math.sqrt(float((sums[0] * sums[1] / np.maximum(count, 1)).sum()) / whole) if whole > 0 else 1.0


def unit(values: _Images) -> _Images:
    """Values as a vector of length 1, or 0 where there are none."""
    flat = values.ravel()
    length = float(np.sqrt(flat @ flat))
    return flat / length if length else flat
