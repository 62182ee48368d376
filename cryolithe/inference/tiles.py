"""Networks with a trunk: the points of a slab tile by tile, each with what the trunk sees beside it.

What the combiner gives for a block is many times what becomes of it, and the trunk needs all of it at once. Tiles of
the (z, x) plane are as large as memory allows; blocks of their neighbours within the trunk's reach are computed again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch

from cryolithe.inference.engine import Engine, RowRun
from cryolithe.inference.pooling import Pool
from cryolithe.network.trunk import Beside, Trunk

# Tiles are not narrower than this many times the reach, or most of the work would be done many times.
_NARROWEST = 2


class Tile(NamedTuple):
    """Part of the (z, x) plane: first index and the one after the last, along either axis."""

    z: tuple[int, int]
    x: tuple[int, int]


def tiles_of(plane: tuple[int, int], point_bytes: int, most_bytes: int, reach: int) -> list[Tile]:
    """A partition of a plane of points into tiles, as few as memory allows.

    Args:
        plane: points along z and x.
        point_bytes: of the values that the trunk takes for one of them: points along y, times features.
        most_bytes: of what the trunk may take at once, points beside the tile that it sees included; tiles of twice the
            reach are made even if they need more.
        reach: points beside a tile that its trunk sees too.
    """
    counts = [1, 1]

    def width(axis: int) -> int:
        return -(-plane[axis] // counts[axis])

    def seen(axis: int) -> int:
        return min(plane[axis], width(axis) + 2 * reach)

    while seen(0) * seen(1) * point_bytes > most_bytes:
        axis = 0 if width(0) > width(1) else 1
        if -(-plane[axis] // (counts[axis] + 1)) < _NARROWEST * reach:
            axis = 1 - axis
        if -(-plane[axis] // (counts[axis] + 1)) < _NARROWEST * reach:
            break
        counts[axis] += 1
    bounds = [[size * n // count for n in range(count + 1)] for size, count in zip(plane, counts, strict=True)]
    return [Tile(z, x) for z in itertools.pairwise(bounds[0]) for x in itertools.pairwise(bounds[1])]


class BlocksMade(NamedTuple):
    """How many blocks are computed for a slab, those included that are made for several tiles or slabs.

    Attributes:
        joined: by what comes before the trunk.
        trunk: by a convolution of the trunk, on average.
    """

    joined: float
    trunk: float


def blocks_made(plane: tuple[int, int], patches: int, spacings: tuple[int, ...], tiles: list[Tile]) -> BlocksMade:
    """Count what a `TrunkEngine` computes for a slab.

    Args:
        plane: points along z and x.
        patches: of the slab along y, without those beyond its ends that are only there to be seen.
        spacings: of the trunk, see `cryolithe.network.trunk.Trunk`; one or more.
        tiles: of the plane.
    """

    def blocks(beside: int) -> int:
        """With so many on each side, where the plane goes on."""
        return (patches + 2 * beside) * sum(
            math.prod(
                min(stop + beside, size) - max(start - beside, 0)
                for (start, stop), size in zip(tile, plane, strict=True)
            )
            for tile in tiles
        )

    reach = sum(spacings) + len(spacings)
    joined, convolved = blocks(reach), []
    for spacing in spacings:
        convolved += [blocks(reach - spacing), blocks(reach - spacing - 1)]
        reach -= spacing + 1
    return BlocksMade(joined, sum(convolved) / len(convolved))


class TrunkEngine:
    """Applies a network with a trunk to runs of rows; called like `Engine`.

    Args:
        engine: of the network without its trunk; its values need no more than the precision of the trunk.
        trunk: on the engine's device, in its precision.
        reach: blocks that the trunk sees each way; runs begin and end so many patches beyond what is wanted.
    """

    def __init__(self, engine: Engine, trunk: Trunk, reach: int) -> None:
        self._engine = engine
        self._trunk: Trunk = trunk.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._reach = reach

    @property
    def pool(self) -> Pool:
        """What pools the rows."""
        return self._engine.pool

    @property
    def pooling(self) -> str:
        """See `Engine.pooling`."""
        return self._engine.pooling

    def forget(self) -> None:
        """Free what is kept between runs."""
        self._engine.forget()

    def __call__(self, run: RowRun, on_share: Callable[[float], object] = lambda share: None) -> torch.Tensor:
        """Values of all points for all patches but those within the trunk's reach of either end.

        Args:
            run: rows on the engine's device.
            on_share: called with the share (0...1) of the work that was just done.

        Returns:
            shape ``(points, patches - 2 reach, outputs)``, float32, points in their natural order.
        """
        engine, reach, patches = self._engine, self._reach, len(run.first_rows)
        plane = (len(engine.grid.z_px), len(engine.grid.x_px))
        features, outputs = engine.network.outputs, self._trunk.last.out_channels
        tiles = tiles_of(plane, patches * features * engine.values.itemsize, engine.batch.trunk_bytes, reach)
        exact = torch.promote_types(engine.dtype, torch.float32)
        values = torch.empty((*plane, patches - 2 * reach, outputs), dtype=exact, device=engine.device)
        for tile in tiles:
            (top, bottom), (left, right) = tile
            share = (bottom - top) * (right - left) / (plane[0] * plane[1])
            beside = Beside(
                (min(reach, top), min(reach, plane[0] - bottom)),
                (min(reach, left), min(reach, plane[1] - right)),
                (reach, reach),
            )
            z, x = slice(top - beside.z[0], bottom + beside.z[1]), slice(left - beside.x[0], right + beside.x[1])
            part = engine if len(tiles) == 1 else self._part(z, x)
            joined = part(run, lambda done, share=share: on_share(done * share))  # type: ignore[misc]
            joined = joined.view(1, len(part.grid.z_px), len(part.grid.x_px), patches, features)
            values[top:bottom, left:right] = self._refined(joined, beside)
        return values.flatten(0, 1)

    def _part(self, z: slice, x: slice) -> Engine:
        """An engine for part of the points."""
        whole = self._engine
        grid = replace(whole.grid, z_px=whole.grid.z_px[z], x_px=whole.grid.x_px[x])
        return Engine(whole.network, whole.windows, grid, whole.batch, whole.threads, whole.pool, whole.values)

    def _refined(self, joined: torch.Tensor, beside: Beside) -> torch.Tensor:
        """The trunk's outputs ``(z, x, y, outputs)`` of features ``(1, z, x, y, features)`` and those beside."""
        with torch.inference_mode():
            x = joined.to(self._engine.dtype).permute(0, 4, 1, 2, 3)
            return self._trunk.inner(x, beside)[0].permute(1, 2, 3, 0)
