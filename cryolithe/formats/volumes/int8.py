"""8-bit values: how densities become them, how a header and a record tell of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats.stacks.mrc_header import VolumeStatistics

# Standard deviations about the mean that 8-bit values span at most; gold beyond that is cut off.
SIGMAS = 10.0
# So few voxels beyond that are some spikes of noise, or of a defect of the camera.
FEW_VOXELS = 8
_LABEL = re.compile(r"CryoLithe int8: density = (\S+) \+ (\S+) \* value$")


@dataclass(frozen=True)
class Int8Scale:
    """``density = offset + step * value`` with values from -127 to 127."""

    offset: float
    step: float

    def values(self, densities: NDArray[Any]) -> NDArray[np.int8]:
        """The values of some densities."""
        return np.clip(np.rint((densities.astype(np.float32) - self.offset) / self.step), -127, 127).astype(np.int8)

    def cut(self, densities: NDArray[Any]) -> int:
        """How many of some densities are beyond the limits, so that the nearest value is not within half a step."""
        apart = np.abs(densities.astype(np.float32) - np.float32(self.offset))
        return int(np.count_nonzero(apart > 127.5 * self.step))

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest density that is told."""
        return self.offset - 127 * self.step, self.offset + 127 * self.step

    @property
    def told(self) -> dict[str, Any]:
        """What a record tells of it: how densities are told, and between which limits."""
        told = {"density": "offset + step * value", "offset": self.offset, "step": self.step}
        return {**told, "limits": list(self.limits)}

    def densities(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """What stored values stand for."""
        return np.asarray(values, dtype=np.float32) * np.float32(self.step) + np.float32(self.offset)

    @property
    def label(self) -> str:
        """The line of a header."""
        return f"CryoLithe int8: density = {self.offset:.6g} + {self.step:.6g} * value"


def scale_told(labels: Sequence[str]) -> Int8Scale | None:
    """The scale that the last line of a header tells; after any other line the values may be another program's."""
    found = _LABEL.match(labels[-1]) if labels else None
    if found is None:
        return None
    try:
        return Int8Scale(float(found[1]), float(found[2]))
    except ValueError:
        return None


@dataclass
class Int8Values:
    """Makes 8-bit values of the parts of a volume, and counts what is cut off.

    Attributes:
        scale: of the values.
        voxels: of all parts so far.
        cut: of these, those beyond the limits.
    """

    scale: Int8Scale
    voxels: int = 0
    cut: int = 0

    def __call__(self, densities: NDArray[Any]) -> NDArray[np.int8]:
        """The values of some densities."""
        self.voxels += densities.size
        self.cut += self.scale.cut(densities)
        return self.scale.values(densities)

    @property
    def record(self) -> dict[str, Any]:
        """The entry of a record: how densities are told, between which limits, how many voxels are beyond them."""
        return {"scaling": {**self.scale.told, "cut_voxels": self.cut}}

    def note(self, volume: str = "the volume") -> str:
        """A line for the user, a warning if the voxels are more than a few; empty where none is cut off."""
        if not self.cut:
            return ""
        low, high = self.scale.limits
        some = "1 voxel" if self.cut == 1 else f"{self.cut} voxels"
        return (
            f"{'Warning: ' if self.cut > FEW_VOXELS else ''}{some} of {volume} ({100 * self.cut / self.voxels:.2g} %) "
            f"cut off at the limits of int8, densities of {low:.4g} and {high:.4g} ({SIGMAS:g} standard deviations "
            "about the mean), as gold beads are; --dtype float16 or float32 keeps them"
        )


def int8_scale(statistics: VolumeStatistics) -> Int8Scale:
    """The scale that spans a volume, or `SIGMAS` deviations about its mean if that is less."""
    reach = max(statistics.maximum - statistics.mean, statistics.mean - statistics.minimum)
    reach = min(reach, SIGMAS * statistics.rms)
    return Int8Scale(statistics.mean, reach / 127 if reach > 0 else 1.0)
