"""Samba as one of the denoisers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.arrays.spectra import central
from cryolithe.denoising.guard import LONGEST
from cryolithe.denoising.job import Given, Item, beside
from cryolithe.denoising.method import Applied, Halves, Method
from cryolithe.denoising.output import default_output
from cryolithe.denoising.samba.apply import CROP, FEWEST_VOXELS, make_output
from cryolithe.denoising.samba.inference import Inference
from cryolithe.denoising.samba.job import Resolved, SambaJob, look, resolve
from cryolithe.denoising.samba.learning import SambaTraining
from cryolithe.denoising.samba.model import Weights, load_weights
from cryolithe.denoising.samba.sweep import central_tile, sweep
from cryolithe.denoising.samba.training import FORMAT
from cryolithe.errors import InputError
from cryolithe.formats.volumes.volume_file import open_unturned, open_volume_file
from cryolithe.optimise.distributed import Place
from cryolithe.work.watcher import Watcher

# Evaluations at a time: on a CPU the channels of one have to stay in the cache.
BATCH = {"cpu": 1, "cuda": 8}
GUARD_PLANES = 48


class Samba(Method[SambaJob, Resolved, Weights]):
    """Every plane predicted from its neighbours along z (CryoSamba, Costa-Filho et al. 2024)."""

    name = "samba"
    state_format = FORMAT
    advice = "try a smaller --lmax, or train longer"
    scored = False

    def job(self, given: Given, choices: Mapping[str, Any]) -> SambaJob:
        """One volume, with or without halves for the guard.

        Raises:
            InputError: if there is no volume, or more than one pair of halves.
        """
        if len(given.volumes) != 1:
            raise InputError("give the VOLUME to denoise; halves alone are what --method n2n takes")
        if len(given.halves) > 1:
            raise InputError("give one pair of halves, those of VOLUME; several pairs are what --method n2n takes")
        left, volume = dict(choices), given.volumes[0]
        output = given.output or default_output(volume)
        item = Item({"volume": volume}, output, left.pop("report", None))
        return SambaJob(items=(item,), learned=beside(output), halves=given.halves[0] if given.halves else None, **left)

    def look(self, job: SambaJob, watcher: Watcher) -> list[Resolved]:
        """Open the volume, look at all of it, choose what was left open."""
        return [resolve(job, watcher)]

    def disk_bytes(self, job: SambaJob, view: Resolved) -> int:
        """Tiles and result; what an interrupted run has made of them is there already."""
        if job.lmax_sweep is not None or job.resume:
            return 0
        return round(math.prod(view.volume.shape) * (1.3 * 4 + view.target.dtype.itemsize))

    def training(self, job: SambaJob, views: Sequence[Resolved], place: Place) -> SambaTraining:
        """A training on the volume."""
        return SambaTraining(views[0], place)

    def load(self, path: Path) -> Weights:
        """Read weights."""
        return load_weights(path)

    def doubts(self, job: SambaJob, views: Sequence[Resolved], weights: Weights) -> list[str]:
        """Whether they were trained on another volume."""
        origin = weights.card.get("volume", {})
        if origin.get("fingerprint") == views[0].source.fingerprint():
            return []
        return [
            f"Warning: {job.model} was trained on another volume ({origin.get('name', 'unknown')}); results are "
            "more reliable with weights trained on the volume itself"
        ]

    def instead(self, job: SambaJob, view: Resolved, weights: Weights, place: Place, watcher: Watcher) -> Path | None:
        """A panel of several Lmax."""
        if job.lmax_sweep is not None:
            sweep(view, _inference(view, weights, place), job.lmax_sweep, watcher)
        return job.lmax_sweep

    def apply(self, job: SambaJob, view: Resolved, weights: Weights, place: Place, watcher: Watcher) -> Applied:
        """Denoise plane by plane, in tiles."""
        statistics, sigma = make_output(view, _inference(view, weights, place), weights, watcher)
        record = {
            "lmax_training": weights.card.get("recipe", {}).get("largest_gap"),
            "lmax_inference": view.gaps[1],
            "augment": job.augment,
            "input_kept_below_sigma_px": sigma,
            "crop": job.crop or CROP,
        }
        return Applied(statistics, _middle(view), record)

    def halves(self, job: SambaJob, view: Resolved, weights: Weights, place: Place, watcher: Watcher) -> Halves | None:
        """The middle of the halves that were given for the guard.

        Raises:
            InputError: if they differ in shape.
        """
        return _denoised_halves(job, _inference(view, weights, place), watcher) if job.halves else None


def _inference(run: Resolved, weights: Weights, place: Place) -> Inference:
    network = weights.network.to(place.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    usable, batch = run.source.survey.usable, BATCH.get(place.device.type, 1)
    return Inference(network, place, usable, run.gaps[1], run.job.augment, batch)


def _middle(run: Resolved) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The middle of the volume before, and as it was written; None if there is too little."""
    if min(run.volume.shape) < FEWEST_VOXELS:
        return None
    part, scale = central(run.volume.shape, LONGEST), run.source.survey.scale

    def middle(file: Any) -> NDArray[np.float32]:
        return np.stack([scale.apply(file.read(z)[part[1], part[2]]) for z in range(part[0].start, part[0].stop)])

    return middle(run.volume), middle(open_volume_file(run.item.output))


def _denoised_halves(job: SambaJob, inference: Inference, watcher: Watcher) -> Halves:
    """The middle of both halves, before and after."""
    assert job.halves is not None
    found: list[NDArray[Any]] = []
    for path in job.halves:
        opened = open_unturned(path, job.is_volume)
        source = look(opened, job.fix_nonfinite, watcher)
        tile = central_tile(source, CROP, inference.network.config.multiple)
        z = central(source.volume.shape, GUARD_PLANES)[0]
        own = replace(inference, usable=source.survey.usable)
        watcher.stage(f"Denoising the middle of {path.name}", z.stop - z.start)
        new = []
        for plane in own.planes(lambda k, source=source, tile=tile: source.window(k, tile), z.start, z.stop):  # type: ignore[misc]
            new.append(np.zeros((tile[0].length, tile[1].length), np.float32) if plane is None else plane)
            watcher.advance(1)
        found += [np.stack([source.window(k, tile) for k in range(z.start, z.stop)]), np.stack(new)]
    if found[0].shape != found[2].shape:
        raise InputError(
            f"the halves differ in shape: {job.halves[0]} and {job.halves[1]}; give volumes of one specimen and size"
        )
    return found[0], found[2], found[1], found[3]
