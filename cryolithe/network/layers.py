"""Pieces shared by the networks. No layer has a bias: the maps are 1-homogeneous, so input scale does not matter."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

# Of the usual step: from here on a tilt counts as one of its own.
_CLOSE = 0.8


class Mlp(nn.Module):
    """Bias-free perceptron: ``(..., inputs)`` -> ``(..., outputs)``.

    Attributes:
        layers: hidden linear maps, each followed by ReLU; with ``skip`` those after the first add their input.
        last: the final linear map.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int, skip: bool) -> None:
        super().__init__()
        widths = [inputs] + [hidden] * layers
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        self.last = nn.Linear(widths[-1], outputs, bias=False)
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply to the last axis."""
        for number, layer in enumerate(self.layers):
            y = torch.relu(layer(x))
            x = x + y if self.skip and number else y
        return self.last(x)


def angle_shares(angles_rad: torch.Tensor) -> torch.Tensor:
    """The range of angles that each tilt stands for (half-way to its neighbours), over the mean range.

    Args:
        angles_rad: in any order, shape ``(tilts,)``.

    Returns:
        shape ``(tilts,)``, mean 1; between 1/4 and 4, so that a gap does not make one noisy image count for many.
    """
    if len(angles_rad) < 2:
        return torch.ones_like(angles_rad)
    ordered, order = angles_rad.sort()
    gaps = ordered.diff()
    ranges = torch.empty_like(ordered)
    ranges[order] = (torch.cat([gaps[:1], gaps]) + torch.cat([gaps, gaps[-1:]])) / 2
    shares = (ranges / ranges.mean().clamp_min(1e-6)).clamp(0.25, 4.0)
    return shares / shares.mean()


def crowd_shares(angles_rad: torch.Tensor) -> torch.Tensor:
    """Weights of tilts in a mean: those that lie closer together than is usual in their series share one's weight.

    A mean that counts a retaken tilt twice, or the sixteen of a fine sweep sixteen times, sees from that side what no
    series of even steps shows: networks trained on such lose more there than the images add.

    Usual is the step that half of the covered range is seen at so coarsely or coarser. A tilt stands among as many as a
    triangle over it counts, which is 0 from 0.8 of that step on: tilts of even steps keep the weight of one to the last
    bit, and so do those beside gaps, unless gaps take half of the range.

    Args:
        angles_rad: in any order, shape ``(tilts,)``.

    Returns:
        shape ``(tilts,)``, mean 1.
    """
    steps = angles_rad.sort().values.diff().sort().values
    usual = steps[steps.cumsum(0) >= steps.sum() / 2][:1]
    if usual.numel() == 0 or not usual > 0:  # fewer than two angles that differ
        return torch.ones_like(angles_rad)
    apart = (angles_rad[:, None] - angles_rad).abs() / (_CLOSE * usual)
    shares = 1 / (1 - apart).clamp_min(0).sum(1)
    return shares / shares.mean()


def mean_over_tilts(features: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Average over the tilts in which a point is seen.

    Unseen points need no mask: their windows are zero, and without biases so are their features.

    Args:
        features: shape ``(tilts, points, rows, C)``.
        visible: boolean, shape ``(tilts, points)``.

    Returns:
        shape ``(points, rows, C)``; zero for points that no tilt sees.
    """
    count = visible.sum(0).clamp(min=1)
    return features.sum(0) / count[:, None, None].to(features.dtype)
