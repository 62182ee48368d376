"""Stacks of a laboratory as a style is learned from: finite, standardised, in the order of their angles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.images import clipped_sigma
from cryolithe.tilts import TiltSeries

FEWEST_TILTS = 5
SMALLEST_PX = 48
SMALLEST_RANGE_DEG = 10.0
OUTLIER_SIGMAS = 8.0


@dataclass(frozen=True)
class Stack:
    """Images with their angles.

    Attributes:
        images: shape ``(tilts, y, x)``, float32, each with mean 0.
        angles_deg: rising.
        name: for messages.
        notes: what a user should know of them.
    """

    images: NDArray[np.float32]
    angles_deg: NDArray[np.float64]
    name: str
    notes: tuple[str, ...] = ()


def stack_of(series: TiltSeries, name: str) -> Stack:
    """Check and standardise a recorded series: the mean variance of its images becomes 1.

    Args:
        series: aligned, dense = dark.
        name: for messages.

    Raises:
        InputError: if there are too few images or angles, too small ones, or values that are not finite.
    """
    shape, tilts = series.geometry.image_shape, series.geometry.tilts
    if tilts < FEWEST_TILTS:
        raise InputError(f"{name} holds {tilts} images; a style is learned from {FEWEST_TILTS} or more of a series")
    if min(shape) < SMALLEST_PX:
        raise InputError(
            f"{name} holds images of {shape[1]} x {shape[0]} pixels; a style is learned from {SMALLEST_PX} or more "
            "along each axis: bin less"
        )
    images, angles, blank = [], [], 0
    for number, angle in enumerate(series.geometry.angles_deg):
        image = np.asarray(series.image(number), dtype=np.float32)
        if not np.isfinite(image).all():
            raise InputError(
                f"image {series.section(number) + 1} of {name} holds values that are not finite; mend the stack"
            )
        image = image - np.float32(image.mean(dtype=np.float64))
        limit = np.float32(OUTLIER_SIGMAS * clipped_sigma(image))
        if not limit > 0:
            blank += 1
            continue
        image = np.clip(image, -limit, limit)
        images.append(image - np.float32(image.mean(dtype=np.float64)))
        angles.append(float(angle))
    if len(images) < FEWEST_TILTS:
        raise InputError(f"{name} holds {len(images)} images that are not blank; a style needs {FEWEST_TILTS} or more")
    if max(angles) - min(angles) < SMALLEST_RANGE_DEG:
        raise InputError(
            f"the angles of {name} span {max(angles) - min(angles):g}°, expected {SMALLEST_RANGE_DEG:g}° or more; "
            "give the angle file that belongs to the stack"
        )
    notes = (f"{blank} images of {name} are blank and left out",) if blank else ()
    return ordered(np.stack(images), np.array(angles), name, notes)


def ordered(
    images: NDArray[np.float32], angles_deg: NDArray[np.float64], name: str, notes: tuple[str, ...] = ()
) -> Stack:
    """A stack in the order of its angles, with a mean variance of 1."""
    order = np.argsort(angles_deg, kind="stable")
    sigma = np.float32(np.sqrt(images.var(axis=(1, 2), dtype=np.float64).mean()))
    return Stack(np.ascontiguousarray(images[order] / sigma), angles_deg[order], name, notes)


def clean_stack(images: NDArray[np.float32], angles_deg: tuple[float, ...], name: str) -> Stack:
    """Noiseless simulated images, blank ones left out, in the units that they have.

    Raises:
        InputError: if fewer than two images are not blank.
    """
    shown = np.flatnonzero(images.std(axis=(1, 2)) > 0)
    if len(shown) < 2:
        raise InputError(f"{name} shows nothing in all but {len(shown)} of its images; put something into its cells")
    angles = np.asarray(angles_deg, dtype=np.float64)[shown]
    order = np.argsort(angles, kind="stable")
    kept = images[shown][order]
    return Stack(kept - kept.mean(axis=(1, 2), keepdims=True), angles[order], name)
