"""A fixed validation set: series that training never sees, scored the same way each time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.errors import SettingsError
from cryolithe.formats.pairs import Pair, open_pair
from cryolithe.known import NOTHING, Known
from cryolithe.network import BlockHead, Network
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.simulation import Molecule, add_white_noise, make_specimen, project
from cryolithe.training.class_scoring import SUMMARY, structure_labels, summary_fidelity
from cryolithe.training.config import TrainConfig
from cryolithe.training.knowing import known_of_pair, known_of_plain
from cryolithe.training.recipe_maker import recipe_maker
from cryolithe.training.scaling import measure_scale
from cryolithe.training.scoring import range_of, reconstruct_array, score_volume
from cryolithe.training.series import simulated_pair
from cryolithe.training.sources import find_pairs

_STREAM = 41
# Numbers of recipe series that no training run reaches.
_FIRST_NUMBER = 1 << 40


@dataclass(frozen=True)
class Example:
    """A series with its truth.

    Attributes:
        name: where it comes from, with its noise level where that is known.
        images: shape ``(tilts, y, x)``, mean removed, dense = positive.
        angles_deg: their angles.
        truth: shape ``(z, y, x)``, dense = positive.
        labels: classes of its voxels (`cryolithe.simulation.Structure`), the same shape; None where nobody knows.
        known: what a network that takes facts is told.
    """

    name: str
    images: NDArray[np.float32]
    angles_deg: tuple[float, ...]
    truth: NDArray[np.float32]
    labels: NDArray[np.uint8] | None = None
    known: Known = NOTHING


@dataclass(frozen=True)
class Verdict:
    """How a network did on an example.

    Attributes:
        name: of the example.
        loss: squared error of the weighted outputs after the best scale, relative to that of an output of zeros.
        snr_db: see `cryolithe.training.scoring.Score`.
        fsc_measured: likewise.
        fsc_missing: likewise.
        bands: the same as ``loss`` for each output band (8 at one level or more; one for voxels).
        fidelity: correlation with the truth within membranes, filaments and proteins
            (`cryolithe.training.class_scoring.summary_fidelity`); NaN for what is not there or not labelled.
    """

    name: str
    loss: float
    snr_db: float
    fsc_measured: float
    fsc_missing: float
    bands: tuple[float, ...]
    fidelity: tuple[float, ...] = (math.nan,) * len(SUMMARY)


def validation_set(
    config: TrainConfig, base: Path, library: tuple[Molecule, ...] = (), molecules: tuple[Path, ...] = ()
) -> list[Example]:
    """Make the examples of a configuration; the same configuration gives the same ones.

    Args:
        config: of the run.
        base: folder that its paths are relative to.
        library: molecules for plain specimens: those held out.
        molecules: libraries that replace those of recipes.

    Raises:
        SettingsError: if a pair is in the training set too.
    """
    settings = config.validation
    if not settings.every:
        return []
    examples: list[Example] = []
    if config.data.plain_share:
        for number in range(settings.specimens):
            changes: dict[str, object] = {"shape": settings.shape}
            if 0 < config.specimens.diverse < 1:  # in turn, so that both are there
                changes["diverse"] = float(number % 2)
            recipe = config.specimens.model_copy(update=changes).recipe()
            rng = np.random.default_rng([config.seed, number, _STREAM])
            specimen = make_specimen(recipe, library, rng)
            angles = config.tilts.draw(rng)
            images = project(specimen, angles)
            for snr_db in settings.snr_db:
                noisy = add_white_noise(images, snr_db, rng)
                noisy -= noisy.mean(axis=(1, 2), keepdims=True)
                name = f"plain {number + 1} {snr_db:g} dB"
                told = known_of_plain(specimen.voxel_size_angstrom)
                examples.append(Example(name, noisy, angles, specimen.density, specimen.labels, told))
    if config.data.recipes:
        maker = recipe_maker(config, base, molecules)
        for number in range(settings.recipe_series):
            series, known, factor = maker.simulated(_FIRST_NUMBER + number)
            example = _example(simulated_pair(series, factor), f"recipe {number + 1}", None)
            if factor == 1.0:  # else labels would be those of other voxels
                example = replace(example, labels=structure_labels(series.cell.labels, series.cell.classes, known))
            examples.append(example)
    training = find_pairs(config.data.pairs, base)
    held_back = find_pairs(settings.pairs, base)
    _check_disjoint(training, held_back)
    for path in held_back:
        with open_pair(path) as pair:
            examples.append(_example(pair, path.stem, settings.rows))
    return examples


def judge(
    network: Network, examples: Sequence[Example], config: TrainConfig, compute: Compute
) -> tuple[list[Verdict], list[NDArray[np.float32]]]:
    """Score a network on all examples; its volumes come along.

    The network alone is judged, without the share of filtered back-projection that users get: it is what is trained.

    Args:
        network: float32 weights on the CPU.
        examples: the validation set.
        config: of the run.
        compute: device and precision.
    """
    verdicts, volumes = [], []
    head = network.config.head
    weights = head.weights(config.band_exponent)
    for example in examples:
        depth = example.truth.shape[0]
        volume = reconstruct_array(network, example.images, example.angles_deg, depth, compute, example.known)
        if np.isfinite(volume).all() and volume.max() > volume.min():
            score = score_volume(example.truth, volume, range_of(example.angles_deg))
            numbers = (score.snr_db, score.fsc_measured, score.fsc_missing)
        else:
            numbers = (float("-inf"), 0.0, 0.0)
        fidelity = (math.nan,) * len(SUMMARY)
        if example.labels is not None and np.isfinite(volume).all():
            fidelity = tuple(summary_fidelity(example.truth, volume, example.labels).values())
        loss, bands = _relative_errors(example.truth, volume, head, weights)
        verdicts.append(Verdict(example.name, loss, *numbers, bands, fidelity))
        volumes.append(volume)
    return verdicts, volumes


def mean_loss(verdicts: Sequence[Verdict]) -> float:
    """The number that decides which weights are the best."""
    return float(np.mean([verdict.loss for verdict in verdicts]))


def mean_fidelity(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Mean fidelity by class of structure, of the classes that are there."""
    table = np.array([verdict.fidelity for verdict in verdicts])
    return {
        name: float(column[np.isfinite(column)].mean())
        for name, column in zip(SUMMARY, table.T, strict=True)
        if np.isfinite(column).any()
    }


def fidelity_told(before: dict[str, float], after: dict[str, float]) -> str:
    """How fidelity changed by class of structure, in words; empty where there is no class in both."""
    both = (name for name in after if name in before)
    return ", ".join(f"{name} {before[name]:.3f} -> {after[name]:.3f}" for name in both)


def _relative_errors(
    truth: NDArray[np.float32], volume: NDArray[np.float32], head: BlockHead, weights: torch.Tensor
) -> tuple[float, tuple[float, ...]]:
    """Weighted error over weighted power, of all outputs and by band, after the best scale."""
    wanted, found = (torch.from_numpy(v - v.mean()).float() for v in (truth, volume))
    scale = float((wanted * found).sum() / found.square().sum().clamp_min(1e-30))
    a, b = head.targets(wanted), head.targets(found * scale)
    error, power = ((a - b).square() * weights).mean((0, 1, 2)), (a.square() * weights).mean((0, 1, 2))
    error, power = head.by_band(error), head.by_band(power)
    bands = tuple(float(value) for value in error / power.clamp_min(1e-30))
    return float(error.sum() / power.sum().clamp_min(1e-30)), bands


def _example(pair: Pair, name: str, rows: int | None) -> Example:
    """Rows from the middle of a pair, scaled as a network sees them."""
    height = pair.truth.shape[1]
    first = 0 if rows is None else max(0, (height - rows) // 2)
    run = slice(first, height if rows is None else min(height, first + rows))
    scale = measure_scale(pair.images, name, tuple(map(float, pair.angles_deg)))
    tilts = np.flatnonzero(scale.usable)
    images = scale.apply(np.asarray(pair.images[:, run])[tilts], tilts).numpy()
    truth = -np.asarray(pair.truth[:, run], dtype=np.float32)
    known = known_of_pair(pair).of_images(tilts.tolist())
    return Example(name, images, tuple(np.asarray(pair.angles_deg)[tilts]), truth - truth.mean(), known=known)


def _check_disjoint(training: Sequence[Path], held_back: Sequence[Path]) -> None:
    """Raise SettingsError if a validation pair is a training pair, by its place or by its content."""
    if not held_back:
        return
    places = {path.resolve() for path in training}
    prints = {_fingerprint(path): path for path in training}
    for path in held_back:
        if path.resolve() in places:
            raise SettingsError(f"validation pair {path} is in the training set; leave it out of data.pairs")
        if (twin := prints.get(_fingerprint(path))) is not None:
            raise SettingsError(f"validation pair {path} holds the same images as the training pair {twin}")


def _fingerprint(path: Path) -> str:
    """Hash of the angles and of some rows from the middle of the images."""
    with open_pair(path) as pair:
        images: Any = pair.images
        middle = images.shape[1] // 2
        rows = np.ascontiguousarray(images[:, middle : middle + 4]).astype(np.float32)
        return hashlib.sha256(repr((images.shape, pair.angles_deg)).encode() + rows.tobytes()).hexdigest()
