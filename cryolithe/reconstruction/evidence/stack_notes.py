"""What prepared images say of themselves, for the user."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.spectra import middle
from cryolithe.artefacts.borders import without_border
from cryolithe.artefacts.fixed_pattern import MOST_PX, shared_pattern
from cryolithe.formats.volumes.pages import release_pages
from cryolithe.reconstruction.evidence.aligned_before import aligned_before_warnings
from cryolithe.reconstruction.evidence.angle_order import order_warnings
from cryolithe.reconstruction.evidence.common_lines import coarse_images, line_warnings
from cryolithe.reconstruction.evidence.noise_alone import noise_warnings
from cryolithe.reconstruction.evidence.strayed_images import stray_warnings
from cryolithe.reconstruction.images.defects import without_defects
from cryolithe.reconstruction.images.preparation import finite_image
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.tilts import TiltSeries

# Images as they were read, spread over the tilts, of which details are enough to tell a pattern; tilts so near to each
# other show a thin specimen nearly alike.
MOST_IMAGES, LEAST_RANGE_DEG = 12, 30.0
# From this share of the power of the finest details on a pattern costs a network 0.2 dB or more (benchmarks/LOG.md).
LEAST_PATTERN = 0.05


def stack_notes(
    stack: PreparedStack, numbers: Sequence[int], depth: int, moved: TiltSeries | None = None
) -> tuple[str, ...]:
    """Lines for the user: of another order than the angles, another tilt axis, images not aligned or aligned before,
    noise alone, surfaces taken out.

    Args:
        stack: the images.
        numbers: of each image in its file, from 1.
        depth: voxels along z of the volume.
        moved: the series as it was read, where an alignment moves or turns its images (`moved_series`).
    """
    images, binning = coarse_images(stack)
    # Where a few are moved, all seem less aligned; where they are in another order, none lies where others put it.
    found = order_warnings(stack, numbers) or (aligned_before_warnings(moved, images) if moved is not None else ())
    found = found or stray_warnings(stack, numbers, images, binning, depth)
    found = found or line_warnings(stack, images, binning) or noise_warnings(stack, images, binning, depth)
    warnings = tuple(f"Warning: {text}" for text in found)
    if not stack.unevenness:
        return warnings
    return (
        *warnings,
        "Uneven images: their brightness changes smoothly across them (gradient or vignette, "
        f"{stack.unevenness:.0%} of the variance of all else); a quadratic surface is taken out of each.",
    )


def series_notes(series: TiltSeries) -> tuple[str, ...]:
    """Lines for the user about images as they were read: of a pattern that all of them hold."""
    angles_deg = np.asarray(series.geometry.angles_deg)
    if np.ptp(angles_deg) < LEAST_RANGE_DEG:
        return ()
    by_tilt = np.argsort(angles_deg, kind="stable")
    chosen = by_tilt[np.unique(np.linspace(0, len(by_tilt) - 1, MOST_IMAGES).round().astype(int))]
    share = shared_pattern(_without_defects(series, int(number)) for number in chosen)
    if share < LEAST_PATTERN:
        return ()
    return (
        f"Warning: all images hold the same pattern, {share:.0%} of the power of their finest details, as a gain "
        "reference that was not applied leaves: the volume takes it for specimen; correct the frames before they are "
        "summed.",
    )


def _without_defects(series: TiltSeries, number: int) -> NDArray[np.float32]:
    """The middle of an image as it was read, without its border, and without the pixels that a preparation clips."""
    image = without_border(finite_image(series.image(number)))
    release_pages(series.images)
    return without_defects(image[tuple(middle(size, MOST_PX) for size in image.shape)])
