"""Tilt schemes: which angles are recorded, in which order, and how much exposure the specimen has had by then.

Orders
    linear           from one end of the range to the other.
    bidirectional    from the start angle to one end, then from beside the start angle to the other end.
    dose-symmetric   from the start angle outwards, groups of images on alternating sides (Hagen, Wan & Briggs 2017,
                     J. Struct. Biol. 197, 191-198); a group of 2 gives 0, 3, 6, -3, -6, 9, 12, -9, -12 ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import GeometryError, SettingsError, nearest_name
from cryolithe.geometry import check_angles_deg

SchemeKind = Literal["linear", "bidirectional", "dose-symmetric"]
KINDS: tuple[str, ...] = get_args(SchemeKind)
LARGEST_GROUP = 3
MOST_TILTS = 1000  # more is a slip of the step


@dataclass(frozen=True)
class TiltPlan:
    """The tilts of a series, in stack order: ascending angles.

    Attributes:
        angles_deg: tilt angles, ascending.
        order: when each image was recorded: 0 is the first one.
        exposure_before: exposure of the specimen before each image, e/Å².
        exposure: exposure during each image, e/Å².

    Raises:
        GeometryError: if the angles can belong to no tilt series or are not ascending.
        SettingsError: if the four do not belong together or an exposure is impossible.
    """

    angles_deg: tuple[float, ...]
    order: tuple[int, ...]
    exposure_before: tuple[float, ...]
    exposure: tuple[float, ...]

    def __post_init__(self) -> None:
        check_angles_deg(self.angles_deg)
        if any(b < a for a, b in zip(self.angles_deg, self.angles_deg[1:], strict=False)):
            raise GeometryError("the angles of a tilt plan must ascend; sort the images by tilt angle")
        tilts = len(self.angles_deg)
        if not tilts == len(self.order) == len(self.exposure_before) == len(self.exposure):
            raise SettingsError(f"a plan of {tilts} tilts needs an order, an earlier exposure and an exposure for each")
        if sorted(self.order) != list(range(tilts)):
            raise SettingsError(f"the acquisition order must hold each of 0 ... {tilts - 1} once")
        values = (*self.exposure_before, *self.exposure)
        if not all(math.isfinite(v) and v >= 0 for v in values) or min(self.exposure) <= 0:
            raise SettingsError("exposures must be finite, not negative, and above 0 during an image (e/Å²)")

    @property
    def tilts(self) -> int:
        """Number of tilt images."""
        return len(self.angles_deg)

    @property
    def exposure_middle(self) -> tuple[float, ...]:
        """Accumulated exposure half-way through each image, e/Å²."""
        return tuple(b + e / 2 for b, e in zip(self.exposure_before, self.exposure, strict=True))

    @property
    def total_exposure(self) -> float:
        """Exposure of the whole series, e/Å²."""
        return float(sum(self.exposure))


@dataclass(frozen=True)
class TiltScheme:
    """How a tilt series is recorded.

    Attributes:
        kind: "linear", "bidirectional" or "dose-symmetric".
        range_deg: lowest and highest angle before the pre-tilt is added.
        step_deg: step between neighbouring tilts.
        pretilt_deg: angle at which bidirectional and dose-symmetric series start; the range is centred on it.
        group: images on one side before a dose-symmetric series changes sides, 1 to 3.
        jitter_deg: standard deviation of the irregularity of the angles.
        missing: images at drawn places that are left out of the stack though the specimen was exposed.
        total_exposure: exposure of the whole series, missing images included, e/Å².

    Raises:
        GeometryError: if the range is empty, reaches beyond ±90° or the step does not fit it.
        SettingsError: if another value is out of range.
    """

    kind: SchemeKind = "dose-symmetric"
    range_deg: tuple[float, float] = (-60.0, 60.0)
    step_deg: float = 3.0
    pretilt_deg: float = 0.0
    group: int = 1
    jitter_deg: float = 0.0
    missing: int = 0
    total_exposure: float = 120.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingsError(f"unknown tilt scheme '{self.kind}'{nearest_name(self.kind, KINDS)}; known: {KINDS}")
        low, high = self.range_deg
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise GeometryError(f"a tilt range goes from a lower to a higher angle, got {low}° to {high}°")
        if not math.isfinite(self.pretilt_deg) or max(abs(low + self.pretilt_deg), abs(high + self.pretilt_deg)) > 90:
            raise GeometryError(f"tilts from {low}° to {high}° around {self.pretilt_deg}° do not lie within ±90°")
        if not (0 < self.step_deg <= high - low) or (high - low) / self.step_deg >= MOST_TILTS:
            raise GeometryError(f"the tilt step must be above 0° and fit into {high - low:g}°, got {self.step_deg}°")
        if not 1 <= self.group <= LARGEST_GROUP:
            raise SettingsError(f"dose-symmetric groups hold 1 to {LARGEST_GROUP} images, got {self.group}")
        if not (0 <= self.jitter_deg < math.inf):
            raise SettingsError(f"the jitter of the angles must be 0° or more, got {self.jitter_deg}")
        if not (0 < self.total_exposure < math.inf):
            raise SettingsError(f"the total exposure must be positive (e/Å²), got {self.total_exposure}")
        count = nominal_angles_deg(self).size
        if count < 2:
            raise GeometryError(
                f"steps of {self.step_deg:g}° make {count} tilt between {low:g}° and {high:g}°, expected 2 or more; "
                "take smaller steps or a wider range"
            )
        if not 0 <= self.missing <= count - 2:
            raise SettingsError(f"of {count} tilts at most {count - 2} can be missing, got {self.missing}")


def nominal_angles_deg(scheme: TiltScheme) -> NDArray[np.float64]:
    """Evenly spaced angles of a scheme, ascending, shape ``(tilts,)``; one of them is the pre-tilt if 0 is in range."""
    low, high = scheme.range_deg
    slack = 1e-6
    if low <= 0 <= high:
        steps = np.arange(-math.floor(-low / scheme.step_deg + slack), math.floor(high / scheme.step_deg + slack) + 1.0)
    else:
        steps = np.arange(math.floor((high - low) / scheme.step_deg + slack) + 1) + low / scheme.step_deg
    return np.asarray(scheme.pretilt_deg + steps * scheme.step_deg, dtype=np.float64)


def swept_angles_deg(reach_deg: float, step_deg: float, middle_deg: float) -> tuple[float, ...]:
    """Evenly spaced angles from one end of a range on, ascending; the middle of the range need not be one of them.

    Args:
        reach_deg: half of the range; what lies beyond ±90° is left out.
        step_deg: step between neighbouring tilts.
        middle_deg: middle of the range.
    """
    angles = middle_deg + np.arange(-reach_deg, reach_deg + 1e-6, step_deg)
    return tuple(angles[np.abs(angles) <= 90])


def acquisition_order(offsets_deg: NDArray[np.float64], kind: SchemeKind, group: int = 1) -> NDArray[np.int64]:
    """When each image is recorded.

    Args:
        offsets_deg: angles minus the start angle, ascending, shape ``(tilts,)``.
        kind: the scheme; branched schemes go to positive angles first.
        group: images on one side before a dose-symmetric series changes sides.

    Returns:
        0 for the first image, 1 for the second ..., in the order of ``offsets_deg``, shape ``(tilts,)``.
    """
    tilts = offsets_deg.size
    if kind == "linear":
        return np.arange(tilts)
    start = int(np.abs(offsets_deg).argmin())
    up, down = list(range(start + 1, tilts)), list(range(start - 1, -1, -1))
    sequence = [start]
    if kind == "bidirectional":
        sequence += up + down
    else:
        while up or down:
            sequence += up[:group] + down[:group]
            up, down = up[group:], down[group:]
    order = np.empty(tilts, dtype=np.int64)
    order[sequence] = np.arange(tilts)
    return order


def plan_tilts(scheme: TiltScheme, rng: np.random.Generator) -> TiltPlan:
    """Draw the tilts of a series.

    The exposure is shared evenly over the images; missing ones have exposed the specimen all the same.

    Args:
        scheme: how the series is recorded.
        rng: draws the jitter and the missing images.

    Raises:
        GeometryError: if so much jitter clips all angles to ±90°.
    """
    nominal = nominal_angles_deg(scheme)
    order = acquisition_order(nominal - scheme.pretilt_deg, scheme.kind, scheme.group)
    angles = np.clip(nominal + scheme.jitter_deg * rng.standard_normal(nominal.size), -90.0, 90.0)
    exposure = scheme.total_exposure / nominal.size
    kept = np.sort(rng.permutation(nominal.size)[scheme.missing :])
    kept = kept[np.argsort(angles[kept], kind="stable")]
    return TiltPlan(
        angles_deg=tuple(float(a) for a in angles[kept]),
        order=tuple(int(n) for n in np.argsort(np.argsort(order[kept]))),
        exposure_before=tuple(float(n * exposure) for n in order[kept]),
        exposure=(float(exposure),) * kept.size,
    )
