"""A finished volume turned about x, each voxel of it read from the untilted one by cubic splines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.arrays.folding import reflected
from cryolithe.formats import RunningStatistics, VolumeStatistics, VolumeWriter
from cryolithe.formats.volumes.pages import release_pages
from cryolithe.geometry import centre_px

ROWS, COLUMNS = 32, 128
# A spline's coefficients forget a row at this distance: 0.27 ** 12 is 1e-7.
MARGIN = 14


def tilt_volume(
    before: NDArray[Any], writer: VolumeWriter, x_tilt_deg: float, on_rows: Callable[[int], object] = lambda rows: None
) -> VolumeStatistics:
    """Turn a volume about x: voxel V of the result is read at Rx(α) V, both about the middle.

    What lies beyond its rows repeats its last one.

    Args:
        before: voxels, shape ``(depth_before(...), y, x)``.
        writer: of the result.
        x_tilt_deg: α.
        on_rows: called with the rows that were just done.
    """
    depth, height, _ = writer.shape
    tilt = math.radians(x_tilt_deg)
    c, s = math.cos(tilt), math.sin(tilt)
    z = (np.arange(depth) - centre_px(depth))[:, None]
    statistics = RunningStatistics()
    for start in range(0, height, ROWS):
        stop = min(start + ROWS, height)
        y = (np.arange(start, stop) - centre_px(height))[None, :]
        y_before = np.clip(y * c - z * s + centre_px(height), 0, height - 1)
        z_before = np.clip(y * s + z * c + centre_px(before.shape[0]), 0, before.shape[0] - 1)
        first = max(0, int(y_before.min()) - MARGIN)
        last = min(height, int(y_before.max()) + MARGIN + 2)
        slab = before[:, first:last]
        parts = [
            _splined(np.asarray(slab[..., x : x + COLUMNS], dtype=np.float32), z_before, y_before - first)
            for x in range(0, slab.shape[2], COLUMNS)
        ]
        values = writer.cast(np.concatenate(parts, axis=2))
        writer.write_rows(start, values)
        statistics.add(values)
        release_pages(before)
        on_rows(stop - start)
    return statistics.result()


def _splined(slab: NDArray[np.float32], z: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values at positions ``(z, y)`` of each plane of x, shape ``(*z.shape, x)``."""
    coefficients = slab.astype(np.float64)
    for axis in (0, 1):
        if slab.shape[axis] > 1:
            coefficients = scipy.ndimage.spline_filter1d(coefficients, 3, axis=axis, mode="mirror")
    out = np.zeros((*z.shape, slab.shape[2]))
    z_low, y_low = np.floor(z).astype(int), np.floor(y).astype(int)
    for i, z_weight in enumerate(_cubic(z - z_low)):
        for j, y_weight in enumerate(_cubic(y - y_low)):
            rows = reflected(z_low + i - 1, slab.shape[0]), reflected(y_low + j - 1, slab.shape[1])
            out += (z_weight * y_weight)[..., None] * coefficients[rows]
    return out.astype(np.float32)


def _cubic(t: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Cubic B-spline weights of the four coefficients around a point that lies ``t`` after the second."""
    return (
        (1 - t) ** 3 / 6,
        (4 - 6 * t**2 + 3 * t**3) / 6,
        (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6,
        t**3 / 6,
    )
