"""Where points of the specimen are seen, and the windows of detector rows around them.

A reconstruction point at (x, z) is seen at tilt θ in column u(θ) (see `cryolithe.geometry`). Its window in one
detector row is ``taps`` samples, ``step`` pixels apart, centred at u and read by linear interpolation. Windows of
neighbouring rows are taken at the same u, so the patches of the CryoLithe paper (equation 6) are stacks of them.
Columns outside the detector read zero: images have their mean removed, so zero says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.arrays.folding import symmetric
from cryolithe.geometry import TiltGeometry, centre_px


@dataclass(frozen=True)
class Window:
    """Shape of a window: ``taps`` samples (odd) ``step_px`` pixels apart.

    Attributes:
        taps: number of samples.
        step_px: their distance.
        per_px: values that a row holds for each pixel: 1, or 2 for rows that were sampled more finely so that less is
            lost between two values (see `cryolithe.filters.filter_rows`). Value s lies at column ``s / per_px``.
    """

    taps: int
    step_px: int = 1
    per_px: int = 1

    @property
    def step(self) -> int:
        """Distance of two samples in values of the row."""
        return self.step_px * self.per_px

    @property
    def reach(self) -> int:
        """Values from the centre to the outermost sample."""
        return (self.taps // 2) * self.step


def block_positions_px(voxels: int, first_block: int, blocks: int, stride: int) -> NDArray[np.float64]:
    """Centres of blocks of ``stride`` voxels along an axis, relative to the volume's centre, shape ``(blocks,)``.

    Block k holds the voxels from ``stride * k`` on; a stride of 1 gives the voxels themselves.
    """
    number = np.arange(first_block, first_block + blocks, dtype=np.float64)
    return stride * number + (stride - 1) / 2 - centre_px(voxels)


def point_columns(geometry: TiltGeometry, z_px: NDArray[np.float64], x_px: NDArray[np.float64]) -> torch.Tensor:
    """Detector columns of points.

    Args:
        geometry: tilt geometry.
        z_px: z relative to the volume's centre, shape ``(points,)``.
        x_px: x relative to the volume's centre, shape ``(points,)``.

    Returns:
        u in pixels, shape ``(tilts, points)``, float32.
    """
    return columns_of(geometry, torch.from_numpy(z_px), torch.from_numpy(x_px))


def columns_of(geometry: TiltGeometry, z_px: torch.Tensor, x_px: torch.Tensor) -> torch.Tensor:
    """`point_columns` for points on a device, float64; the result is there."""
    theta = geometry.angles_rad
    cosine, sine = (torch.from_numpy(turn).to(x_px.device)[:, None] for turn in (np.cos(theta), np.sin(theta)))
    columns = x_px * cosine + z_px * sine + geometry.centre[1]
    if geometry.shifts is not None:
        columns += geometry.shifts.of_points(z_px, x_px)
    return columns.float()


def visible(columns: torch.Tensor, detector_px: int) -> torch.Tensor:
    """Whether a column lies on the detector: boolean, the shape of ``columns``."""
    return (columns >= -0.5) & (columns <= detector_px - 0.5)


def pad_rows(rows: torch.Tensor, window: Window) -> torch.Tensor:
    """Append the zeros that `row_windows` reads beyond the detector: ``(..., n)`` -> ``(..., n + 2 pad)``."""
    pad = 2 * window.reach + 2
    return torch.nn.functional.pad(rows, (pad, pad))


def row_windows(padded_rows: torch.Tensor, columns: torch.Tensor, window: Window) -> torch.Tensor:
    """Windows of rows around columns, by linear interpolation.

    Args:
        padded_rows: result of `pad_rows`, shape ``(tilts, rows, X * per_px + 2 pad)``.
        columns: u in pixels of the unpadded detector, shape ``(tilts, points)``, float32.
        window: samples to take.

    Returns:
        shape ``(tilts, points, rows, taps)``, all zero where the column is not `visible`; sample j lies at
        ``u + (j - taps // 2) * step_px``.
    """
    tilts, rows, width = padded_rows.shape
    reach, step = window.reach, window.step
    pad = 2 * reach + 2
    last = width - reach - 2
    detector_px = (width - 2 * pad) // window.per_px
    # Points that a tilt does not see are read where there are only zeros.
    seen = visible(columns, detector_px)
    position = torch.where(seen, columns * window.per_px + pad, reach).clamp(reach, last)
    base = position.floor()
    fraction = (position - base)[:, :, None, None].to(padded_rows.dtype)
    start = base.long() - reach
    tilt = torch.arange(tilts, device=padded_rows.device)[:, None]
    strides = padded_rows.stride()
    starts = width - 2 * reach - 1
    if step <= 2:  # one read of neighbours is faster than two with gaps
        view = padded_rows.as_strided((tilts, starts, rows, 2 * reach + 2), (strides[0], 1, strides[1], 1))
        both = view[tilt, start]
        left, right = both[..., :-1:step], both[..., 1::step]
    else:
        view = padded_rows.as_strided((tilts, starts, rows, window.taps), (strides[0], 1, strides[1], step))
        left, right = view[tilt, start], view[tilt, start + 1]
    return torch.lerp(left, right, fraction)


def all_windows(rows: Sequence[torch.Tensor], columns: torch.Tensor, windows: Sequence[Window]) -> torch.Tensor:
    """What a network sees at points: the windows of each kind side by side.

    Args:
        rows: for each kind of window the rows that it reads, not padded, shape ``(tilts, rows, X * per_px)``.
        columns: u in pixels, shape ``(tilts, points)``.
        windows: the kinds.

    Returns:
        shape ``(tilts, points, rows, samples)``, samples of the first kind first.
    """
    pairs = zip(rows, windows, strict=True)
    return torch.cat([row_windows(pad_rows(row, window), columns, window) for row, window in pairs], dim=-1)


def reflected_rows(first_row: int, rows: int, size: int) -> NDArray[np.int64]:
    """Indices of ``rows`` consecutive rows from ``first_row``; rows beyond the image mirror it about its border.

    >>> reflected_rows(-2, 4, 5).tolist()
    [1, 0, 0, 1]
    """
    return symmetric(np.arange(first_row, first_row + rows), size)
