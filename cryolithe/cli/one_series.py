"""One tilt series from the command line: its job, its plan, its run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher

if TYPE_CHECKING:
    from cryolithe.formats.reading import Reading
    from cryolithe.reconstruction.jobs.job import Job
    from cryolithe.session.tasks import After
    from cryolithe.settings import ReconstructSettings


_DONE = "already done with these inputs and settings"
# What a map of --confidence tells, with its mean.
_MAPS = {
    "confidence": "expected correlation with the truth, {:.2f}",
    "error": "expected error, {:.2f} deviations of the volume",
    "unsupported": "share that the images do not hold, {:.0%}",
}


def job_of(
    files: tuple[Path, Path | None], output: Path | None, settings: ReconstructSettings, reading: Reading
) -> Job:
    """The job of a stack and its angles (None: they stand elsewhere)."""
    from cryolithe.reconstruction.jobs import job

    return job.job_of(files, output or job.default_output(files[0], settings.format), settings, reading)


def reconstruct_one(job: Job, dry_run: bool, after: After | None) -> None:
    """Run one job, or say what it would take."""
    from cryolithe.formats.record import read_record_beside
    from cryolithe.reconstruction.jobs.job import already_done, note_line
    from cryolithe.reconstruction.jobs.remedies import checked
    from cryolithe.reconstruction.run import draw_missing_preview, only_preview_is_missing, plan_run, reconstruct

    # A volume is not made again only because its denoising was interrupted.
    pending = after is not None and not after.is_done(job.output, job.settings.overwrite)
    if dry_run and only_preview_is_missing(job) and not pending:
        say(f"{job.output}: {_DONE}; only its preview would be drawn")
        return
    if dry_run:
        run = checked(job)
        for note in run.series.notes:
            say(note_line(job, note), err=True)
        line, table = plan_run(run, age_seconds())
        say(f"{job.output}: {line}\n{table}")
        return
    with progress_watcher() as watcher:
        if pending and not job.settings.overwrite and already_done(job):
            draw_missing_preview(job, watcher)
            line = f"{job.output}: {_DONE}"
        else:
            line = str(reconstruct(job, watcher))
        maps = read_record_beside(job.output).get("confidence", {}).get("maps") if job.settings.confidence else None
        if maps:
            line += f"\n{_maps_line(maps)}"
        if after is not None:
            line += "\n" + after(job.output, job.settings, watcher)
    say(line)


def _maps_line(maps: Mapping[str, Mapping[str, Any]]) -> str:
    """The files of the maps, what each tells, and its mean.

    Args:
        maps: by kind, as the record of the volume has them.
    """
    told = (f"{entry['path']} ({_MAPS[kind].format(entry['mean'])})" for kind, entry in maps.items())
    return f"Maps of its trustworthiness, by voxel, and their means: {'; '.join(told)}"


def age_seconds() -> float:
    """Time since this process was started; 0 where the clock was set back."""
    import time

    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())
