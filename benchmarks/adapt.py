"""What `cryolithe adapt` gains in minutes on series of a microscope that no training knows, and what it forgets.

The hidden microscope: noise that is correlated over pixels, a modulation transfer that falls quickly, contrast 0.4 at
the noise of 1 (``--noise white``: white noise, a transfer that falls more quickly, contrast 0.3). A model is adapted to
two series in halves of frames, without any truth. Then it is scored on a third series of that microscope, by the truth,
and on one as trainings have them. Volumes are of the network alone, as in training, and as users get them, with the
share of FBP that the model's card says.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.ndimage
from common import Cell, Table, cryolithe_command, parser, read_arguments, record
from numpy.typing import NDArray

from cryolithe.formats import read_volume, write_stack
from cryolithe.machine.device import keep_freed_memory
from cryolithe.network.checkpoint import load_model
from cryolithe.projector.classical import fbp_of_images
from cryolithe.simulation import SpecimenRecipe, make_specimen, project
from cryolithe.training.scoring import Score, score_volume

SEED = 95_000
ANGLES = tuple(float(a) for a in np.arange(-60.0, 60.1, 3.0))
OLD_SNR_DB = -5.0
ALONE = ["--fbp-share", "0", "--wedge-trust", "full"]
# Contrast, correlation of the noise and blur of the signal in pixels (standard deviations).
MICROSCOPES = {"coloured": (0.4, 0.7, 0.6), "white": (0.3, 0.0, 0.8)}
Array = NDArray[np.float32]


def hidden_series(noise_kind: str, shape: tuple[int, int, int], number: int) -> tuple[Array, tuple[Array, Array]]:
    """Truth ``(z, y, x)`` and the two halves ``(tilts, y, x)``, dense = dark."""
    contrast, noise_sigma_px, blur_px = MICROSCOPES[noise_kind]
    rng = np.random.default_rng([SEED, number])
    recipe = SpecimenRecipe(shape, (10.0, 10.0), (0.06, 0.12), diverse=float(number % 2))
    specimen = make_specimen(recipe, (), rng)
    clean = project(specimen, ANGLES)
    clean = scipy.ndimage.gaussian_filter(clean, (0, blur_px, blur_px))
    halves = []
    for _ in range(2):
        noise = scipy.ndimage.gaussian_filter(rng.standard_normal(clean.shape), (0, noise_sigma_px, noise_sigma_px))
        # Noise of the sum of both halves equals the signal at contrast 1.
        noise *= np.sqrt(2) / noise.std()
        halves.append((100 - 10 * (contrast * clean / clean.std() + noise)).astype(np.float32))
    return specimen.density, (halves[0], halves[1])


def scored(truth: Array, stack: Path, model: str, *words: str) -> Score:
    """Scores of the volume that the command makes of a stack, dense = dark."""
    volume = stack.with_name("volume.mrc")
    fixed = ["--thickness", str(truth.shape[0]), "--contrast", "dark", "--device", "cpu", "--overwrite"]
    command = [*cryolithe_command(), "reconstruct", str(stack), str(stack.with_name("angles.tlt")), "-o", str(volume)]
    subprocess.run([*command, "--model", model, *fixed, *words], check=True, stderr=subprocess.DEVNULL)
    return score_volume(truth, -read_volume(volume).voxels.astype(np.float32), (-60.0, 60.0))


def old_series(shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """Truth and images, dense = dark, as bundled models know them: white noise, signal -5 dB, no modulation."""
    rng = np.random.default_rng([SEED, 50])
    specimen = make_specimen(SpecimenRecipe(shape, (10.0, 10.0), (0.06, 0.12), diverse=1.0), (), rng)
    clean = project(specimen, ANGLES)
    noisy = clean / clean.std() * 10 ** (OLD_SNR_DB / 20) + rng.standard_normal(clean.shape)
    return specimen.density, (100 - noisy).astype(np.float32)


def _cells(score: Score) -> list[Cell]:
    return [score.snr_db, score.fsc_measured, score.fsc_missing]


def main() -> None:
    """Adapt and score before and after."""
    options = parser("adapt", __doc__)
    options.add_argument("--model", default="default", help="name or path of the model to begin with")
    options.add_argument("--minutes", type=float, default=10.0, help="of the whole adaptation")
    options.add_argument("--noise", choices=list(MICROSCOPES), default="coloured", help="of the hidden microscope")
    arguments = read_arguments(options)
    kind = arguments.noise
    keep_freed_memory()
    minutes = 0.5 if arguments.quick else arguments.minutes
    shape = (32, 96, 64) if arguments.quick else (64, 224, 160)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "angles.tlt").write_text("".join(f"{angle:g}\n" for angle in ANGLES), encoding="utf-8")
        words: list[str] = []
        for number in range(2):
            for half, recorded in zip(("even", "odd"), hidden_series(kind, shape, number)[1], strict=True):
                path = folder / f"{number}_{half}.mrc"
                write_stack(path, recorded, 10.0, "half of a hidden microscope")
                words += [f"--{half}", str(path)]
        adapted = folder / "mine.safetensors"
        words += [str(folder / "angles.tlt")] * 2
        words += ["--thickness", str(shape[0]), "--model", arguments.model, "--device", "cpu", "--contrast", "dark"]
        start = time.perf_counter()
        command = [*cryolithe_command(), "adapt", *words, "-o", str(adapted), "--minutes", str(minutes)]
        done = subprocess.run(command, check=False)
        seconds = time.perf_counter() - start
        checks = json.loads((folder / "mine.run" / "checks.json").read_text(encoding="utf-8"))
        models = {"before": arguments.model}
        if done.returncode == 0:
            models["after"] = str(adapted)
        known = load_model(arguments.model)
        place = (shape[0], 128 if not arguments.quick else 64, shape[2])
        truth, halves = hidden_series(kind, place, 3)
        old_truth, old_images = old_series(place)
        images: Array = ((halves[0] + halves[1]) / 2).astype(np.float32)
        write_stack(folder / "third.mrc", images, 10.0, "of a hidden microscope")
        write_stack(folder / "old.mrc", old_images, 10.0, "of the old kind")
        rows: list[list[Cell]] = [
            ["hidden, FBP", *_cells(score_volume(truth, fbp_of_images(-images, ANGLES, shape[0]), (-60.0, 60.0)))]
        ]
        for title, model in models.items():
            for how, words in (("alone", ALONE), ("as users get it", [])):
                rows.append([f"hidden, {title}, {how}", *_cells(scored(truth, folder / "third.mrc", model, *words))])
        for title, model in models.items():
            rows.append([f"old, {title}, alone", *_cells(scored(old_truth, folder / "old.mrc", model, *ALONE))])
    kept: list[list[Cell]] = [
        [check["step"], check["share"], check["white"], check["fsc_half"], check["fsc_left_out"], check["anchor_db"]]
        for check in checks
    ]
    note = (
        f"A third series of the hidden microscope, {kind} noise, contrast {MICROSCOPES[kind][0]:g}; "
        f"{minutes:g} minutes for two series of "
        f"{' x '.join(map(str, shape))} voxels, {seconds:.0f} s for the whole command"
        f"{'' if 'after' in models else '; NOT WRITTEN: no better weights were found'}. "
        f"Model {known.name} {known.sha256[:12]}. Old: white noise at {OLD_SNR_DB:g} dB, as trainings have it."
    )
    tables = [
        Table("Adapted to a hidden microscope", ["series, model", "SNR dB", "FSC measured", "FSC missing"], rows, note),
        Table(
            "Checks",
            ["step", "of the way", "noise made white", "FSC other half", "FSC left-out tilts", "simulated dB"],
            kept,
        ),
    ]
    record("adapt" if kind == "coloured" else f"adapt_{kind}", {"tables": tables, "seconds": seconds}, arguments.output)


if __name__ == "__main__":
    main()
