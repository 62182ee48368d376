"""``cryolithe reconstruct``: tilt series in, tomograms out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import SettingsError
from cryolithe.settings import ReconstructSettings, read_settings_file, resolve_settings

if TYPE_CHECKING:
    from cryolithe.reconstruct.job import Job
    from cryolithe.reconstruct.polarity import Evidence
    from cryolithe.session.tasks import After

_SESSION_FLAGS = ("watch", "settle_seconds", "idle_minutes", "scheduler", "workers")
_METAVARS = {
    "pixel_size": "Å",
    "max_memory": "GB",
    "tilt_axis": "DEG",
    "model": "NAME|PATH",
    "thickness": "N",
    "bin": "N",
    "defocus": "µm",
    "specimen_thickness": "NM",
}
_METAVARS |= dict.fromkeys(("xf", "newst_com", "tilt_com", "aln", "star", "warp", "dose"), "FILE")


def _settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one flag for each setting; a flag that is not given is None, so that files can speak."""
    for name, field in reversed(ReconstructSettings.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        text = field.description or ""
        annotation = field.annotation
        if field.default is not None and not isinstance(field.default, bool):
            text += f"  [default: {field.default}]"
        if annotation is bool:
            declaration = click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
        elif get_origin(annotation) is Literal:
            declaration = click.option(flag, name, type=click.Choice(get_args(annotation)), default=None, help=text)
        else:
            kind: Any = next(t for t in (get_args(annotation) or (annotation,)) if t is not type(None))
            if get_origin(kind) is Literal:
                kind = click.Choice(get_args(kind))
            declaration = click.option(flag, name, type=kind, default=None, metavar=_METAVARS.get(name), help=text)
        command = declaration(command)
    return command


@click.command("reconstruct")
@click.argument("tilts", type=click.Path(path_type=Path), required=False)
@click.argument("angles", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Volume, or folder. Default: TILTS_rec.mrc.")
@click.option(
    "--list", "series_list", type=click.Path(path_type=Path), metavar="CSV", help="The same as CSV instead of TILTS."
)
@click.option(
    "--even", type=click.Path(path_type=Path), metavar="STACK", help="With --odd, instead of TILTS: halves, see above."
)
@click.option("--odd", type=click.Path(path_type=Path), metavar="STACK", help="The other half of the frames.")
@click.option("--dry-run", is_flag=True, help="Print the plan (slabs, memory, files, time) and do nothing.")
@click.option("--watch", is_flag=True, help="Follow a running acquisition: take series when their files are complete.")
@click.option(
    "--settle",
    "settle_seconds",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: for how long the files of a series must not have changed.",
)
@click.option(
    "--idle",
    "idle_minutes",
    type=click.FloatRange(min=0),
    metavar="MINUTES",
    help="With --watch: end when nothing came for so long.",
)
@click.option(
    "--scheduler", metavar="local|slurm|tcp://HOST:PORT", help="Spread series over a Dask cluster (cryolithe[dask])."
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Workers to start, with local or slurm.")
@click.option("--config", type=click.Path(path_type=Path), metavar="YAML", help="Settings; flags win over them.")
@click.option(
    "--denoise", type=click.Choice(["samba"]), help="Denoise the volume too, into OUTPUT_samba.mrc beside it."
)
@click.option(
    "--denoise-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Limit of the denoiser's training. Default: 30 on a CPU; on a GPU until nothing improves.",
)
@_settings_options
def command(
    tilts: Path | None,
    angles: Path | None,
    output: Path | None,
    series_list: Path | None,
    dry_run: bool,
    config: Path | None,
    **flags: Any,
) -> None:
    """Reconstruct the stack TILTS with the tilt angles in ANGLES, or a whole session.

    TILTS is an MRC stack (.mrc, .st, .ali) whose tilt axis runs along y (or at --tilt-axis); ANGLES is a .tlt, .rawtlt,
    .mdoc or other text file with one angle in degrees per line, in the order of the images.

    A raw stack is aligned in memory by the files of the program that aligned it: --newst-com and --tilt-com, or --xf
    (IMOD), --aln (AreTomo), --star (RELION-5), --warp. Most of them bring the angles: ANGLES then only checks them and
    the order of the images. Images that they exclude are left out.

    Halves of the frames: --even A --odd B [ANGLES] makes a volume of each (_EVN, _ODD), their average, its FSC, and a
    map of how well the halves agree locally (_confidence).

    The volume is written as MRC, axes (z, y, x), beside a JSON file that records how it was made. Dense matter keeps
    the polarity of the input. A run that was interrupted goes on where it stopped when the same command is repeated.

    Many series: instead of TILTS and ANGLES give a folder (stacks and angle files of the same name, in it or one level
    below), RELION-5's tilt_series.star with its alignments, or a CSV list with the columns tilts, angles (or aln, star,
    ...) and, as you like, output and any setting of this command (thickness, pixel_size, ...); -o is then a folder for
    all results. What is already done with the same inputs and settings is skipped. A series that fails does not stop
    the others; the exit code is then 1. cryolithe_summary.csv and .html tell what became of each, with central slices.

    \b
    Examples
      cryolithe reconstruct ts_01.mrc ts_01.tlt --thickness 400 --bin 2
      cryolithe reconstruct ts_01.mrc ts_01.tlt --method fbp --filter hamming -o ts_01_fbp.mrc
      cryolithe reconstruct ts_01.st --newst-com newst.com --tilt-com tilt.com
      cryolithe reconstruct ts_01.mrc --aln ts_01.aln --thickness 400 --bin 4
      cryolithe reconstruct tilt_series/ts_01.star --pixel-size 2.7     RELION-5, images as single files
      cryolithe reconstruct --even ts_01_EVN.mrc --odd ts_01_ODD.mrc --aln ts_01.aln
      cryolithe reconstruct ts_01.mrc ts_01.tlt --method fbp --denoise samba     keeps both volumes
      cryolithe reconstruct session_folder --config settings.yaml -o tomograms
      cryolithe reconstruct session.csv --scheduler tcp://head:8786
      cryolithe reconstruct session_folder --watch --idle 30
    """
    from cryolithe.cli.session import Given, SessionOptions, run_session
    from cryolithe.device import keep_freed_memory
    from cryolithe.session.tasks import Session, is_session

    keep_freed_memory()
    file = read_settings_file(config) if config else {}
    options = SessionOptions(dry_run, **{name: flags.pop(name) for name in _SESSION_FLAGS})
    after = _denoising(flags.pop("denoise"), flags.pop("denoise_minutes"))
    halves = _halves(flags.pop("even"), flags.pop("odd"))
    if series_list and (tilts or halves):
        raise SettingsError("--list names the stacks itself; leave out TILTS, ANGLES and halves")
    source = series_list or (None if halves else tilts)
    if source is not None and angles is None and (series_list or is_session(source)):
        run_session(Session(source, output, after), Given(flags, file, str(config)), options)
        return
    if options.watch or options.scheduler:
        raise SettingsError("--watch and --scheduler are for a folder or list of series; give one instead of TILTS")
    settings = resolve_settings(flags, {}, file, "", str(config))
    if halves is not None:
        if after is not None:
            raise SettingsError("--denoise takes one volume: run cryolithe denoise on the average of the halves")
        _reconstruct_pair(halves, (tilts, angles), output, settings, dry_run)
        return
    if tilts is None:
        raise SettingsError("give TILTS and ANGLES, or a folder or list; see: cryolithe reconstruct --help")
    _reconstruct(_job(tilts, angles, output, settings), dry_run, after)


def _denoising(method: str | None, minutes: float | None) -> After | None:
    """What --denoise asks for after a reconstruction."""
    from cryolithe.cli.denoise import Denoising

    if method is None and minutes is not None:
        raise SettingsError("--denoise-minutes goes with --denoise samba")
    return Denoising(minutes) if method else None


def _halves(even: Path | None, odd: Path | None) -> tuple[Path, Path] | None:
    if even is None and odd is None:
        return None
    if even is None or odd is None:
        raise SettingsError(f"--{'odd' if even is None else 'even'} needs --{'even' if even is None else 'odd'} too")
    return even, odd


def _job(tilts: Path, angles: Path | None, output: Path | None, settings: ReconstructSettings) -> Job:
    from cryolithe.reconstruct.job import Job, default_output

    if tilts.suffix.lower() == ".star" and settings.star is None:  # of one series: it names the images and aligns them
        settings = settings.model_copy(update={"star": str(tilts)})
    return Job(tilts, angles, output or default_output(tilts, settings.format), settings)


def _reconstruct_pair(
    halves: tuple[Path, Path],
    arguments: tuple[Path | None, Path | None],
    output: Path | None,
    settings: ReconstructSettings,
    dry_run: bool,
) -> None:
    """Reconstruct two halves; the only argument beside them is ANGLES."""
    import torch

    from cryolithe.cli import halves as pair
    from cryolithe.reconstruct.job import already_done, resolve
    from cryolithe.reconstruct.looking import evidence_of_parts
    from cryolithe.reconstruct.plan import memory_budget_bytes
    from cryolithe.reconstruct.preparation import check_images

    angles, more = arguments
    if more is not None:
        raise SettingsError("--even and --odd stand for TILTS: give ANGLES alone beside them")
    if dry_run:
        for stack, name in zip(halves, ("EVN", "ODD"), strict=True):
            volume = output or pair.default_output(stack)
            _reconstruct(_job(stack, angles, volume.with_name(f"{volume.stem}_{name}.mrc"), settings), True, None)
        return
    runs = [resolve(_job(stack, angles, None, settings)) for stack in halves]
    for run in runs:  # both are looked at before the first is worked on for long
        check_images(run.series, run.preparation.fix_nonfinite, str(run.job.tilts))
    evidence: Evidence | None = None

    def one(stack: Path, volume: Path) -> str:
        nonlocal evidence
        from cryolithe.session.batch import run_task
        from cryolithe.session.tasks import Task

        # A half that is done already is not made again when the command is repeated.
        with progress_watcher() as watcher:
            job = _job(stack, angles, volume, settings)
            if settings.method == "network" and volume.parent.is_dir() and not already_done(job):
                # Halves are noisier than the series, and must not differ in what they are taken for.
                evidence = evidence or evidence_of_parts(runs, volume.parent)
                job = replace(job, evidence=evidence)
            return run_task(Task(volume.stem, job), watcher, (Exception,)).message

    def job_of(stack: Path, volume: Path) -> Job:
        return _job(stack, angles, volume, settings)

    memory = memory_budget_bytes(settings.max_memory, torch.device("cpu"))
    pair.reconstruct_halves(halves, output, settings.overwrite, one, job_of, memory)


def _reconstruct(job: Job, dry_run: bool, after: After | None) -> None:
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
