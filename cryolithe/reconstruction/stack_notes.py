"""What prepared images say of themselves, for the user."""

from __future__ import annotations

from collections.abc import Sequence

from cryolithe.reconstruction.angle_order import order_warnings
from cryolithe.reconstruction.common_lines import coarse_images, line_warnings
from cryolithe.reconstruction.prepared_stack import PreparedStack
from cryolithe.reconstruction.strayed_images import stray_warnings


def stack_notes(stack: PreparedStack, numbers: Sequence[int], depth: int) -> tuple[str, ...]:
    """Lines for the user: of another order than the angles, another tilt axis, images not aligned, surfaces taken out.

    Args:
        stack: the images.
        numbers: of each image in its file, from 1.
        depth: voxels along z of the volume.
    """
    images, binning = coarse_images(stack)
    # Where a few are moved, all seem less aligned; where they are in another order, none lies where others put it.
    found = order_warnings(stack, numbers) or stray_warnings(stack, numbers, images, binning, depth)
    warnings = tuple(f"Warning: {text}" for text in found or line_warnings(stack, images, binning))
    if not stack.unevenness:
        return warnings
    return (
        *warnings,
        "Uneven images: their brightness changes smoothly across them (gradient or vignette, "
        f"{stack.unevenness:.0%} of the variance of all else); a quadratic surface is taken out of each.",
    )
