"""What prepared images say of themselves, for the user."""

from __future__ import annotations

from cryolithe.reconstruction.angle_order import order_warnings
from cryolithe.reconstruction.common_lines import line_warnings
from cryolithe.reconstruction.prepared_stack import PreparedStack


def stack_notes(stack: PreparedStack) -> tuple[str, ...]:
    """Lines on images that are in another order than their angles, have another tilt axis than y or are not aligned,
    and on surfaces that were taken out of them."""
    warnings = tuple(f"Warning: {warning}" for warning in (*order_warnings(stack), *line_warnings(stack)))
    if not stack.unevenness:
        return warnings
    return (
        *warnings,
        "Uneven images: their brightness changes smoothly across them (gradient or vignette, "
        f"{stack.unevenness:.0%} of the variance of all else); a quadratic surface is taken out of each.",
    )
