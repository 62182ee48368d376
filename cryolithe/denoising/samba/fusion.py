"""The fusion network: two planes, splatted to the middle, merged into one ("high synthesis": at twice the size)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import nn

from cryolithe.denoising.samba.flow import conv3
from cryolithe.denoising.samba.warp import resize_flow, softmax_splat

SIDE = 5  # of the learned down-sampling's window, in pixels of twice the size
# Where a plane's pixel lies in that window: between two of the finer pixels; and how sharply it starts.
_CENTRE_PX, _START_SIGMA_PX = 2.5, 0.4


@dataclass(frozen=True)
class FusionConfig:
    """Sizes of the fusion network; the defaults are the published ones.

    Attributes:
        context: channels of the context pyramid, finest first; each level halves.
        unet: channels of the U-Net's encoder; each level halves.
        decoded: channels of its last layer.
    """

    context: tuple[int, ...] = (16, 32, 64, 128)
    unet: tuple[int, ...] = (32, 64, 128, 256)
    decoded: int = 16


def _double(inputs: int, outputs: int) -> nn.Sequential:
    """Halve the size, then look again."""
    return nn.Sequential(conv3(inputs, outputs, 2), nn.PReLU(outputs), conv3(outputs, outputs), nn.PReLU(outputs))


class FusionNet(nn.Module):
    """The plane half-way between two planes, given the flows between them."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.context = nn.ModuleList(_double(a, b) for a, b in itertools.pairwise((1, *config.context)))
        # Below the first level the encoder also takes both planes' contexts of the level above.
        inputs = [8, *(u + 2 * c for u, c in zip(config.unet, config.context, strict=True))]
        self.down = nn.ModuleList(_double(a, b) for a, b in zip(inputs[:-1], config.unet, strict=True))
        outputs = [*config.unet[-2::-1], config.decoded]
        widths = [inputs[-1], *(up + left for up, left in zip(outputs, config.unet[-2::-1], strict=False))]
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(a, b, 2, 2), nn.PReLU(b)) for a, b in zip(widths, outputs, strict=True)
        )
        self.merge = conv3(config.decoded, 2)
        self.shrink = nn.Sequential(conv3(config.decoded, 32, 2), nn.PReLU(32), nn.Conv2d(32, SIDE * SIDE, 1))
        self._start_as_mean()

    @torch.no_grad()
    def _start_as_mean(self) -> None:
        """Start as the plain mean of both planes: an untrained network already does something sensible."""
        last = self.shrink[-1]
        assert isinstance(last, nn.Conv2d)
        offsets = torch.arange(SIDE) - _CENTRE_PX
        steepness = -0.5 * (offsets / _START_SIGMA_PX) ** 2
        for layer in (self.merge, last):
            layer.weight.zero_()
            assert layer.bias is not None
            layer.bias.zero_()
        assert last.bias is not None
        last.bias.copy_((steepness[:, None] + steepness).flatten())

    def forward(self, first: torch.Tensor, second: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
        """The plane between.

        Args:
            first: planes, shape ``(n, 1, y, x)``, y and x multiples of 8.
            second: planes of the same shape.
            flow: shape ``(n, 4, y, x)``, pixels, from `FlowNet`.

        Returns:
            Shape ``(n, 1, y, x)``.
        """
        n = first.shape[0]
        images = F.interpolate(torch.cat([first, second]), scale_factor=2, mode="bilinear", align_corners=False)
        flows = resize_flow(flow, 2)
        half = 0.5 * torch.cat([flows[:, :2], flows[:, 2:]])  # linear motion: half of the way
        warped = softmax_splat(images, half)
        contexts = self._contexts(images, half)
        x = torch.cat([warped[:n], warped[n:], images[:n], images[n:], flows], dim=1)
        kept = []
        for down, context in zip(self.down, contexts, strict=True):
            x = down(x)
            kept.append(x)
            x = torch.cat([x, context[:n], context[n:]], dim=1)
        kept.pop()
        for up in self.up:
            x = up(x)
            if kept:
                x = torch.cat([x, kept.pop()], dim=1)
        mask, residual = self.merge(x).sigmoid().chunk(2, dim=1)
        merged = mask * warped[:n] + (1 - mask) * warped[n:] + (2 * residual - 1)
        return convex_shrink(merged, self.shrink(x))

    def _contexts(self, images: torch.Tensor, half: torch.Tensor) -> list[torch.Tensor]:
        """Features of both planes at every level, splatted to the middle."""
        contexts = []
        for layer in self.context:
            images, half = layer(images), resize_flow(half, 0.5)
            contexts.append(softmax_splat(images, half))
        return contexts


def convex_shrink(images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Half the size, each pixel a convex combination of the ``5 x 5`` finer ones around it.

    Args:
        images: shape ``(n, 1, 2 y, 2 x)``; padded by reflection.
        logits: of the combination's weights, shape ``(n, 25, y, x)``.

    Returns:
        Shape ``(n, 1, y, x)``, float32.
    """
    n, _, height, width = logits.shape
    border = SIDE // 2
    around = F.unfold(F.pad(images.float(), (border,) * 4, mode="reflect"), SIDE, stride=2)
    return (around.view(n, SIDE * SIDE, height, width) * logits.float().softmax(dim=1)).sum(dim=1, keepdim=True)
