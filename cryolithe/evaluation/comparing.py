"""Whether two volumes can be compared, and the tilt range behind them: for everything that correlates volumes."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import GeometryError, InputError, SettingsError
from cryolithe.geometry import check_tilt_range
from cryolithe.metrics import check_volume
from cryolithe.volume import Volume

VOXEL_SIZE_TOLERANCE = 0.01  # relative: headers round, and refined pixel sizes differ by less than this
SHARED_NETWORK = (
    "both volumes were made by a network and share what it learned, so that they agree better than their images do; "
    "halves of --method fbp tell how far those reach"
)
_NUMBER = r"[+-]?\d+(?:\.\d*)?"


def parse_wedge(text: str, option: str = "--wedge") -> tuple[float, float]:
    """Return the tilt range (lowest, highest) in degrees from ``60``, ``±60``, ``-60,60`` or ``-51:49``.

    Args:
        text: what the user wrote.
        option: named in messages.

    Raises:
        SettingsError: if the text says no tilt range within ±90°.
    """
    plain = text.replace("−", "-").replace("°", "").replace(" ", "")
    single = re.fullmatch(r"(?:±|\+/?-)?(\d+(?:\.\d*)?)", plain)
    pair = re.fullmatch(f"({_NUMBER})[,:]({_NUMBER})", plain)
    if single:
        found = (-float(single[1]), float(single[1]))
    elif pair:
        found = (float(pair[1]), float(pair[2]))
    else:
        raise SettingsError(f"{option}: expected a tilt range such as 60 (for ±60°) or -51,49, got '{text}'")
    try:
        check_tilt_range(found)
    except GeometryError as error:
        raise SettingsError(f"{option}: {error}") from error
    return found


def check_pair(names: tuple[str, str], pair: tuple[Volume, Volume], check_voxel_size: bool, remedy: str) -> None:
    """Raise InputError unless two volumes can be compared voxel by voxel.

    Args:
        names: for messages.
        pair: the volumes.
        check_voxel_size: whether their voxel sizes must be the same.
        remedy: how to give the voxel size of both.
    """
    a, b = pair
    if a.voxels.shape != b.voxels.shape:
        raise InputError(
            f"the volumes differ in shape (z, y, x): {names[0]} has {a.voxels.shape}, {names[1]} has {b.voxels.shape}"
        )
    sizes = (a.voxel_size_angstrom, b.voxel_size_angstrom)
    if check_voxel_size and sizes[0] and sizes[1] and abs(sizes[0] / sizes[1] - 1) > VOXEL_SIZE_TOLERANCE:
        raise InputError(
            f"the volumes differ in voxel size: {names[0]} has {sizes[0]:g} Å, {names[1]} has {sizes[1]:g} Å; "
            f"resample one of them, or give the size of both with {remedy}"
        )
    for name, volume in zip(names, pair, strict=True):
        check_volume(volume.voxels, name)


def doubts_about_mask(sizes_angstrom: tuple[float | None, float | None], names: tuple[str, str]) -> tuple[str, ...]:
    """What tells that a mask may be of another volume.

    Args:
        sizes_angstrom: edges of a voxel of the mask and of the volume. Programs leave 0 or 1 in a mask's header, which
            tells nothing.
        names: of both, for messages.
    """
    of_mask, of_volume = sizes_angstrom
    told = of_mask and of_volume and abs(of_mask - 1) > VOXEL_SIZE_TOLERANCE
    if not (told and of_mask and of_volume and abs(of_mask / of_volume - 1) > VOXEL_SIZE_TOLERANCE):
        return ()
    return (
        f"the mask {names[0]} has voxels of {of_mask:g} Å, {names[1]} of {of_volume:g} Å: it is laid over the volume "
        "voxel by voxel, which is wrong if it was made for another one",
    )


def check_mask(weights: NDArray[np.generic], name: str, volume: Volume, volume_name: str) -> None:
    """Raise InputError if the weights of a mask do not fit a volume or keep nothing."""
    if weights.shape != volume.voxels.shape:
        raise InputError(
            f"the mask {name} has the shape (z, y, x) {weights.shape}, but {volume_name} has {volume.voxels.shape}"
        )
    if not weights.any():
        raise InputError(f"the mask {name} is 0 in all {weights.size} voxels, so there is nothing to compare")
