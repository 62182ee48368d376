"""U-Net in the layout of Topaz-Denoise (Bepler et al., Nature Communications 2020), for volumes and for images.

Skips carry the pooled maps and the last one the input itself; no normalisation layers; maps grow to the exact size of
the skip, so that a volume of any size goes through.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import nn

from cryolithe.arrays.convolution import Convolution3d

SLOPE = 0.1  # of the activations below zero
_FIRST_OUTPUT = 0.1  # share of the usual initial scale: an untrained network answers near the mean


_CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[Convolution3d]] = {2: nn.Conv2d, 3: Convolution3d}
_POOLINGS = {2: F.max_pool2d, 3: F.max_pool3d}


@dataclass(frozen=True)
class UNetSizes:
    """Sizes, of any number of dimensions.

    Attributes:
        filters: maps of each level.
        levels: halvings.
        first_kernel: edge of the first convolution, odd.
        last: maps of the two convolutions before the output.
    """

    filters: int
    levels: int
    first_kernel: int
    last: tuple[int, int]

    @property
    def multiple(self) -> int:
        """The network is equivariant to shifts by this many voxels (or pixels)."""
        return int(2**self.levels)

    @property
    def reach(self) -> int:
        """Voxels from an output to the farthest input that it depends on, at most."""
        # Along the deepest path: what each convolution adds at its level, and for every pooling and growing the
        # voxels of the larger cell that a voxel is in.
        reach = self.first_kernel // 2 + 3
        for level in range(1, self.levels + 1):
            convolutions = 1 if level == self.levels else 3
            reach += convolutions * 2**level + 2 ** (level - 1)
        return reach

    @property
    def maps(self) -> int:
        """Maps of the input's size that are in memory at once when it is applied, at most."""
        widest = max(2 * self.filters, self.filters + 2)  # the first level beside its activation, or the last one
        return max(widest, 2 * self.filters + 1 + self.last[0])


@dataclass(frozen=True)
class UNetConfig(UNetSizes):
    """Sizes for volumes; the defaults are Topaz' (2.9 M weights)."""

    filters: int = 48
    levels: int = 5
    first_kernel: int = 7
    last: tuple[int, int] = (64, 32)


class UNet(nn.Module):
    """See the module."""

    dimensions = 3

    def __init__(self, config: UNetSizes) -> None:
        super().__init__()
        self.config = config
        f = config.filters
        self.down = nn.ModuleList(
            self._convolution(1 if level == 0 else f, f, config.first_kernel if level == 0 else 3)
            for level in range(config.levels)
        )
        self.bottom = self._convolution(f, f)
        self.up = nn.ModuleList()
        width = f
        for _ in range(config.levels - 1):
            self.up.append(nn.ModuleList([self._convolution(width + f, 2 * f), self._convolution(2 * f, 2 * f)]))
            width = 2 * f
        first, second = config.last
        self.end = nn.ModuleList([self._convolution(width + 1, first), self._convolution(first, second)])
        self.out = self._convolution(second, 1)
        _initialise(self)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Denoised values.

        Args:
            values: shape ``(n, 1, z, y, x)``, or without z in two dimensions; standardised.

        Returns:
            The same shape.
        """
        skips, maps, pool = [values], values, _POOLINGS[self.dimensions]
        for convolution in self.down:
            maps = pool(F.leaky_relu(convolution(maps), SLOPE), 2, ceil_mode=True)
            skips.append(maps)
        maps = F.leaky_relu(self.bottom(skips.pop()), SLOPE)
        for pair in self.up:
            maps = _grown(maps, skips.pop())
            for convolution in pair:  # type: ignore[attr-defined]
                maps = F.leaky_relu(convolution(maps), SLOPE)
        maps = _grown(maps, skips.pop())
        for convolution in self.end:
            maps = F.leaky_relu(convolution(maps), SLOPE)
        out: torch.Tensor = self.out(maps)
        return out

    def _convolution(self, given: int, made: int, kernel: int = 3) -> nn.Conv2d | nn.Conv3d:
        return _CONVOLUTIONS[self.dimensions](given, made, kernel, padding=kernel // 2)


def _grown(maps: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """Maps in the size of a skip, and the skip."""
    return torch.cat([F.interpolate(maps, size=skip.shape[2:], mode="nearest"), skip], dim=1)


def _initialise(network: UNet) -> None:
    """Weights that keep the variance from layer to layer (He et al. 2015): a short training needs no warm-up."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        network.out.weight.mul_(_FIRST_OUTPUT)
