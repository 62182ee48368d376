"""What a style network plays against: judges of patches and of their power spectra, both told the tilt."""

from __future__ import annotations

import math

import torch
from torch import nn

FLOOR = 1e-3  # of a power whose logarithm is taken, where white noise of unit variance has 1


class Judges(nn.Module):
    """Two patch judges; the higher a number, the more real.

    Args:
        filters: of the first layer.
    """

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.spatial, self.spectral = _judge(filters), _judge(filters)

    def forward(self, images: torch.Tensor, angle_deg: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Of images ``(batch, 1, size, size)`` of one tilt."""
        size = images.shape[-1]
        power = torch.fft.rfft2(images).abs() ** 2 / size**2
        spectrum = torch.fft.fftshift((power + FLOOR).log(), dim=-2)
        return tuple(
            judge(torch.cat([x, torch.full_like(x, math.cos(math.radians(angle_deg)))], 1))
            for judge, x in ((self.spatial, images), (self.spectral, spectrum))
        )


def _judge(filters: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 2
    for after in (filters, 2 * filters, 4 * filters):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 3, padding=1))
