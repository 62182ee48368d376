"""Tilt images denoised by `cryolithe denoise --images` against the same images without noise, and beside Gaussians.

Kinds of specimens and of noise: crowded proteins with white noise from -15 to 0 dB, the same with noise that was
smoothed; simulated cells, lamellae, vesicles and gold with optics and counting noise; and the microscope that no
training knows of `noise_profile.py`. All with molecules that were held out of training. A Gaussian has the width that
is best for its images by the truth, which nobody has. "Truth on made" is the slope of the truth on the result: 1 where
contrast is kept, less where the result is too strong.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
from common import Cell, Table, cryolithe_command, parser, read_arguments, record
from noise_profile import hidden_pair, recipe_values
from numpy.typing import NDArray
from parts.scenes import SCENES, placed_molecules, recipe_of

from cryolithe.formats import read_mrc, write_stack
from cryolithe.simulation import Molecule, Recipe, SpecimenRecipe, make_specimen, project, simulate_series

Array = NDArray[np.float32]
SEED = 52
ANGLES_DEG = tuple(np.arange(-60.0, 61.0, 3.0))
SMOOTHED_PX = 0.6
SIGMAS_PX = tuple(np.arange(0.5, 6.01, 0.25))
VOXEL_ANGSTROM = 10.0
Make = Callable[[int], "Images"]


class Images(NamedTuple):
    """Tilt images of even and odd frames, and without noise, each of shape ``(tilts, y, x)``."""

    even: Array
    odd: Array
    clean: Array


class Score(NamedTuple):
    """Of some images: mean correlation with the ones without noise, and slope of those on them."""

    correlation: float
    slope: float


def proteins(snr_db: float, smoothed_px: float, shape: tuple[int, int, int], library: tuple[Molecule, ...]) -> Make:
    """Crowded proteins with white noise, or noise that interpolation smoothed, at an SNR of the whole dose."""

    def make(number: int) -> Images:
        rng = np.random.default_rng([SEED, number])
        recipe = SpecimenRecipe(shape, (VOXEL_ANGSTROM,) * 2, crowding=(0.08, 0.08), diverse=0.0)
        clean = project(make_specimen(recipe, library, rng), ANGLES_DEG)
        sigma = float(np.sqrt(2) * clean.std() * 10 ** (-snr_db / 20))

        def noise() -> Array:
            drawn = rng.standard_normal(clean.shape)
            drawn = scipy.ndimage.gaussian_filter(drawn, (0, smoothed_px, smoothed_px)) if smoothed_px else drawn
            return np.asarray(sigma * drawn / drawn.std(), np.float32)

        return Images(clean + noise(), clean + noise(), clean)

    return make


def imaged(recipe: Recipe, library: tuple[Molecule, ...]) -> Make:
    """Series of a recipe with optics."""

    def make(number: int) -> Images:
        series = simulate_series(recipe, library, SEED + number).series
        return Images(series.even, series.odd, series.clean)

    return make


def hidden(quick: bool, library: tuple[Molecule, ...]) -> Make:
    """Series of a microscope that no training knows; its images without noise have its gain pattern, too."""
    recipe = Recipe(**recipe_values(quick))

    def make(number: int) -> Images:
        pair = hidden_pair(recipe, library, SEED + number, 3.0)
        quiet = hidden_pair(recipe, library, SEED + number, 0.0)
        return Images(pair.extras["even"], pair.extras["odd"], quiet.extras["even"])

    return make


def kinds(quick: bool, library: tuple[Molecule, ...]) -> Iterator[tuple[str, Make]]:
    """What is measured, by name."""
    side = 64 if quick else 192
    shape = side // 3, side, side
    for snr_db in (-10.0,) if quick else (-15.0, -10.0, -5.0, 0.0):
        yield f"proteins, {snr_db:g} dB", proteins(snr_db, 0.0, shape, library)
    for snr_db in (-10.0,) if quick else (-10.0, -5.0):
        yield f"proteins, smoothed noise, {snr_db:g} dB", proteins(snr_db, SMOOTHED_PX, shape, library)
    for scene in SCENES:
        if "isolated" not in scene.title:
            yield scene.title, imaged(recipe_of(scene, side), library)
    yield "hidden microscope", hidden(quick, library)


def score_of(made: Array, clean: Array) -> Score:
    """Of images with contrast."""
    found = []
    for image, truth in zip(made, clean, strict=True):
        if image.std() > 0 and truth.std() > 0:
            covariance = np.cov(image.ravel().astype(np.float64), truth.ravel().astype(np.float64))
            found.append((covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]), *covariance[0]))
    correlation, power, cross = np.array(found).T
    return Score(float(correlation.mean()), float(cross.sum() / power.sum()))


def best_gaussian(images: Array, clean: Array) -> Score:
    """Of the Gaussian, one for all images, whose mean correlation with the truth is highest."""
    smoothed = (scipy.ndimage.gaussian_filter(images, (0, sigma, sigma)) for sigma in SIGMAS_PX)
    return max((score_of(made, clean) for made in smoothed), key=lambda score: score.correlation)


def denoised(stacks: list[Array], folder: Path, model: Path | None) -> Array:
    """What the command makes of one stack, or of two halves."""
    words = []
    for stack, name in zip(stacks, ("ts_EVN.mrc", "ts_ODD.mrc"), strict=False):
        write_stack(folder / name, stack, VOXEL_ANGSTROM, "simulated", overwrite=True)
        words.append(str(folder / name))
    words = [*words] if len(words) == 1 else ["--half1", words[0], "--half2", words[1]]
    words += ["--images", "-o", str(folder / "out.mrc"), "--overwrite", "--device", "cpu"]
    words += ["--model", str(model)] if model else []
    subprocess.run([*cryolithe_command(), "denoise", *words], check=True, capture_output=True)
    return np.asarray(read_mrc(folder / "out.mrc").data[:], np.float32)


def main() -> None:
    """Measure every kind."""
    options = parser("denoise_images", __doc__)
    options.add_argument("--molecules", type=Path, metavar="LIBRARY", help="HDF5 file; default: procedural molecules")
    options.add_argument("--model", type=Path, help="weights instead of the bundled ones")
    options.add_argument("--series", type=int, default=2, help="of each kind")
    arguments = read_arguments(options)
    library = placed_molecules(arguments.molecules)
    count = 1 if arguments.quick else arguments.series
    rows: list[list[Cell]] = []
    repeats: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, make in kinds(arguments.quick, library):
            found: dict[str, list[Score]] = {}
            for number in range(count):
                images = make(number)
                whole: Array = ((images.even + images.odd) / 2).astype(np.float32)
                one = denoised([whole], folder, arguments.model)
                halves = denoised([images.even, images.odd], folder, arguments.model)
                for what, score in {
                    "as they are": score_of(whole, images.clean),
                    "Gaussian": best_gaussian(whole, images.clean),
                    "one stack": score_of(one, images.clean),
                    "halves": score_of(halves, images.clean),
                }.items():
                    found.setdefault(what, []).append(score)
            means = {what: Score(*np.mean(scores, axis=0).tolist()) for what, scores in found.items()}
            rows.append(
                [
                    title,
                    *(score.correlation for score in means.values()),
                    means["one stack"].slope,
                    means["halves"].slope,
                ]
            )
            repeats[title] = {what: [score._asdict() for score in scores] for what, scores in found.items()}
    columns = ["images", "as they are", "Gaussian", "one stack", "halves", "truth on made: one stack", "halves"]
    note = (
        f"Mean correlation of images with the same images without noise; means of {count} series of 41 images of each "
        f"kind. {'Weights ' + arguments.model.name if arguments.model else 'The bundled weights'}."
    )
    results = {"tables": [Table("Tilt images denoised", columns, rows, note)], "repeats": repeats}
    record("denoise_images", results, arguments.output)


if __name__ == "__main__":
    main()
