"""The discrete projection of one slice across the tilt axis, as weights between voxels and detector pixels.

A voxel is a unit square of constant density; its shadow at tilt θ is the trapezoid box(|cos θ|) * box(|sin θ|) of
unit area, at most √2 px wide, and a detector pixel collects the part that falls into it. Weights of a voxel
therefore sum to 1 in every tilt, and projecting at 0° is the sum along z (to 3e-4, see
_MIN_EDGE_PX). Slices are independent of each other:
rows (y) are a batch axis.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry, centre_px

PIXELS_PER_VOXEL = 3  # a shadow at most √2 px wide touches at most three pixels

# Below this |sin θ| or |cos θ| the trapezoid is taken as a box this much softened: 0.06 degrees.
_MIN_EDGE_PX = 1e-3
# Places in a pixel whose weights are in the table for shifted columns.
STEPS = 1024


class Footprint(NamedTuple):
    """Where and how strongly voxels are seen.

    Attributes:
        pixel: detector column of each contribution, shape ``(tilts, *points, 3)``, int64, within the detector.
        weight: its weight, the same shape; 0 for columns outside the detector.
    """

    pixel: torch.Tensor
    weight: torch.Tensor


def footprint(geometry: TiltGeometry, z_px: torch.Tensor, x_px: torch.Tensor) -> Footprint:
    """Footprints of voxels at points.

    Args:
        geometry: tilt geometry.
        z_px: z relative to the volume's centre, shape ``(points,)``, float64.
        x_px: x relative to the volume's centre, shape ``(points,)``, float64.
    """
    theta = torch.from_numpy(geometry.angles_rad).to(z_px.device)[:, None]
    if geometry.shifts is not None:
        return _shifted(geometry, theta, z_px, x_px)
    u = x_px * theta.cos() + z_px * theta.sin() + geometry.centre[1]
    first, weight = _shadow(u, theta)
    pixel = first.long()[..., None] + torch.arange(PIXELS_PER_VOXEL, device=u.device)
    width = geometry.image_shape[1]
    inside = (pixel >= 0) & (pixel < width)
    return Footprint(pixel.clamp(0, width - 1), torch.where(inside, weight, torch.zeros_like(weight)))


def _shadow(u: torch.Tensor, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The first pixel that the shadow of a voxel at column ``u`` can touch, and the weights of it and the next ones."""
    cosine, sine = theta.cos(), theta.sin()
    a = cosine.abs().clamp(min=_MIN_EDGE_PX)
    b = sine.abs().clamp(min=_MIN_EDGE_PX)
    outer, inner = (a + b) / 2, (a - b) / 2
    first = torch.floor(u - outer + 0.5)
    edges = (first - u - 0.5)[..., None] + torch.arange(PIXELS_PER_VOXEL + 1, device=u.device)

    def ramp(shift: torch.Tensor) -> torch.Tensor:
        return (edges + shift[..., None]).clamp(min=0).square()

    cumulative = (ramp(outer) - ramp(inner) - ramp(-inner) + ramp(-outer)) / (2 * a * b)[..., None]
    return first, cumulative.diff(dim=-1)


def _shifted(geometry: TiltGeometry, theta: torch.Tensor, z_px: torch.Tensor, x_px: torch.Tensor) -> Footprint:
    """The same with what a local alignment adds to the columns: band after band of rows, so by a table of weights."""
    assert geometry.shifts is not None
    width, device = geometry.image_shape[1], z_px.device
    u = x_px * theta.cos() + z_px * theta.sin() + geometry.centre[1]
    u += geometry.shifts.of_points(z_px, x_px)
    # Voxels whose places in a pixel are the same have the same weights.
    place = (u - torch.from_numpy(first_shadow_px(geometry.angles_deg)).to(device)[:, None]).float()
    base = place.floor()
    row = ((place - base) * STEPS).long().clamp_(max=STEPS - 1)
    row += STEPS * torch.arange(len(theta), device=device)[:, None]
    table = weight_table(geometry.angles_deg).to(device)
    weight = table.index_select(0, row.flatten()).view(*row.shape, PIXELS_PER_VOXEL)
    pixel = base.long()[..., None] + torch.arange(PIXELS_PER_VOXEL, device=device)
    outside = (pixel < 0) | (pixel >= width)
    return Footprint(pixel.clamp_(0, width - 1), weight.masked_fill_(outside, 0.0))


@functools.lru_cache(maxsize=4)
def weight_table(angles_deg: tuple[float, ...]) -> torch.Tensor:
    """Weights of voxels by their place in a pixel, for one tilt after the other, shape ``(tilts * STEPS, 3)``."""
    theta = torch.from_numpy(np.deg2rad(np.array(angles_deg)))[:, None]
    steps = (torch.arange(STEPS, dtype=torch.float64) + 0.5) / STEPS
    _, table = _shadow(steps + torch.from_numpy(first_shadow_px(angles_deg))[:, None], theta)
    return table.float().flatten(0, 1)


def first_shadow_px(angles_deg: tuple[float, ...]) -> NDArray[np.float64]:
    """How far before a voxel's column the first pixel begins to be touched, for each tilt, shape ``(tilts,)``."""
    theta = np.deg2rad(np.array(angles_deg))
    edges = (np.maximum(np.abs(turn), _MIN_EDGE_PX) for turn in (np.cos(theta), np.sin(theta)))
    return np.asarray(sum(edges) / 2 - 0.5)


def slice_points(z: range, slice_shape: tuple[int, int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates ``(z_px, x_px)`` of the voxels of planes ``z`` of a slice, flattened with x fastest, float64."""
    depth, width = slice_shape
    z_px = torch.arange(z.start, z.stop, dtype=torch.float64, device=device) - centre_px(depth)
    x_px = torch.arange(width, dtype=torch.float64, device=device) - centre_px(width)
    return z_px.repeat_interleave(width), x_px.repeat(len(z))
