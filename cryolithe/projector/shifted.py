"""Back-projection where a local alignment shifts columns, by a compiled loop.

Each band of rows has footprints of its own. They are those of `cryolithe.projector.footprint`, found and used at once:
no table of them is ever in memory.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry, centre_px
from cryolithe.projector.footprint import PIXELS_PER_VOXEL, STEPS, first_shadow_px, weight_table


def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def back_project(
    geometry: TiltGeometry, slice_shape: tuple[int, int], planes: range, lines: torch.Tensor
) -> torch.Tensor:
    """Weighted sums of the lines along y that the voxels of some planes see.

    Args:
        geometry: of one band of rows, whose columns are shifted.
        slice_shape: voxels along ``(z, x)``.
        planes: which.
        lines: what the detector columns hold, shape ``(tilts, X, rows)``, on the CPU.

    Returns:
        shape ``(planes, x, rows)``.
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
    # Columns of zeros at both ends, where what falls beside the detector is looked up.
    seen = torch.nn.functional.pad(lines, (0, 0, PIXELS_PER_VOXEL, PIXELS_PER_VOXEL)).numpy()
    out = np.zeros((len(z), len(x), seen.shape[2]), seen.dtype)
    run, threads, points = _compiled(), torch.get_num_threads(), len(z) * len(x)

    def part_of(number: int) -> None:
        first, last = number * points // threads, (number + 1) * points // threads
        run((along_x, along_z, rows, node, part, table, seen), first, last, out)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part_of, range(threads)))
    return torch.from_numpy(out)


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


def _loop(given: Any, first_point: int, last_point: int, out: Any) -> None:
    along_x, along_z, rows, node, part, table, seen = given
    tilts, columns, count = seen.shape
    last_node, steps, pixels = rows.shape[1] - 1, table.shape[1], table.shape[2]
    # Tilts are added in pairs: bands of 8 rows are so short that reading and writing the sum takes a third of the time.
    # An odd number of them has a last one of weights 0.
    pairs = (tilts + 1) // 2
    weights, values = np.zeros(table.size + pixels, np.float32), seen.reshape(-1)
    weights[: table.size] = table.reshape(-1)
    # Unsigned, as numbers counted from the end would be asked for again and again.
    one, two, three_rows = np.uint64(1), np.uint64(2), np.uint64(pixels * count)
    start, step = np.zeros(2 * pairs, np.uint64), np.full(2 * pairs, np.uint64(table.size), np.uint64)
    for point in range(first_point, last_point):
        z, x = point // out.shape[1], point % out.shape[1]
        share, at_x, at_z = part[x], along_x[x], along_z[z]
        left, right = rows[z, node[x]], rows[z, min(node[x] + 1, last_node)]
        for tilt in range(tilts):
            place = at_x[tilt] + at_z[tilt] + (left[tilt] + share * (right[tilt] - left[tilt]))
            first = np.floor(place)
            step[tilt] = (tilt * steps + min(int((place - first) * steps), steps - 1)) * pixels
            start[tilt] = (tilt * columns + min(max(int(first) + pixels, 0), columns - pixels)) * count
        line = out[z, x]
        for pair in range(pairs):
            # One by one: taken from their array for every row, they would cost a fifth of the time.
            at, then = step[2 * pair], step[2 * pair + 1]
            of_a, of_b, of_c = weights[at], weights[at + one], weights[at + two]
            then_a, then_b, then_c = weights[then], weights[then + one], weights[then + two]
            these = values[start[2 * pair] : start[2 * pair] + three_rows]
            those = values[start[2 * pair + 1] : start[2 * pair + 1] + three_rows]
            for row in range(count):
                a, b, c = np.uint64(row), np.uint64(row + count), np.uint64(row + 2 * count)
                line[row] += (of_a * these[a] + of_b * these[b] + of_c * these[c]) + (
                    then_a * those[a] + then_b * those[b] + then_c * those[c]
                )
