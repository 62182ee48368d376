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

# So far must the means be apart, the largest over the smallest. Simulated specimens gain by less already, .001 to .003
# of correlation with the truth; but six real series of ribosomes, whose electrons fall to 0.6 (their noise says so),
# lose .001 to .003 of FSC: noise is all of them, and weighs less as it was counted.
LEAST_SPREAD = 2.0
# Most that pixels lack to zero, in the sum of all: counts that splines interpolated .1 at 0.4 electrons a pixel, .01
# at 2, images of zero mean as much as they have above.
MOST_LACKING = 0.25
# Largest deviation of the means of an eighth of the sides, in the image's mean: ice lets electrons through everywhere,
# a body in a dark field is surrounded by nothing.
MOST_UNEVEN, _PARTS = 0.4, 8
# Parts whose means are further from a usual one, the brighter ones of which a grid bar may hide more than half, are not
# of the specimen, but of a hot pixel, gold, a bar, or a vacuum.
MOST_AWAY, USUAL = 0.3, 0.6
# Noise is to fall with the means, at least as their power of so much: counts have 1/2, images that are factors of one
# another 1, images that were brought to one deviation 0.
LEAST_POWER = 0.25
# Means rise with tilt where those of the steepest third are so many times those of the flattest one.
RISES = 1.1
# Of an image with fewer electrons than so many times less, the noise would outweigh all others.
MOST_TIMES = 4.0
# Images that must be known; those between them get what their neighbours by tilt have.
LEAST_KNOWN = 0.7


class Brightness(NamedTuple):
    """Of an image as it was read: its brightness, how parts differ in that, what pixels lack to zero, its noise.

    Brightness and noise are those of the parts that are of the specimen.
    """

    mean: float
    uneven: float
    lacking: float
    noise: float


def brightness_of(image: NDArray[np.float32]) -> Brightness | None:
    """Measure a finite image ``(y, x)`` without its border; None where it is no brightness at all.

    It is not above zero then, or a border is left that is too wide to be replaced, and whose value tells nothing.
    """
    if min(image.shape) < 2 or even_share(image, EVEN_COUNTS_PX) >= LEAST_EVEN:
        return None
    parts = _means(image)
    middle = float(np.quantile(parts, USUAL))
    total = float(image.sum(dtype=np.float64))
    if middle <= 0 or total <= 0:
        return None
    specimen = np.abs(parts - middle) <= MOST_AWAY * middle
    mean = float(parts[specimen].mean()) if specimen.any() else middle
    steps = _means(np.square(np.diff(image, axis=1, prepend=image[:, :1])))
    # One hot pixel outweighs all others of its part, not half of the parts.
    noise = math.sqrt(float(np.median(steps[specimen] if specimen.any() else steps)) / 2)
    lacking = -float(np.minimum(image, 0).sum(dtype=np.float64)) / total
    return Brightness(mean, float(np.std(parts)) / mean, lacking, noise)


def _means(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of the parts of an image, at most 8 x 8."""
    edges = [np.linspace(0, size, min(_PARTS, size), endpoint=False).astype(int) for size in image.shape]
    sums = np.add.reduceat(np.add.reduceat(image, edges[0], axis=0, dtype=np.float64), edges[1], axis=1)
    rows, columns = (np.diff([*edge, size]) for edge, size in zip(edges, image.shape, strict=True))
    return np.asarray(sums / np.outer(rows, columns))


def brightness_factors(found: Sequence[Brightness | None], angles_deg: Sequence[float]) -> NDArray[np.float32] | None:
    """What each image of a series is to be multiplied by; None where they stay as they are.

    Args:
        found: of each image.
        angles_deg: of each image.
    """
    found = [None if one is None or one.lacking > MOST_LACKING else one for one in found]
    known = [one for one in found if one is not None]
    if not known or len(known) < LEAST_KNOWN * len(found):
        return None
    means = np.array([one.mean for one in known])
    at_deg = np.array([angle for one, angle in zip(found, angles_deg, strict=True) if one is not None])
    if means.max() < LEAST_SPREAD * means.min() or np.median([one.uneven for one in known]) > MOST_UNEVEN:
        return None
    if _power(means, np.array([one.noise for one in known])) < LEAST_POWER or _rise(means, at_deg) > RISES:
        return None
    order = np.argsort(at_deg, kind="stable")
    between = np.interp(angles_deg, at_deg[order], means[order])
    every = np.array([guess if one is None else one.mean for one, guess in zip(found, between, strict=True)])
    return np.minimum(np.median(every) / every, MOST_TIMES).astype(np.float32)


def _power(means: NDArray[np.float64], noise: NDArray[np.float64]) -> float:
    """Of the means by which noise falls with them; 0 where an image has none."""
    if noise.min() <= 0:
        return 0.0
    x, y = np.log(means) - np.log(means).mean(), np.log(noise)
    return float(x @ y / (x @ x))


def _rise(means: NDArray[np.float64], angles_deg: NDArray[np.float64]) -> float:
    """How many times the means of the flattest third of a series those of its steepest one are."""
    order = np.argsort(np.abs(angles_deg), kind="stable")
    third = max(1, len(order) // 3)
    return float(np.median(means[order[-third:]]) / np.median(means[order[:third]]))
