"""Where each point reads the lifted rows of each tilt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cryolithe.sampling import Window, pad_rows, visible

# Points are worked on in tiles of this many along z and x, so that a tile reads few columns of each tilt.
TILE = 32


@dataclass(frozen=True)
class PointTable:
    """The columns of points, tile by tile.

    Attributes:
        start: index of the lifted column at or before a point, shape ``(tilts, points)``, int32; where a tilt does not
            see a point, the first of the two columns of zeros at the end.
        fraction: weight of the column after it, float32, the same shape.
        scale: 1 / number of tilts that see a point, shape ``(points,)``, float32; 1 where none does.
        order: position of each point among all points, z outer and x inner, int64.
    """

    start: torch.Tensor
    fraction: torch.Tensor
    scale: torch.Tensor
    order: torch.Tensor

    @property
    def points(self) -> int:
        """How many."""
        return int(self.order.shape[0])


def lifted_columns(detector_px: int) -> int:
    """Columns of a lifted row: one before the detector, its own, one after it, and two of zeros."""
    return detector_px + 4


def point_table(columns: torch.Tensor, blocks: tuple[int, int], detector_px: int) -> PointTable:
    """Sort points into tiles and find their columns.

    Args:
        columns: u in pixels, shape ``(tilts, z * x)``, float32 or float64, x inner.
        blocks: points along z and x.
        detector_px: width of the detector.
    """
    index = np.arange(blocks[0] * blocks[1]).reshape(blocks)
    tiles = [
        index[z : z + TILE, x : x + TILE].ravel() for z in range(0, blocks[0], TILE) for x in range(0, blocks[1], TILE)
    ]
    order = torch.from_numpy(np.concatenate(tiles)).to(columns.device)
    columns = columns[:, order]
    seen = visible(columns, detector_px)
    base = columns.floor()
    fraction = torch.where(seen, columns - base, 0)
    # A column of -0.5 lies between the one before the detector, index 0, and the first of its own.
    start = torch.where(seen, base.int() + 1, detector_px + 2).int()
    scale = 1 / seen.sum(0).clamp(min=1).to(columns.dtype)
    return PointTable(start.contiguous(), fraction.contiguous(), scale, order)


def lift_rows(rows: list[torch.Tensor], windows: tuple[Window, ...], maps: torch.Tensor) -> torch.Tensor:
    """Apply the linear map of each tilt to the windows around all whole pixels.

    Args:
        rows: for each window, filtered rows, shape ``(tilts, n, X)``.
        windows: what is read around a pixel.
        maps: shape ``(tilts, channels, samples)``.

    Returns:
        shape ``(n, tilts, lifted_columns(X), channels)``, in the precision of ``maps``.
    """
    tilts, count, width = rows[0].shape
    parts = []
    for row, window in zip(rows, windows, strict=True):
        padded = pad_rows(row, window).contiguous()
        first = window.reach_px + 1  # of the window around the pixel before the detector
        shape, strides = (tilts, count, width + 2, window.taps), padded.stride()
        parts.append(padded.as_strided(shape, (strides[0], strides[1], 1, window.step_px), first))
    sampled = torch.cat(parts, dim=-1).view(tilts, count * (width + 2), -1).to(maps.dtype)
    lifted = maps.new_zeros((count, tilts, lifted_columns(width), maps.shape[1]))
    values = torch.bmm(sampled, maps.transpose(1, 2)).view(tilts, count, width + 2, -1)
    lifted[:, :, : width + 2] = values.transpose(0, 1)
    return lifted
