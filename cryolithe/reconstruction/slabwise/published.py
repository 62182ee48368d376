"""The way in which the published CryoLithe program applies its networks, for imported weights.

Facts of that program (https://github.com/swing-research/CryoLithe), held by ``tests/network/test_published.py``:

- Images are padded with equally many zeros at both ends of their shorter axis, to a square field of N x N pixels (or
  one pixel short of it), filtered along x over 2 N samples, and read by bilinear interpolation with zeros outside.
  A point is averaged over all tilts, whether they see it or not.
- Along x and y points lie on ``linspace(-1, 1)`` over the field, ends included: at the pixels for a voxel head, and
  for a wavelet head at ``K = (N + L - 1) // 2`` positions, L taps, K as PyWavelets counts padded coefficients. So
  coefficient k is not quite where its basis function is centred; the network has learnt that.
- Along z they span the share (points along z) / (points along x) of the field.

Where that program mixes up its axes or changes the scale (fields one pixel short of a square, volumes thicker than
the field) this one goes on with the same formulas: each axis spans its own field, and the pitch along z stays.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.errors import ModelError
from cryolithe.filters import filter_rows_by_taps
from cryolithe.geometry import TiltGeometry, VolumeGrid, centre_px
from cryolithe.inference import PointGrid, RowRun
from cryolithe.network import Head, NetworkConfig
from cryolithe.wavelets import Wavelet, padded_count, padded_range, synthesise_padded


def published_halo_px(config: NetworkConfig) -> int:
    """Detector rows needed before and after a slab.

    Raises:
        ModelError: if its head is none of the published program.
    """
    reach = (config.rows + config.head.stride - 1) // 2
    # A coefficient reaches its voxels from up to L - 1/2 rows away, and its own row lies up to 3/2 off the grid.
    wavelet = _wavelet(config)
    return reach + (max(wavelet.length, 4) if wavelet else 0)


def _wavelet(config: NetworkConfig) -> Wavelet | None:
    """Of its coefficients; None for voxels."""
    if not isinstance(config.head, Head):
        raise ModelError(
            f"the published program has heads of voxels or wavelets, found one of kind '{config.head.kind}'"
        )
    return Wavelet(config.head.wavelet) if config.head.levels else None


def published_field(image_shape: tuple[int, int]) -> tuple[int, int]:
    """Pixels ``(y, x)`` of the field to which an image is padded."""
    largest = max(image_shape)
    y, x = (n + 2 * ((largest - n) // 2) for n in image_shape)
    return y, x


class PublishedSampling:
    """See `cryolithe.reconstruction.slabwise.methods.Sampling`.

    Args:
        config: of a `SliceSet`.
        taps: impulse response of the filter along rows, shape ``(T,)``.
        geometry: tilt geometry of the rows.
        grid: voxels of the whole volume.
    """

    row_multiple = 1

    def __init__(self, config: NetworkConfig, taps: torch.Tensor, geometry: TiltGeometry, grid: VolumeGrid) -> None:
        self.config, self.taps, self.geometry, self.grid = config, taps, geometry, grid
        self.halo_px = published_halo_px(config)
        self.wavelet = _wavelet(config)
        # Zeros at both ends of the rows' axis and of the columns' axis; at least one of the two is 0.
        self._before_y, self._before_x = ((max(geometry.image_shape) - n) // 2 for n in geometry.image_shape)
        self.field_y, self.field_x = published_field(geometry.image_shape)
        # So many zeros on both sides of a row that every window which holds a pixel is centred among them.
        self._margin_px = config.input.taps // 2 + 1

    @cached_property
    def points(self) -> PointGrid:
        """Points of a slice: all along z, those along x that its voxels are made of."""
        depth, _, width = self.grid.shape
        centre = centre_px(self.field_x)
        z = np.linspace(-1, 1, self._count(depth)) * (self._count(depth) / self._count(self.field_x)) * centre
        x = self._places(self._before_x, self._before_x + width, self.field_x) - centre
        # Zeros are added on both sides alike: the tilt axis stays in the middle.
        height = self.geometry.image_shape[0]
        padded = TiltGeometry(self.geometry.angles_deg, (height, self.field_x + 2 * self._margin_px))
        return PointGrid(padded, z, x, mean_over_all=True)

    def inputs(self, rows: torch.Tensor, first_row: int) -> RowRun:
        """See `cryolithe.reconstruction.slabwise.methods.Sampling`."""
        first_read = first_row - self.halo_px
        there = torch.arange(first_read, first_read + rows.shape[1], device=rows.device)
        inside = (there >= 0) & (there < self.geometry.image_shape[0])
        rows = torch.where(inside[:, None], rows, 0)
        field = torch.nn.functional.pad(rows, (self._before_x, self._before_x))
        filtered = filter_rows_by_taps(field, self.taps)
        filtered = torch.nn.functional.pad(filtered, (self._margin_px, self._margin_px))
        start = first_row + self._before_y
        places = self._places(start, start + rows.shape[1] - 2 * self.halo_px, self.field_y)
        reach = (self.config.rows + self.config.head.stride - 1) // 2
        return RowRun([filtered], places - self._before_y - first_read - reach)

    def volume(self, values: torch.Tensor, first_row: int, slab: int) -> torch.Tensor:
        """See `cryolithe.reconstruction.slabwise.methods.Sampling`."""
        if self.wavelet is None:
            return values[..., 0]
        depth, _, width = self.grid.shape
        y, x = first_row + self._before_y, self._before_x
        return synthesise_padded(values, [(0, depth), (y, y + slab), (x, x + width)], self.wavelet)

    def _count(self, voxels: int) -> int:
        """Points along an axis."""
        return voxels if self.wavelet is None else padded_count(voxels, self.wavelet)

    def _places(self, start: int, stop: int, field: int) -> NDArray[np.float64]:
        """Pixel coordinates, along an axis of ``field`` pixels, of the points of voxels ``start ... stop - 1``."""
        if self.wavelet is None:
            return np.arange(start, stop, dtype=np.float64)
        number = np.arange(*padded_range(start, stop, self.wavelet), dtype=np.float64)
        return number * (field - 1) / max(1, self._count(field) - 1)
