"""How thick a volume is where a setting, the alignment's files, or nobody says it."""

from __future__ import annotations

import math

from cryolithe.alignment import Alignment
from cryolithe.errors import InputError
from cryolithe.images import binned_size, rotated_shape
from cryolithe.settings import ReconstructSettings


def aligned_shape(alignment: Alignment, raw: tuple[int, int]) -> tuple[int, int]:
    """Pixels ``(y, x)`` of an aligned image, of raw ones that have ``raw``."""
    return alignment.aligned_shape or rotated_shape(raw, alignment.axis_deg)


def wanted_thickness(alignment: Alignment, settings: ReconstructSettings, width: int) -> int:
    """Voxels along z.

    Args:
        alignment: of the series.
        settings: of the run.
        width: pixels of a prepared image along x.

    Raises:
        InputError: if the files' thickness is none.
    """
    return settings.thickness or _of_files(alignment.thickness_px, settings.bin or alignment.bin or 1, width)


def wanted_depth_px(alignment: Alignment, settings: ReconstructSettings, raw: tuple[int, int]) -> int:
    """The same in pixels of the stack, of raw images ``(y, x)``."""
    binning = settings.bin or alignment.bin or 1
    width = binned_size(aligned_shape(alignment, raw)[1], binning)
    return wanted_thickness(alignment, settings, width) * binning


def default_thickness(width_px: int) -> int:
    """Voxels along z where the user says nothing: half the image width, rounded up to even."""
    return max(2, 2 * math.ceil(width_px / 4))


def _of_files(thickness_px: float | None, binning: int, width: int) -> int:
    """Voxels along z where no setting says it: what the alignment's files say, else the default."""
    if thickness_px is None:
        return default_thickness(width)
    if not 0 < thickness_px < math.inf:  # also for NaN
        raise InputError(
            f"the alignment gives a thickness of {thickness_px:g} pixels, expected a positive one; give --thickness"
        )
    return max(1, round(thickness_px / binning))
