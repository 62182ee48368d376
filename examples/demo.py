"""The demo: a real tilt series by FBP and by the network, then a simulated one, with membranes, against its truth.

Every step is a command that you can type yourself; each is shown before it runs. All of it takes about a minute on two
cores that are free, half of that with --model fast. With --picture FILE only the simulated part runs, and its picture
goes there in fewer greys, small enough for a front page.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryolithe.formats import read_volume
from cryolithe.metrics import fourier_shell_correlation, mean_correlation, scaled_snr_db
from cryolithe.report.figures import plot_central_slices
from cryolithe.report.greys import DENSE_DARK, grey_scale, told_polarity

HERE = Path(__file__).resolve().parent
NEEDLE = HERE / "needle"
OUTPUT = NEEDLE / "output"
SEED, THROUGH = "7", (54, 116, 57)  # a specimen, and a voxel (z, y, x) in the vesicle that it holds
Volume = NDArray[np.float32]


def cryolithe(*arguments: str | Path) -> None:
    """Show a command and run it."""
    shown = [str(a.relative_to(Path.cwd())) if isinstance(a, Path) and a.is_relative_to(Path.cwd()) else str(a)
             for a in arguments]  # fmt: skip
    print(f"\n$ cryolithe {shlex.join(shown)}", flush=True)
    subprocess.run([sys.executable, "-m", "cryolithe", *map(str, arguments)], check=True)


def methods(model: str) -> dict[str, tuple[str, ...]]:
    """What is compared, by the name that a picture gives it, and the options that ask for it."""
    return {"FBP": ("--method", "fbp"), f"network {model}": ("--model", model)}


def reconstruct_needle(model: str) -> None:
    """FBP and network of the needle, and one picture of both."""
    stack, angles = NEEDLE / "needle.mrc", NEEDLE / "needle.tlt"
    cryolithe("info", stack, angles)
    panels = []
    for method, chosen in methods(model).items():
        volume = OUTPUT / f"needle_{method.split()[0].lower()}.mrc"
        options = (*chosen, "--thickness", "128", "--contrast", "bright", "--overwrite")
        cryolithe("reconstruct", stack, angles, "-o", volume, *options)
        panels.append((method, read_volume(volume)))
    picture = OUTPUT / "needle.png"
    voxel = panels[0][1].voxel_size_angstrom
    caption = f"A needle of a chip: FBP and the network of the same series · {voxel:.4g} Å per voxel"
    caption += f" · {told_polarity('bright')}"
    plot_central_slices(picture, [(name, -np.asarray(v.voxels)) for name, v in panels], voxel, caption=caption)
    print(f"\nCentral slices of both: {picture}")


def compare_with_truth(picture: Path, model: str) -> None:
    """Simulate a series whose truth is known, reconstruct it, print how near each method comes, and draw it."""
    folder = OUTPUT / "simulated"
    cryolithe("simulate", "-o", folder, "--snr", "-5", "--seed", SEED, "--overwrite")
    known = read_volume(folder / "truth.mrc")
    truth = np.asarray(known.voxels)
    rows, panels = [], []
    for method, chosen in methods(model).items():
        volume = folder / f"{method.split()[0].lower()}.mrc"
        options = (*chosen, "--thickness", str(truth.shape[0]), "--overwrite")
        cryolithe("reconstruct", folder / "tilts.mrc", folder / "tilts.tlt", "-o", volume, *options)
        estimate = np.asarray(read_volume(volume).voxels)
        curve = fourier_shell_correlation(truth, estimate, tilt_range_deg=(-60, 60))
        rows.append((method, scaled_snr_db(truth, estimate), curve))
        panels.append((method, at_densities_of(truth, estimate)))
    print("\nAgainst the truth: procedural molecules and membranes, of the kind that the model was trained on;")
    print("41 tilts of ±60°, white noise at -5 dB")
    print(f"{'':<16}{'SNR dB':>8}{'FSC total':>11}{'measured':>10}{'missing wedge':>15}")
    for method, snr, curve in rows:
        means = [mean_correlation(values) for values in curve.columns().values()]
        print(f"{method:<16}{snr:>8.2f}{means[0]:>11.3f}{means[1]:>10.3f}{means[2]:>15.3f}")
    draw_comparison(picture, [*panels, ("truth", truth)], known.voxel_size_angstrom)


def at_densities_of(truth: Volume, estimate: Volume) -> Volume:
    """An estimate in the units of the truth: structure has the truth's contrast, and what is noise shows beside it."""
    slope, offset = np.polyfit(truth.ravel().astype(np.float64), estimate.ravel().astype(np.float64), 1)
    scaled: Volume = ((estimate - offset) / slope).astype(np.float32)
    return scaled


def draw_comparison(picture: Path, panels: list[tuple[str, Volume]], voxel: float | None) -> None:
    """All volumes cut alike through the vesicle, in the same greys."""
    truth = panels[-1][1]
    greys = grey_scale((truth[THROUGH[0]], truth[:, THROUGH[1]]))
    caption = (
        f"Simulated: 41 tilts of ±60°, white noise at -5 dB · {voxel:.4g} Å per voxel · one grey scale for all, that "
        f"of the truth, to whose densities each volume is brought · {DENSE_DARK}"
    )
    plot_central_slices(picture, panels, voxel, caption=caption, scale=greys, through=THROUGH)
    print(f"\nFBP, network and truth side by side: {picture}")


def make_small(picture: Path) -> None:
    """Keep 32 greys of a picture, which has no colours."""
    Image.open(picture).convert("L").quantize(32).save(picture, optimize=True)


def main() -> None:
    options = argparse.ArgumentParser(description="Draw the demo's pictures.")
    options.add_argument("--picture", type=Path, help="only the simulated comparison, as a small picture")
    options.add_argument("--model", default="default", help="name of the network")
    arguments = options.parse_args()
    started = time.monotonic()
    OUTPUT.mkdir(exist_ok=True)
    if arguments.picture:
        compare_with_truth(arguments.picture, arguments.model)
        make_small(arguments.picture)
        return
    reconstruct_needle(arguments.model)
    compare_with_truth(OUTPUT / "simulated.png", arguments.model)
    print(f"\nDone in {time.monotonic() - started:.0f} s. Everything is in {OUTPUT}")


if __name__ == "__main__":
    main()
