"""Borders of one value in volumes: planes that a program filled in, masks, what a turn left empty.

Whatever compares volumes takes the edge of such a border for structure that both have: FSC, SNR and all that follows
rise, up to Nyquist where the value lies far from the specimen's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# So much of a volume's face has one value, which lies so many robust deviations from the rest: no noise is like that.
LEAST_SHARE, LEAST_SIGMAS = 0.3, 0.5
_STEP = 4  # planes between those that the rest is judged by


def filled_value(voxels: NDArray[Any]) -> tuple[float, float] | None:
    """The value that fills faces of a volume, and its share of the six faces; None where none does.

    Args:
        voxels: shape ``(z, y, x)``, finite.
    """
    faces = [np.asarray(voxels[place]).ravel() for axis in range(3) for place in _ends(axis)]
    filled = [face for face in faces if _most_common(face)[1] >= LEAST_SHARE]
    if not filled:
        return None
    value = _most_common(np.concatenate(filled))[0]
    inner = np.asarray(voxels[::_STEP, ::_STEP, ::_STEP], dtype=np.float64).ravel()
    rest = inner[inner != value]
    if rest.size < 8:
        return None
    middle = float(np.median(rest))
    sigma = 1.4826 * float(np.median(np.abs(rest - middle)))
    if abs(value - middle) <= LEAST_SIGMAS * sigma:
        return None
    every = np.concatenate(faces)
    return value, float((every == value).mean())


def filled_doubt(voxels: NDArray[Any], name: str) -> tuple[str, ...]:
    """A line on a volume with a border of one value; none for others."""
    found = filled_value(voxels)
    if found is None:
        return ()
    value, share = found
    return (
        f"{share:.0%} of the faces of {name} have the value {value:g} (a border, padding or a mask): its edge is taken "
        "for structure that volumes have in common, up to the finest details; crop it off",
    )


def _ends(axis: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    before = (slice(None),) * axis
    return (*before, 0), (*before, -1)


def _most_common(values: NDArray[Any]) -> tuple[float, float]:
    """The value that occurs most, and its share."""
    found, counts = np.unique(values, return_counts=True)
    best = int(counts.argmax())
    return float(found[best]), float(counts[best] / values.size)
