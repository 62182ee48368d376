"""`Trunk`: a small residual network of 3-D convolutions over blocks, between the combiner and the outputs.

    x <- x + B_k ReLU( A_k ReLU( x ) )          A_k, B_k: 3 x 3 x 3 convolutions; those of A_k may be spread out
    o  = L ( x + D ReLU( C x ) )                C, D, L: maps of each block by itself

A block of voxels that is computed by itself knows only the detector pixels that saw it. What tells a membrane from
noise is that it goes on next door. The trunk stays local (`RowSetConfig.trunk_reach` blocks), is the same everywhere,
has no bias, and passes on what enters it: with its other weights at zero the outputs are linear in the combiner's.
"""

from __future__ import annotations

import torch
from torch import nn

from cryolithe.convolution import Convolution3d


class Trunk(nn.Module):
    """Features of blocks -> values of blocks.

    Attributes:
        spread: A_k.
        gather: B_k; starts as zero.
        widen: C.
        narrow: D; starts as zero.
        last: L.
    """

    def __init__(self, width: int, spacings: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.spread = nn.ModuleList(
            Convolution3d(width, width, 3, padding=spacing, dilation=spacing, bias=False) for spacing in spacings
        )
        self.gather = nn.ModuleList(Convolution3d(width, width, 3, padding=1, bias=False) for _ in spacings)
        self.widen = nn.Conv3d(width, 2 * width, 1, bias=False)
        self.narrow = nn.Conv3d(2 * width, width, 1, bias=False)
        self.last = nn.Conv3d(width, outputs, 1, bias=False)
        with torch.no_grad():
            for layer in (*self.gather, self.narrow):
                layer.weight.zero_()
            self.last.weight.mul_(0.1)  # training begins near zero, not far beyond the targets

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Values of blocks; beyond the ends of the grid features are zero.

        Args:
            x: shape ``(batch, width, z, x, y)``: y last, as blocks leave the combiner.

        Returns:
            shape ``(batch, outputs, z, x, y)``.
        """
        for spread, gather in zip(self.spread, self.gather, strict=True):
            x = x + gather(torch.relu(spread(torch.relu(x))))
        x = x + self.narrow(torch.relu(self.widen(x)))
        values: torch.Tensor = self.last(x)
        return values
