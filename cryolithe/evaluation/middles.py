"""The middle that volumes of different shapes have in common, which is what is compared of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.evaluation.in_hand import Named

Array = NDArray[Any]

MASKED = 0.5  # weights above count as inside where a voxel is either in or out


@dataclass(frozen=True)
class Compared:
    """Volumes of one shape, with the voxels to look at; weights and inside are None for all."""

    first: Array
    second: Array
    weights: Array | None
    inside: NDArray[np.bool_] | None


def compared(first: Named, second: Named, mask: Named | None) -> Compared:
    """Cut volumes to the middle that all have (they are of one shape already without ``--crop``).

    Raises:
        InputError: if the mask keeps no voxel of the middle.
    """
    parts = [part.voxels for part in (first, second, *([mask] if mask else []))]
    shape = tuple(min(sizes) for sizes in zip(*(part.shape for part in parts), strict=True))
    a, b, *rest = (middle(part, shape) for part in parts)
    weights = rest[0] if rest else None
    inside = None if weights is None else weights > MASKED
    if inside is not None and not inside.any() and mask is not None:
        raise InputError(f"the mask {mask.name} keeps no voxel of the middle {shape}; nothing is left to compare")
    return Compared(a, b, weights, inside)


def middle(volume: Array, shape: tuple[int, ...]) -> Array:
    """The middle of a volume; half a voxel off along axes whose sizes differ by an odd number."""
    starts = _starts(volume.shape, shape)
    return volume[tuple(slice(start, start + want) for start, want in zip(starts, shape, strict=True))]


def place_of_middle(volume: Named, shape: tuple[int, ...]) -> tuple[float, float, float]:
    """Where in Å the first voxel ``(z, y, x)`` of the middle of a volume lies."""
    size = volume.voxel_size_angstrom or 0.0
    z, y, x = (
        origin + start * size
        for origin, start in zip(volume.origin_angstrom, _starts(volume.voxels.shape, shape), strict=True)
    )
    return z, y, x


def _starts(have: tuple[int, ...], wanted: tuple[int, ...]) -> list[int]:
    return [(size - want) // 2 for size, want in zip(have, wanted, strict=True)]
