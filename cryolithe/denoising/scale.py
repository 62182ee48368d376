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


@dataclass(frozen=True)
class GreyScale:
    """Turns grey levels into what the network takes: ``(v - centre) / unit``, clipped at ±``LIMIT``.

    Attributes:
        centre: the median.
        unit: ``SIGMAS_PER_UNIT`` robust standard deviations.
    """

    centre: float
    unit: float

    def apply(self, plane: NDArray[Any]) -> NDArray[np.float32]:
        """Scaled values, float32; what is not finite becomes 0, the median."""
        values = np.asarray(plane, dtype=np.float32)
        scaled = np.clip((values - np.float32(self.centre)) / np.float32(self.unit), -LIMIT, LIMIT)
        return np.where(np.isfinite(values), scaled, np.float32(0))

    def undo(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """Back to grey levels, float32."""
        return plane * np.float32(self.unit) + np.float32(self.centre)


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
    sampled: list[NDArray[np.float32]] = []
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
            sampled.append(np.asarray(flat[::step], dtype=np.float32))
        advance()
    if bad and not repair:
        raise InputError(
            f"{where}: {count} voxels in {_ranges(bad)} are not finite numbers; give --fix-nonfinite to replace them "
            "by the median"
        )
    if not usable.any():
        raise InputError(f"{where}: all {planes} planes are constant, so there is nothing to denoise")
    return Survey(robust_scale(np.concatenate(sampled)), usable, count, digest.hexdigest())


def robust_scale(values: NDArray[np.float32]) -> GreyScale:
    """Scale from the middle of the distribution, which a few per cent of outliers do not move."""
    low, centre, high = np.percentile(values, (15.865, 50.0, 84.135))
    sigma = float(high - low) / 2
    if not sigma > 0:  # more than half of the values are equal
        sigma = clipped_sigma(values - np.float32(centre)) or float(values.std(dtype=np.float64)) or 1.0
    return GreyScale(float(centre), SIGMAS_PER_UNIT * sigma)


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
