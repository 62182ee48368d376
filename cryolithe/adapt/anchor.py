"""The simulated half: plain specimens with the noise of the lab's own images, some with white noise, and cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cryolithe.adapt.config import USUAL_SNR_DB, AdaptConfig
from cryolithe.adapt.halves import HalfSeries
from cryolithe.simulation import Molecule, make_specimen
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import plain_series
from cryolithe.training.recipe_maker import recipe_maker
from cryolithe.training.series import TrainingSeries, as_tensors, make_series

# Kinds of series, in turn: most are plain specimens with the lab's noise, from which the network learns what it can
# gain (benchmarks/LOG.md); one has white noise, one is of cells.
KINDS, WHITE, CELLS = 6, 2, 5
_NOISE_STREAM = 53


def anchor_series(
    number: int,
    config: AdaptConfig,
    training: TrainConfig,
    library: tuple[Molecule, ...],
    cells: Callable[[], Callable[[int], TrainingSeries]],
    lab: tuple[HalfSeries, range, float | None],
) -> TrainingSeries:
    """Draw a simulated series: of cells, with white noise, or with the lab's noise where half frames tell it.

    Args:
        number: of the series.
        config: of the adaptation.
        training: of the simulated half.
        library: molecules to place; procedural ones without any.
        cells: gives what makes series of cells (`cells_maker`), which takes seconds; asked only where one is wanted.
        lab: a series of the lab, its rows to take noise from, the SNR of its images.
    """
    rng = np.random.default_rng([config.seed, number])
    series, rows, snr_db = lab
    if number % KINDS == CELLS:
        return as_tensors(cells()(number // KINDS), torch.device("cpu"))
    if number % KINDS == WHITE or not series.of_frames:
        return plain_series(training, library, rng)
    specimen = make_specimen(training.specimens.recipe(), library, rng)
    even = series.halves[0]
    made = make_series(specimen, even.angles_deg, training.network_config().head)
    assert isinstance(made.images, torch.Tensor)
    noise = lab_noise(
        series, rows, tuple(made.images.shape), np.random.default_rng([config.seed, number, _NOISE_STREAM])
    )
    noise = noise / max(float(noise.std()), 1e-6)
    wanted = snr_db if snr_db is not None else float(np.mean(USUAL_SNR_DB))
    factor = 10 ** (wanted / 20) / made.image_std
    noisy = made.images * factor + noise
    scale = max(float(noisy.std()), 1e-6)
    return replace(
        made, images=noisy / scale, amplitude=factor / scale, image_std=1.0, noiseless=False, name="plain, lab's noise"
    )


def cells_maker(training: TrainConfig, library: tuple[Molecule, ...]) -> Callable[[int], TrainingSeries]:
    """What makes the series of cells: of the recipe's made-up molecules, and those of a library."""
    made = recipe_maker(training, Path())
    return replace(made, recipes=tuple((recipe, molecules + library) for recipe, molecules in made.recipes))


def lab_noise(series: HalfSeries, rows: range, shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """Noise of the mean of the lab's two halves, in units of their images: half of the difference of the halves.

    What both halves share cancels; flips, shifts and the sign make many series of one.

    Args:
        series: in halves of frames.
        rows: to take it from.
        shape: ``(tilts, y, x)`` of what is wanted; smaller images are mirrored on.
        rng: what chooses.
    """
    _, height, width = shape
    even, odd = (half.rows(rows.start, len(rows)) for half in series.halves)
    noise = (even - odd) / 2
    noise = noise - noise.mean((1, 2), keepdim=True)
    at_y, at_x = int(rng.integers(noise.shape[1])), int(rng.integers(noise.shape[2]))
    y, x = (
        _mirrored(first, count, size)
        for first, count, size in zip((at_y, at_x), (height, width), noise.shape[1:], strict=True)
    )
    crop = noise[:, y][:, :, x]
    for axis in (1, 2):
        crop = crop.flip(axis) if rng.random() < 0.5 else crop
    sign = 1.0 if rng.random() < 0.5 else -1.0
    return sign * crop


def _mirrored(first: int, count: int, size: int) -> torch.Tensor:
    """``count`` numbers from ``first`` on that run to and fro within 0 ... size - 1."""
    place = (first + np.arange(count)) % max(1, 2 * size)
    return torch.from_numpy(np.where(place < size, place, 2 * size - 1 - place))
