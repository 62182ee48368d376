"""The working folder of a volume that is made slab by slab.

stack.f32       the prepared tilt images
volume.mrc      the volume so far
finished.*      the volume in the type, order or format asked for, where that differs
sidecar.json    its record, when it is finished
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cryolithe.formats import VolumeStatistics, VolumeWriter
from cryolithe.formats.stacks.mrc_header import HEADER_BYTES
from cryolithe.work.folder import WorkFolder
from cryolithe.work.locking import no_link


@dataclass(frozen=True)
class Slab:
    """A finished slab: its rows, statistics and checksum of its voxels as stored, what it was made with.

    Attributes:
        batch: points at a time; 1 for methods without.
        precision: of a network's layers, as a user types it; None for other methods.
    """

    start: int
    stop: int
    voxels: int
    statistics: VolumeStatistics
    batch: int
    crc32: int
    precision: str | None = None


class SlabPlace(Protocol):
    """Where slabs are kept: a working folder, or memory."""

    @property
    def slabs(self) -> list[Slab]:
        """Finished slabs in the order in which they were made."""
        ...

    def done(self, entry: Slab) -> None:
        """Note a slab that is written."""
        ...

    def writer(self, shape: tuple[int, int, int], dtype: str, target: Path) -> VolumeWriter:
        """Of the volume so far: its voxels ``(z, y, x)``, their type, the name to be shown in messages."""
        ...


def _slab(statistics: dict[str, Any], **rest: Any) -> Slab:
    return Slab(statistics=VolumeStatistics(**statistics), **rest)


class SlabFolder(WorkFolder[Slab]):
    """The working folder of one volume, see `WorkFolder`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _slab)

    @property
    def slabs(self) -> list[Slab]:
        """Finished slabs in the order in which they were made."""
        return self.entries

    def writer(self, shape: tuple[int, int, int], dtype: str, target: Path) -> VolumeWriter:
        """Of the volume so far, see `SlabPlace`."""
        return VolumeWriter.open(self.volume, shape, dtype, target=target)

    @property
    def stack(self) -> Path:
        """File of the prepared images."""
        return self.path / "stack.f32"

    @property
    def volume(self) -> Path:
        """File of the volume so far."""
        return self.path / "volume.mrc"

    @property
    def sidecar(self) -> Path:
        """File of the finished volume's record."""
        return self.path / "sidecar.json"

    def keep_intact(self, shape: tuple[int, int, int], dtype: str) -> bool:
        """Drop finished slabs whose voxels are not those that were written; return whether any was dropped.

        Args:
            shape: voxels ``(z, y, x)`` of the volume so far.
            dtype: of its voxels.
        """
        try:
            descriptor = no_link(self.volume, os.O_RDONLY)
        except OSError:
            return self.keep(lambda slab: False)
        width = shape[2] * np.dtype(dtype).itemsize
        try:
            return self.keep(lambda slab: _stored_checksum(descriptor, (*shape[:2], width), slab) == slab.crc32)
        finally:
            os.close(descriptor)


def _stored_checksum(descriptor: int, shape: tuple[int, int, int], slab: Slab) -> int:
    """CRC-32 of a slab in an open volume of ``(sections, rows, bytes of a row)``."""
    sections, rows, row_bytes = shape
    found, length = 0, (slab.stop - slab.start) * row_bytes
    for section in range(sections):
        place = HEADER_BYTES + (section * rows + slab.start) * row_bytes
        found = zlib.crc32(os.pread(descriptor, length, place), found)
    return found
