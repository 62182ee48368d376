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
