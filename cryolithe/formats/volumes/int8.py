"""8-bit values: how densities become them, how a header and a record tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats.stacks.mrc_header import VolumeStatistics

# Standard deviations about the mean that 8-bit values span at most; gold beyond that is cut off.
SIGMAS = 10.0


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


def int8_scale(statistics: VolumeStatistics) -> Int8Scale:
    """The scale that spans a volume, or `SIGMAS` deviations about its mean if that is less."""
    reach = max(statistics.maximum - statistics.mean, statistics.mean - statistics.minimum)
    reach = min(reach, SIGMAS * statistics.rms)
    return Int8Scale(statistics.mean, reach / 127 if reach > 0 else 1.0)
