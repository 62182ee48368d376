"""Spectra of simulated cells under the conditions of real ones, and tables of both side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import FOLDER, ROOT, Table
from numpy.typing import NDArray

from cryolithe.files.yaml_table import read_yaml_table
from cryolithe.formats import read_tilt_series, read_volume
from cryolithe.simulation.campaign import simulate_series
from cryolithe.simulation.diverse import draw_diverse
from cryolithe.simulation.imaging import project_field
from cryolithe.simulation.library import recipe_library
from cryolithe.simulation.molecules import Molecule
from cryolithe.simulation.recipe import Recipe
from parts.realism_measures import Floats, TiltSpectra, decibels, of_image, of_windows, tiles

RECIPES = ROOT / "training_data" / "recipes"
SERIES, IMAGE = "lamella series", "image of a cell"
CELLS = ("cellular", "lamella", "train_uncorrected")  # the cells of train_flipped and train_wiener are the last one's
LOW_DEG, LOWER_DEG, HIGH_DEG = (0.0, 10.0), (0.0, 15.0), (45.0, 63.0)
FALLS_DEG = ((10.0, 25.0), (25.0, 40.0), (40.0, 62.0))
FALL_BAND_ANGSTROM = (80.0, 320.0)  # in which the fall of SNR with tilt is averaged: single rings scatter by 2 dB
CTF_ZERO_ANGSTROM = (30.0, 34.5)  # where the image of a cell is nearly all noise
SIDE = 64
_COMMON: dict[str, Any] = {"ctf": "left", "exposure_weighting": False, "faults": {}}
# Vulović et al. 2013 (J. Struct. Biol. 183, 19-32) simulate with 0.03 to 0.05 mrad at 300 kV.
SOURCE: dict[str, Any] = {"illumination_mrad": 0.04}
_TILTS = {"kinds": ["dose-symmetric"], "step_deg": [3.0, 3.0]}


@dataclass(frozen=True)
class Conditions:
    """What a real set was recorded with.

    Attributes:
        pixel_angstrom: edge of a pixel.
        thickness_nm: of the lamella; of the series, which says nothing of it, what its neighbouring tilts agree with.
        field_px: height and width of the simulated field.
        imaging: changes to a recipe's imaging.
    """

    pixel_angstrom: float
    thickness_nm: float
    field_px: tuple[int, int]
    imaging: dict[str, Any]


CONDITIONS = {
    SERIES: Conditions(14.56, 160.0, (192, SIDE), _COMMON | {
        "scheme": _TILTS | {"reach_deg": [57.0, 57.0]},
        "total_exposure": [39 * 3.25] * 2,
        "optics": {"defocus_um": [2.0, 2.4], "amplitude_contrast": [0.07, 0.07], **SOURCE},
    }),
    IMAGE: Conditions(13.12, 240.0, (256, 256), _COMMON | {
        "scheme": _TILTS | {"reach_deg": [3.0, 3.0]},
        "total_exposure": [3 * 3.55] * 2,
        "optics": {"defocus_um": [5.4, 5.4], "amplitude_contrast": [0.07, 0.07], **SOURCE},
    }),
}  # fmt: skip
Curves = dict[str, list[float]]


def recipe_at(name: str, conditions: Conditions, quick: bool) -> Recipe:
    """A shipped recipe whose cells are imaged under given conditions."""
    values = read_yaml_table(RECIPES / f"{name}.yaml", "recipe")
    thickness = 40.0 if quick else conditions.thickness_nm
    depth = 2 * int(np.ceil(0.55 * 10 * thickness / conditions.pixel_angstrom))
    values["cell"] |= {
        "shape": [depth, 128 if quick else conditions.field_px[0], 128 if quick else conditions.field_px[1]],
        "voxel_size_angstrom": [conditions.pixel_angstrom] * 2,
        "thickness_nm": [thickness] * 2,
        "pretilt_deg": [0.0, 0.0],
        "lamella_chance": 1.0,
        "margin": 1.0 if conditions.field_px[1] == SIDE else 0.1,
    }
    values["imaging"] |= conditions.imaging
    return Recipe(**values)


def simulated(name: str, which: str, molecules: tuple[Path, ...], series: int, quick: bool) -> Curves:
    """Curves of a recipe's cells under the conditions of a real set."""
    recipe = recipe_at(name, CONDITIONS[which], quick)
    library = recipe_library(recipe, molecules)
    made = [simulate_series(recipe, library, number + 1).series for number in range(series)]
    if which == IMAGE:
        return _image_curves([s.images[int(np.abs(s.plan.angles_deg).argmin())] for s in made])
    stacks = [(tile, np.array(s.plan.angles_deg)) for s in made for tile in tiles(s.images, SIDE)]
    # Images are relative brightness: in counts, as the real ones are, their noise goes with the square of the mean.
    counts = np.mean([s.drawn["electrons_per_px"] for s in made], axis=0)
    return _series_curves(stacks, counts)


def diverse(library: tuple[Molecule, ...], series: int) -> Curves:
    """Curves of the scenes of membranes, filaments and bodies that are trained on with white noise.

    They have no scale of contrast: the noise is chosen so that their signal from 470 to 150 Å is the real one's.
    """
    pixel = CONDITIONS[SERIES].pixel_angstrom
    angles = tuple(np.arange(-57.0, 57.1, 3.0).tolist())
    clean = []
    for number in range(series):
        density, _ = draw_diverse((48, 2 * SIDE, 2 * SIDE), pixel, library, np.random.default_rng([7, number]))
        clean += tiles(project_field(density, angles), SIDE)
    both = [np.array(angles)] * len(clean)
    wanted = 10 ** (np.array(published()[SERIES]["cross"][:5]) / 10)
    bare = of_windows(clean, both, pixel, LOW_DEG)
    cross = np.array([bare.at(a, bare.cross) for a in published()[SERIES]["angstrom"][:5]]) * bare.floor
    rng, sigma = np.random.default_rng(8), np.sqrt(cross.mean() / wanted.mean())
    noisy = [tile + sigma * rng.standard_normal(tile.shape) for tile in clean]
    return _series_curves(list(zip(noisy, both, strict=True)), None)


def published() -> dict[str, Any]:
    """Numbers of the real sets, with their origin."""
    return read_yaml_table(FOLDER / "real_spectra.yaml", "table")


def measured(folder: Path) -> dict[str, Curves]:
    """Curves of the real sets, where their files are: ``ribosome?.mrc`` with ``.tlt``, ``other/*_1img.mrc``."""
    found: dict[str, Curves] = {}
    stacks = []
    for path in sorted(folder.glob("ribosome?.mrc")):
        series = read_tilt_series(path, path.with_suffix(".tlt"))
        if len(series.geometry.angles_deg) > 30:
            stacks.append((np.asarray(series.images), np.array(series.geometry.angles_deg)))
    if stacks:
        found[SERIES] = _series_curves(stacks, None)
    for path in sorted(folder.glob("other/*_1img.mrc")):
        found[IMAGE] = _image_curves([np.asarray(read_volume(path).voxels, dtype=np.float64).squeeze()])
    return found


def _series_curves(stacks: list[tuple[Floats, NDArray[np.float64]]], counts: Floats | None) -> Curves:
    images, angles = [s for s, _ in stacks], [a for _, a in stacks]
    pixel, wavelengths = CONDITIONS[SERIES].pixel_angstrom, published()[SERIES]["angstrom"]
    of = {r: of_windows(images, angles, pixel, r) for r in (LOW_DEG, LOWER_DEG, HIGH_DEG, *FALLS_DEG)}

    def curve(found: TiltSpectra, values: NDArray[np.float64]) -> list[float]:
        return [round(decibels(found.at(a, values)), 2) for a in wavelengths]

    def floor(tilts_deg: tuple[float, float]) -> float:
        if counts is None:
            return of[tilts_deg].floor
        chosen = (np.abs(angles[0]) >= tilts_deg[0]) & (np.abs(angles[0]) < tilts_deg[1])
        return of[tilts_deg].floor * float(np.square(counts[chosen]).mean())

    return {
        "power": curve(of[LOW_DEG], of[LOW_DEG].power),
        "cross": curve(of[LOW_DEG], of[LOW_DEG].cross),
        "snr_low": curve(of[LOWER_DEG], of[LOWER_DEG].snr),
        "snr_high": curve(of[HIGH_DEG], of[HIGH_DEG].snr),
        "floor_fall": [round(-decibels(floor(tilts) / floor(LOW_DEG)), 2) for tilts in FALLS_DEG],
    }


def _image_curves(images: list[Floats]) -> Curves:
    found = [of_image(image, CONDITIONS[IMAGE].pixel_angstrom, 128, CTF_ZERO_ANGSTROM) for image in images]
    means = [np.mean([s.at(a, s.power) for s in found]) for a in published()[IMAGE]["angstrom"]]
    return {"power": [round(decibels(float(mean)), 2) for mean in means]}


def snr_fall(curves: Curves) -> float:
    """SNR of neighbouring tilts at 45-63° against 0-15°, dB, mean over a band."""
    wavelengths = np.array(published()[SERIES]["angstrom"])
    within = (wavelengths > FALL_BAND_ANGSTROM[0]) & (wavelengths < FALL_BAND_ANGSTROM[1])
    return float((np.array(curves["snr_high"]) - np.array(curves["snr_low"]))[within].mean())


def table_of(which: str, real: Curves, made: dict[str, Curves]) -> list[Table]:
    """Real beside simulated: power, and of a series cross power and what changes with tilt."""
    origin = published()[which]
    parts = [("power", "Power of an image over the noise, dB")]
    if which == SERIES:
        parts.append(("cross", "Cross power of neighbouring tilts over the noise, dB"))
    tables = []
    for key, title in parts:
        rows: list[list[str | float]] = [["real", *(f"{v:.1f}" for v in real[key]), "-"]]
        for name, curves in made.items():
            worst = float(np.abs(np.array(curves[key]) - real[key]).max())
            rows.append([name, *(f"{v:.1f}" for v in curves[key]), f"{worst:.1f}"])
        columns = ["Å", *(str(a) for a in origin["angstrom"]), "largest difference"]
        tables.append(Table(f"{title}: {which}", columns, rows))
    if which == SERIES:
        columns = ["SNR of neighbours, dB", "311 Å, 0-15°", "155 Å", "85 Å", "45-63° against 0-15°", *_fall_titles()]
        rows = []
        for name, curves in {"real": real, **made}.items():
            snr = dict(zip(origin["angstrom"], curves["snr_low"], strict=True))
            falls = (f"{v:.1f}" for v in curves["floor_fall"])
            rows.append([name, *(f"{snr[a]:.1f}" for a in (311, 155, 85)), f"{snr_fall(curves):.1f}", *falls])
        note = f"Floors fall in dB, in counts. Real: {origin['origin']}"
        tables.append(Table(f"SNR and noise against tilt: {which}", columns, rows, note))
    return tables


def _fall_titles() -> list[str]:
    return [f"floor's fall, {low:.0f}-{high:.0f}°" for low, high in FALLS_DEG]
