"""Patches of stored series with noise of many strengths: what a step of training sees, decided by its number alone.

The halves of a series are ``m + d`` and ``m - d``: their mean, and half their difference, which is noise of the same
strength and spectrum, independent of that of the mean. So ``m + b d`` is the same specimen with the variance of the
noise multiplied by ``1 + b²``: the whole dose at b = 0, half of it at ±1, less beyond.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.denoise_training.config import GeneralConfig
from cryolithe.denoise_training.store import Stored
from cryolithe.denoise_training.volumes import MOST_SIGMAS
from cryolithe.denoising.n2n.pairs import Turn

Array = NDArray[np.float32]
Box = tuple[slice, slice, slice]
IMAGES_AT_ONCE = 8
_STEPS = 61  # stream of random numbers
_LEAST_VARIANCE = 0.003  # of a clean volume beside noise of 1: fainter ones do not count for more


@dataclass(frozen=True)
class Examples:
    """What the network is given and asked for.

    Attributes:
        given: shape ``(n, 1, z, y, x)``, standardised.
        wanted: the same shape, in the same units.
        weight: of the squared difference, shape ``(n,)``: one over the variance of what is wanted.
    """

    given: torch.Tensor
    wanted: torch.Tensor
    weight: torch.Tensor


class SeriesPatches:
    """Patches of many series, each drawn from equally often.

    Args:
        config: of the training.
        series: in memory.
        multiple: edges are multiples of it.

    Raises:
        ValueError: if there are none.
    """

    def __init__(self, config: GeneralConfig, series: Sequence[Stored], multiple: int) -> None:
        if not series:
            raise ValueError("no series to learn from")
        self._config, self._series = config, list(series)
        least = np.min([one.shape for one in series], axis=0)
        z, y, x = (max(multiple, min(config.edge, int(n)) // multiple * multiple) for n in least)
        self.shape = (min(IMAGES_AT_ONCE, int(least[0])) if config.of_images else z, y, x)
        self._variance = [_variance(one.clean) for one in series]

    def batch(self, step: int) -> Examples:
        """Examples of a step."""
        rng = np.random.default_rng([self._config.seed, _STEPS, step])
        drawn = [self._one(rng) for _ in range(self._config.batch)]
        given, wanted, weight = zip(*drawn, strict=True)
        return Examples(_tensor(given), _tensor(wanted), torch.tensor(weight, dtype=torch.float32))

    def batches(self, step: int) -> Generator[Examples, None, None]:
        """Examples of the steps from ``step`` on, without end."""
        while True:
            yield self.batch(step)
            step += 1

    def _one(self, rng: np.random.Generator) -> tuple[Array, Array, float]:
        config, number = self._config, int(rng.integers(len(self._series)))
        series, turn, sign = self._series[number], _turn(rng), np.float32(rng.choice((-1.0, 1.0)))
        box = _box(rng, series.shape, self.shape)
        if config.target == "half":
            given, wanted = (_float(half[box]) for half in (series.first, series.second))
            if rng.random() < 0.5:
                given, wanted = wanted, given
            return turn(sign * given), turn(sign * wanted), 1.0
        amount = 0.0 if rng.random() < config.whole_share else float(rng.uniform(-1, 1) * config.most_noise)
        given, sigma = noisy(series, box, amount)
        wanted = _float(series.clean[box]) / sigma
        weight = 1 / max(self._variance[number] / float(np.mean(sigma**2)), _LEAST_VARIANCE)
        return turn(sign * given), turn(sign * wanted), weight


def noisy(series: Stored, box: Box, amount: float) -> tuple[Array, Array]:
    """A box of a series with noise of a strength, standardised, and what its planes were divided by (see the module).

    Args:
        series: its halves.
        box: voxels.
        amount: 0 for the whole dose, 1 or -1 for a half.
    """
    first, second = (half[box].astype(np.float32) for half in (series.first, series.second))
    sigma = series.sigma(box[0], amount)
    mixed = (0.5 * (1 + amount) * first + 0.5 * (1 - amount) * second) / sigma
    return np.clip(np.asarray(mixed, np.float32), -MOST_SIGMAS, MOST_SIGMAS), sigma


def _turn(rng: np.random.Generator) -> Turn:
    """A mirror along some axes; quarter turns would turn the missing wedge, of which there is enough variety here."""
    z, y, x = (bool(rng.random() < 0.5) for _ in range(3))
    return Turn((z, y, x))


def _box(rng: np.random.Generator, shape: tuple[int, int, int], edges: tuple[int, int, int]) -> Box:
    starts = [int(rng.integers(size - edge + 1)) for size, edge in zip(shape, edges, strict=True)]
    z, y, x = (slice(start, start + edge) for start, edge in zip(starts, edges, strict=True))
    return z, y, x


def _float(values: NDArray[np.float16]) -> Array:
    return np.clip(values.astype(np.float32), -MOST_SIGMAS, MOST_SIGMAS)


def _variance(clean: NDArray[np.float16]) -> float:
    return float(_float(clean).var())


def _tensor(patches: Sequence[Array]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(patches))[:, None])
