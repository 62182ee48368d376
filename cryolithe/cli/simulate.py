"""``cryolithe simulate``: tilt series with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cryolithe import __version__
from cryolithe.cli.complete import complete_recipe
from cryolithe.cli.numbers import check_snr
from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.cli.simulate_style import is_stored_style
from cryolithe.errors import SettingsError
from cryolithe.recipes import find_recipe, shipped_for

_RECIPE_ENDINGS = (".yaml", ".yml")
STYLE_MINUTES, PLAIN_SNR_DB = 10.0, -5.0


class _Command(click.Command):
    """``--style`` takes all files up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write ``--style A B C`` as click understands it."""
        said: list[str] = []
        left = list(args)
        while left:
            word = left.pop(0)
            if word != "--style":
                said.append(word)
                continue
            if not left or not _is_style_file(left[0]):
                raise SettingsError("--style takes STACK ANGLES of one or more series, or one style (.safetensors)")
            while left and _is_style_file(left[0]):
                said += ["--style", left.pop(0)]
        return super().parse_args(ctx, said)


def _is_style_file(word: str) -> bool:
    """Whether a word after ``--style`` belongs to it: not an option, not the recipe."""
    if word.startswith("-") or word.lower().endswith(_RECIPE_ENDINGS):
        return False
    return Path(word).is_file() or word not in shipped_for("simulate")


@click.command("simulate", cls=_Command)
@click.argument("recipe", type=click.Path(path_type=Path), required=False, shell_complete=complete_recipe("simulate"))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write into.")
@click.option(
    "--molecules",
    type=click.Path(path_type=Path),
    multiple=True,
    help="PDB or mmCIF structure, MRC map, folder of maps, or HDF5 library to place; may be repeated. "
    "Default: procedural_1, which comes with the program.",
)
@click.option(
    "--like",
    type=click.Path(path_type=Path),
    help="Noise profile (cryolithe noise measure): images get the noise and the signal's spectrum measured there.",
)
@click.option(
    "--style",
    type=click.Path(path_type=Path),
    multiple=True,
    help="STACK ANGLES [STACK ANGLES ...]: aligned series (dense = dark) of a laboratory, whose look the images get; "
    "or a style (.safetensors) learned before, which every run leaves in its folder.",
)
@click.option("--style-minutes", type=float, help=f"For learning a style.  [default: {STYLE_MINUTES:g}]")
@click.option("--style-steps", type=click.IntRange(1), help="At most; given, the same steps give the same style.")
@click.option("--snr", "snr_db", type=float, help=f"Without RECIPE: noise level in dB.  [default: {PLAIN_SNR_DB:g}]")
@click.option("--seed", type=int, help="The same seed gives the same files. Default: the recipe's, or 0.")
@click.option("--resume", is_flag=True, help="Keep the finished series of an interrupted run and go on.")
@click.option("--overwrite", is_flag=True, help="Without RECIPE: replace existing files.")
def command(
    recipe: Path | None,
    output: Path,
    molecules: tuple[Path, ...],
    snr_db: float | None,
    seed: int | None,
    **options: Any,
) -> None:
    """Simulate tilt series as RECIPE says: crowded cells, optics, counting noise.

    RECIPE is a YAML file or the name of a shipped one, such as cellular: see `cryolithe recipes list`.

    Each series TS_001, TS_002, ... gets its stack and even/odd halves, .tlt, .mdoc, truth and label volumes, particle
    positions (STAR), one HDF5 file for training, and a contact sheet to judge it by. recipe.resolved.yaml
    records every number drawn. Without molecules, those of procedural_1 are placed, which comes with the program and
    may be passed on; if the recipe asks for a number of procedural ones, so many new ones are drawn (with molecules
    too).

    Without RECIPE: one small plain series, 41 tilts of ±60° with white noise, as tilts.mrc, tilts.tlt and truth.mrc.
    """
    if snr_db is not None:
        check_snr(snr_db)
    if seed is not None and seed < 0:
        raise SettingsError(f"--seed must not be negative, got {seed}")
    _refuse_idle(recipe, {**options, "snr": snr_db})
    if recipe is None:
        _plain_series(output, molecules, PLAIN_SNR_DB if snr_db is None else snr_db, seed or 0, options["overwrite"])
        return
    from cryolithe.machine.device import keep_freed_memory
    from cryolithe.simulation.campaign import run_recipe
    from cryolithe.simulation.library import with_molecules
    from cryolithe.simulation.recipe import like_profile, read_recipe

    keep_freed_memory()
    recipe = find_recipe(recipe, "simulate")
    read = read_recipe(recipe)
    if seed is not None:
        read = read.model_copy(update={"seed": seed})
    if options["like"]:
        read, note = like_profile(read, options["like"])
        if note:
            say(f"Note: {note}", err=True)
    read, library, placed = with_molecules(read, recipe.parent, molecules)
    styling = None
    if options["style"]:
        if read.imaging.is_measured:
            raise SettingsError("both a noise profile and --style say what the images look like; give one of them")
        from cryolithe.cli.simulate_style import Wanted, restyling_of

        minutes = STYLE_MINUTES if options["style_minutes"] is None else options["style_minutes"]
        wanted = Wanted(options["style"], minutes, options["style_steps"], output, options["resume"])
        read, styling = restyling_of(wanted, read, library)
    with progress_watcher() as watcher:
        watcher.stage("Simulating series", read.series)
        lines: list[str] = []
        words: dict[str, list[str]] = {}

        def on_series(line: str) -> None:
            lines.append(line)
            watcher.advance(1)

        def on_word(name: str, word: str) -> None:
            words.setdefault(word, []).append(name)

        run_recipe(read, library, output, options["resume"], on_series, on_word, styling)
    if placed:
        say(f"Note: {placed}", err=True)
    for word, names in words.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        say(f"Note: {word} ({', '.join(names[:3])}{more})", err=True)
    for line in lines:
        click.echo(f"{output}/{line}")


def _refuse_idle(recipe: Path | None, options: dict[str, Any]) -> None:
    """Raise SettingsError for an option that would change nothing."""
    if recipe is None:
        if options["resume"]:
            raise SettingsError("--resume goes with a RECIPE")
        for name in ("like", "style"):
            if options[name]:
                raise SettingsError(f"--{name} goes with a RECIPE, which says what the specimens are")
    elif options["snr"] is not None:
        raise SettingsError(f"--snr is for the plain series without RECIPE, and {recipe} says its noise; leave it out")
    elif options["overwrite"]:
        raise SettingsError(
            f"--overwrite is for the plain series without RECIPE: series of {recipe} are never replaced; give another "
            "-o, or --resume to go on"
        )
    learned = options["style"] and not any(is_stored_style(path) for path in options["style"])
    for name in ("style-minutes", "style-steps"):
        if options[name.replace("-", "_")] is not None and not learned:
            there = f"{options['style'][0]} was learned before" if options["style"] else "there is no --style"
            raise SettingsError(
                f"--{name} is for learning a style, and {there}: it would change nothing; leave it out, or give "
                "--style STACK ANGLES"
            )


def _plain_series(output: Path, molecules: tuple[Path, ...], snr_db: float, seed: int, overwrite: bool) -> None:
    """64 x 128 x 128 voxels of 10 Å, molecules and membranes, white noise."""
    from cryolithe.formats import write_angles_deg, write_stack, write_volume
    from cryolithe.formats.files import all_or_none, check_folder_name, make_folder
    from cryolithe.simulation.library import plain_library
    from cryolithe.simulation.plain import plain_series
    from cryolithe.volume import Volume

    check_folder_name(output)
    library, called = plain_library(molecules)
    make_folder(output)
    made = plain_series(library, snr_db, seed)
    label = f"CryoLithe {__version__} simulated, seed {seed}, {snr_db:g} dB, dense dark"
    label += "" if molecules else f", {called}"
    voxel = made.voxel_size_angstrom
    tilts, angles, truth = (output / name for name in ("tilts.mrc", "tilts.tlt", "truth.mrc"))
    with all_or_none((tilts, angles, truth)):
        write_stack(tilts, made.images, voxel, label, overwrite=overwrite)
        write_angles_deg(angles, made.angles_deg, overwrite=overwrite)
        write_volume(truth, Volume(made.truth, voxel), label=label, overwrite=overwrite)
    click.echo(f"{output}: tilts.mrc ({len(made.angles_deg)} images), tilts.tlt, truth.mrc; molecules: {called}")
