"""The heart of the engine: interpolate lifted rows at points, ReLU, mean over tilts.

    pooled[p] = scale[p] Σ_t ReLU( (1 - f) lifted[t, start] + f lifted[t, start + 1] )      f = fraction[t, p]

in three versions: `pool_torch` for any device, a compiled loop for CPUs (numba) and a kernel for GPUs (Triton). No
array of size points x tilts x channels is ever written by the latter two.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryolithe.inference.algebra import Step, apply_steps

# Takes lifted rows, start, fraction and scale as `pool_torch` does.
Pool = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class GpuPool:
    """The kernel for GPUs; once it fails, torch's operations stand in for it.

    It fails where Triton finds no compiler, does not know the card, or is not there.

    Attributes:
        failure: why it failed; None as long as it did not.
    """

    def __init__(self) -> None:
        self.failure: str | None = None if importlib.util.find_spec("triton") else "Triton is not installed"

    def __call__(
        self, lifted: torch.Tensor, start: torch.Tensor, fraction: torch.Tensor, scale: torch.Tensor
    ) -> torch.Tensor:
        """See `pool_torch`; the kernel's result has the precision of ``lifted``."""
        if self.failure is None:
            try:
                from cryolithe.inference.pooling_triton import pool_triton

                return pool_triton(lifted, start, fraction, scale)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # Triton's and its compiler's errors have no common class
                lines = str(error).strip().splitlines()
                self.failure = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        return pool_torch(lifted, start, fraction, scale)


@functools.cache
def gpu_pool(device: torch.device) -> GpuPool:
    """The pooling of a GPU: all engines of a process learn at once that its kernel failed."""
    return GpuPool()


def choose_pool(device: torch.device) -> Pool:
    """The fastest version that runs on a device with what is installed."""
    if device.type == "cuda":
        return gpu_pool(device)
    if device.type == "cpu" and importlib.util.find_spec("numba") is not None:
        return pool_numba
    return pool_torch


def pool_version(pool: Pool) -> str:
    """What a pooling is computed by: ``triton``, ``numba``, or ``torch`` and why."""
    if isinstance(pool, GpuPool):
        return "triton" if pool.failure is None else f"torch ({pool.failure})"
    return "numba" if pool is pool_numba else "torch"


def pools_in_registers(device: torch.device) -> bool:
    """Whether a GPU's kernel can be tried, which writes nothing but its result."""
    return device.type == "cuda" and gpu_pool(device).failure is None


def pool_torch(lifted: torch.Tensor, start: torch.Tensor, fraction: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The definition, tilt by tilt.

    Args:
        lifted: shape ``(rows, tilts, columns, channels)``.
        start: shape ``(tilts, points)``, int32.
        fraction: shape ``(tilts, points)``, float32.
        scale: shape ``(points,)``, float64.

    Returns:
        shape ``(rows, points, channels)``, float32 or better.
    """
    exact = torch.promote_types(lifted.dtype, torch.float32)
    total = lifted.new_zeros((lifted.shape[0], start.shape[1], lifted.shape[3]), dtype=exact)
    for tilt, columns in enumerate(start.long()):
        left, right = lifted[:, tilt, columns].to(exact), lifted[:, tilt, columns + 1].to(exact)
        total += torch.lerp(left, right, fraction[tilt, :, None].to(exact)).relu_()
    return total * scale[:, None].to(exact)


def pool_through(
    lifted: torch.Tensor,
    start: torch.Tensor,
    fraction: torch.Tensor,
    scale: torch.Tensor,
    steps: tuple[Step, ...],
) -> torch.Tensor:
    """The same with further layers between ReLU and mean, in the precision of their weights; the sum is float32."""
    dtype = steps[0].weight.dtype
    exact = torch.promote_types(dtype, torch.float32)
    total = torch.zeros((), dtype=exact, device=lifted.device)
    for tilt, columns in enumerate(start.long()):
        left, right = lifted[:, tilt, columns], lifted[:, tilt, columns + 1]
        value = torch.lerp(left, right, fraction[tilt, :, None].to(left.dtype)).relu_()
        total = apply_steps(value.to(dtype), steps).to(exact) + total
    return (total * scale[:, None].to(exact)).to(dtype)


def pool_numba(lifted: torch.Tensor, start: torch.Tensor, fraction: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The same by a compiled loop on one core; many threads may call it at once."""
    pooled = torch.empty((lifted.shape[0], start.shape[1], lifted.shape[3]), dtype=lifted.dtype)
    _compiled()(lifted.numpy(), start.numpy(), fraction.numpy(), scale.numpy(), pooled.numpy())
    return pooled


@functools.cache
def _compiled() -> Callable[..., None]:
    return compile_loop(_loop)


def compile_loop(loop: Callable[..., None]) -> Callable[..., None]:
    """Compile a loop over arrays, or take it from numba's cache on disk."""
    import llvmlite.binding
    import numba

    # By default LLVM uses half of the width of AVX-512 registers; the full one is 1.5 times as fast here.
    features = llvmlite.binding.get_host_cpu_features()
    config: Any = numba.config
    if features.get("avx512f") and config.CPU_NAME is None and config.CPU_FEATURES is None:
        features["prefer-256-bit"] = False
        config.CPU_NAME = llvmlite.binding.get_host_cpu_name()
        config.CPU_FEATURES = features.flatten()
    # Only contraction to fused multiply-adds is allowed: the order of the sum over tilts stays.
    options: Any = {"nogil": True, "fastmath": {"contract", "nsz"}}
    compiled: Callable[..., None]
    try:
        compiled = numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # no folder that it may write: a read-only installation, no home
        compiled = numba.njit(**options)(loop)
    return compiled


def compiled_cache() -> Path | None:
    """Folder in which numba keeps the compiled loop from one run to the next; None if it finds none to write to."""
    compiled: Any = _compiled()
    folder = compiled.stats.cache_path
    return None if folder is None else Path(folder)


def _loop(lifted: Any, start: Any, fraction: Any, scale: Any, pooled: Any) -> None:
    rows, tilts, _, channels = lifted.shape
    points = start.shape[1]
    zero = np.zeros(1, pooled.dtype)[0]
    pooled[:] = zero
    for row in range(rows):
        for tilt in range(tilts):
            for point in range(points):
                column = start[tilt, point]
                weight = fraction[tilt, point]
                for channel in range(channels):
                    left = lifted[row, tilt, column, channel]
                    value = left + weight * (lifted[row, tilt, column + 1, channel] - left)
                    pooled[row, point, channel] += max(value, zero)
        for point in range(points):
            for channel in range(channels):
                pooled[row, point, channel] *= scale[point]
