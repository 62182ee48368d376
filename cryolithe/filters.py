"""Filters along detector rows: their responses, one padding rule, and their application.

Every response is a real, even transfer function sampled at the frequencies of ``rfft`` over the padded length.
Rows are filtered along x, perpendicular to the tilt axis, each row on its own.

Padding rule
    A row of N pixels is extended on both sides to a fast length >= 2 N. Each extension starts from the mean of
    the ``EDGE_PX`` outermost pixels and falls to zero as a half cosine. (Rows have their image's mean removed, so
    zero is neutral; a step to zero at the border would be turned by the ramp into a bright rim.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from cryolithe.arrays.spectra import times_counted
from cryolithe.errors import SettingsError, nearest_name

EDGE_PX = 8
# Values of extended rows that are filtered at a time: transforms of them, and what lies between, are all that is held.
VALUES_AT_ONCE = 1 << 22

# Multiplied onto |f|; f in cycles/pixel, 0.5 = Nyquist.
WINDOWS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "ramp": np.ones_like,
    "shepp-logan": np.sinc,
    "cosine": lambda f: np.cos(np.pi * f),
    "hamming": lambda f: 0.54 + 0.46 * np.cos(2 * np.pi * f),
    "hann": lambda f: 0.5 + 0.5 * np.cos(2 * np.pi * f),
}


def padded_length(row_px: int) -> int:
    """Length to which rows of ``row_px`` pixels are extended: the next fast FFT length >= 2 ``row_px``."""
    return int(scipy.fft.next_fast_len(2 * row_px, real=True))


def ramp_response(length: int, window: str = "ramp") -> torch.Tensor:
    """Response |f|, times a window, of the band-limited ramp filter.

    The ramp is the transform of its sampled impulse response (1/4 at 0, -1/(πn)² at odd n, 0 elsewhere; Kak &
    Slaney 1988, eq. 3.61), whose mean is not lost as it is when |f| itself is sampled.

    Args:
        length: padded row length in pixels.
        window: a key of ``WINDOWS``; "cosine" is the filter of the CryoLithe paper (section 3.3).

    Returns:
        shape ``(length // 2 + 1,)``, float32, in cycles/pixel.

    Raises:
        SettingsError: for an unknown window.
    """
    if window not in WINDOWS:
        raise SettingsError(
            f"unknown filter '{window}'{nearest_name(window, WINDOWS)}; known filters: {', '.join(WINDOWS)}"
        )
    n = np.minimum(np.arange(length), length - np.arange(length))
    kernel = np.zeros(length)
    odd = n % 2 == 1
    kernel[odd] = -1.0 / (math.pi * n[odd]) ** 2
    kernel[0] = 0.25
    response = np.fft.rfft(kernel).real * WINDOWS[window](np.fft.rfftfreq(length))
    return torch.from_numpy(response.astype(np.float32))


def gaussian_response(length: int, sigma_px: float) -> torch.Tensor:
    """Response of a Gaussian blur with standard deviation ``sigma_px``; shape ``(length // 2 + 1,)``, float32."""
    f = np.fft.rfftfreq(length)
    return torch.from_numpy(np.exp(-2 * (np.pi * sigma_px * f) ** 2).astype(np.float32))


def unit_noise_gain(response: torch.Tensor, length: int) -> torch.Tensor:
    """Scale a response so that white noise of unit variance keeps unit variance.

    Args:
        response: shape ``(length // 2 + 1,)``.
        length: padded row length.
    """
    weight = torch.from_numpy(times_counted(length)).to(response)
    return response / torch.sqrt((weight * response**2).sum() / length)


def extend_rows(rows: torch.Tensor, length: int) -> torch.Tensor:
    """Extend rows by the padding rule.

    Args:
        rows: shape ``(..., N)``.
        length: padded length, at least N.

    Returns:
        shape ``(..., length)``; the row starts at index ``(length - N) // 2``.
    """
    size = rows.shape[-1]
    left = (length - size) // 2
    right = length - size - left
    edge = min(EDGE_PX, size)
    # Written so that the taper is 1 next to the row and 0 just beyond the end of the padding.
    rise = 0.5 - 0.5 * torch.cos(math.pi * torch.arange(1, left + 1, device=rows.device) / (left + 1))
    fall = 0.5 + 0.5 * torch.cos(math.pi * torch.arange(1, right + 1, device=rows.device) / (right + 1))
    return torch.cat(
        [
            rows[..., :edge].mean(-1, keepdim=True) * rise.to(rows.dtype),
            rows,
            rows[..., size - edge :].mean(-1, keepdim=True) * fall.to(rows.dtype),
        ],
        dim=-1,
    )


def octave_response(length: int, band: int) -> torch.Tensor:
    """Response of a band an octave wide (half a cosine over log f, zero an octave off its middle).

    Args:
        length: padded row length in pixels.
        band: 0 is centred at 1/4 cycle/pixel, each further one an octave below.

    Returns:
        shape ``(length // 2 + 1,)``, float32.
    """
    f = np.maximum(np.fft.rfftfreq(length), 1e-9)
    octaves = np.clip(np.abs(np.log2(f * 4 * 2**band)), 0, 1)
    return torch.from_numpy((np.cos(np.pi / 2 * octaves)).astype(np.float32))


def filter_rows(rows: torch.Tensor, *responses: torch.Tensor, per_px: int = 1) -> list[torch.Tensor]:
    """Apply filters along the last axis, each to the same rows.

    Args:
        rows: shape ``(..., N)``, float32 or float64, mean removed.
        responses: transfer functions for the padded length of N, shape ``(padded_length(N) // 2 + 1,)``.
        per_px: values returned for each pixel; those between the pixels are what the band-limited row has there.

    Returns:
        one tensor of shape ``(..., N * per_px)`` for each response; value s lies at pixel ``s / per_px``.
    """
    size = rows.shape[-1]
    length = padded_length(size)
    left = (length - size) // 2
    inside = slice(per_px * left, per_px * (left + size))
    gains = [per_px * response.to(rows) for response in responses]

    def filtered(part: torch.Tensor) -> list[torch.Tensor]:
        spectrum = torch.fft.rfft(extend_rows(part, length), dim=-1)
        return [torch.fft.irfft(spectrum * gain, n=per_px * length, dim=-1)[..., inside] for gain in gains]

    parts = parts_of(rows, length)
    if len(parts) < 2:
        return filtered(rows)
    made = [rows.new_empty((*rows.shape[:-1], per_px * size)) for _ in gains]
    for part in parts:
        for whole, values in zip(made, filtered(rows[part]), strict=True):
            whole[part] = values
    return made


def parts_of(rows: torch.Tensor, length: int) -> list[slice]:
    """Parts of the first axis of rows ``(..., N)`` that are filtered one after the other once they have ``length``."""
    if rows.dim() < 2 or not rows.numel():
        return [slice(None)]
    step = max(1, VALUES_AT_ONCE // (rows.numel() // rows.shape[0] // rows.shape[-1] * length))
    return [slice(start, start + step) for start in range(0, rows.shape[0], step)]


def filter_rows_by_taps(rows: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Convolve rows with an impulse response, as the published program does; beyond its ends a row is zero.

    Of more taps than a row has pixels only the innermost ones are used. (Facts of the class ``VectorModel_real`` of
    the published program: the taps are placed on a circle of 2 N samples.)

    Args:
        rows: shape ``(..., N)``, float32 or float64.
        taps: shape ``(T,)``: those for shifts 0, 1, ... from the front, those for shifts -1, -2, ... from the back.

    Returns:
        shape ``(..., N)``.
    """
    size = rows.shape[-1]
    used = min(taps.shape[0], size)
    ahead, behind = used // 2, used - used // 2
    circle = torch.zeros(2 * size, dtype=rows.dtype, device=rows.device)
    circle[:ahead] = taps[:ahead].to(rows)
    circle[2 * size - behind :] = taps[taps.shape[0] - behind :].to(rows)
    spectrum = torch.fft.rfft(rows, n=2 * size, dim=-1) * torch.fft.rfft(circle)
    return torch.fft.irfft(spectrum, n=2 * size, dim=-1)[..., :size]
