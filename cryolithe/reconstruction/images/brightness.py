"""Images in proportion to the electrons that were counted become relative brightness, in which all tilts agree.

A slab lets ``exp(-t / (Λ cos θ))`` of the electrons pass, and one exposure may be longer than another. What an image
shows of the same density grows with its electrons, where networks have learned from images over their means
(`cryolithe.simulation.detector.as_contrast`). So where images look like counts, or anything in proportion to them, each
is divided by its mean, in that of the median image:

    J = I m / <I>

That wants a scale on which no electrons are zero. Images that were brought to one mean stay as they are, as do those
with negative values, those whose noise does not fall with their means, and means that rise with tilt: the image of a
slab in a dark field grows with the slab's path. Filtered back-projection takes counts as they are: where noise is all,
that is how images should weigh (benchmarks/brightness.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolithe.artefacts.borders import EVEN_COUNTS_PX, LEAST_EVEN, even_share
from cryolithe.images import clipped_sigma

# So far must the means be apart, the largest over the smallest. Simulated specimens gain by less already, .001 to .003
# of correlation with the truth; but six real series of ribosomes, whose electrons fall to 0.6 (their noise says so),
# lose .001 to .003 of FSC: noise is all of them, and weighs less as it was counted.
LEAST_SPREAD = 2.0
# Most pixels below zero, of counts that an alignment has interpolated; of an image of zero mean it is half.
MOST_NEGATIVE = 0.01
# Largest deviation of the means of an eighth of the sides, in the image's mean: ice lets electrons through everywhere,
# a body in a dark field is surrounded by nothing.
MOST_UNEVEN, _PARTS = 0.4, 8
MOST_AWAY = 20.0  # of parts from their median, in the median of that
# Noise is to fall with the means, at least as their power of so much: counts have 1/2, images that are factors of one
# another 1, images that were brought to one deviation 0.
LEAST_POWER = 0.25
# Means rise with tilt where those of the steepest third are so many times those of the flattest one.
RISES = 1.1
# Of an image with fewer electrons than so many times less, the noise would outweigh all others.
MOST_TIMES = 4.0
_ROWS = 256  # that tell of the noise


class Brightness(NamedTuple):
    """Of an image as it was read: its brightness, how parts differ in that, the share of negative pixels, its noise.

    Of 8 x 8 parts those have no share in the mean which are far from the others: by a hot pixel, gold, a grid bar.
    """

    mean: float
    uneven: float
    negative: float
    noise: float


def brightness_of(image: NDArray[np.float32]) -> Brightness | None:
    """Measure a finite image ``(y, x)`` without its border; None where it is no brightness at all.

    Its mean is not above zero then, or a border is left that is too wide to be replaced, and whose value tells nothing.
    """
    if min(image.shape) < 2 or even_share(image, EVEN_COUNTS_PX) >= LEAST_EVEN:
        return None
    edges = [np.linspace(0, size, min(_PARTS, size), endpoint=False).astype(int) for size in image.shape]
    sums = np.add.reduceat(np.add.reduceat(image, edges[0], axis=0, dtype=np.float64), edges[1], axis=1)
    rows, columns = (np.diff([*edge, size]) for edge, size in zip(edges, image.shape, strict=True))
    parts = sums / np.outer(rows, columns)
    away = np.abs(parts - np.median(parts))
    mean = float(parts[away <= MOST_AWAY * np.median(away)].mean())
    if mean <= 0:
        return None
    steps = np.diff(image[:: max(1, len(image) // _ROWS)], axis=1)
    noise = clipped_sigma(steps) / math.sqrt(2)
    return Brightness(mean, float(np.std(parts)) / mean, float(np.mean(image < 0)), noise)


def brightness_factors(found: Sequence[Brightness | None], angles_deg: Sequence[float]) -> NDArray[np.float32] | None:
    """What each image of a series is to be multiplied by; None where they stay as they are.

    Args:
        found: of each image.
        angles_deg: of each image.
    """
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found) or max(one.negative for one in known) > MOST_NEGATIVE:
        return None
    means = np.array([one.mean for one in known])
    if means.max() < LEAST_SPREAD * means.min() or np.median([one.uneven for one in known]) > MOST_UNEVEN:
        return None
    if _power(means, np.array([one.noise for one in known])) < LEAST_POWER or _rise(means, angles_deg) > RISES:
        return None
    return np.minimum(np.median(means) / means, MOST_TIMES).astype(np.float32)


def _power(means: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """Of the means by which noise falls with them; 0 where an image has none."""
    if noise.min() <= 0:
        return 0.0
    x, y = np.log(means) - np.log(means).mean(), np.log(noise)
    return float(x @ y / (x @ x))


def _rise(means: NDArray[np.float64], angles_deg: Sequence[float]) -> float:
    """How many times the means of the flattest third of a series those of its steepest one are."""
    order = np.argsort(np.abs(angles_deg), kind="stable")
    third = max(1, len(order) // 3)
    return float(np.median(means[order[-third:]]) / np.median(means[order[:third]]))
