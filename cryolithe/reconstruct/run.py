"""One reconstruction from files to files: checked input, slabs, journal, volume, sidecar."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from cryolithe import __version__
from cryolithe.device import choose_device, choose_precision, precision_name
from cryolithe.errors import CryoLitheError, OutputError, ResourceError
from cryolithe.formats import RunningStatistics, VolumeStatistics, VolumeWriter, read_tilt_series
from cryolithe.geometry import VolumeGrid
from cryolithe.network.checkpoint import Model, load_model
from cryolithe.projector import make_projector
from cryolithe.projector.torch_engine import CACHE_ENTRIES, ENTRIES_PER_CHUNK
from cryolithe.reconstruct.journal import Slab, WorkFolder
from cryolithe.reconstruct.methods import ROW_POINTS_PER_BATCH, FbpMethod, NetworkMethod, SirtMethod, SlabMethod
from cryolithe.reconstruct.plan import Demand, memory_budget_bytes, slab_rows
from cryolithe.reconstruct.preparation import Preparation, PreparedStack, check_images, prepare_stack
from cryolithe.report import write_json
from cryolithe.settings import ReconstructSettings
from cryolithe.tilts import TiltSeries

# Values this many standard deviations out (hot pixels, gold) are clipped in what the network sees.
CLIP_SIGMAS = 12.0
FEWEST_ROW_POINTS = 64


class Watcher(Protocol):
    """Who is told how far a run is."""

    def stage(self, name: str, total: float) -> None:
        """A stage of ``total`` units begins."""
        ...

    def advance(self, amount: float) -> None:
        """Units of the stage are done."""
        ...

    def note(self, text: str) -> None:
        """Something that the user should know."""
        ...


@dataclass(frozen=True)
class Job:
    """Files and settings of one reconstruction.

    Attributes:
        tilts: the stack.
        angles: the angle file.
        output: the volume to write; its sidecar has the ending .json.
        settings: everything else.
    """

    tilts: Path
    angles: Path
    output: Path
    settings: ReconstructSettings

    @property
    def sidecar(self) -> Path:
        """The JSON file that tells how the volume was made."""
        return self.output.with_suffix(".json")


@dataclass(frozen=True)
class Finished:
    """What a run made.

    Attributes:
        output: the volume.
        sidecar: its record.
        shape: voxels ``(z, y, x)``.
        voxel_size_angstrom: edge of a voxel, or None.
        seconds: time from start to end.
    """

    output: Path
    sidecar: Path
    shape: tuple[int, int, int]
    voxel_size_angstrom: float | None
    seconds: float


@dataclass(frozen=True)
class _Run:
    """Everything about a run that is known before its first slab."""

    job: Job
    series: TiltSeries
    grid: VolumeGrid
    preparation: Preparation
    model: Model | None
    device: torch.device
    precision: torch.dtype

    @property
    def voxel_size_angstrom(self) -> float | None:
        size = self.series.pixel_size_angstrom
        return None if size is None else size * self.preparation.bin

    @property
    def dense_sign(self) -> float:
        """Networks are trained with dense = positive."""
        return -1.0 if self.job.settings.contrast == "dark" else 1.0


def default_output(tilts: Path) -> Path:
    """``<base>_rec.mrc`` beside the stack."""
    name = tilts.name
    for ending in (".gz", ".bz2"):
        name = name.removesuffix(ending)
    return tilts.with_name(Path(name).stem + "_rec.mrc")


def default_thickness(width_px: int) -> int:
    """Voxels along z where the user says nothing: half the image width, rounded up to even."""
    return max(2, 2 * math.ceil(width_px / 4))


def reconstruct(job: Job, watcher: Watcher) -> Finished:
    """Reconstruct one tilt series.

    A run that was killed goes on where it stopped when it is started again with the same input and settings, and
    gives the same bytes. On any error that the user can mend the working folder is removed.

    Raises:
        CryoLitheError: for everything that the user can mend; nothing is left behind.
    """
    started = time.monotonic()
    _check_output(job)
    run = _resolve(job)
    watcher.stage("Checking images", 1)
    check_images(run.series, run.preparation.fix_nonfinite)
    folder = WorkFolder(job.output.with_name(job.output.name + ".partial"))
    try:
        plan = _plan(run, folder, watcher)
        stack = _prepared(run, folder, watcher)
        prepared = time.monotonic()
        _make_slabs(run, folder, plan, stack, watcher)
        finished = _finish(run, folder, plan, {"start": started, "prepared": prepared})
    except _KeptRunError:
        folder.release()
        raise
    except CryoLitheError:
        folder.remove()
        raise
    except BaseException:  # also Ctrl-C: what is done is kept for the next run
        folder.release()
        raise
    folder.remove()
    return finished


def _check_output(job: Job) -> None:
    """Refuse an output that cannot or must not be written, before any work is done."""
    folder = job.output.parent
    if not folder.is_dir():
        raise OutputError(f"the output folder {folder} does not exist; make it first or choose another -o")
    if job.output.is_dir():
        raise OutputError(f"{job.output} is a folder; give the name of a file with -o")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"the output folder {folder} is not writable; choose another -o")
    if job.output.suffix == ".json":
        raise OutputError(f"{job.output} would be overwritten by its own sidecar; give a name ending in .mrc with -o")
    for path in (job.output, job.sidecar):
        if path.exists() and not job.settings.overwrite:
            raise OutputError(f"{path} exists; give --overwrite to replace it or another name with -o")
        if path.exists() and any(path.samefile(used) for used in (job.tilts, job.angles) if used.exists()):
            raise OutputError(f"{path} is an input of this run; choose another -o")


def _resolve(job: Job) -> _Run:
    """Read what is small, check what can be checked, choose what was left open."""
    settings = job.settings
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    model = load_model(settings.model) if settings.method == "network" else None
    series = read_tilt_series(job.tilts, job.angles, settings.pixel_size)
    preparation = Preparation(settings.tilt_axis, settings.bin, settings.fix_nonfinite)
    height, width = preparation.image_shape(series.geometry.image_shape)
    grid = VolumeGrid((settings.thickness or default_thickness(width), height, width))
    return _Run(job, series, grid, preparation, model, device, precision)


def _plan(run: _Run, folder: WorkFolder, watcher: Watcher) -> dict[str, Any]:
    """The journal's first line: an earlier one if it is for the very same work, else a new one.

    Raises:
        OutputError: if an unfinished run with other inputs or settings is in the way.
    """
    settings = run.job.settings
    work = {
        "cryolithe": __version__,
        "tilts_sha256": file_sha256(run.job.tilts),
        "angles_sha256": file_sha256(run.job.angles),
        "model_sha256": run.model.sha256 if run.model else None,
        "settings": settings.model_dump(mode="json", exclude={"overwrite", "max_memory"}),
        "device": str(run.device),
        "precision": precision_name(run.precision),
        "shape": list(run.grid.shape),
    }
    if folder.plan is not None and folder.volume.is_file():
        changed = _first_difference(work, folder.plan.get("work", {}))
        if changed is None:
            watcher.note(f"Going on with an unfinished run: {len(folder.slabs)} slabs are done.")
            return folder.plan
        if not settings.overwrite:
            raise _KeptRunError(
                f"{folder.path} holds an unfinished run with another {changed}; repeat that run to finish it, "
                "give --overwrite to start anew, or choose another -o"
            )
    budget = memory_budget_bytes(settings.max_memory, run.device)
    plan = {
        "work": work,
        "slab_rows": slab_rows(_demand(run), run.series.geometry, run.grid, budget),
        "batch": ROW_POINTS_PER_BATCH,
        "threads": torch.get_num_threads(),
        "label": _label(run),
    }
    with VolumeWriter.create(
        folder.volume, run.grid.shape, run.voxel_size_angstrom, settings.dtype, target=run.job.output
    ):
        pass
    folder.begin(plan)
    return plan


class _KeptRunError(OutputError):
    """An unfinished run of other work is in the way; it must not be deleted."""


def _first_difference(wanted: dict[str, Any], found: dict[str, Any]) -> str | None:
    for key, value in wanted.items():
        if key == "settings":
            other = found.get("settings", {})
            for name, setting in value.items():
                if other.get(name) != setting:
                    return f"{name.replace('_', '-')} ({other.get(name)} instead of {setting})"
        elif found.get(key) != value:
            return key.replace("_sha256", " file").replace("_", " ")
    return None


def _demand(run: _Run) -> Demand:
    """Memory that the chosen method needs, by counting its arrays; benchmarks/memory.py measures it."""
    depth, _, width = run.grid.shape
    tilts = run.series.geometry.tilts
    if run.job.settings.method == "network":
        assert run.model is not None
        config = run.model.network.config
        halo = (config.rows - 1) // 2 + config.head.stride * config.head.margin
        samples = 40 * ROW_POINTS_PER_BATCH * tilts * (config.input.samples + 128)
        points = 8 * tilts * depth * width // config.head.stride**2
        return Demand(samples + points, 5.0, 6.0, halo, config.head.stride)
    entries = 3 * tilts * depth * width  # of the projection of one slice
    directions = 2 if run.job.settings.method == "sirt" else 1
    indices = directions * 12 * min(entries, CACHE_ENTRIES) + 60 * ENTRIES_PER_CHUNK
    return Demand(indices, 5.0 if run.job.settings.method == "sirt" else 2.5, 4.0)


def _label(run: _Run) -> str:
    """The MRC label: program, method or model, date (of SOURCE_DATE_EPOCH where that is set)."""
    stamp = float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    date = datetime.fromtimestamp(stamp, tz=timezone.utc).date().isoformat()
    what = f"model {run.model.name} {run.model.sha256[:12]}" if run.model else run.job.settings.method
    return f"CryoLithe {__version__} {what} {date}"


def _prepared(run: _Run, folder: WorkFolder, watcher: Watcher) -> PreparedStack:
    """Prepare the stack; it is made anew by a resumed run, which gives the same values."""
    watcher.stage("Preparing images", run.series.geometry.tilts)
    return prepare_stack(run.series, run.preparation, folder.stack, lambda: watcher.advance(1))


def _make_method(run: _Run, stack: PreparedStack, batch: int, watcher: Watcher, rows: int) -> SlabMethod:
    settings = run.job.settings
    slice_shape = (run.grid.shape[0], run.grid.shape[2])
    if settings.method == "network":
        assert run.model is not None
        network = copy.deepcopy(run.model.network).to(run.device, run.precision)
        return NetworkMethod(
            network, stack.geometry, run.grid, batch, on_points=lambda share: watcher.advance(share * rows)
        )
    projector = make_projector(stack.geometry, slice_shape, run.device, settings.projector)
    if settings.method == "fbp":
        return FbpMethod(projector, settings.filter)
    return SirtMethod(projector, settings.iterations, lambda: watcher.advance(rows / settings.iterations))


def _make_slabs(run: _Run, folder: WorkFolder, plan: dict[str, Any], stack: PreparedStack, watcher: Watcher) -> None:
    """Reconstruct and write all slabs that the journal does not have yet."""
    height = run.grid.shape[1]
    starts = range(0, height, plan["slab_rows"])
    done = {slab.start for slab in folder.slabs}
    batch = folder.slabs[-1].batch if folder.slabs else plan["batch"]
    watcher.stage(f"Reconstructing ({run.job.settings.method})", height)
    watcher.advance(sum(slab.stop - slab.start for slab in folder.slabs))
    method = _make_method(run, stack, batch, watcher, plan["slab_rows"])
    network = isinstance(method, NetworkMethod)
    scale = run.dense_sign * stack.sigma if network else 1.0
    with VolumeWriter.open(folder.volume, run.grid.shape, run.job.settings.dtype, target=run.job.output) as writer:
        for start in starts:
            if start in done:
                continue
            stop = min(start + plan["slab_rows"], height)
            rows = stack.read_rows(start - method.halo_px, stop - start + 2 * method.halo_px)
            if network:
                rows = (rows * (1 / scale)).clamp_(-CLIP_SIGMAS, CLIP_SIGMAS)
            values = _with_smaller_batches(method, rows, watcher)
            slab = writer.cast((values.float() * scale).cpu().numpy())
            if not np.isfinite(slab).all():
                raise CryoLitheError(
                    f"rows {start} to {stop - 1} of the result are not finite; nothing was kept. "
                    "Try --precision fp32, and look at the stack with: cryolithe info"
                )
            writer.write_rows(start, slab)
            writer.sync()
            statistics = RunningStatistics()
            statistics.add(slab)
            batch = method.row_points if isinstance(method, NetworkMethod) else batch
            folder.done(Slab(start, stop, slab.size, statistics.result(), batch))
            if run.job.settings.method == "fbp":
                watcher.advance(stop - start)


def _with_smaller_batches(method: SlabMethod, rows: torch.Tensor, watcher: Watcher) -> torch.Tensor:
    """Run a method; when memory runs out, halve a network's batch and try again.

    Raises:
        ResourceError: if memory runs out with the smallest batch, or with a method that has none.
    """
    while True:
        try:
            return method(rows)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if not isinstance(method, NetworkMethod) or method.row_points // 2 < FEWEST_ROW_POINTS:
                raise ResourceError(
                    "memory ran out during the reconstruction; lower --max-memory so that slabs become smaller, "
                    "use --bin, or close other programs"
                ) from error
            method.row_points //= 2
            watcher.note(f"Memory ran out: going on with batches of {method.row_points} row-points.")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text


def _finish(run: _Run, folder: WorkFolder, plan: dict[str, Any], times: dict[str, float]) -> Finished:
    """Write the header, move volume and sidecar to their places."""
    job = run.job
    merged = RunningStatistics()
    for slab in sorted(folder.slabs, key=lambda slab: slab.start):
        merged.merge(slab.voxels, slab.statistics)
    statistics = merged.result()
    with VolumeWriter.open(folder.volume, run.grid.shape, job.settings.dtype, target=job.output) as writer:
        writer.finish(statistics, plan["label"], run.voxel_size_angstrom)
    seconds = time.monotonic() - times["start"]
    record = _record(run, plan, statistics)
    record["seconds"] = {"total": round(seconds, 2), "preparation": round(times["prepared"] - times["start"], 2)}
    temporary = folder.path / "sidecar.json"
    write_json(temporary, record)
    try:
        folder.volume.replace(job.output)
        temporary.replace(job.sidecar)
    except OSError as error:
        raise OutputError(f"cannot move the result to {job.output}: {error.strerror or error}") from error
    return Finished(job.output, job.sidecar, run.grid.shape, run.voxel_size_angstrom, seconds)


def _record(run: _Run, plan: dict[str, Any], statistics: VolumeStatistics) -> dict[str, Any]:
    """The sidecar: enough to know what was made of what, and to make it again."""
    settings = run.job.settings
    return {
        "program": {
            "name": "CryoLithe",
            "version": __version__,
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "inputs": {
            "tilts": {"path": str(run.job.tilts), "sha256": plan["work"]["tilts_sha256"]},
            "angles": {"path": str(run.job.angles), "sha256": plan["work"]["angles_sha256"]},
        },
        "volume": {
            "path": run.job.output.name,
            "shape_zyx": run.grid.shape,
            "voxel_size_angstrom": run.voxel_size_angstrom,
            "dtype": settings.dtype,
            "contrast": settings.contrast,
            "statistics": asdict(statistics),
        },
        "geometry": {
            "axis_order": "zyx",
            "tilt_axis": "y",
            "projection": "u = (x - cx) cos(tilt) + (z - cz) sin(tilt) + cu",
            "centre": "(N - 1) / 2",
            "tilt_angles_deg": run.series.geometry.angles_deg,
            "stack_shape": run.series.images.shape,
            "stack_pixel_size_angstrom": run.series.pixel_size_angstrom,
        },
        "method": {
            "name": settings.method,
            "model": {"name": run.model.name, "sha256": run.model.sha256, "card": run.model.card}
            if run.model
            else None,
        },
        "settings": settings.model_dump(mode="json"),
        "compute": {
            "device": str(run.device),
            "precision": precision_name(run.precision),
            "slab_rows": plan["slab_rows"],
            "threads": plan["threads"],
        },
    }


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
