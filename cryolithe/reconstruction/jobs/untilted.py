"""Which untilted volume holds one that is tilted about x.

A volume that is tilted about x cannot be made row by row: each of its rows is seen in many rows of the images. As in
IMOD, the untilted volume is made first, deep enough, and each voxel of the wanted one is read from it
(`cryolithe.reconstruction.output.turned`).
"""

from __future__ import annotations

import math

from cryolithe.geometry import centre_px

# Less does not move a voxel at the end of 4096 rows by half a voxel's depth.
NO_TILT_DEG = 0.005


def depth_before(shape: tuple[int, int, int], x_tilt_deg: float) -> int:
    """Voxels along z of the untilted volume that holds a tilted one of ``shape`` ``(z, y, x)``."""
    if abs(x_tilt_deg) <= NO_TILT_DEG:
        return shape[0]
    tilt = math.radians(x_tilt_deg)
    needed = shape[0] * math.cos(tilt) + shape[1] * abs(math.sin(tilt))
    # As odd or even as the wanted one, so that voxels without a tilt are the same ones.
    return shape[0] + 2 * max(1, math.ceil((needed - shape[0]) / 2) + 1)


def planes_kept(before: tuple[int, int, int], depth: int, x_tilt_deg: float, row_px: float) -> slice:
    """Planes of an untilted volume that become those of a tilted one, about some row; all of them without a tilt.

    Args:
        before: voxels ``(z, y, x)`` of the untilted volume.
        depth: voxels along z of the tilted one.
        x_tilt_deg: α.
        row_px: the row of the untilted volume, counted from 0.
    """
    if abs(x_tilt_deg) <= NO_TILT_DEG:
        return slice(0, before[0])
    tilt = math.radians(x_tilt_deg)
    planes = min(before[0], round(depth / math.cos(tilt)))
    middle = centre_px(before[0]) + (row_px - centre_px(before[1])) * math.tan(tilt)
    first = min(max(0, round(middle - (planes - 1) / 2)), before[0] - planes)
    return slice(first, first + planes)
