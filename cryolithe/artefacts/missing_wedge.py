"""The missing wedge that a volume shows, against the tilt range that somebody told.

A volume that is linear in its images holds nothing at frequencies that no image measured: by orders of magnitude less
than beside them, where there is noise at least. Networks, iterations with constraints and filters that are not linear
fill the wedge, and of them nothing is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import central

Array = NDArray[Any]
FloatArray = NDArray[np.float64]
AXES = "zyx"
# Of the volume's middle the most voxels along an axis, and the fewest in which directions can be told apart.
LONGEST, FEWEST = 160, 32
# Cycles per voxel in the plane across the tilt axis, and in all: what is coarser is wide in angle, for want of voxels.
BAND_PER_PX, MOST_PER_PX = (0.2, 0.45), 0.48
BIN_DEG, SHELLS = 4.0, 96  # of directions; and a cycle per voxel has so many shells
# Of the median power where there is any: nothing, and beyond the edge of the wedge; and bins that reach it, at most.
NOTHING, EDGE, MOST_BLURRED = 0.03, 0.4, 3
# Power of a direction, which in what is linear in images is even where it holds anything: weights by dose make it fall
# with the tilt by orders of magnitude, without an edge.
MOST_UNEVEN = 30.0
NARROWEST_DEG, WIDEST_DEG = 25.0, 150.0
NARROWEST_TURNED_DEG = 30.0  # ... about another axis than y
# Between what is told and what is seen: images are some degrees apart.
TOLERANCE_DEG = 7.0


@dataclass(frozen=True)
class SeenWedge:
    """Where a volume holds something.

    Attributes:
        tilt_axis: "y", or the axis about which its wedge lies.
        beam: axis in the middle of the wedge: "z" where it is as it should be.
        tilt_range_deg: lowest and highest tilt that it holds anything of; of a tilt axis along y and a beam along z.
    """

    tilt_axis: str
    beam: str
    tilt_range_deg: tuple[float, float]

    @property
    def is_upright(self) -> bool:
        """Whether the tilt axis lies along y and the beam along z."""
        return (self.tilt_axis, self.beam) == ("y", "z")


def seen_wedge(volume: Array) -> SeenWedge | None:
    """The missing wedge of a volume ``(z, y, x)``; None where it shows none."""
    middle = np.asarray(volume[central((volume.shape[0], volume.shape[1], volume.shape[2]), LONGEST)], np.float32)
    if min(middle.shape) < FEWEST:
        return None
    middle = middle - np.float32(middle.mean())
    for axis, size in enumerate(middle.shape):
        window = np.hanning(size + 2)[1:-1].astype(np.float32)
        middle *= window.reshape([-1 if other == axis else 1 for other in range(3)])
    power = np.asarray(np.abs(scipy.fft.rfftn(middle)) ** 2, np.float32)
    frequency = [scipy.fft.fftfreq(size) for size in middle.shape[:2]] + [scipy.fft.rfftfreq(middle.shape[2])]
    k = np.meshgrid(*(values.astype(np.float32) for values in frequency), indexing="ij", sparse=True)
    radius = np.sqrt(k[0] ** 2 + k[1] ** 2 + k[2] ** 2)
    power /= np.maximum(_by_shell(radius, power), np.float32(1e-30))
    candidates: list[tuple[float, SeenWedge]] = []
    for axis in range(3):
        across = [other for other in range(3) if other != axis]
        found = _empty_sector(_by_direction(k, radius, power, across))
        if found is not None:
            middle_deg, half_deg = found
            beam = across[0] if abs(middle_deg) > 45 else across[1]
            turned = middle_deg % 180 - 90  # of the middle of the range of tilts
            seen = SeenWedge(AXES[axis], AXES[beam], (turned - (90 - half_deg), turned + (90 - half_deg)))
            if seen.is_upright or half_deg >= NARROWEST_TURNED_DEG / 2:
                candidates.append((half_deg, seen))
    # Seen about another axis, a wedge is narrower: there are few measured frequencies near its middle, not none.
    return max(candidates, key=lambda one: one[0])[1] if candidates else None


def wedge_doubts(volume: Array, name: str, tilt_range_deg: tuple[float, float], flag: str) -> tuple[str, ...]:
    """What a volume shows against a tilt range.

    Args:
        volume: shape ``(z, y, x)``.
        name: of it.
        tilt_range_deg: told or supposed.
        flag: by which a user tells it.
    """
    seen = seen_wedge(volume)
    if seen is None:
        return ()
    if not seen.is_upright:
        return (
            f"the missing wedge of {name} lies about {seen.tilt_axis}, with the beam along {seen.beam}, where a tilt "
            "axis along y and a beam along z are taken: turn the volume, else what is measured and what is missing is "
            "mixed up",
        )
    (low, high), (seen_low, seen_high) = tilt_range_deg, seen.tilt_range_deg
    told = f"the tilt range is taken for {low:g}° to {high:g}°, but {name} shows tilts from"
    advice = f"tell the right range with {flag}"
    if max(abs(low - seen_low), abs(high - seen_high)) <= TOLERANCE_DEG:
        return ()
    if max(abs(low + seen_high), abs(high + seen_low)) <= TOLERANCE_DEG:
        advice = f"its z runs the other way than the angles say, or {flag} has the other sign"
    return (f"{told} {seen_low:.0f}° to {seen_high:.0f}°: {advice}",)


def holds_nothing(volume: Array, name: str, tilt_range_deg: tuple[float, float]) -> tuple[str, ...]:
    """What a volume, which may be of other images, lacks of a tilt range."""
    seen = seen_wedge(volume)
    if seen is None or not seen.is_upright:
        return ()
    low, high = tilt_range_deg
    if low >= seen.tilt_range_deg[0] - TOLERANCE_DEG and high <= seen.tilt_range_deg[1] + TOLERANCE_DEG:
        return ()
    return (
        f"{name} holds nothing beyond tilts of {seen.tilt_range_deg[0]:.0f}° and {seen.tilt_range_deg[1]:.0f}°, but "
        f"{low:g}° to {high:g}° count as measured",
    )


def _by_shell(radius: Array, power: Array) -> Array:
    """Mean power of the shell of each frequency."""
    shell = np.minimum((radius * SHELLS).astype(np.int32), SHELLS - 1)
    count = np.maximum(np.bincount(shell.ravel(), minlength=SHELLS), 1)
    mean = np.bincount(shell.ravel(), power.ravel(), SHELLS) / count
    return np.asarray(mean.astype(np.float32)[shell])


def _by_direction(k: Sequence[Array], radius: Array, power: Array, across: list[int]) -> FloatArray:
    """Mean power by direction in the plane of two axes, in bins from -90° to 90° from the second one."""
    first, second = k[across[0]], k[across[1]]
    distance = np.sqrt(first**2 + second**2) + np.zeros_like(radius)
    kept = (distance >= BAND_PER_PX[0]) & (distance <= BAND_PER_PX[1]) & (radius <= MOST_PER_PX)
    angle = np.rad2deg(np.arctan2(first, second)) + np.zeros_like(radius)
    bins = int(180 / BIN_DEG)
    number = np.floor((angle[kept] + 90) / BIN_DEG).astype(np.int64) % bins
    return np.bincount(number, power[kept], bins) / np.maximum(np.bincount(number, minlength=bins), 1)


def _empty_sector(power: FloatArray) -> tuple[float, float] | None:
    """Middle (-90° to 90°) and half of the width of the one sector with nothing; None without sharp edges."""
    if not np.isfinite(power).all():
        return None
    level = float(np.median(power[power >= np.median(power)]))
    if not level > 0 or power.max() > MOST_UNEVEN * level:
        return None
    share = power / level
    empty = share < NOTHING
    if not empty.any() or empty.all():
        return None
    starts = np.flatnonzero(empty & ~np.roll(empty, 1))
    if len(starts) != 1:
        return None
    start, count = int(starts[0]), int(empty.sum())
    # From the empty bins outwards to the first that holds something: the edges lie within the bins between.
    low_deg, high_deg = start * BIN_DEG - 90, (start + count) * BIN_DEG - 90
    low = low_deg - BIN_DEG * _emptied(np.roll(share, -start)[::-1])
    high = high_deg + BIN_DEG * _emptied(np.roll(share, -(start + count)))
    if not NARROWEST_DEG <= high - low <= WIDEST_DEG:  # nor where an edge is not sharp
        return None
    middle = ((low + high) / 2 + 90) % 180 - 90
    return middle, (high - low) / 2


def _emptied(share: FloatArray) -> float:
    """How many bins beyond an edge hold nothing: parts of the first ones; NaN where none of them holds something."""
    held = np.flatnonzero(share[:MOST_BLURRED] >= EDGE)
    return float(np.clip(1 - share[: held[0] + 1], 0, 1).sum()) if held.size else float("nan")
