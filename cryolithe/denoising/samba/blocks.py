"""Triplets of crops from one volume: what a training step sees, decided by its number alone."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.denoising.samba.gaps import training_pairs
from cryolithe.denoising.samba.recipe import Recipe
from cryolithe.denoising.samba.tiles import Tile, tiles
from cryolithe.denoising.scale import Survey
from cryolithe.errors import InputError
from cryolithe.formats.reading import State, refuse_changed
from cryolithe.formats.volumes.volume_file import VolumeFile

_SPLIT, _ORDER, _FLIPS = 1, 2, 3  # streams of random numbers
_AHEAD = 4


@dataclass(frozen=True)
class Source:
    """A volume as the network sees it.

    Attributes:
        volume: on disk.
        survey: grey scale and usable planes.
        state: of the file when it was surveyed.
    """

    volume: VolumeFile
    survey: Survey
    state: State | None = None

    def refuse_changed(self) -> None:
        """Raise InputError where the file is no more as it was: what is made of it then is of another volume."""
        if self.state is not None:
            refuse_changed({self.volume.path: self.state}, "it was denoised")

    def window(self, z: int, tile: Tile) -> NDArray[np.float32]:
        """A tile of plane z, scaled, mirrored where it reaches beyond the plane; shape ``(y, x)`` of the tile."""
        y, x = tile
        inside = self.survey.scale.apply(self.volume.read(z)[y.start : y.stop, x.start : x.stop])
        if inside.shape == (y.length, x.length):
            return inside
        return inside[np.ix_(y.indices() - y.start, x.indices() - x.start)]

    def fingerprint(self) -> str:
        """Tells volumes apart: SHA-256 of the shape and of all voxels."""
        return hashlib.sha256(f"{self.volume.shape} {self.survey.sha256}".encode()).hexdigest()


class Blocks:
    """All triplets of a volume, split for training and validation.

    A block is a number: triplet of planes times tile. Every epoch has its own order, every block of a step its own
    flips, all by seed, so that a resumed run sees what an uninterrupted one would have seen.

    Args:
        source: the volume.
        recipe: gap, crop, split, seed.

    Raises:
        InputError: if no three usable planes lie at equal distance, or there is no second such triplet to hold back.
    """

    def __init__(self, source: Source, recipe: Recipe) -> None:
        self._source, self._recipe = source, recipe
        self._pairs = training_pairs(source.survey.usable, recipe.largest_gap)
        if not len(self._pairs):
            raise InputError(
                f"{source.volume.path} has {int(source.survey.usable.sum())} planes with content; training needs three "
                "neighbouring ones at least"
            )
        _, height, width = source.volume.shape
        self._tiles = tiles((height, width), recipe.crop, recipe.overlap, recipe.network.multiple)
        if len(self._pairs) * len(self._tiles) < 2:
            raise InputError(
                f"{source.volume.path} has a single triplet of planes to learn from ({height} x {width} pixels, within "
                "one square), so that none is left to tell whether the training gets better; give 4 planes with "
                "content or more, or --model with weights that were trained on a larger volume"
            )
        numbers = np.random.default_rng([recipe.seed, _SPLIT]).permutation(len(self._pairs) * len(self._tiles))
        held = min(max(1, round(recipe.validation_share * numbers.size)), numbers.size // 2)
        self.training = np.sort(numbers[held:])
        self.validation = np.sort(numbers[:held])[:: max(1, -(-held // recipe.validation_blocks))]

    def triplet(self, number: int) -> NDArray[np.float32]:
        """Planes z - L, z, z + L of a block, shape ``(3, y, x)``."""
        pair, tile = divmod(int(number), len(self._tiles))
        z, gap = (int(n) for n in self._pairs[pair])
        return np.stack([self._source.window(plane, self._tiles[tile]) for plane in (z - gap, z, z + gap)])

    def step_numbers(self, step: int, rank: int, world: int) -> NDArray[np.int64]:
        """Blocks of a step for one of ``world`` processes; epochs follow each other without a break."""
        batch, size = self._recipe.batch, self.training.size
        first = (step * world + rank) * batch
        places = np.arange(first, first + batch)
        return np.array([self._epoch_order(int(place) // size)[int(place) % size] for place in places])

    def batch(self, step: int, rank: int = 0, world: int = 1) -> torch.Tensor:
        """Flipped triplets of a step, shape ``(3, batch, 1, y, x)``."""
        rng = np.random.default_rng([self._recipe.seed, _FLIPS, step, rank])
        drawn = []
        for number in self.step_numbers(step, rank, world):
            flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
            drawn.append(np.flip(self.triplet(number), flips))
        return torch.from_numpy(np.stack(drawn, axis=1))[:, :, None]

    def validation_batches(self) -> Generator[torch.Tensor, None, None]:
        """The triplets held back, in batches as in training."""
        for start in range(0, self.validation.size, self._recipe.batch):
            numbers = self.validation[start : start + self._recipe.batch]
            yield torch.from_numpy(np.stack([self.triplet(n) for n in numbers], axis=1))[:, :, None]

    def batches(self, first_step: int, rank: int, world: int, threads: int) -> Generator[torch.Tensor, None, None]:
        """Batches of the steps from ``first_step`` on, read ahead by some threads, without end."""
        step = first_step
        if not threads:
            while True:
                yield self.batch(step, rank, world)
                step += 1
        with ThreadPoolExecutor(threads, "cryolithe-loader") as executor:
            waiting: deque[Future[torch.Tensor]] = deque()
            try:
                while True:
                    while len(waiting) < threads + _AHEAD:
                        waiting.append(executor.submit(self.batch, step, rank, world))
                        step += 1
                    yield waiting.popleft().result()
            finally:
                executor.shutdown(wait=True, cancel_futures=True)

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """The training blocks in the order of an epoch."""
        kept: tuple[int, NDArray[np.int64]] | None = getattr(self, "_kept_order", None)
        if kept is None or kept[0] != epoch:
            rng = np.random.default_rng([self._recipe.seed, _ORDER, epoch])
            kept = (epoch, rng.permutation(self.training))
            self._kept_order = kept
        return kept[1]
