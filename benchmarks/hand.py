"""From which field on do images of cells tell the defocus, and the hand of its gradient?

Cells of the contrast that real ones have are simulated with the hand -1 and their CTF left in, and reconstructed with
``--ctf flip --defocus-hand auto`` and a .defocus that does not tell the hand. The sidecar has the hand that the images
say and by how many standard errors; 4 are asked for. It also has the defocus of the rings of the images with its gain,
of which 40 is asked for.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Cell, Table, cryolithe_command, parser, read_arguments, record

from cryolithe.files.yaml_table import yaml_text

HAND, DEFOCUS_UM, VOXEL_ANGSTROM, EXPOSURE = -1, 3.0, 4.0, 120.0
FIELDS = ((384, 512), (768, 1024), (1536, 2048))  # (y, x)
QUICK = ((48, 64),)


def recipe(field: tuple[int, int]) -> dict[str, Any]:
    """Cytosol with complexes and ribosomes, 22 to 24 nm of it: the hand does not know how thick it is."""
    return {
        "series": 1,
        "cell": {
            "shape": [64 if field[0] > 100 else 16, *field],
            "voxel_size_angstrom": [VOXEL_ANGSTROM] * 2,
            "margin": 0.1,
            "crowding": [0.08, 0.12],
            "cytosol_mg_ml": [200.0, 200.0],
            "cytosol_variation": [0.2, 0.2],
            "ribosomes_micromolar": [8.0, 8.0],
            "roughness_nm": [1.0, 1.0],
            "lamella_chance": 0,
            "thickness_nm": [22.0, 24.0],
        },
        "imaging": {
            "specimen_contrast": [1.0, 1.0],
            "scheme": {"kinds": ["dose-symmetric"], "reach_deg": [60.0, 60.0], "step_deg": [3.0, 3.0]},
            "total_exposure": [EXPOSURE] * 2,
            "optics": {
                "defocus_um": [DEFOCUS_UM] * 2,
                "defocus_spread_um": [0.0, 0.0],
                "astigmatism_um": [0.0, 0.0],
                "handedness": HAND,
                "illumination_mrad": 0.04,
            },
            "ctf": "left",
            "exposure_weighting": False,
            "detector": {"elastic_path_nm": 520.0, "zero_loss": True},
        },
    }


def told(field: tuple[int, int], seed: int, folder: Path) -> dict[str, Any]:
    """What the images of one series say."""
    made, angles = folder / "made", np.arange(-60.0, 60.1, 3.0)
    (folder / "recipe.yaml").write_text(yaml_text(recipe(field)))
    rows = [
        f"{n} {n} {a:.2f} {a:.2f} {1e3 * DEFOCUS_UM:g}{' 2' * (n == 1)}" for n, a in enumerate(angles.tolist(), start=1)
    ]
    (folder / "ts.defocus").write_text("\n".join(rows) + "\n")
    stack, output = made / "TS_001.mrc", folder / "volume.mrc"
    simulate = ["simulate", str(folder / "recipe.yaml"), "-o", str(made), "--seed", str(seed)]
    words = [str(stack), str(stack.with_suffix(".tlt")), "--method", "fbp", "--thickness", "8", "-o", str(output)]
    words += ["--ctf", "flip", "--ctf-file", str(folder / "ts.defocus"), "--defocus-hand", "auto"]
    for command in (simulate, ["reconstruct", *words]):
        done = subprocess.run([*cryolithe_command(), *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    sidecar = json.loads(output.with_suffix(".json").read_text())
    ctf = sidecar["method"]["corrections"]["ctf"]
    return {**ctf["hand_by_images"], "asked": ctf["hand_by_images"]["images"], **ctf["defocus_by_images"]}


def main() -> None:
    """Simulate and ask each field."""
    made = parser("hand", __doc__)
    made.add_argument("--seeds", type=int, default=2, help="series of each field")
    options = read_arguments(made)
    rows: list[list[Cell]] = []
    for field in QUICK if options.quick else FIELDS:
        for seed in range(1, 1 + (1 if options.quick else options.seeds)):
            with tempfile.TemporaryDirectory() as name:
                found = told(field, seed, Path(name))
            size = " x ".join(f"{n * VOXEL_ANGSTROM / 1e4:.2g}" for n in field)
            hand = found["hand"]
            said = "not told" if hand is None else "right" if hand == HAND else "wrong"
            rings = "none" if not found["gain"] else f"{found['best_um']:.2f}"
            row = [f"{field[0]} x {field[1]}", size, seed, found["standard_errors"], found["asked"], said]
            rows.append([*row, rings, found["gain"]])
            print(rows[-1], flush=True)
    note = (
        f"Pixels of {VOXEL_ANGSTROM:g} Å, {DEFOCUS_UM:g} µm, 41 tilts of ±60°, {EXPOSURE:g} e/Å², the contrast "
        f"that atoms amount to, true hand {HAND}: standard errors are negative where the images say so."
    )
    columns = ["pixels (y, x)", "field, µm", "seed", "standard errors", "images", "hand", "rings, µm", "gain"]
    record("hand", {"tables": [Table("The hand of the defocus gradient", columns, rows, note)]}, options.output)


if __name__ == "__main__":
    main()
