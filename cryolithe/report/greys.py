"""From densities to greys, one rule for every picture: what is faint keeps its contrast beside what is dense.

A window between percentiles of all values is as wide as the densest thing in it, be it a bead, an ice crystal or a
ribosome, and bilayers beside it fade. Here the spread comes from small tiles, each about its own median, so that the
flat inside of a crystal does not widen it, and from ranks of these tiles that a membrane reaches and a bead does not.
Outwards from the background the curve bends, ``u / (1 + |u|)``: twice as dense is darker still, but not by twice as
much. Where something far denser fills many tiles whole, like a crystal or a specimen milled to a needle, the
curve also goes on evenly, lest the inside be lost in black.

Dense matter is dark in every picture, as in cryo images, whatever the file's own polarity; the picture says so, and
where the file's is the other one. Only where nobody knows the polarity are values shown as they are stored, large ones
bright.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TILES = 24  # along the longer side of a section, as far as the next line lets
_TILE_PX = (6, 32)  # the least and the largest side of a tile: a bilayer and some ice
_TAIL = 0.05  # of a tile's values at each end do not count: a hot voxel is no structure
_RANKS = np.linspace(0.90, 0.96, 7)  # of the tiles by their spread: membranes are in more of them, beads in fewer
_END = 10.0  # spreads from the background: there it is black or white
_BODY_RANK = 0.95  # of the tiles by their median: what fills more of them than that is a body, fewer a bead
_BODY = 4.5  # spreads: a body as far away as this needs no greys of its own
_BODY_SHARE = 0.5  # height of the even part of the curve at most, at the body
_BODY_ROOM = 1.2  # beyond the body
_LEAST_SIDE = 0.3  # of the greys of the wider side, for the other: the background itself is neither black nor white
_FILLED = 2.0  # spreads of a tile: values farther from the rest that fill whole tiles are no specimen


DENSE_DARK = "dense matter dark"
_DRAWN_DARK = "dense matter drawn dark (bright in the volume)"


def dark_sign(contrast: str | None) -> float:
    """What values are multiplied by, so that large ones are bright and dense matter is dark.

    Args:
        contrast: of dense matter among the values: "dark", "bright", or None where nobody knows.
    """
    return -1.0 if contrast == "bright" else 1.0


def told_polarity(contrast: str | None) -> str:
    """What a picture says of its greys, for values of this contrast times `dark_sign`."""
    if contrast == "bright":
        return _DRAWN_DARK
    return DENSE_DARK if contrast == "dark" else "large values bright, as stored"


@dataclass(frozen=True)
class GreyScale:
    """What turns values into greys; see `grey_scale`.

    Attributes:
        unit: what values are divided by first, so that huge and tiny ones stay within the range of numbers.
        background: the value of what is neither dense nor light, in these units.
        spread: deviation from it at which the curve bends; 0 where all values are alike.
        slope: with which the curve goes on beyond, per spread.
        black: height of the curve, below 0, from which on it is black.
        white: the same for white, above 0.
    """

    unit: float
    background: float
    spread: float
    slope: float
    black: float
    white: float


def grey_scale(sections: Iterable[NDArray[Any]]) -> GreyScale:
    """Find the grey scale of sections that are shown beside each other.

    Sections of one volume share a scale, and so do volumes that differ by what is to be seen alone. Where amplitudes or
    noise differ, as between back-projection and network, each volume has its own by the same rule: a factor and an
    offset of all values change no picture.

    Args:
        sections: shape ``(y, x)``, of any real type. Values that are no numbers do not count.
    """
    planes = [_numbers(section) for section in sections]
    planes = [plane for plane in planes if np.isfinite(plane).any()]
    unit = max((float(np.nanmax(np.abs(plane))) for plane in planes), default=0.0) or 1.0
    planes = [plane / unit for plane in planes]
    tiles = [_tiles(plane) for plane in planes]
    filled = _filling(planes, tiles)
    if filled.size:
        tiles = [_tiles(np.where(np.isin(plane, filled), np.nan, plane)) for plane in planes]
    low, medians, high = _levels(tiles, _TAIL)
    if not medians.size:
        return GreyScale(unit, 0.0, 0.0, 0.0, -1.0, 1.0)
    background = float(np.median(medians))
    sides = _sides(low, medians, high, background)
    if max(sides) == 0:  # next to nothing is there: by the tiles that hold anything
        least, middle, most = _levels(tiles, 0.0)
        some = least < most
        sides = _sides(least[some], middle[some], most[some], background)
    if max(sides) == 0:
        sides = (background - float(low.min()), float(high.max()) - background)
    return _scale(unit, background, medians, sides)


# Maps of `reconstruct --confidence`, and the range of values in which each is shown.
MAP_RANGES = {"confidence": (0.0, 1.0), "error": (0.0, 2.0), "unsupported": (0.0, 1.0)}


def even_scale(low: float, high: float) -> GreyScale:
    """Greys that rise evenly from black to white between two values: for maps whose values mean something."""
    far = 1e4  # spreads: so far from its bend the curve is a line
    return GreyScale(1.0, low, far * (high - low), 0.0, 0.0, 1 / far)


def to_grey(section: NDArray[Any], scale: GreyScale | None = None) -> NDArray[np.float32]:
    """Greys of a section, from 0 for black to 1 for white; a larger value is never darker.

    Args:
        section: shape ``(y, x)``. Values that are no numbers become as grey as the background.
        scale: that of the sections beside it; without one, the section's own.

    Returns:
        the same shape.
    """
    scale = grey_scale([section]) if scale is None else scale
    values = _numbers(section)
    if scale.spread == 0:
        return np.full(values.shape, 0.5, dtype=np.float32)
    deviation = np.nan_to_num(values / scale.unit - scale.background)
    height = _curve(deviation / scale.spread, scale.slope)
    return np.clip((height - scale.black) / (scale.white - scale.black), 0, 1).astype(np.float32)


def _sides(low: Array, medians: Array, high: Array, background: float) -> tuple[float, float]:
    """Spreads below and above: of each tile about its own median, but darker is only what the background is not."""
    if not medians.size:
        return 0.0, 0.0
    return (
        _reached(np.maximum(np.minimum(medians, background) - low, 0)),
        _reached(np.maximum(high - np.maximum(medians, background), 0)),
    )


def _scale(unit: float, background: float, medians: Array, sides: tuple[float, float]) -> GreyScale:
    """The scale by the medians of tiles and the spreads below and above the background."""
    spread = max(sides)
    if spread == 0:
        return GreyScale(unit, background, 0.0, 0.0, -1.0, 1.0)
    bodies = np.quantile(np.stack((background - medians, medians - background)), _BODY_RANK, axis=1) / spread
    shares = np.clip(bodies / _BODY - 1, 0, _BODY_SHARE)
    slope = float(shares.max() / max(bodies.max(), _BODY))
    usual = _curve(np.array(_END), slope) * np.array(sides) / spread
    ends = np.maximum(usual, _curve(_BODY_ROOM * bodies, slope))
    black, white = np.maximum(ends, _LEAST_SIDE * ends.max())
    return GreyScale(unit, background, spread, slope, -float(black), float(white))


def _curve(spreads: Array, slope: float) -> Array:
    height: Array = spreads / (1 + np.abs(spreads)) + slope * spreads
    return height


def _numbers(section: NDArray[Any]) -> Array:
    """A copy as float64, NaN for all that is no number."""
    values = np.array(section, dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


def _tiles(plane: Array) -> Array:
    """The values of each tile in rising order, NaN last: shape ``(tile, voxel)``. A rest at the edges is left out."""
    wanted = max(_TILE_PX[0], min(_TILE_PX[1], max(plane.shape) // _TILES))
    (tall, rows), (wide, columns) = ((min(wanted, size), size // min(wanted, size)) for size in plane.shape)
    top, left = (plane.shape[0] - tall * rows) // 2, (plane.shape[1] - wide * columns) // 2
    cut = plane[top : top + rows * tall, left : left + columns * wide].reshape(rows, tall, columns, wide)
    return np.sort(cut.transpose(0, 2, 1, 3).reshape(rows * columns, tall * wide), axis=1)


def _levels(tiles: list[Array], tail: float) -> tuple[Array, Array, Array]:
    """Low, median and high value of each tile that has any."""
    found = [np.zeros((3, 0))]
    for each in tiles:
        counts = np.isfinite(each).sum(axis=1)
        values, last = each[counts > 0], counts[counts > 0] - 1
        at, cut = np.arange(len(values)), np.rint(tail * last).astype(int)
        median = (values[at, last // 2] + values[at, (last + 1) // 2]) / 2
        found.append(np.stack((values[at, cut], median, values[at, last - cut])))
    low, middle, high = np.concatenate(found, axis=1)
    return low, middle, high


def _filling(planes: list[Array], tiles: list[Array]) -> Array:
    """Values that fill whole tiles or edges, and lie far from those of the tiles that have some variation: borders."""
    low, middle, high = _levels(tiles, 0.0)
    edges = [line for p in planes for line in (p[0], p[-1], p[:, 0], p[:, -1]) if line.size >= _TILE_PX[0]]
    even = np.unique(np.concatenate((middle[low == high], [e[0] for e in edges if (e == e[0]).all()])))
    rest = (low < high) & ~np.isin(middle, even)
    if not even.size or not rest.any():
        return np.zeros(0)
    wide = float(np.median((high - low)[rest]))
    return even[np.abs(even - np.median(middle[rest])) > _FILLED * wide]


def _reached(spreads: Array) -> float:
    """The spread of some tiles near the widest ones; of the mean of square roots, lest the widest of them decide."""
    return float(np.sqrt(np.quantile(spreads, _RANKS)).mean()) ** 2
