"""Lifted rows -> means over tilts, and back: what a training step on a CPU does instead of multiplying windows.

    pooled[p] = scale[p] Σ_t ReLU( (1 - f) lifted[t, s] + f lifted[t, s + 1] )      s = start[t, p], f = fraction[t, p]

as in `cryolithe.inference.pooling`, with its gradient. Neither direction writes anything of size points x tilts x
channels: the way back computes the sign of each sum anew. A row is worked on by one core, so that sums have one order:
the result does not depend on the number of threads.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.inference.pooling import compile_loop

# Of `start`, where a tilt does not see a point.
UNSEEN = -1


@functools.cache
def available() -> bool:
    """Whether the loops can be compiled."""
    return importlib.util.find_spec("numba") is not None


class PoolLifted(torch.autograd.Function):
    """Means over tilts of interpolated lifted rows; the gradient is that by the lifted rows.

    Takes, on the CPU, ``lifted`` of shape ``(tilts, rows, columns, channels)``, float32 or float64, ``start`` and
    ``fraction`` of shape ``(tilts, points)``, int32 and float32, ``start`` being `UNSEEN` where a point is not seen,
    and ``scale`` of shape ``(points,)``. Returns shape ``(rows, points, channels)``, in the precision of ``lifted``.
    """

    @staticmethod
    def forward(
        ctx: Any, lifted: torch.Tensor, start: torch.Tensor, fraction: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """The means."""
        lifted = lifted.contiguous()
        pooled = lifted.new_zeros((lifted.shape[1], start.shape[1], lifted.shape[3]))
        _each_row("forward", lifted, start, fraction, scale, pooled)
        ctx.save_for_backward(lifted, start, fraction, scale)
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Gradient by the lifted rows."""
        lifted, start, fraction, scale = ctx.saved_tensors
        by_lifted = torch.zeros_like(lifted)
        _each_row("backward", lifted, start, fraction, scale, gradients[0].contiguous(), by_lifted)
        return by_lifted, None, None, None


def _each_row(name: str, *tensors: torch.Tensor) -> None:
    """Call a loop for all rows, in as many parts as torch uses cores."""
    arrays = [tensor.detach().numpy() for tensor in tensors]
    loop, rows, threads = _compiled(name), tensors[0].shape[1], torch.get_num_threads()
    if threads == 1 or rows == 1:
        loop(*arrays, (0, rows))
        return
    bounds = np.linspace(0, rows, min(rows, threads) + 1).astype(int).tolist()
    list(_threads(threads).map(lambda span: loop(*arrays, span), pairwise(bounds)))


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "cryolithe-pool")


@functools.cache
def _compiled(name: str) -> Callable[..., None]:
    loops: dict[str, Callable[..., None]] = {"forward": _forward, "backward": _backward}
    return compile_loop(loops[name])


def _forward(
    lifted: NDArray[Any],
    start: NDArray[Any],
    fraction: NDArray[Any],
    scale: NDArray[Any],
    pooled: NDArray[Any],
    span: tuple[int, int],
) -> None:
    """Fill the rows of a span of ``pooled``, which are zero before."""
    tilts, _, _, channels = lifted.shape
    points = start.shape[1]
    zero = np.zeros(1, pooled.dtype)[0]
    for row in range(span[0], span[1]):
        for tilt in range(tilts):
            for point in range(points):
                column = start[tilt, point]
                if column < 0:
                    continue
                weight = fraction[tilt, point]
                for channel in range(channels):
                    left = lifted[tilt, row, column, channel]
                    value = left + weight * (lifted[tilt, row, column + 1, channel] - left)
                    pooled[row, point, channel] += max(value, zero)
        for point in range(points):
            for channel in range(channels):
                pooled[row, point, channel] *= scale[point]


def _backward(
    lifted: NDArray[Any],
    start: NDArray[Any],
    fraction: NDArray[Any],
    scale: NDArray[Any],
    gradient: NDArray[Any],
    by_lifted: NDArray[Any],
    span: tuple[int, int],
) -> None:
    """Fill the rows of a span of ``by_lifted``, which are zero before."""
    tilts, _, _, channels = lifted.shape
    points = start.shape[1]
    zero = np.zeros(1, gradient.dtype)[0]
    for row in range(span[0], span[1]):
        for tilt in range(tilts):
            for point in range(points):
                column = start[tilt, point]
                if column < 0:
                    continue
                weight = fraction[tilt, point]
                right_part = weight * scale[point]
                left_part = scale[point] - right_part
                for channel in range(channels):
                    left = lifted[tilt, row, column, channel]
                    value = left + weight * (lifted[tilt, row, column + 1, channel] - left)
                    slope = gradient[row, point, channel] if value > zero else zero
                    by_lifted[tilt, row, column, channel] += left_part * slope
                    by_lifted[tilt, row, column + 1, channel] += right_part * slope
