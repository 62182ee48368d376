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
from scipy.ndimage import binary_dilation, label

from cryolithe.artefacts.borders import EVEN_PX

# So much of a volume's face has one value, which lies so many robust deviations from the rest: no noise is like that.
LEAST_SHARE, LEAST_SIGMAS = 0.3, 0.5
# So many planes are looked at, and so many of their values beside the faces.
MOST_PLANES, MOST_VALUES = 64, 1_000_000
# What is of one value, block by block, in one half and not in the other: so much of a plane, and of the volume. The
# edges of what two programs filled are less.
LEAST_LACKING_OF_PLANE, LEAST_LACKING = 0.1, 0.02
# Pieces at the edge of a plane count from this share of it on, as the corners around a round mask. Where more of the
# other voxels have the value, counts of few levels and positive ones are even by chance: only whole bands are not.
LEAST_PIECE, MOST_BY_CHANCE = 0.02, 0.25
# A row, or column, of one value from the edge on has so many pixels at least.
LEAST_ROW_PX = 8
# What surrounds data of any outline is filled where so few of the other voxels, of so many, have its value.
MOST_STRAY, FEWEST_ASKED = 0.01, 64
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


@dataclass(frozen=True)
class Lacking:
    """A part of one of two halves that has a single value, where the other varies.

    Attributes:
        share: of the volume.
        told: in words.
    """

    share: float
    told: str


def find_lacking(first: Planes, second: Planes, names: tuple[str, str]) -> Lacking | None:
    """What one of two halves lacks; None of halves that are as they should be.

    Args:
        first: planes ``(y, x)`` of one half.
        second: as many of the other, of the same shape.
        names: for messages.
    """
    numbers = _numbers(min(len(first), len(second)), MOST_PLANES)
    shares = np.array([_lacking_shares(np.asarray(first[z]), np.asarray(second[z])) for z in numbers]).T
    for found, name, other in zip(shares, names, names[::-1], strict=True):
        lacking = np.where(found > LEAST_LACKING_OF_PLANE, found, 0.0)
        share = float(lacking.mean())
        if share >= LEAST_LACKING:
            where = np.flatnonzero(lacking)
            some = "" if where[-1] - where[0] + 1 == where.size else ", in some of them"
            planes = f"planes {numbers[where[0]] + 1} to {numbers[where[-1]] + 1} of {len(first)}{some}"
            planes = planes if where.size > 1 else f"plane {numbers[where[0]] + 1} of {len(first)}"
            return Lacking(
                share,
                f"{name} has one value in {share:.0%} of its voxels, in {planes}, where {other} varies: it was not "
                "written to its end, or was filled or masked alone; write it again, or crop both",
            )
    return None


def lacking_doubt(first: Planes, second: Planes, names: tuple[str, str]) -> tuple[str, ...]:
    """A line on two halves of which one has a single value where the other varies; arguments as `find_lacking`."""
    found = find_lacking(first, second, names)
    return () if found is None else (found.told,)


def _lacking_shares(first: NDArray[Any], second: NDArray[Any]) -> tuple[float, float]:
    """What part of each of two planes is of one value in a region that chance does not make, and not of the other."""
    blocks = [_blocks(plane) for plane in (first, second)]
    shares = []
    for (plane, most, least), (_, other_most, other_least) in (blocks, blocks[::-1]):
        even, alone = most == least, (most == least) & (other_most != other_least)
        if not alone.any():
            shares.append(0.0)
            continue
        value = _most_common(most[alone])[0]
        region = even & (most == value)
        edge = plane.shape[0] // len(even)
        rest = plane[~even.repeat(edge, axis=0).repeat(edge, axis=1)]
        kept = _bands(region)
        if not rest.size or (rest == value).mean() <= MOST_BY_CHANCE:
            kept |= _pieces(region)
        shares.append(float((kept & alone).mean()))
    return shares[0], shares[1]


def _blocks(plane: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """A plane without what fills no block, and the greatest and least value of each of its square blocks."""
    edge = min(EVEN_PX, *plane.shape)
    rows, columns = (size // edge for size in plane.shape)
    cut = plane[: rows * edge, : columns * edge]
    bands = cut.reshape(rows, edge, columns * edge)
    # Rows first: these are long, and contiguous.
    most, least = (side.reshape(rows, columns, edge) for side in (bands.max(axis=1), bands.min(axis=1)))
    return cut, most.max(axis=2), least.min(axis=2)


def _bands(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a region that fills whole rows or columns, from an edge of the plane on."""
    rows, columns = (_ends(np.asarray(region.all(axis=axis), np.bool_)) for axis in (1, 0))
    return rows[:, None] | columns[None, :]


def _ends(full: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is true without a gap from either end on."""
    gaps = np.flatnonzero(~full)
    places = np.arange(full.size)
    return (places < gaps[0]) | (places > gaps[-1]) if gaps.size else full


def _pieces(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The large connected pieces of a region, and smaller ones at an edge of the plane."""
    labelled, count = label(region)
    pieces = np.asarray(labelled, np.intp)
    shares = np.bincount(pieces.ravel(), minlength=count + 1) / region.size
    at_edge = np.zeros(count + 1, np.bool_)
    for edge in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        at_edge[edge] = True
    least = np.where(at_edge, LEAST_PIECE, LEAST_LACKING_OF_PLANE)
    large = np.flatnonzero(shares >= least)
    return np.isin(pieces, large[large > 0])


def filled_outside(plane: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a plane has one value from its edges on: it may be none but that, or a border, or surround a mask.

    Args:
        plane: shape ``(y, x)``, finite.
    """
    found = np.ones(plane.shape, np.bool_)
    rows, columns = _content(plane)
    if rows.start == rows.stop:
        return found
    found[rows, columns] = False
    whole, most, least = _blocks(plane)
    even = most == least
    if _at_edge(even).any():
        value = _most_common(_at_edge(most)[_at_edge(even)])[0]
        block = whole.shape[0] // len(even)
        region = (even & (most == value)).repeat(block, axis=0).repeat(block, axis=1)
        same = plane == value
        # Blocks at an outline are not of one value: so much beside a region is not asked.
        known = found[: region.shape[0], : region.shape[1]] | region
        rest = same[: region.shape[0], : region.shape[1]][~binary_dilation(known, iterations=block)]
        if rest.size >= FEWEST_ASKED and rest.mean() <= MOST_STRAY:
            found |= _around(same, region)
    return found


def _content(plane: NDArray[Any]) -> tuple[slice, slice]:
    """What rows and columns of one value each, from the edges on, leave of a plane; empty slices if nothing."""
    (top, left), (bottom, right) = (0, 0), plane.shape
    before = None
    while before != (top, bottom, left, right):
        before = (top, bottom, left, right)
        for axis in (0, 1):
            part = plane[top:bottom, left:right]
            if part.shape[1 - axis] < LEAST_ROW_PX:
                continue
            full = np.asarray(part.max(axis=1 - axis) == part.min(axis=1 - axis), np.bool_)
            if full.all():
                return slice(0, 0), slice(0, 0)
            first, last = int(full.argmin()), len(full) - int(full[::-1].argmin())
            if axis == 0:
                top, bottom = top + first, top + last
            else:
                left, right = left + first, left + last
    return slice(top, bottom), slice(left, right)


def _around(same: NDArray[np.bool_], region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected pieces of pixels of a value that reach an edge of the plane, and hold a part of a region there."""
    pieces = np.asarray(label(same)[0], np.intp)
    held = np.unique(pieces[: region.shape[0], : region.shape[1]][region])
    return np.asarray(np.isin(pieces, np.intersect1d(held, np.unique(_at_edge(pieces)))) & same, np.bool_)


def _at_edge(values: NDArray[Any]) -> NDArray[Any]:
    """The values at the four edges of a plane."""
    return np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])


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
