"""Patches of half volumes: what a step of training sees, decided by its number alone."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.denoising.n2n.halves import HalfPair
from cryolithe.errors import InputError

HELD_SHARE, HELD_ROWS = 0.1, 16  # of the rows along y, kept for validation
_STEPS = 1  # stream of random numbers
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Turn:
    """A motion that leaves the tilt axis (y) where it is: what a tomogram could as well have looked like.

    Attributes:
        flips: mirrors along ``(z, y, x)``; two of them are half a turn.
        quarter: a quarter turn about the tilt axis, from z to x. It turns the missing wedge as well, which is not
            true to nature but found to help (Buchholz et al. 2019); turns about the other axes would put the wedge
            along the tilt axis, where it never is.
    """

    flips: tuple[bool, bool, bool] = (False, False, False)
    quarter: bool = False

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turned values, shape ``(z, y, x)``, with z and x exchanged by a quarter turn."""
        turned = np.flip(values, tuple(axis for axis in range(3) if self.flips[axis]))
        return np.rot90(turned, axes=(0, 2)) if self.quarter else turned


def allowed_turns(shape: tuple[int, int, int]) -> list[Turn]:
    """All turns that keep the shape of a patch: 16, or 8 where z and x differ."""
    quarters = (False, True) if shape[0] == shape[2] else (False,)
    return [Turn((z, y, x), q) for z, y, x, q in product(*[(False, True)] * 3, quarters)]


class Patches:
    """Patches of some pairs of half volumes, the last rows along y held back for validation.

    Every pair is drawn from equally often, so that a large volume does not outweigh the others. Rows along y lie
    along the tilt axis, where no image and no wedge ties what is held back to what is learned from.

    Args:
        pairs: at least one.
        edge: of the patches, voxels; less where a volume is smaller.
        multiple: edges are multiples of it, where a volume allows it.
        seed: of places and turns.

    Raises:
        InputError: if a volume is too small to hold anything back.
    """

    def __init__(self, pairs: Sequence[HalfPair], edge: int, multiple: int, seed: int) -> None:
        self._pairs, self._seed = list(pairs), seed
        self.held_from = [pair.shape[1] - held_rows(pair.shape[1]) for pair in pairs]
        least = [
            min(pair.shape[0] for pair in pairs),
            min(self.held_from),
            min(pair.shape[2] for pair in pairs),
        ]
        if min(least) < 1:
            raise InputError("a half volume is too small: no rows are left to learn from")
        z, y, x = (_rounded(min(edge, size), multiple) for size in least)
        self.shape = (z, y, x)
        self._turns = allowed_turns(self.shape)

    @property
    def held_count(self) -> int:
        """Rows along y of the first pair that are held back."""
        return self._pairs[0].shape[1] - self.held_from[0]

    def batch(self, step: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of a step, each of shape ``(size, 1, z, y, x)``: halves in either order."""
        rng = np.random.default_rng([self._seed, _STEPS, step])
        inputs, targets = [], []
        for _ in range(size):
            number = int(rng.integers(len(self._pairs)))
            pair, turn = self._pairs[number], self._turns[rng.integers(len(self._turns))]
            box = self._box(rng, pair.shape, self.held_from[number])
            halves = [turn(pair.first.box(box)), turn(pair.second.box(box))]
            if rng.random() < 0.5:
                halves.reverse()
            inputs.append(halves[0])
            targets.append(halves[1])
        return _tensor(inputs), _tensor(targets)

    def _box(self, rng: np.random.Generator, shape: tuple[int, int, int], rows: int) -> Box:
        room = (shape[0], rows, shape[2])
        starts = [int(rng.integers(size - edge + 1)) for size, edge in zip(room, self.shape, strict=True)]
        z, y, x = (slice(start, start + edge) for start, edge in zip(starts, self.shape, strict=True))
        return z, y, x

    def held_back(self, most: int) -> Generator[tuple[torch.Tensor, torch.Tensor], None, None]:
        """Patches of the rows held back, first and second half, each of shape ``(1, 1, z, y, x)``, unturned.

        Args:
            most: of them in all, but one of each pair at least; taken evenly over the places of each pair.
        """
        share = max(1, most // len(self._pairs))
        for number, pair in enumerate(self._pairs):
            boxes = self._held_boxes(number)
            step = max(1, -(-len(boxes) // share))
            for box in boxes[step // 2 :: step]:
                yield _tensor([pair.first.box(box)]), _tensor([pair.second.box(box)])

    def _held_boxes(self, number: int) -> list[Box]:
        """Boxes that cover the rows held back of a pair, side by side along z and x."""
        shape, rows = self._pairs[number].shape, self.held_from[number]
        along_z, along_x = (
            [slice(start, start + edge) for start in range(size % edge // 2, size - edge + 1, edge)]
            for size, edge in ((shape[0], self.shape[0]), (shape[2], self.shape[2]))
        )
        return [(z, slice(rows, shape[1]), x) for z, x in product(along_z, along_x)]


def held_rows(rows: int) -> int:
    """Rows along y that are held back: a tenth, but not much less than a network needs to see."""
    return max(round(HELD_SHARE * rows), min(HELD_ROWS, rows // 4))


def _rounded(size: int, multiple: int) -> int:
    return size // multiple * multiple or size


def _tensor(patches: Sequence[NDArray[np.float32]]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(patches))[:, None])
