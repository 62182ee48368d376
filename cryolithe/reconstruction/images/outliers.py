"""Images out of their neighbours' scale, images given twice, pixels that can only be defects: what to tell of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolithe.images import clipped_sigma
from cryolithe.reconstruction.images.defects import without_defects

# An image whose standard deviation is this many times that of its neighbours, or this part of it, is told of: doses of
# one series, and what tilts lose of it, differ by less.
MOST_TIMES = 4.0
NEIGHBOURS = 3  # to either side, by tilt angle
FEWEST_IMAGES = 5
# Limits are measured on about so many pixels of an image.
_LOOKED_AT = 2**20
_MOST_TOLD = 8


class Looks(NamedTuple):
    """Of an image: its standard deviation, that without outliers, how many pixels can only be defects, a hash."""

    deviation: float
    sigma: float
    defects: int
    digest: bytes


def looks_of(image: NDArray[np.float32]) -> Looks:
    """Measure a finite image, shape ``(y, x)``, without its border."""
    step = max(1, int((image.size / _LOOKED_AT) ** 0.5))
    some = np.ascontiguousarray(image[::step, ::step])
    defects = int(np.count_nonzero(without_defects(image, some) != image))
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
    return Looks(float(some.std(dtype=np.float64)), clipped_sigma(some - np.median(some)), defects, digest)


def outlier_notes(
    looks: Sequence[Looks], angles_deg: Sequence[float], numbers: Sequence[int], clipped: bool
) -> tuple[str, ...]:
    """What to tell of a series.

    Args:
        looks: of each image.
        angles_deg: of each image, by which it has neighbours.
        numbers: of each image in its stack, from 1.
        clipped: whether pixels that can only be defects are clipped.
    """
    notes = []
    times = _times(looks, angles_deg)
    far = {number: one for number, one in zip(numbers, times, strict=True) if not 1 / MOST_TIMES <= one <= MOST_TIMES}
    if far:
        told = [f"{number} ({one:.3g} times)" for number, one in sorted(far.items())]
        more = ", ..." if len(told) > _MOST_TOLD else ""
        which = f"image{'s' if len(told) > 1 else ''} {', '.join(told[:_MOST_TOLD])}{more}"
        notes.append(
            f"Warning: the standard deviation of {which} is not that of the images at neighbouring tilts: such an "
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


def _times(looks: Sequence[Looks], angles_deg: Sequence[float]) -> list[float]:
    """How many times that of its neighbours each image's standard deviation is; both kinds must agree that it is."""
    found = [1.0] * len(looks)
    if len(looks) < FEWEST_IMAGES:
        return found
    order = np.argsort(angles_deg, kind="stable")
    for place, index in enumerate(order):
        first = min(max(0, place - NEIGHBOURS), max(0, len(order) - 1 - 2 * NEIGHBOURS))
        near = [looks[other] for other in order[first : first + 2 * NEIGHBOURS + 1] if other != index]
        ratios = []
        for kind in ("deviation", "sigma"):
            usual = float(np.median([getattr(one, kind) for one in near]))
            ratios.append(getattr(looks[index], kind) / usual if usual > 0 else 1.0)
        if min(ratios) > 1:
            found[index] = min(ratios)
        elif max(ratios) < 1:
            found[index] = max(ratios)
    return found
