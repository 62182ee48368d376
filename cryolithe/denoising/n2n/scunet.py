"""A small Swin-conv U-Net for volumes (after SCUNet, Zhang et al., Machine Intelligence Research 2023), torch only.

A block sends half of its maps through attention within windows, the other half through a residual convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import nn

from cryolithe.arrays.convolution import Convolution3d


@dataclass(frozen=True)
class ScunetConfig:
    """Sizes.

    Attributes:
        channels: maps of each scale, from the finest to the coarsest; multiples of ``2 * head``.
        blocks: of each scale on the way down and on the way up; every second one has shifted windows.
        window: edge of the windows of attention, voxels, even.
        head: maps of an attention head.
    """

    channels: tuple[int, ...] = (16, 32, 64)
    blocks: int = 2
    window: int = 4
    head: int = 8

    @property
    def multiple(self) -> int:
        """The network is equivariant to shifts by this many voxels."""
        return int(self.window * 2 ** (len(self.channels) - 1))

    @property
    def reach(self) -> int:
        """Voxels from an output to the farthest input that it depends on, at most."""
        reach = 2  # first and last convolution
        for scale in range(len(self.channels)):
            runs = 1 if scale == len(self.channels) - 1 else 2
            # A window of attention lets a voxel see to its far side, two convolutions of the other half less.
            reach += runs * self.blocks * self.window * 2**scale + 2**scale
        return reach

    @property
    def maps(self) -> int:
        """Maps of the input's size that are in memory at once when it is applied, about."""
        return 8 * self.channels[0]


class Scunet(nn.Module):
    """See the module."""

    def __init__(self, config: ScunetConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.head = Convolution3d(1, c[0], 3, padding=1)
        self.down = nn.ModuleList(_stage(config, n) for n in c[:-1])
        self.shrink = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2) for a, b in pairwise(c))
        self.bottom = _stage(config, c[-1])
        self.grow = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, stride=2) for a, b in pairwise(c))
        self.up = nn.ModuleList(_stage(config, n) for n in c[:-1])
        self.tail = Convolution3d(c[0], 1, 3, padding=1)
        with torch.no_grad():
            self.tail.weight.mul_(0.1)  # an untrained network answers near the mean

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Denoised values.

        Args:
            values: shape ``(n, 1, z, y, x)``, standardised.

        Returns:
            The same shape.
        """
        shape = values.shape[2:]
        maps = first = self.head(_padded(values, self.config.multiple))
        skips = []
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            maps = stage(maps)
            skips.append(maps)
            maps = shrink(maps)
        maps = self.bottom(maps)
        for stage, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            maps = stage(grow(maps) + skips.pop())
        out: torch.Tensor = self.tail(maps + first)
        return out[:, :, : shape[0], : shape[1], : shape[2]]


class _Block(nn.Module):
    """Attention and convolution side by side, with a residual around both."""

    def __init__(self, config: ScunetConfig, channels: int, shifted: bool) -> None:
        super().__init__()
        half = channels // 2
        self.before = nn.Conv3d(channels, channels, 1)
        self.attention = _Attention(config, half, shifted)
        self.convolution = nn.Sequential(
            Convolution3d(half, half, 3, padding=1, bias=False),
            nn.ReLU(),
            Convolution3d(half, half, 3, padding=1, bias=False),
        )
        self.after = nn.Conv3d(channels, channels, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        seen, convolved = self.before(maps).chunk(2, dim=1)
        convolved = convolved + self.convolution(convolved)
        out: torch.Tensor = maps + self.after(torch.cat([self.attention(seen), convolved], dim=1))
        return out


class _Attention(nn.Module):
    """Attention within cubic windows and a small perceptron, each with a residual (Swin transformer, Liu et al. 2021).

    Shifted windows start half a window before the volume, which is mirrored there: no masks, and memory that grows
    with the volume alone.
    """

    def __init__(self, config: ScunetConfig, channels: int, shifted: bool) -> None:
        super().__init__()
        w = config.window
        self.window, self.shift, self.heads = w, w // 2 if shifted else 0, max(1, channels // config.head)
        self.norm, self.norm_after = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.mix = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.perceptron = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        self.bias = nn.Parameter(torch.zeros(self.heads, (2 * w - 1) ** 3))
        place = torch.cartesian_prod(*[torch.arange(w)] * 3)
        apart = place[:, None] - place[None] + w - 1
        code = torch.tensor([(2 * w - 1) ** 2, 2 * w - 1, 1])
        self.register_buffer("apart", (apart * code).sum(dim=-1), persistent=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        n, channels, *shape = maps.shape
        shift, w = self.shift, self.window
        if shift:
            maps = F.pad(maps, (shift,) * 6, mode="reflect")
        counts = [size // w for size in maps.shape[2:]]
        z, y, x = counts
        tokens = maps.reshape(n, channels, z, w, y, w, x, w).permute(0, 2, 4, 6, 3, 5, 7, 1)
        tokens = tokens.reshape(n * z * y * x, w**3, channels)
        tokens = tokens + self._attend(self.norm(tokens))
        tokens = tokens + self.perceptron(self.norm_after(tokens))
        out = tokens.reshape(n, z, y, x, w, w, w, channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
        out = out.reshape(n, channels, z * w, y * w, x * w)
        if shift:
            out = out[:, :, shift : shift + shape[0], shift : shift + shape[1], shift : shift + shape[2]]
        return out

    def _attend(self, tokens: torch.Tensor) -> torch.Tensor:
        windows, length, channels = tokens.shape
        parts = self.qkv(tokens).reshape(windows, length, 3, self.heads, channels // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        bias = self.bias[:, self.apart].to(q.dtype)  # type: ignore[index]
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        mixed: torch.Tensor = self.mix(seen.transpose(1, 2).reshape(windows, length, channels))
        return mixed


def _stage(config: ScunetConfig, channels: int) -> nn.Sequential:
    return nn.Sequential(*(_Block(config, channels, shifted=bool(i % 2)) for i in range(config.blocks)))


def _padded(values: torch.Tensor, multiple: int) -> torch.Tensor:
    """Values mirrored at the far ends up to whole windows; repeated where there is too little to mirror."""
    missing = [-size % multiple for size in values.shape[2:]]
    if not any(missing):
        return values
    mode = "reflect" if all(m < size for m, size in zip(missing, values.shape[2:], strict=True)) else "replicate"
    return F.pad(values, [amount for m in reversed(missing) for amount in (0, m)], mode=mode)
