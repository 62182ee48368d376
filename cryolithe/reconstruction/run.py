"""One reconstruction from files to files: slab by slab, with a journal that a later run can go on from."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.errors import CryoLitheError, OutputError
from cryolithe.formats import VolumeWriter, read_mrc
from cryolithe.inference.pooling import GpuPool
from cryolithe.machine.device import made_there_or_on_cpu, precision_name
from cryolithe.reconstruction.ensemble import check_confidence, make_maps, reserve_members
from cryolithe.reconstruction.estimate import estimate
from cryolithe.reconstruction.evidence.selfcheck import SelfCheck, self_check
from cryolithe.reconstruction.images.preparation import PREPARED_AS, check_images
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.jobs.job import (
    Finished,
    Job,
    ResolvedJob,
    already_done,
    check_files,
    note_line,
)
from cryolithe.reconstruction.jobs.made_before import FREE_SETTINGS
from cryolithe.reconstruction.jobs.remedies import checked
from cryolithe.reconstruction.jobs.sources import offers
from cryolithe.reconstruction.output.converting import new_volume
from cryolithe.reconstruction.output.outputs import (
    finish,
    finished_before,
    read_record,
    recover,
    reserve,
    working_dtype,
)
from cryolithe.reconstruction.output.preview import lacks_preview, write_preview
from cryolithe.reconstruction.output.sidecar import geometry_line
from cryolithe.reconstruction.setup.applying import make_method, network_rows_of, volume_scale
from cryolithe.reconstruction.setup.asked_optics import settled_optics
from cryolithe.reconstruction.setup.fitting import Fit, fit, fit_slabs, image_workers_of, memory_table, predicted
from cryolithe.reconstruction.setup.settling import settled
from cryolithe.reconstruction.setup.whitening import prepare_run
from cryolithe.reconstruction.slabwise.methods import NetworkMethod, SlabMethod
from cryolithe.reconstruction.slabwise.slab_folder import SlabFolder, SlabPlace
from cryolithe.reconstruction.slabwise.slabs import run_slabs
from cryolithe.reconstruction.slabwise.storing import PARTS, Fineness, all_finite, scaled, store
from cryolithe.work.label import file_label
from cryolithe.work.locking import check_folder
from cryolithe.work.watcher import WARNING, Listening, Watcher


def reconstruct(job: Job, watcher: Watcher) -> Finished:
    """Reconstruct one tilt series.

    A run that was killed, or that failed, goes on where it stopped when it is started again with the same input and
    settings, and gives the same bytes: once a slab is finished, nothing but success removes the working folder.

    Raises:
        CryoLitheError: for everything that the user can mend.
    """
    started = time.monotonic()
    watcher = Listening(watcher)
    if told := _left_to_draw(job):
        watcher.note(told)
        draw_missing_preview(job, watcher)
        return finished_before(job)
    run = checked(job)
    check_confidence(run)
    watcher.stage("Checking images", 1)
    notes = check_images(run.series, run.preparation, str(job.tilts), image_workers_of(run))
    run = replace(run, series=replace(run.series, notes=(*run.series.notes, *notes)))
    folder = SlabFolder(job.partial)
    try:
        if folder.note:
            watcher.note(folder.note)
        _still_free(run, folder)
        plan = _plan(run, folder, watcher)
        reserve(run, folder)
        reserve_members(run, folder)
        _tell(run, plan, watcher)
        run = _handed(run, watcher)
        stack = _prepared(run, folder, watcher)
        # All that follows is made of these images: a slab is finished only if they are those whose hashes are planned.
        run.files.refuse_changed()
        plan = settled(run, stack, plan, watcher, folder.settle)
        prepared = time.monotonic()
        plan = {**plan, **make_slabs(run, folder, plan, stack, watcher)}
        maps = make_maps(run, folder, plan, stack, watcher, make_slabs)
        run.files.refuse_changed()
        times = {"start": started, "prepared": prepared}
        check = partial(_self_checked, folder, stack, run)
        finished = finish(run, folder, plan, times, watcher, check, maps)
    except _KeptRunError:
        folder.release()
        raise
    except CryoLitheError as error:
        if not folder.slabs:
            folder.remove()
            raise
        folder.release()
        count = len(folder.slabs)
        kept = f"{count} finished slabs are kept" if count > 1 else "1 finished slab is kept"
        remedy = "repeat the command to go on, or give --overwrite with other options"
        raise type(error)(f"{error}; {kept} in {folder.path}: {remedy}") from error
    except BaseException:  # also Ctrl-C: what is done is kept for the next run
        folder.release()
        raise
    folder.remove()
    draw_missing_preview(job, watcher)
    return finished


def _tell(run: ResolvedJob, plan: dict[str, Any], watcher: Watcher) -> None:
    """What was found in the files, what is assumed, and what the run will take."""
    for note in run.series.notes:
        watcher.note(note_line(run.job, note))
    for offer in offers(run.files.named):
        watcher.note(offer)
    watcher.note(geometry_line(run))
    watcher.note(estimate(run, predicted(run, plan["batch"], plan["slab_rows"])))


def _left_to_draw(job: Job) -> str:
    """What is told of a volume that needs not be made, as the run before all but finished it; else an empty string."""
    if recover(job) and already_done(job):
        return "The run before had all but finished: its record is in its place now."
    if only_preview_is_missing(job):
        return "The volume is done already with these inputs and settings: only its preview is drawn."
    return ""


def only_preview_is_missing(job: Job) -> bool:
    """Whether a run has nothing left to do but to draw: the one before was interrupted there, or drew nothing."""
    return job.settings.preview and not job.settings.overwrite and lacks_preview(job) and already_done(job)


def draw_missing_preview(job: Job, watcher: Watcher) -> None:
    """Draw a finished volume, if that is asked for and was not done yet."""
    if job.settings.preview and lacks_preview(job):
        watcher.stage("Drawing the preview", 1)
        write_preview(job, read_record(job))


def _still_free(run: ResolvedJob, folder: SlabFolder) -> None:
    """Look at the output again under the lock: another run may have finished it in between."""
    try:
        check_files(run.job, run.files)
    except CryoLitheError as error:
        if folder.plan is None:
            raise
        raise _KeptRunError(str(error)) from error


def plan_run(run: ResolvedJob, started_seconds: float = 0.0) -> tuple[str, str]:
    """What a run will take: one line, and a table of memory; nothing is read but headers, nothing is written.

    Args:
        run: what is to be done.
        started_seconds: that the program took to start, which count, too.

    Raises:
        OutputError: if something is where the working folder would be.
        ResourceError: if memory does not suffice.
    """
    check_confidence(run)
    check_folder(run.job.partial)
    planned = fit(run)
    return estimate(run, planned, started_seconds), memory_table(run, planned)


def _plan(run: ResolvedJob, folder: SlabFolder, watcher: Watcher) -> dict[str, Any]:
    """The journal's first line: an earlier one if it is for the very same work, else a new one.

    Raises:
        OutputError: if an unfinished run with other inputs or settings is in the way.
    """
    settings = run.job.settings
    work = {
        "cryolithe": __version__,
        "preparation": PREPARED_AS,
        "settings": settings.model_dump(mode="json", exclude=FREE_SETTINGS),
        **{f"{name}_sha256": sha256 for name, sha256 in (run.files.hashes() | run.files.row_hashes()).items()},
        "model_sha256": run.model.sha256 if run.model else None,
        "device": run.device.type,
        "precision": precision_name(run.precision),
        "shape": list(run.grid.shape),
        **({} if run.job.part is None else {"part": run.job.part}),
    }
    if folder.plan is not None and folder.volume.is_file():
        changed = _first_difference(work, folder.plan.get("work", {}))
        if changed is None and not _usable(run, folder):
            watcher.note("The unfinished volume is damaged: it is made anew.")
        elif changed is None:
            if folder.keep_intact(run.grid.shape, working_dtype(settings)):
                watcher.note("Voxels of the unfinished run were changed since they were written: they are made anew.")
            plan = folder.plan
            if settings.max_memory is not None:
                # The run may have been killed because its slabs were too high.
                plan = {**plan, "slab_rows": min(plan["slab_rows"], fit_slabs(run, plan["batch"]).slab_rows)}
            watcher.note(f"Going on with an unfinished run: {len(folder.slabs)} slabs are done.")
            return plan
        elif not settings.overwrite:
            raise _KeptRunError(
                f"{folder.path} holds an unfinished run with another {changed}; repeat that run to finish it, "
                "give --overwrite to start anew, or choose another -o"
            )
    fitting = fit(run)
    plan = first_plan(run, fitting, work)
    folder.forget()
    new_volume(run, folder.volume, run.grid.shape, working_dtype(settings)).close()
    folder.begin(plan)
    return plan


def first_plan(run: ResolvedJob, fitting: Fit, work: dict[str, Any]) -> dict[str, Any]:
    """What decides the slabs of a new run.

    Args:
        run: what is to be done.
        fitting: what fits into memory.
        work: what decides the result.
    """
    what = f"model {run.model.name} {run.model.sha256[:12]}" if run.model else run.job.settings.method
    return {
        "work": work,
        "slab_rows": fitting.slab_rows,
        "batch": fitting.batch,
        "threads": torch.get_num_threads(),
        "label": file_label(what),
    }


def _usable(run: ResolvedJob, folder: SlabFolder) -> bool:
    """Whether the unfinished volume has the right length and header."""
    try:
        VolumeWriter.open(folder.volume, run.grid.shape, working_dtype(run.job.settings)).close()
    except OutputError:
        return False
    return True


class _KeptRunError(OutputError):
    """An unfinished run of other work is in the way; it must not be deleted."""


def _first_difference(wanted: dict[str, Any], found: dict[str, Any]) -> str | None:
    for key in {**wanted, **found}:  # an earlier run may have had files that this one has not
        if key == "settings":
            other = found.get("settings", {})
            for name, setting in wanted["settings"].items():
                if other.get(name) != setting:
                    return f"{name.replace('_', '-')} ({other.get(name)} instead of {setting})"
        elif found.get(key) != wanted.get(key):
            return key.replace("_sha256", " file").replace("_", " ")
    return None


def _handed(run: ResolvedJob, watcher: Watcher) -> ResolvedJob:
    """With the hand of the defocus gradient, and the defocus compared; a resumed run finds the same."""
    if run.corrections.hand is not None:
        watcher.stage("Looking at the defocus and its hand", 1)
    return settled_optics(run, watcher.note)


def _prepared(run: ResolvedJob, folder: SlabFolder, watcher: Watcher) -> PreparedStack:
    """Prepare the stack; it is made anew by a resumed run, which gives the same values."""
    watcher.stage("Preparing images", run.series.geometry.tilts)
    return prepare_run(run, folder.stack, lambda: watcher.advance(1))


def make_slabs(
    run: ResolvedJob,
    folder: SlabPlace,
    plan: dict[str, Any],
    stack: PreparedStack,
    watcher: Watcher,
    which: str = "",
) -> dict[str, Any]:
    """Reconstruct and write all slabs that the journal does not have yet.

    Args:
        run: what is to be done.
        folder: where slabs are kept.
        plan: the journal's first line.
        stack: the images.
        watcher: told how far it is.
        which: of several volumes that are made of one series; empty for its own.

    Returns:
        for the sidecar, what a network's rows were pooled by (`cryolithe.inference.pooling.pool_version`; None without
        any) and which slabs had to be made again.

    Raises:
        CryoLitheError: if a part of the result is not finite.
    """
    height = run.grid.shape[1]
    if folder.slabs:
        plan = {**plan, "batch": folder.slabs[-1].batch}
    what = f"{run.job.settings.method}, {which}" if which else run.job.settings.method
    watcher.stage(f"Reconstructing ({what})", height)
    watcher.advance(sum(slab.stop - slab.start for slab in folder.slabs))
    stopped = threading.Event()

    def on_rows(rows: float) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        watcher.advance(rows)

    methods = [make_method(run, stack, plan, on_rows, device) for device in run.devices]
    network = run.model is not None
    scale = volume_scale(run, plan, stack)

    def read(method: SlabMethod, start: int, stop: int) -> torch.Tensor:
        whole = stop - start + (start - stop) % method.row_multiple  # the last slab may end inside a block
        first, last = start - method.halo_px, start + whole + method.halo_px
        return network_rows_of(stack, scale, first, last) if network else stack.read_all_rows(first, last - first)

    missing = _missing_rows(folder, height, plan["slab_rows"])
    dtype = working_dtype(run.job.settings)
    fineness = Fineness("float32" if which else dtype, folder.slabs, stack.sigma)
    with (
        folder.writer(run.grid.shape, dtype, run.job.output) as writer,
        ThreadPoolExecutor(PARTS, "cryolithe-store") as beside,
    ):
        for made in run_slabs(methods, missing, read, watcher.note, stopped):
            values = scaled(made.values, scale).numpy()
            slab = writer.cast(values)
            if not all_finite(slab):
                remedy = "look at the stack with: cryolithe info"
                if made.precision not in (None, torch.float32):
                    remedy = f"try --precision fp32, and {remedy}"
                kept = "" if folder.slabs else ", nothing was kept"
                raise CryoLitheError(
                    f"rows {made.start} to {made.stop - 1} of the result are not finite{kept}; {remedy}"
                )
            fineness.add(values)
            folder.done(store(writer, slab, made, beside))
            if run.job.settings.method == "fbp":
                watcher.advance(made.stop - made.start)
            del made, slab, values  # before the next one is made
    for warning in fineness.warnings:
        watcher.note(f"{WARNING}{warning}")
    networks = [method for method in methods if isinstance(method, NetworkMethod)]
    for one in networks:
        if isinstance(one.engine.pool, GpuPool) and one.engine.pool.failure is not None:
            watcher.note(f"The kernel for GPUs did not run on {one.device}, which took time: {one.engine.pool.failure}")
    pooling = ", ".join(sorted({one.engine.pooling for one in networks})) if networks else None
    return {"pooling": pooling, "made_again": _made_again(run, folder)}


def _made_again(run: ResolvedJob, folder: SlabPlace) -> dict[str, Any] | None:
    """Rows of the slabs in which values left the range of the usual precision, and their precision."""
    usual = (None, precision_name(run.precision))
    others = [slab for slab in folder.slabs if slab.precision not in usual]
    if not others:
        return None
    return {"precision": others[0].precision, "rows": sorted([slab.start, slab.stop] for slab in others)}


def _self_checked(folder: SlabFolder, stack: PreparedStack, run: ResolvedJob) -> SelfCheck:
    """Compare the volume so far with its images."""
    return self_checked(read_mrc(folder.volume).data, stack, run)


def self_checked(volume: NDArray[Any], stack: PreparedStack, run: ResolvedJob) -> SelfCheck:
    """Compare a run's volume, shape ``(z, y, x)``, with its images on the device, or on the CPU if memory is short."""
    method = run.job.settings.method
    return made_there_or_on_cpu(
        run.device,
        lambda: self_check(volume, stack, run.device, method),
        lambda: self_check(volume, stack, torch.device("cpu"), method),
    )


def _missing_rows(folder: SlabPlace, height: int, slab: int) -> list[tuple[int, int]]:
    """Slabs, (first row, row after the last), of at most ``slab`` rows that the journal does not have yet."""
    ends = {done.start: done.stop for done in folder.slabs}
    missing, row = [], 0
    while row < height:
        if row in ends:
            row = ends[row]
            continue
        stop = min([row + slab, height, *(start for start in ends if start > row)])
        missing.append((row, stop))
        row = stop
    return missing
