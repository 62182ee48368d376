"""The tilt images that projections of a volume are compared with: which of them, and where they see it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cryolithe.errors import InputError
from cryolithe.evaluation.comparing import VOXEL_SIZE_TOLERANCE
from cryolithe.evaluation.heldout import Choice, choose_images, held_out_images
from cryolithe.evaluation.in_hand import Judged, Named
from cryolithe.evaluation.reprojection import binning_of
from cryolithe.formats import read_tilt_series
from cryolithe.formats.record import part_of, z_reversed
from cryolithe.reconstruction.recorded_images import prepared_in_memory, recorded_images
from cryolithe.tilts import TiltSeries


@dataclass(frozen=True)
class Images:
    """Tilt images to compare with projections.

    Attributes:
        series: aligned images, their angles with the sign of the volume's z.
        choice: which images, and whether the volume was made without them.
        named: whether the user called them held out.
        x_tilt_deg: by which the volume was turned about x when it was made, see `reproject`.
        sections: places in the stack, from 0, of the images of the series; None for all.
    """

    series: TiltSeries
    choice: Choice
    named: bool
    x_tilt_deg: float = 0.0
    sections: tuple[int, ...] | None = None


def open_images(
    volume: Judged,
    given: TiltSeries | tuple[Path, Path],
    held_out: str | None,
    record: dict[str, Any],
    notes: list[str],
) -> Images:
    """Which images to compare: those that are named, or that the record does not list, or else all.

    Images of a stack that the record names are aligned and corrected as it tells; others are taken as they are.

    Args:
        volume: that is judged.
        given: the series, or the files of its stack and angles.
        held_out: images that the user names, or None.
        record: of the volume; empty where there is none.
        notes: what was assumed is added.

    Raises:
        InputError: if a file cannot be read, or one that the record names is not found.
        SettingsError: if ``held_out`` names no images, or all.
    """
    series = given if isinstance(given, TiltSeries) else read_tilt_series(*given)
    stack = None if isinstance(given, TiltSeries) else given[0]
    angles = series.geometry.angles_deg
    named = held_out_images(held_out, angles) if held_out else ()
    choice = choose_images(record, stack, angles, named)
    notes.append(f"Images used for the volume: {choice.reason}.")
    x_tilt = _x_tilt_deg(record)
    if not isinstance(given, TiltSeries):
        path = volume if isinstance(volume, Path) else None
        made = recorded_images(record, path, given, choice.numbers)
        if made is not None:
            notes.append(f"{made.note}.")
            if made.left_out and named:
                left = ", ".join(str(section + 1) for section in made.left_out)
                notes.append(f"Of the images of --held-out the alignment leaves out {left}: they are not compared.")
            here = replace(choice, numbers=tuple(range(len(made.sections))))
            return Images(made.series, here, bool(named), x_tilt, made.sections)
    if prepared_in_memory(record):
        notes.append(
            "The volume's images were aligned or corrected in memory, and these are others: they are taken for aligned."
        )
    if z_reversed(record):
        notes.append("The volume's z is mirrored, as its sidecar says: it was projected at the negative angles.")
        geometry = replace(series.geometry, angles_deg=tuple(-angle for angle in angles))
        series = replace(series, geometry=geometry)
    return Images(series, choice, bool(named), x_tilt)


def _x_tilt_deg(record: dict[str, Any]) -> float:
    told = part_of(record, "geometry").get("x_tilt_deg")
    return float(told) if isinstance(told, int | float) and np.isfinite(told) else 0.0


def check_images(images: Images, volume: Named) -> None:
    """Raise InputError unless the images to compare are usable and have the volume's pixels, or whole parts of them."""
    series, (depth, height, width) = images.series, volume.voxels.shape
    factor = binning_of((series.geometry.image_shape[0], series.geometry.image_shape[1]), (depth, height, width))
    pixel, voxel = series.pixel_size_angstrom, volume.voxel_size_angstrom
    if pixel and voxel and abs(pixel * factor / voxel - 1) > VOXEL_SIZE_TOLERANCE:
        raise InputError(
            f"the volume {volume.name} has voxels of {voxel:g} Å but the images have pixels of {pixel:g} Å, which "
            f"makes {pixel * factor:g} Å at the volume's number of rows; give the stack that the volume was made from"
        )
    for number in images.choice.numbers:
        image = np.asarray(series.images[number])
        if not np.isfinite(image).all() or image.min() == image.max():
            place = number if images.sections is None else images.sections[number]
            raise InputError(
                f"tilt {place + 1} of the stack is constant, or holds NaN or Inf; leave it out of the images to "
                "compare with --held-out"
            )
