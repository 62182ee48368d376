"""8-bit values: how densities become them, how a header and a record tell of it; unsigned values taken for signed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats.mrc_header import VolumeStatistics

# Standard deviations about the mean that 8-bit values span at most; gold beyond that is cut off.
SIGMAS = 10.0
# Values so near to either end, and to 0, are compared: the ends hold so much each, about 0 is so little of that.
_ENDS, _MIDDLE = 32, 16
_LEAST_AT_END, _MOST_OF_ENDS = 0.02, 0.1
# Where a value is cut off, its last step holds more than so many times what the next ones do.
_CUT_OFF = 3
# So many values of a section are looked at, where they have 16 bits.
_ENOUGH = 1_000_000


@dataclass(frozen=True)
class Int8Scale:
    """``density = offset + step * value`` with values from -127 to 127."""

    offset: float
    step: float

    def values(self, densities: NDArray[Any]) -> NDArray[np.int8]:
        """The values of some densities."""
        return np.clip(np.rint((densities.astype(np.float32) - self.offset) / self.step), -127, 127).astype(np.int8)

    @property
    def label(self) -> str:
        """The line of a header."""
        return f"CryoLithe int8: density = {self.offset:.6g} + {self.step:.6g} * value"

    @property
    def record(self) -> dict[str, Any]:
        """The entry of a record."""
        return {"scaling": {"density": "offset + step * value", "offset": self.offset, "step": self.step}}


def wraps(values: NDArray[Any]) -> bool:
    """Whether sections of signed bytes, or of signed 16-bit integers, shape ``(z, y, x)``, can only be unsigned ones.

    Grey values about 128 become both ends of -128 to 127, and hardly any is left about 0, where the tails of their
    histogram lie. It falls away on one side at least of where the ends meet, and shows nothing that was cut off there:
    else dark gold on bright ice, or the like, may fill both ends.
    """
    sections = values[[0, len(values) // 2, len(values) - 1]]
    if sections.dtype.itemsize == 2:
        sections = _as_bytes(sections)
    counts = np.bincount(sections.view("u1").ravel(), minlength=256) / sections.size  # 128 stands for -128
    ends = counts[128 - _ENDS : 128][::-1], counts[128 : 128 + _ENDS]
    middle = counts[:_MIDDLE].sum() + counts[256 - _MIDDLE :].sum()
    least, most = sorted(float(end.sum()) for end in ends)
    if least < _LEAST_AT_END or middle > _MOST_OF_ENDS * (least + most):
        return False
    if any(end[0] > _CUT_OFF * end[1:5].mean() for end in ends):
        return False
    lesser = min(ends, key=lambda end: float(end.sum()))
    near, next_to_it, far = lesser[: _ENDS // 4], lesser[_ENDS // 4 : _ENDS // 2], lesser[_ENDS // 2 :]
    return bool(near.mean() > 0.9 * next_to_it.mean() and next_to_it.mean() > 0.9 * far.mean())


def _as_bytes(sections: NDArray[Any]) -> NDArray[np.int8]:
    """16-bit values as bytes whose ends hold what theirs do: upper bits, or lower ones where the ends are narrow."""
    step = max(1, math.isqrt(sections[0].size // _ENOUGH))
    sections = sections[:, ::step, ::step]
    high = sections >= 0
    from_end = np.where(high, 32767 - sections.astype("i4"), sections.astype("i4") + 32768)
    sides = [side for side in (from_end[high], from_end[~high]) if side.size]
    reach = min(float(np.percentile(side, 99)) for side in sides)
    dropped = next((bits for bits in range(8) if reach < _ENDS << bits), 8)
    near = np.minimum(from_end >> dropped, 127)
    return np.where(high, 127 - near, near - 128).astype("i1")


def int8_scale(statistics: VolumeStatistics) -> Int8Scale:
    """The scale that spans a volume, or `SIGMAS` deviations about its mean if that is less."""
    reach = max(statistics.maximum - statistics.mean, statistics.mean - statistics.minimum)
    reach = min(reach, SIGMAS * statistics.rms)
    return Int8Scale(statistics.mean, reach / 127 if reach > 0 else 1.0)
