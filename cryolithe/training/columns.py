"""Runs on a CPU: windows around the columns of the detector instead of windows around points.

A cube of 32 x 32 points is seen by fewer than a hundred columns of a tilt. Interpolation commutes with the linear map
of a tilt (`cryolithe.inference.algebra`), so that the map need only be applied once for each column; points then
interpolate its results (`cryolithe.training.pooling`). The network's outputs and gradients are those of `gather`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cryolithe.network import NetworkConfig, RowSet, RowSetConfig
from cryolithe.reconstruction.slabwise.methods import network_rows
from cryolithe.sampling import Window, pad_rows, visible
from cryolithe.training import pooling
from cryolithe.training.dataset import Batch, Run
from cryolithe.training.pooling import UNSEEN, PoolLifted


@dataclass(frozen=True)
class ColumnBatch:
    """Input and target of one run of rows.

    Attributes:
        windows: around neighbouring values of the rows, shape ``(tilts, rows, columns, samples)``; which values of the
            rows these are differs from tilt to tilt.
        start: which of them lies at or before a point, shape ``(tilts, points)``, int32; `UNSEEN` where none does.
        fraction: weight of the one after it, the same shape, float32.
        scale: 1 / number of tilts that see a point, shape ``(points,)``, float32; 1 where none does.
        angles_rad: shape ``(tilts,)``.
        targets: shape ``(points, blocks, outputs)``.
        output_gain: see `Run`.
        cube: see `Run`.
        facts: see `Run`.
    """

    windows: torch.Tensor
    start: torch.Tensor
    fraction: torch.Tensor
    scale: torch.Tensor
    angles_rad: torch.Tensor
    targets: torch.Tensor
    output_gain: float
    cube: tuple[int, int, int] | None = None
    facts: torch.Tensor | None = None


AnyBatch = Batch | ColumnBatch


def columns_pay(run: Run, network: NetworkConfig) -> bool:
    """Whether `gather_columns` can take a run, and has fewer columns to work on than the run has points."""
    if not isinstance(network, RowSetConfig) or not pooling.available():
        return False
    return run.columns.shape[1] > _start_and_fraction(run, network.input.oversampling)[2]


def gather_columns(run: Run, network: RowSetConfig) -> ColumnBatch:
    """Filter the rows of a run, on the CPU, and gather windows around the columns that its points are seen in."""
    start, fraction, columns = _start_and_fraction(run, network.input.oversampling)
    seen = start != UNSEEN
    last = run.rows.shape[-1] * network.input.oversampling + 2 - columns
    first = torch.where(seen, start, last).amin(1).clamp(max=last)
    pairs = zip(network_rows(run.rows, network.input), network.input.windows, strict=True)
    return ColumnBatch(
        windows=torch.cat([_windows(rows, window, first, columns) for rows, window in pairs], dim=-1),
        start=torch.where(seen, start - first[:, None], UNSEEN).int(),
        fraction=fraction,
        scale=1 / seen.sum(0).clamp(min=1).float(),
        angles_rad=run.angles_rad,
        targets=run.targets,
        output_gain=run.output_gain,
        cube=run.cube,
        facts=run.facts,
    )


def values_of_blocks(network: RowSet, batch: ColumnBatch) -> torch.Tensor:
    """What `RowSet.forward` returns for the windows of the same run.

    Everything up to the mean over tilts is computed in the precision of the weights, also under autocast.
    """
    with torch.autocast("cpu", enabled=False):
        maps = network.tilt_context(batch.angles_rad, batch.facts)
        tilts, rows, columns, samples = batch.windows.shape
        windows = batch.windows.view(tilts, rows * columns, samples).to(maps.dtype)
        lifted = torch.bmm(windows, maps.transpose(1, 2)).view(tilts, rows, columns, -1)
        pooled: torch.Tensor = PoolLifted.apply(lifted, batch.start, batch.fraction, batch.scale)
    return network.join(network.encode_pooled(pooled).transpose(0, 1), batch.facts)


def _start_and_fraction(run: Run, per_px: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Where points lie between the values of rows, and how many values a tilt's points lie between, at most.

    Value 0 is the one before a row's first: a point half a pixel before the first column lies behind it.
    """
    seen = visible(run.columns, run.rows.shape[-1])
    columns = run.columns * per_px
    base = columns.floor()
    start = torch.where(seen, base.long() + 1, UNSEEN)
    most, least = (torch.where(seen, start, beyond) for beyond in (-1, run.rows.shape[-1] * per_px + 1))
    span = int((most.amax(1) - least.amin(1)).amax()) + 2
    return start, torch.where(seen, columns - base, 0), max(span, 2)


def _windows(rows: torch.Tensor, window: Window, first: torch.Tensor, columns: int) -> torch.Tensor:
    """Windows around the values ``first ... first + columns - 1`` of each tilt's rows.

    Args:
        rows: shape ``(tilts, rows, values)``.
        window: samples to take.
        first: shape ``(tilts,)``; counted as in `_start_and_fraction`.
        columns: how many.

    Returns:
        shape ``(tilts, rows, columns, taps)``, a view.
    """
    padded = pad_rows(rows, window).contiguous()
    tilts, count, width = padded.shape
    length = columns + 2 * window.reach
    strides = padded.stride()
    pieces = padded.as_strided((tilts, width - length + 1, count, length), (strides[0], 1, strides[1], 1))
    # Of the window around the value before the first: padding is 2 reach + 2.
    cut = pieces[torch.arange(tilts), first + window.reach + 1].contiguous()
    return cut.as_strided((tilts, count, columns, window.taps), (count * length, length, 1, window.step))
