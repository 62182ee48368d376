"""``cryolithe noise``: measure the noise and the signal of recorded series, and look at what was measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cryolithe import __version__
from cryolithe.cli.complete import complete_recipe
from cryolithe.cli.plain import say
from cryolithe.cli.progress import progress_watcher
from cryolithe.errors import CryoLitheError, InputError, SettingsError
from cryolithe.recipes import find_recipe

if TYPE_CHECKING:
    from cryolithe.noise.measure import Measured, Plan
    from cryolithe.noise.profile import Profile
    from cryolithe.tilts import TiltSeries

_ENDINGS = (".h5", ".hdf5")
_SAME_PIXEL = 0.01
LEAST_PATHS = 0.01  # of thickness, in mean free paths: no specimen is as thin


@click.group("noise")
def command() -> None:
    """Noise as your microscope makes it: measured from half frames, added to simulated images.

    \b
    Examples
      cryolithe noise measure TS_1_EVN.mrc TS_1_ODD.mrc TS_1.tlt -o profile.h5
      cryolithe noise show profile.h5 -o profile.png --recipe cellular
      cryolithe simulate cellular --like profile.h5 -o like_ours
    """


@command.command("measure")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1)
@click.option(
    "--tilts",
    type=(click.Path(path_type=Path), click.Path(path_type=Path)),
    multiple=True,
    help="STACK ANGLES of a series without frame halves: neighbouring tilts give an upper bound of the noise.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Profile to write (.h5).")
@click.option("--pixel-size", type=float, help="Pixel size in Å, where the stacks' headers are wrong or silent.")
@click.option("--contrast", type=click.Choice(["auto", "dark", "bright"]), default="auto", show_default=True,
              help="What dense matter is in the stacks; auto: what images say, dark where they do not.")  # fmt: skip
@click.option("--exposure", type=float, help="Exposure of a series in e/Å², to be kept with the profile.")
@click.option("--seed", type=click.IntRange(0), help="Of where crops are taken, from halves.  [default: 0]")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def measure(
    files: tuple[Path, ...],
    tilts: tuple[tuple[Path, Path], ...],
    output: Path,
    **options: Any,
) -> None:
    """Measure the noise of aligned series: FILES are EVEN ODD ANGLES of each series, one or more.

    Half of the difference of the halves is the noise of their average, with all that was done to the images in it;
    the cross-spectrum of the halves is the signal. The profile holds both for each tilt, and pieces of noise; no image.
    """
    from cryolithe.formats.files import check_ending, refuse_existing

    check_ending(output, _ENDINGS, "a noise profile")
    refuse_existing(output, options["overwrite"])
    if bool(files) == bool(tilts):
        raise SettingsError("give EVEN ODD ANGLES of each series, or --tilts STACK ANGLES of series without halves")
    if len(files) % 3:
        raise SettingsError(f"give three files for each series, EVEN ODD ANGLES; found {len(files)} files")
    if options["exposure"] is not None and not 0 < options["exposure"] < math.inf:
        raise SettingsError(f"--exposure must be positive, got {options['exposure']}")
    if tilts and options["seed"] is not None:
        raise SettingsError(
            "--seed is for crops of halves, of which --tilts keeps none: it would change nothing; leave it out"
        )
    options["seed"] = options["seed"] or 0
    groups = [files[n : n + 3] for n in range(0, len(files), 3)] or [(stack, angles) for stack, angles in tilts]
    profile = _measured([tuple(group) for group in groups], options)
    from cryolithe.noise.stored import write_profile

    write_profile(output, profile, options["overwrite"])
    for note in profile.notes:
        say(f"Note: {note}", err=True)
    for line in _told(profile):
        say(line)
    say(f"{output}: noise profile of {len(groups)} series, {profile.angles_deg.size} images")


def _measured(groups: list[tuple[Path, ...]], options: dict[str, Any]) -> Profile:
    """Read, check and measure all series."""
    from cryolithe.cli.noise_images import seen_in_images
    from cryolithe.files.hashing import file_sha256
    from cryolithe.formats.reading import file_state, refuse_changed
    from cryolithe.noise.measure import Plan, largest_plan, room, usable_shape
    from cryolithe.noise.pooling import bank_size, pool

    series = [_read(group, options["pixel_size"]) for group in groups]
    shapes = [usable_shape(one[0], str(group[0])) for one, group in zip(series, groups, strict=True)]
    pixels = [_pixel(one[0], group[0]) for one, group in zip(series, groups, strict=True)]
    for pixel, group in zip(pixels, groups, strict=True):
        if abs(pixel / pixels[0] - 1) > _SAME_PIXEL:
            raise InputError(
                f"{group[0]} has pixels of {pixel:g} Å but {groups[0][0]} of {pixels[0]:g} Å; a profile is of one "
                "pixel size: bin alike, or make two profiles"
            )
    states = {path: file_state(path) for group in groups for path in group}
    hashes = [[file_sha256(path) for path in group] for group in groups]
    stacks = [tuple(found[:-1]) for found in hashes]
    if len(set(stacks)) < len(stacks):
        raise InputError("one series is given twice; give each once")
    images = sum(one[0].geometry.tilts for one in series)
    patch, tile = largest_plan([room(one, shape) for one, shape in zip(series, shapes, strict=True)])
    halves = len(groups[0]) == 3
    tile, count = bank_size(images, tile)
    plan = Plan(patch, tile, count, options["seed"])
    with progress_watcher() as watcher:
        watcher.stage("Measuring", images)
        parts = [
            _measure_one(one, group, plan, number, lambda: watcher.advance(1))
            for number, (one, group) in enumerate(zip(series, groups, strict=True))
        ]
        watcher.stage("Looking", len(series))
        contrast, seen = seen_in_images(series, groups, options["contrast"], lambda: watcher.advance(1))
    refuse_changed(states, "it was measured")
    notes = [*seen, *(note for part in parts for note in part.notes)]
    notes += [note for one, group in zip(series, groups, strict=True) for note in _notes(one, group)]
    names = ("even", "odd", "angles") if halves else ("stack", "angles")
    facts = {
        "program": f"CryoLithe {__version__}",
        "inputs": [dict(zip(names, found, strict=True)) for found in hashes],
        "shapes": [[one[0].geometry.tilts, *shape] for one, shape in zip(series, shapes, strict=True)],
        "seed": options["seed"],
        "notes": list(dict.fromkeys(notes)),
    }
    about = {
        "pixel_size_angstrom": pixels[0],
        "polarity": contrast,
        "image_shape": shapes[0],
        "exposure": options["exposure"] or math.nan,
    }
    return pool(parts, "halves" if halves else "neighbours", about, facts)


def _measure_one(
    series: tuple[TiltSeries, ...], group: tuple[Path, ...], plan: Plan, number: int, on_image: Any
) -> Measured:
    import numpy as np

    from cryolithe.evaluation.half_images import doubts_of_halves
    from cryolithe.noise.measure import measure_halves, measure_neighbours

    if len(series) == 1:
        return measure_neighbours(series[0], str(group[0]), plan, number, on_image)
    doubts = doubts_of_halves(np.asarray(series[0].images), np.asarray(series[1].images))
    # Opposite contrast and copies are refused by the measurement itself.
    doubt = doubts.unlike or doubts.apart or doubts.single or doubts.scaled
    if doubt and not doubts.opposite and not doubts.same:
        raise InputError(f"{group[0]} and {group[1]} {doubt}")
    return measure_halves((series[0], series[1]), (str(group[0]), str(group[1])), plan, number, on_image)


def _read(group: tuple[Path, ...], pixel_size: float | None) -> tuple[TiltSeries, ...]:
    """The stacks of a series, two halves or one.

    Raises:
        InputError: if halves are of other shapes or pixel sizes, or the same file.
    """
    from cryolithe.formats import read_tilt_series

    *stacks, angles = group
    found = tuple(read_tilt_series(stack, angles, pixel_size) for stack in stacks)
    if len(found) == 2:
        shapes = [one.images.shape for one in found]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{stacks[0]} holds {' x '.join(map(str, shapes[0]))} pixels (tilts, y, x) but {stacks[1]} "
                f"{' x '.join(map(str, shapes[1]))}; give the halves of one series"
            )
        if stacks[0].samefile(stacks[1]):
            raise InputError(f"{stacks[0]} is given as both halves; give the even and the odd frames")
        sizes = [one.pixel_size_angstrom for one in found]
        if sizes[0] and sizes[1] and abs(sizes[0] / sizes[1] - 1) > _SAME_PIXEL:
            raise InputError(
                f"{stacks[0]} has pixels of {sizes[0]:g} Å but {stacks[1]} of {sizes[1]:g} Å; give the halves of one "
                "series, or --pixel-size"
            )
    return found


def _pixel(series: TiltSeries, path: Path) -> float:
    if series.pixel_size_angstrom is None:
        raise InputError(f"{path} does not say its pixel size; give it with --pixel-size, in Å")
    return series.pixel_size_angstrom


def _notes(series: tuple[TiltSeries, ...], group: tuple[Path, ...]) -> list[str]:
    """What was forgiven when the files were read; of files only their names."""
    return [f"{path.name}: {note}" for one, path in zip(series, group, strict=False) for note in one.notes]


def _told(profile: Profile) -> list[str]:
    """What a profile says in a few lines."""
    from cryolithe.noise.profile import MEAN_FREE_PATH_NM

    bound = "at most " if profile.kind == "neighbours" else ""
    lines = [
        f"{profile.kind}: {len(set(profile.series.tolist()))} series, {profile.angles_deg.size} images, "
        f"{profile.angles_deg.min():.0f}° to {profile.angles_deg.max():.0f}°, pixels of "
        f"{profile.pixel_size_angstrom:g} Å, dense {profile.polarity}, "
        + ("grey values are brightness" if profile.has_levels else "grey values without a mean: units unknown")
    ]
    if math.isfinite(profile.exposure):
        lines.append(f"exposure: {profile.exposure:g} e/Å²")
    if profile.thickness_paths < LEAST_PATHS:
        lines.append("thickness: not told, the images do not become darker with tilt as 1 / cos")
    elif math.isfinite(profile.thickness_paths):
        lines.append(
            f"thickness: {profile.thickness_paths:.2f} mean free paths, about "
            f"{profile.thickness_paths * MEAN_FREE_PATH_NM:.0f} nm"
        )
    checks: dict[str, float] = profile.facts.get("checks", {})
    if checks:
        lines.append(
            f"crops: {len(profile.tiles)} of {profile.tiles.shape[1]} px; of the signal in them: correlation "
            f"{checks['signal_in_noise']:.1e} (chance {checks['signal_in_noise_by_chance']:.1e}), "
            f"SSNR of the mean crop {checks['ssnr_of_mean_tile']:.1e}"
        )
    slope, error = profile.variance_slope
    if profile.follows_brightness:
        lines.append(
            f"variance follows brightness with a slope of {slope:.2f} ± {error:.2f}: simulated noise does, too"
        )
    if profile.kind == "neighbours":
        lines.append(f"noise is {bound}what is told here; no crops are kept")
    return lines


@command.command("show")
@click.argument("profile", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Figure to write (.png, .pdf, .svg).")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    metavar="NAME|PATH",
    help="Simulate a series of this recipe and show it beside.",
    shell_complete=complete_recipe("simulate"),
)
@click.option("--overwrite", is_flag=True, help="Replace the figure if it exists.")
def show(profile: Path, output: Path | None, recipe: Path | None, overwrite: bool) -> None:
    """Tell what a profile holds: noise, signal and SNR of each tilt; with -o also as a figure.

    With --recipe, one series of it is simulated twice, with its own noise and with the profile's, and measured alike.
    """
    from cryolithe.cli.fsc import PLOT_SUFFIXES
    from cryolithe.formats.files import check_ending, check_place
    from cryolithe.noise.stored import read_profile

    if output is None and overwrite:
        raise SettingsError("--overwrite is for the figure of -o, which is not given; leave it out, or give -o")
    if output is not None:
        check_ending(output, PLOT_SUFFIXES, "a figure")
        check_place(output, overwrite)
    found = read_profile(profile)
    for note in found.notes:
        say(f"Note: {note}", err=True)
    for line in _told(found):
        say(line)
    beside = _simulated(recipe, profile) if recipe is not None else {}
    profiles = {"measured": found, **beside}
    for line in _table(profiles):
        say(line)
    if output is not None:
        from cryolithe.noise.figure import draw_profiles

        draw_profiles(output, profiles)
        say(f"{output}: spectra, SSNR, samples of noise")


def _table(profiles: dict[str, Profile]) -> list[str]:
    """Noise, signal and SNR by tilt; of simulated series the SNR of the nearest tilt."""
    import numpy as np

    first = profiles["measured"]
    beside = {name: one for name, one in profiles.items() if name != "measured"}
    lines = ["  tilt °     noise power    cross power   SNR dB" + "".join(f"   {name}" for name in beside)]
    noise, signal, snr = first.noise_variance(), first.signal_variance(), first.snr_db()
    for n in np.lexsort((first.angles_deg, first.series)):
        angle = first.angles_deg[n]
        others = ""
        for name, one in beside.items():
            nearest = int(np.abs(one.angles_deg - angle).argmin())
            others += f"   {one.snr_db()[nearest]:{len(name)}.1f}"
        lines.append(f"{angle:8.2f} {noise[n]:15.5g} {signal[n]:14.5g} {snr[n]:8.1f}{others}")
    return lines


def _simulated(recipe: Path, profile: Path) -> dict[str, Profile]:
    """Profiles of one simulated series: with the recipe's own noise, and with the measured one."""
    from dataclasses import replace

    from cryolithe.geometry import TiltGeometry
    from cryolithe.noise.measure import Plan, largest_plan, measure_halves
    from cryolithe.noise.pooling import bank_size, pool
    from cryolithe.simulation import simulate_series
    from cryolithe.simulation.library import with_molecules
    from cryolithe.simulation.recipe import like_profile, read_recipe
    from cryolithe.tilts import TiltSeries

    recipe = find_recipe(recipe, "simulate")
    read = read_recipe(recipe)
    read, library, _ = with_molecules(read, recipe.parent)
    like, note = like_profile(read, profile)
    if note:
        say(f"Note: {note}", err=True)
    own = like.model_copy(update={"imaging": replace(like.imaging, noise="counting")})
    found = {}
    for name, one in (("simulated", own), ("simulated, measured noise", like)):
        made = simulate_series(one, library, 1)
        series, voxel = made.series, made.cell.voxel_size_angstrom
        shape = (series.images.shape[1], series.images.shape[2])
        geometry = TiltGeometry(series.plan.angles_deg, shape)
        halves = TiltSeries(series.even, geometry, voxel), TiltSeries(series.odd, geometry, voxel)
        patch, tile = largest_plan([shape])
        tile, count = bank_size(len(series.plan.angles_deg), tile)
        for word in series.drawn.get("words", ()):
            say(f"Note: {word}", err=True)
        try:
            part = measure_halves(halves, ("the simulated even half", "the odd half"), Plan(patch, tile, count, 0))
        except CryoLitheError as error:
            raise InputError(f"a series of {recipe} cannot be measured: {error}") from error
        about = {"pixel_size_angstrom": voxel, "polarity": "dark", "image_shape": shape}
        found[name] = pool([part], "halves", about, {})
    return found
