"""The end of a run: the volume in the type, order and format asked for, its record, and both put in their places.

A crash at any moment leaves either no output, or an output whose record can be put beside it: what is about to happen
is written down (commit.json) before it happens, and everything is on the disk before it gets its final name.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from cryolithe.errors import OutputError
from cryolithe.formats import RunningStatistics, VolumeWriter, read_mrc
from cryolithe.formats.files import sync
from cryolithe.formats.record import read_record_beside
from cryolithe.formats.stacks.mrc_writer import reserve_room
from cryolithe.formats.volumes.ome_zarr import pyramid_bytes
from cryolithe.reconstruction.evidence.selfcheck import SelfCheck
from cryolithe.reconstruction.jobs.job import Finished, Job, ResolvedJob, map_file, map_paths
from cryolithe.reconstruction.jobs.made_before import is_record_of
from cryolithe.reconstruction.jobs.preview_mark import is_preview
from cryolithe.reconstruction.output.converting import FINISHED, RESERVED, TILTED, converted, new_volume
from cryolithe.reconstruction.output.map_files import MadeMaps, finish_maps
from cryolithe.reconstruction.output.sidecar import sidecar_record
from cryolithe.reconstruction.output.turned import tilt_volume
from cryolithe.reconstruction.setup.looking import planned_polarity
from cryolithe.reconstruction.slabwise.slab_folder import SlabFolder
from cryolithe.report.json_files import write_json
from cryolithe.settings import ReconstructSettings
from cryolithe.work.folder import delete
from cryolithe.work.locking import LOCK, OWNER
from cryolithe.work.watcher import WARNING, Listening

# What is replaced, until its successor is in its place.
_REPLACED, _REPLACED_RECORD = "replaced", "replaced.json"


def working_dtype(settings: ReconstructSettings) -> str:
    """Type of the voxels while the volume is made; int8 needs the whole volume's statistics first."""
    return "float32" if settings.dtype == "int8" else settings.dtype


def reserve(run: ResolvedJob, folder: SlabFolder) -> None:
    """Make sure that there is room for what is made of the volume when it is complete: not only after hours.

    Raises:
        OutputError: if there is not.
    """
    settings = run.job.settings
    if run.x_tilt_deg:
        new_volume(run, folder.path / TILTED, (run.depth, *run.grid.shape[1:]), working_dtype(settings)).close()
    if settings.format != "mrc":
        needed = pyramid_bytes(run.output_shape, np.dtype(settings.dtype).itemsize)
        reserve_room(folder.path / RESERVED, needed, run.job.output)
    elif settings.orientation != "xyz" or settings.dtype == "int8":
        new_volume(run, folder.path / FINISHED, run.output_shape, settings.dtype).close()


def finish(
    run: ResolvedJob,
    folder: SlabFolder,
    plan: dict[str, Any],
    times: dict[str, float],
    watcher: Listening,
    check: Callable[[], SelfCheck],
    maps: MadeMaps | None = None,
) -> Finished:
    """Write header and record, convert where asked to, and move the results to their places.

    Args:
        run: what was done.
        folder: holds the volume, all of its slabs done.
        plan: the journal's first line.
        times: ``start`` and ``prepared`` by the monotonic clock.
        watcher: told how far it is; what it heard of that is wrong goes into the record.
        check: compares the finished volume with its images; what it finds wrong is told.
        maps: of ``--confidence``, in the folder, too; None without any.

    Raises:
        OutputError: if something cannot be written or moved.
    """
    job = run.job
    merged = RunningStatistics()
    for slab in sorted(folder.slabs, key=lambda slab: slab.start):
        merged.merge(slab.voxels, slab.statistics)
    statistics = merged.result()
    polarity = planned_polarity(plan)
    labels = (*run.series.labels, polarity.label(plan["label"]) if polarity else plan["label"])
    with VolumeWriter.open(folder.volume, run.grid.shape, working_dtype(job.settings), target=job.output) as writer:
        writer.finish(statistics, labels, run.voxel_size_angstrom)
    watcher.stage("Comparing the volume with its images", 1)
    checked = check()
    for warning in checked.warnings:
        watcher.note(f"{WARNING}{warning}")
    upright = folder.volume
    if run.x_tilt_deg:
        watcher.stage("Turning the volume about x", run.grid.shape[1])
        upright = folder.path / TILTED
        with new_volume(run, upright, (run.depth, *run.grid.shape[1:]), working_dtype(job.settings)) as writer:
            statistics = tilt_volume(read_mrc(folder.volume).data, writer, run.x_tilt_deg, watcher.advance)
            writer.finish(statistics, labels, run.voxel_size_angstrom)
    finished = converted(run, upright, labels, statistics)
    if cut := finished.int8.note() if finished.int8 else "":
        watcher.note(cut)
    if maps is not None:
        plan = {**plan, "confidence": finish_maps(run, folder, maps, finished.deviation, watcher)}
    seconds = time.monotonic() - times["start"]
    record = sidecar_record(run, plan, finished.statistics)
    record["volume"].update(finished.int8.record if finished.int8 else {})
    record["self_check"] = checked.record()
    record["warnings"] = warnings = tuple(watcher.warnings)
    record["seconds"] = {"total": round(seconds, 2), "preparation": round(times["prepared"] - times["start"], 2)}
    write_json(folder.sidecar, record)
    _place(finished.path, folder, job)
    shape = (run.depth, *run.grid.shape[1:])
    words = polarity.words if polarity else ""
    return Finished(job.output, job.sidecar, shape, run.voxel_size_angstrom, seconds, warnings, words)


def _place(finished: Path, folder: SlabFolder, job: Job) -> None:
    """Move volume and record to their places, so that a crash at any moment can be mended by `recover`."""
    try:
        write_json(folder.commit, _identity(finished))
        sync(folder.path)
        # An old record must never lie beside a new volume, nor must the maps of an old one.
        if os.path.lexists(job.sidecar):
            drop_maps(job.output)
            job.sidecar.replace(folder.path / _REPLACED_RECORD)
        if job.output.is_dir() and not job.output.is_symlink():
            job.output.replace(folder.path / _REPLACED)
        sync(job.output.parent)
        try:
            finished.replace(job.output)
        except OSError:
            _put_back(folder, job)
            raise
        _place_beside(folder, job)
        sync(job.output.parent)
        folder.sidecar.replace(job.sidecar)
        sync(job.output.parent)
    except OSError as error:
        raise OutputError(f"cannot move the result to {job.output}: {error.strerror or error}") from error


def _place_beside(folder: SlabFolder, job: Job) -> None:
    """Move the maps that are still in the working folder; those of an earlier volume must not lie beside a new one.

    Nor must its preview: that of the new one is drawn when all is in its place, if it is asked for.
    """
    drop_preview(job.preview)
    for target in map_paths(job.output).values():
        if (made := folder.path / map_file(target)).exists():
            delete(target)
            made.replace(target)


def drop_maps(output: Path) -> None:
    """Delete the maps that belong to a volume which is replaced, as its record tells.

    Of an average of halves these are the map of their agreement, which has the name of one of ``--confidence``, and
    the drawing of their FSC.
    """
    confidence = read_record_beside(output).get("confidence")
    if not isinstance(confidence, dict):
        return
    agreement = output.with_name(f"{output.stem}_confidence.mrc")
    if "maps" in confidence:
        for path in map_paths(output).values():
            delete(path)
    elif confidence.get("path") == agreement.name:
        delete(agreement)
        delete(output.with_name(f"{output.stem}_fsc.png"))


def drop_preview(path: Path) -> None:
    """Delete the preview of a volume that is replaced; not the drawings of others."""
    if is_preview(path):
        delete(path)


def _put_back(folder: SlabFolder, job: Job) -> None:
    """Undo what `_place` did before a move that failed: the earlier volume and its record return."""
    for kept, place in ((_REPLACED, job.output), (_REPLACED_RECORD, job.sidecar)):
        if os.path.lexists(folder.path / kept) and not os.path.lexists(place):
            with suppress(OSError):
                (folder.path / kept).replace(place)


def _identity(path: Path) -> dict[str, int]:
    """What a file keeps when it is renamed; a folder's time may change with its parent's."""
    stat = path.stat()
    kept = {"inode": stat.st_ino}
    return kept if path.is_dir() else {**kept, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _remove_remains(partial: Path) -> None:
    """Remove what is left of a working folder whose removal was cut short at its very end; no run is at work in it."""
    if partial.is_dir() and {path.name for path in partial.iterdir()} <= {LOCK, OWNER}:
        with suppress(OutputError):  # another run begins
            SlabFolder(partial).remove()


def recover(job: Job) -> bool:
    """Complete a run that was cut off after its volume got its name; return whether there was one.

    Raises:
        OutputError: if another run is at work, or the record cannot be moved.
    """
    if not job.output.exists():
        return False
    if not (job.partial / "commit.json").is_file():
        _remove_remains(job.partial)
        return False
    folder = SlabFolder(job.partial)
    try:
        committed = json.loads(folder.commit.read_text(encoding="utf-8"))
        if committed != _identity(job.output):
            folder.release()
            return False
        _place_beside(folder, job)
        if folder.sidecar.is_file():
            folder.sidecar.replace(job.sidecar)
            sync(job.output.parent)
    except (OSError, ValueError, RecursionError) as error:
        folder.release()
        raise OutputError(f"cannot complete {job.sidecar}: {error}; see {folder.path}") from error
    folder.remove()
    return is_record_of(job.sidecar, job.output)


def finished_before(job: Job) -> Finished:
    """What the run made that wrote the record beside the output."""
    record = read_record(job)
    volume, polarity = record["volume"], planned_polarity(record)
    shape = tuple(volume["shape_zyx"])
    return Finished(
        job.output, job.sidecar, (shape[0], shape[1], shape[2]), volume["voxel_size_angstrom"],
        record["seconds"]["total"], tuple(record.get("warnings", ())), polarity.words if polarity else "",
    )  # fmt: skip


def read_record(job: Job) -> dict[str, Any]:
    """The content of a job's sidecar.

    Raises:
        OutputError: if there is none, or it is not JSON.
    """
    try:
        content = json.loads(job.sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"the record {job.sidecar} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}
