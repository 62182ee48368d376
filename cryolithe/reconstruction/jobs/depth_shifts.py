"""What bending images back for the middle of a volume leaves above and below it, where a bend changes along a beam."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryolithe.alignment import Alignment, View, VolumePlace
from cryolithe.column_shifts import ColumnShifts, bands_for
from cryolithe.geometry import centre_px

# Nodes along (y, z, x) at most, and at least so many pixels of the stack apart along y and x.
_MOST = (17, 5, 33)
_STEP_PX = 8.0
# Less moves nothing.
_IDLE_PX = 0.01
_PASSES = 3


def depth_shifts(
    alignment: Alignment, views: tuple[View, ...], place: VolumePlace
) -> tuple[ColumnShifts | None, float]:
    """Shifts of the columns of a volume's points, and the largest shift along the rows, which is left.

    Args:
        alignment: whose images are bent.
        views: its maps for the very volume.
        place: of the volume that is made, before it is turned about x.

    Returns:
        the shifts, or None where all depths are alike; pixels of the prepared images.
    """
    counts = [
        min(most, max(2, math.ceil(n * step) + 1))
        for most, n, step in zip(_MOST, _sizes(place), (1 / _STEP_PX, 1.0, 1 / _STEP_PX), strict=True)
    ]
    y, z, x = (np.linspace(-centre_px(n), centre_px(n), count) for n, count in zip(_order(place), counts, strict=True))
    grid = np.meshgrid(y, z, x, indexing="ij")
    moved = np.zeros((len(views), 2, *grid[0].shape))
    for number, (view, image) in enumerate(zip(views, alignment.images, strict=True)):
        if view.bend is not None and view.bend.deep:
            moved[number] = _moved(view, image.angle_deg, grid, place)
    along, across = moved[:, 0], float(np.abs(moved[:, 1]).max())
    if np.abs(along).max() <= _IDLE_PX:
        return None, across
    values = along.astype(np.float32)
    return ColumnShifts(y, z, x, values, bands_for(values, max(1.0, y[1] - y[0]))), across


def _order(place: VolumePlace) -> tuple[int, int, int]:
    """Voxels along ``(y, z, x)``."""
    depth, height, width = place.shape
    return height, depth, width


def _sizes(place: VolumePlace) -> tuple[int, int, int]:
    height, depth, width = _order(place)
    return height * place.bin, depth, width * place.bin


def _moved(
    view: View, angle_deg: float, grid: Sequence[NDArray[np.float64]], place: VolumePlace
) -> NDArray[np.float64]:
    """Shifts ``(u, v)`` of voxels ``(y, z, x)`` from the middle, pixels of the prepared image."""
    assert view.bend is not None
    y, z, x = (place.bin * axis for axis in grid)
    z = -z if place.mirrored else z
    theta = math.radians(angle_deg)
    u, v = view.seen_px[0] + x * math.cos(theta) + z * math.sin(theta), view.seen_px[1] + y
    goal = np.stack([u, v]) + view.bend.at(u, v, view.depth_px + z)
    # In the image that is bent back for the middle's depth it is seen where that depth's bend leads to the same place.
    seen = np.stack([u, v])
    for _ in range(_PASSES):
        seen = goal - view.bend.at(seen[0], seen[1], view.depth_px)
    return np.asarray((seen - np.stack([u, v])) / place.bin)
