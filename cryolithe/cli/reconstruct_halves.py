"""``cryolithe reconstruct --even --odd``: two halves, what they make together, and what is learned from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cryolithe.cli import halves as pair
from cryolithe.cli.denoising import HalvesDenoising
from cryolithe.cli.one_series import job_of, reconstruct_one
from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import SettingsError

if TYPE_CHECKING:
    from cryolithe.formats.reading import Reading
    from cryolithe.reconstruction.evidence.polarity import Evidence
    from cryolithe.reconstruction.jobs.job import Job
    from cryolithe.settings import ReconstructSettings


@dataclass(frozen=True)
class Halves:
    """What a user gave.

    Attributes:
        stacks: of even and of odd frames.
        tilts: stack of all frames, or None: the average of the halves stands for it.
        angles: of all of them, or None.
        denoiser: that learns from the halves, or None.
        minutes: limit of its training, or None.
        reading: what is parsed already.
    """

    stacks: tuple[Path, Path]
    tilts: Path | None
    angles: Path | None
    denoiser: str | None
    minutes: float | None
    reading: Reading


def reconstruct_pair(given: Halves, output: Path | None, settings: ReconstructSettings, dry_run: bool) -> None:
    """Reconstruct two halves, and the whole or their average; denoise that by them if it is asked for.

    Raises:
        CryoLitheError: for everything that the user can mend.
    """
    from cryolithe.reconstruction.jobs.job import default_output, unused_images

    if settings.format != "mrc":
        raise SettingsError(
            f"--format {settings.format} is for one stack: the volumes of halves, and their average, are written as "
            "MRC only; leave --format out"
        )
    if output is None:
        named = default_output(given.tilts, settings.format) if given.tilts else pair.default_output(given.stacks[0])
        output = named
    volumes = pair.volumes_beside(output)
    after = None
    if given.denoiser is not None:
        after = HalvesDenoising(given.denoiser, given.minutes, volumes, output, settings)
        after.check()
    if dry_run:
        for stack, volume in zip(given.stacks, volumes, strict=True):
            reconstruct_one(job_of((stack, given.angles), volume, settings, given.reading), True, None)
        if given.tilts is not None:
            reconstruct_one(job_of((given.tilts, given.angles), output, settings, given.reading), True, None)
        else:
            pair.check_average(output, settings.overwrite)
            if settings.method == "network":
                job = job_of((given.stacks[0], given.angles), output, settings, given.reading)
                reconstruct_one(replace(job, odd=given.stacks[1]), True, None)
        job = job_of((given.stacks[0], given.angles), output, settings, given.reading)
        pair.check_stacks(given.stacks, given.tilts, settings.pixel_size, unused_images(job))
        if after is not None:
            say(after.plan())
        return
    _reconstruct(given, output, settings)
    if after is not None:
        with progress_watcher() as watcher:
            line = after.run(watcher)
        say(line)


def _reconstruct(given: Halves, output: Path, settings: ReconstructSettings) -> None:
    """The volumes of the halves, and that of the whole or their average."""
    import torch

    from cryolithe.reconstruction.images.preparation import check_images, is_divided
    from cryolithe.reconstruction.jobs.job import already_done, resolve, unused_images
    from cryolithe.reconstruction.setup.asked_optics import optics_of_parts, settled_optics
    from cryolithe.reconstruction.setup.looking import evidence_of_parts
    from cryolithe.reconstruction.slabwise.plan import memory_budget_bytes
    from cryolithe.session.batch import run_task
    from cryolithe.session.tasks import Task

    runs = [resolve(job_of((stack, given.angles), None, settings, given.reading)) for stack in given.stacks]
    for run in runs:  # both are looked at before the first is worked on for long
        check_images(run.series, run.preparation, str(run.job.tilts))
    pair.check_stacks(given.stacks, given.tilts, settings.pixel_size, unused_images(runs[0].job))
    if runs[0].preparation.relative:
        job = job_of((given.tilts or given.stacks[0], given.angles), output, settings, given.reading)
        whole_run = resolve(job if given.tilts else replace(job, odd=given.stacks[1]))
        if len({is_divided(run.series, run.preparation) for run in (*runs, whole_run)}) > 1:  # at the limit
            say("Brightness: the halves and their whole do not all look like counts: the images stay as they are.")
            settings = settings.model_copy(update={"brightness": "keep"})
            runs = [replace(run, preparation=replace(run.preparation, relative=False)) for run in runs]
    evidence: Evidence | None = None
    optics = optics_of_parts(runs)
    runs = [settled_optics(replace(run, job=replace(run.job, optics=optics))) for run in runs]

    def of(stack: Path, volume: Path) -> Job:
        return replace(job_of((stack, given.angles), volume, settings, given.reading), optics=optics)

    def made(job: Job) -> str:
        nonlocal evidence
        # A volume that is done already is not made again when the command is repeated.
        with progress_watcher() as watcher:
            if settings.method == "network" and job.output.parent.is_dir() and not already_done(job):
                # Halves are noisier than the series, and must not differ in what they are taken for.
                evidence = evidence or evidence_of_parts(runs, job.output.parent)
                job = replace(job, evidence=evidence)
            return run_task(Task(job.output.stem, job), watcher, (Exception,)).message

    if given.tilts is not None:
        for stack, volume in zip(given.stacks, pair.volumes_beside(output), strict=True):
            say(made(of(stack, volume)))
        say(made(of(given.tilts, output)))
        return
    memory = memory_budget_bytes(settings.max_memory, torch.device("cpu"))
    even, odd = given.stacks
    whole = replace(of(even, output), odd=odd) if settings.method == "network" else None
    pair.reconstruct_halves(given.stacks, output, settings.overwrite, made, of, whole, memory)
