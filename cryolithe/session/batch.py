"""A session's tasks: looked at first, what is done skipped, and whatever goes wrong with one is its outcome alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cryolithe.errors import CryoLitheError, InputError, OutputError
from cryolithe.formats.files import nearest_folder
from cryolithe.formats.sizes import size_told
from cryolithe.reconstruction.estimate import output_bytes
from cryolithe.reconstruction.jobs.job import Job, already_done, resolve
from cryolithe.reconstruction.jobs.remedies import checked
from cryolithe.reconstruction.output.outputs import read_record, recover
from cryolithe.reconstruction.output.preview import lacks_preview, write_preview
from cryolithe.reconstruction.run import plan_run, reconstruct
from cryolithe.session.tasks import Task
from cryolithe.work.locking import HeldError
from cryolithe.work.watcher import Watcher

Status = Literal["done", "skipped", "failed", "to do"]


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        task: what was to be done.
        status: done now, skipped because it was done before, failed, or still to do, as when another run is at it.
        message: one line.
        record: the sidecar's content; empty where there is no volume.
    """

    task: Task
    status: Status
    message: str
    record: dict[str, Any]


@dataclass(frozen=True)
class Prospect:
    """What a task would come to.

    Attributes:
        task: the task.
        status: "to do", "skipped" or "failed".
        message: one line.
        output_bytes: that it would write.
        notes: on how its files are taken, as the command for one series tells them.
    """

    task: Task
    status: Status
    message: str
    output_bytes: int = 0
    notes: tuple[str, ...] = ()


def look_at(task: Task) -> Prospect:
    """What a task would come to; reads headers and hashes, writes nothing."""
    try:
        if task.problem:
            raise InputError(task.problem)
        pending = task.after is not None and not task.after.is_done(task.job.output, task.job.settings.overwrite)
        if not task.job.settings.overwrite and not pending and already_done(task.job):
            return Prospect(task, "skipped", f"{task.job.output}: already done with these inputs and settings")
        undone = not (pending and already_done(task.job))
        run = checked(task.job, task.folder) if undone else resolve(task.job)
        return Prospect(task, "to do", f"{task.job.output}: {plan_run(run)[0]}", output_bytes(run), run.series.notes)
    except Exception as error:
        return Prospect(task, "failed", f"{task.job.tilts}: would fail: {one_line(error)}")


def plan_line(prospects: list[Prospect]) -> tuple[str, str]:
    """What a session would come to, and a warning where the disk is too small for it (else an empty string)."""
    counts = {status: sum(p.status == status for p in prospects) for status in ("to do", "skipped", "failed")}
    needed: dict[Path, int] = {}
    for prospect in prospects:
        folder = nearest_folder(prospect.task.job.output.parent)
        if prospect.output_bytes:
            needed[folder] = needed.get(folder, 0) + prospect.output_bytes
    line = (
        f"{len(prospects)} series: {counts['to do']} to do ({size_told(sum(needed.values()))} of output), "
        f"{counts['skipped']} already done, {counts['failed']} that would fail"
    )
    disks: dict[int, list[Path]] = {}
    for folder in needed:
        disks.setdefault(folder.stat().st_dev, []).append(folder)
    for folders in disks.values():
        wanted, free = sum(needed[folder] for folder in folders), shutil.disk_usage(folders[0]).free
        if wanted > free:
            return line, f"{size_told(wanted)} of output are planned, {size_told(free)} are free in {folders[0]}"
    return line, ""


def skipped(prospect: Prospect, watcher: Watcher) -> Outcome:
    """The outcome of a task that was done before; a preview that is of another volume, or missing, is drawn anew."""
    record = read_record(prospect.task.job)
    if lacks_preview(prospect.task.job):
        _preview(prospect.task, record, watcher)
    return Outcome(prospect.task, "skipped", prospect.message, record)


def run_task(task: Task, watcher: Watcher, raises: tuple[type[Exception], ...] = ()) -> Outcome:
    """Reconstruct one series unless that is done already; whatever goes wrong is its outcome.

    Args:
        task: the series.
        watcher: told how far it is.
        raises: errors that are raised nevertheless, for a caller who tries again.
    """
    job = task.job
    try:
        if task.problem:
            raise InputError(task.problem)
        recover(job)
        status, message = _volume(job, watcher)
        if task.after is not None:
            message += "\n" + task.after(job.output, job.settings, watcher)
        record = read_record(job)
        if lacks_preview(job):
            _preview(task, record, watcher)
        return Outcome(task, status, message, record)
    except raises:
        raise
    except HeldError as error:
        return Outcome(task, "to do", f"{job.output}: left to a run that is at it: {one_line(error)}", {})
    except Exception as error:
        return Outcome(task, "failed", f"{job.tilts}: failed: {one_line(error)}", {})


def _volume(job: Job, watcher: Watcher) -> tuple[Status, str]:
    """Make a volume unless it is done already, perhaps by another run since this one looked."""
    before: Status = "skipped"
    told = f"{job.output}: already done with these inputs and settings"
    if not job.settings.overwrite and already_done(job):
        return before, told
    try:
        return "done", str(reconstruct(job, watcher))
    except HeldError:
        raise
    except OutputError:
        if job.settings.overwrite or not already_done(job):
            raise
        return before, told


def _preview(task: Task, record: dict[str, Any], watcher: Watcher) -> None:
    """Draw the volume; a drawing that fails does not cost the volume."""
    try:
        write_preview(task.job, record, title=task.name)
    except (CryoLitheError, OSError) as error:
        watcher.note(f"Warning: no preview of {task.name}: {error}")


def one_line(error: BaseException) -> str:
    """The text of an error in one line; that of an error which no user made names its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, CryoLitheError) else f"{type(error).__name__}: {text}"
