"""Simulated series on disk: what `cryolithe simulate RECIPE.yaml -o DIR` writes.

    recipe.resolved.yaml    the recipe with its defaults, and every number drawn for each series
    TS_001.mrc              the aligned stack, dense = dark; TS_001_EVN.mrc, TS_001_ODD.mrc its halves
    TS_001.tlt, .mdoc       angles; doses, defoci, order of acquisition
    TS_001_truth.mrc        the target, dense = dark; TS_001_labels.mrc its classes (uint16, 0 = ice)
    TS_001_particles.star   where every molecule is, RELION-5 columns
    TS_001.png              a contact sheet
    TS_001.h5               all of it for training (`cryolithe.formats.pairs`); written last: with it a series is done

A series is drawn from the seed and its number alone, so it does not matter which series are made in one run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.errors import InputError, OutputError, SettingsError
from cryolithe.files.hashing import file_sha256
from cryolithe.files.yaml_table import read_yaml_table, yaml_text
from cryolithe.formats import write_angles_deg, write_stack, write_volume
from cryolithe.formats.files import check_folder_name, make_folder, replacing
from cryolithe.formats.microscope.treated import simulated_label
from cryolithe.formats.pairs import Pair, open_pair, write_pair
from cryolithe.formats.particles.star import Particle, write_particles
from cryolithe.formats.stacks.mdoc import MdocImage, write_mdoc
from cryolithe.projector.classical import fbp_of_images
from cryolithe.report.figures import plot_contact_sheet
from cryolithe.report.greys import DENSE_DARK
from cryolithe.simulation.cell import Cell
from cryolithe.simulation.crowd import check_fits, make_cell, with_grain
from cryolithe.simulation.imaging import ImagedSeries, image_series
from cryolithe.simulation.molecules import Molecule
from cryolithe.simulation.recipe import Recipe
from cryolithe.volume import Volume

# Changes with what a recipe's series look like, which must not be mixed: since 2, images show the specimen once.
SIMULATOR = 2
_RECORD_LIMIT_BYTES = 100_000_000
ENDINGS = (
    ".mrc", "_EVN.mrc", "_ODD.mrc", ".tlt", ".mdoc", "_truth.mrc", "_labels.mrc", "_particles.star", ".png", ".h5",
)  # fmt: skip


@dataclass(frozen=True)
class SimulatedSeries:
    """A cell and its tilt series."""

    cell: Cell
    series: ImagedSeries

    @property
    def truth(self) -> NDArray[np.float32]:
        """The target in the field of view, dense = dark, shape ``(z, y, x)``."""
        return -np.ascontiguousarray(self.cell.density[:, :, self.cell.field])


@dataclass(frozen=True)
class Restyling:
    """What gives finished series another look.

    Attributes:
        facts: plain values that decide it; recorded with the recipe.
        apply: from a series and a seed to another one with the same ``clean``, angles and shapes.
    """

    facts: dict[str, Any]
    apply: Callable[[ImagedSeries, int], ImagedSeries]


def series_name(number: int) -> str:
    """``TS_001`` for the first series."""
    return f"TS_{number:03d}"


def simulate_series(recipe: Recipe, library: tuple[Molecule, ...], number: int) -> SimulatedSeries:
    """Draw series ``number`` (from 1): the same recipe, library and number give the same arrays."""
    rng = np.random.default_rng([recipe.seed, number])
    cell = make_cell(recipe.cell, library, rng)
    imaging, thickness = recipe.imaging, cell.thickness_angstrom
    if imaging.thickness_angstrom is None:
        imaging = replace(imaging, thickness_angstrom=(thickness, thickness))
    imaged = image_series(with_grain(cell, rng), cell.field, cell.voxel_size_angstrom, imaging, rng)
    return SimulatedSeries(cell, imaged)


def run_recipe(
    recipe: Recipe,
    library: tuple[Molecule, ...],
    folder: Path,
    resume: bool = False,
    on_series: Callable[[str], object] = lambda line: None,
    on_word: Callable[[str, str], object] = lambda name, word: None,
    restyling: Restyling | None = None,
) -> None:
    """Simulate all series of a recipe into a folder.

    Args:
        recipe: what to draw.
        library: molecules to place; may be empty.
        folder: made if it does not exist.
        resume: keep finished series of the same recipe and go on with the others.
        on_series: called with a line about each series.
        on_word: called with the name of a series and what a user should know of it.
        restyling: gives each series its look, from noise and contrast; what is in it stays.

    Raises:
        OutputError: if the folder holds another recipe's series, any without ``resume``, or other files of the same
            names, or cannot be written.
        SettingsError: if a molecule does not fit into the field.
    """
    check_folder_name(folder)
    check_fits(recipe.cell, library)
    make_folder(folder)
    plain: dict[str, Any] = {
        "cryolithe": __version__,
        **plain_recipe(recipe),
        "library": fingerprints(library),
    }
    if restyling is not None:
        plain["style"] = restyling.facts
    made_of = _digest(plain)
    record = folder / "recipe.resolved.yaml"
    drawn: dict[str, Any] = {}
    fresh = not record.exists() or (resume and _is_of_nothing(record))
    if not fresh:
        if not resume:
            raise OutputError(f"{folder} holds simulated series; give --resume to go on with them, or another -o")
        earlier = _read_record(record)
        for key in {**plain, "style": None}:
            if _without_count(earlier.get(key)) != _without_count(_json(plain.get(key))):
                what = "version of CryoLithe" if key == "cryolithe" else key
                raise OutputError(f"{folder} holds series of another {what}; choose another -o")
        drawn = earlier.get("drawn") or {}
    else:
        _refuse_foreign_files(folder, recipe.series)
    _write_yaml(record, {**plain, "drawn": drawn})
    for number in range(1, recipe.series + 1):
        name = series_name(number)
        kept = _made_before(folder, name, made_of, drawn.get(name))
        if kept is not None:
            if drawn.get(name) != kept:  # the run before was cut off after the series and before the record
                drawn[name] = kept
                _write_yaml(record, {**plain, "drawn": drawn})
            on_series(f"{name}: already done")
            continue
        _remove(folder, name)
        try:
            made = simulate_series(recipe, library, number)
            if restyling is not None:
                seed = int(np.random.default_rng([recipe.seed, number, 2]).integers(2**62))
                made = replace(made, series=restyling.apply(made.series, seed))
            drawn[name] = _drawn(made)
            write_series(folder, name, made, drawn[name], made_of)
        except BaseException:
            _remove(folder, name)
            # Nothing is done that would keep another recipe from the folder, unless a style was learned.
            if fresh and number == 1 and restyling is None:
                record.unlink(missing_ok=True)
            raise
        _write_yaml(record, {**plain, "drawn": drawn})
        reached = made.cell.reached_crowding
        short = "" if reached >= 0.9 * made.cell.wanted_crowding else f" of {made.cell.wanted_crowding:.0%} wanted"
        on_series(f"{name}: {len(made.cell.placements)} particles, {reached:.0%} full{short}")
        for word in made.series.drawn.get("words", ()):
            on_word(name, word)


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values; where its noise profile lies does not matter, what that holds does."""
    plain: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "simulator": SIMULATOR}
    if recipe.imaging.is_measured:
        profile = Path(recipe.imaging.noise)
        plain["recipe"]["imaging"]["noise"] = profile.name
        plain["noise profile"] = file_sha256(profile)
    return plain


def _digest(plain: dict[str, Any]) -> str:
    """SHA-256 of what decides a series beside its number: recipe without the count, library, version."""
    values = {key: _without_count(value) for key, value in plain.items()}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _made_before(folder: Path, name: str, made_of: str, drawn: Any) -> Any:
    """The numbers drawn for a series of this very recipe that is complete; None where it is not (yet).

    Raises:
        OutputError: if its training file is one of something else.
    """
    path = folder / f"{name}.h5"
    if not all(file.exists() for file in _series_files(folder, name)):
        return None
    try:
        with open_pair(path) as pair:
            origin = pair.origin
    except InputError:
        return None  # cut off: it is made anew
    same = origin.get("made_of", made_of) == made_of and (drawn is None or origin.get("drawn") == _json(drawn))
    if not same or not str(origin.get("program", "")).startswith("CryoLithe"):
        raise OutputError(f"{path} exists and was not made by this recipe; remove it or choose another -o")
    return origin.get("drawn")


def _json(value: Any) -> Any:
    """A value as it comes back from a file."""
    return json.loads(json.dumps(value))


def _without_count(value: Any) -> Any:
    """A recipe but for the number of its series, which are independent of each other: a campaign may grow."""
    return {k: v for k, v in value.items() if k != "series"} if isinstance(value, dict) else value


def fingerprints(library: tuple[Molecule, ...]) -> dict[str, str]:
    """What tells the molecules of a library from others of the same names."""
    return {molecule.name: _fingerprint(molecule) for molecule in library}


def _fingerprint(molecule: Molecule) -> str:
    """The beginning of a hash of a molecule's density and voxel size: a changed file is another library."""
    digest = hashlib.sha256(np.ascontiguousarray(molecule.density, dtype="<f4").tobytes())
    digest.update(f"{molecule.density.shape} {molecule.voxel_size_angstrom:.9g}".encode())
    return digest.hexdigest()[:16]


def write_series(
    folder: Path, name: str, made: SimulatedSeries, drawn: dict[str, Any], made_of: str | None = None
) -> None:
    """Write the files of one series; the training file comes last, with the digest of the recipe in it."""
    cell, series, truth = made.cell, made.series, made.truth
    voxel, plan = cell.voxel_size_angstrom, series.plan
    label = f"CryoLithe {__version__} simulated {name}, dense dark"
    for ending, images in (("", series.images), ("_EVN", series.even), ("_ODD", series.odd)):
        write_stack(folder / f"{name}{ending}.mrc", images, voxel, label + simulated_label(series.drawn.get("ctf")))
    write_angles_deg(folder / f"{name}.tlt", plan.angles_deg)
    defoci = [-optics.defocus_um for optics in series.optics] or [0.0] * len(plan.angles_deg)
    images_of_plan = [
        MdocImage(angle, plan.exposure[n], plan.exposure_before[n], defoci[n], plan.order[n])
        for n, angle in enumerate(plan.angles_deg)
    ]
    voltage = series.optics[0].voltage_kv if series.optics else 300.0
    shape = (series.images.shape[1], series.images.shape[2])
    write_mdoc(folder / f"{name}.mdoc", f"{name}.mrc", images_of_plan, voxel, shape, voltage)
    write_volume(folder / f"{name}_truth.mrc", Volume(truth, voxel), label=label)
    write_volume(folder / f"{name}_labels.mrc", Volume(cell.labels, voxel), label=label, dtype=np.uint16)
    particles = [Particle(name, p.name, p.label, p.position_px, p.euler_deg) for p in cell.placements]
    write_particles(folder / f"{name}_particles.star", particles, truth.shape, voxel)
    back = fbp_of_images(series.images, plan.angles_deg, truth.shape[0])
    caption, facts = _sheet_words(name, made)
    shown = {"truth": truth, "FBP": back}
    plot_contact_sheet(folder / f"{name}.png", series.images, plan.angles_deg, shown, voxel, caption, facts)
    extras: dict[str, NDArray[Any]] = {
        "even": series.even,
        "odd": series.odd,
        "clean": series.clean,
        "labels": cell.labels,
    }
    origin = {"program": f"CryoLithe {__version__}", "classes": list(cell.classes), "drawn": drawn, "made_of": made_of}
    write_pair(folder / f"{name}.h5", Pair(series.images, truth, plan.angles_deg, voxel, extras, origin))


def _sheet_words(name: str, made: SimulatedSeries) -> tuple[str, list[str]]:
    """The caption of a contact sheet, and a line for each of its images: dose, defocus, pixel size."""
    series, plan = made.series, made.series.plan
    low, high = plan.angles_deg[0], plan.angles_deg[-1]
    defoci = [optics.defocus_um for optics in series.optics]
    total = sum(plan.exposure)
    parts = [
        f"{name}: {len(plan.angles_deg)} tilts, {low:.0f} to {high:.0f}°",
        f"{total:.0f} e/Å² in all" if total else "no dose",
        f"defocus {sum(defoci) / len(defoci):.1f} µm on average" if defoci else "no CTF",
        f"{made.cell.voxel_size_angstrom:.4g} Å pixels",
        DENSE_DARK,
    ]
    facts = []
    for tilt in range(len(plan.angles_deg)):
        dose = f"{plan.exposure[tilt]:.1f} e/Å² after {plan.exposure_before[tilt]:.0f}"
        facts.append(dose + (f", defocus {defoci[tilt]:.2f} µm" if defoci else ""))
    return " · ".join(parts), facts


def _drawn(made: SimulatedSeries) -> dict[str, Any]:
    """Every number drawn for a series, as plain values."""
    cell = made.cell
    return {
        "voxel_size_angstrom": cell.voxel_size_angstrom,
        "lamella": bool(cell.lamella),
        "crowding_wanted": float(cell.wanted_crowding),
        "crowding_reached": float(cell.reached_crowding),
        "particles": len(cell.placements),
        **_plain(made.series.drawn),
    }


def _plain(value: Any) -> Any:
    """Plain Python values of nested containers and numpy numbers."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def _write_yaml(path: Path, values: dict[str, Any]) -> None:
    with replacing(path, overwrite=True) as temporary:
        temporary.write_text(yaml_text(values), encoding="utf-8")


def _read_record(path: Path) -> dict[str, Any]:
    """The record of an earlier run.

    Raises:
        OutputError: if it cannot be read.
    """
    try:
        values = read_yaml_table(path, "record", _RECORD_LIMIT_BYTES)
    except SettingsError as error:
        raise OutputError(f"{str(error).removeprefix('record ')}; choose another -o") from error
    if not values:
        raise OutputError(f"{path} is no record of simulated series; choose another -o")
    return values


def _is_of_nothing(record: Path) -> bool:
    """Whether a record is all that there is of a run, which was killed before its first file; a style is more.

    Raises:
        OutputError: if it cannot be read.
    """
    if any(path.name.endswith(ENDINGS) for path in record.parent.glob("TS_*")):
        return False
    values = _read_record(record)
    return {"cryolithe", "recipe", "library"} <= values.keys() and values.get("drawn") == {} and "style" not in values


def _series_files(folder: Path, name: str) -> tuple[Path, ...]:
    """All files that `write_series` makes of a series."""
    return tuple(folder / f"{name}{ending}" for ending in ENDINGS)


def _refuse_foreign_files(folder: Path, series: int) -> None:
    """Raise OutputError if files of these names are there without a record: they are someone's own."""
    for number in range(1, series + 1):
        for path in _series_files(folder, series_name(number)):
            if path.exists():
                raise OutputError(f"{path} exists and was not simulated by this recipe; choose another -o")


def _remove(folder: Path, name: str) -> None:
    """Remove what an interrupted run left of a series."""
    for path in _series_files(folder, name):
        path.unlink(missing_ok=True)
