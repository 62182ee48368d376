"""How near simulated tilt series come to real ones: power spectra, SNR against tilt and exposure, counts, contrast.

First the recipes of cells are held against real images of cells, under their conditions, by what spectra say without
knowing the truth; ``--real FOLDER`` measures those images anew, else their numbers in real_spectra.yaml are used.

Then, images are taken as recorded: the CTF is left in and nothing is weighted by exposure. SNRs come from the even and
odd halves (Frank & Al-Ali 1975); the yeast lamella is simulated under the published conditions of a real one (Bepler et
al. 2020, methods), of which the SNR between half tomograms is known: of sub-volumes of 150 planes, 182 nm, so with what
is empty above and below a lamella of 100 to 150 nm. The published numbers stand in training_data/README.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, ROOT, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.realism_matched import (
    CELLS,
    IMAGE,
    RECIPES,
    SERIES,
    SOURCE,
    Curves,
    diverse,
    measured,
    published,
    simulated,
    table_of,
)
from parts.realism_measures import radial, spectrum

from cryolithe.files.yaml_table import read_yaml_table
from cryolithe.formats import read_tilt_series
from cryolithe.geometry import TiltGeometry
from cryolithe.images import fourier_crop
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.report.figures import draw_section
from cryolithe.simulation.campaign import SimulatedSeries, simulate_series
from cryolithe.simulation.library import recipe_library
from cryolithe.simulation.recipe import Recipe

Floats = NDArray[np.floating[Any]]
SHEET = ROOT / "training_data" / "figures" / "realism.png"
NEEDLE = ROOT / "examples" / "needle"
LOW_BAND = (1 / 400, 1 / 50)  # 1/Å
NEEDLE_BAND = (1 / 4000, 1 / 500)
COARSE_ANGSTROM = 40.0
# Of the sub-volumes of Bepler et al. 2020; series that the mean is of, and their width and height.
PLANES, HALVES_SERIES, HALVES_SIDE = 150, 6, 160
RAW: dict[str, Any] = {"ctf": "left", "exposure_weighting": False}
# What each series is, beside its recipe. Voxels of 10 Å, 41 tilts of ±60° and 120 e/Å² are common conditions; the
# contrast is what atoms amount to.
COMMON: dict[str, Any] = {
    "specimen_contrast": [1.0, 1.0],
    "total_exposure": [120.0, 120.0],
    "scheme": {"kinds": ["dose-symmetric"], "reach_deg": [60.0, 60.0], "step_deg": [3.0, 3.0]},
}
# Bepler et al. 2020, methods: 6.08 Å pixels, here binned by 2 as in their table; bidirectional; lamellae of 100-150 nm;
# 18 µm of defocus for yeast, 4-18 µm over all series.
YEAST: dict[str, Any] = {
    "specimen_contrast": [1.0, 1.0],
    "total_exposure": [60.0, 60.0],
    "scheme": {"kinds": ["bidirectional"], "reach_deg": [48.0, 48.0], "step_deg": [2.0, 2.0]},
}


@dataclass(frozen=True)
class Case:
    """A series to simulate.

    Attributes:
        recipe: name of the shipped recipe it begins with.
        voxel_angstrom: edge of a voxel.
        thickness_nm: of the slab.
        imaging: changes to the recipe's imaging.
        number: of the series drawn.
    """

    recipe: str
    voxel_angstrom: float
    thickness_nm: float
    imaging: dict[str, Any]
    number: int = 1

    def load(self, side: int) -> Recipe:
        """The recipe with this case's changes, ``side`` voxels across."""
        values = read_yaml_table(RECIPES / f"{self.recipe}.yaml", "recipe")
        depth = 2 * math.ceil(0.55 * 10 * self.thickness_nm / self.voxel_angstrom)
        values["cell"] |= {
            "shape": [depth, side, side],
            "voxel_size_angstrom": [self.voxel_angstrom] * 2,
            "thickness_nm": [self.thickness_nm] * 2,
            "pretilt_deg": [0.0, 0.0],
        }
        values["imaging"] |= RAW | self.imaging
        return Recipe(**values)


# Numbers of series in whose small field there is a membrane.
CASES = {
    "cellular": Case("cellular", 10.0, 150.0, COMMON, number=3),
    "lamella": Case("lamella", 10.0, 150.0, COMMON, number=4),
    "yeast, 18 µm": Case("lamella", 12.16, 125.0, YEAST | {"optics": {"defocus_um": [18.0, 18.0], **SOURCE}}, number=4),
    "yeast, 4 µm": Case("lamella", 12.16, 125.0, YEAST | {"optics": {"defocus_um": [4.0, 4.0], **SOURCE}}, number=4),
}


def rounded(values: Floats) -> list[float]:
    """Numbers with four digits, which is all that a curve needs."""
    return [float(f"{value:.4g}") for value in values]


def slope(frequency: Floats, power: Floats, band: tuple[float, float]) -> float:
    """Slope of log power against log frequency in a band."""
    within = (frequency >= band[0]) & (frequency <= band[1]) & (power > 0)
    return float(np.polyfit(np.log(frequency[within]), np.log(power[within]), 1)[0])


def snr(even: Floats, odd: Floats) -> float:
    """SNR of the mean of two halves: twice ``r / (1 - r)`` of each."""
    r = float(np.corrcoef(np.ravel(even).astype(np.float64), np.ravel(odd).astype(np.float64))[0, 1])
    return 2 * r / (1 - r)


def of_image(made: SimulatedSeries, tilt: int) -> dict[str, Any]:
    """What the spectra of one image say; powers in units of the shot noise of its electrons."""
    series, pixel = made.series, made.cell.voxel_size_angstrom
    counted = series.drawn["electrons_per_px"][tilt] * series.drawn["detector"]["dqe_zero"]
    even, odd = spectrum(series.even[tilt]), spectrum(series.odd[tilt])
    frequency, power = radial(np.abs((even + odd) / 2) ** 2 * counted, pixel)
    _, signal = radial((even * odd.conj()).real * counted, pixel)
    low = (frequency >= LOW_BAND[0]) & (frequency <= LOW_BAND[1])
    floor = float(power[frequency > 0.9 * frequency[-1]].mean())
    above = np.flatnonzero(signal > floor)
    return {
        "angle_deg": series.plan.angles_deg[tilt],
        "frequency_per_angstrom": rounded(frequency),
        "power": rounded(power),
        "signal_power": rounded(signal),
        "slope": slope(frequency, power, LOW_BAND),
        "signal_slope": slope(frequency, signal, LOW_BAND),
        "low_over_floor": float(power[low].mean() / floor),
        "floor": floor,
        "signal_meets_noise_angstrom": float(1 / frequency[above[-1]]) if above.size else None,
    }


def of_tilts(made: SimulatedSeries, thickness_nm: float) -> list[dict[str, float]]:
    """SNR, counts and contrast of every image."""
    series, pixel = made.series, made.cell.voxel_size_angstrom
    path_nm = series.drawn["detector"]["mean_free_path_nm"]
    factor = max(1, round(COARSE_ANGSTROM / pixel))
    rows = []
    for tilt, angle in enumerate(series.plan.angles_deg):
        coarse = [fourier_crop(half[tilt], factor) for half in (series.even, series.odd, series.clean)]
        passed = series.drawn["electrons_per_px"][tilt] / (series.plan.exposure[tilt] * pixel**2)
        rows.append(
            {
                "angle_deg": angle,
                "exposure_middle": series.plan.exposure_middle[tilt],
                "snr": snr(series.even[tilt], series.odd[tilt]),
                "snr_coarse": snr(coarse[0], coarse[1]),
                "electrons_per_px": series.drawn["electrons_per_px"][tilt],
                "transmitted": passed,
                "beer_lambert": math.exp(-thickness_nm / (path_nm * math.cos(math.radians(angle)))),
                "contrast": float(((coarse[0] + coarse[1]) / 2).std()),
                "contrast_without_noise": float(coarse[2].std()),
            }
        )
    return rows


def near(rows: list[dict[str, float]], angle_deg: float, key: str) -> float:
    """Mean of a number over the images at plus and minus an angle."""
    chosen = [row[key] for row in rows if abs(abs(row["angle_deg"]) - angle_deg) < 0.5]
    return float(np.mean(chosen))


def back_projected(made: SimulatedSeries, images: Floats, planes: int) -> NDArray[np.float32]:
    """FBP with a plain ramp, ``(z, y, x)``."""
    geometry = TiltGeometry(made.series.plan.angles_deg, images.shape[1:])
    projector = make_projector(geometry, (planes, made.cell.labels.shape[2]))
    rows = torch.from_numpy(np.asarray(images - images.mean(axis=(1, 2), keepdims=True), dtype=np.float32))
    return np.asarray(fbp(projector, rows, "ramp").numpy(), dtype=np.float32)


def tomogram_snr_db(made: SimulatedSeries) -> float:
    """10 log10 of r / (1 - r) between the slab's reconstructions from even and from odd frames."""
    inside = made.cell.slab_px[:, made.cell.field].min(axis=1) > 0
    even, odd = (back_projected(made, half, len(inside))[inside] for half in (made.series.even, made.series.odd))
    return 10 * math.log10(snr(even, odd) / 2)


def published_snr_db(made: SimulatedSeries) -> float:
    """The same of as many planes as in the published sub-volumes, about the middle of the slab."""
    even, odd = (back_projected(made, half, PLANES) for half in (made.series.even, made.series.odd))
    return 10 * math.log10(snr(even, odd) / 2)


def halves(molecules: tuple[Path, ...], quick: bool) -> tuple[Table, dict[str, dict[str, list[float]]]]:
    """SNR between half tomograms of several series, in the slab alone and as published, and every number of it."""
    found: dict[str, dict[str, list[float]]] = {}
    rows: list[list[str | float | None]] = []
    for name, case in CASES.items():
        if case.imaging["scheme"] != YEAST["scheme"]:
            continue
        recipe = case.load(48 if quick else HALVES_SIDE)
        library = recipe_library(recipe, molecules)
        made = [simulate_series(recipe, library, number + 1) for number in range(1 if quick else HALVES_SERIES)]
        found[name] = {"slab": [*map(tomogram_snr_db, made)], "published": [*map(published_snr_db, made)]}
        for label, values in (("slab alone", found[name]["slab"]), (f"{PLANES} planes", found[name]["published"])):
            rows.append([f"{name}, {label}", float(np.mean(values)), min(values), max(values)])
        print(f"{name}: half tomograms", flush=True)
    note = (
        f"{len(made)} series each. Published: yeast lamellae -9.3 and -11.1 dB, {PLANES} planes, with lamellae of "
        "100-150 nm; which defocus is which is not said."
    )
    return Table("SNR between half tomograms, dB", ["series, in what", "mean", "least", "most"], rows, note), found


def measure(case: Case, made: SimulatedSeries) -> dict[str, Any]:
    """Every number of one series."""
    rows = of_tilts(made, case.thickness_nm)
    angles = np.array(made.series.plan.angles_deg)
    reach = float(np.abs(angles).max())
    images = {f"{wanted:+.0f}": of_image(made, int(np.abs(angles - wanted).argmin())) for wanted in (-reach, 0, reach)}
    return {
        "voxel_angstrom": made.cell.voxel_size_angstrom,
        "thickness_nm": case.thickness_nm,
        "thickness_of_loss_nm": made.series.drawn["thickness_angstrom"] / 10,
        "crowding": made.cell.reached_crowding,
        "defocus_um": made.series.optics[int(np.abs(angles).argmin())].defocus_um,
        "reach_deg": reach,
        "exposure_per_tilt": made.series.plan.exposure[0],
        "snr_untilted": near(rows, 0, "snr"),
        "snr_per_square_angstrom": near(rows, 0, "snr") / made.cell.voxel_size_angstrom**2,
        "snr_ratio": near(rows, reach, "snr") / near(rows, 0, "snr"),
        "snr_coarse_untilted": near(rows, 0, "snr_coarse"),
        "snr_coarse_ratio": near(rows, reach, "snr_coarse") / near(rows, 0, "snr_coarse"),
        "transmitted_untilted": near(rows, 0, "transmitted"),
        "transmitted_ratio": near(rows, reach, "transmitted") / near(rows, 0, "transmitted"),
        "contrast_untilted": near(rows, 0, "contrast"),
        "contrast_without_noise_untilted": near(rows, 0, "contrast_without_noise"),
        "tomogram_snr_db": tomogram_snr_db(made),
        "images": images,
        "tilts": rows,
    }


def needle() -> dict[str, Any]:
    """The slope of the real needle's spectra: HAADF-STEM of a device, no cryo specimen and no phase contrast."""
    series = read_tilt_series(NEEDLE / "needle.mrc", NEEDLE / "needle.tlt")
    angles, pixel = np.asarray(series.geometry.angles_deg), float(series.pixel_size_angstrom or math.nan)
    found: dict[str, Any] = {"pixel_angstrom": pixel, "band_per_angstrom": NEEDLE_BAND}
    for wanted in (0.0, 60.0):
        image = np.asarray(series.images[int(np.abs(angles - wanted).argmin())], dtype=np.float64)
        side = min(image.shape)
        frequency, power = radial(np.abs(spectrum(image[:side, :side])) ** 2, pixel)
        found[f"slope_{wanted:.0f}"] = slope(frequency, power, NEEDLE_BAND)
    return found


def plot(path: Path, found: dict[str, dict[str, Any]]) -> None:
    """Spectra, SNR, counts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    spectra, ratios, counts = figure.subplots(1, 3)
    for colour, (name, values) in zip(("C0", "C1", "C2", "C3"), found.items(), strict=False):
        for style, (angle, image) in zip(("--", "-", ":"), values["images"].items(), strict=True):
            spectra.loglog(image["frequency_per_angstrom"], image["power"], colour + style, lw=1)
            if style == "-":
                spectra.plot([], [], colour, label=f"{name}, {angle}° (full line), ends of range (broken)")
        tilts = values["tilts"]
        angle = [row["angle_deg"] for row in tilts]
        ratios.plot(angle, [row["snr"] for row in tilts], colour + ".-", ms=3, lw=1, label=name)
        counts.plot(angle, [row["transmitted"] for row in tilts], colour + ".", ms=4, label=name)
        counts.plot(angle, [row["beer_lambert"] for row in tilts], colour, lw=0.8)
    spectra.set(xlabel="frequency (1/Å)", ylabel="power over shot noise")
    ratios.set(xlabel="tilt (°)", ylabel="SNR of the image", yscale="log")
    counts.set(xlabel="tilt (°)", ylabel="electrons passed; line: exp(-t/(Λ cos θ))")
    spectra.legend(fontsize=6)
    ratios.legend(fontsize=7)
    figure.savefig(path, dpi=90)


def plot_sheet(path: Path, series: dict[str, SimulatedSeries]) -> None:
    """Three tilts, a slice of the truth and one of the FBP of each series."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(12, 2.55 * len(series)), layout="constrained")
    for axes, (name, made) in zip(np.atleast_2d(figure.subplots(len(series), 5)), series.items(), strict=True):
        angles = np.array(made.series.plan.angles_deg)
        ends = [int(angles.argmin()), int(np.abs(angles).argmin()), int(angles.argmax())]
        panels = [(f"{name}, {angles[n]:+.0f}°", made.series.images[n]) for n in ends]
        middle = made.truth.shape[0] // 2
        back = back_projected(made, made.series.images, made.cell.labels.shape[0])
        panels += [("truth, 10 slices", made.truth[middle - 5 : middle + 5].mean(axis=0))]
        panels += [("FBP, 10 slices", back[middle - 5 : middle + 5].mean(axis=0))]
        for axis, (title, image) in zip(axes, panels, strict=True):
            coarse = fourier_crop(np.asarray(image, dtype=np.float32), 2)
            draw_section(axis, coarse, origin="upper")
            axis.set_title(title, fontsize=8)
            axis.set_axis_off()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)
    with Image.open(path) as picture:
        picture.convert("L").quantize(64).save(path, optimize=True)


def matched(molecules: tuple[Path, ...], folder: Path | None, quick: bool) -> tuple[list[Table], dict[str, Any]]:
    """Tables of real and simulated spectra, and all curves."""
    numbers = published()
    real: dict[str, Curves] = {name: {k: v for k, v in numbers[name].items() if k != "origin"} for name in numbers}
    real |= measured(folder) if folder else {}
    tables, curves = [], {}
    for which, series in ((SERIES, 1 if quick else 5), (IMAGE, 1 if quick else 4)):
        made = {}
        for name in CELLS[:1] if quick else CELLS:
            made[name] = simulated(name, which, molecules, series, quick)
            print(f"{name}, as the {which}: simulated", flush=True)
        if which == SERIES:
            library = recipe_library(Recipe(procedural=4), molecules)
            made["diverse scenes (noise fitted)"] = diverse(library, 2 if quick else 30)
        tables += table_of(which, real[which], made)
        curves[which] = {"real": real[which], "simulated": made}
    return tables, curves


def main() -> None:
    """Simulate each case, measure it, and draw."""
    options = parser("realism", __doc__)
    options.add_argument("--molecules", type=Path, help="library to place; without it procedural ones are placed")
    options.add_argument("--real", type=Path, help="folder of the real images; without it their published numbers")
    arguments = read_arguments(options)
    paths = (arguments.molecules,) * bool(arguments.molecules)
    first, curves = matched(paths, arguments.real, arguments.quick)
    side = 64 if arguments.quick else 256
    made: dict[str, SimulatedSeries] = {}
    for name, case in CASES.items():
        recipe = case.load(side)
        library = recipe_library(recipe, paths)
        made[name] = simulate_series(recipe, library, case.number)
        print(f"{name}: simulated", flush=True)
    found = {name: measure(CASES[name], series) for name, series in made.items()}
    of_halves, half_numbers = halves(paths, arguments.quick)
    rows: list[list[str | float | None]] = []
    for label, key in (
        ("SNR of the untilted image", "snr_untilted"),
        ("SNR at the highest tilt over untilted", "snr_ratio"),
        ("the same at 40 Å pixels", "snr_coarse_ratio"),
        ("electrons passed, untilted", "transmitted_untilted"),
        ("electrons passed, highest tilt over untilted", "transmitted_ratio"),
        ("contrast at 40 Å pixels, untilted", "contrast_untilted"),
        ("the same without noise", "contrast_without_noise_untilted"),
        ("SNR between half tomograms (dB)", "tomogram_snr_db"),
    ):
        rows.append([label, *(values[key] for values in found.values())])
    for label, key in (
        ("slope of power, 1/400 to 1/50 1/Å, untilted", "slope"),
        ("slope of signal power", "signal_slope"),
        ("power there over the noise floor", "low_over_floor"),
        ("signal meets noise (Å)", "signal_meets_noise_angstrom"),
    ):
        rows.append([label, *(values["images"]["+0"][key] for values in found.values())])
    note = (
        f"Fields of {side} x {side} pixels; molecules: "
        f"{arguments.molecules.name if arguments.molecules else 'procedural'}; as recorded: CTF left in, no exposure "
        "weights."
    )
    table = Table("Simulated series", ["quantity", *found], rows, note)
    figure = arguments.output.with_suffix(".png")
    results = {
        "tables": [*first, table, of_halves],
        "matched": curves,
        "figures": [figure.name],
        "series": found,
        "halves_db": half_numbers,
        "needle": needle(),
    }
    record("realism", results, arguments.output)
    plot(figure, found)
    sheet = RESULTS / "realism_sheet.quick.png" if arguments.quick else SHEET
    plot_sheet(sheet, {name: made[name] for name in ("cellular", "lamella")})


if __name__ == "__main__":
    main()
