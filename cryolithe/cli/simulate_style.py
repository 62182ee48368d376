"""``--style`` of ``cryolithe simulate``: read stacks or a stored style, learn, and say what was found."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryolithe import __version__
from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import InputError, OutputError, SettingsError

if TYPE_CHECKING:
    from cryolithe.simulation import Molecule, Recipe
    from cryolithe.simulation.campaign import Restyling
    from cryolithe.style.stored import Style
    from cryolithe.style.target import Stack

ENDING = ".safetensors"
FILE = "style.safetensors"
SAME_PIXEL = 0.01
# Series that only the style sees: none of a campaign has such a number.
FIRST_SEEN, SEEN = 900_001, 2


@dataclass(frozen=True)
class Wanted:
    """What the command was told.

    Attributes:
        files: STACK ANGLES, once or more, or one stored style.
        minutes: for learning.
        steps: at most so many, or None.
        output: folder of the series.
        resume: whether to go on with them.
    """

    files: tuple[Path, ...]
    minutes: float
    steps: int | None
    output: Path
    resume: bool

    @property
    def stored(self) -> bool:
        """Whether the style was learned before."""
        return any(map(is_stored_style, self.files))


def is_stored_style(path: Path) -> bool:
    """Whether a name is that of a style that was learned before; else it is of a stack or its angles."""
    return path.name.lower().endswith(ENDING)


def restyling_of(wanted: Wanted, recipe: Recipe, library: tuple[Molecule, ...]) -> tuple[Recipe, Restyling]:
    """The style of a campaign, read or learned, and the recipe with the voxel size that it is of.

    Raises:
        CryoLitheError: in one line, what does not fit.
    """
    from cryolithe.files.hashing import file_sha256
    from cryolithe.simulation.campaign import Restyling
    from cryolithe.style.apply import restyled
    from cryolithe.style.stored import read_style

    if not 0 < wanted.minutes < math.inf:
        raise SettingsError(f"--style-minutes must be positive, got {wanted.minutes}")
    if wanted.stored:
        if len(wanted.files) > 1:
            raise SettingsError(f"give one {ENDING} file or STACK ANGLES to --style, not {len(wanted.files)} files")
        file = wanted.files[0]
        style = read_style(file)
        recipe = _narrowed(recipe, style.pixel_size_angstrom, file.name)
    else:
        file = wanted.output / FILE
        recipe, style = _learned(wanted, recipe, library, file)
    _check_images(recipe)
    facts = {"sha256": file_sha256(file), **style.facts}
    return recipe, Restyling(facts, lambda series, seed: restyled(series, style, seed))


def _learned(wanted: Wanted, recipe: Recipe, library: tuple[Molecule, ...], file: Path) -> tuple[Recipe, Style]:
    """Learn a style and keep it beside the series, or take the one that an interrupted run has left there."""
    from cryolithe.formats.files import check_folder_name, make_folder
    from cryolithe.simulation.crowd import check_fits
    from cryolithe.style.learn import Learning, learn
    from cryolithe.style.stored import read_style, style_of, write_style

    check_folder_name(wanted.output)
    check_fits(recipe.cell, library)
    if (wanted.output / "recipe.resolved.yaml").exists() and not wanted.resume:
        raise OutputError(f"{wanted.output} holds simulated series; give --resume to go on with them, or another -o")
    stacks, pixel, facts = _read(wanted, recipe)
    recipe = _narrowed(recipe, pixel, wanted.files[0].name)
    _check_images(recipe)
    facts |= {"seed": recipe.seed, "steps_wanted": wanted.steps}
    if file.exists():
        kept = read_style(file)
        if not wanted.resume or any(kept.facts.get(name) != value for name, value in facts.items()):
            raise OutputError(f"{file} exists and is another style; give it to --style, or another -o")
        say(f"Note: style of the interrupted run, {file}", err=True)
        return recipe, kept
    for note in (*(note for stack in stacks for note in stack.notes), "dense is taken to be dark in the stacks"):
        say(f"Note: {note}", err=True)
    with progress_watcher() as watcher:
        watcher.stage("Clean series for the style", SEEN)
        clean = [_clean(recipe, library, number, lambda: watcher.advance(1)) for number in range(SEEN)]
        watcher.stage("Learning the style", 1.0)
        shown = 0.0

        def on_step(done: float) -> None:
            nonlocal shown
            watcher.advance(min(done, 1.0) - shown)
            shown = min(done, 1.0)

        how = Learning(60 * wanted.minutes, wanted.steps, seed=recipe.seed)
        made = style_of(learn(stacks, tuple(clean), how, on_step), pixel, facts)
    make_folder(wanted.output)
    write_style(file, made)
    told = made.facts
    for note in told["notes"]:
        say(f"Note: {note}", err=True)
    say(
        f"Style: {told['steps']} steps; spectra {told['spectra_apart_db']:.2f} dB rms from the stacks' (white noise "
        f"{told['white_noise_apart_db']:.2f} dB), contrast x {told['contrast']:.3g}; --style {file} gives it again",
        err=True,
    )
    return recipe, made


def _clean(recipe: Recipe, library: tuple[Molecule, ...], number: int, on_done: Any) -> Stack:
    from cryolithe.simulation import simulate_series
    from cryolithe.style.target import clean_stack

    series = simulate_series(recipe, library, FIRST_SEEN + number).series
    on_done()
    return clean_stack(series.clean, series.plan.angles_deg, "a series of the recipe")


def _read(wanted: Wanted, recipe: Recipe) -> tuple[tuple[Stack, ...], float, dict[str, Any]]:
    """Stacks, their pixel size, and which they are."""
    from cryolithe.files.hashing import file_sha256
    from cryolithe.formats import read_tilt_series
    from cryolithe.style.target import stack_of

    if len(wanted.files) % 2:
        raise SettingsError(f"--style takes STACK ANGLES of each series; found {len(wanted.files)} files")
    stacks, pixels, hashes = [], [], []
    for path, angles in zip(wanted.files[::2], wanted.files[1::2], strict=True):
        series = read_tilt_series(path, angles)
        for note in series.notes:
            say(f"Note: {path}: {note}", err=True)
        stacks.append(stack_of(series, str(path)))
        pixels.append(series.pixel_size_angstrom or _assumed_pixel(recipe, path))
        hashes.append({"stack": file_sha256(path), "angles": file_sha256(angles)})
        if abs(pixels[-1] / pixels[0] - 1) > SAME_PIXEL:
            raise InputError(
                f"{path} has pixels of {pixels[-1]:g} Å but {wanted.files[0]} of {pixels[0]:g} Å; a style is of one "
                "pixel size: bin alike"
            )
    if len({entry["stack"] for entry in hashes}) < len(hashes):
        raise InputError("one stack is given to --style twice; give each once")
    return tuple(stacks), pixels[0], {"program": f"CryoLithe {__version__}", "stacks": hashes}


def _assumed_pixel(recipe: Recipe, path: Path) -> float:
    least, most = recipe.cell.voxel_size_angstrom
    if least != most:
        raise InputError(
            f"{path} does not say its pixel size, and the recipe draws voxels of {least:g}-{most:g} Å; set "
            "cell.voxel_size_angstrom to the stack's pixel size, twice"
        )
    say(f"Note: {path} does not say its pixel size; taken for {least:g} Å, the recipe's", err=True)
    return least


def _narrowed(recipe: Recipe, pixel: float, name: str) -> Recipe:
    """The recipe with voxels as large as the pixels of the style."""
    least, most = recipe.cell.voxel_size_angstrom
    if not least * (1 - SAME_PIXEL) <= pixel <= most * (1 + SAME_PIXEL):
        raise InputError(
            f"{name} has pixels of {pixel:g} Å, but the recipe draws voxels of {least:g}-{most:g} Å; set its "
            "cell.voxel_size_angstrom, or bin the stacks"
        )
    size = min(max(pixel, least), most)
    if (size, size) != (least, most):
        say(f"Note: all voxels are of {size:.4g} Å instead of {least:g}-{most:g} Å: {name} is of those", err=True)
    return recipe.model_copy(update={"cell": replace(recipe.cell, voxel_size_angstrom=(size, size))})


def _check_images(recipe: Recipe) -> None:
    from cryolithe.style.target import SMALLEST_PX

    _, height, width = recipe.cell.shape
    if min(height, width) < SMALLEST_PX:
        raise SettingsError(
            f"the recipe's images have {width} x {height} pixels; styled ones need {SMALLEST_PX} along each axis: "
            "enlarge cell.shape"
        )
