"""Borders of one value in volumes: planes that a program filled in, masks, what a turn left empty, or nobody wrote.

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

from cryolithe.borders import even_share

# So much of a volume's face has one value, which lies so many robust deviations from the rest: no noise is like that.
LEAST_SHARE, LEAST_SIGMAS = 0.3, 0.5
# So many planes are looked at, and so many of their values beside the faces.
MOST_PLANES, MOST_VALUES = 64, 1_000_000
# What is of one value, block by block, in one half and not in the other: so much of a plane, and of the volume. What
# counts of few levels leave even by chance, and the edges of what two programs filled, are less.
EVEN_PX, LEAST_LACKING_OF_PLANE, LEAST_LACKING = 4, 0.1, 0.02
# Noise is everywhere, structure is not: details of quiet blocks over those of busy ones.
NOISE_PLANES, NOISE_PX, NOISE_EVENNESS, MOST_EVEN, FEW_EVEN, MOST_PARTLY = 8, 8, 0.55, 0.4, 0.1, 0.3


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
    numbers = _numbers(len(voxels), MOST_PLANES)
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


def lacking_doubt(first: Planes, second: Planes, names: tuple[str, str]) -> tuple[str, ...]:
    """A line on two halves of which one has a single value where the other varies; none for others.

    Args:
        first: planes ``(y, x)`` of one half.
        second: as many of the other, of the same shape.
        names: for messages.
    """
    numbers = _numbers(min(len(first), len(second)), MOST_PLANES)
    more = np.array([even_share(first[z], EVEN_PX) - even_share(second[z], EVEN_PX) for z in numbers])
    for sign, name, other in ((1, *names), (-1, *names[::-1])):
        lacking = np.where(sign * more > LEAST_LACKING_OF_PLANE, sign * more, 0.0)
        if lacking.mean() >= LEAST_LACKING:
            where = np.flatnonzero(lacking)
            some = "" if where[-1] - where[0] + 1 == where.size else ", in some of them"
            return (
                f"{name} has one value in {lacking.mean():.0%} of its voxels, in planes {numbers[where[0]] + 1} to "
                f"{numbers[where[-1]] + 1} of {len(first)}{some}, where {other} varies: it was not written to its end, "
                "or was filled or masked alone; write it again, or crop both",
            )
    return ()


def has_noise_everywhere(voxels: Planes) -> bool:
    """Whether a volume's finest details are about as strong wherever it varies, as noise is, and a truth is not."""
    found, partly = [], 0
    for z in _numbers(len(voxels), NOISE_PLANES + 2)[1:-1]:
        plane = np.asarray(voxels[z], np.float64)
        details = np.abs(np.diff(np.diff(plane, axis=0), axis=1))
        rows, columns = (size // NOISE_PX for size in details.shape)
        blocks = details[: rows * NOISE_PX, : columns * NOISE_PX].reshape(rows, NOISE_PX, columns, NOISE_PX)
        means, even = blocks.mean(axis=(1, 3)), (blocks == 0).mean(axis=(1, 3))
        partly += int(((even > FEW_EVEN) & (even < 1 - FEW_EVEN)).sum())
        found.append(means[even < MOST_EVEN])
    every = np.concatenate([np.zeros(0), *found])
    if not every.size > max(NOISE_PX, partly / MOST_PARTLY):
        return False
    return bool(np.quantile(every, 0.1) > NOISE_EVENNESS * np.quantile(every, 0.9))


def _numbers(depth: int, most: int) -> list[int]:
    """Of planes spread over a depth, its ends among them."""
    return [int(z) for z in np.unique(np.linspace(0, depth - 1, most).round())]


def _most_common(values: NDArray[Any]) -> tuple[float, float]:
    """The value that occurs most, and its share."""
    found, counts = np.unique(values, return_counts=True)
    best = int(counts.argmax())
    return float(found[best]), float(counts[best] / values.size)
