"""DUAL's unpaired denoiser on simulated tomograms: what it gains, where from, and what it draws into empty ice.

As in SHREC 2021: crowds of several molecules with vesicles and gold at 10 Å, 61 tilts of ±60°, counting noise, CTF.
DUAL (baselines/dual.py) learns from noisy tomograms (FBP) and clean densities of *other* specimens. One more specimen
is the test: PSNR (the peak is the range of the truth) and SSIM (7³ voxels) of standardised volumes, SNR after the best
line, and picking by a difference of Gaussians, 1.23 picks for each molecule as in the paper (500 for 407). FBP, the
Gaussian that its halves call for, Noise2Noise trained on its halves and, if given, Topaz-Denoise stand beside it. "Grey
levels" is the Gaussian's volume with the histogram of a clean density of another specimen: what is won by that alone.

Empty ice is a slab of ice without anything in it, imaged likewise. There every method's volume is searched for blobs
with at least the score of the threshold that is best (highest F1) in its volume of the test specimen: each one is a
molecule that is not there. Every tomogram is standardised first, as DUAL asks.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
import torch
from baselines import dual
from baselines.classical import gaussian
from baselines.topaz import find_topaz
from common import ROOT, Table, parser, read_arguments, record
from numpy.typing import NDArray
from parts.scenes import PLAIN, SEED, Case, Scene, case_of, placed_molecules
from skimage.exposure import match_histograms

from cryolithe.denoising.n2n.network import BACKBONES
from cryolithe.denoising.n2n.pairs import Patches
from cryolithe.denoising.n2n.recipe import make_recipe
from cryolithe.denoising.n2n.tiles import Runner, Tiling, denoise_volume, prepared, spans
from cryolithe.denoising.n2n.train import Hooks, new_state, train
from cryolithe.evaluation.picking import TOLERANCE, match, pick_blobs, picking_score
from cryolithe.evaluation.similarity import similarity
from cryolithe.files.yaml_table import merged
from cryolithe.machine.device import choose_precision
from cryolithe.optimise.distributed import Place
from cryolithe.projector.classical import fbp
from cryolithe.simulation import Molecule, Recipe, SimulatedSeries, simulate_series
from cryolithe.simulation.crowd import make_cell

Volume = NDArray[np.float32]

SCENE = Scene("as SHREC 2021", "")
PICKS_PER_MOLECULE = 500 / 407
MOST_ICE = 100_000
NOTHING: dict[str, Any] = dict.fromkeys(
    ("crowding", "vesicles", "tubes", "organelles", "membrane_proteins", "actin", "microtubules", "nucleic_acids",
     "gold", "bodies", "crystals"), (0.0, 0.0),
)  # fmt: skip
BACKBONE = "unet-small"


class Tomogram(NamedTuple):
    """FBP of all data and of each half in its units: those in which the first has mean 0 and standard deviation 1.

    Attributes:
        all: shape ``(z, y, x)``, dense = bright.
        even: of the even frames.
        odd: of the odd frames.
    """

    all: Volume
    even: Volume
    odd: Volume


Method = Callable[[Tomogram], Volume]


def recipe_of(shape: tuple[int, int, int]) -> Recipe:
    """Crowds with vesicles and gold in slabs that fill most of the field."""
    nm = shape[0]  # at 10 Å
    cell: dict[str, Any] = {name: [0.0, 0.0] for name in NOTHING} | {
        "shape": list(shape),
        "voxel_size_angstrom": [10.0, 10.0],
        "crowding": [0.08, 0.12],
        "margin": 0.3,
        "vesicles": [20.0, 40.0],
        "vesicle_radius_nm": [10.0, 25.0],
        "gold": [10.0, 20.0],
        "gold_diameter_nm": [5.0, 8.0],
        "sheets": [0, 0],
        "carbon_chance": 0.0,
        "lamella_chance": 0.0,
        "thickness_nm": [0.8 * nm, 0.9 * nm],
    }
    imaging = merged(PLAIN, {"scheme": {"kinds": ["linear"], "step_deg": [2.0, 2.0]}})
    return Recipe(seed=SEED + 500, cell=cell, imaging=imaging)


def tomogram_of(case: Case) -> Tomogram:
    """FBP, standardised."""
    volumes = [fbp(case.projector, images).numpy() for images in (case.images, case.even, case.odd)]
    mean, deviation = volumes[0].mean(dtype=np.float64), volumes[0].std(dtype=np.float64)
    return Tomogram(*(np.asarray((volume - mean) / deviation, dtype=np.float32) for volume in volumes))


def imaged(recipe: Recipe, library: tuple[Molecule, ...], number: int) -> tuple[Case, Tomogram]:
    """A series and its tomogram."""
    made: SimulatedSeries = simulate_series(recipe, library, number)
    case = case_of(made, SCENE, library, number)
    return case, tomogram_of(case)


def clean_density(recipe: Recipe, library: tuple[Molecule, ...], number: int) -> Volume:
    """A specimen that nobody images."""
    cell = make_cell(recipe.cell, library, np.random.default_rng([recipe.seed, number]))
    return np.ascontiguousarray(cell.density[:, :, cell.field])


class _Half:
    """One half in memory, for `Patches`."""

    def __init__(self, values: Volume) -> None:
        self.values = values

    def box(self, place: tuple[slice, slice, slice]) -> Volume:
        """Voxels of a box."""
        return self.values[place]


class _Pair:
    """Two halves in memory."""

    def __init__(self, tomogram: Tomogram, scale: float) -> None:
        self.first, self.second = (_Half(half / np.float32(scale)) for half in (tomogram.even, tomogram.odd))
        self.shape = tomogram.all.shape


def noise2noise(test: Tomogram, seconds: float) -> Method:
    """Train `cryolithe denoise --method n2n`'s network on the halves of the test; the mean of what it makes of both."""
    config, device = BACKBONES[BACKBONE], torch.device("cpu")
    place, scale = Place(device, choose_precision("auto", device)), float(test.even.std())
    recipe = make_recipe(config, device, most_steps=100_000, validations=4)
    patches = Patches([_Pair(test, scale)], recipe.edge, config.multiple, 0)  # type: ignore[list-item]
    state = new_state(recipe, place)
    train(recipe, patches, place, Hooks(limit_seconds=seconds), state)
    run = Runner(prepared(state.best.eval(), config, device), device, place.precision)

    def apply(half: Volume) -> Volume:
        given, out = half / np.float32(scale), np.empty_like(half)
        whole = [spans(size, size, 0, 0, config.multiple) for size in half.shape]
        denoise_volume(run, [lambda box: given[box]], Tiling(half.shape, (whole[0], whole[1], whole[2])), out)
        return out * np.float32(scale)

    return lambda tomogram: np.asarray(0.5 * (apply(tomogram.even) + apply(tomogram.odd)), dtype=np.float32)


def learned(sets: tuple[list[Volume], list[Volume]], arguments: argparse.Namespace, data: str) -> dual.DualState:
    """Train DUAL, going on from where an earlier run stopped."""
    settings = dual.DualSettings(arguments.filters, 4 if arguments.quick else 64, arguments.batch)
    state = dual.new_state(settings, Place(torch.device(arguments.device)))
    if arguments.state.exists():
        dual.resume(arguments.state, state, settings, data)
        print(f"going on from {arguments.state}: {state.step} steps, {state.seconds / 60:.1f} minutes", flush=True)
    arguments.state.parent.mkdir(parents=True, exist_ok=True)

    def on_save(state: dual.DualState) -> None:
        dual.save(arguments.state, state, settings, data)
        told = ", ".join(f"{name} {value:.3f}" for name, value in state.last.items())
        print(f"{state.seconds / 60:.1f} minutes, {state.step} steps: {told}", flush=True)

    noisy, clean = (dual.patches_of(volumes) for volumes in sets)
    dual.train(state, (noisy, clean), settings, 60 * arguments.minutes, on_save)
    return state


def fingerprint(recipe: Recipe, library: tuple[Molecule, ...], count: int) -> str:
    """A hash of what the training's data are made of."""
    digest = hashlib.sha256(repr((recipe.model_dump(mode="json"), count)).encode())
    for molecule in library:
        digest.update(f"{molecule.name} {molecule.voxel_size_angstrom}".encode() + molecule.density.tobytes())
    return digest.hexdigest()


def measured(case: Case, volume: Volume, ice: Volume) -> dict[str, Any]:
    """Scores of one method's volumes of the test and of empty ice."""
    like = similarity(case.truth, volume)
    known = len(case.known_px)
    picks, scores = pick_blobs(volume, case.diameter_px, most=round(PICKS_PER_MOLECULE * known))
    hits = match(picks, case.known_px, TOLERANCE * case.diameter_px)
    picked = picking_score(hits, known, case.diameter_px * case.voxel_angstrom)
    found: dict[str, Any] = {
        "psnr_db": like.psnr_db, "ssim": like.ssim, "snr_db": like.snr_db,
        "precision": picked.precision, "recall": picked.recall, "f1": picked.f1,
        "ice_deviation": float(ice.std() / volume.std()),
    }  # fmt: skip
    if len(scores):
        # F1 = 2 true / (found + known); where it is highest along the ranking lies the best threshold.
        f1 = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + known)
        best = int(f1.argmax())
        _, inside = pick_blobs(ice, case.diameter_px, most=MOST_ICE)
        found["kept"] = best + 1
        found["drawn_into_ice"] = int((inside >= scores[best]).sum())
    return found


def table_of(rows: dict[str, dict[str, Any]], known: int, note: str) -> Table:
    """One row for each method."""
    names = ("psnr_db", "ssim", "snr_db", "precision", "recall", "f1", "kept", "drawn_into_ice", "ice_deviation")
    titles = ("PSNR dB", "SSIM", "SNR dB", "precision", "recall", "F1", f"kept (of {known})", "drawn into ice",
              "deviation in ice")  # fmt: skip
    return Table(
        "DUAL", ("method", *titles), [(name, *(row.get(n) for n in names)) for name, row in rows.items()], note
    )


def main(arguments: argparse.Namespace) -> None:
    """Simulate, train, denoise, score."""
    shape, count, n2n_seconds = tuple(arguments.shape), arguments.tomograms, 60 * arguments.n2n_minutes
    if arguments.quick:
        shape, count, n2n_seconds, arguments.minutes, arguments.filters = (32, 64, 64), 1, 1.0, 0.03, 4
    library, recipe = placed_molecules(arguments.molecules), recipe_of(shape)
    data = fingerprint(recipe, library, count)
    start = time.perf_counter()
    noisy = [imaged(recipe, library, 1 + n)[1].all for n in range(count)]
    clean = [clean_density(recipe, library, 101 + n) for n in range(count)]
    case, test = imaged(recipe, library, 201)
    empty = recipe.model_copy(update={"cell": replace(recipe.cell, **NOTHING)})
    _, ice = imaged(empty, (), 301)
    print(f"{2 * count + 2} specimens in {time.perf_counter() - start:.0f} s", flush=True)

    smooth = gaussian(test.all, test.even, test.odd)

    def blurred(tomogram: Tomogram) -> Volume:
        return np.asarray(scipy.ndimage.gaussian_filter(tomogram.all, smooth.value, mode="wrap"))

    def grey(tomogram: Tomogram) -> Volume:
        # Ice gets the grey levels of the same values in the test: one curve, not a histogram of its own.
        levels = np.sort(match_histograms(blurred(test), clean[0]).ravel())
        return np.asarray(np.interp(blurred(tomogram), np.sort(blurred(test).ravel()), levels), dtype=np.float32)

    with tempfile.TemporaryDirectory() as folder:
        if arguments.quick:
            arguments.state = Path(folder) / "state.safetensors"
        state = learned((noisy, clean), arguments, data)
    methods: dict[str, Method] = {
        "FBP": lambda tomogram: tomogram.all,
        f"Gaussian, σ {smooth.value:g}": blurred,
        "the same, grey levels of a clean density": grey,
        "Noise2Noise": noise2noise(test, n2n_seconds),
        "DUAL": lambda tomogram: dual.denoise(state.network, tomogram.all),
    }
    if arguments.topaz:
        topaz = find_topaz(arguments.topaz)
        methods[f"Topaz-Denoise {topaz.version}"] = lambda tomogram: topaz.denoise(tomogram.all, case.voxel_angstrom)
    rows = {name: measured(case, method(test), method(ice)) for name, method in methods.items()}
    note = (
        f"DUAL: {state.step} steps of {arguments.batch} patches in {state.seconds / 60:.1f} minutes "
        f"({arguments.device}), {arguments.filters} filters, {count} noisy tomograms and {count} densities of "
        f"{' x '.join(map(str, shape))}; Noise2Noise: {n2n_seconds / 60:.1f} minutes. {len(case.known_px)} molecules "
        "in the test; kept: picks at the best threshold; drawn into ice: blobs above it in an equal field of empty "
        "ice; deviation in ice: in units of that in the test."
    )
    results: dict[str, Any] = {
        "tables": [table_of(rows, len(case.known_px), note)],
        "scores": rows,
        "losses_at_end": state.last,
    }
    results |= {"steps": state.step, "seconds": state.seconds, "diameter_px": case.diameter_px}
    record("dual", results, arguments.output)


if __name__ == "__main__":
    options = parser("dual", __doc__)
    options.add_argument("--molecules", type=Path, help="library, to place those held out of training; else procedural")
    options.add_argument("--topaz", type=Path, help="Python of an environment that has Topaz")
    options.add_argument("--minutes", type=float, default=30, help="of DUAL's training, those of earlier runs included")
    options.add_argument("--n2n-minutes", type=float, default=5, help="of Noise2Noise's training")
    options.add_argument("--filters", type=int, default=16, help="of DUAL's U-Nets at full resolution")
    options.add_argument("--batch", type=int, default=4, help="patches of each set in a step")
    options.add_argument("--tomograms", type=int, default=4, help="noisy ones, and as many clean densities")
    options.add_argument("--shape", type=int, nargs=3, default=(64, 192, 192), help="voxels of each, (z, y, x)")
    options.add_argument("--device", default="cpu", help="of DUAL's training")
    options.add_argument(
        "--state", type=Path, default=ROOT / "runs" / "dual.safetensors", help="from which a training goes on"
    )
    main(read_arguments(options))
