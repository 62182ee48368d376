"""The pooling as a Triton kernel: one program for a row, some points and some channels, with the sum in registers."""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl

POINTS_PER_PROGRAM = 16


@triton.jit
def _kernel(  # type: ignore[no-untyped-def]
    lifted,
    start,
    fraction,
    scale,
    pooled,
    points,
    tilts,
    columns,
    channels,
    POINTS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    row = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    there = point < points
    inside = there[:, None] & (channel < channels)[None, :]
    total = tl.zeros((POINTS, CHANNELS), dtype=tl.float32)
    for tilt in range(tilts):
        column = tl.load(start + tilt * points + point, mask=there, other=0).to(tl.int64)
        weight = tl.load(fraction + tilt * points + point, mask=there, other=0.0)[:, None]
        place = lifted + ((row * tilts + tilt) * columns + column)[:, None] * channels + channel[None, :]
        left = tl.load(place, mask=inside, other=0.0).to(tl.float32)
        right = tl.load(place + channels, mask=inside, other=0.0).to(tl.float32)
        value = left + weight * (right - left)
        # Not a maximum, which may lose NaN: that is how a value beyond float16 shows in the result.
        total += tl.where(value < 0.0, 0.0, value)
    total *= tl.load(scale + point, mask=there, other=0.0).to(tl.float32)[:, None]
    out = pooled + (row * points + point.to(tl.int64))[:, None] * channels + channel[None, :]
    tl.store(out, total.to(pooled.dtype.element_ty), mask=inside)


def pool_triton(lifted: torch.Tensor, start: torch.Tensor, fraction: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """`cryolithe.inference.pooling.pool_torch` on a GPU; the result has the precision of ``lifted``."""
    rows, tilts, columns, channels = lifted.shape
    points = start.shape[1]
    pooled = torch.empty((rows, points, channels), dtype=lifted.dtype, device=lifted.device)
    block = min(128, triton.next_power_of_2(channels))
    grid = (triton.cdiv(points, POINTS_PER_PROGRAM), rows, triton.cdiv(channels, block))
    # Triton launches on the current device, which need not be the one that holds the data.
    with torch.cuda.device(lifted.device) if lifted.is_cuda else contextlib.nullcontext():
        _kernel[grid](
            lifted.contiguous(), start, fraction, scale, pooled, points, tilts, columns, channels,
            POINTS=POINTS_PER_PROGRAM, CHANNELS=block,
        )  # fmt: skip
    return pooled
