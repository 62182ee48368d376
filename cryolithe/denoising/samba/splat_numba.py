"""Softmax splatting on a CPU by compiled loops: three to ten times as fast as with arrays for every corner.

    out(p) = Σ_q b(p - q - f(q)) w(q) v(q) / Σ_q b(p - q - f(q)) w(q)          b: the bilinear kernel

An image is worked on by one core, so that sums have one order: the result does not depend on the number of threads.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Arrays = tuple[NDArray[Any], ...]
# Weight that a pixel must receive to be divided by it.
TINY = 1e-12


@functools.cache
def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


class Splat(torch.autograd.Function):
    """Weighted splatting of ``values (n, c, y, x)`` by ``flow (n, 2, y, x)`` with ``weight (n, 1, y, x)``.

    All three are float32, or all float64, on the CPU; so is the result ``(n, c, y, x)``.
    """

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, flow: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The splatted images."""
        v, f, w = _rows(values), flow.contiguous(), weight.contiguous()
        out, total = torch.zeros_like(v), torch.zeros_like(w[:, 0])
        _each_image(_compiled("forward"), (v, f, w[:, 0], out, total))
        ctx.save_for_backward(v, f, w, out, total)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients by values, flow and weight."""
        v, f, w, out, total = ctx.saved_tensors
        by_values, by_flow, by_weight = torch.empty_like(v), torch.empty_like(f), torch.empty_like(w)
        found = (by_values, by_flow, by_weight[:, 0])
        _each_image(_compiled("backward"), (_rows(gradients[0]), (out, total), (v, f, w[:, 0]), found))
        return by_values.permute(0, 3, 1, 2), by_flow, by_weight


def _rows(images: torch.Tensor) -> torch.Tensor:
    """Channels last: ``(n, y, x, c)``."""
    return images.permute(0, 2, 3, 1).contiguous()


def _each_image(loop: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Call the loop for each image, on as many cores as torch uses.

    Args:
        loop: takes arrays, and tuples of arrays, of one image.
        arguments: the same with tensors of all images.
    """

    def part(argument: Any, n: int) -> Any:
        if isinstance(argument, tuple):
            return tuple(part(each, n) for each in argument)
        return argument.detach().numpy()[n]

    images = [tuple(part(each, n) for each in arguments) for n in range(len(arguments[0]))]
    if len(images) == 1 or torch.get_num_threads() == 1:
        for image in images:
            loop(*image)
        return
    list(_pool(torch.get_num_threads()).map(lambda image: loop(*image), images))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "cryolithe-splat")


@functools.cache
def _compiled(name: str) -> Callable[..., None]:
    """Compile a loop, or take it from numba's cache on disk."""
    import numba

    plain = {"forward": _forward, "backward": _backward}[name]
    options: Any = {"nogil": True, "fastmath": {"contract", "nsz"}}
    compiled: Callable[..., None]
    try:
        compiled = numba.njit(cache=True, **options)(plain)
    except RuntimeError:  # no folder that it may write: a read-only installation, no home
        compiled = numba.njit(**options)(plain)
    return compiled


def _forward(
    values: NDArray[Any], flow: NDArray[Any], weight: NDArray[Any], out: NDArray[Any], total: NDArray[Any]
) -> None:
    """Fill ``out (y, x, c)`` and ``total (y, x)``, both zero before, from one image."""
    height, width, channels = values.shape
    for y in range(height):
        for x in range(width):
            target_x, target_y = x + flow[0, y, x], y + flow[1, y, x]
            if not (-1 < target_x < width and -1 < target_y < height):  # also NaN
                continue
            left, top = math.floor(target_x), math.floor(target_y)
            share_x, share_y = target_x - left, target_y - top
            for step_y in range(2):
                row = top + step_y
                if row < 0 or row >= height:
                    continue
                along_y = share_y if step_y else 1 - share_y
                for step_x in range(2):
                    column = left + step_x
                    if column < 0 or column >= width:
                        continue
                    part = weight[y, x] * along_y * (share_x if step_x else 1 - share_x)
                    total[row, column] += part
                    for c in range(channels):
                        out[row, column, c] += part * values[y, x, c]
    for y in range(height):
        for x in range(width):
            factor = 1 / max(total[y, x], np.float32(TINY))
            for c in range(channels):
                out[y, x, c] *= factor


def _backward(gradient: NDArray[Any], made: Arrays, given: Arrays, found: Arrays) -> None:
    """Gradients of one image: of a quotient S / W by S it is 1 / W, by W it is -S / W²."""
    out, total = made
    values, flow, weight = given
    by_values, by_flow, by_weight = found
    height, width, channels = values.shape
    for y in range(height):
        for x in range(width):
            by_flow[0, y, x] = 0
            by_flow[1, y, x] = 0
            by_weight[y, x] = 0
            for c in range(channels):
                by_values[y, x, c] = 0
            target_x, target_y = x + flow[0, y, x], y + flow[1, y, x]
            if not (-1 < target_x < width and -1 < target_y < height):
                continue
            left, top = math.floor(target_x), math.floor(target_y)
            share_x, share_y = target_x - left, target_y - top
            for step_y in range(2):
                row = top + step_y
                if row < 0 or row >= height:
                    continue
                along_y = share_y if step_y else 1 - share_y
                for step_x in range(2):
                    column = left + step_x
                    if column < 0 or column >= width:
                        continue
                    along_x = share_x if step_x else 1 - share_x
                    kept = total[row, column]
                    factor = 1 / max(kept, np.float32(TINY))
                    part = weight[y, x] * along_y * along_x * factor
                    slope = gradient[row, column, 0] * 0
                    for c in range(channels):
                        by_values[y, x, c] += part * gradient[row, column, c]
                        # What a little more of this pixel there would change.
                        seen = out[row, column, c] if kept > TINY else 0 * out[row, column, c]
                        slope += gradient[row, column, c] * (values[y, x, c] - seen)
                    slope *= factor
                    by_weight[y, x] += along_y * along_x * slope
                    by_flow[0, y, x] += weight[y, x] * along_y * (slope if step_x else -slope)
                    by_flow[1, y, x] += weight[y, x] * along_x * (slope if step_y else -slope)
