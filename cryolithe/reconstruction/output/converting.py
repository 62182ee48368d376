"""A finished volume in the type, order and format that are asked for, section by section."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cryolithe.formats import RunningStatistics, VolumeStatistics, VolumeWriter, read_mrc
from cryolithe.formats.stacks.mrc_writer import NoRoomError
from cryolithe.formats.volumes.int8 import Int8Values, int8_scale
from cryolithe.formats.volumes.ome_zarr import Version, write_ome_zarr
from cryolithe.formats.volumes.pages import release_pages
from cryolithe.reconstruction.jobs.job import ResolvedJob

_BLOCK_VOXELS = 16_000_000
# A volume on its way to the output, in the working folder.
TILTED, FINISHED = "tilted.mrc", "finished.mrc"
# Room for a Zarr folder, given back when that is written.
RESERVED = "reserved"


@dataclass(frozen=True)
class Wanted:
    """A file to hand out.

    Attributes:
        target: its name in the end.
        dtype: of its voxels.
        path: where it is made, if it differs from what it is made of.
        values: what is stored of some voxels; None where these are stored as they are.
    """

    target: Path
    dtype: str
    path: Path
    values: Callable[[NDArray[Any]], NDArray[Any]] | None = None


@dataclass(frozen=True)
class Converted:
    """A volume as it is handed out.

    Attributes:
        path: where it lies.
        statistics: of its values as stored.
        int8: of 8-bit values, if they are.
    """

    path: Path
    statistics: VolumeStatistics
    int8: Int8Values | None = None

    @property
    def deviation(self) -> float:
        """Standard deviation of the densities that the file tells."""
        return self.statistics.rms * (self.int8.scale.step if self.int8 else 1.0)


def new_volume(run: ResolvedJob, path: Path, shape: tuple[int, int, int], dtype: str) -> VolumeWriter:
    """A file for voxels of a run, in its working folder."""
    try:
        return VolumeWriter.create(path, shape, run.voxel_size_angstrom, dtype, target=run.job.output)
    except NoRoomError as error:
        if run.job.settings.dtype != "float32":
            raise
        raise NoRoomError(f"{error}, or write less (--dtype float16)") from error


def converted(run: ResolvedJob, upright: Path, labels: tuple[str, ...], statistics: VolumeStatistics) -> Converted:
    """The file to hand out of a run's volume.

    Args:
        run: what was done.
        upright: the volume, axes ``(z, y, x)``.
        labels: of its header.
        statistics: of its voxels.

    Raises:
        OutputError: if it cannot be written.
    """
    settings = run.job.settings
    int8 = Int8Values(int8_scale(statistics)) if settings.dtype == "int8" else None
    labels = (*labels, int8.scale.label) if int8 else labels
    path = upright.with_name(FINISHED if settings.format == "mrc" else "finished.zarr")
    wanted = Wanted(run.job.output, settings.dtype, path, int8)
    return Converted(*turned(run, upright, wanted, labels, statistics), int8)


def turned(
    run: ResolvedJob, upright: Path, wanted: Wanted, labels: tuple[str, ...], statistics: VolumeStatistics
) -> tuple[Path, VolumeStatistics]:
    """A volume in the order, format and type that are wanted, and its statistics; the same file if it is so already.

    Args:
        run: what was done.
        upright: the volume, axes ``(z, y, x)``.
        wanted: what is made of it.
        labels: of its header.
        statistics: of its voxels.

    Returns:
        where it lies, and the statistics of its values as stored.

    Raises:
        OutputError: if it cannot be written.
    """
    settings = run.job.settings
    values = wanted.values or (lambda block: block)
    source = read_mrc(upright).data
    if settings.format != "mrc":
        upright.with_name(RESERVED).unlink(missing_ok=True)
        version: Version = "0.5" if settings.format == "ome-zarr-0.5" else "0.4"
        stored = write_ome_zarr(wanted.path, source, run.voxel_size_angstrom, wanted.target.stem, values, version)
        return wanted.path, stored
    if settings.orientation == "xyz" and wanted.values is None:
        return upright, statistics
    # What IMOD's tilt writes: sections along y; rows against z, so that turning it by trimvol -rx is no mirror.
    seen = source[::-1].transpose(1, 0, 2) if settings.orientation == "xzy" else source
    running = RunningStatistics()
    with new_volume(run, wanted.path, run.output_shape, wanted.dtype) as writer:
        sections = max(1, _BLOCK_VOXELS // (seen.shape[1] * seen.shape[2]))
        for first in range(0, seen.shape[0], sections):
            block = values(seen[first : first + sections])
            running.add(block)
            writer.write_sections(first, block)
            release_pages(source)
        writer.finish(running.result(), labels, run.voxel_size_angstrom)
    return wanted.path, running.result()
