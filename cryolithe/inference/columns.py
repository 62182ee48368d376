"""Where each point reads the lifted rows of each tilt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry
from cryolithe.sampling import Window, columns_of, pad_rows, visible

# Points are worked on in tiles of this many along z and x, so that a tile reads few columns of each tilt.
TILE = 32


@dataclass(frozen=True)
class PointGrid:
    """The points of a slice of the volume.

    Attributes:
        geometry: tilt geometry.
        z_px: z of the points relative to the volume's centre, shape ``(z,)``.
        x_px: likewise x, shape ``(x,)``.
        mean_over_all: average over all tilts instead of those that see a point (as the published program does).
        per_px: values that rows hold for each pixel, 1 or 2 (`cryolithe.sampling.Window`).
    """

    geometry: TiltGeometry
    z_px: NDArray[np.float64]
    x_px: NDArray[np.float64]
    mean_over_all: bool = False
    per_px: int = 1

    @property
    def points(self) -> int:
        """How many."""
        return len(self.z_px) * len(self.x_px)

    def order(self) -> NDArray[np.int64]:
        """Indices of all points, z outer and x inner, sorted by tiles."""
        index = np.arange(self.points).reshape(len(self.z_px), len(self.x_px))
        tiles = [
            index[z : z + TILE, x : x + TILE].ravel()
            for z in range(0, len(self.z_px), TILE)
            for x in range(0, len(self.x_px), TILE)
        ]
        return np.concatenate(tiles)


@dataclass(frozen=True)
class PointBlock:
    """The columns of some points.

    Attributes:
        start: index of the lifted column at or before a point, shape ``(tilts, points)``, int32; where a tilt does not
            see a point, the first of the two columns of zeros at the end.
        fraction: weight of the column after it, float32 (float64 for a network in it), the same shape.
        scale: 1 / number of tilts that are averaged, shape ``(points,)``, float64; 1 where none is.
        order: index of each point among all points, int64.
    """

    start: torch.Tensor
    fraction: torch.Tensor
    scale: torch.Tensor
    order: torch.Tensor

    @property
    def points(self) -> int:
        """How many."""
        return int(self.order.shape[0])


def lifted_columns(width: int) -> int:
    """Columns of a lifted row of ``width`` values: one before them, their own, one after them, and two of zeros."""
    return width + 4


def point_block(grid: PointGrid, order: NDArray[np.int64], weight: torch.Tensor) -> PointBlock:
    """Find the columns of some points of a grid, given by their indices.

    Args:
        grid: all points.
        order: indices of those wanted.
        weight: any weight of the network: tells the device and, if it is float64, that fractions are to be exact.
    """
    device, width = weight.device, len(grid.x_px)
    index = torch.from_numpy(order).to(device)
    z = torch.from_numpy(grid.z_px).to(device)[index // width]
    x = torch.from_numpy(grid.x_px).to(device)[index % width]
    columns = columns_of(grid.geometry, z, x)
    detector_px = grid.geometry.image_shape[1]
    seen = visible(columns, detector_px)
    columns = columns * grid.per_px
    base = columns.floor()
    # A column of -0.5 lies between the one before the detector, index 0, and the first of its own.
    start = torch.where(seen, base.int() + 1, detector_px * grid.per_px + 2).int()
    exact = torch.promote_types(weight.dtype, torch.float32)
    fraction = torch.where(seen, columns.to(exact) - base.to(exact), 0)
    averaged = torch.ones_like(seen) if grid.mean_over_all else seen
    scale = 1 / averaged.sum(0).clamp(min=1).double()
    return PointBlock(start, fraction, scale, index)


def lift_rows(rows: list[torch.Tensor], windows: tuple[Window, ...], maps: torch.Tensor, lifted: torch.Tensor) -> None:
    """Apply the linear map of each tilt to the windows around all whole pixels.

    Args:
        rows: for each window, filtered rows, shape ``(tilts, n, X)``, X values whatever their distance.
        windows: what is read around a pixel.
        maps: shape ``(tilts, channels, samples)``.
        lifted: is filled, shape ``(n, tilts, lifted_columns(X), channels)``.
    """
    tilts, count, width = rows[0].shape
    parts = []
    for row, window in zip(rows, windows, strict=True):
        padded = pad_rows(row, window).contiguous()
        first = window.reach + 1  # of the window around the value before the first
        shape, strides = (tilts, count, width + 2, window.taps), padded.stride()
        parts.append(padded.as_strided(shape, (strides[0], strides[1], 1, window.step), first))
    sampled = torch.cat(parts, dim=-1).view(tilts, count * (width + 2), -1).to(maps.dtype)
    values = torch.bmm(sampled, maps.transpose(1, 2)).view(tilts, count, width + 2, -1)
    lifted[:, :, : width + 2] = values.transpose(0, 1)
    lifted[:, :, width + 2 :] = 0
