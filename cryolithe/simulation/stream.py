"""Endless simulated sub-volumes for training, without touching the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolithe.simulation.campaign import SimulatedSeries, simulate_series
from cryolithe.simulation.crowd import check_fits
from cryolithe.simulation.molecules import Molecule
from cryolithe.simulation.recipe import Recipe


@dataclass(frozen=True)
class StreamedPair:
    """Rows of a series with the same rows of its target; rows need no others but a network's halo.

    Attributes:
        number: of the series: with the recipe's seed it says where the pair comes from.
        images: shape ``(tilt, rows, x)``, dense = dark.
        truth: shape ``(z, rows, x)``, dense = dark.
        angles_deg: tilt angles.
        voxel_size_angstrom: pixel and voxel size.
    """

    number: int
    images: NDArray[np.float32]
    truth: NDArray[np.float32]
    angles_deg: tuple[float, ...]
    voxel_size_angstrom: float


def stream_series(recipe: Recipe, library: tuple[Molecule, ...], first: int = 1) -> Iterator[SimulatedSeries]:
    """Yield series ``first``, ``first + 1``, ... without end; a worker of several takes every n-th by itself.

    Raises:
        SettingsError: if a molecule does not fit into the field.
    """
    check_fits(recipe.cell, library)
    number = first
    while True:
        yield simulate_series(recipe, library, number)
        number += 1


def stream_rows(
    recipe: Recipe, library: tuple[Molecule, ...], rows: int, per_series: int, first: int = 1
) -> Iterator[StreamedPair]:
    """Yield random runs of rows, ``per_series`` of them from each series, without end.

    Args:
        recipe: what to draw; its ``series`` is not a limit here.
        library: molecules to place.
        rows: rows of a run, at most the field's height.
        per_series: runs drawn from a series before the next one is simulated.
        first: number of the first series.
    """
    for number, made in enumerate(stream_series(recipe, library, first), start=first):
        rng = np.random.default_rng([recipe.seed, number, 1])
        truth, height = made.truth, made.truth.shape[1]
        for _ in range(per_series):
            start = int(rng.integers(max(1, height - rows + 1)))
            run = slice(start, start + rows)
            yield StreamedPair(
                number,
                made.series.images[:, run],
                truth[:, run],
                made.series.plan.angles_deg,
                made.cell.voxel_size_angstrom,
            )
