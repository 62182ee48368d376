"""``cryolithe reconstruct``: tilt series in, tomograms out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from cryolithe.cli.progress import ProgressWatcher, progress_watcher
from cryolithe.errors import CryoLitheError, OutputError, SettingsError
from cryolithe.formats import SeriesEntry, read_series_list
from cryolithe.settings import ReconstructSettings, read_settings_file, resolve_settings

_METAVARS = {
    "pixel_size": "Å",
    "max_memory": "GB",
    "tilt_axis": "DEG",
    "model": "NAME|PATH",
    "thickness": "N",
    "bin": "N",
}
_METAVARS |= dict.fromkeys(("xf", "newst_com", "tilt_com", "aln", "star", "warp"), "FILE")


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
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Volume to write. Default: TILTS_rec.mrc.")
@click.option(
    "--list", "series_list", type=click.Path(path_type=Path), metavar="CSV", help="Several series, see above."
)
@click.option(
    "--even", type=click.Path(path_type=Path), metavar="STACK", help="With --odd, instead of TILTS: halves, see above."
)
@click.option("--odd", type=click.Path(path_type=Path), metavar="STACK", help="The other half of the frames.")
@click.option("--dry-run", is_flag=True, help="Print the plan (slabs, memory, files, time) and do nothing.")
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
    """Reconstruct the stack TILTS with the tilt angles in ANGLES.

    TILTS is an MRC stack (.mrc, .st, .ali) whose tilt axis runs along y (or at --tilt-axis); ANGLES is a .tlt, .rawtlt,
    .mdoc or other text file with one angle in degrees per line, in the order of the images.

    A raw stack is aligned in memory by the files of the program that aligned it: --newst-com and --tilt-com, or --xf
    (IMOD), --aln (AreTomo), --star (RELION-5), --warp. Most of them bring the angles: leave out ANGLES. Images that
    they exclude are left out.

    Halves of the frames: --even A --odd B [ANGLES] makes a volume of each (_EVN, _ODD), their average, its FSC, and a
    map of how well the halves agree locally (_confidence).

    The volume is written as MRC, axes (z, y, x), beside a JSON file that records how it was made. Dense matter keeps
    the polarity of the input. A run that was interrupted goes on where it stopped when the same command is repeated.

    Several series: --list gives a CSV file with the columns tilts, angles and, as you like, output and any setting of
    this command (thickness, pixel_size, ...). A series that fails does not stop the others; the exit code is then 1.
    Series that are already done with the same inputs and settings are skipped.

    \b
    Examples
      cryolithe reconstruct ts_01.mrc ts_01.tlt --thickness 400 --bin 2
      cryolithe reconstruct ts_01.mrc ts_01.tlt --method fbp --filter hamming -o ts_01_fbp.mrc
      cryolithe reconstruct ts_01.st --newst-com newst.com --tilt-com tilt.com
      cryolithe reconstruct ts_01.mrc --aln ts_01.aln --thickness 400 --bin 4
      cryolithe reconstruct --even ts_01_EVN.mrc --odd ts_01_ODD.mrc --aln ts_01.aln
      cryolithe reconstruct --list session.csv --config settings.yaml
      cryolithe reconstruct ts_01.mrc ts_01.tlt --method fbp --denoise samba     keeps both volumes
    """
    denoise, denoise_minutes = flags.pop("denoise"), flags.pop("denoise_minutes")
    if denoise_minutes is not None and denoise is None:
        raise SettingsError("--denoise-minutes goes with --denoise samba")
    after = _Denoising(denoise_minutes) if denoise else None
    file = read_settings_file(config) if config else {}
    halves = _halves(flags.pop("even"), flags.pop("odd"))
    if series_list:
        if tilts or output or halves:
            raise SettingsError("--list names the stacks and outputs itself; leave out TILTS, ANGLES and -o")
        entries = read_series_list(series_list)
        rows = [
            resolve_settings(flags, entry.settings, file, f"{series_list}, line {entry.line}", str(config))
            for entry in entries
        ]
        if dry_run:
            _print_plans(entries, rows)
            return
        _reconstruct_list(entries, rows, series_list, after)
        return
    if halves is not None:
        if after is not None:
            raise SettingsError("--denoise takes one volume: run cryolithe denoise on the average of the halves")
        _reconstruct_pair(halves, (tilts, angles), output, resolve_settings(flags, {}, file, "", str(config)), dry_run)
        return
    if tilts is None:
        raise SettingsError("give TILTS and ANGLES, or --list; see: cryolithe reconstruct --help")
    settings = resolve_settings(flags, {}, file, "", str(config))
    if dry_run:
        _print_plan(SeriesEntry(0, tilts, angles, output), settings)
        return
    with progress_watcher() as watcher:
        line = _reconstruct_one(SeriesEntry(0, tilts, angles, output), settings, watcher, after)
    click.echo(line)


@dataclass(frozen=True)
class _Denoising:
    """What --denoise asks for after a reconstruction."""

    minutes: float | None


def _halves(even: Path | None, odd: Path | None) -> tuple[Path, Path] | None:
    if even is None and odd is None:
        return None
    if even is None or odd is None:
        raise SettingsError(f"--{'odd' if even is None else 'even'} needs --{'even' if even is None else 'odd'} too")
    return even, odd


def _reconstruct_pair(
    halves: tuple[Path, Path],
    arguments: tuple[Path | None, Path | None],
    output: Path | None,
    settings: ReconstructSettings,
    dry_run: bool,
) -> None:
    """Reconstruct two halves; the only argument beside them is ANGLES."""
    from cryolithe.cli import halves as pair

    angles, more = arguments
    if more is not None:
        raise SettingsError("--even and --odd stand for TILTS: give ANGLES alone beside them")
    if dry_run:
        for stack, name in zip(halves, ("EVN", "ODD"), strict=True):
            volume = output or pair.default_output(stack)
            _print_plan(SeriesEntry(0, stack, angles, volume.with_name(f"{volume.stem}_{name}.mrc")), settings)
        return

    def one(stack: Path, volume: Path) -> str:
        # A half that is done already is not made again when the command is repeated.
        with progress_watcher() as watcher:
            return _reconstruct_one(SeriesEntry(1, stack, angles, volume), settings, watcher, None)

    pair.reconstruct_halves(halves, output, settings.overwrite, one)


def _reconstruct_list(
    entries: tuple[SeriesEntry, ...], settings: list[ReconstructSettings], source: Path, after: _Denoising | None
) -> None:
    """Reconstruct every series; one that fails does not stop the others."""
    from cryolithe.reconstruct.job import default_output

    outputs: dict[Path, int] = {}
    for entry in entries:
        target = (entry.output or default_output(entry.tilts)).resolve()
        if target in outputs:
            raise OutputError(
                f"{source}: lines {outputs[target]} and {entry.line} would both write {target}; "
                "add a column 'output' to tell them apart"
            )
        outputs[target] = entry.line
    failed = 0
    for number, (entry, chosen) in enumerate(zip(entries, settings, strict=True), start=1):
        with progress_watcher() as watcher:
            watcher.note(f"[{number}/{len(entries)}] {entry.tilts}")
            try:
                line = _reconstruct_one(entry, chosen, watcher, after)
            except CryoLitheError as error:
                failed += 1
                watcher.note(f"Error: {error}")
                line = f"{entry.tilts}: failed: {error}"
        click.echo(line)
    if failed:
        click.echo(f"{failed} of {len(entries)} series failed", err=True)
        raise click.exceptions.Exit(1)


def _print_plans(entries: tuple[SeriesEntry, ...], settings: list[ReconstructSettings]) -> None:
    """Say what a list would take; a series that would fail does not stop the others, here as there."""
    failed = 0
    for entry, chosen in zip(entries, settings, strict=True):
        try:
            _print_plan(entry, chosen)
        except CryoLitheError as error:
            failed += 1
            click.echo(f"{entry.tilts}: would fail: {error}")
    if failed:
        click.echo(f"{failed} of {len(entries)} series would fail", err=True)
        raise click.exceptions.Exit(1)


def _print_plan(entry: SeriesEntry, settings: ReconstructSettings) -> None:
    """Say what a job would take."""
    from cryolithe.reconstruct.job import Job, already_done, check_files, default_output, resolve
    from cryolithe.reconstruct.run import plan_run

    job = Job(entry.tilts, entry.angles, entry.output or default_output(entry.tilts), settings)
    if entry.line and not settings.overwrite and already_done(job):
        click.echo(f"{job.output}: already done with these inputs and settings")
        return
    check_files(job)
    click.echo(f"{job.output}: {plan_run(resolve(job))}")


def _reconstruct_one(
    entry: SeriesEntry, settings: ReconstructSettings, watcher: ProgressWatcher, after: _Denoising | None
) -> str:
    """Run one job, denoise its volume if asked to, and return the lines that tell of it."""
    from cryolithe.cli.denoise import denoise_reconstruction, is_denoised
    from cryolithe.device import keep_freed_memory
    from cryolithe.reconstruct.job import Job, already_done, default_output
    from cryolithe.reconstruct.run import reconstruct

    keep_freed_memory()
    job = Job(entry.tilts, entry.angles, entry.output or default_output(entry.tilts), settings)
    # A list that was interrupted is simply repeated: what it finished is not done again. Nor is a volume made again
    # only because its denoising was interrupted.
    repeated = entry.line or (after is not None and not is_denoised(job.output))
    if repeated and not settings.overwrite and already_done(job):
        line = f"{job.output}: already done with these inputs and settings"
    else:
        done = reconstruct(job, watcher)
        z, y, x = done.shape
        size = f"{done.voxel_size_angstrom:.4g} Å voxels" if done.voxel_size_angstrom else "voxel size unknown"
        line = f"{done.output}: {z} x {y} x {x} (z, y, x), {size}, {done.seconds:.1f} s, record in {done.sidecar.name}"
    if after is None:
        return line
    if is_denoised(job.output) and not settings.overwrite:
        return f"{line}\n{job.output}: already denoised"
    return line + "\n" + denoise_reconstruction(job.output, after.minutes, settings, watcher)
