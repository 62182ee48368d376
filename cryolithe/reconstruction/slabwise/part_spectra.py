"""Fourier transforms of parts of a volume, which fade at their faces, and the frequencies of these."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray

# Voxels of a part that fades at its faces are fewer than they look: variances grow by so much.
CORRELATED = 1.5

Frequencies = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]


def spectrum_of(part: torch.Tensor) -> torch.Tensor:
    """The half spectrum of a part ``(z, y, x)`` without its mean, flat, complex128, where the part is."""
    weights = functools.reduce(torch.mul, (fade(size, axis).to(part.device) for axis, size in enumerate(part.shape)))
    return torch.fft.rfftn((part.double() - part.mean(dtype=torch.float64)) * weights).flatten()


def frequencies_of(shape: tuple[int, ...]) -> Frequencies:
    """Along z, y and x of a half spectrum, cycles/px, broadcastable to its shape."""
    z, y, x = np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), np.fft.rfftfreq(shape[2])
    return z[:, None, None], y[None, :, None], x[None, None, :]


def fade(size: int, axis: int) -> torch.Tensor:
    """Weights along one of three axes that rise over an eighth of it at either end, float64."""
    edge = max(1, size // 8)
    near = (np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5) / edge
    weights = torch.from_numpy(0.5 - 0.5 * np.cos(np.pi * np.minimum(near, 1.0)))
    return weights.view([-1 if axis == other else 1 for other in range(3)])
