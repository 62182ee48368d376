"""From a clean image to one in the style of a laboratory: x = u + h * w + R(u, z, tilt), all odd in its noise (w, z).

u is the clean image times the contrast. w is white noise, h the filter that gives it the spectrum that is missing at
the tilt (`cryolithe.style.measure`). R learns what stationary normal noise is not: ``(N(u, z) - N(u, -z)) / 2`` with a
small U-Net N that gets noise channels at scales 1, 2, 4, 8 and the tilt through FiLM (Perez et al. 2018), its last
layer zero at the start. As w and z are drawn as often as -w and -z, the mean of x over draws is u, exactly: what is
simulated stays what it is, whatever is learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate, leaky_relu, pad

from cryolithe.style.measure import Curves

SCALES = (1, 2, 4, 8)
LEVELS = 3
_EMBEDDING = 16
_STRIDE = 8


@dataclass(frozen=True)
class Noise:
    """One draw.

    Attributes:
        white: shape ``(batch, 1, y, x)``.
        channels: white noise at each scale, shape ``(batch, 4, y, x)``.
    """

    white: torch.Tensor
    channels: torch.Tensor

    @property
    def mirrored(self) -> Noise:
        """As likely as this one."""
        return Noise(-self.white, -self.channels)


def draw_noise(batch: int, shape: tuple[int, int], draw: torch.Generator) -> Noise:
    """Draw noise for images of a shape, of unit variance at every scale."""
    channels = []
    for scale in SCALES:
        size = (-(-shape[0] // scale), -(-shape[1] // scale))
        coarse = torch.randn(batch, 1, *size, generator=draw)
        channels.append(interpolate(coarse, scale_factor=float(scale))[..., : shape[0], : shape[1]])
    return Noise(torch.randn(batch, 1, *shape, generator=draw), torch.cat(channels, 1))


class _Block(nn.Module):
    """Two convolutions, each scaled and shifted by the tilt."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(n, after, 3, padding=1, padding_mode="reflect") for n in (before, after))
        self.film = nn.Linear(_EMBEDDING, 4 * after)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: torch.Tensor, tilt: torch.Tensor) -> torch.Tensor:
        a, b, c, d = self.film(tilt)[..., None, None].chunk(4, 1)
        x = leaky_relu(self.first(x) * (1 + a) + b, 0.2)
        made: torch.Tensor = leaky_relu(self.second(x) * (1 + c) + d, 0.2)
        return made


class _UNet(nn.Module):
    """N: from the image and its noise to one channel."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(LEVELS)]
        inputs = [2 + len(SCALES), *widths[:-1]]
        self.down = nn.ModuleList(_Block(a, b) for a, b in zip(inputs, widths, strict=True))
        self.up = nn.ModuleList(_Block(widths[n] + widths[n + 1], widths[n]) for n in reversed(range(LEVELS - 1)))
        self.last = nn.Conv2d(filters, 1, 1, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor, tilt: torch.Tensor) -> torch.Tensor:
        kept: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.avg_pool2d(x, 2), tilt)
            kept.append(x)
        for block, beside in zip(self.up, reversed(kept[:-1]), strict=True):
            x = block(torch.cat([interpolate(x, scale_factor=2.0), beside], 1), tilt)
        made: torch.Tensor = self.last(x)
        return made


class Styler(nn.Module):
    """Clean images to styled ones, both in units in which the laboratory's images have a mean variance of 1.

    Args:
        filters: of the U-Net at full resolution.
        curves: shape of the table ``(tilts, rings)`` of the missing noise.
    """

    angles_deg: torch.Tensor
    gains: torch.Tensor

    def __init__(self, filters: int, curves: tuple[int, int]) -> None:
        super().__init__()
        self.filters = filters
        self.register_buffer("angles_deg", torch.linspace(-60, 60, curves[0]))
        self.register_buffer("gains", torch.ones(curves))
        self.embedding = nn.Sequential(nn.Linear(2, _EMBEDDING), nn.LeakyReLU(0.2))
        self.network = _UNet(filters)

    def measured(self, curves: Curves) -> Styler:
        """Itself, with what was measured put in."""
        self.angles_deg.copy_(torch.from_numpy(curves.angles_deg.astype(np.float32)))
        self.gains.copy_(torch.from_numpy(np.sqrt(curves.noise).astype(np.float32)))
        return self

    def forward(self, clean: torch.Tensor, angle_deg: float, noise: Noise) -> torch.Tensor:
        """Styled images; a tilt beyond those that were learned from is styled as the last one.

        Args:
            clean: shape ``(batch, 1, y, x)``.
            angle_deg: of all of them.
            noise: drawn for them.
        """
        return clean + self.stationary(noise.white, angle_deg) + self.residual(clean, angle_deg, noise)

    def stationary(self, white: torch.Tensor, angle_deg: float) -> torch.Tensor:
        """Noise with the spectrum that is missing at a tilt."""
        shape = (white.shape[-2], white.shape[-1])
        curve = self._at(angle_deg)
        radius = torch.hypot(torch.fft.fftfreq(shape[0])[:, None], torch.fft.rfftfreq(shape[1])[None])
        place = (radius * 2 * len(curve) - 1).clamp(0, len(curve) - 1)
        low = place.long().clamp(max=len(curve) - 2)
        gain = torch.lerp(curve[low], curve[low + 1], place - low)
        return torch.fft.irfft2(torch.fft.rfft2(white) * gain, s=shape)

    def residual(self, clean: torch.Tensor, angle_deg: float, noise: Noise) -> torch.Tensor:
        """R, odd in the noise."""
        tilt = math.radians(min(max(angle_deg, float(self.angles_deg[0])), float(self.angles_deg[-1])))
        said = self.embedding(clean.new_tensor([[math.cos(tilt), math.sin(tilt)]])).expand(len(clean), -1)
        size = clean.shape[-2:]
        pads = (0, -size[1] % _STRIDE, 0, -size[0] % _STRIDE)
        coloured = torch.cat([noise.channels, self.stationary(noise.white, angle_deg)], 1)
        grown = [pad(x, pads, mode="reflect") if any(pads) else x for x in (clean, coloured)]
        plus, minus = (self.network(torch.cat([grown[0], sign * grown[1]], 1), said) for sign in (1, -1))
        made: torch.Tensor = 0.5 * (plus - minus)
        return made[..., : size[0], : size[1]]

    def _at(self, angle_deg: float) -> torch.Tensor:
        spacing = float(self.angles_deg[1] - self.angles_deg[0])
        place = (angle_deg - float(self.angles_deg[0])) / spacing
        place = min(max(place, 0.0), len(self.angles_deg) - 1.0)
        low = min(int(place), len(self.angles_deg) - 2)
        return torch.lerp(self.gains[low], self.gains[low + 1], place - low)
