"""A block of a volume without the rest of it: the same voxels that a whole reconstruction has there.

Rows along y are independent up to a method's halo; along z and x they are not (SIRT iterates over whole rows, and what
the tilts measured is told apart in whole planes). So the rows of a block are made whole, and the block is cut out.
What a whole run finds in the whole series (grey values, contrast, how FBP is mixed in) is found once, and kept for
further blocks.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.errors import CryoLitheError, SettingsError
from cryolithe.reconstruction.images.preparation import check_images
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.jobs.job import Job, ResolvedJob, note_line, resolve
from cryolithe.reconstruction.setup.applying import make_method, network_rows_of, volume_scale
from cryolithe.reconstruction.setup.asked_optics import settled_optics
from cryolithe.reconstruction.setup.fitting import fit, image_workers_of
from cryolithe.reconstruction.setup.settling import settled
from cryolithe.reconstruction.setup.whitening import prepare_run
from cryolithe.reconstruction.slabwise.slabs import run_slabs
from cryolithe.reconstruction.slabwise.storing import scaled
from cryolithe.work.watcher import Watcher

Span = tuple[int, int]
_STRIDE = 8  # of the points of any network, or a multiple


@dataclass(frozen=True)
class Block:
    """A box of voxels: along each axis the first one and the one after the last."""

    z: Span
    y: Span
    x: Span

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels ``(z, y, x)``."""
        return self.z[1] - self.z[0], self.y[1] - self.y[0], self.x[1] - self.x[0]

    @property
    def start(self) -> tuple[int, int, int]:
        """Its first voxel ``(z, y, x)``."""
        return self.z[0], self.y[0], self.x[0]


def block_about(
    point_px: tuple[float, float, float], size_px: tuple[int, int, int], shape: tuple[int, int, int]
) -> Block:
    """The block of a size about a point, moved inside the volume where it would reach out of it.

    Args:
        point_px: ``(z, y, x)`` in voxels; may lie outside.
        size_px: voxels ``(z, y, x)`` wanted; no more than the volume has.
        shape: voxels ``(z, y, x)`` of the volume.

    Raises:
        SettingsError: if a size is not positive, or the point is not finite.
    """
    if min(size_px) < 1 or not np.isfinite(point_px).all():
        raise SettingsError(f"a block needs a point and a positive size (z, y, x), got {point_px} and {size_px}")
    spans: list[Span] = []
    for point, size, voxels in zip(point_px, size_px, shape, strict=True):
        kept = min(size, voxels)
        first = max(0, min(round(point - (kept - 1) / 2), voxels - kept))
        spans.append((first, first + kept))
    return Block(spans[0], spans[1], spans[2])


class BlockMaker:
    """A series whose images are prepared, for as many blocks as are wanted.

    Args:
        run: what a whole reconstruction would be.
        stack: its images.
        plan: what is known of the run so far: ``batch``, ``slab_rows``, and for networks ``polarity``, ``fusion``,
            ``wedge_trust``.
    """

    def __init__(self, run: ResolvedJob, stack: PreparedStack, plan: dict[str, Any]) -> None:
        self.run, self._stack, self._plan = run, stack, plan

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels ``(z, y, x)`` of the whole volume."""
        return self.run.grid.shape

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Edge of a voxel, or None where nobody knows it."""
        return self.run.voxel_size_angstrom

    def make(self, block: Block, watcher: Watcher) -> NDArray[np.float32]:
        """The voxels of a block, as a whole reconstruction has them before it is stored in another type.

        Args:
            block: inside the volume.
            watcher: told how far it is; what it raises ends the work.

        Raises:
            SettingsError: if the block does not lie inside the volume.
            ResourceError: if memory runs out.
            CryoLitheError: if values are not finite.
        """
        for span, voxels in zip((block.z, block.y, block.x), self.shape, strict=True):
            if not 0 <= span[0] < span[1] <= voxels:
                raise SettingsError(f"the block {block} does not lie inside the volume of {self.shape} voxels")
        run, stack, plan = self.run, self._stack, self._plan
        network = run.model is not None
        scale = volume_scale(run, plan, stack)
        first, stop = block.y
        plan = {**plan, "slab_rows": min(plan["slab_rows"], _height(stop - first))}
        method = make_method(run, stack, plan, watcher.advance, run.device)
        first -= first % method.row_multiple  # a network's blocks of voxels begin where those of the whole volume do
        watcher.stage(f"Reconstructing a block ({run.job.settings.method})", stop - first)

        def read(used: Any, start: int, end: int) -> torch.Tensor:
            whole = end - start + (start - end) % used.row_multiple
            rows = start - used.halo_px, start + whole + used.halo_px
            return network_rows_of(stack, scale, *rows) if network else stack.read_all_rows(rows[0], rows[1] - rows[0])

        slabs = [(y, min(y + plan["slab_rows"], stop)) for y in range(first, stop, plan["slab_rows"])]
        made = np.empty(block.shape, dtype=np.float32)
        for slab in run_slabs([method], slabs, read, watcher.note, threading.Event()):
            values = scaled(slab.values, scale).numpy()[slice(*block.z), :, slice(*block.x)]
            skipped = max(0, block.y[0] - slab.start)
            to = max(slab.start, block.y[0]) - block.y[0]
            made[:, to : slab.stop - block.y[0]] = values[:, skipped:]
            if run.job.settings.method == "fbp":
                watcher.advance(slab.stop - slab.start)
        if not np.isfinite(made).all():
            raise CryoLitheError("values of the block are not finite; look at the stack with: cryolithe info")
        return made


def _height(rows: int) -> int:
    """Rows of a slab that hold a block of so many wherever it begins, a multiple of all networks' strides."""
    return (rows + 2 * _STRIDE - 2) // _STRIDE * _STRIDE


def block_maker(job: Job, folder: Path, watcher: Watcher) -> BlockMaker:
    """Prepare a series for blocks: as a whole run does, but nothing is written except the prepared images.

    Args:
        job: files and settings; where its output would lie does not matter.
        folder: for the prepared images, as large as the stack in float32.
        watcher: told how far it is.

    Raises:
        CryoLitheError: for everything that the user can mend, as by a whole run.
        SettingsError: also for a volume that is turned about x, whose rows cannot be made one by one.
    """
    run = resolve(job)
    if run.x_tilt_deg:
        raise SettingsError(
            f"the alignment turns the volume by {run.x_tilt_deg:g}° about x, which needs all of its rows: reconstruct "
            "it whole, with cryolithe reconstruct"
        )
    # What is found in parts of a series is found in the same parts on one device and on several.
    run = replace(run, devices=run.devices[:1])
    workers = image_workers_of(run)
    watcher.stage("Checking images", 1)
    for note in (*run.series.notes, *check_images(run.series, run.preparation, str(job.tilts), workers)):
        watcher.note(note_line(job, note))
    run = settled_optics(run, watcher.note)
    watcher.stage("Preparing images", run.series.geometry.tilts)
    path = folder / f"{job.settings.method}.f32"
    stack = prepare_run(run, path, lambda: watcher.advance(1))
    fitting = fit(run)
    plan: dict[str, Any] = {"slab_rows": fitting.slab_rows, "batch": fitting.batch}
    return BlockMaker(run, stack, settled(run, stack, plan, watcher))
