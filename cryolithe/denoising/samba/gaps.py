"""Which planes predict which: gaps along z, near the ends and beside planes without content."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

# Published choices: voxel size in Å against the largest gap of training; inference uses twice the gap.
PUBLISHED_GAPS = ((2.62, 10), (7.86, 6), (15.72, 3))
# Gaps that a plane near an end is given at least; those that do not fit are mirrored.
FEWEST_GAPS = 3

Pair = tuple[int, int]


def training_gap(voxel_size_angstrom: float | None) -> int:
    """Largest gap of training, interpolated between the published ones; the smallest without a voxel size.

    >>> [training_gap(size) for size in (1.0, 2.62, 7.86, 10.0, 15.72, 30.0)]
    [10, 10, 6, 5, 3, 3]
    """
    sizes, gaps = zip(*PUBLISHED_GAPS, strict=True)
    size = sizes[-1] if voxel_size_angstrom is None else voxel_size_angstrom
    return round(float(np.interp(size, sizes, gaps)))


def fitting_gap(planes: int) -> int:
    """Largest gap that some plane of so many has on both sides."""
    return (planes - 1) // 2


def training_pairs(usable: NDArray[np.bool_], largest: int) -> NDArray[np.int32]:
    """All triplets ``(z - L, z, z + L)`` of usable planes with gaps 1 ... ``largest``, as rows ``(z, L)``.

    Args:
        usable: of each plane, whether it has content.
        largest: gap.
    """
    found = []
    for gap in range(1, largest + 1):
        inner = usable[gap:-gap] & usable[: -2 * gap] & usable[2 * gap :]
        z = np.flatnonzero(inner) + gap
        found.append(np.stack([z, np.full_like(z, gap)], axis=1))
    return np.concatenate(found).astype(np.int32) if found else np.zeros((0, 2), np.int32)


def neighbours(z: int, usable: NDArray[np.bool_], largest: int) -> list[Pair]:
    """Pairs of planes ``(before, after)`` around a plane, for the gaps 1 ... ``largest``.

    Gaps that fit are used. Where fewer than ``FEWEST_GAPS`` fit, the next ones are mirrored: what would lie beyond an
    end, or on a plane without content, is taken from the other side.

    Args:
        z: the plane; one without content has no pairs.
        usable: of each plane, whether it has content.
        largest: gap.
    """
    if not usable[z]:
        return []

    def there(plane: int) -> bool:
        return 0 <= plane < usable.size and bool(usable[plane])

    pairs: list[Pair] = [(z - gap, z + gap) for gap in range(1, largest + 1) if there(z - gap) and there(z + gap)]
    missing = min(FEWEST_GAPS, largest) - len(pairs)
    for gap in range(1, largest + 1):
        if missing <= 0:
            break
        if there(z - gap) != there(z + gap):
            other = z - gap if there(z - gap) else z + gap
            pairs.append((other, other))
            missing -= 1
    return pairs


def gaps_of(lmax: int | None, voxel_size_angstrom: float | None, planes: int) -> tuple[int, int]:
    """Largest gaps of training and inference.

    Args:
        lmax: of inference, as the user wishes; None to choose from the voxel size.
        voxel_size_angstrom: or None.
        planes: usable ones; the gaps are reduced to what fits.
    """
    inference = 2 * training_gap(voxel_size_angstrom) if lmax is None else lmax
    inference = max(1, min(inference, fitting_gap(planes)))
    return math.ceil(inference / 2), inference
