"""Borders of one value in tilt images: what an alignment filled in where an image has no data.

A border is what lies outside the smallest convex area that holds all pixels of another value. It was filled in, and is
no part of the specimen, if the area's edges run in the two directions of a picture's sides, if data begin abruptly at
them (they are there in full, with their full noise), and if more is missing than chance leaves out where many pixels of
the data have that value, too. A saturated bead, an empty part of a specimen and counts of few levels are none of this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates, maximum_filter1d, minimum_filter1d, uniform_filter
from scipy.spatial import ConvexHull, QhullError

# Interpolation mixes data with what was filled in: so many pixels at the edge of the data are taken for border.
EDGE_PX = 2
# Two steps of alignment may have filled with two values.
MOST_VALUES = 2
LEAST_OF_OUTLINE = 0.03  # of the outline's pixels have the value
LEAST_OUTLINE_SIDES = 0.9  # lengths of the shorter side that a border takes of the outline: less is in a corner only
MOST_OF_IMAGE = 0.4
EVEN_PX = 4  # edge of blocks of one value
EVEN_COUNTS_PX = 8  # the same, of images that may be sparse counts, whose smaller blocks may all be 0
# What is wider may be a vacuum, and is told of up to the first share. So much of such an image is even, and so much
# more of it is border than what is replaced.
MOST_TOLD, LEAST_EVEN, LEAST_MORE = 0.95, 0.3, 0.1
# Of the pixels beside a border, so many more than elsewhere may have its value, but never more than the second number.
MORE_BESIDE, MOST_OF_DATA = 0.1, 0.6
AMONG_DATA = 0.02  # of the data lie on either side of a value that is among them
SAME_DIRECTION_DEG, STRAIGHT_SHARE = 6.0, 0.8
# Where the data beside a border, and deeper inside, are looked at: distances from it in pixels.
NEAR_PX, FAR_PX = (2, 5), (8, 20)
# The local mean is taken over squares of this part of an image, twice.
LOCAL_PART, LEAST_LOCAL_PX = 12, 9


@dataclass(frozen=True)
class Border:
    """The data of an image, as what the border leaves.

    Attributes:
        first: column of each row's first pixel of data; the image's width where the row has none.
        last: column of each row's last pixel of data; -1 where the row has none.
        share: part of the image that is border.
    """

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    share: float

    def holds_data(self, width: int) -> NDArray[np.bool_]:
        """Where the image, of so many columns, holds data, shape ``(y, x)``."""
        return _mask((self.first, self.last), width)


def is_mostly_border(image: NDArray[np.generic]) -> bool:
    """Whether so much of an image is even that `find_border` takes it for none, so that its edge stays in it."""
    return even_share(image, EVEN_PX) > MOST_OF_IMAGE and find_border(np.asarray(image, np.float32)) is None


def find_wide_border(image: NDArray[np.float32]) -> Border | None:
    """Find a border that takes too much of an image for `find_border`: it is not replaced, as it may be a vacuum."""
    if even_share(image, EVEN_PX) < LEAST_EVEN:
        return None
    replaced, border = find_border(image), find_border(image, MOST_TOLD)
    left = border.share - (replaced.share if replaced else 0.0) if border else 0.0
    return border if left > LEAST_MORE else None


def even_share(image: NDArray[np.generic], edge_px: int) -> float:
    """What part of an image, shape ``(y, x)``, lies in square blocks all of whose pixels are the same.

    Sparse counts are the same in small blocks by chance.
    """
    edge = min(edge_px, *image.shape)
    rows, columns = (size // edge for size in image.shape)
    bands = np.asarray(image[: rows * edge, : columns * edge]).reshape(rows, edge, columns * edge)
    # Rows first: these are long, and contiguous.
    most, least = (side.reshape(rows, columns, edge) for side in (bands.max(axis=1), bands.min(axis=1)))
    return float((most.max(axis=2) == least.min(axis=2)).mean())


def find_border(image: NDArray[np.float32], most: float = MOST_OF_IMAGE) -> Border | None:
    """Find the border of one value of an image, shape ``(y, x)``; None where there is none.

    Within a border there may be another one, of another value, when images were filled twice. What takes more than
    ``most`` of an image, or of what is within the first one, is none.
    """
    height, width = image.shape
    area, sure = (np.zeros(height, np.int64), np.full(height, width - 1, np.int64)), None
    for _ in range(MOST_VALUES):
        found = _one_border(image, area, most)
        if found is None:
            break
        inner, abrupt = found
        area = _shrunk(inner, EDGE_PX, width)
        if abrupt:
            sure = area
    if sure is None:
        return None
    kept = int(np.maximum(sure[1] - sure[0] + 1, 0).sum())
    return Border(*sure, 1 - kept / image.size) if kept else None


def without_border(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """An image, shape ``(y, x)``, whose border of one value is replaced by the local mean of the nearest data."""
    border = find_border(image)
    return image if border is None else filled_border(image, border)


def filled_border(image: NDArray[np.float32], border: Border) -> NDArray[np.float32]:
    """The image with the local mean of the nearest data in place of a border."""
    inside = border.holds_data(image.shape[1])
    size = max(LEAST_LOCAL_PX, min(image.shape) // LOCAL_PART)
    # Means of so large squares need not be taken of single pixels.
    block = max(1, size // LEAST_LOCAL_PX)
    mean = float(image[inside].mean(dtype=np.float64))
    weights = _blocks(inside.astype(np.float32), block)
    totals = _blocks(np.where(inside, image - mean, np.float32(0)), block)
    known, width = weights > 0.5, size // block
    if not known.any():
        return image
    for _ in range(2):
        weights, totals = (uniform_filter(values, width, mode="constant") for values in (weights, totals))
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    level = uniform_filter((totals / np.maximum(weights, 1e-6))[tuple(nearest)], width, mode="nearest")
    outside = np.nonzero(~inside)
    places = (np.array(outside) + 0.5) / block - 0.5
    filled = image.copy()
    filled[outside] = mean + map_coordinates(level, places, order=1, mode="nearest")
    return filled


def _blocks(values: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Means of square blocks; beyond the far sides there is zero."""
    height, width = (-(-n // size) * size for n in values.shape)
    padded = np.pad(values, ((0, height - values.shape[0]), (0, width - values.shape[1])))
    return padded.reshape(height // size, size, width // size, size).mean((1, 3))


_Rows = tuple[NDArray[np.int64], NDArray[np.int64]]


def _one_border(image: NDArray[np.float32], area: _Rows, most: float) -> tuple[_Rows, bool] | None:
    """The data within an area whose outline holds much of one value, and whether they begin abruptly; None for none."""
    height, width = image.shape
    rows = np.flatnonzero(area[0] <= area[1])
    if rows.size < 2 * NEAR_PX[1]:
        return None
    ends = [image[rows, area[0][rows]], image[rows, area[1][rows]]]
    ends += [image[row, area[0][row] : area[1][row] + 1] for row in (rows[0], rows[-1])]
    outline, counts = np.unique(np.concatenate(ends), return_counts=True)
    value = outline[counts.argmax()]
    if counts.max() < LEAST_OF_OUTLINE * counts.sum() or (value != 0 and value == image.max()):
        return None
    other = (image != value) & _mask(area, width)
    polygon = _hull(other)
    if polygon is None or not _straight(polygon, (height, width)):
        return None
    inner = _rows_of(polygon, (height, width))
    size = int((area[1] - area[0] + 1)[rows].sum())
    kept = int(np.maximum(inner[1] - inner[0] + 1, 0).sum())
    alike = 1 - int(other.sum()) / kept
    # n points at random leave 8/3 ln(n) / n of a rectangle outside their hull (Rényi and Sulanke 1963).
    by_chance = 10 * np.log(image.size) * alike / max(1 - alike, 1e-6)
    if not by_chance + min(height, width) / 2 <= size - kept <= most * size:
        return None
    if _outline_px(area, inner, rows) < LEAST_OUTLINE_SIDES * min(height, width):
        return None
    beside = _mask(inner, width) & ~_mask(_shrunk(inner, NEAR_PX[1], width), width)
    # Along a straight edge no pixel inside the hull is border; along the edge of something round there are many.
    if not beside.any() or float((image[beside] == value).mean()) > min(alike + MORE_BESIDE, MOST_OF_DATA):
        return None
    return inner, _abrupt(image, inner, float(value))


def _outline_px(area: _Rows, inner: _Rows, rows: NDArray[np.int64]) -> int:
    """How many pixels of an area's outline are not those of an inner area."""
    left, right = (inner[0] > area[0])[rows].sum(), (inner[1] < area[1])[rows].sum()
    ends = [area[1][row] - area[0][row] - max(inner[1][row] - inner[0][row], -1) for row in (rows[0], rows[-1])]
    return int(left + right + sum(ends))


def _mask(rows: _Rows, width: int) -> NDArray[np.bool_]:
    columns = np.arange(width)
    return (columns >= rows[0][:, None]) & (columns <= rows[1][:, None])


def _shrunk(rows: _Rows, by_px: int, width: int) -> _Rows:
    """The same area without what lies within some pixels of its border; the image's own sides are none."""
    first = maximum_filter1d(rows[0], 2 * by_px + 1, mode="nearest")
    last = minimum_filter1d(rows[1], 2 * by_px + 1, mode="nearest")
    first = np.where(first > 0, first + by_px, 0)
    last = np.where(last < width - 1, last - by_px, width - 1)
    none = first > last
    return np.where(none, width, first), np.where(none, -1, last)


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Corners (x, y), in order, of the smallest convex polygon around the pixels of a mask; None without an area."""
    rows = np.flatnonzero(mask.any(1))
    if rows.size < 2:
        return None
    first = mask[rows].argmax(1)
    last = mask.shape[1] - 1 - mask[rows][:, ::-1].argmax(1)
    points = np.concatenate([np.stack([first, rows], -1), np.stack([last, rows], -1)])
    try:
        return points[ConvexHull(points).vertices].astype(np.int64)
    except QhullError:  # all on one line
        return None


def _straight(polygon: NDArray[np.int64], shape: tuple[int, int]) -> bool:
    """Whether the edges of a polygon that are not sides of the image run in two directions, but for short ones."""
    height, width = shape
    start, end = polygon, np.roll(polygon, -1, axis=0)
    side = (start == end) & ((start == 0) | (start == np.array([width - 1, height - 1])))
    step = (end - start)[~side.any(1)].astype(np.float64)
    if not len(step):
        return False
    lengths = np.hypot(step[:, 0], step[:, 1])
    directions = np.rad2deg(np.arctan2(step[:, 1], step[:, 0])) % 180
    away = np.abs(directions[:, None] - directions)
    close = np.minimum(away, 180 - away) <= SAME_DIRECTION_DEG
    left = lengths.copy()
    for _ in range(2):
        left[close[(close * left).sum(1).argmax()]] = 0
    return bool(left.sum() <= (1 - STRAIGHT_SHARE) * lengths.sum())


def _rows_of(polygon: NDArray[np.int64], shape: tuple[int, int]) -> _Rows:
    """First and last columns of the pixels inside a convex polygon, for each row."""
    height, width = shape
    first, last = np.full(height, np.inf), np.full(height, -np.inf)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        low, high = min(y0, y1), max(y0, y1)
        rows = np.arange(low, high + 1)
        x = x0 + (x1 - x0) * (rows - y0) / (y1 - y0) if y1 != y0 else np.array([min(x0, x1)])
        first[low : high + 1] = np.minimum(first[low : high + 1], x)
        x = x if y1 != y0 else np.array([max(x0, x1)])
        last[low : high + 1] = np.maximum(last[low : high + 1], x)
    none = first > last
    first, last = np.where(none, width, first), np.where(none, -1, last)
    return np.ceil(first - 1e-6).astype(np.int64), np.floor(last + 1e-6).astype(np.int64)


def _abrupt(image: NDArray[np.float32], inner: _Rows, value: float) -> bool:
    """Whether data of full strength and noise begin at a border of a value.

    The edge of something thick has full strength further inside only. Where the value lies among those of the data, as
    their mean does, strength says nothing, and the level of the data may change as it does elsewhere.
    """
    width = image.shape[1]
    near, far = (
        _mask(_shrunk(inner, low, width), width) & ~_mask(_shrunk(inner, high, width), width)
        for low, high in (NEAR_PX, FAR_PX)
    )
    if min(near.sum(), far.sum()) < width // 4:
        return False
    here, deep = image[near], image[far]
    (noise_here, noise_deep), spread = (_noise(image, ring) for ring in (near, far)), float(deep.std())
    below = float((deep < value).mean())
    if AMONG_DATA < below < 1 - AMONG_DATA:
        allowed = spread
    else:
        allowed = abs(deep.mean() - value) / 4 + 4 * spread * (1 / here.size + 1 / deep.size) ** 0.5
    if abs(float(here.mean()) - float(deep.mean())) > allowed:
        return False
    return noise_here >= noise_deep / 2 > 0 or abs(deep.mean() - value) > 3 * noise_deep


def _noise(image: NDArray[np.float32], ring: NDArray[np.bool_]) -> float:
    """Deviation that the differences of neighbours in a row tell; they are larger in one pair of ten only."""
    pairs = ring[:, 1:] & ring[:, :-1]
    differences = np.abs(image[:, 1:][pairs] - image[:, :-1][pairs])
    return float(np.quantile(differences, 0.9)) / (1.645 * 2**0.5) if differences.size else 0.0
