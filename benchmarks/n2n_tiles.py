"""Tiles of Noise2Noise: how much two tilings of one volume differ, by backbone and overlap.

A simulated lamella's halves (FBP of 41 tilts of ±60°, 10 Å) train each backbone for some CPU time; then a volume is
denoised in one piece and in the smallest tiles along x that a margin allows. Told is the largest difference of any
voxel, and its root mean square, in standard deviations of the output; the margin is what is thrown away at the inner
ends of a tile.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import numpy as np
import torch
from common import parser, read_arguments, record
from numpy.typing import NDArray

from cryolithe.denoising.n2n.network import BACKBONES, Config
from cryolithe.denoising.n2n.pairs import Patches
from cryolithe.denoising.n2n.recipe import make_recipe
from cryolithe.denoising.n2n.tiles import BLEND, Runner, Tiling, denoise_volume, margin_of, prepared, spans
from cryolithe.denoising.n2n.train import Hooks, new_state, train
from cryolithe.geometry import TiltGeometry
from cryolithe.machine.device import choose_precision
from cryolithe.optimise.distributed import Place
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp
from cryolithe.simulation import SpecimenRecipe, make_specimen, noise_sigma, project

VOXEL = 10.0
ANGLES_DEG = tuple(float(a) for a in np.arange(-60.0, 60.1, 3.0))
SHAPE = (64, 96, 320)
MARGINS = (8, 16, 24, 32, 40, 48, 64, 80, 96, 128)
CPU = torch.device("cpu")
Array = NDArray[np.float32]


class Half:
    """A standardised volume in memory."""

    def __init__(self, values: Array) -> None:
        self.values = ((values - np.median(values)) / values.std()).astype(np.float32)

    def box(self, place: tuple[slice, slice, slice]) -> Array:
        """Voxels of a box."""
        return self.values[place]


class Pair:
    """Two halves in memory."""

    def __init__(self, first: Array, second: Array) -> None:
        self.first, self.second, self.shape = Half(first), Half(second), first.shape


def make_halves(snr_db: float) -> Pair:
    """FBP from even and odd noise."""
    rng = np.random.default_rng(21)
    recipe = SpecimenRecipe(
        shape=SHAPE,
        voxel_size_angstrom=(VOXEL, VOXEL),
        crowding=(0.1, 0.1),
        membranes=(4, 4),
        body_chance=0,
        bead_chance=0,
    )
    clean = project(make_specimen(recipe, (), rng), ANGLES_DEG)
    sigma = noise_sigma(clean, snr_db)
    projector = make_projector(TiltGeometry(ANGLES_DEG, SHAPE[1:]), (SHAPE[0], SHAPE[2]))
    volumes = []
    for _ in range(2):
        stack = clean + rng.standard_normal(clean.shape, dtype=np.float32) * np.float32(math.sqrt(2) * sigma)
        stack -= stack.mean(axis=(1, 2), keepdims=True)
        volumes.append(fbp(projector, torch.from_numpy(stack)).numpy())
    return Pair(volumes[0], volumes[1])


def trained(config: Config, pair: Pair, seconds: float, place: Place) -> tuple[torch.nn.Module, int]:
    """A network after some CPU seconds of training, and its steps."""
    recipe = make_recipe(config, CPU, most_steps=100_000, validations=2)
    patches = Patches([pair], recipe.edge, config.multiple, 0)  # type: ignore[list-item]
    state = new_state(recipe, place)
    train(recipe, patches, place, Hooks(limit_seconds=seconds, clock=time.process_time), state)
    return state.best, state.step


def differences(config: Config, network: torch.nn.Module, volume: Array, place: Place) -> dict[str, Any]:
    """Largest and rms difference by margin, in deviations of the output."""
    run = Runner(prepared(network.eval(), config, CPU), CPU, place.precision)
    multiple, found = config.multiple, {}

    def applied(edge: int, margin: int) -> tuple[Array, int]:
        whole = [spans(size, size, 0, 0, multiple) for size in volume.shape[:2]]
        along = spans(volume.shape[2], edge, margin, BLEND, multiple)
        out = np.empty_like(volume)
        denoise_volume(run, [lambda box: volume[box]], Tiling(volume.shape, (whole[0], whole[1], along)), out)
        return out, len(along)

    single, _ = applied(volume.shape[2], 0)
    for margin in MARGINS:
        overlap = -(-(2 * margin + BLEND) // multiple) * multiple
        tiles, count = applied(overlap + multiple, margin)
        if count < 2:
            break
        apart = (tiles - single) / single.std()
        found[str(margin)] = {"most": float(np.abs(apart).max()), "rms": float(np.sqrt(np.mean(apart**2)))}
        print(margin, count, found[str(margin)], flush=True)
        if margin >= config.reach:
            break
    return found


def main(arguments: argparse.Namespace) -> None:
    """Train, tile, record."""
    torch.set_num_threads(1)
    if arguments.quick:
        arguments.seconds, arguments.backbones = 1.0, ["unet-small"]
    pair = make_halves(arguments.snr)
    results: dict[str, Any] = {}
    for name in arguments.backbones:
        config, place = BACKBONES[name], Place(CPU, choose_precision("auto", CPU))
        network, steps = trained(config, pair, arguments.seconds, place)
        edge = min(SHAPE[0], 64)
        volume = np.ascontiguousarray(pair.first.values[:edge, :64])
        print(name, "steps", steps, flush=True)
        found = differences(config, network, volume, place)
        results[name] = {"steps": steps, "reach": config.reach, "margin": margin_of(config), "differences": found}
    record("n2n_tiles", {"cpu_seconds": arguments.seconds, "backbones": results}, arguments.output)


if __name__ == "__main__":
    options = parser("n2n_tiles", __doc__)
    options.add_argument("--seconds", type=float, default=120, help="of CPU time, for each training")
    options.add_argument("--snr", type=float, default=-8.0, help="of the images, dB")
    options.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    main(read_arguments(options))
