"""U-Net for images: the layout of `cryolithe.denoising.n2n.unet` in two dimensions, each plane of a stack by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cryolithe.denoising.n2n.unet import UNet, UNetSizes


@dataclass(frozen=True)
class PlanarConfig(UNetSizes):
    """Sizes; the defaults have 80 000 weights."""

    filters: int = 16
    levels: int = 4
    first_kernel: int = 5
    last: tuple[int, int] = (16, 8)


class Planar(UNet):
    """See the module."""

    dimensions = 2

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Denoised images.

        Args:
            values: shape ``(n, 1, planes, y, x)``, each plane standardised.

        Returns:
            The same shape.
        """
        n, _, planes, height, width = values.shape
        maps = values.reshape(n * planes, 1, height, width).contiguous(memory_format=torch.channels_last)
        return super().forward(maps).reshape(n, 1, planes, height, width)
