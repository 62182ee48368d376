"""Filtered back-projection and SIRT for stacks of rows.

Volumes are scaled so that, from a full tilt range, their sum along the beam would give the images; a limited range
gives less, and images have their mean removed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.filters import filter_rows, padded_length, ramp_response
from cryolithe.geometry import TiltGeometry
from cryolithe.projector import Projector, make_projector

WINDOW = "cosine"  # of the ramp filter, unless told


def fbp(projector: Projector, rows: torch.Tensor, window: str = WINDOW) -> torch.Tensor:
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


def fbp_of_images(images: NDArray[np.float32], angles_deg: tuple[float, ...], depth: int) -> NDArray[np.float32]:
    """Filtered back-projection of a small series, softly filtered (Hamming): to look at, or to compare halves.

    Args:
        images: shape ``(tilts, y, x)``, tilted about the middle of x; each one's mean is removed.
        angles_deg: one for each image.
        depth: voxels along z.

    Returns:
        shape ``(z, y, x)``, the y and x of the images.
    """
    _, height, width = images.shape
    projector = make_projector(TiltGeometry(angles_deg, (height, width)), (depth, width))
    flat = images - images.mean(axis=(1, 2), keepdims=True)
    volume: NDArray[np.float32] = fbp(projector, torch.from_numpy(flat), "hamming").numpy()
    return volume


def sirt_margin_px(depth: int) -> int:
    """Voxels to add at either end of x before SIRT, and to cut afterwards: a quarter of the depth, rounded up.

    Tilted images see more than the volume below them. Without a margin SIRT puts all that lies outside of it into the
    few voxels that rays graze at its ends (more than 1 dB lost on small fields; twice the margin gains no more).

    Args:
        depth: voxels along z.
    """
    return -(-depth // 4)


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
    rows = rows.to(projector.device)  # once, not for every pass
    line = torch.ones((depth, 1, width), dtype=rows.dtype, device=rows.device)
    ray_lengths = projector.forward(line)
    # A ray that grazes a corner of the volume says little and would be blown up: require a tenth of a voxel.
    ray_weight = torch.where(ray_lengths > 0.1, 1 / ray_lengths.clamp(min=0.1), torch.zeros_like(ray_lengths))
    hits = projector.adjoint(torch.ones_like(ray_lengths))
    voxel_weight = torch.where(hits > 0, 1 / hits.clamp(min=1e-6), torch.zeros_like(hits))
    volume = torch.zeros((depth, rows.shape[1], width), dtype=rows.dtype, device=rows.device)
    for _ in range(iterations):
        residual = rows - projector.forward(volume)
        volume += voxel_weight * projector.adjoint(residual * ray_weight)
        on_iteration()
    return volume
