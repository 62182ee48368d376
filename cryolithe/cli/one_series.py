"""One tilt series from the command line: its job, its plan, its run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.formats.alignments import format_of_table

if TYPE_CHECKING:
    from cryolithe.formats.reading import Reading
    from cryolithe.reconstruction.job import Job
    from cryolithe.session.tasks import After
    from cryolithe.settings import ReconstructSettings


def job_of(
    files: tuple[Path, Path | None], output: Path | None, settings: ReconstructSettings, reading: Reading
) -> Job:
    """The job of a stack and its angles (None: they stand elsewhere)."""
    from cryolithe.reconstruction.job import Job, default_output

    tilts, angles = files
    table = format_of_table(tilts)
    if table and table.files[0].option not in settings.alignment_files:  # it names the images and aligns them
        settings = settings.model_copy(update={table.files[0].option: str(tilts)})
    return Job(tilts, angles, output or default_output(tilts, settings.format), settings, reading=reading)


def reconstruct_one(job: Job, dry_run: bool, after: After | None) -> None:
    """Run one job, or say what it would take."""
    from cryolithe.reconstruction.job import already_done
    from cryolithe.reconstruction.remedies import checked
    from cryolithe.reconstruction.run import plan_run, reconstruct

    if dry_run:
        run = checked(job)
        for note in run.series.notes:
            say(f"Note on {job.tilts.name}: {note}", err=True)
        line, table = plan_run(run, age_seconds())
        say(f"{job.output}: {line}\n{table}")
        return
    with progress_watcher() as watcher:
        # A volume is not made again only because its denoising was interrupted.
        pending = after is not None and not after.is_done(job.output, job.settings.overwrite)
        if pending and not job.settings.overwrite and already_done(job):
            line = f"{job.output}: already done with these inputs and settings"
        else:
            line = str(reconstruct(job, watcher))
        if after is not None:
            line += "\n" + after(job.output, job.settings, watcher)
    say(line)


def age_seconds() -> float:
    """Time since this process was started; 0 where the clock was set back."""
    import time

    import psutil

    return max(0.0, time.time() - psutil.Process().create_time())
