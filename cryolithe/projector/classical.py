"""Filtered back-projection and SIRT for stacks of rows.

Volumes are scaled so that, from a full tilt range, their sum along the beam would give the images; a limited range
gives less, and images have their mean removed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from cryolithe.filters import filter_rows, padded_length, ramp_response
from cryolithe.projector import Projector


def fbp(projector: Projector, rows: torch.Tensor, window: str = "cosine") -> torch.Tensor:
    """Filtered back-projection (Kak & Slaney 1988, eq. 3.35): V(r) = Σ_θ Δθ q_θ(u_θ(r)).

    Δθ is each tilt's own share of the angular range, so irregular tilt schemes are weighted rightly.

    Args:
        projector: the geometry.
        rows: shape ``(tilts, rows, X)``, mean removed.
        window: ramp window, see `cryolithe.filters.WINDOWS`.

    Returns:
        shape ``(z, rows, x)``.
    """
    response = ramp_response(padded_length(rows.shape[-1]), window).to(rows)
    (filtered,) = filter_rows(rows, response)
    weights = torch.from_numpy(projector.geometry.angular_weights_rad()).to(filtered)
    return projector.adjoint(filtered * weights[:, None, None])


def sirt(
    projector: Projector,
    rows: torch.Tensor,
    iterations: int = 30,
    on_iteration: Callable[[], object] = lambda: None,
) -> torch.Tensor:
    """Simultaneous iterative reconstruction (Gregor & Benson 2008): x += C Aᵀ R (b - A x), started at zero.

    R and C are the reciprocals of the sums of A's rows and columns; zero where a ray misses the volume.

    Args:
        projector: the geometry.
        rows: shape ``(tilts, rows, X)``, mean removed.
        iterations: number of passes.
        on_iteration: called after each pass.

    Returns:
        shape ``(z, rows, x)``.
    """
    depth, width = projector.slice_shape
    line = torch.ones((depth, 1, width), dtype=rows.dtype, device=rows.device)
    ray_lengths = projector.forward(line)
    # A ray that grazes a corner of the volume says little and would be blown up: require a tenth of a voxel.
    ray_weight = torch.where(ray_lengths > 0.1, 1 / ray_lengths.clamp(min=0.1), torch.zeros_like(ray_lengths))
    hits = projector.adjoint(torch.ones_like(ray_lengths))
    voxel_weight = torch.where(hits > 0, 1 / hits.clamp(min=1e-6), torch.zeros_like(hits))
    volume = torch.zeros((depth, rows.shape[1], width), dtype=rows.dtype, device=ray_lengths.device)
    for _ in range(iterations):
        residual = rows.to(volume.device) - projector.forward(volume)
        volume += voxel_weight * projector.adjoint(residual * ray_weight)
        on_iteration()
    return volume
