"""`RowSet`: rows encoded once and shared by all voxels that see them.

    h(row, x, z) = MLP( mean_θ ReLU( W_θ · window_θ(row, u_θ(x, z)) ) )        W_θ = w(θ) W1 diag(e(θ)) U
    o(y, x, z)   = MLP( conv_y( h ) )           or, with a trunk,     o = Trunk( conv_y( h + S mean_θ ReLU(...) ) )

where w(θ) is 1 but for tilts that lie closer together than is usual (`cryolithe.network.layers.crowd_shares`).

With a trunk (`cryolithe.network.trunk`) neighbouring blocks see each other, and all before it has a linear path: the
channels come in pairs that start as W and -W, ReLU(a) - ReLU(-a) = a, so that S can pass on a back-projection of the
filtered rows as it is. A network that may return what filtered back-projection shows need not forget it.

It keeps the set structure of the published network and its freedom in number and angles of the tilts, but shares one
encoder between the rows of a patch, so that a row's features serve every voxel whose patch contains that row.
"""

from __future__ import annotations

import torch
from torch import nn

from cryolithe.network.config import RowSetConfig
from cryolithe.network.knowing import KnownGains
from cryolithe.network.layers import Mlp, angle_shares, crowd_shares, mean_over_tilts
from cryolithe.network.trunk import Trunk


class RowSet(nn.Module):
    """Windows of detector rows -> values of blocks of voxels.

    Attributes:
        config: sizes.
        lift: U, the first map of a window.
        angle_gain: E of the encoding e(θ) = E [1, sin mθ, cos mθ, ...]; starts as e = 1.
        mix: W1, the map after the product with e(θ).
        pass_on: S, past the row MLP; only with a trunk.
        trunk: over blocks; None where every block is computed by itself.
        known: gains of what is known about a series; None where the network takes no facts.
    """

    def __init__(self, config: RowSetConfig) -> None:
        super().__init__()
        self.config = config
        self.lift = nn.Linear(config.input.samples, config.channels, bias=False)
        self.angle_gain = nn.Linear(1 + 2 * config.angle_harmonics, config.channels, bias=False)
        self.mix = nn.Linear(config.channels, config.channels, bias=False)
        self.encode_row = Mlp(config.channels, config.row_hidden, 1, config.row_features, skip=False)
        self.gather_rows = nn.Linear(self.rows_per_point * config.row_features, config.combiner_width, bias=False)
        self.combine: Mlp | None = None
        self.trunk: Trunk | None = None
        if config.trunk_units:
            self.pass_on = nn.Linear(config.channels, config.row_features, bias=False)
            self.trunk = Trunk(config.combiner_width, config.trunk_spacings, config.head.outputs)
        else:
            self.combine = Mlp(
                config.combiner_width, config.combiner_width, config.combiner_layers - 1, config.head.outputs, skip=True
            )
        self.known = (
            KnownGains(config.input.known, config.channels, config.combiner_width) if config.input.known else None
        )
        with torch.no_grad():
            self.angle_gain.weight.mul_(0.3)
            self.angle_gain.weight[:, 0] = 1.0
            if config.trunk_units:
                half = config.channels // 2
                self.mix.weight[half : 2 * half] = -self.mix.weight[:half]
                self.pass_on.weight[:, half : 2 * half] = -self.pass_on.weight[:, :half]

    @property
    def rows_per_point(self) -> int:
        """Detector rows that one block of voxels is computed from."""
        return self.config.rows + self.config.head.stride - 1

    def tilt_context(self, angles_rad: torch.Tensor, facts: torch.Tensor | None = None) -> torch.Tensor:
        """The linear map W_θ of each tilt.

        Args:
            angles_rad: shape ``(tilts,)``.
            facts: what is known (`cryolithe.network.knowing.encode_known`), shape ``(tilts, facts)``; None where
                nothing is, or where the network takes none.

        Returns:
            shape ``(tilts, channels, samples)``.
        """
        order = torch.arange(1, self.config.angle_harmonics + 1, device=angles_rad.device)
        phase = angles_rad[:, None] * order
        basis = torch.cat([torch.ones_like(angles_rad)[:, None], phase.sin(), phase.cos()], dim=1)
        gain = basis.to(self.mix.weight.dtype) @ self.angle_gain.weight.T
        # A positive factor passes the ReLU, so it weighs the tilt in the mean.
        shares = angle_shares(angles_rad) if self.config.weigh_spacing else crowd_shares(angles_rad)
        gain = gain * shares.to(gain)[:, None]
        if self.known is None or facts is None:
            return torch.einsum("oc,tc,ci->toi", self.mix.weight, gain, self.lift.weight)
        before, after = self.known.of_tilts(facts.to(gain))
        maps = torch.einsum("oc,tc,ci->toi", self.mix.weight, gain * before, self.lift.weight)
        return maps * after[:, :, None]

    def encode(self, windows: torch.Tensor, visible: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Features of rows.

        Args:
            windows: shape ``(tilts, points, rows, samples)``.
            visible: boolean, shape ``(tilts, points)``.
            maps: result of `tilt_context`.

        Returns:
            shape ``(points, rows, row_features)``.
        """
        tilts, points, rows, samples = windows.shape
        lifted = torch.bmm(windows.reshape(tilts, points * rows, samples), maps.transpose(1, 2))
        return self.encode_pooled(mean_over_tilts(lifted.relu_().view(tilts, points, rows, -1), visible))

    def encode_pooled(self, pooled: torch.Tensor) -> torch.Tensor:
        """Features of rows from the means over tilts: ``(..., channels)`` -> ``(..., row_features)``."""
        encoded: torch.Tensor = self.encode_row(pooled)
        return encoded + self.pass_on(pooled) if self.trunk is not None else encoded

    def join(self, features: torch.Tensor, facts: torch.Tensor | None = None) -> torch.Tensor:
        """Values of the blocks along y; with a trunk, what it takes.

        Args:
            features: encoded rows, shape ``(points, rows, row_features)``; block k is made from the
                ``rows_per_point`` rows starting at ``stride * k``.
            facts: as for `tilt_context`.

        Returns:
            shape ``(points, blocks, outputs)``, or ``(points, blocks, combiner_width)`` with a trunk.
        """
        stacked = features.unfold(1, self.rows_per_point, self.config.head.stride)  # (points, blocks, F, rows)
        joined: torch.Tensor = self.gather_rows(stacked.flatten(-2))
        if self.known is not None and facts is not None:
            joined = joined * self.known.of_series(facts.to(self.gather_rows.weight)).to(joined.dtype)
        return joined if self.combine is None else self.combine(torch.relu(joined))

    def refine(self, joined: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Apply the trunk to whole planes of blocks.

        Args:
            joined: result of `join` for points (z, x), x fastest, shape ``(z * x, blocks, width)``; or a batch of such.
            grid: number of points along z and x.

        Returns:
            shape ``(..., z * x, blocks, outputs)``.
        """
        assert self.trunk is not None
        batch = joined.reshape(-1, *grid, *joined.shape[-2:])  # (batch, z, x, y, width)
        # Channels are last in memory, which convolutions are fastest with.
        values = self.trunk(batch.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        return values.reshape(*joined.shape[:-1], values.shape[-1])

    def forward(
        self,
        windows: torch.Tensor,
        visible: torch.Tensor,
        context: torch.Tensor,
        facts: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Values of blocks from the windows of a run of rows; with a trunk, what it takes.

        Args:
            windows: shape ``(tilts, points, rows, samples)``, fine samples first.
            visible: boolean, shape ``(tilts, points)``.
            context: result of `tilt_context` for the tilts.
            facts: as for `tilt_context`.

        Returns:
            shape ``(points, blocks, outputs)``, blocks = (rows - rows_per_point) / stride + 1; see `join`.
        """
        return self.join(self.encode(windows, visible, context), facts)
