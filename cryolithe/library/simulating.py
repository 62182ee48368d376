"""``cryolithe.simulate``: tilt images whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.errors import SettingsError
from cryolithe.library.arrays import Files, is_path, path_of
from cryolithe.library.undisturbed import undisturbed
from cryolithe.library.volumes import Volume
from cryolithe.simulation.campaign import SimulatedSeries, simulate_series
from cryolithe.simulation.library import plain_library, with_molecules
from cryolithe.simulation.plain import plain_series
from cryolithe.simulation.recipe import checked_recipe, read_recipe

SNR_DB, MOST_DB = -5.0, 100.0
SMALLEST_PX = 8


@dataclass(frozen=True, eq=False)
class Simulated:
    """A simulated tilt series.

    Attributes:
        tilts: images, shape ``(tilt, y, x)``, float32, dense = dark, tilt axis along y.
        angles_deg: tilt angle of each image.
        voxel_size_angstrom: edge of a pixel of the images, and of a voxel of the truth.
        truth: what is to be found, shape ``(z, y, x)``, dense = dark.
        even: images of the even frames; None without a recipe.
        odd: of the odd frames; None without a recipe.
        labels: class of each voxel, shape ``(z, y, x)``: 0 is ice, ``n`` is ``classes[n - 1]``; None without a recipe.
        classes: names.
        particles: of each particle its class and the position ``(z, y, x)`` of its centre in voxels of the truth.
        notes: what should be known of it.
    """

    tilts: NDArray[np.float32]
    angles_deg: NDArray[np.float64]
    voxel_size_angstrom: float
    truth: Volume
    even: NDArray[np.float32] | None = None
    odd: NDArray[np.float32] | None = None
    labels: NDArray[np.uint16] | None = None
    classes: tuple[str, ...] = ()
    particles: tuple[tuple[str, tuple[float, float, float]], ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        tilts, height, width = self.tilts.shape
        return f"Simulated({tilts} images of {height} x {width} (y, x), {self.voxel_size_angstrom:.4g} Å, {self.truth})"


@undisturbed
def simulate(
    recipe: Files | Mapping[str, Any] | None = None,
    *,
    series: int = 1,
    seed: int | None = None,
    molecules: Sequence[Files] = (),
    snr_db: float | None = None,
    shape: tuple[int, int, int] | None = None,
) -> Simulated:
    """Simulate one tilt series: the arrays that ``cryolithe simulate`` writes.

    Args:
        recipe: path of a recipe (YAML), or its values; None for a small plain series with white noise, 41 images
            within ±60°.
        series: which series of the recipe, from 1.
        seed: the same seed gives the same arrays; None for the recipe's, or 0.
        molecules: structures (PDB, mmCIF), density maps or libraries to place, or ``"procedural_1"``, which
            comes with the program: the default, unless the recipe asks for some.
        snr_db: without a recipe, signal over noise in dB; None for -5.
        shape: without a recipe, voxels ``(z, y, x)`` of 10 Å; None for ``(64, 128, 128)``.

    Returns:
        images, angles and truth.

    Raises:
        CryoLitheError: for what the caller can mend: a recipe or file that cannot be read, values out of range.

    >>> import cryolithe
    >>> cryolithe.simulate(shape=(16, 24, 32), snr_db=0)
    Simulated(41 images of 24 x 32 (y, x), 10 Å, Volume(16 x 24 x 32 (z, y, x), float32, voxels of 10 Å))
    """
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0):
        raise SettingsError(f"seed: expected a whole number of 0 or more, got {seed!r}")
    named: Any = [molecules] if is_path(molecules) else molecules
    files = tuple(path_of(path, "molecules") for path in named)
    if recipe is None:
        if series != 1:
            raise SettingsError("series goes with a recipe, which says how many there are; take another seed")
        return _plain(files, SNR_DB if snr_db is None else snr_db, int(seed or 0), shape)
    for name, value in (("snr_db", snr_db), ("shape", shape)):
        if value is not None:
            raise SettingsError(f"{name} is for the plain series: the recipe says it itself; leave it out")
    if is_path(recipe):
        place = Path(recipe)  # type: ignore[arg-type]
        read = read_recipe(place)
    elif isinstance(recipe, Mapping):
        place = Path("recipe")
        read = checked_recipe({str(key): value for key, value in recipe.items()}, place)
    else:
        raise SettingsError(f"recipe: expected a path or a mapping of its values, got {type(recipe).__name__}")
    if isinstance(series, bool) or not isinstance(series, int | np.integer) or not 1 <= series <= read.series:
        raise SettingsError(f"series: expected a number from 1 to {read.series}, as the recipe says; got {series!r}")
    read = read if seed is None else read.model_copy(update={"seed": int(seed)})
    read, library, note = with_molecules(read, place.parent, files)
    return _of_recipe(simulate_series(read, library, int(series)), int(series), note)


def _plain(files: tuple[Path, ...], snr_db: float, seed: int, shape: tuple[int, int, int] | None) -> Simulated:
    if not (isinstance(snr_db, int | float | np.number) and math.isfinite(snr_db) and abs(snr_db) <= MOST_DB):
        raise SettingsError(f"snr_db must lie within ±{MOST_DB:g} dB, got {snr_db!r}")
    library, called = plain_library(files)
    made = plain_series(library, float(snr_db), seed, None if shape is None else _sizes(shape))
    label = f"CryoLithe {__version__} simulated, seed {seed}, {snr_db:g} dB, dense dark"
    label += "" if files else f", {called}"
    truth = Volume(made.truth, made.voxel_size_angstrom, labels=(label,))
    return Simulated(made.images, np.array(made.angles_deg), made.voxel_size_angstrom, truth)


def _sizes(shape: Any) -> tuple[int, int, int]:
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    if len(sizes) != 3 or not all(isinstance(n, int | np.integer) and n >= SMALLEST_PX for n in sizes):
        raise SettingsError(f"shape: expected three sizes (z, y, x) of at least {SMALLEST_PX} voxels, got {shape!r}")
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _of_recipe(made: SimulatedSeries, number: int, note: str | None) -> Simulated:
    cell, series = made.cell, made.series
    label = f"CryoLithe {__version__} simulated TS_{number:03d}, dense dark"
    return Simulated(
        series.images,
        np.array(series.plan.angles_deg),
        cell.voxel_size_angstrom,
        Volume(made.truth, cell.voxel_size_angstrom, labels=(label,)),
        series.even,
        series.odd,
        cell.labels,
        cell.classes,
        tuple((place.name, place.position_px) for place in cell.placements),
        (*((note,) if note else ()), *series.drawn.get("words", ())),
    )
