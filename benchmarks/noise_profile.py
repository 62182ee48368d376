"""What training with a measured noise profile gains on a microscope that the simulator does not know.

The microscope is hidden: its MTF, the colour and strength of its noise, a gain pattern and its contrast are set here
and nowhere else. A profile is measured of some of its series by `cryolithe noise measure`; one model is trained
from a bundled one on a recipe with its own counting noise, another for as long on the same recipe with the profile.
Both, and the one that they began with, are scored on other series of the hidden microscope, whose truth is known.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
from common import Cell, Table, cryolithe_command, parser, read_arguments, record
from finetune import Score, scored
from numpy.typing import NDArray

from cryolithe.files.yaml_table import yaml_text
from cryolithe.formats import write_angles_deg, write_stack
from cryolithe.formats.pairs import Pair
from cryolithe.machine.device import keep_freed_memory
from cryolithe.network.checkpoint import load_model
from cryolithe.simulation import Recipe, recipe_library, simulate_series
from cryolithe.simulation.molecules import Molecule

VOXEL_ANGSTROM = 10.0
SCHEME: dict[str, Any] = {"kinds": ["dose-symmetric"], "reach_deg": [60.0, 60.0], "step_deg": [3.0, 3.0]}
TEST_SERIES, PROFILE_SERIES = 3, 2
FIRST_TEST = 100  # numbers of series, apart from those that the profile is of
NOISE_OVER_COUNTING = 3.0  # amplitude


def recipe_values(quick: bool) -> dict[str, Any]:
    """What both models are trained on: crowded cells as the simulator makes them."""
    side, depth = (64, 32) if quick else (128, 64)
    return {
        "series": 1,
        "procedural": 24,
        "cell": {
            "shape": [depth, side, side],
            "voxel_size_angstrom": [VOXEL_ANGSTROM] * 2,
            "margin": 0.25,
            "crowding": [0.05, 0.2],
            "thickness_nm": [depth * 0.8, depth * 0.9],
            "vesicle_radius_nm": [10.0, 25.0],
        },
        "imaging": {"specimen_contrast": [0.5, 2.0], "scheme": SCHEME, "total_exposure": [60.0, 140.0]},
    }


def hidden_pair(recipe: Recipe, library: tuple[Molecule, ...], number: int, louder: float) -> Pair:
    """A series of the hidden microscope: its images, halves and truth, dense = dark."""
    imaging = replace(
        recipe.imaging,
        specimen_contrast=(0.8, 0.8),
        total_exposure=(90.0, 90.0),
        detector=replace(recipe.imaging.detector, mtf_nyquist=0.3, binning=2.0),
        optics=replace(recipe.imaging.optics, defocus_um=(4.5, 4.5)),
    )
    made = simulate_series(recipe.model_copy(update={"imaging": imaging, "seed": 977}), library, number)
    series, rng = made.series, np.random.default_rng([977, number])
    shape = series.clean.shape[1:]
    pattern = 1 + 0.1 * scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 1.0)
    colour = np.sqrt(0.2 + 0.8 / (1 + (_radius(shape) / 0.15) ** 4))
    halves = []
    for half in (series.even, series.odd):
        spread = louder * (half - series.clean).std(axis=(1, 2))
        noise = [s * scipy.fft.irfft2(scipy.fft.rfft2(rng.standard_normal(shape)) * colour, s=shape) for s in spread]
        halves.append((series.clean * pattern + np.stack(noise)).astype(np.float32))
    extras = {"even": halves[0], "odd": halves[1]}
    return Pair((halves[0] + halves[1]) / 2, made.truth, series.plan.angles_deg, VOXEL_ANGSTROM, extras)


def _radius(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return np.hypot(scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])[None])


def measured(folder: Path, pairs: list[Pair]) -> Path:
    """The profile of some series, by the real command."""
    files: list[str] = []
    for number, pair in enumerate(pairs):
        names = [folder / f"lab_{number}_{end}" for end in ("EVN.mrc", "ODD.mrc", "angles.tlt")]
        for name, half in zip(names, ("even", "odd"), strict=False):
            write_stack(name, pair.extras[half], VOXEL_ANGSTROM, "hidden microscope")
        write_angles_deg(names[2], pair.angles_deg)
        files += map(str, names)
    profile = folder / "profile.h5"
    subprocess.run([*cryolithe_command(), "noise", "measure", *files, "-o", str(profile)], check=True)
    return profile


def trained(folder: Path, name: str, start: str, length: dict[str, float], noise: list[str]) -> Path:
    """A model trained on the recipe in a folder, with or without profiles, for some steps or minutes."""
    config = {
        "start": start,
        "data": {
            "recipes": [{"path": "recipe.yaml"}],
            "noise": noise,
            "noise_chance": 0.75,
            "pool": 16,
            "pool_first": 4,
            "replace_every": 10,
        },
        "augment": {"flip_chance": 0.5, "half_chance": 0.2},
        "learning_rate": 0.0003,
        "warmup_steps": 20,
        "ema_decay": 0.98,
        "runs_per_step": 2,
        "steps": int(length.get("steps", 1_000_000)),
        "loss": {"cube": [16, 16, 16]},
        "validation": {"every": 0, "specimens": 0, "recipe_series": 0},
    }
    settings, output = folder / f"{name}.yaml", folder / f"{name}.safetensors"
    settings.write_text(yaml_text(config), encoding="utf-8")
    command = [*cryolithe_command(), "train", str(settings), "-o", str(output), "--device", "cpu"]
    if "minutes" in length:
        command += ["--train-minutes", str(length["minutes"])]
    subprocess.run(command, check=True)
    return output


def main() -> None:
    """Measure, train twice, score three models."""
    options = parser("noise_profile", __doc__)
    options.add_argument("--molecules", type=Path, help="library; else procedural molecules only")
    options.add_argument("--start", default="fast", help="name or path of the model that both begin with")
    options.add_argument("--minutes", type=float, default=3.0, help="of training, each")
    options.add_argument("--steps", type=int, help="of training, each, instead of minutes: fair on a loaded machine")
    arguments = read_arguments(options)
    keep_freed_memory()
    length = {"steps": arguments.steps} if arguments.steps else {"minutes": arguments.minutes}
    if arguments.quick:
        length = {"steps": 3}
    values = recipe_values(arguments.quick)
    if arguments.molecules:
        values["molecules"] = [str(arguments.molecules.absolute())]
    recipe = Recipe(**values)
    library = recipe_library(recipe, (arguments.molecules,) if arguments.molecules else ())
    louder = 1.0 if arguments.quick else NOISE_OVER_COUNTING  # tiny images hold too little of a faint signal
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.yaml").write_text(yaml_text(values), encoding="utf-8")
        profile = measured(folder, [hidden_pair(recipe, library, 1 + n, louder) for n in range(PROFILE_SERIES)])
        tests = [
            hidden_pair(recipe, library, FIRST_TEST + n, louder) for n in range(1 if arguments.quick else TEST_SERIES)
        ]
        models = {
            "before": load_model(arguments.start),
            "recipe's own noise": load_model(str(trained(folder, "own", arguments.start, length, []))),
            "with the profile": load_model(str(trained(folder, "like", arguments.start, length, [profile.name]))),
        }
    found: dict[str, list[Score]] = {"FBP": [], **{label: [] for label in models}}
    for pair in tests:
        for label, model in models.items():
            plain, score = scored(pair, model)
            found[label].append(score)
        found["FBP"].append(plain)
    keys = ("snr_db", "fsc_measured", "fsc_missing")
    rows: list[list[Cell]] = [
        [label, *(float(np.mean([getattr(score, key) for score in scores])) for key in keys)]
        for label, scores in found.items()
    ]
    note = (
        f"Means of {len(tests)} series of the hidden microscope; profile of {PROFILE_SERIES} others; from "
        f"{arguments.start}, steps of training: "
        f"{', '.join(str(model.card.get('steps')) for label, model in models.items() if label != 'before')}; "
        f"{time.perf_counter() - started:.0f} s in all."
    )
    columns = ["model", "SNR dB", "FSC measured", "FSC missing"]
    record("noise_profile", {"tables": [Table("Training with measured noise", columns, rows, note)]}, arguments.output)


if __name__ == "__main__":
    main()
