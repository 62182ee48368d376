"""How good on crowded cells with the optics and noise of a microscope: FBP, SIRT and networks on the shipped recipes.

Small fields of the realistic recipes, filled with molecules that the bundled models never saw. SNR is after the best
affine fit to the truth; FSC is the mean over the shells in the measured region and in the missing wedge.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from common import ROOT, Cell, Table, parser, read_arguments, record

from cryolithe.device import choose_precision, keep_freed_memory
from cryolithe.geometry import TiltGeometry
from cryolithe.network.checkpoint import load_model
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp, sirt
from cryolithe.reconstruct.methods import Compute
from cryolithe.simulation import Molecule, Recipe, load_library, simulate_series
from cryolithe.training.scaling import measure_scale
from cryolithe.training.scoring import SIRT_ITERATIONS, reconstruct_array, score_volume

RECIPES = ("cellular", "lamella", "vesicles_gold", "isolated_proteins")
SEED = 90_000
UNSEEN = ("1bxn", "1u6g", "3cf3", "3d2f", "mb_5wek")


def small_recipe(name: str, side: int) -> Recipe:
    """A shipped recipe in a field of ``side / 2 x side x side`` voxels of 10 Å, as thick as the field allows."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "training_data" / "recipes" / f"{name}.yaml").read_text())
    depth = side // 2
    values["seed"] = SEED
    values["cell"] |= {
        "shape": [depth, side, side],
        "voxel_size_angstrom": [10.0, 10.0],
        "thickness_nm": [0.8 * depth, 0.95 * depth],
    }
    return Recipe(**values)


def scores_of(recipe: Recipe, library: tuple[Molecule, ...], number: int, networks: dict[str, Any]) -> dict[str, Any]:
    """Scores of all methods on one series."""
    made = simulate_series(recipe, library, number)
    truth = -made.truth
    scale = measure_scale(made.series.images, f"series {number}")
    tilts = np.flatnonzero(scale.usable)
    images = scale.apply(made.series.images[tilts], tilts)
    angles = tuple(np.asarray(made.series.plan.angles_deg)[tilts])
    depth, height, width = truth.shape
    projector = make_projector(TiltGeometry(angles, (height, width)), (depth, width))
    found = {"FBP": fbp(projector, images).numpy(), "SIRT": sirt(projector, images, SIRT_ITERATIONS).numpy()}
    compute = Compute(precision=choose_precision("auto", torch.device("cpu")))
    for name, network in networks.items():
        found[name] = reconstruct_array(network, images.numpy(), angles, depth, compute)
    reach = max(abs(min(angles)), abs(max(angles)))
    scores = {name: score_volume(truth, volume, reach) for name, volume in found.items()}
    return {"tilt_reach_deg": reach, "scores": {name: asdict(score) for name, score in scores.items()}}


def main() -> None:
    """Score all methods on all recipes."""
    options = parser("recipes", __doc__)
    options.add_argument("--molecules", type=Path, help="library; those that were held out of training are placed")
    options.add_argument("--models", default="default", help="names or paths, separated by commas")
    options.add_argument("--series", type=int, default=3, help="of each recipe")
    arguments = read_arguments(options)
    keep_freed_memory()
    side, series = (32, 1) if arguments.quick else (128, arguments.series)
    models = {name: load_model(name) for name in arguments.models.split(",")}
    networks = {f"network {Path(name).stem}": model.network for name, model in models.items()}
    everything = load_library((arguments.molecules,)) if arguments.molecules else ()
    library = tuple(molecule for molecule in everything if molecule.name in UNSEEN)
    rows: list[list[Cell]] = []
    runs: dict[str, Any] = {}
    for name in RECIPES:
        recipe = small_recipe(name, side)
        runs[name] = [scores_of(recipe, library, number, networks) for number in range(1, series + 1)]
        for method in runs[name][0]["scores"]:
            mean = np.mean([list(run["scores"][method].values()) for run in runs[name]], axis=0)
            rows.append([f"{name}: {method}", *(round(float(value), 3) for value in mean)])
        print(name, "done")
    note = (
        f"Means of {series} series of {side // 2} x {side} x {side} voxels of 10 Å (z, y, x), seed {SEED}. Molecules: "
        f"{', '.join(m.name for m in library) or 'none'}. Models: "
        f"{', '.join(f'{Path(name).stem} {model.sha256[:12]}' for name, model in models.items())}."
    )
    columns = ["recipe: method", "SNR dB", "FSC measured", "FSC missing"]
    record(
        "recipes", {"tables": [Table("On the realistic recipes", columns, rows, note)], "runs": runs}, arguments.output
    )


if __name__ == "__main__":
    main()
