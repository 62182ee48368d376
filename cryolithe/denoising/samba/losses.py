"""The loss of the published program: Charbonnier, and a census that does not mind brightness."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)

ALPHA, EPSILON = 0.5, 1e-3
CENSUS_WEIGHT, CENSUS_SIDE = 0.1, 7
# Meister et al. count grey levels from 0 to 255, ours span -1 ... 1: their constants 0.81 and 0.1.
_LEVELS_PER_UNIT = 127.5
_SOFT_SQUARE, _SOFT_DISTANCE = 0.81, 0.1


def charbonnier(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean of ``((a - b)² + ε²)^α``: nearly the absolute difference."""
    return ((found.float() - wanted.float()).square() + EPSILON**2).pow(ALPHA).mean()


def census(images: torch.Tensor) -> torch.Tensor:
    """Soft signs of the differences between each pixel and those around it (Meister, Hur and Roth, AAAI 2018).

    Args:
        images: shape ``(n, 1, y, x)``; no values beyond the border are needed, the border is left out.

    Returns:
        Shape ``(n, 49, (y - 6) (x - 6))``, between -1 and 1.
    """
    border = CENSUS_SIDE // 2
    around = F.unfold(images.float() * _LEVELS_PER_UNIT, CENSUS_SIDE)
    centre = images.float()[:, :, border:-border, border:-border].flatten(2) * _LEVELS_PER_UNIT
    difference = around - centre
    return difference / (_SOFT_SQUARE + difference.square()).sqrt()


def census_loss(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Soft Hamming distance between the censuses of two images, mean over pixels and neighbours."""
    square = (census(found) - census(wanted)).square()
    return (square / (_SOFT_DISTANCE + square)).mean()


def interpolation_loss(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The training loss: Charbonnier plus a tenth of the census."""
    return charbonnier(found, wanted) + CENSUS_WEIGHT * census_loss(found, wanted)
