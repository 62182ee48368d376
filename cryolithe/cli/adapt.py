"""``cryolithe adapt``: a model goes on learning on a lab's own unlabelled series."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryolithe import __version__
from cryolithe.cli.numbers import FiniteRange
from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.cli.settings_options import SETTINGS_SECTIONS, SectionedCommand, settings_options
from cryolithe.errors import InputError, ModelError, OutputError, SettingsError
from cryolithe.formats.alignment.alignments import alignment_files
from cryolithe.formats.leftovers import remove_leftovers, temporary_beside
from cryolithe.formats.reading import Reading
from cryolithe.idle import refuse_idle
from cryolithe.settings import ReconstructSettings, resolve_settings

if TYPE_CHECKING:
    from cryolithe.adapt.session import Outcome
    from cryolithe.network.checkpoint import Model
    from cryolithe.reconstruction.jobs.job import Job

# Settings of `reconstruct` that decide what a network sees.
SETTINGS = (
    "model", "thickness", "bin", "pixel_size", "contrast", "brightness", "tilt_axis", "exclude", *alignment_files(),
    "local_alignment", "ctf_state", "defocus", "dose", "specimen_thickness", "ctf", "ctf_file", "defocus_hand",
    "voltage", "cs", "amplitude_contrast", "dose_weight", "centre", "handedness", "flip_z", "device", "precision",
    "fix_nonfinite",
)  # fmt: skip
# Of those, files of a single series, unless they are RELION's tables, which name theirs.
_OF_ONE = ("ctf_file", "dose")
_FILE = click.Path(path_type=Path)


@click.command("adapt", cls=SectionedCommand, sections=SETTINGS_SECTIONS)
@click.argument("series", nargs=-1, type=_FILE, metavar="[TILTS ANGLES | TABLE]...")
@click.option("-o", "--output", type=_FILE, required=True, help="Model to write (.safetensors).")
@click.option("--even", type=_FILE, multiple=True, metavar="STACK", help="With --odd: half of the frames, see above.")
@click.option("--odd", type=_FILE, multiple=True, metavar="STACK", help="The other half.")
@click.option("--minutes", type=FiniteRange(min=0), default=10.0, show_default=True, help="For everything.")
@click.option("--steps", type=click.IntRange(min=0), help="At most; with fewer than time allows, the machine's speed "
              "has no part in the result.")  # fmt: skip
@click.option("--learning-rate", type=FiniteRange(min=0, min_open=True), help="At its peak.  [default: 1e-4]")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of all that is drawn.")
@click.option("--molecules", type=_FILE, help="Library (HDF5, MRC maps; or procedural_1) of the simulated half.")
@click.option("--resume", is_flag=True, help="Go on from the state saved in the run's folder.")
@click.option("--overwrite", is_flag=True, help="Replace an existing model and its run's folder.")
@partial(settings_options, wanted=SETTINGS)
def command(
    series: tuple[Path, ...], output: Path, even: tuple[Path, ...], odd: tuple[Path, ...], **options: Any
) -> None:
    """Let a model go on learning on your own unlabelled tilt series.

    \b
      cryolithe adapt --even ts_EVN.mrc --odd ts_ODD.mrc ts.tlt -o mine.safetensors
      cryolithe adapt --even a_EVN.mrc --odd a_ODD.mrc --even b_EVN.mrc --odd b_ODD.mrc a.tlt b.tlt -o mine.safetensors
      cryolithe adapt ts_01.mrc ts_01.tlt ts_02.mrc ts_02.tlt -o mine.safetensors     no frame halves
      cryolithe adapt session_folder -o mine.safetensors

    With halves of the frames, what the network makes of one half has to agree with the filtered back-projection of the
    other, whose noise is another; give --even and --odd for each series, then ANGLES for each (none where an alignment
    such as --aln brings them; that goes with one series). Without, the odd and the even tilts are the halves. Tilts
    at the ends are left out at random: what they measured is then asked for. Most of what is learned from is simulated,
    with the series' noise, so that nothing is forgotten. Where halves of frames show that the noise is coloured, images
    are filtered so that it is white, if the model then knows more; the model does so with other series of that noise.

    A quarter of each series' rows is held back (of series that are too small for that, a quarter of them). There the
    model is checked against raw data that it did not see: the other half, and left-out tilts; and on simulated
    specimens. Written are the best of those checked weights that agree at least as well with the other half, whose two
    FSC together gain 3 % or more (less may be chance), and that lose no more than 0.1 dB on simulated specimens; if
    there are none, nothing is written, with exit code 2.

    Give here what you reconstruct with: a model that learned from images with their CTF corrected (--ctf) or weighed by
    dose (--dose-weight) is to be applied to such images, and the other way round.

    The folder NAME.run holds the state, the checks (checks.json, fsc.png) and tables. Ctrl-C saves the state and leaves
    with exit code 130; --resume goes on.
    """
    started = time.monotonic()  # before torch is imported, which takes its time
    from cryolithe.adapt.session import LEFTOVERS
    from cryolithe.formats.files import check_ending
    from cryolithe.machine.device import choose_device, choose_precision, keep_freed_memory
    from cryolithe.models import find_model
    from cryolithe.network.checkpoint import load_model
    from cryolithe.optimise.distributed import Place
    from cryolithe.optimise.step import trainable
    from cryolithe.training.session import check_output, run_folder
    from cryolithe.work.alone import alone_in, refuse_replaced

    keep_freed_memory()
    check_ending(output, (".safetensors",), "a model")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"the folder {output.parent} does not exist; make it first or choose another -o")
    flags = {name: options.pop(name) for name in SETTINGS}
    reading = Reading()
    jobs = _jobs(series, (even, odd), flags, reading)
    settings = resolve_settings(flags, {}, {}, "", "")
    _refuse_of_one(settings, len(jobs))
    model = load_model(settings.model)
    if model.convention.published:
        raise ModelError(
            f"model {model.name} is applied as the published program does it, and cannot be adapted; give a model of "
            "this program, such as default or fast"
        )
    device = choose_device(settings.device)
    place = Place(device, trainable(choose_precision(settings.precision, device), device))
    inputs = {find_model(settings.model): "the model that this adaptation starts from"}
    if options["molecules"]:
        inputs[options["molecules"]] = "the library of this adaptation"

    def check() -> None:
        check_output(output, options["overwrite"], options["resume"])
        if not options["resume"]:
            refuse_replaced(inputs, output, run_folder(output), LEFTOVERS)

    with alone_in(run_folder(output), place, check) as note:
        outcome = _run(jobs, model, place, output, {**options, "started": started, "note": note})
    _tell(outcome, output, model, options)


def _run(jobs: list[tuple[Job, ...]], model: Model, place: Any, output: Path, options: dict[str, Any]) -> Outcome:
    """Prepare the series and adapt."""
    from cryolithe.adapt.config import AdaptConfig
    from cryolithe.adapt.gathering import gather
    from cryolithe.adapt.material import Adaptation
    from cryolithe.adapt.session import adapt
    from cryolithe.machine.device import precision_name
    from cryolithe.simulation import load_library
    from cryolithe.training.cards import kept_of
    from cryolithe.training.recipe_maker import GIVEN, library_sha256

    given: dict[str, Any] = {name: options[name] for name in ("steps", "learning_rate") if options[name] is not None}
    config = AdaptConfig(seed=options["seed"], **given)
    library = load_library((options["molecules"],) if options["molecules"] else ())
    card: dict[str, Any] = {
        "cryolithe": __version__,
        "date": datetime.date.today().isoformat(),
        "device": str(place.device),
        "precision": precision_name(place.precision),
        "minutes": options["minutes"],
        "molecules": sorted(molecule.name for molecule in library) or ["procedural only"],
    }
    card |= kept_of(model)
    with _scratch(output.absolute()) as folder, progress_watcher() as watcher:
        if options["note"]:
            watcher.note(options["note"])
        gathered = gather(jobs, folder, watcher)
        card["series"] = gathered.told
        outcome = adapt(
            Adaptation(
                config=config,
                model=model,
                series=gathered.series,
                inputs={"model": model.sha256, **gathered.inputs},
                place=place,
                output=output,
                watcher=watcher,
                card=card,
                library=library,
                library_files={GIVEN: library_sha256(options["molecules"])} if options["molecules"] else {},
                resume=options["resume"],
                deadline=options["started"] + 60.0 * options["minutes"],
            )
        )
        if outcome.interrupted:  # within: what ends here is not done
            watcher.note(f"State of step {outcome.steps} saved; go on with --resume.")
            raise KeyboardInterrupt
        return outcome


@contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """A folder beside the output for prepared images; those of runs that were killed are removed.

    Raises:
        OutputError: if it cannot be made.
    """
    remove_leftovers(output)
    folder = temporary_beside(output, "adapt")
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise OutputError(f"cannot write into {output.parent}: {error.strerror or error}; choose another -o") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tell(outcome: Outcome, output: Path, model: Model, options: dict[str, Any]) -> None:
    """Say what came of it."""
    from cryolithe.training.validation import fidelity_told

    written = outcome.written
    assert written is not None
    say(f"before: {outcome.before.words}")
    if not outcome.steps and not written.white:
        minutes = options["minutes"]
        why = f"; {minutes:g} minutes left no time for a step" if minutes and options["steps"] != 0 else ""
        say(f"{output}: the weights of {model.name} as they are{why}")
        return
    say(f"after:  {written.words}")
    if changes := fidelity_told(outcome.before.fidelity, written.fidelity):
        say(f"fidelity on simulated specimens: {changes}")
    say(f"{output}: weights of step {written.step} of {outcome.steps}; shells before and after in "
        f"{output.with_suffix('.run').name}/fsc.png")  # fmt: skip
    say(f"Use it with: cryolithe reconstruct TILTS ANGLES --model {output}")


def _jobs(
    given: tuple[Path, ...], halves: tuple[tuple[Path, ...], tuple[Path, ...]], flags: dict[str, Any], reading: Reading
) -> list[tuple[Job, ...]]:
    """The jobs of each series: two for halves of frames, else one."""
    from cryolithe.cli.halves import check_stacks
    from cryolithe.reconstruction.jobs.job import unused_images
    from cryolithe.session.tasks import is_session

    even, odd = halves
    settings = resolve_settings(flags, {}, {}, "", "")
    if even or len(given) != 1:  # of a folder or list each series may have its own
        refuse_idle(flags, [settings])
    if len(even) != len(odd):
        raise SettingsError(f"give --odd for each --even, got {len(even)} --even and {len(odd)} --odd")
    if even:
        angles = _angles(given, len(even), settings)
        jobs = [
            (_job(first, one, settings, reading), _job(second, one, settings, reading))
            for first, second, one in zip(even, odd, angles, strict=True)
        ]
        for first, second in jobs:
            left_out = unused_images(first)
            check_stacks((first.tilts, second.tilts), None, settings.pixel_size, left_out, to_learn=True)
        return [*jobs]
    if not given:
        raise SettingsError(
            "give --even and --odd with ANGLES, or TILTS ANGLES, or a folder; see: cryolithe adapt --help"
        )
    if len(given) == 1 and is_session(given[0], reading):
        return _session_jobs(given[0], flags, reading)
    if settings.alignment_files and len(given) == 1:
        refuse_idle(flags, [settings])
        return [(_job(given[0], None, settings, reading),)]
    pairs = _pairs(given)
    if settings.alignment_files and len(pairs) > 1:
        raise SettingsError("files of an alignment go with one series; for several, give a list with a column for them")
    return [(_job(tilts, angles, settings, reading),) for tilts, angles in pairs]


def _pairs(given: tuple[Path, ...]) -> list[tuple[Path, Path | None]]:
    """Stacks with their angles; tables of images, which bring their own, stand alone."""
    from cryolithe.formats.alignment.alignments import format_of_table

    words, pairs = list(given), []
    while words:
        tilts = words.pop(0)
        table = format_of_table(tilts) is not None
        if not table and not words:
            raise SettingsError(
                f"give ANGLES after each stack: got {len(given)} files, the last one {tilts} without its angles"
            )
        pairs.append((tilts, None if table else words.pop(0)))
    return pairs


def _refuse_of_one(settings: ReconstructSettings, series: int) -> None:
    """Raise SettingsError for what tells of one series where there are several."""
    if series > 1 and settings.exclude is not None:
        raise SettingsError(
            f"--exclude {settings.exclude} counts the images of one stack, but {series} series are given; give a list "
            "with a column exclude"
        )
    for name in _OF_ONE:
        path = getattr(settings, name)
        if series > 1 and path is not None and Path(path).suffix.lower() != ".star":
            raise SettingsError(
                f"--{name.replace('_', '-')} {path} tells of one series, but {series} are given; leave the file of "
                f"each beside its stack under its name, or give a list with a column {name}, or RELION's .star of all"
            )


def _angles(given: tuple[Path, ...], series: int, settings: ReconstructSettings) -> list[Path | None]:
    """The angle file of each series of halves."""
    if settings.alignment_files and series > 1:
        raise SettingsError("files of an alignment go with one series; adapt to several with aligned stacks")
    if settings.alignment_files and not given:
        return [None]
    if len(given) != series:
        raise SettingsError(
            f"give one file of ANGLES for each --even and --odd: expected {series}, got {len(given)}"
            + (f" ({given[0]}, ...)" if given else "")
        )
    return list(given)


def _job(tilts: Path, angles: Path | None, settings: ReconstructSettings, reading: Reading) -> Job:
    from cryolithe.cli.one_series import job_of

    return job_of((tilts, angles), None, settings, reading)


def _session_jobs(source: Path, flags: dict[str, Any], reading: Reading) -> list[tuple[Job, ...]]:
    """The series of a folder or list.

    Raises:
        InputError: names the first series that cannot be used.
    """
    from cryolithe.session.tasks import Session, find_tasks

    tasks, _ = find_tasks(Session(source, reading=reading), flags, {}, "")
    for task in tasks:
        if task.problem:
            raise InputError(f"{source}: {task.name}: {task.problem}; leave it out of the list or mend it")
    return [(_job(task.job.tilts, task.job.angles, task.job.settings, reading),) for task in tasks]
