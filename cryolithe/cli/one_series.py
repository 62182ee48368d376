"""One tilt series from the command line: its job, its plan, its run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher

if TYPE_CHECKING:
    from cryolithe.reconstruct.job import Job
    from cryolithe.session.tasks import After
    from cryolithe.settings import ReconstructSettings


def job_of(tilts: Path, angles: Path | None, output: Path | None, settings: ReconstructSettings) -> Job:
    """The job of a stack."""
    from cryolithe.reconstruct.job import Job, default_output

    if tilts.suffix.lower() == ".star" and settings.star is None:  # of one series: it names the images and aligns them
        settings = settings.model_copy(update={"star": str(tilts)})
    return Job(tilts, angles, output or default_output(tilts, settings.format), settings)


def reconstruct_one(job: Job, dry_run: bool, after: After | None) -> None:
    """Run one job, or say what it would take."""
    from cryolithe.reconstruct.job import already_done
    from cryolithe.reconstruct.remedies import checked
    from cryolithe.reconstruct.run import plan_run, reconstruct

    if dry_run:
        run = checked(job)
        for note in run.series.notes:
            say(f"Note on {job.tilts.name}: {note}", err=True)
        line, table = plan_run(run)
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
