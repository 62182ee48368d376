"""Images out of their neighbours' scale, images given twice, pixels that can only be defects: what to tell of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from cryolithe.images import clipped_sigma
from cryolithe.reconstruction.images.defects import without_defects

# An image whose standard deviation is this many times that of others at nearby tilts, or this part of it, is told of:
# doses of one series, and what tilts lose of it, differ by less.
MOST_TIMES = 4.0
# The same of an image that is so far from those on its either side, as no trend over the tilts is: four images of 41
# with three times the noise of the others, of -5 dB, took the correlation with the truth from .85 to .82 (`fast`).
# Series of ribosomes, simulated ones and ones with beams, gold, blocked or uneven light have 0.8 to 1.4.
MOST_TIMES_OF_BOTH = 2.5
NEAR_DEG = 10.0  # those of the next few that are compared
NEIGHBOURS = 3  # to either side, by tilt angle
FEWEST_IMAGES = 5
# Limits are measured on about so many pixels of an image.
_LOOKED_AT = 2**20
# Of counts by the law of Poisson fewer than this share are larger than the largest by chance, among all pixels of an
# image: in a stack of a hundred there is one in a thousand stacks.
_BY_CHANCE = 1e-5
# So many pixels are whole numbers where an image is one of counts: a border may be filled with means. Of larger counts
# deviations tell as much.
_LEAST_COUNTS, _MOST_OF_COUNTS = 0.5, 1e4
_MOST_TOLD = 8


class Looks(NamedTuple):
    """Of an image: its standard deviation, that without outliers, how many pixels can only be defects, a hash."""

    deviation: float
    sigma: float
    defects: int
    digest: bytes

    def times(self, factor: float) -> Looks:
        """Of the image multiplied by a factor; pixels that are the same stay it."""
        return self._replace(deviation=self.deviation * factor, sigma=self.sigma * factor)


def looks_of(image: NDArray[np.float32]) -> Looks:
    """Measure a finite image, shape ``(y, x)``, without its border."""
    step = max(1, int((image.size / _LOOKED_AT) ** 0.5))
    some = np.ascontiguousarray(image[::step, ::step])
    beyond = image[without_defects(image, some) != image]
    defects = int(np.count_nonzero((beyond < some.mean()) | (beyond > _most_by_chance(some, image.size))))
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
    return Looks(float(some.std(dtype=np.float64)), clipped_sigma(some - np.median(some)), defects, digest)


def _most_by_chance(image: NDArray[np.float32], pixels: int) -> float:
    """The largest count that so many pixels of the image's mean may have by chance; -Inf where they are no counts."""
    mean = float(image.mean(dtype=np.float64))
    if image.min() < 0 or mean > _MOST_OF_COUNTS or np.mean(image == np.rint(image)) < _LEAST_COUNTS:
        return -np.inf
    counts = np.arange(1, int(mean + 20 * mean**0.5) + 40)
    rare = gammainc(counts, mean) < _BY_CHANCE / pixels  # the probability of as many or more
    return float(counts[rare][0] - 1)


def outlier_notes(
    looks: Sequence[Looks],
    angles_deg: Sequence[float],
    numbers: Sequence[int],
    clipped: bool,
    factors: Sequence[float] = (),
) -> tuple[str, ...]:
    """What to tell of a series.

    Args:
        looks: of each image.
        angles_deg: of each image, by which it has neighbours.
        numbers: of each image in its stack, from 1.
        clipped: whether pixels that can only be defects are clipped.
        factors: by which images were brought to one brightness; none where they were not. One that was brighter has
            less noise, and is good; one that was darker is told as it was.
    """
    notes = []
    times = _times(looks, angles_deg)
    far = {number: one for number, one in zip(numbers, times, strict=True) if one is not None}
    if factors:
        scaled = _times([one.times(factor) for one, factor in zip(looks, factors, strict=True)], angles_deg)
        noisy = {number: one for number, one in zip(numbers, scaled, strict=True) if one is not None and one > 1}
        far = {number: one for number, one in far.items() if one < 1} | noisy
    if far:
        told = [f"{number} ({one:.3g} times)" for number, one in sorted(far.items())]
        more = f", ... ({len(told)} of {len(looks)})" if len(told) > _MOST_TOLD else ""
        which = f"image{'s' if len(told) > 1 else ''} {', '.join(told[:_MOST_TOLD])}{more}"
        notes.append(
            f"Warning: the standard deviation of {which} is not that of the others at neighbouring tilts: such an "
            "image outweighs the others, or is lost among them; bring it to their scale, or leave it out (--exclude)"
        )
    notes += _copies(looks, numbers)
    defects = sum(one.defects for one in looks)
    if defects:
        images = sum(one.defects > 0 for one in looks)
        done = "clipped" if clipped else "left as they are; --method network clips them, or erase them before"
        notes.append(
            f"{defects} pixel{'s' if defects > 1 else ''} of {images} image{'s' if images > 1 else ''} can only be "
            f"defects (hot pixels, X-rays), so far from the rest are they: {done}"
        )
    return tuple(notes)


def _copies(looks: Sequence[Looks], numbers: Sequence[int]) -> list[str]:
    """A warning of images that are one and the same: a file that was written twice, or takes the place of a lost one.

    Such a copy puts all that it shows where the tilt of another image sees it, and its noise counts as signal wherever
    tilts are divided into halves.
    """
    alike: dict[bytes, list[int]] = {}
    for number, one in zip(numbers, looks, strict=True):
        alike.setdefault(one.digest, []).append(number)
    groups = sorted(sorted(same) for same in alike.values() if len(same) > 1)
    if not groups:
        return []
    told = "; ".join(
        " = ".join(map(str, same[:_MOST_TOLD])) + (" = ..." if len(same) > _MOST_TOLD else "")
        for same in groups[:_MOST_TOLD]
    )
    more = "; ..." if len(groups) > _MOST_TOLD else ""
    return [
        f"Warning: images are the same, pixel by pixel ({told}{more}), which no two images of a camera are: a copy "
        "stands at the angle of an image that is not there; leave it out (--exclude)"
    ]


def _times(looks: Sequence[Looks], angles_deg: Sequence[float]) -> list[float | None]:
    """How many times that of images at nearby tilts each one's standard deviation is, were they all of one scale.

    That is the one of most of them: beside a run of images of another scale those of the series' own are few. None for
    images that are not out of scale.
    """
    found: list[float | None] = [None] * len(looks)
    if len(looks) < FEWEST_IMAGES:
        return found
    order = np.argsort(angles_deg, kind="stable")
    levels = np.stack(
        [_logarithms([getattr(looks[index], kind) for index in order]) for kind in ("deviation", "sigma")]
    )
    scales = _scales(levels)
    most = Counter(scales.tolist()).most_common(1)[0][0]
    apart = np.zeros(len(order))
    for place in range(len(order)):
        first = min(max(0, place - NEIGHBOURS), max(0, len(order) - 1 - 2 * NEIGHBOURS))
        near = [other for other in range(first, min(first + 2 * NEIGHBOURS + 1, len(order))) if other != place]
        apart[place] = _apart(levels[:, place], (levels - scales)[:, near]) - most
    far = _with_run(np.abs(apart) > np.log(MOST_TIMES), scales, most)
    far |= _stand_out(levels - scales + most, np.asarray(angles_deg)[order])
    for index, is_far, one in zip(order.tolist(), far, apart, strict=True):
        found[index] = float(np.exp(one)) if is_far else None
    return found


def _stand_out(levels: NDArray[np.float64], angles_deg: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Images out of scale with the next few on their one side, and in the same way with those on their other one."""
    found = np.zeros(len(angles_deg), np.bool_)
    near = np.abs(angles_deg - angles_deg[:, None]) <= NEAR_DEG
    for place in range(len(angles_deg)):
        before = np.flatnonzero(near[place, :place])[-NEIGHBOURS:]
        behind = place + 1 + np.flatnonzero(near[place, place + 1 :])[:NEIGHBOURS]
        if len(before) and len(behind):
            one, other = (_apart(levels[:, place], levels[:, side]) for side in (before, behind))
            found[place] = one * other > 0 and min(abs(one), abs(other)) > np.log(MOST_TIMES_OF_BOTH)
    return found


def _with_run(far: NDArray[np.bool_], scales: NDArray[np.float64], most: float) -> NDArray[np.bool_]:
    """Images that are far, and those of their scale beside them: at the end of a trend they may just not be so far."""
    found = far.copy()
    for run in np.split(np.arange(len(far)), np.flatnonzero(np.diff(scales)) + 1):
        if scales[run[0]] != most and far[run].any():
            found[run] = True
    return found


def _logarithms(values: list[float]) -> NDArray[np.float64]:
    """Of standard deviations; that of an even image is far below all others."""
    known = np.array(values, np.float64)
    least = known[known > 0].min(initial=np.inf)
    return np.log(np.maximum(known, 1e-3 * least if np.isfinite(least) else 1.0))


def _scales(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of each image's scale, counted from that of the first, one number for all images of a scale.

    Going from tilt to tilt, an image is compared with the last few of whatever scale, each brought to that of the
    first: so the level goes along with any trend over the tilts.

    Args:
        levels: logarithms of the two kinds of standard deviations, in the order of tilts, shape ``(2, images)``.
    """
    known, found = [0.0], np.zeros(levels.shape[1])
    for place in range(1, levels.shape[1]):
        before = slice(max(0, place - NEIGHBOURS), place)
        here = _apart(levels[:, place], levels[:, before] - found[before])
        nearest = min(known, key=lambda scale: abs(here - scale))
        if abs(here - nearest) > np.log(MOST_TIMES):
            known.append(here)
            nearest = here
        found[place] = nearest
    return found


def _apart(one: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """How far an image's levels, one of each kind, are from those of others: what both kinds agree on."""
    apart = one - np.median(others, axis=1)
    return float(apart[np.abs(apart).argmin()]) if apart[0] * apart[1] > 0 else 0.0
