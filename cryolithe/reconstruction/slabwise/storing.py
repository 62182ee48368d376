"""A finished slab on its way to the disk: written while its statistics and its checksum are computed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import torch
from numpy.typing import NDArray

from cryolithe.errors import OutputError
from cryolithe.formats import RunningStatistics, VolumeWriter
from cryolithe.formats.volumes.float16 import SMALLEST_NORMAL, rounded_away
from cryolithe.machine.device import precision_name
from cryolithe.reconstruction.slabwise.slab_folder import Slab
from cryolithe.reconstruction.slabwise.slabs import SlabResult
from cryolithe.work.folder import checksum

# Parts of a slab whose statistics are computed side by side; the same everywhere, so that sums have one order.
PARTS = 4
_WIDER = "give --dtype float32, or int8, which is scaled"


def scaled(values: torch.Tensor, scale: float) -> torch.Tensor:
    """Values times a scale, in place."""
    with torch.inference_mode():
        return values if scale == 1.0 else values.mul_(scale)


def all_finite(slab: NDArray[Any]) -> bool:
    """Whether no value is NaN or infinite: either shows in the extremes."""
    low, high = torch.aminmax(torch.from_numpy(slab))
    return bool(torch.isfinite(low) and torch.isfinite(high))


class Fineness:
    """Whether float16 holds what is made finely enough: known of small images at the first slab, of others at the end.

    Args:
        dtype: of the voxels as stored; nothing is looked at unless it is float16.
        done: slabs that an earlier run finished.
        sigma: deviation of the images.
    """

    def __init__(self, dtype: str, done: Sequence[Slab], sigma: float) -> None:
        self._coarse = dtype == "float16"
        self._made = RunningStatistics()
        # A slab without matter may be empty where others are not, unless the images, too, are as good as empty.
        self._decisive = not done and sigma < SMALLEST_NORMAL / 16
        for slab in done:
            self._made.merge(slab.voxels, slab.statistics)

    def add(self, values: NDArray[Any]) -> None:
        """Look at a slab that is not yet rounded.

        Raises:
            OutputError: if float16 loses the first one, of images that are as small.
        """
        if not self._coarse:
            return
        self._made.add(values)
        if self._decisive and (lost := rounded_away(self._made.result())):
            raise OutputError(f"--dtype float16 would lose this volume: {lost}; {_WIDER}")
        self._decisive = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user must know of all slabs."""
        lost = rounded_away(self._made.result()) if self._coarse else ""
        return (f"--dtype float16 lost much of this volume: {lost}; {_WIDER}",) if lost else ()


def store(writer: VolumeWriter, slab: NDArray[Any], made: SlabResult, beside: Executor) -> Slab:
    """Write a slab and wait until it is on the disk; what the journal notes of it is computed meanwhile.

    Args:
        writer: of the volume.
        slab: the voxels as stored, shape ``(z, rows, x)``.
        made: whence they come.
        beside: runs the computations.

    Raises:
        OutputError: if the disk is full or reports an error.
    """
    bounds = [len(slab) * part // PARTS for part in range(PARTS + 1)]
    crc = beside.submit(checksum, slab)
    parts = [beside.submit(_statistics, slab[a:b]) for a, b in itertools.pairwise(bounds)]
    writer.write_rows(made.start, slab)
    writer.sync()
    statistics = RunningStatistics()
    for part in parts:
        found = part.result()
        if found.count:
            statistics.merge(found.count, found.result())
    precision = None if made.precision is None else precision_name(made.precision)
    return Slab(made.start, made.stop, slab.size, statistics.result(), made.points, crc.result(), precision)


def _statistics(part: NDArray[Any]) -> RunningStatistics:
    found = RunningStatistics()
    found.add(part)
    return found
