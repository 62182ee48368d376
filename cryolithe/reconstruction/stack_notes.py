"""What prepared images say of themselves, for the user."""

from __future__ import annotations

from collections.abc import Sequence

from cryolithe.reconstruction.angle_order import order_warnings
from cryolithe.reconstruction.common_lines import line_warnings
from cryolithe.reconstruction.prepared_stack import PreparedStack


def stack_notes(stack: PreparedStack, numbers: Sequence[int]) -> tuple[str, ...]:
    """Lines for the user: of another order than the angles, another tilt axis, images not aligned, surfaces taken out.

    Args:
        stack: the images.
        numbers: of each image in its file, from 1.
    """
    warnings = tuple(f"Warning: {warning}" for warning in (*order_warnings(stack, numbers), *line_warnings(stack)))
    if not stack.unevenness:
        return warnings
    return (
        *warnings,
        "Uneven images: their brightness changes smoothly across them (gradient or vignette, "
        f"{stack.unevenness:.0%} of the variance of all else); a quadratic surface is taken out of each.",
    )
