"""Networks with a trunk: the points of a slab strip by strip along x, each with what the trunk sees beside it.

What the combiner gives for a block is many times what becomes of it, and the trunk needs all of it at once. A strip is
as wide as memory allows; its neighbours' blocks within the trunk's reach are computed again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import torch

from cryolithe.inference.engine import Engine, RowRun
from cryolithe.network.trunk import Trunk

# Strips are not narrower than this many times the reach, or most of the work would be done twice.
_NARROWEST = 2


def strip_widths(columns: int, column_values: int, most_values: int, reach: int) -> list[tuple[int, int]]:
    """Strips (first, last + 1) of a grid's columns.

    Args:
        columns: points along x.
        column_values: values that the trunk takes for one of them: points along z and y, times features.
        most_values: that the trunk may take at once.
        reach: columns beside a strip that its trunk sees too.
    """
    width = max(most_values // max(1, column_values) - 2 * reach, _NARROWEST * reach, 1)
    count = -(-columns // width)
    bounds = [columns * number // count for number in range(count + 1)]
    return list(itertools.pairwise(bounds))


class TrunkEngine:
    """Applies a network with a trunk to runs of rows; called like `Engine`.

    Args:
        engine: of the network without its trunk.
        trunk: on the engine's device, in its precision.
        reach: blocks that the trunk sees each way; runs begin and end so many patches beyond what is wanted.
    """

    def __init__(self, engine: Engine, trunk: Trunk, reach: int) -> None:
        self._engine = engine
        self._trunk = trunk.to(memory_format=torch.channels_last_3d)
        self._reach = reach
        self._only: tuple[tuple[int, int], Engine] | None = None

    def forget(self) -> None:
        """Free what is kept between runs."""
        self._only = None
        self._engine.forget()

    def __call__(self, run: RowRun, on_share: Callable[[float], object] = lambda share: None) -> torch.Tensor:
        """Values of all points for all patches but those within the trunk's reach of either end.

        Args:
            run: rows on the engine's device.
            on_share: called with the share (0...1) of the work that was just done.

        Returns:
            shape ``(points, patches - 2 reach, outputs)``, float32, points in their natural order.
        """
        grid, reach = self._engine.grid, self._reach
        depth, columns, patches = len(grid.z_px), len(grid.x_px), len(run.first_rows)
        features, outputs = self._engine.network.outputs, self._trunk.last.out_channels
        strips = strip_widths(columns, depth * patches * features, self._engine.batch.trunk_values, reach)
        values = torch.empty((depth, columns, patches - 2 * reach, outputs), device=self._engine.device)
        for first, last in strips:
            low, high = max(0, first - reach), min(columns, last + reach)
            share = (last - first) / columns
            joined = self._strip(low, high)(run, lambda part, share=share: on_share(part * share))  # type: ignore[misc]
            inner = self._refined(joined.view(1, depth, high - low, patches, features))
            values[:, first:last] = inner[:, first - low : last - low, reach : patches - reach]
        return values.flatten(0, 1)

    def _strip(self, low: int, high: int) -> Engine:
        """The engine of some columns; that of an only strip serves the next run too."""
        if self._only is not None and self._only[0] == (low, high):
            return self._only[1]
        whole = self._engine
        grid = replace(whole.grid, x_px=whole.grid.x_px[low:high])
        engine = Engine(whole.network, whole.windows, grid, whole.batch, whole.threads, whole.pool)
        if high - low == len(whole.grid.x_px):
            self._only = ((low, high), engine)
        return engine

    def _refined(self, joined: torch.Tensor) -> torch.Tensor:
        """The trunk's outputs ``(z, x, y, outputs)`` of features ``(1, z, x, y, features)``."""
        with torch.inference_mode():
            x = joined.to(self._engine.dtype).permute(0, 4, 1, 2, 3)
            return self._trunk(x)[0].permute(1, 2, 3, 0).to(torch.float32)
