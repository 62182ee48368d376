"""Values of all points of a slab: rows lifted once, features of rows kept as long as patches need them.

The points of a slab are cut into blocks that never meet: a block reads lifted rows, and keeps the features of the last
rows of its own. On a CPU each thread takes blocks one by one and does everything for them with one core (no two
threads ever wait for each other inside a matrix product, which on a busy machine costs more than it gains); a GPU
takes large blocks and many rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.inference.algebra import LiftedNetwork, RowEncoder, apply_steps
from cryolithe.inference.columns import PointBlock, PointGrid, lift_rows, lifted_columns, point_block
from cryolithe.inference.pooling import Pool, choose_pool, pool_through, pool_version
from cryolithe.sampling import Window

# In which each thread of a CPU lifts the rows of some tilts: what it makes on the way is so much smaller than they are.
_PIECES = 4


@dataclass(frozen=True)
class BatchSize:
    """How much is worked on at a time.

    Attributes:
        points: of a block.
        patches: along y, whose new rows are lifted together; networks with an encoder per row take one.
        points_in_memory: points whose features are kept at once; more points are done one such part after another.
        points_kept: points whose places on the detector may be kept from one run to the next, though they are several
            parts.
        trunk_bytes: of the values that a trunk takes at once; more blocks are done tile by tile.
    """

    points: int = 1024
    patches: int = 1
    points_in_memory: int = 1 << 20
    points_kept: int = 0
    trunk_bytes: int = 1 << 28


class RowRun(NamedTuple):
    """Filtered rows, and where the patches begin.

    Attributes:
        rows: for each window of the network, shape ``(tilts, n, X)``, float32.
        first_rows: row at which each patch begins, shape ``(patches,)``; whole and a stride apart for networks that
            share their encoder, else any, read by linear interpolation between rows.
        first_row: of the images, the first of ``rows``.
    """

    rows: list[torch.Tensor]
    first_rows: NDArray[np.float64]
    first_row: int = 0


class _Batch(NamedTuple):
    """Rows to lift together, and the patches that are complete with them.

    Attributes:
        positions: of the rows.
        encoder: number of the encoder that they go through.
        first_slot: where among a block's kept rows their features go.
        patches: that are joined then.
        shift: rows by which the kept features move down before.
    """

    positions: NDArray[np.float64]
    encoder: int
    first_slot: int
    patches: range
    shift: int = 0


class Engine:
    """Applies a lifted network to runs of rows, one run after another.

    Args:
        network: on its device and in its precision.
        windows: what it sees of a row.
        grid: the points.
        batch: how much at a time.
        threads: number of cores to use on a CPU.
        pool: version of the pooling; by default the fastest.
        values: precision of the values; by default the network's, but at least float32.
    """

    def __init__(
        self,
        network: LiftedNetwork,
        windows: tuple[Window, ...],
        grid: PointGrid,
        batch: BatchSize,
        threads: int = 1,
        pool: Pool | None = None,
        values: torch.dtype | None = None,
    ) -> None:
        self.network = network
        self.windows = windows
        self.grid = grid
        self.batch = batch
        self.threads = threads
        weight = network.combine[0].weight
        self.device, self.dtype = weight.device, weight.dtype
        self.values = values or torch.promote_types(self.dtype, torch.float32)
        self.pool = pool or choose_pool(self.device)
        self._kept_parts: list[list[PointBlock]] | None = None

    def __call__(self, run: RowRun, on_share: Callable[[float], object] = lambda share: None) -> torch.Tensor:
        """Values of all points for all patches.

        Args:
            run: rows on the engine's device.
            on_share: called with the share (0...1) of the work that was just done.

        Returns:
            shape ``(points, patches, outputs)``, points in their natural order.
        """
        patches, outputs = len(run.first_rows), self.network.outputs
        values = torch.empty((self.grid.points, patches, outputs), dtype=self.values, device=self.device)
        if self.device.type != "cpu" or self.threads == 1:
            for part in self._parts():
                self._run_part(run, part, values, map, on_share)
            return values
        # Each thread of ours is to be one thread of torch's; the caller's own setting is per thread and stays.
        with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as executor:
            for part in self._parts():
                self._run_part(run, part, values, executor.map, on_share)
        return values

    @property
    def pooling(self) -> str:
        """What rows are pooled by; torch for layers before the mean over tilts."""
        return "torch" if self.network.encoders[0].each_tilt else pool_version(self.pool)

    def forget(self) -> None:
        """Free what is kept between runs."""
        self._kept_parts = None

    def _parts(self) -> Iterator[list[PointBlock]]:
        """The points that are worked on together, in blocks.

        Those of an only part serve the next run too: at most `points_in_memory` points with 8 bytes for each tilt
        (64 MB at 2^17 points and 61 tilts), which every run needs anyway. So do several parts of `points_kept` points
        together; those of more are made anew each time.
        """
        if self._kept_parts is not None:
            yield from self._kept_parts
            return
        order, size = self.grid.order(), self.batch.points_in_memory
        made = (self._blocks(order[first : first + size]) for first in range(0, len(order), size))
        if len(order) <= max(size, self.batch.points_kept):
            self._kept_parts = list(made)
            yield from self._kept_parts
        else:
            yield from made

    def _blocks(self, order: NDArray[np.int64]) -> list[PointBlock]:
        size = self.batch.points
        weight = self.network.combine[0].weight
        return [point_block(self.grid, order[n : n + size], weight) for n in range(0, len(order), size)]

    def _moved(self, part: list[PointBlock], row: int) -> list[PointBlock]:
        """The same points where the band of rows that holds a row of the images sees them."""
        weight = self.network.combine[0].weight
        grid = replace(self.grid, geometry=self.grid.geometry.at_row(row))
        return [point_block(grid, block.order.cpu().numpy(), weight) for block in part]

    def _run_part(
        self,
        run: RowRun,
        part: list[PointBlock],
        values: torch.Tensor,
        each: Callable[..., Iterator[Any]],
        on_share: Callable[[float], object],
    ) -> None:
        network = self.network
        slots = network.rows_per_point
        if network.shared:
            slots += network.stride * (self.batch.patches - 1)
        features = network.encoders[0].features
        kept = [torch.empty((b.points, slots, features), dtype=self.dtype, device=self.device) for b in part]
        share = sum(block.points for block in part) / self.grid.points
        total = sum(len(batch.patches) for batch in self._batches(run))
        band, shifts = None, self.grid.geometry.shifts
        for batch in self._batches(run):
            first = run.first_row + int(batch.positions[0])
            if shifts is not None and band != shifts.band_middle(first):
                band = shifts.band_middle(first)
                part = self._moved(part, first)
            encoder = network.encoders[batch.encoder]
            rows = [_rows_at(rows, batch.positions) for rows in run.rows]
            lifted = self._lift(rows, encoder, each)

            def work(
                number: int,
                batch: _Batch = batch,
                encoder: RowEncoder = encoder,
                lifted: torch.Tensor = lifted,
                part: list[PointBlock] = part,
            ) -> None:
                with torch.inference_mode():
                    self._block(part[number], kept[number], lifted, encoder, batch, values)

            for _ in each(work, range(len(part))):
                pass
            del lifted, work  # before the next ones are lifted
            on_share(share * len(batch.patches) / total)

    def _lift(self, rows: list[torch.Tensor], encoder: RowEncoder, each: Callable[..., Iterator[Any]]) -> torch.Tensor:
        """Lifted rows; on a GPU in the network's precision, on a CPU as precise as the maps."""
        tilts, count, width = rows[0].shape
        # Threads share the tilts of a CPU's rows; a GPU is quickest with all of them at once.
        pieces = _pieces(tilts, self.threads) if self.device.type == "cpu" else 1
        bounds = np.linspace(0, tilts, pieces + 1).astype(int)
        exact, channels = encoder.maps.dtype, encoder.maps.shape[1]
        lifted = torch.empty((count, tilts, lifted_columns(width), channels), dtype=exact, device=self.device)

        def lift(number: int) -> None:
            some = slice(int(bounds[number]), int(bounds[number + 1]))
            with torch.inference_mode():
                lift_rows([row[some] for row in rows], self.windows, encoder.maps[some], lifted[:, some])

        for _ in each(lift, range(pieces)):
            pass
        return lifted.to(self.dtype) if self.device.type != "cpu" else lifted

    def _block(
        self,
        block: PointBlock,
        kept: torch.Tensor,
        lifted: torch.Tensor,
        encoder: RowEncoder,
        batch: _Batch,
        values: torch.Tensor,
    ) -> None:
        """Encode the new rows for a block of points; join the patches that are complete with them."""
        network = self.network
        if encoder.each_tilt:
            pooled = pool_through(lifted, block.start, block.fraction, block.scale, encoder.each_tilt)
        else:
            pooled = self.pool(lifted, block.start, block.fraction, block.scale).to(self.dtype)
        encoded = apply_steps(pooled, encoder.steps)
        new = len(batch.positions)
        if batch.shift:
            kept[:, : batch.first_slot] = kept[:, batch.shift : batch.shift + batch.first_slot].clone()
        kept[:, batch.first_slot : batch.first_slot + new] = encoded.transpose(0, 1)
        if not len(batch.patches):
            return
        if network.shared:
            rows = network.rows_per_point
            joined = kept.unfold(1, rows, network.stride)[:, : len(batch.patches)].transpose(-1, -2).flatten(-2)
        else:
            joined = kept.flatten(1)[:, None]
        result = apply_steps(joined, network.combine).to(values.dtype)
        values[block.order, batch.patches.start : batch.patches.stop] = result

    def _batches(self, run: RowRun) -> Iterator[_Batch]:
        """The order of work."""
        network, first_rows = self.network, run.first_rows
        rows, stride = network.rows_per_point, network.stride
        if not network.shared:
            for patch, first in enumerate(first_rows):
                for row in range(rows):
                    done = range(patch, patch + (row == rows - 1))
                    yield _Batch(np.array([first + row]), row, row, done)
            return
        at_once = stride * self.batch.patches
        before = rows - stride  # rows that are kept from one batch to the next
        for slot in range(0, before, at_once):
            slots = np.arange(slot, min(slot + at_once, before))
            yield _Batch(first_rows[0] + slots, 0, slot, range(0))
        for patch in range(0, len(first_rows), self.batch.patches):
            done = range(patch, min(patch + self.batch.patches, len(first_rows)))
            # The last batch may reach beyond the rows: what is read there is not used.
            positions = first_rows[patch] + before + np.arange(at_once)
            yield _Batch(positions, 0, before, done, at_once if patch else 0)


def _pieces(tilts: int, threads: int) -> int:
    """Parts of the tilts that the threads of a CPU lift one after the other."""
    return min(tilts, _PIECES * threads)


def lifting_share(tilts: int, threads: int) -> float:
    """Of the rows of all tilts, what the threads of a CPU lift at a time."""
    return min(threads, tilts) / _pieces(tilts, threads)


def _rows_at(rows: torch.Tensor, positions: NDArray[np.float64]) -> torch.Tensor:
    """Rows at positions, ``(tilts, n, X)``, by linear interpolation; positions beyond the end give the last row."""
    last = rows.shape[1] - 1
    base = np.clip(np.floor(positions), 0, last)
    fraction = np.clip(positions - base, 0, 1)
    low = torch.from_numpy(base.astype(np.int64)).to(rows.device)
    if not fraction.any():
        return rows[:, low]
    high = (low + 1).clamp(max=last)
    return torch.lerp(rows[:, low], rows[:, high], torch.from_numpy(fraction).to(rows)[:, None])
