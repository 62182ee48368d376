"""Borders of one value in volumes: planes that a program filled in, masks, what a turn left empty.

Whatever compares volumes takes the edge of such a border for structure that both have: FSC, SNR and all that follows
rise, up to Nyquist where the value lies far from the specimen's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# So much of a volume's face has one value, which lies so many robust deviations from the rest: no noise is like that.
LEAST_SHARE, LEAST_SIGMAS = 0.3, 0.5
# So many planes are looked at, and so many of their values beside the faces.
MOST_PLANES, MOST_VALUES = 64, 1_000_000


class Planes(Protocol):
    """What gives planes of z by their numbers: an array ``(z, y, x)`` does."""

    def __len__(self) -> int:
        """Number of planes."""
        ...

    def __getitem__(self, z: int, /) -> Any:
        """A plane, shape ``(y, x)``."""
        ...


@dataclass(frozen=True)
class ReadPlanes:
    """Planes of a file that are read one by one."""

    read: Callable[[int], NDArray[Any]]
    depth: int

    def __len__(self) -> int:
        return self.depth

    def __getitem__(self, z: int) -> NDArray[Any]:
        return self.read(z)


def filled_value(voxels: Planes) -> tuple[float, float] | None:
    """The value that fills faces of a volume, and its share of the six faces; None where none does.

    Args:
        voxels: planes ``(y, x)``, finite.
    """
    numbers = np.unique(np.linspace(0, len(voxels) - 1, MOST_PLANES).round().astype(int)).tolist()
    ends: list[NDArray[Any]] = []
    edges: list[list[NDArray[Any]]] = [[], [], [], []]
    inner: list[NDArray[Any]] = []
    for z in numbers:
        plane = np.asarray(voxels[z])
        for edge, values in zip(edges, (plane[0], plane[-1], plane[:, 0], plane[:, -1]), strict=True):
            edge.append(values.copy())
        if z in (0, numbers[-1]):
            ends.append(plane.ravel())
        step = max(1, math.isqrt(plane.size * len(numbers) // MOST_VALUES))
        inner.append(plane[::step, ::step].astype(np.float64).ravel())
    faces = [*ends, *(np.concatenate(edge) for edge in edges)]
    filled = [face for face in faces if _most_common(face)[1] >= LEAST_SHARE]
    if not filled:
        return None
    value = _most_common(np.concatenate(filled))[0]
    rest = np.concatenate(inner)
    rest = rest[rest != value]
    if rest.size < 8:
        return None
    middle = float(np.median(rest))
    sigma = 1.4826 * float(np.median(np.abs(rest - middle)))
    if abs(value - middle) <= LEAST_SIGMAS * sigma:
        return None
    every = np.concatenate(faces)
    return value, float((every == value).mean())


def filled_doubt(voxels: Planes, name: str) -> tuple[str, ...]:
    """A line on a volume with a border of one value; none for others."""
    found = filled_value(voxels)
    if found is None:
        return ()
    value, share = found
    return (
        f"{share:.0%} of the faces of {name} have the value {value:g} (a border, padding or a mask): its edge is taken "
        "for structure that volumes have in common, up to the finest details; crop it off",
    )


def _most_common(values: NDArray[Any]) -> tuple[float, float]:
    """The value that occurs most, and its share."""
    found, counts = np.unique(values, return_counts=True)
    best = int(counts.argmax())
    return float(found[best]), float(counts[best] / values.size)
