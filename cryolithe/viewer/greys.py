"""The project's grey scale (`cryolithe.report.greys`) as a viewer takes it: two limits and a table of greys."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.report.greys import GreyScale, grey_scale, to_grey

_STEPS = 256
_SECTIONS = 3


def shown_greys(sections: list[NDArray[Any]]) -> tuple[tuple[float, float], NDArray[np.float32]]:
    """Limits and colours of sections, the same greys as in every picture of this program.

    Args:
        sections: shape ``(y, x)``.

    Returns:
        the values that are black and white, and the colours between them, shape ``(256, 4)``, red, green, blue and
        opacity from 0 to 1. Where all values are alike, limits about them.
    """
    scale = grey_scale(sections)
    if scale.spread == 0:
        middle = scale.background * scale.unit
        reach = max(abs(middle), 1.0)
        limits = (middle - reach, middle + reach)
        greys = np.linspace(0, 1, _STEPS, dtype=np.float32)
    else:
        limits = _reached(scale, scale.black), _reached(scale, scale.white)
        greys = to_grey(np.linspace(*limits, _STEPS)[None], scale)[0]
    return limits, np.stack([greys, greys, greys, np.ones_like(greys)], axis=1)


def middle_sections(shape: tuple[int, int, int]) -> list[int]:
    """Sections that tell the greys of a volume: about the middle, where the specimen is."""
    depth = shape[0]
    return sorted({min(depth - 1, max(0, round(depth * share))) for share in np.linspace(0.4, 0.6, _SECTIONS)})


def _reached(scale: GreyScale, height: float) -> float:
    """The value at which the scale's curve has a height: ``u / (1 + |u|) + slope u`` is solved for u."""
    sign, wanted, slope = np.sign(height), abs(height), scale.slope
    if slope > 0:
        half = (1 + slope - wanted) / 2
        steps = (-half + np.sqrt(half**2 + slope * wanted)) / slope
    else:
        steps = wanted / (1 - wanted)
    return float(scale.unit * (scale.background + scale.spread * sign * steps))
