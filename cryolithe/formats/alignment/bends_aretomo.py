"""AreTomo's local alignment: the rows below ``# Local Alignment`` of an .aln file.

A row is ``t p x y dx dy good``: image t (from 0, in the order of the file's global rows), patch p, the patch's place
from the middle of the raw image (pixels), its shift, and 1 for a shift that is trusted. ``mGCorrect`` in AreTomo3's
GCorrPatchShift.cu (AreTomo2's is the same) reads a corrected pixel q at ``p = R(ROT) q + s + T``, where s is the mean
of the good patches' shifts, each weighed by ``exp(-100 |r|²)``, r being the patch's distance from ``R(ROT) q``, before
T is added, along each axis as a part of the raw image's size. So it is looked up at the unshifted place, and added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolithe.alignment import rotation
from cryolithe.bending import Floats, RawBend
from cryolithe.errors import FileFormatError
from cryolithe.formats.files import finite_numbers, printable

COLUMNS = 7
# Weight of a patch at a distance of the whole image.
STEEPNESS = 100.0
GOOD = 0.9
# Values held at a time.
_PIECE = 1 << 20


@dataclass(frozen=True)
class Patches:
    """The trusted patches of one image.

    Attributes:
        places_px: ``(x, y)`` from the middle of the raw image, shape ``(patches, 2)``.
        shifts_px: likewise.
    """

    places_px: NDArray[np.float64]
    shifts_px: NDArray[np.float64]


def whole_rows(lines: Sequence[tuple[int, str]]) -> int:
    """How many of the rows, ``(number, text)``, are written to their end."""
    return sum(len(text.split()) >= COLUMNS for _, text in lines)


def read_patches(lines: Sequence[tuple[int, str]], images: int) -> tuple[Patches | None, ...]:
    """The patches of each image, or None for an image without a trusted one.

    Args:
        lines: number and text of the rows.
        images: how many the file aligns.

    Raises:
        FileFormatError: for what is no such row.
    """
    found: dict[int, list[list[float]]] = defaultdict(list)
    for number, text in lines:
        words = text.split()
        values = finite_numbers(words)
        if values is None or len(values) != COLUMNS:
            raise FileFormatError(f"line {number}: expected {COLUMNS} finite numbers, found '{printable(text)[:60]}'")
        if values[0] != int(values[0]) or not 0 <= values[0] < images:
            raise FileFormatError(f"line {number}: expected an image of 0 to {images - 1}, found {words[0][:20]}")
        patches = found[int(values[0])]
        if values[6] >= GOOD:
            patches.append(values[2:6])
    if missing := [number for number in range(images) if number not in found]:
        raise FileFormatError(f"it has no row for image {missing[0]} of 0 to {images - 1}")
    tables = (np.array(found[number]).reshape(-1, 4) for number in range(images))
    return tuple(Patches(table[:, :2], table[:, 2:]) if len(table) else None for table in tables)


def patch_bend(patches: Patches | None, rotation_deg: float, raw_shape: tuple[int, int]) -> RawBend | None:
    """The bend of an image; None where no patch is trusted.

    Args:
        patches: of the image.
        rotation_deg: ROT.
        raw_shape: pixels ``(y, x)`` of the raw image.
    """
    if patches is None:
        return None
    size = np.array(raw_shape[::-1], dtype=np.float64)
    places = patches.places_px / size

    def field(x_px: Floats, y_px: Floats) -> Floats:
        points = np.stack([x_px.ravel(), y_px.ravel()], axis=-1) / size
        step = max(1, _PIECE // len(places))
        parts = [_mean_shift(points[i : i + step], places, patches.shifts_px) for i in range(0, len(points), step)]
        return np.concatenate(parts).T.reshape(2, *x_px.shape)

    return RawBend(rotation(-rotation_deg), (0.0, 0.0), field)


def _mean_shift(points: Floats, places: Floats, shifts_px: Floats) -> Floats:
    """Weighed means of the patches' shifts at points, shape ``(points, 2)``; places are parts of the image."""
    # Squared distances, but for the point's own square, which changes all weights alike.
    exponent = -STEEPNESS * ((places**2).sum(axis=1) - 2 * points @ places.T)
    # The nearest patch weighs 1: far from all of them every weight would be 0.
    weights = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return np.asarray(weights @ shifts_px / weights.sum(axis=1, keepdims=True))
