"""``cryolithe reconstruct``: tilt series in, tomograms out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import SettingsError
from cryolithe.settings import ReconstructSettings, read_settings_file, resolve_settings

if TYPE_CHECKING:
    from cryolithe.reconstruct.job import Job

_SESSION_FLAGS = ("watch", "settle_seconds", "idle_minutes", "scheduler", "workers")
_METAVARS = {"pixel_size": "Å", "max_memory": "GB", "tilt_axis": "DEG", "model": "NAME|PATH", "thickness": "N"}


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
            kind = next(t for t in (get_args(annotation) or (annotation,)) if t is not type(None))
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
    """Reconstruct the aligned stack TILTS with the tilt angles in ANGLES, or a whole session.

    TILTS is an MRC stack (.mrc, .st, .ali) whose tilt axis runs along y (or at --tilt-axis); ANGLES is a .tlt, .rawtlt
    or other text file with one angle in degrees per line, in the order of the images.

    The volume is written as MRC, axes (z, y, x), beside a JSON file that records how it was made. Dense matter keeps
    the polarity of the input. A run that was interrupted goes on where it stopped when the same command is repeated.

    Many series: instead of TILTS and ANGLES give a folder (stacks and angle files of the same name, in it or one level
    below), RELION-5's tilt_series.star, or a CSV list with the columns tilts, angles and, as you like, output and any
    setting of this command (thickness, pixel_size, ...); -o is then a folder for all results. What is already done
    with the same inputs and settings is skipped. A series that fails does not stop the others; the exit code is
    then 1. cryolithe_summary.csv and .html tell what became of each, with central slices.

    \b
    Examples
      cryolithe reconstruct ts_01.mrc ts_01.tlt --thickness 400 --bin 2
      cryolithe reconstruct ts_01.mrc ts_01.tlt --method fbp --filter hamming -o ts_01_fbp.mrc
      cryolithe reconstruct session_folder --config settings.yaml -o tomograms
      cryolithe reconstruct session.csv --scheduler tcp://head:8786
      cryolithe reconstruct session_folder --watch --idle 30
    """
    from cryolithe.cli.session import Given, SessionOptions, run_session
    from cryolithe.device import keep_freed_memory
    from cryolithe.reconstruct.job import Job, default_output
    from cryolithe.reconstruct.run import reconstruct
    from cryolithe.session.tasks import Session, is_session

    keep_freed_memory()
    file = read_settings_file(config) if config else {}
    if series_list and tilts:
        raise SettingsError("--list names the stacks itself; leave out TILTS and ANGLES")
    options = SessionOptions(dry_run, **{name: flags.pop(name) for name in _SESSION_FLAGS})
    source = series_list or tilts
    if source is not None and angles is None and (series_list or is_session(source)):
        run_session(Session(source, output), Given(flags, file, str(config)), options)
        return
    if tilts is None or angles is None:
        raise SettingsError("give TILTS and ANGLES, or a folder or list; see: cryolithe reconstruct --help")
    if options.watch or options.scheduler:
        raise SettingsError("--watch and --scheduler are for a folder or list of series; give one instead of TILTS")
    settings = resolve_settings(flags, {}, file, "", str(config))
    job = Job(tilts, angles, output or default_output(tilts, settings.format), settings)
    if dry_run:
        _print_plan(job)
        return
    with progress_watcher() as watcher:
        done = reconstruct(job, watcher)
    click.echo(str(done))


def _print_plan(job: Job) -> None:
    """Say what a job would take."""
    from cryolithe.reconstruct.job import check_files, resolve
    from cryolithe.reconstruct.run import plan_run

    check_files(job)
    click.echo(f"{job.output}: {plan_run(resolve(job))}")
