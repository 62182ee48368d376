"""U-Net for images: the layout of `cryolithe.denoise.n2n.unet` in two dimensions, each plane of a stack by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import nn

from cryolithe.denoise.n2n.unet import SLOPE


@dataclass(frozen=True)
class PlanarConfig:
    """Sizes; the defaults have 50 000 weights.

    Attributes:
        filters: maps of each level.
        levels: halvings.
        first_kernel: edge of the first convolution, odd.
        last: maps of the two convolutions before the output.
    """

    filters: int = 16
    levels: int = 4
    first_kernel: int = 5
    last: tuple[int, int] = (16, 8)

    @property
    def multiple(self) -> int:
        """The network is equivariant to shifts by this many pixels."""
        return int(2**self.levels)

    @property
    def reach(self) -> int:
        """Pixels from an output to the farthest input that it depends on, at most."""
        reach = self.first_kernel // 2 + 3
        for level in range(1, self.levels + 1):
            reach += (1 if level == self.levels else 3) * 2**level + 2 ** (level - 1)
        return reach

    @property
    def maps(self) -> int:
        """Maps of the input's size that are in memory at once, at most."""
        return 2 * self.filters + 1 + self.last[0]


class Planar(nn.Module):
    """See the module."""

    def __init__(self, config: PlanarConfig) -> None:
        super().__init__()
        self.config = config
        f = config.filters
        self.down = nn.ModuleList(
            _convolution(1 if level == 0 else f, f, config.first_kernel if level == 0 else 3)
            for level in range(config.levels)
        )
        self.bottom = _convolution(f, f)
        self.up = nn.ModuleList()
        width = f
        for _ in range(config.levels - 1):
            self.up.append(nn.ModuleList([_convolution(width + f, 2 * f), _convolution(2 * f, 2 * f)]))
            width = 2 * f
        first, second = config.last
        self.end = nn.ModuleList([_convolution(width + 1, first), _convolution(first, second)])
        self.out = nn.Conv2d(second, 1, 3, padding=1)
        _initialise(self)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Denoised images.

        Args:
            values: shape ``(n, 1, planes, y, x)``, each plane standardised.

        Returns:
            The same shape.
        """
        n, _, planes, height, width = values.shape
        maps = values.reshape(n * planes, 1, height, width).contiguous(memory_format=torch.channels_last)
        skips = [maps]
        for convolution in self.down:
            maps = F.max_pool2d(F.leaky_relu(convolution(maps), SLOPE), 2, ceil_mode=True)
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
        return out.reshape(n, 1, planes, height, width)


def _convolution(given: int, made: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(given, made, kernel, padding=kernel // 2)


def _grown(maps: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """Maps in the size of a skip, and the skip."""
    return torch.cat([F.interpolate(maps, size=skip.shape[2:], mode="nearest"), skip], dim=1)


def _initialise(network: Planar) -> None:
    """As `UNet`: the variance is kept from layer to layer, the output begins near the mean."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        network.out.weight.mul_(0.1)
