"""Planes cut into overlapping tiles, and put together again without seams."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.folding import reflected


@dataclass(frozen=True)
class Span:
    """A tile's part of one axis.

    Attributes:
        start: first pixel.
        length: of the tile, pixels; a tile may reach beyond an axis that is shorter.
        size: of the axis.
    """

    start: int
    length: int
    size: int

    @property
    def stop(self) -> int:
        """Pixel after the last one that lies on the axis."""
        return min(self.size, self.start + self.length)

    def indices(self) -> NDArray[np.int64]:
        """Pixels of the axis that the tile shows, mirrored beyond its ends (edge pixels stand once)."""
        return reflected(np.arange(self.start, self.start + self.length), self.size)


Tile = tuple[Span, Span]


def spans(size: int, crop: int, overlap: int, multiple: int) -> list[Span]:
    """Spans that cover an axis, evenly spread, neighbours overlapping by at least ``overlap``.

    Args:
        size: pixels of the axis.
        crop: longest span; rounded to ``multiple``, and no longer than the axis needs.
        overlap: pixels, less than half of ``crop``.
        multiple: lengths are multiples of it.
    """
    length = max(multiple, min(crop // multiple, math.ceil(size / multiple)) * multiple)
    if length >= size:
        return [Span(0, length, size)]
    overlap = min(overlap, length // 2)
    count = math.ceil((size - overlap) / (length - overlap))
    starts = np.linspace(0, size - length, count).round().astype(int)
    return [Span(int(start), length, size) for start in starts]


def tiles(shape: tuple[int, int], crop: int, overlap: int, multiple: int) -> list[Tile]:
    """Tiles that cover a plane ``(y, x)``, row by row; see `spans`."""
    along_y, along_x = (spans(size, crop, overlap, multiple) for size in shape)
    return [(y, x) for y in along_y for x in along_x]


def blend_weights(parts: Sequence[Span], overlap: int) -> list[NDArray[np.float32]]:
    """Weights of spans along an axis; together they are 1 everywhere.

    A quarter of the overlap at each inner end, where a network knows least, is left to the neighbour; the rest is a
    linear passage.

    Args:
        parts: of one axis.
        overlap: that `spans` was asked for.
    """
    edge = overlap // 4
    width = max(1, overlap - 2 * edge)
    raw = []
    for part in parts:
        inside = np.arange(part.start, part.stop)
        rise = np.ones(inside.size) if part.start == 0 else (inside - part.start - edge + 0.5) / width
        fall = np.ones(inside.size) if part.stop == part.size else (part.stop - edge - 0.5 - inside) / width
        raw.append(np.clip(np.minimum(rise, fall), 0, 1))
    total = np.zeros(parts[0].size)
    for part, weight in zip(parts, raw, strict=True):
        total[part.start : part.stop] += weight
    return [
        (weight / total[part.start : part.stop]).astype(np.float32) for part, weight in zip(parts, raw, strict=True)
    ]


class Blend:
    """Puts tiles of a plane together.

    Args:
        parts: from `tiles`.
        overlap: that `tiles` was asked for.
    """

    def __init__(self, parts: Sequence[Tile], overlap: int) -> None:
        self._parts = list(parts)
        along_y, along_x = (list(dict.fromkeys(tile[axis] for tile in parts)) for axis in (0, 1))
        self._y = dict(zip(along_y, blend_weights(along_y, overlap), strict=True))
        self._x = dict(zip(along_x, blend_weights(along_x, overlap), strict=True))
        self.shape = (along_y[0].size, along_x[0].size)

    def __call__(self, pieces: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
        """The plane from its tiles' values, in the order of the tiles; what lies beyond the plane is dropped."""
        plane = np.zeros(self.shape, np.float32)
        for (y, x), piece in zip(self._parts, pieces, strict=True):
            weight = self._y[y][:, None] * self._x[x]
            plane[y.start : y.stop, x.start : x.stop] += weight * piece[: y.stop - y.start, : x.stop - x.start]
        return plane
