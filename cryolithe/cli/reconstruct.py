"""``cryolithe reconstruct``: tilt series in, tomograms out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryolithe.cli.complete import complete_recipe
from cryolithe.cli.plain import say
from cryolithe.cli.settings_options import SETTINGS_SECTIONS, SectionedCommand, settings_options
from cryolithe.denoising.methods import METHODS
from cryolithe.errors import InputError, SettingsError
from cryolithe.formats.reading import Reading
from cryolithe.formats.series.session_folder import STACK_SUFFIXES
from cryolithe.idle import idle_notes, refuse_idle
from cryolithe.recipes import find_recipe
from cryolithe.settings import ReconstructSettings, read_settings_file, resolve_settings

if TYPE_CHECKING:
    from cryolithe.session.tasks import After

_SESSION_FLAGS = ("watch", "settle_seconds", "idle_minutes", "scheduler", "workers")
_SECTIONS = {
    "Many series": ("series_list", "watch", "settle_seconds", "idle_minutes", "scheduler", "workers"),
    "Halves of the frames, denoising": ("even", "odd", "denoise", "denoise_minutes"),
}


@click.command("reconstruct", cls=SectionedCommand, sections={**_SECTIONS, **SETTINGS_SECTIONS})
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
    metavar="SECONDS",
    help="With --watch: for how long the files of a series must not have changed.  [default: 60]",
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
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="YAML",
    help="Settings; flags win over them. A file, or the name of a shipped one (cryolithe recipes list).",
    shell_complete=complete_recipe("reconstruct"),
)
@click.option(
    "--denoise",
    type=click.Choice(list(METHODS)),
    help="Denoise the volume too, into OUTPUT_samba.mrc beside it; or, with --even and --odd, by its halves (n2n).",
)
@click.option(
    "--denoise-minutes",
    "--train-minutes",
    "denoise_minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Limit of the denoiser's training. Default: as of cryolithe denoise.",
)
@settings_options
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
    the order of the images (beside --tilt-com, ANGLES is taken). Images that they exclude are left out.

    Halves of the frames: --even A --odd B [ANGLES] makes a volume of each (_EVN, _ODD), their average (of a network,
    its volume of all frames), their FSC, and a map of how well they agree locally (_confidence). With --denoise n2n a
    network learns from both, and writes _n2n; given TILTS too, that is reconstructed in place of the average. All of
    these are written as MRC only.

    --confidence writes three maps beside the volume of a network: how far it can be trusted (_confidence), its expected
    error (_error), and what of it the images do not hold (_unsupported).

    The volume is written as MRC, axes (z, y, x), beside a JSON file that records how it was made. Dense matter keeps
    the polarity of the input. A run that was interrupted goes on where it stopped when the same command is repeated.

    Many series: instead of TILTS and ANGLES give a folder (stacks with the angle or alignment files of their names, in
    it or one level below), RELION-5's tilt_series.star with its alignments, or a CSV list with the columns tilts,
    angles (or aln, star, ...) and, as you like, output and any setting of this command (thickness, pixel_size, ...); -o
    is then a folder for all results. What was done before with the same inputs and settings is not done again. A series
    that fails does not stop the others; the exit code is then 1. cryolithe_summary.csv and .html tell what became of
    each, with central slices.

    \b
    Examples
      cryolithe reconstruct ts_01.mrc ts_01.tlt --thickness 400 --bin 2
      cryolithe reconstruct ts_01.mrc ts_01.tlt --method fbp --filter hamming -o ts_01_fbp.mrc
      cryolithe reconstruct ts_01.st --newst-com newst.com --tilt-com tilt.com
      cryolithe reconstruct ts_01.mrc --aln ts_01.aln --thickness 400 --bin 4
      cryolithe reconstruct tilt_series/ts_01.star --pixel-size 2.7     RELION-5, images as single files
      cryolithe reconstruct --even ts_01_EVN.mrc --odd ts_01_ODD.mrc --aln ts_01.aln
      cryolithe reconstruct ts_01.mrc ts_01.tlt --method fbp --denoise samba     keeps both volumes
      cryolithe reconstruct ts.mrc ts.tlt --even ts_EVN.mrc --odd ts_ODD.mrc --method fbp --denoise n2n
      cryolithe reconstruct session_folder --config settings.yaml -o tomograms
      cryolithe reconstruct session.csv --scheduler tcp://head:8786
      cryolithe reconstruct session_folder --watch --idle 30
    """
    from cryolithe.cli.one_series import job_of, reconstruct_one
    from cryolithe.cli.session import Given, SessionOptions, run_session
    from cryolithe.machine.device import keep_freed_memory
    from cryolithe.session.tasks import Session, is_session

    keep_freed_memory()
    config = find_recipe(config, "reconstruct") if config else None
    file = read_settings_file(config) if config else {}
    options = SessionOptions(dry_run, **{name: flags.pop(name) for name in _SESSION_FLAGS})
    halves = _halves(flags.pop("even"), flags.pop("odd"))
    denoiser, minutes = flags.pop("denoise"), flags.pop("denoise_minutes")
    after = _denoising(denoiser, minutes, halves is not None)
    if series_list and (tilts or halves):
        raise SettingsError("--list names the stacks itself; leave out TILTS, ANGLES and halves")
    source, reading = series_list or (None if halves else tilts), Reading()
    if source is not None and angles is None and (is_session(source, reading) or series_list):
        run_session(Session(source, output, after, reading), Given(flags, file, str(config)), options)
        return
    if source is not None and (options.watch or options.scheduler) and not source.exists():
        raise InputError(f"{source} does not exist; check its name and folder")
    if options.watch or options.scheduler:
        raise SettingsError("--watch and --scheduler are for a folder or list of series; give one instead of TILTS")
    settings = resolve_settings(flags, {}, file, "", str(config))
    acting = ("precision",) if denoiser else ()  # a denoiser's, too
    refuse_idle(flags, [settings], acting)
    for note in idle_notes(file, str(config), flags, [settings], acting):
        say(f"Note: {note}", err=True)
    if halves is not None:
        from cryolithe.cli.reconstruct_halves import Halves, reconstruct_pair

        settings = _without_maps(settings, flags["confidence"], str(config))
        given = Halves(halves, *_whole_and_angles(tilts, angles, denoiser), denoiser, minutes, reading)
        reconstruct_pair(given, output, settings, dry_run)
        return
    if tilts is None:
        raise SettingsError("give TILTS and ANGLES, or a folder or list; see: cryolithe reconstruct --help")
    if after is not None:
        after.check(settings)
    reconstruct_one(job_of((tilts, angles), output, settings, reading), dry_run, after)


def _without_maps(settings: ReconstructSettings, flag: bool | None, file_name: str) -> ReconstructSettings:
    """Settings of halves, which have a map of their own and none of --confidence: the flag is refused."""
    if settings.confidence:
        reason = "is for one stack, and --even and --odd are given here, whose own agreement is written as _confidence"
        if flag:
            raise SettingsError(f"--confidence {reason}: it would change nothing; leave it out")
        say(f"Note: {file_name}: 'confidence' changes nothing: it {reason}", err=True)
    return settings.model_copy(update={"confidence": False})


def _denoising(method: str | None, minutes: float | None, halves: bool) -> After | None:
    """What --denoise asks for after the reconstruction of one volume."""
    from cryolithe.cli.denoising import Denoising

    if method is None:
        if minutes is not None:
            raise SettingsError("--denoise-minutes goes with --denoise samba or n2n")
        return None
    if METHODS[method].of_halves:
        if not halves:
            raise SettingsError(
                f"--denoise {method} learns from two halves: give --even and --odd; for halves of many series that are "
                f"reconstructed already: cryolithe denoise --method {method} FOLDER"
            )
        return None
    if halves:
        raise SettingsError(
            "--denoise takes one volume: run cryolithe denoise on the average of the halves, or choose --denoise n2n, "
            "which learns from them"
        )
    return Denoising(method, minutes)


def _whole_and_angles(first: Path | None, second: Path | None, denoiser: str | None) -> tuple[Path | None, Path | None]:
    """The arguments beside --even and --odd: ANGLES, or with a denoiser of halves also TILTS before them."""
    if denoiser is not None and first is not None and first.suffix.lower() in STACK_SUFFIXES:
        return first, second
    if second is not None:
        raise SettingsError(
            "--even and --odd stand for TILTS: give ANGLES alone beside them (with --denoise n2n also TILTS, of which "
            "the whole volume is then made)"
        )
    return None, first


def _halves(even: Path | None, odd: Path | None) -> tuple[Path, Path] | None:
    if even is None and odd is None:
        return None
    if even is None or odd is None:
        raise SettingsError(f"--{'odd' if even is None else 'even'} needs --{'even' if even is None else 'odd'} too")
    return even, odd
