"""Footprints where a local alignment shifts columns, by a compiled loop: bands of rows need new ones, again and again.

What `cryolithe.projector.footprint` gives, in the order of `TorchProjector`'s tables, without arrays in between.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry, centre_px
from cryolithe.projector.footprint import PIXELS_PER_VOXEL, STEPS, first_shadow_px, weight_table


def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def fill_tables(
    geometry: TiltGeometry, slice_shape: tuple[int, int], planes: range, entry: torch.Tensor, weight: torch.Tensor
) -> None:
    """Write the table entries and weights of the voxels of some planes, z outer and x inner.

    Args:
        geometry: of one band of rows, whose columns are shifted.
        slice_shape: voxels along ``(z, x)``.
        planes: which.
        entry: indices ``tilt * X + column``, shape ``(points, tilts * 3)``, int32, on the CPU.
        weight: the same shape, float32.
    """
    assert geometry.shifts is not None
    depth, width = slice_shape
    z = np.arange(planes.start, planes.stop, dtype=np.float64) - centre_px(depth)
    x = np.arange(width, dtype=np.float64) - centre_px(width)
    theta = geometry.angles_rad
    start = geometry.centre[1] - first_shadow_px(geometry.angles_deg)
    along_x = np.ascontiguousarray((np.cos(theta)[:, None] * x + start[:, None]).T)
    along_z = np.ascontiguousarray((np.sin(theta)[:, None] * z).T)
    # Along z the shifts of each plane, along x what to take of two nodes.
    shifts = geometry.shifts.of_row()
    rows = np.ascontiguousarray(_between(shifts.values[:, 0], shifts.z_px, z).transpose(1, 2, 0))
    node, part = _places(shifts.x_px, x)
    table = weight_table(geometry.angles_deg).numpy().reshape(len(theta), STEPS, PIXELS_PER_VOXEL)
    shape = (len(z), len(x), len(theta), PIXELS_PER_VOXEL)
    _compiled()(
        (along_x, along_z, rows, node, part, table, geometry.image_shape[1]),
        (entry.numpy().reshape(shape), weight.numpy().reshape(shape)),
    )


def _places(nodes: NDArray[np.float64], points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The node at or before points, and how far after it they are; the ends beyond."""
    place = np.interp(points, nodes, np.arange(len(nodes)))
    first = np.minimum(place.astype(np.int64), max(0, len(nodes) - 2))
    return first, (place - first).astype(np.float32)


def _between(
    values: NDArray[np.float32], nodes: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Values ``(tilts, z, x)`` between their nodes along z."""
    first, part = _places(nodes, points)
    last = np.minimum(first + 1, len(nodes) - 1)
    return np.asarray(values[:, first] * (1 - part[:, None]) + values[:, last] * part[:, None])


@functools.cache
def _compiled() -> Callable[..., None]:
    import numba

    compiled: Callable[..., None]
    try:
        compiled = numba.njit(cache=True, nogil=True)(_loop)
    except RuntimeError:  # no folder that it may write: a read-only installation, no home
        compiled = numba.njit(nogil=True)(_loop)
    return compiled


def _loop(given: Any, out: Any) -> None:
    along_x, along_z, rows, node, part, table, columns = given
    entry, weight = out
    planes, width, tilts, pixels = entry.shape
    last_node, last_step = rows.shape[1] - 1, table.shape[1] - 1
    for z in range(planes):
        for x in range(width):
            left, share = node[x], part[x]
            right = min(left + 1, last_node)
            for tilt in range(tilts):
                shift = rows[z, left, tilt] + share * (rows[z, right, tilt] - rows[z, left, tilt])
                place = along_x[x, tilt] + along_z[z, tilt] + shift
                base = int(np.floor(place))
                step = min(int((place - base) * (last_step + 1)), last_step)
                for pixel in range(pixels):
                    column = base + pixel
                    inside = 0 <= column < columns
                    entry[z, x, tilt, pixel] = tilt * columns + (column if inside else 0)
                    weight[z, x, tilt, pixel] = table[tilt, step, pixel] if inside else 0.0
