"""`SliceSet`: the published CryoLithe network (paper, section 3.4).

Each row of a patch has its own set-MLP: a linear map of the window, a product with the encoding of the tilt angle,
an MLP applied to each tilt, the mean over tilts, a second MLP. A last MLP joins the rows. No biases.
"""

from __future__ import annotations

import torch
from torch import nn

from cryolithe.network.config import SliceSetConfig
from cryolithe.network.layers import Mlp, mean_over_tilts

ENCODING_BASE = 1000.0


def angle_encoding(angles_rad: torch.Tensor, size: int) -> torch.Tensor:
    """Positional encoding of the published program: sines and cosines of the angle in degrees.

    Args:
        angles_rad: shape ``(tilts,)``.
        size: even number of features.

    Returns:
        shape ``(tilts, size)``: sin, cos of ``degrees / 1000**(2i / size)``, alternating.
    """
    exponent = torch.arange(0, size, 2, device=angles_rad.device, dtype=angles_rad.dtype) / size
    phase = torch.rad2deg(angles_rad)[:, None] / ENCODING_BASE**exponent
    return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-2)


class RowEncoder(nn.Module):
    """Set-MLP of one row position: windows of all tilts -> features of the row."""

    def __init__(self, config: SliceSetConfig) -> None:
        super().__init__()
        self.lift = nn.Linear(config.input.samples, config.channels, bias=False)
        self.per_tilt = Mlp(config.channels, config.set_hidden, config.set_layers, config.set_features, config.skip)
        self.pooled = Mlp(config.set_features, config.row_hidden, config.row_layers, config.row_features, config.skip)

    def forward(self, windows: torch.Tensor, visible: torch.Tensor, encoding: torch.Tensor) -> torch.Tensor:
        """``(tilts, points, rows, samples)`` -> ``(points, rows, row_features)``."""
        lifted = self.lift(windows) * encoding[:, None, None, :].to(windows.dtype)
        return self.pooled(mean_over_tilts(self.per_tilt(lifted), visible))


class SliceSet(nn.Module):
    """Windows of detector rows -> values of blocks of voxels, as published.

    The patch of a block of 2 or 4 voxels has 1 or 3 rows more than that of a voxel, so that it stays symmetric.
    """

    def __init__(self, config: SliceSetConfig) -> None:
        super().__init__()
        self.config = config
        self.row_encoders = nn.ModuleList(RowEncoder(config) for _ in range(self.rows_per_point))
        self.combine = Mlp(
            self.rows_per_point * config.row_features,
            config.combiner_width,
            config.combiner_layers,
            config.head.outputs,
            config.skip,
        )

    @property
    def rows_per_point(self) -> int:
        """Detector rows that one block of voxels is computed from."""
        return self.config.rows + self.config.head.stride - 1

    def tilt_context(self, angles_rad: torch.Tensor) -> torch.Tensor:
        """The encoding of each tilt's angle: ``(tilts,)`` -> ``(tilts, channels)``."""
        return angle_encoding(angles_rad, self.config.channels)

    def forward(self, windows: torch.Tensor, visible: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Values of blocks from the windows of a run of rows; shapes as for `RowSet.forward`."""
        stride = self.config.head.stride
        blocks = (windows.shape[2] - self.rows_per_point) // stride + 1
        rows = [
            encoder(windows[:, :, number : number + stride * (blocks - 1) + 1 : stride], visible, context)
            for number, encoder in enumerate(self.row_encoders)
        ]
        return self.combine(torch.cat(rows, dim=-1))
