"""Stacks of a laboratory as a style is learned from: finite, standardised, in the order of their angles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cryolithe.artefacts.borders import EVEN_COUNTS_PX, MOST_OF_IMAGE, Border, even_share, filled_border, find_border
from cryolithe.errors import InputError
from cryolithe.images import clipped_sigma
from cryolithe.tilts import TiltSeries

FEWEST_TILTS = 5
SMALLEST_PX = 48
SMALLEST_RANGE_DEG = 10.0
OUTLIER_SIGMAS = 8.0


Image = NDArray[np.float32]


@dataclass(frozen=True)
class Stack:
    """Images with their angles.

    Attributes:
        images: shape ``(tilts, y, x)``, float32, each with mean 0.
        angles_deg: rising.
        name: for messages.
        notes: what a user should know of them.
        data: where images hold data, not borders that were filled in, shape ``(tilts, y, x)``; None: everywhere.
    """

    images: NDArray[np.float32]
    angles_deg: NDArray[np.float64]
    name: str
    notes: tuple[str, ...] = ()
    data: NDArray[np.bool_] | None = None


def stack_of(series: TiltSeries, name: str) -> Stack:
    """Check and standardise a recorded series: the mean variance of its images becomes 1.

    Borders of one value, which an alignment filled in, are replaced by the local mean, and remembered.

    Args:
        series: aligned, dense = dark.
        name: for messages.

    Raises:
        InputError: if there are too few images or angles, too small ones, or values that are not finite, or hardly
            anything but borders.
    """
    shape, tilts = series.geometry.image_shape, series.geometry.tilts
    if tilts < FEWEST_TILTS:
        raise InputError(f"{name} holds {tilts} images; a style is learned from {FEWEST_TILTS} or more of a series")
    if min(shape) < SMALLEST_PX:
        raise InputError(
            f"{name} holds images of {shape[1]} x {shape[0]} pixels; a style is learned from {SMALLEST_PX} or more "
            "along each axis: bin less"
        )
    kept, angles, blank, wide = [], [], 0, 0
    for number, angle in enumerate(series.geometry.angles_deg):
        image = np.asarray(series.image(number), dtype=np.float32)
        if not np.isfinite(image).all():
            raise InputError(
                f"image {series.section(number) + 1} of {name} holds values that are not finite; mend the stack"
            )
        border = find_border(image)
        if border is None and even_share(image, EVEN_COUNTS_PX) > MOST_OF_IMAGE and image.min() < image.max():
            wide += 1
            continue
        standard = _standardised(image, border)
        if standard is None:
            blank += 1
            continue
        kept.append((standard, border))
        angles.append(float(angle))
    bordered = sum(border is not None for _, border in kept)
    notes = [
        f"{count} images of {name} {told}"
        for count, told in (
            (blank, "are blank and left out"),
            (wide, "are mostly border of one value and left out"),
            (bordered, "have borders of one value: they are left out of what is measured"),
        )
        if count
    ]
    if len(kept) < FEWEST_TILTS:
        border_too = " and not mostly border of one value" if wide else ""
        raise InputError(
            f"{name} holds {len(kept)} images that are not blank{border_too}; a style needs {FEWEST_TILTS} or more"
        )
    if max(angles) - min(angles) < SMALLEST_RANGE_DEG:
        raise InputError(
            f"the angles of {name} span {max(angles) - min(angles):g}°, expected {SMALLEST_RANGE_DEG:g}° or more; "
            "give the angle file that belongs to the stack"
        )
    found = ordered(np.stack([image for image, _ in kept]), np.array(angles), name, tuple(notes))
    if not bordered:
        return found
    order = np.argsort(angles, kind="stable")
    return replace(found, data=np.stack([_data(shape, kept[number][1]) for number in order.tolist()]))


def _standardised(image: Image, border: Border | None) -> Image | None:
    """An image without border, outliers and mean, shape ``(y, x)``; None where it is blank."""
    data = _data((image.shape[0], image.shape[1]), border)
    if border is not None:
        image = filled_border(image, border)
    image = image - np.float32(image[data].mean(dtype=np.float64))
    limit = np.float32(OUTLIER_SIGMAS * clipped_sigma(image[data]))
    if not limit > 0:
        return None
    image = np.clip(image, -limit, limit)
    return np.asarray(image - np.float32(image[data].mean(dtype=np.float64)))


def _data(shape: tuple[int, int], border: Border | None) -> NDArray[np.bool_]:
    return np.ones(shape, dtype=bool) if border is None else border.holds_data(shape[1])


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
