"""How long a missing wedge has made an object: its size in the plane (z, x) across the tilt axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.errors import InputError

Array = NDArray[Any]

FEWEST_COMPONENT_PX = 5
FEWEST_COMPONENT_FRACTION = 0.1  # of the largest section: leaves out the tips of an object


@dataclass(frozen=True)
class CrossSection:
    """Size of an object in the plane (z, x) across the tilt axis.

    Attributes:
        width_px: full axis along x, pixels.
        depth_px: full axis along z, pixels.
        depth_over_width: elongation along z: 1 for a round object.
    """

    width_px: float
    depth_px: float
    depth_over_width: float


def mean_cross_section(volume: Array, threshold_fraction: float) -> CrossSection:
    """Measure the largest bright object of a volume along the tilt axis: medians over the sections across it.

    The object is thresholded and its holes are filled; its axes are those of the ellipse with the same second
    moments, ``4 sqrt(variance)`` along x and along z. A pixel counts as a square (variance 1/12), not as a point.
    Sections that show less than a tenth of the largest section's area are left out, and so are specks.

    Args:
        volume: real, shape ``(z, y, x)``; the object is brighter than what surrounds it.
        threshold_fraction: how far the threshold lies from the median (the background, if the object fills less than
            half of the volume) to the maximum, between 0 and 1.

    Raises:
        InputError: if the volume is not 3-D, not finite or constant, or shows no object of a few pixels.
    """
    if volume.ndim != 3:
        raise InputError(f"a volume has three axes (z, y, x), got shape {volume.shape}")
    if not np.isfinite(volume).all() or volume.size == 0 or volume.min() == volume.max():
        raise InputError("an object can be measured only among finite values that are not all equal")
    background = float(np.median(volume))
    above = volume > background + threshold_fraction * (float(volume.max()) - background)
    objects = [_largest_component(above[:, y]) for y in range(volume.shape[1])]
    areas = np.array([np.count_nonzero(found) for found in objects])
    fewest = max(FEWEST_COMPONENT_PX, FEWEST_COMPONENT_FRACTION * areas.max())
    measured = [_axes(found) for found, area in zip(objects, areas, strict=True) if area >= fewest]
    if not measured:
        raise InputError(f"no section shows an object of {FEWEST_COMPONENT_PX} pixels or more above the threshold")
    width, depth, ratio = np.median([(m.width_px, m.depth_px, m.depth_over_width) for m in measured], axis=0)
    return CrossSection(float(width), float(depth), float(ratio))


def _largest_component(above: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected part (over edges) of a 2-D mask with its holes filled; empty stays empty."""
    labels, parts = scipy.ndimage.label(above)
    if parts == 0:
        return above
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.asarray(scipy.ndimage.binary_fill_holes(labels == largest))


def _axes(inside: NDArray[np.bool_]) -> CrossSection:
    """Return the full axes along x and z of the ellipse with the second moments of a mask ``(z, x)``."""
    depth, width = (4 * math.sqrt(float(np.var(indices)) + 1 / 12) for indices in np.nonzero(inside))
    return CrossSection(width, depth, depth / width)
