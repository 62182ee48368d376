"""Noise2Noise on one tilt series: a plain 3-D U-Net learns to predict one half tomogram from the other.

The method of cryoCARE (Buchholz et al., Methods Cell Biol. 152, 277, 2019) after Lehtinen et al. (ICML 2018), with a
network small enough for a CPU (Çiçek et al., MICCAI 2016, with two levels). It is trained anew on every series and
applied to both halves, whose predictions are averaged. It denoises; what no image measured it cannot know.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Volume = NDArray[np.float32]

LEVELS = 2
PEAK_LEARNING_RATE = 2e-3
LAST = 0.2  # share of the steps whose losses are averaged in the record


@dataclass(frozen=True)
class N2nSettings:
    """How long and how to train.

    Attributes:
        steps: optimiser steps, each on one patch from each half.
        minutes: at most this long; the learning rate falls to zero by then, whichever comes first.
        width: channels at full resolution.
        patch: edge of a patch in voxels, cut to the volume.
        seed: of weights and patches.
    """

    steps: int = 150
    minutes: float = 2.0
    width: int = 16
    patch: int = 48
    seed: int = 0


@dataclass(frozen=True)
class Denoised:
    """What Noise2Noise made of a series.

    Attributes:
        volume: mean of the predictions from both halves, shape ``(z, y, x)``.
        halves: both predictions; the network has seen both halves, so they are not independent.
        steps: made; fewer than asked for where the time was up.
        loss: mean squared error against the other half in units of its variance, over the last fifth of the steps.
    """

    volume: Volume
    halves: tuple[Volume, Volume]
    steps: int
    loss: float


class UNet(nn.Module):
    """U-Net with two convolutions a level, max pooling, and nearest-neighbour upsampling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS + 1)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([1, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(_block(widths[n] + widths[n + 1], widths[n]) for n in reversed(range(LEVELS)))
        self.last = nn.Conv3d(width, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape ``(batch, 1, z, y, x)``, each a multiple of 4, to the same shape."""
        kept: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.max_pool3d(x, 2))
            kept.append(x)
        for level, block in zip(reversed(range(LEVELS)), self.up, strict=True):
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2.0), kept[level]], 1))
        made: torch.Tensor = self.last(x)
        return made


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels_in, channels_out):
        layers += [nn.Conv3d(before, channels_out, 3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


def noise2noise(even: Volume, odd: Volume, settings: N2nSettings) -> Denoised:
    """Train on two halves of one series and denoise them.

    Args:
        even: FBP of one half of the data, shape ``(z, y, x)``.
        odd: of the other.
        settings: how to train; the same seed and steps give the same volume on one machine.
    """
    halves = torch.from_numpy(np.stack([even, odd])).float()
    scale = float(halves.std())
    halves = (halves - halves.mean()) / scale
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = UNet(settings.width).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    rng = np.random.default_rng([settings.seed, 77])
    steps, loss = _train(network, halves, settings, rng)
    made = [_apply(network, half) * np.float32(scale) for half in halves]
    return Denoised(0.5 * (made[0] + made[1]), (made[0], made[1]), steps, loss)


def _train(network: UNet, halves: torch.Tensor, settings: N2nSettings, rng: np.random.Generator) -> tuple[int, float]:
    multiple = 2**LEVELS
    size = [min(settings.patch, n) // multiple * multiple for n in halves.shape[1:]]
    optimiser = torch.optim.Adam(network.parameters(), PEAK_LEARNING_RATE)
    losses: list[float] = []
    start = time.perf_counter()
    while True:
        done = max(len(losses) / settings.steps, (time.perf_counter() - start) / (60 * settings.minutes))
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = 0.5 * PEAK_LEARNING_RATE * (1 + math.cos(math.pi * done))
        corner = [int(rng.integers(n - s + 1)) for n, s in zip(halves.shape[1:], size, strict=True)]
        z, y, x = (slice(c, c + s) for c, s in zip(corner, size, strict=True))
        patches = halves[:, z, y, x]
        # Mirror images about each axis are as likely: the tilt range is nearly symmetric.
        patches = patches.flip([axis for axis in (1, 2, 3) if rng.random() < 0.5])
        source, target = patches.flip(0) if rng.random() < 0.5 else patches
        error = nn.functional.mse_loss(network(source[None, None])[0, 0], target)
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        losses.append(float(error.detach()))
    last = losses[-max(1, round(LAST * len(losses))) :]
    return len(losses), float(np.mean(last)) if last else math.nan


@torch.no_grad()
def _apply(network: UNet, half: torch.Tensor) -> Volume:
    """The whole volume at once, its ends mirrored up to a multiple of the network's."""
    multiple = 2**LEVELS
    padding = [size for n in reversed(half.shape) for size in (0, -n % multiple)]
    wide = nn.functional.pad(half[None, None], padding, mode="reflect") if any(padding) else half[None, None]
    made: Volume = network(wide)[0, 0].numpy()
    return np.ascontiguousarray(made[tuple(slice(0, n) for n in half.shape)])
