"""Moving images by flow fields: forward by softmax splatting, backward by sampling; correlation of features.

Flows have the shape ``(n, 2, y, x)`` and hold displacements in pixels, x first. All of it is float32, whatever the
precision around it: coordinates of lower precision move images by fractions of a pixel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)

from cryolithe.denoising.samba.splat_numba import TINY, Splat, available

# Importances further below the largest one of an image weigh nothing; keeps exp() within float32.
_LEAST_IMPORTANCE = 20.0


def pixel_grid(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Coordinates of pixels, shape ``(2, y, x)``, x first."""
    y = torch.arange(height, device=like.device, dtype=like.dtype)
    x = torch.arange(width, device=like.device, dtype=like.dtype)
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1])


def softmax_splat(values: torch.Tensor, flow: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    """Send each pixel along its flow; where several arrive, average them weighted by ``exp(importance)``.

    ``out(p) = Σ_q b(p - q - f(q)) e^{z(q)} v(q) / Σ_q b(p - q - f(q)) e^{z(q)}`` with b the bilinear kernel (Niklaus
    and Liu, CVPR 2020, equation 4). Differentiable in all arguments. What leaves the image is lost.

    Args:
        values: shape ``(n, c, y, x)``.
        flow: shape ``(n, 2, y, x)``, pixels.
        importance: z, shape ``(n, 1, y, x)``; equal importance by default.

    Returns:
        Shape and dtype of ``values``; 0 where nothing arrives.
    """
    n, _, height, width = values.shape
    kind = torch.float64 if values.dtype == torch.float64 else torch.float32
    moving = values.to(kind)
    if importance is None:
        weight = moving.new_ones(n, 1, height, width)
    else:
        z = importance.to(kind)
        top = z.detach().amax(dim=(1, 2, 3), keepdim=True)
        weight = (z - top).clamp(min=-_LEAST_IMPORTANCE).exp()
    if values.device.type == "cpu" and available():
        splatted: torch.Tensor = Splat.apply(moving, flow.to(kind), weight)
        return splatted.to(values.dtype)
    return _splat(moving, flow.to(kind), weight).to(values.dtype)


def _splat(moving: torch.Tensor, flow: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted splatting by torch's own operations, for any device."""
    n, channels, height, width = moving.shape
    target = (pixel_grid(height, width, moving) + flow).flatten(2)  # (n, 2, q)
    # What is sent nowhere leaves the image; as an index NaN would be any number.
    somewhere = target.isfinite().all(dim=1, keepdim=True)
    target = torch.where(somewhere, target, torch.full_like(target, -2.0))
    corner = target.detach().floor()
    share = target - corner
    carried = torch.cat([moving * weight, weight], dim=1).flatten(2)  # (n, c + 1, q)
    total = carried.new_zeros(n, channels + 1, height * width)
    for step_y in (0, 1):
        for step_x in (0, 1):
            x, y = corner[:, 0] + step_x, corner[:, 1] + step_y
            part_x = share[:, 0] if step_x else 1 - share[:, 0]
            part_y = share[:, 1] if step_y else 1 - share[:, 1]
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            part = torch.where(inside, part_x * part_y, 0.0)[:, None]
            index = pixel_index(x, y, (height, width))[:, None]
            total = total.scatter_add(2, index.expand(-1, channels + 1, -1), carried * part)
    averaged = total[:, :-1] / total[:, -1:].clamp(min=TINY)
    return averaged.view(n, channels, height, width)


def pixel_index(x: torch.Tensor, y: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Numbers of pixels ``y * width + x``, the nearest pixel's for places outside.

    Args:
        x: whole numbers as floating point.
        y: the same.
        shape: pixels (y, x) of the image.

    Returns:
        int64: float32 cannot count the pixels of an image beyond 2^24.
    """
    height, width = shape
    return y.clamp(0, height - 1).long() * width + x.clamp(0, width - 1).long()


def backward_warp(values: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Fetch each pixel from where its flow points to: ``out(p) = v(p + f(p))``, bilinear, edges repeated.

    A flow that is NaN fetches NaN (`grid_sample` would read anywhere in memory).

    Args:
        values: shape ``(n, c, y, x)``.
        flow: shape ``(n, 2, y, x)``, pixels.
    """
    height, width = values.shape[2:]
    kind = torch.float64 if values.dtype == torch.float64 else torch.float32
    size = torch.tensor([width, height], device=values.device, dtype=kind).view(1, 2, 1, 1)
    source = pixel_grid(height, width, values.to(kind)) + flow.to(kind)
    normalised = (2 * source + 1) / size - 1  # pixel centres lie inside the borders at -1 and 1
    nowhere = normalised.isnan().any(dim=1, keepdim=True)
    normalised = normalised.where(~nowhere, 0.0)
    sampled = F.grid_sample(
        values.to(kind), normalised.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled.where(~nowhere, torch.nan).to(values.dtype)


def correlation(a: torch.Tensor, b: torch.Tensor, radius: int) -> torch.Tensor:
    """Mean over channels of ``a(p) b(p + d)`` for all displacements d up to ``radius`` along y and x.

    Args:
        a: features, shape ``(n, c, y, x)``.
        b: the same shape; its edges are repeated.
        radius: pixels.

    Returns:
        Shape ``(n, (2 radius + 1)², y, x)``, displacements in the order of y, then x.
    """
    height, width = a.shape[2:]
    padded = F.pad(b, (radius,) * 4, mode="replicate")
    shifts = range(2 * radius + 1)
    return torch.stack(
        [(a * padded[:, :, y : y + height, x : x + width]).mean(dim=1) for y in shifts for x in shifts], dim=1
    )


def resize_flow(flow: torch.Tensor, factor: float) -> torch.Tensor:
    """Resample a flow to ``factor`` times the size; its displacements grow alike."""
    return F.interpolate(flow, scale_factor=factor, mode="bilinear", align_corners=False) * factor
