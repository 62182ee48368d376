"""What is to be judged: a file, or a volume that somebody has in hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats.record import read_record_beside


@dataclass(frozen=True, eq=False)
class InHand:
    """A volume in memory.

    Attributes:
        name: for messages.
        voxels: shape ``(z, y, x)``.
        voxel_size_angstrom: edge of a voxel, or None.
        record: how it was made, as a sidecar tells it; empty where nobody knows.
        of_network: whether a network made it.
    """

    name: str
    voxels: NDArray[Any]
    voxel_size_angstrom: float | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    of_network: bool = False

    def __str__(self) -> str:
        return self.name


Judged = Path | InHand


@dataclass(frozen=True)
class Named:
    """A volume with its name for messages: float32, shape ``(z, y, x)``; may be a read-only memory map.

    ``of_network`` is whether a network made it, as far as that is known.
    """

    name: str
    voxels: NDArray[Any]
    voxel_size_angstrom: float | None
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)
    of_network: bool = False


def record_of(given: Judged) -> dict[str, Any]:
    """How a volume was made; empty where nobody knows."""
    return dict(given.record) if isinstance(given, InHand) else read_record_beside(given)


def record_name(given: Judged) -> str:
    """What its record is called in messages."""
    return f"the record of {given}" if isinstance(given, InHand) else given.with_suffix(".json").name


def is_same(a: Judged, b: Judged) -> bool:
    """Whether two are one and the same, whatever their values."""
    if isinstance(a, InHand) or isinstance(b, InHand):
        both = isinstance(a, InHand) and isinstance(b, InHand)
        return both and (a.voxels is b.voxels or np.shares_memory(a.voxels, b.voxels))  # type: ignore[union-attr]
    return a.samefile(b)
