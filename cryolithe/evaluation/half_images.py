"""Whether two stacks are the halves of one series: the same specimen, image by image, in one place, of one contrast.

Most is asked of low frequencies, means of blocks of pixels: there the specimen stands above the noise of a half.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cryolithe.arrays.spectra import middle
from cryolithe.evaluation.half_noise import PART, NoiseInCommon, noise_in_common
from cryolithe.evaluation.half_shifts import Apart, shifts_of_halves
from cryolithe.evaluation.half_singles import MOST_TOLD, OPPOSITE, doubt_of_singles, named, unit

_Images = NDArray[np.float64]

# Independent noise correlates by nothing, and what both show by more than nothing.
BETTER, SIGMAS = 0.1, 5.0
FAR = 6.0  # median deviations: one in 20 000 of noise, and what is no specimen
# Of the finest details of an image with itself, when one was rounded to 8 bits; of halves of few frames .5 at most.
COPIED = 0.995
# Noise of an image in one half over that in the other, by what it is in the other images. Three frames against two
# are 1.22, where as many are the rule: so much may one image differ from the usual ratio. Two against one in all images
# are 1.41: so much may the usual ratio be.
UNUSUAL_NOISE_RATIO, MOST_NOISE_RATIO = 1.35, 1.5
AHEAD = 0.01  # of correlation, mean over images, by which neighbours are more alike than images of one tilt
FEWEST_IMAGES = 3  # for which a usual ratio can be told
# Of the correlation of neighbouring images, what inverted, mirrored or exchanged images have at least: of two specimens
# some are a little alike whichever way they are compared.
AS_ALIKE = 0.5
FOREIGN = 0.2  # of the correlation of neighbouring images, which halves of one specimen have more in common than
_BLOCKS = 32  # along the shorter side of an image
# How an image may lie otherwise in another stack, and the steps along (y, x) that show it so.
MIRRORS = {"mirrored along x": (1, -1), "mirrored along y": (-1, 1), "turned by 180°": (-1, -1)}


@dataclass(frozen=True)
class HalfDoubts:
    """What speaks against two stacks being halves, as ends of sentences; empty where nothing does.

    Attributes:
        opposite: one is inverted.
        unlike: their images are in different orders, or some are exchanged, or they are mirrored or turned.
        same: they have images in common, however scaled: their noise would count as signal.
        apart: their images, or some of them, do not lie in the same place.
        single: some images are blank or inverted in one of them, or show something else.
        scaled: one is scaled otherwise, or some of its images are.
        shared: a part of their noise is one.
        learnable: that part is so large that what learns from one half to foretell the other learns noise.
    """

    opposite: str = ""
    unlike: str = ""
    same: str = ""
    apart: str = ""
    single: str = ""
    scaled: str = ""
    shared: str = ""
    learnable: bool = False


def doubts_of_halves(even: NDArray[Any], odd: NDArray[Any], left_out: Collection[int] = ()) -> HalfDoubts:
    """Compare the images of two halves.

    Args:
        even: stack ``(tilt, y, x)`` of even frames.
        odd: that of odd frames, of the same shape.
        left_out: numbers, from 1, of images that nobody will use and that may be the same.
    """
    block = max(1, min(even.shape[1:]) // _BLOCKS)
    used = [place for place in range(len(even)) if place + 1 not in left_out]
    if not used:
        return HalfDoubts()
    whole = [np.stack([block_means(image, block) for image in stack]) for stack in (even, odd)]
    first, second = (half[used] for half in whole)
    opposite = _opposite(first, second)
    whole = [np.stack([_usual(image) for image in half]) for half in whole]
    first, second = (half[used] for half in whole)
    # A border in one half may be all that blocks show; what is far from all others may be the specimen.
    opposite = opposite or _opposite(first, second)
    upright = -second if opposite else second
    unlike = _reordered(first, upright, [place + 1 for place in used]) or _mirrored(first, upright)
    details = [(_details(one), _details(other)) for one, other in zip(even, odd, strict=True)]
    same = _same(details, left_out)
    # Of other images, of mirrored and of inverted ones, neither place nor scale means anything.
    if opposite or unlike:
        return HalfDoubts(opposite, unlike, same)
    apart = _apart(even, odd, left_out)
    noise = NoiseInCommon(0.0, 0.0) if same else noise_in_common(even, odd, left_out)
    foreign = "" if apart else _foreign(first, second)
    return HalfDoubts(
        opposite,
        foreign,
        same,
        apart,
        "" if apart or foreign else doubt_of_singles((even, odd), (whole[0], whole[1]), left_out),
        _scaled(details, left_out),
        _shared(noise),
        noise.is_clear,
    )


def _same(details: Sequence[tuple[_Images, _Images]], left_out: Collection[int]) -> str:
    """Whether images of both halves are one, by their finest details, where halves have noise of their own."""
    same = [
        number
        for number, (one, other) in enumerate(details, start=1)
        if number not in left_out and unit(one) @ unit(other) > COPIED
    ]
    if not same:
        return ""
    return (
        f"have the same noise in {named(same)}: what is in both by mistake counts as signal; give the two halves of "
        "the frames, or leave such images out"
    )


def _scaled(details: Sequence[tuple[_Images, _Images]], left_out: Collection[int]) -> str:
    """Whether the noise of some images differs between the halves as that of the others does not."""
    ratios = np.array([[float(np.std(half)) for half in pair] for pair in details])
    usable = [number for number, pair in enumerate(ratios, start=1) if number not in left_out and pair.min() > 0]
    if len(usable) < FEWEST_IMAGES:
        return ""
    found = ratios[[number - 1 for number in usable]]
    logs = np.log(found[:, 0] / found[:, 1])
    usual = float(np.median(logs))
    if abs(usual) > math.log(MOST_NOISE_RATIO):
        return (
            f"are not scaled alike: the noise of the first is {math.exp(usual):.2f} times that of the second in most "
            "images; give halves of equally many frames, both averages or both sums"
        )
    # Of differences along both axes, about every second is independent.
    margin = math.log(UNUSUAL_NOISE_RATIO) + SIGMAS / math.sqrt(details[0][0].size / 2)
    unlike = np.flatnonzero(np.abs(logs - usual) > margin)
    if not len(unlike):
        return ""
    first = int(unlike[np.abs(logs - usual)[unlike].argmax()])
    return (
        f"are not scaled alike: image {usable[first]} of the first has {math.exp(logs[first]):.2f} times the noise of "
        f"that of the second, where {math.exp(usual):.2f} times is usual"
        + (f" (so do {named([usable[place] for place in unlike])})" if len(unlike) > 1 else "")
        + "; scale both alike, or leave such images out"
    )


def _shared(noise: NoiseInCommon) -> str:
    """What halves have in common beside their specimen."""
    if noise.pattern > noise.correlation / 2:
        return (
            f"hold the same pattern in all images, {noise.pattern:.0%} of the power of their finest details, as a gain "
            "reference that was not applied leaves: it counts as signal; correct the frames before they are summed"
        )
    if not noise.correlation:
        return ""
    return (
        f"have noise in common: their finest details, where a specimen fades, correlate by {noise.correlation:.2f}, no "
        "less than coarser ones, so that noise counts as signal; give halves that share no frames, as they were summed"
    )


def _apart(even: NDArray[Any], odd: NDArray[Any], left_out: Collection[int]) -> str:
    """Whether all images, or some, lie in another place in one half than in the other."""
    return apart_told(shifts_of_halves(even, odd, [place for place in range(len(even)) if place + 1 not in left_out]))


def apart_told(found: Apart) -> str:
    """Shifts that were found, as the end of a sentence; empty for none."""
    if found.all is not None:
        return f"are shifted against each other by {_pixels(found.all)}; align both with the same transforms"
    if not found.single:
        return ""
    told = [f"{place + 1} ({_pixels(shift)})" for place, shift in found.single.items()]
    which = f"image{'s' if told[1:] else ''} {', '.join(told[:MOST_TOLD])}{', ...' if told[MOST_TOLD:] else ''}"
    return f"are shifted against each other in {which}; align both with the same transforms, or leave such images out"


def _pixels(shift: tuple[float, float]) -> str:
    """A shift along y and x, for messages."""
    return f"{abs(shift[1]):.1f} px along x and {abs(shift[0]):.1f} px along y"


def _details(image: NDArray[Any]) -> _Images:
    """Differences along both axes, what changes from pixel to pixel; edges and hot pixels count as noise does.

    Of the middle of a large image, which has enough of them.
    """
    rows, columns = (middle(size, PART) for size in image.shape)
    part = np.asarray(image[rows, columns], np.float64)
    found = np.nan_to_num(np.diff(np.diff(part, axis=0), axis=1), posinf=0.0, neginf=0.0)
    most = FAR * float(np.median(np.abs(found)))
    return np.clip(found, -most, most)


def _opposite(first: _Images, second: _Images) -> str:
    """Whether one half is inverted, by blocks of twice the size: their noise is half."""
    if min(first.shape[1:]) > 1:
        first, second = (np.stack([block_means(image, 2) for image in half]) for half in (first, second))
    pairs = list(zip(first, second, strict=True))
    found = [float(unit(a) @ unit(b)) for a, b in pairs if a.any() and b.any()]
    mean, by_chance = float(np.mean(found or [0.0])), SIGMAS / math.sqrt(first.size)
    if mean > -max(OPPOSITE, by_chance, AS_ALIKE * _beside(first, second)):
        return ""
    correlate = f"the low frequencies of their images correlate by {mean:.2f}"
    return f"are of opposite contrast: {correlate}; invert one of them"


def _reordered(first: _Images, second: _Images, numbers: Sequence[int]) -> str:
    """Whether images of one half are more like another image of the other half than like their own.

    Most of them, or some that are so both ways: an image that is bad in one half is like no other.

    Args:
        first: images of one half.
        second: of the other half.
        numbers: what these images are called.
    """
    alike = np.stack([unit(image) for image in first]) @ np.stack([unit(image) for image in second]).T
    least = AS_ALIKE * _beside(first, second)
    if by := _moved_on(alike, first[0].size):
        return (
            f"have their images in different orders: on average, each image of the first is more like that {abs(by)} "
            f"{'later' if by > 0 else 'earlier'} of the second than like its own; give halves in one order"
        )
    chance = 1 / math.sqrt(first[0].size)
    order = _order(alike, chance)
    moved = _moved(order, alike, least)
    if len(moved) < 2:
        return ""
    if 2 * len(moved) > len(order):
        return (
            f"have their images in different orders: {len(moved)} of {len(order)} are more like another image of the "
            f"other half (image {numbers[moved[0]]} of the first like image {numbers[order[moved[0]]]} of the second); "
            "give halves in one order"
        )
    surely = _without_neighbours(order, alike, chance)
    if len(few := _moved(surely, alike, least)) > 1:
        order, moved = surely, few
    one = moved[0]
    return (
        f"have {named([numbers[place] for place in moved])} exchanged: each is more like another image of the other "
        f"half than like its own (image {numbers[one]} of the first like image {numbers[order[one]]} of the second); "
        "give halves in one order, or leave such images out"
    )


def _moved(order: NDArray[np.intp], alike: _Images, least: float) -> list[int]:
    """Images that another one belongs to than their own and that are alike enough."""
    return [int(one) for one in np.flatnonzero(order != np.arange(len(order))) if alike[one, order[one]] > least]


def _order(alike: _Images, chance: float) -> NDArray[np.intp]:
    """Which image of the second half belongs to each of the first, their own unless others clearly do.

    A noisy image is more like one of many electrons than like its own other half. Images correlate by
    ``c[i, j] = s[i, j] a[i] b[j]``, with a and b by the noise of each image and s by what they show. In a product over
    all images, whatever the permutation, all a and b occur once: the largest of these products has the largest s.
    """
    found = np.maximum(alike, chance)
    found[np.diag_indices_from(found)] += max(BETTER, SIGMAS * chance)
    return np.asarray(linear_sum_assignment(np.log(found), maximize=True)[1])


def _without_neighbours(order: NDArray[np.intp], alike: _Images, chance: float) -> NDArray[np.intp]:
    """The same order with those at their own places that only noise has moved with others.

    A neighbour is nearly as like those that are exchanged as they are. By the same products: what comes in its stead
    where it was taken to be, and its own, against the two that it was given.
    """
    found, surely = np.maximum(alike, chance), order.copy()
    clearly = found + SIGMAS * chance
    while len(moved := np.flatnonzero(surely != np.arange(len(surely)))):
        before, given = np.argsort(surely)[moved], surely[moved]
        back = clearly[moved, moved] * clearly[before, given] / (found[moved, given] * found[before, moved])
        one = int(back.argmax())
        if back[one] <= 1:
            break
        surely[before[one]], surely[moved[one]] = given[one], moved[one]
    return surely


def _moved_on(alike: _Images, pixels: int) -> int:
    """By how many images the second half is ahead, where images are more like those than like their own; else 0.

    Neighbours at small steps are much alike: only all images together tell. Two images are compared with the geometric
    mean of both with their own, in which the noise of both counts alike (see `_order`).
    """
    own, best = np.sqrt(np.maximum(np.diagonal(alike), 0.0)), 0
    ahead = 0.0
    for by in (-2, -1, 1, 2):
        others = np.diagonal(alike, by)
        if len(others) < FEWEST_IMAGES:
            continue
        gain = float(np.mean(others - own[abs(by) :] * own[: -abs(by)]))
        if gain > max(ahead, AHEAD, SIGMAS * math.sqrt(2 / (len(others) * pixels))):
            best, ahead = by, gain
    return best


def _mirrored(first: _Images, second: _Images) -> str:
    """Whether the images of one half are more like the mirrored ones of the other."""
    own = _mean_correlation(first, second)
    least = max(own + max(BETTER, SIGMAS / math.sqrt(first.size)), AS_ALIKE * _beside(first, second))
    for name, (y, x) in MIRRORS.items():
        if _mean_correlation(first, second[:, ::y, ::x]) > least:
            return f"are {name} against each other; give halves as one program wrote them"
    return ""


def _foreign(first: _Images, second: _Images) -> str:
    """Whether the halves have nothing in common, though neighbouring images of each have."""
    if len(first) < FEWEST_IMAGES:
        return ""
    own = _mean_correlation(first, second)
    beside = _beside(first, second)
    if beside < max(BETTER, 2 * SIGMAS / math.sqrt(first.size)) or own > FOREIGN * beside:
        return ""
    return (
        f"have nothing in common (their images correlate by {own:.2f}, neighbouring ones of each by {beside:.2f}); "
        "give two halves of the frames of one series"
    )


def _beside(first: _Images, second: _Images) -> float:
    """How alike neighbouring images are in the half where they are less so; 0 for single images."""
    return min(_mean_correlation(half[:-1], half[1:]) for half in (first, second)) if len(first) > 1 else 0.0


def _mean_correlation(first: _Images, second: _Images) -> float:
    return float(np.mean([unit(a) @ unit(b) for a, b in zip(first, second, strict=True)]))


def block_means(image: NDArray[Any], block: int) -> _Images:
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
