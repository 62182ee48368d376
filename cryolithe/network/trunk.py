"""`Trunk`: a small residual network of 3-D convolutions over blocks, between the combiner and the outputs.

    x <- x + B_k ReLU( A_k ReLU( x ) )          A_k, B_k: 3 x 3 x 3 convolutions; those of A_k may be spread out
    o  = L ( x + D ReLU( C x ) )                C, D, L: maps of each block by itself

A block of voxels that is computed by itself knows only the detector pixels that saw it. What tells a membrane from
noise is that it goes on next door. The trunk stays local (`RowSetConfig.trunk_reach` blocks), is the same everywhere,
has no bias, and passes on what enters it: with its other weights at zero the outputs are linear in the combiner's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import conv3d

from cryolithe.arrays.convolution import Convolution3d


class Beside(NamedTuple):
    """Blocks of a part of the grid that are only there to be seen, before and after those wanted, along each axis.

    An end with fewer of them than the trunk's reach is the end of the grid.
    """

    z: tuple[int, int]
    x: tuple[int, int]
    y: tuple[int, int]

    def within(self, reach: int) -> Beside:
        """At most so many."""
        z, x, y = ((min(first, reach), min(last, reach)) for first, last in self)
        return Beside(z, x, y)


class Trunk(nn.Module):
    """Features of blocks -> values of blocks.

    Attributes:
        spacings: of A_k, in blocks.
        spread: A_k.
        gather: B_k; starts as zero.
        widen: C.
        narrow: D; starts as zero.
        last: L.
    """

    def __init__(self, width: int, spacings: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.spacings = spacings
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

    def inner(self, x: torch.Tensor, beside: Beside) -> torch.Tensor:
        """What `forward` gives for the blocks that are wanted, if all that they see is there; without gradients.

        What only more distant blocks would see is not computed: each layer leaves away as many as the ones after it do
        not reach.

        Args:
            x: shape ``(1, width, z, x, y)``.
            beside: blocks around those wanted, not more than the trunk's reach.

        Returns:
            shape ``(1, outputs, z, x, y)`` without those beside.
        """
        reach = sum(self.spacings) + len(self.spacings)
        with torch.no_grad():
            for spread, gather, spacing in zip(self.spread, self.gather, self.spacings, strict=True):
                middle, after = beside.within(reach - spacing), beside.within(reach - spacing - 1)
                change = _convolved(spread, torch.relu(x), beside, middle).relu_()
                change = _convolved(gather, change, middle, after)
                x = change.add_(_cut(x, beside, after))
                beside, reach = after, reach - spacing - 1
            x = self.narrow(self.widen(x).relu_()).add_(x)
            values: torch.Tensor = self.last(x)
            return values


def _convolved(layer: nn.Module, values: torch.Tensor, have: Beside, want: Beside) -> torch.Tensor:
    """A convolution of 3 x 3 x 3 with fewer blocks beside; zeros lie beyond the ends that have none to leave away."""
    assert isinstance(layer, nn.Conv3d)
    spacing = layer.dilation[0]
    whole = [all(h - w == spacing for h, w in zip(*ends, strict=True)) for ends in zip(have, want, strict=True)]
    padding = [0 if there else spacing for there in whole]
    # Of an array with gaps the kernels would make one with channels first.
    values = values.contiguous(memory_format=torch.channels_last_3d)
    made = conv3d(values, layer.weight, padding=padding, dilation=layer.dilation)
    z, x, y = (new if there else old for old, new, there in zip(have, want, whole, strict=True))
    return _cut(made, Beside(z, x, y), want)


def _cut(x: torch.Tensor, have: Beside, want: Beside) -> torch.Tensor:
    """Without the blocks beside that are wanted no more."""
    for axis, (old, new) in enumerate(zip(have, want, strict=True), start=2):
        first, last = (h - w for h, w in zip(old, new, strict=True))
        x = x.narrow(axis, first, x.shape[axis] - first - last)
    return x
