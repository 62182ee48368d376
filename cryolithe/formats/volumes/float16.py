"""16-bit floating-point values: whether they hold the densities of a volume finely enough."""

from __future__ import annotations

import math

import numpy as np

from cryolithe.formats.stacks.mrc_header import VolumeStatistics
from cryolithe.formats.volumes.int8 import SIGMAS

# Below this, float16 has fewer digits the smaller a value is, and none in the end.
SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)
# Steps coarser than this part of the deviation are coarser than those of 8-bit values.
_COARSEST = SIGMAS / 127


def rounded_away(statistics: VolumeStatistics) -> str:
    """What float16 would leave of some densities, where that is less than 8-bit values would; else an empty string.

    Args:
        statistics: of the densities before they are rounded.
    """
    deviation = statistics.rms
    level = math.hypot(statistics.mean, deviation)
    if not 0 < deviation <= level <= float(np.finfo(np.float16).max):
        return ""
    step = float(np.spacing(np.float16(level)))
    if step <= _COARSEST * deviation:
        return ""
    return (
        f"float16 tells values of this size apart in steps of {step:.2g}, and those of the volume deviate by only "
        f"{deviation:.2g} from their mean of {statistics.mean:.2g}"
    )
