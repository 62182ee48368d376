"""What `cryolithe train --finetune` gains in minutes on a handful of pairs of a kind that the model was not trained on.

Pairs and test series come from one simulated session: voxels smaller and defocus stronger than anything in the
training of the bundled models, contrast transfer left in, few tilts. The targets are the true volumes, the best case;
a lab's own targets are reconstructions. Two test series, drawn like the pairs, are seen by no training. Volumes are as
users get them, with the share of FBP that a model's card says; training and its losses know the network alone.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import ROOT, Cell, Table, cryolithe_command, parser, read_arguments, record

from cryolithe.files.yaml_table import read_yaml_table
from cryolithe.formats.pairs import Pair, write_pair
from cryolithe.machine.device import choose_precision, keep_freed_memory
from cryolithe.network.checkpoint import Model, load_model
from cryolithe.projector.classical import fbp_of_images
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.reconstruction.slabwise.networks import fbp_share
from cryolithe.simulation import Molecule, Recipe, recipe_library, simulate_series
from cryolithe.training.scaling import measure_scale
from cryolithe.training.scoring import Score, finished_array, range_of, reconstruct_array, score_volume
from cryolithe.training.series import simulated_pair

SEED = 91_000
TEST_SERIES = 2


def session_recipe(quick: bool) -> Recipe:
    """Voxels of 4 Å, 7-8 µm of defocus left in, a tilt every 4°."""
    values = read_yaml_table(ROOT / "training_data" / "recipes" / "train_uncorrected.yaml", "recipe")
    values["seed"] = SEED
    values["cell"] |= {
        "shape": [32, 64, 64] if quick else [64, 128, 128],
        "voxel_size_angstrom": [10.0, 10.0] if quick else [4.0, 4.0],
        "thickness_nm": [24.0, 28.0] if quick else [20.0, 24.0],
        "lamella_chance": 0.0,
        "vesicle_radius_nm": [6.0, 12.0],
    }
    values["imaging"]["scheme"] |= {"reach_deg": [60.0, 60.0], "step_deg": [4.0, 4.0], "missing": [0, 0]}
    values["imaging"]["optics"] |= {"defocus_um": [7.0, 8.0]}
    return Recipe(**values)


def scored(pair: Pair, model: Model) -> tuple[Score, Score]:
    """Scores of FBP and of a model on a test series."""
    scale = measure_scale(pair.images, "test series")
    tilts = np.flatnonzero(scale.usable)
    images, angles = scale.apply(pair.images[tilts], tilts).numpy(), tuple(np.asarray(pair.angles_deg)[tilts])
    truth, tilts_deg = -pair.truth, range_of(angles)
    compute = Compute(precision=choose_precision("auto", torch.device("cpu")))
    alone = reconstruct_array(model.network, images, angles, truth.shape[0], compute)
    volume = finished_array(model.network, alone, images, angles, fbp_share(model, None), compute)
    plain = fbp_of_images(images, angles, truth.shape[0])
    return score_volume(truth, plain, tilts_deg), score_volume(truth, volume, tilts_deg)


def make_pairs(recipe: Recipe, library: tuple[Molecule, ...], count: int) -> list[Pair]:
    """Series of the session with their truths."""
    return [simulated_pair(simulate_series(recipe, library, number)) for number in range(count)]


def main() -> None:
    """Fine-tune and score before and after."""
    options = parser("finetune", __doc__)
    options.add_argument("--molecules", type=Path, help="library; else procedural molecules only")
    options.add_argument("--model", default="default", help="name or path of the model to start from")
    options.add_argument("--pairs", type=int, default=5, help="to train on; one of them is held back for validation")
    options.add_argument("--minutes", type=float, default=5.0, help="of training")
    arguments = read_arguments(options)
    keep_freed_memory()
    minutes = 0.05 if arguments.quick else arguments.minutes
    recipe = session_recipe(arguments.quick)
    library = recipe_library(recipe, (arguments.molecules,) if arguments.molecules else ())
    pairs = make_pairs(recipe, library, arguments.pairs + TEST_SERIES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, pair in enumerate(pairs[TEST_SERIES:]):
            write_pair(folder / f"pair_{number}.h5", pair)
        tuned = folder / "mine.safetensors"
        command = [*cryolithe_command(), "train", "--finetune", arguments.model, str(folder), "-o", str(tuned)]
        start = time.perf_counter()
        subprocess.run([*command, "--train-minutes", str(minutes), "--device", "cpu"], check=True)
        seconds = time.perf_counter() - start
        models = {"before": load_model(arguments.model), "after": load_model(str(tuned))}
    found: dict[str, list[Score]] = {"FBP": [], "before": [], "after": []}
    for pair in pairs[:TEST_SERIES]:
        for name, model in models.items():
            plain, score = scored(pair, model)
            found[name].append(score)
        found["FBP"].append(plain)
    rows: list[list[Cell]] = [
        [
            name,
            *(float(np.mean([getattr(s, key) for s in scores])) for key in ("snr_db", "fsc_measured", "fsc_missing")),
        ]
        for name, scores in found.items()
    ]
    note = (
        f"Means of {TEST_SERIES} series like the pairs; voxels of 4 Å, defocus of 7-8 µm left in, 31 tilts ±60°. "
        f"{arguments.pairs} pairs, {minutes:g} minutes of training, {seconds:.0f} s for the whole command. Model "
        f"{models['before'].name} {models['before'].sha256[:12]}, with {fbp_share(models['before'], None):.0%} FBP."
    )
    columns = ["model", "SNR dB", "FSC measured", "FSC missing"]
    record("finetune", {"tables": [Table("Fine-tuning", columns, rows, note)], "seconds": seconds}, arguments.output)


if __name__ == "__main__":
    main()
