"""Grey levels for the network: robust against hot voxels and gold, undone at the exit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.formats.alignment.imod_command import runs_of
from cryolithe.images import clipped_sigma

SIGMAS_PER_UNIT = 5.0  # noise then spans about -1 ... 1, as published
LIMIT = 2.0  # 10 standard deviations: only hot voxels and gold lie beyond
_PLANES, _VALUES = 48, 2_000_000
_FLOAT32: np.dtype[Any] = np.dtype(np.float32)


@dataclass(frozen=True)
class GreyScale:
    """Turns grey levels into what the network takes: ``(v - centre) / unit``, clipped at ±``LIMIT``.

    Attributes:
        centre: the median.
        unit: ``SIGMAS_PER_UNIT`` robust standard deviations.
        dtype: in which the centre is taken off and added again, see `exact_dtype`.
    """

    centre: float
    unit: float
    dtype: np.dtype[Any] = _FLOAT32

    def apply(self, plane: NDArray[Any]) -> NDArray[np.float32]:
        """Scaled values, float32; what is not finite becomes 0, the median."""
        if plane.ndim > 2 and self.dtype != _FLOAT32:  # wide copies of one plane at a time
            return np.stack([self.apply(one) for one in plane])
        values = np.asarray(plane, dtype=self.dtype)
        centre, unit = self.dtype.type(self.centre), self.dtype.type(self.unit)
        scaled = np.clip((values - centre) / unit, -LIMIT, LIMIT).astype(np.float32, copy=False)
        return np.where(np.isfinite(values), scaled, np.float32(0))

    def levels(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Grey levels of a plane in ``dtype``; what is not finite is the median."""
        values = np.asarray(plane, dtype=self.dtype)
        return np.where(np.isfinite(values), values, self.dtype.type(self.centre))

    def undo(self, plane: NDArray[np.float32]) -> NDArray[Any]:
        """Back to grey levels, in ``dtype``."""
        wide = plane.astype(self.dtype, copy=False)  # NumPy 1 would not widen it for a scalar
        return np.asarray(wide * self.dtype.type(self.unit) + self.dtype.type(self.centre), self.dtype)


@dataclass(frozen=True)
class Survey:
    """What a look at all planes of a volume found.

    Attributes:
        scale: for the network.
        usable: of each plane, whether it has any contrast, shape ``(z,)``.
        repaired: values that were not finite.
        sha256: of all planes as read.
    """

    scale: GreyScale
    usable: NDArray[np.bool_]
    repaired: int
    sha256: str


def exact_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Float32 for values that it holds, else float64: beside a large constant float32 keeps little of what varies."""
    return _FLOAT32 if np.can_cast(dtype, np.float32) else np.dtype(np.float64)


def survey(
    read: Callable[[int], NDArray[Any]], planes: int, repair: bool, where: str, advance: Callable[[], object] = int
) -> Survey:
    """Look at every plane once.

    Args:
        read: plane z, shape ``(y, x)``.
        planes: their number.
        repair: whether values that are not finite are allowed; they are taken for the median later.
        where: name of the volume for messages.
        advance: called after each plane.

    Raises:
        InputError: if values are not finite and are not to be repaired, or all planes are constant.
    """
    usable = np.zeros(planes, dtype=bool)
    bad: list[int] = []
    count = 0
    sampled: list[NDArray[Any]] = []
    every = max(1, planes // _PLANES)
    digest = hashlib.sha256()
    for z in range(planes):
        plane = read(z)
        digest.update(np.ascontiguousarray(plane, dtype=plane.dtype.newbyteorder("=")).data)
        if plane.dtype.kind == "f":
            good = np.isfinite(plane)
            wrong = plane.size - int(np.count_nonzero(good))
            if wrong:
                count += wrong
                bad.append(z)
                plane = plane[good]
        usable[z] = plane.size > 0 and plane.min() != plane.max()
        if usable[z] and (z % every == 0 or len(sampled) < 3):
            flat = plane.ravel()
            step = max(1, flat.size * min(planes, _PLANES) // _VALUES)
            sampled.append(np.asarray(flat[::step], dtype=exact_dtype(flat.dtype)))
        advance()
    if bad and not repair:
        raise InputError(
            f"{where}: {count} voxels in {_ranges(bad)} are not finite numbers; give --fix-nonfinite to replace them "
            "by the median"
        )
    if not usable.any():
        raise InputError(f"{where}: all {planes} planes are constant, so there is nothing to denoise")
    return Survey(robust_scale(np.concatenate(sampled)), usable, count, digest.hexdigest())


def robust_scale(values: NDArray[Any]) -> GreyScale:
    """Scale from the middle of the distribution, which a few per cent of outliers do not move.

    Args:
        values: in the type in which the scale is to be used, float32 or float64.
    """
    low, centre, high = np.percentile(values, (15.865, 50.0, 84.135))
    sigma = float(high - low) / 2
    if not sigma > 0:  # more than half of the values are equal
        sigma = clipped_sigma(values - values.dtype.type(centre)) or float(values.std(dtype=np.float64)) or 1.0
    return GreyScale(float(centre), SIGMAS_PER_UNIT * sigma, values.dtype)


def _ranges(numbers: Sequence[int]) -> str:
    """``planes 1-3, 7, ...``, counted from 1."""
    runs = runs_of([number + 1 for number in numbers])
    more = f" and {len(runs) - 5} more ranges" if len(runs) > 5 else ""
    return f"plane{'s' if len(numbers) > 1 else ''} {', '.join(runs[:5])}{more}"


def describe_planes(usable: NDArray[np.bool_]) -> str | None:
    """Words on constant planes, or None if there are none."""
    constant = [int(z) for z in np.flatnonzero(~usable)]
    if not constant:
        return None
    return f"{_ranges(constant)} of {usable.size} are constant: left out of training, copied as they are"
