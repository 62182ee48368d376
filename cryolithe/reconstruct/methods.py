"""The reconstruction methods, each as a map from a slab of detector rows to the same slab of the volume.

Rows are independent of each other up to a method's halo, so a volume of any height is made slab by slab.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from cryolithe.filters import filter_rows, gaussian_response, padded_length, ramp_response, unit_noise_gain
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.network import InputWindow, Network
from cryolithe.projector import Projector
from cryolithe.projector.classical import fbp, sirt
from cryolithe.sampling import block_positions_px, pad_rows, point_columns, row_windows, visible
from cryolithe.wavelets import Wavelet, synthesise

# Windows of this many row-points at a time: on a CPU their channels then stay in the cache.
ROW_POINTS_PER_BATCH = {"cpu": 2400, "cuda": 200_000}
FEWEST_ROW_POINTS = 64


class SlabMethod(Protocol):
    """Detector rows -> volume rows."""

    @property
    def row_multiple(self) -> int:
        """Slabs start at multiples of this."""
        ...

    @property
    def halo_px(self) -> int:
        """Detector rows needed before and after a slab."""
        ...

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the volume from rows of the detector.

        Args:
            rows: shape ``(tilts, slab + 2 halo_px, X)`` where the slab is a multiple of ``row_multiple`` high; what is
                wanted beyond the image mirrors it.

        Returns:
            shape ``(z, slab, x)``, float32, on the method's device.
        """
        ...


@dataclass(frozen=True)
class FbpMethod:
    """Filtered back-projection of a slab."""

    projector: Projector
    window: str
    row_multiple: int = 1
    halo_px: int = 0

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """See `SlabMethod`."""
        return fbp(self.projector, rows, self.window)


@dataclass(frozen=True)
class SirtMethod:
    """SIRT of a slab."""

    projector: Projector
    iterations: int
    on_iteration: Callable[[], object] = lambda: None
    row_multiple: int = 1
    halo_px: int = 0

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """See `SlabMethod`."""
        return sirt(self.projector, rows, self.iterations, self.on_iteration)


def network_rows(rows: torch.Tensor, config: InputWindow) -> list[torch.Tensor]:
    """The filtered rows that a network's windows read.

    Args:
        rows: shape ``(..., X)``, float32, mean removed, of about unit variance.
        config: the network's windows.

    Returns:
        one tensor like ``rows`` for the fine window and, if there is one, one for the context window.
    """
    length = padded_length(rows.shape[-1])
    responses = [ramp_response(length, config.ramp_window)]
    if config.context_taps:
        responses.append(gaussian_response(length, config.context_sigma_px))
    if config.unit_noise:
        responses = [unit_noise_gain(response, length) for response in responses]
    return filter_rows(rows, *(response.to(rows) for response in responses))


class NetworkMethod:
    """A network applied to a slab: filter, sample, encode, combine, synthesise.

    Args:
        network: weights on their device and in their precision.
        geometry: tilt geometry of the rows.
        grid: voxels of the whole volume.
        row_points: row-points to hold at a time.
        on_points: called with the share (0...1) of a slab that each batch has done.
    """

    def __init__(
        self,
        network: Network,
        geometry: TiltGeometry,
        grid: VolumeGrid,
        row_points: int = ROW_POINTS_PER_BATCH["cpu"],
        on_points: Callable[[float], object] = lambda share: None,
    ) -> None:
        self.network = network
        self.geometry = geometry
        self.grid = grid
        self.row_points = row_points
        self.on_points = on_points
        self.head = network.config.head
        self.row_multiple = self.head.stride
        self.halo_px = (network.config.rows - 1) // 2 + self.head.stride * self.head.margin
        weight = next(network.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        angles = torch.from_numpy(geometry.angles_rad.astype(np.float32)).to(self.device)
        with torch.inference_mode():
            self.context = network.tilt_context(angles).to(self.dtype)
        depth, width = self._blocks(grid.shape[0]), self._blocks(grid.shape[2])
        z = block_positions_px(grid.shape[0], -self.head.margin, depth, self.head.stride)
        x = block_positions_px(grid.shape[2], -self.head.margin, width, self.head.stride)
        self.blocks = (depth, width)
        self.columns = point_columns(geometry, np.repeat(z, width), np.tile(x, depth)).to(self.device)

    def _blocks(self, voxels: int) -> int:
        """Points along an axis of ``voxels`` voxels."""
        return -(-voxels // self.head.stride) + 2 * self.head.margin

    @torch.inference_mode()
    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """See `SlabMethod`; rows are standardised and dense = positive."""
        slab = rows.shape[1] - 2 * self.halo_px
        blocks = self._blocks(slab)
        windows = self.network.config.input.windows
        filtered = network_rows(rows.to(self.device), self.network.config.input)
        padded = [pad_rows(f, w).to(self.dtype) for f, w in zip(filtered, windows, strict=True)]
        points = self.columns.shape[1]
        values = torch.empty((points, blocks, self.head.outputs), dtype=torch.float32, device=self.device)
        step = max(1, self.row_points // rows.shape[1])
        for start in range(0, points, step):
            columns = self.columns[:, start : start + step]
            sampled = [row_windows(p, columns, w) for p, w in zip(padded, windows, strict=True)]
            inside = visible(columns, self.geometry.image_shape[1])
            values[start : start + step] = self.network(torch.cat(sampled, dim=-1), inside, self.context)
            self.on_points(columns.shape[1] / points)
        by_block = values.view(*self.blocks, blocks, self.head.outputs).transpose(1, 2)
        if self.head.levels == 0:
            return by_block[..., 0]
        return synthesise(by_block, (self.grid.shape[0], slab, self.grid.shape[2]), Wavelet(self.head.wavelet))
