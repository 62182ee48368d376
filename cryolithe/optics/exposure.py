"""Radiation damage: what an exposure leaves of the signal, and the weight of an image by its exposure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryolithe.optics.transfer import Image, frequencies

# Grant & Grigorieff 2015 (eLife 4, e06980): Nc = a k^b + c, e/Å² at 300 kV, k in 1/Å.
CRITICAL_A, CRITICAL_B, CRITICAL_C = 0.245, -1.665, 2.81


def critical_exposure(frequency_per_angstrom: NDArray[np.float64], voltage_kv: float = 300.0) -> NDArray[np.float64]:
    """Exposure after which the signal at a frequency has fallen to ``exp(-1/2)``, e/Å²; infinite at frequency 0.

    ``Nc = 0.245 k^-1.665 + 2.81`` at 300 kV (Grant & Grigorieff 2015), 0.8 of it at 200 kV (as the authors' program
    does) and 0.64 at 100 kV, where damage is 1.57 times as fast (Peet, Henderson & Russo 2019, Ultramicroscopy 203,
    125-131; the program has 0.53); linear in voltage between.
    """
    scale = float(np.interp(voltage_kv, (100.0, 200.0, 300.0), (0.64, 0.8, 1.0)))
    with np.errstate(divide="ignore"):
        return scale * (CRITICAL_A * np.asarray(frequency_per_angstrom, dtype=np.float64) ** CRITICAL_B + CRITICAL_C)


def exposure_filter(
    shape: tuple[int, int], pixel_size_angstrom: float, exposure: float, voltage_kv: float = 300.0
) -> Image:
    """What an exposure has left of the signal: ``exp(-N / (2 Nc(k)))`` (Grant & Grigorieff 2015).

    The same filter is the exposure weight that tilt-series software multiplies an image by.

    Args:
        shape: of the image, ``(y, x)``.
        pixel_size_angstrom: edge of a pixel.
        exposure: accumulated exposure N, e/Å².
        voltage_kv: acceleration voltage.

    Returns:
        shape ``(y, x // 2 + 1)``, float32; 1 at zero frequency.
    """
    squared, _ = frequencies(shape, pixel_size_angstrom)
    return np.exp(-exposure / (2 * critical_exposure(np.sqrt(squared), voltage_kv))).astype(np.float32)
