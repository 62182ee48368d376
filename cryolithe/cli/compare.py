"""``cryolithe compare``: which method for which purpose, judged on the user's own data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryolithe.cli.numbers import FiniteRange
from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.cli.settings_options import SETTINGS_SECTIONS, SectionedCommand, settings_options
from cryolithe.errors import InputError, OutputError, SettingsError
from cryolithe.idle import idle_settings, refuse_idle
from cryolithe.settings import ReconstructSettings, resolve_settings

if TYPE_CHECKING:
    from cryolithe.comparison.inputs import Beside
    from cryolithe.comparison.making import Choices, Workshop
    from cryolithe.comparison.sources import Source
    from cryolithe.comparison.value import Comparison
    from cryolithe.comparison.wishes import Wish
    from cryolithe.evaluation.drawing import Drawn

FilePath = click.Path(path_type=Path)
# Of reconstruct: what says where the images belong, not what is compared here or how a volume is stored.
_OTHERS = {"method", "model", "format", "orientation", "dtype", "preview", "overwrite"}
# Of those, what counts for half volumes too: contrast is that of particles and truth.
_OF_VOLUMES = ("contrast", "device", "precision")
# Of trainings, and their defaults.
TRAINING: dict[str, Any] = {"train_minutes": 3.0, "seed": 0}
_SECTIONS = {
    "Halves and methods": ("even", "odd", "half1", "half2", "tilt_range", "methods", "models", "train_minutes", "seed"),
    "Truth and particles": ("truth", "labels", "template", "particles", "kind", "particle_diameter"),
}


def _wanted_settings() -> tuple[str, ...]:
    return tuple(name for name in ReconstructSettings.model_fields if name not in _OTHERS)


@dataclass(frozen=True)
class _Outputs:
    """Files that are written, and the folder that is kept."""

    page: Path

    @property
    def numbers(self) -> Path:
        return self.page.with_suffix(".json")

    @property
    def cells(self) -> Path:
        return self.page.with_suffix(".csv")

    @property
    def work(self) -> Path:
        return self.page.with_suffix(".work")


@click.command("compare", cls=SectionedCommand, sections={**_SECTIONS, **SETTINGS_SECTIONS}, no_args_is_help=True)
@click.argument("tilts", type=FilePath, required=False)
@click.argument("angles", type=FilePath, required=False)
@click.option("--even", type=FilePath, metavar="STACK", help="Stack of the even frames; with --odd.")
@click.option("--odd", type=FilePath, metavar="STACK", help="Stack of the odd frames.")
@click.option("--half1", type=FilePath, metavar="VOLUME", help="Instead of a series: a half volume; with --half2.")
@click.option("--half2", type=FilePath, metavar="VOLUME", help="The other one.")
@click.option(
    "--methods",
    metavar="A,B,...",
    help="Of: fbp, gaussian, sirt, n2n-general, n2n, samba, and names of models. Default of a series: fbp, gaussian, "
    "sirt, fast, default, n2n-general, n2n; of volumes: fbp (as given), gaussian, n2n-general, n2n.",
)
@click.option("--models", metavar="A,B,...", help="Further models, names or .safetensors files.")
@click.option(
    "--train-minutes",
    type=FiniteRange(min=0, min_open=True),
    help=f"Limit of the training of n2n, and of samba.  [default: {TRAINING['train_minutes']:g}]",
)
@click.option("--truth", type=FilePath, metavar="VOLUME", help="Of a simulated series: the specimen.")
@click.option("--labels", type=FilePath, metavar="VOLUME", help="With --truth: classes of its voxels, as simulated.")
@click.option("--template", type=FilePath, metavar="MAP", help="Map of a particle, dense = bright; with --particles.")
@click.option("--particles", type=FilePath, metavar="STAR", help="Where the particles are.")
@click.option("--kind", metavar="NAME", help="Which of the particles the template is (cryolitheMolecule or class).")
@click.option("--particle-diameter", type=float, metavar="Å", help="Default: 280, a ribosome.")
@click.option("--tilt-range", metavar="DEG|MIN,MAX", help="Of half volumes. Default: from their records, else ±60°.")
@click.option("--seed", type=int, help=f"Of trainings.  [default: {TRAINING['seed']:g}]")
@click.option("-o", "--output", type=FilePath, required=True, metavar="PAGE", help="Page to write (.html).")
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@click.option("--overwrite", is_flag=True, help="Replace the page and its tables; volumes made before are kept.")
@lambda command: settings_options(command, _wanted_settings())
def command(tilts: Path | None, angles: Path | None, output: Path, **options: Any) -> None:
    """Compare reconstruction and denoising methods on your own tilt series, in one HTML page.

    Every method makes a volume of each half of the data. It is judged by how well that agrees with the *raw*
    back-projection of the other half, which no method has touched: by shell of frequency, and as half SNR with its
    ceiling. The page has central sections in equal greys, the scores, what stands in the missing wedge, and advice.

    The halves: stacks of even and odd frames (--even, --odd; the best), or two half volumes of any program (--half1,
    --half2); of TILTS ANGLES alone every other tilt is taken, which says less, and the page says what. TILTS beside
    --even and --odd is the whole series, of which the volumes to look at are made.

    PAGE.json holds every number, PAGE.csv the table, the folder PAGE.work the volumes: a method that is there with the
    same data and settings is not made again, and Ctrl-C keeps what is done.

    \b
    Examples
      cryolithe compare ts.mrc ts.tlt --even ts_EVN.mrc --odd ts_ODD.mrc -o ts.html
      cryolithe compare ts.mrc ts.tlt --bin 2 --methods fbp,gaussian,default -o quick.html
      cryolithe compare --half1 tomo_EVN.mrc --half2 tomo_ODD.mrc --tilt-range -54,60 -o tomo.html
      cryolithe compare ts.mrc ts.tlt --even e.mrc --odd o.mrc --template ribosome.mrc --particles picks.star -o ts.html
    """
    from cryolithe.machine.device import keep_freed_memory

    keep_freed_memory()
    outputs = _outputs(output, options.pop("overwrite"))
    flags = {name: options.pop(name) for name in _wanted_settings()}
    settings = resolve_settings(flags, {}, {}, "", "")
    halves = {name: options.pop(name) for name in ("even", "odd", "half1", "half2")}
    _check_given(tilts, halves)
    from cryolithe.comparison.making import Choices
    from cryolithe.comparison.wishes import wishes_of

    methods, models = (_names(options.pop(name), f"--{name}") for name in ("methods", "models"))
    wishes = wishes_of(methods, models, series=halves["half1"] is None)
    training = {name: options.pop(name) for name in ("train_minutes", "seed")}
    _refuse_idle(flags | training, settings, wishes, series=halves["half1"] is None)
    training = {name: TRAINING[name] if value is None else value for name, value in training.items()}
    choices = Choices(**training, device=settings.device, precision=settings.precision)
    dry_run = options.pop("dry_run")
    _check_files(outputs, [p for p in (tilts, angles, *halves.values(), *options.values()) if isinstance(p, Path)])
    _run(_Given(tilts, angles, halves, settings), wishes, choices, options, outputs, dry_run)


@dataclass(frozen=True)
class _Given:
    """The data that a user named."""

    tilts: Path | None
    angles: Path | None
    halves: dict[str, Path | None]
    settings: ReconstructSettings

    @property
    def names(self) -> dict[str, Path]:
        named = {"tilts": self.tilts, "angles": self.angles, **self.halves, **self.settings.alignment_files}
        tables = {"dose": self.settings.dose, "ctf": self.settings.ctf_file}
        named |= {name: Path(path) for name, path in tables.items() if path is not None}
        return {name: path for name, path in named.items() if path is not None}


def _run(
    given: _Given,
    wishes: tuple[Wish, ...],
    choices: Choices,
    beside: dict[str, Any],
    outputs: _Outputs,
    dry_run: bool,
) -> None:
    from cryolithe.comparison.inputs import known_beside, look
    from cryolithe.comparison.making import Workshop, check_maps
    from cryolithe.work.folder import WorkFolder
    from cryolithe.work.watcher import WARNING

    def planned() -> tuple[Source, Beside]:
        source = _source(given)
        seen = look(source, beside["tilt_range"])
        check_maps(source, wishes)
        known = known_beside(source, seen, beside, given.settings.contrast)
        for note in known.notes:
            say(note if note.startswith(WARNING) else f"Note: {note}", err=True)
        say(_plan(source, wishes, choices, known, outputs, given.settings), err=True)
        return source, known

    if dry_run:
        planned()
        return
    new = not outputs.work.exists()
    folder = WorkFolder(outputs.work, _done)
    try:
        source, known = planned()
    except BaseException:
        if new:  # nothing was begun
            folder.remove()
        else:
            folder.release()
        raise
    try:
        with progress_watcher() as watcher:
            found, figures = _compared(Workshop(source, choices, folder, watcher), wishes, known, watcher)
    finally:
        folder.release()
    _write(found, figures, given, known, outputs)


def _done(**entry: Any) -> Any:
    from cryolithe.comparison.making import Done

    return Done(**entry)


def _compared(
    workshop: Workshop, wishes: tuple[Wish, ...], known: Beside, watcher: Any
) -> tuple[Comparison, list[Drawn]]:
    """Make, score and draw."""
    from cryolithe.comparison.figures import draw
    from cryolithe.comparison.score import compare
    from cryolithe.comparison.sections import sections_of
    from cryolithe.comparison.sure import draw_sure, sure_sections

    sections, maps = [], []

    def each() -> Any:
        for candidate in workshop.candidates(wishes):
            sections.append(sections_of(candidate.title, candidate.whole))
            maps.append(sure_sections(candidate))
            yield candidate

    found = compare(each(), known.setting, lambda title: watcher.stage(f"Scoring {title}", 1))
    if known.setting.truth is not None:
        assert found.raw.truth is not None  # in the polarity of the volumes
        sections.append(sections_of("truth", found.raw.truth.sign * known.setting.truth.volume))
    drawn, sure = draw(found, sections), [one for one in maps if one is not None]
    return found, [*drawn[:1], *([draw_sure(found, sure)] if sure else []), *drawn[1:]]


def _write(found: Comparison, figures: list[Drawn], given: _Given, known: Beside, outputs: _Outputs) -> None:
    import datetime

    from cryolithe import __version__
    from cryolithe.comparison.advice import advice
    from cryolithe.comparison.html import About, as_csv, render, score_table
    from cryolithe.comparison.sure import sure_lines
    from cryolithe.formats.files import all_or_none, replacing
    from cryolithe.formats.record import hashed
    from cryolithe.report.json_files import write_json

    told, date = advice(found), datetime.date.today().isoformat()
    about = About(f"Comparison of methods on {known.name}", known.lines, known.notes, date)
    inputs = {**given.names, **known.files}
    record = {
        "cryolithe": __version__,
        "date": date,
        "inputs": hashed(inputs),
        "settings": given.settings,
        "notes": known.notes,
        "comparison": found,
        "ceiling": found.ceiling,
        "scores": {one.name: one.half.plain() for one in found.methods},
        "advice": told,
    }
    record["settings"] = given.settings.model_dump(mode="json")
    # All is made before the first is written: those that are there keep a repeated command from going on.
    texts = {outputs.cells: as_csv(found), outputs.page: render(found, told, figures, about)}
    with all_or_none([outputs.numbers, *texts]):
        write_json(outputs.numbers, record)
        for path, text in texts.items():
            with replacing(path, overwrite=True) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    heads, rows = score_table(found)
    shown = [0, 1, 3, heads.index("confirmed gain"), len(heads) - 1]
    lines = [[line[column] for column in shown] for line in ([*heads], *rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(shown))]
    for line in lines:
        numbers = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
        say("  ".join([line[0].ljust(widths[0]), *numbers]).rstrip())
    for sentence in sure_lines(found):
        say(f"{sentence}.")
    for one in told:
        if one.level == "warning":
            say(f"WARNING: {one.text}", err=True)
    say(f"Page: {outputs.page}")
    say(f"Numbers: {outputs.numbers}, {outputs.cells.name}; volumes: {outputs.work}")


def _plan(
    source: Source,
    wishes: tuple[Wish, ...],
    choices: Choices,
    known: Beside,
    outputs: _Outputs,
    given: ReconstructSettings,
) -> str:
    from cryolithe.comparison.making import VOLUMES_OF_MAPS, expected_minutes, scoring_minutes
    from cryolithe.evaluation.matching import search_binning
    from cryolithe.formats.sizes import size_told

    target, size_angstrom = known.setting.target, known.setting.voxel_size_angstrom
    binning = None
    if target is not None and size_angstrom:
        binning = search_binning(target.diameter_angstrom / size_angstrom, known.shape)
    scoring = len(wishes) * scoring_minutes(known.shape, binning)
    times = [(wish.title, expected_minutes(source, wish, choices, known.shape)) for wish in wishes]
    times.append(("scores and template matching" if target else "scores", scoring))
    total = sum(minutes for _, minutes in times)
    longest = ", ".join(f"{title} {minutes:.0f}" for title, minutes in times if minutes >= 1)
    z, y, x = known.shape
    networks = sum(wish.by == "model" for wish in wishes) if given.confidence else 0
    size = size_told(4 * z * y * x * (3 * len(wishes) + VOLUMES_OF_MAPS * networks))
    maps = "; --confidence: four runs more of each network on the whole series" if networks else ""
    return (
        f"Plan: {len(wishes)} methods on {z} x {y} x {x} voxels (z, y, x), each for two halves and the whole; about "
        f"{max(1.0, total):.0f} min{f' ({longest})' if longest else ''}, less what is in {outputs.work} already; up to "
        f"{size} of volumes there{maps}"
    )


def _source(given: _Given) -> Source:
    """The halves, read as far as is needed to plan."""
    from cryolithe.cli.halves import check_stacks
    from cryolithe.cli.one_series import job_of
    from cryolithe.comparison.sources import VolumeSource, series_of_halves, series_of_tilts
    from cryolithe.formats.reading import Reading
    from cryolithe.formats.series.session_folder import STACK_SUFFIXES
    from cryolithe.reconstruction.jobs.job import unused_images

    halves = given.halves
    if halves["half1"] is not None and halves["half2"] is not None:
        return VolumeSource((halves["half1"], halves["half2"]), halves["half1"].name)
    even, odd, tilts, angles = halves["even"], halves["odd"], given.tilts, given.angles
    if even is None or odd is None:
        assert tilts is not None
        return series_of_tilts(tilts, angles, given.settings)
    if tilts is not None and angles is None and tilts.suffix.lower() not in STACK_SUFFIXES:
        tilts, angles = None, tilts  # ANGLES alone
    left_out = unused_images(job_of((even, angles), None, given.settings, Reading()))
    check_stacks((even, odd), tilts, given.settings.pixel_size, left_out)
    return series_of_halves((even, odd), tilts, angles, given.settings)


def _check_given(tilts: Path | None, halves: dict[str, Path | None]) -> None:
    """Refuse data that are too few or too many."""
    for one, other in (("even", "odd"), ("half1", "half2")):
        if (halves[one] is None) != (halves[other] is None):
            missing, there = (one, other) if halves[one] is None else (other, one)
            raise SettingsError(
                f"--{there} needs --{missing} too: one half alone cannot be compared with anything that is independent "
                "of it"
            )
    if halves["half1"] is not None and (tilts is not None or halves["even"] is not None):
        raise SettingsError(
            "give a tilt series (TILTS ANGLES, --even, --odd) or half volumes (--half1, --half2), not both"
        )
    if tilts is None and halves["even"] is None and halves["half1"] is None:
        raise SettingsError(
            "give TILTS and ANGLES, better with --even and --odd, or two half volumes; see: cryolithe compare --help"
        )


def _names(text: str | None, option: str) -> list[str]:
    if text is None:
        return []
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise SettingsError(f"{option}: expected names with commas between them, got '{text}'")
    return names


def _refuse_idle(flags: dict[str, Any], settings: ReconstructSettings, wishes: tuple[Wish, ...], series: bool) -> None:
    """Raise SettingsError for an option that none of the methods has a use for."""
    kinds = {wish.by for wish in wishes}
    titles = ", ".join(wish.title for wish in wishes)
    learning, networks = kinds & {"n2n", "samba"}, kinds & {"n2n", "samba", "n2n-general", "model"}
    given = [name for name, value in flags.items() if value is not None]
    if settings.confidence and "model" not in kinds:
        raise SettingsError(
            f"--confidence asks networks how sure they are, of which none is compared: {titles}; leave it out, or name "
            "a model in --methods"
        )
    for name in given:
        flag = f"--{name.replace('_', '-')}"
        if name in TRAINING and not learning:
            raise SettingsError(f"{flag} is for the training of n2n and samba, which are not compared: {titles}")
        if name == "precision" and not networks:
            raise SettingsError(f"{flag} is for networks, of which none is compared: {titles}")
        if name not in TRAINING and not series and name not in _OF_VOLUMES:
            raise SettingsError(f"{flag} is for a tilt series: half volumes are taken as they are; leave it out")
    if series:
        by = {"model": "network", "sirt": "sirt"}
        runs = {method: settings.model_copy(update={"method": method}) for method in ("network", "fbp", "sirt")}
        refuse_idle(flags, list(runs.values()))  # whatever the method
        made = [runs[by.get(kind, "fbp")] for kind in kinds]
        for name in idle_settings(given, made, acting=("precision",)):
            raise SettingsError(f"--{name.replace('_', '-')} has no part in what is compared: {titles}; leave it out")


def _outputs(output: Path, overwrite: bool) -> _Outputs:
    from cryolithe.formats.files import check_ending, refuse_existing

    check_ending(output, (".html", ".htm"), "the page")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: there is no folder {output.parent}; make it first")
    outputs = _Outputs(output)
    for path in (outputs.page, outputs.numbers, outputs.cells):
        refuse_existing(path, overwrite)
    if outputs.numbers.exists() and not _is_ours(outputs.numbers):
        raise OutputError(
            f"{outputs.numbers} exists and holds no comparison (perhaps the record of a volume): it is not replaced, "
            "not even with --overwrite; choose another -o"
        )
    if outputs.work.exists() and not outputs.work.is_dir():
        raise OutputError(f"{outputs.work} is no folder, but volumes are to be kept there; choose another -o")
    return outputs


def _is_ours(path: Path) -> bool:
    """Whether a JSON file holds an earlier comparison."""
    import json

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "comparison" in content


def _check_files(outputs: _Outputs, inputs: list[Path]) -> None:
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path} does not exist; check its name and folder")
        for written in (outputs.page, outputs.numbers, outputs.cells):
            if written.exists() and written.samefile(path):
                raise OutputError(f"{written} is an input of this command; give another name with -o")
