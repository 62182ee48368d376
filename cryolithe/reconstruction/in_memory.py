"""One reconstruction of images in hand, or of files, into memory: the slabs of `run`, no file written."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.errors import ResourceError
from cryolithe.formats import RunningStatistics, VolumeStatistics, VolumeWriter
from cryolithe.formats.volumes.int8 import Int8Values, int8_scale
from cryolithe.reconstruction.images.preparation import check_images
from cryolithe.reconstruction.jobs.job import ResolvedJob
from cryolithe.reconstruction.jobs.sources import offers
from cryolithe.reconstruction.output.outputs import working_dtype
from cryolithe.reconstruction.output.sidecar import geometry_line, sidecar_record
from cryolithe.reconstruction.output.turned import tilt_volume
from cryolithe.reconstruction.run import (
    first_plan,
    make_slabs,
    self_checked,
)
from cryolithe.reconstruction.setup.asked_optics import settled_optics
from cryolithe.reconstruction.setup.fitting import fit, image_workers_of
from cryolithe.reconstruction.setup.looking import planned_polarity
from cryolithe.reconstruction.setup.settling import settled
from cryolithe.reconstruction.setup.whitening import prepare_run
from cryolithe.reconstruction.slabwise.plan import free_bytes
from cryolithe.reconstruction.slabwise.slab_folder import Slab
from cryolithe.work.watcher import WARNING, Listening, Watcher

_FLOAT = 4


@dataclass(frozen=True)
class Made:
    """A volume and how it was made.

    Attributes:
        voxels: shape ``(z, y, x)``, of the type that was asked for.
        voxel_size_angstrom: edge of a voxel, or None.
        labels: for the header of a file.
        record: as in the sidecar of `run`, but for the name of the volume.
        warnings: what is wrong with it.
    """

    voxels: NDArray[Any]
    voxel_size_angstrom: float | None
    labels: tuple[str, ...]
    record: dict[str, Any]
    warnings: tuple[str, ...]


class HeldWriter(VolumeWriter):
    """Writes into an array, in the type of a file, and refuses what a file could not hold."""

    def __init__(self, shape: tuple[int, int, int], dtype: str) -> None:
        super().__init__(Path("the volume"), -1, shape, np.dtype(dtype))
        self.voxels: NDArray[Any] = np.empty(shape, self.dtype)

    def write_rows(self, y0: int, slab: NDArray[Any]) -> None:
        """Keep rows, see `VolumeWriter`."""
        self.voxels[:, y0 : y0 + slab.shape[1]] = self.cast(slab)

    def sync(self) -> None:
        """Nothing."""


class HeldSlabs:
    """Stands for the working folder of a run."""

    def __init__(self, shape: tuple[int, int, int], dtype: str) -> None:
        self.slabs: list[Slab] = []
        self._writer = HeldWriter(shape, dtype)

    @property
    def voxels(self) -> NDArray[Any]:
        """The volume so far."""
        return self._writer.voxels

    def done(self, entry: Slab) -> None:
        """Note a slab."""
        self.slabs.append(entry)

    def writer(self, shape: tuple[int, int, int], dtype: str, target: Path) -> VolumeWriter:
        """Of the volume so far."""
        return self._writer


def reconstruct_in_memory(run: ResolvedJob, watcher: Watcher) -> Made:
    """Reconstruct one tilt series: the same voxels as `run.reconstruct` writes of the same images and settings.

    Args:
        run: what is to be done; the name of its output is not used.
        watcher: told how far it is, what is assumed, and what is wrong (``Warning: ...``).

    Raises:
        CryoLitheError: for everything that the user can mend.
    """
    started = time.monotonic()
    watcher = Listening(watcher)
    _check_room(run)
    watcher.stage("Checking images", 1)
    notes = check_images(run.series, run.preparation, str(run.job.tilts), image_workers_of(run))
    run = replace(run, series=replace(run.series, notes=(*run.series.notes, *notes)))
    work = {f"{name}_sha256": sha256 for name, sha256 in (run.files.hashes() | run.files.row_hashes()).items()}
    plan = first_plan(run, fit(run), work)
    for text in (*run.series.notes, *offers(run.files.named), geometry_line(run)):
        watcher.note(text)
    run = settled_optics(run, watcher.note)
    watcher.stage("Preparing images", run.series.geometry.tilts)
    stack = prepare_run(run, None, lambda: watcher.advance(1))
    held = HeldSlabs(run.grid.shape, working_dtype(run.job.settings))
    plan = settled(run, stack, plan, watcher)
    prepared = time.monotonic()
    plan = {**plan, **make_slabs(run, held, plan, stack, watcher)}
    watcher.stage("Comparing the volume with its images", 1)
    checked = self_checked(held.voxels, stack, run)
    for warning in checked.warnings:
        watcher.note(f"{WARNING}{warning}")
    polarity = planned_polarity(plan)
    labels = (*run.series.labels, polarity.label(plan["label"]) if polarity else plan["label"])
    voxels, statistics = _upright(run, held, watcher)
    scaling: dict[str, Any] = {}
    if run.job.settings.dtype == "int8":
        int8 = Int8Values(int8_scale(statistics))
        voxels, labels = int8(voxels), (*labels, int8.scale.label)
        scaling = int8.record
        if cut := int8.note():
            watcher.note(cut)
        statistics = _statistics(voxels)
    warnings = tuple(watcher.warnings)
    record = sidecar_record(run, plan, statistics)
    record["volume"].update(scaling)
    record["self_check"], record["warnings"] = checked.record(), warnings
    seconds = {"total": time.monotonic() - started, "preparation": prepared - started}
    record["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
    return Made(voxels, run.voxel_size_angstrom, labels, record, warnings)


def _upright(run: ResolvedJob, held: HeldSlabs, watcher: Watcher) -> tuple[NDArray[Any], VolumeStatistics]:
    """The wanted volume, turned about x where the alignment says so, and its statistics."""
    if run.x_tilt_deg:
        watcher.stage("Turning the volume about x", run.grid.shape[1])
        writer = HeldWriter((run.depth, *run.grid.shape[1:]), working_dtype(run.job.settings))
        statistics = tilt_volume(held.voxels, writer, run.x_tilt_deg, watcher.advance)
        return writer.voxels, statistics
    merged = RunningStatistics()
    for slab in sorted(held.slabs, key=lambda slab: slab.start):
        merged.merge(slab.voxels, slab.statistics)
    return held.voxels, merged.result()


def _statistics(voxels: NDArray[Any]) -> VolumeStatistics:
    running = RunningStatistics()
    running.add(voxels)
    return running.result()


def _check_room(run: ResolvedJob) -> None:
    """Raise ResourceError where stack and volume themselves do not fit into memory."""
    height, width = run.grid.shape[1:]
    needed = _FLOAT * (math.prod(run.grid.shape) + run.series.geometry.tilts * height * width)
    free = free_bytes(torch.device("cpu"))
    if needed > free:
        raise ResourceError(
            f"the volume and its prepared images need {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free; "
            "use the command cryolithe reconstruct, which keeps them on the disk, or a larger bin"
        )
