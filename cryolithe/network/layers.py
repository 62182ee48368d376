"""Pieces shared by the networks. No layer has a bias: the maps are 1-homogeneous, so input scale does not matter."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


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
