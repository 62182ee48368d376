"""The arrays of a pair on one grid: axes put right, binned about the tilt axis, trimmed alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.curation.manifest import Manifest, PairEntry
from cryolithe.errors import InputError
from cryolithe.images import binned_size, fourier_crop


@dataclass(frozen=True)
class Field:
    """The part of the binned images and of the target that both show, with the tilt axis in the middle.

    Attributes:
        rows: of the binned images.
        columns: of the binned images; symmetric about the tilt axis.
        target_rows: the same rows, counted in the target.
        target_columns: the same columns, counted in the target.
        target_planes: planes of the target; symmetric about its middle.
    """

    rows: slice
    columns: slice
    target_rows: slice
    target_columns: slice
    target_planes: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along ``(z, y, x)``."""
        z, y, x = (s.stop - s.start for s in (self.target_planes, self.rows, self.columns))
        return z, y, x


def oriented(stored: NDArray[Any], manifest: Manifest) -> NDArray[Any]:
    """View a target as it lies in its file as ``(z, y, x)`` with our direction of z; nothing is read."""
    volume = stored.transpose(1, 0, 2) if manifest.target_axes == "xzy" else stored
    return volume[::-1] if manifest.target_flip_z else volume


def kept_tilts(pair: PairEntry, tilts: int) -> tuple[int, ...]:
    """Indices (from 0) of the images that are used.

    Raises:
        InputError: if a tilt that is to be excluded does not exist, or fewer than 3 are left.
    """
    beyond = [number for number in pair.exclude_tilts if number > tilts]
    if beyond:
        raise InputError(f"exclude_tilts names tilt {beyond[0]}, but the stack holds {tilts} (counted from 1)")
    kept = tuple(n for n in range(tilts) if n + 1 not in pair.exclude_tilts)
    if len(kept) < 3:
        raise InputError(f"exclude_tilts leaves {len(kept)} of {tilts} tilts; expected at least 3")
    return kept


def shared_field(
    manifest: Manifest, pair: PairEntry, image_shape: tuple[int, int], target_shape: tuple[int, int, int]
) -> Field:
    """Find the field that images and target share.

    Args:
        manifest: says what to keep.
        pair: says where the target was trimmed.
        image_shape: of the binned images, ``(y, x)``.
        target_shape: of the binned target, ``(z, y, x)``.

    Raises:
        InputError: if the shapes differ and no ``offset_px`` explains it, or nothing is shared.
    """
    offset = pair.offset_px
    if offset is None:
        if tuple(image_shape) != tuple(target_shape[1:]):
            centred = [(i - t) // 2 for i, t in zip(image_shape, target_shape[1:], strict=True)]
            raise InputError(
                f"the target has {target_shape[1]} x {target_shape[2]} voxels along y and x, expected the binned "
                f"images' {image_shape[0]} x {image_shape[1]}; check binning, target_binning and target_axes, or, if "
                f"the target was trimmed, give offset_px (trimmed equally: {centred})"
            )
        offset = (0, 0)
    y0, x0 = max(0, offset[0]), max(0, offset[1])
    y1, x1 = (min(image_shape[a], offset[a] + target_shape[a + 1]) for a in (0, 1))
    # The tilt axis must stay in the middle: cut the side that reaches further from it.
    margin = max(x0, image_shape[1] - x1)
    x0, x1 = margin, image_shape[1] - margin
    if manifest.rows_px:
        first, end = manifest.rows_px
        if end > y1 - y0:
            raise InputError(f"rows_px asks for rows up to {end}, but images and target share {y1 - y0}")
        y0, y1 = y0 + first, y0 + end
    planes = manifest.thickness_px or target_shape[0]
    if planes > target_shape[0] or (target_shape[0] - planes) % 2:
        raise InputError(
            f"thickness_px is {planes}, but the target has {target_shape[0]} planes; expected at most as many, and "
            "an even number less, so that the tilt axis stays in the middle"
        )
    if min(y1 - y0, x1 - x0) < 8:
        raise InputError(
            f"with offset_px {list(offset)} images of {image_shape[0]} x {image_shape[1]} and a target of "
            f"{target_shape[1]} x {target_shape[2]} share {max(0, y1 - y0)} x {max(0, x1 - x0)} pixels; "
            "expected 8 or more"
        )
    z0 = (target_shape[0] - planes) // 2
    return Field(
        slice(y0, y1),
        slice(x0, x1),
        slice(y0 - offset[0], y1 - offset[0]),
        slice(x0 - offset[1], x1 - offset[1]),
        slice(z0, z0 + planes),
    )


def binned_depth(planes: int, factor: int) -> tuple[int, int, bool]:
    """How planes are grouped by `binned_planes`: number of groups, first plane, whether groups share end planes.

    Groups lie symmetrically about the middle. Where that would need half a plane, each group takes one plane more
    and its two end planes count half.
    """
    groups = planes // factor
    shared = (planes - groups * factor) % 2 == 1
    if factor == 1 or not shared:
        return groups, (planes - groups * factor) // 2, False
    return groups, (planes - groups * factor - 1) // 2, True


def binned_planes(planes: Iterable[NDArray[Any]], count: int, factor: int) -> Iterator[NDArray[np.float32]]:
    """Yield the planes of a binned volume, top to bottom: Fourier-cropped along y and x, averaged along z.

    Args:
        planes: the volume's planes, shape ``(y, x)`` each, top to bottom.
        count: how many.
        factor: at least 1.
    """
    groups, first, shared = binned_depth(count, factor)
    total: NDArray[np.float32] | float = 0.0
    for position, plane in enumerate(planes, start=-first):
        if not 0 <= position < groups * factor + int(shared):
            continue
        part = np.asarray(plane, dtype=np.float32) / np.float32(factor)
        border = shared and position % factor == 0  # belongs to two groups, half to each
        total = total + (part / 2 if border else part)
        if (position and position % factor == (0 if shared else factor - 1)) or factor == 1:
            yield fourier_crop(np.asarray(total, dtype=np.float32), factor)
            total = part / 2 if border else 0.0


def binned_target_shape(shape: tuple[int, ...], factor: int) -> tuple[int, int, int]:
    """Shape ``(z, y, x)`` of a volume after `binned_planes`.

    Raises:
        SettingsError: if too little would be left.
    """
    return binned_depth(shape[0], factor)[0], binned_size(shape[1], factor), binned_size(shape[2], factor)
