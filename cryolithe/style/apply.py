"""Simulated series in a style: clean images stay, images and halves get noise that is new in every tilt."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.simulation.imaging import ImagedSeries
from cryolithe.style.network import draw_noise
from cryolithe.style.stored import Style

Image = NDArray[np.float32]


def restyled(series: ImagedSeries, style: Style, seed: int) -> ImagedSeries:
    """A series in a style.

    Images are ``x``. Halves are ``x + d`` and ``x - d`` with ``d = (x' - x'') / √2`` of two more draws: noise of the
    same power that has nothing to do with that of x. So the halves' noise is uncorrelated and twice as strong.

    Args:
        series: simulated; blank images stay blank.
        style: of the same pixels.
        seed: the same gives the same series.
    """
    draw = torch.Generator().manual_seed(seed)
    images, even, odd = (np.zeros_like(series.clean) for _ in range(3))
    beyond = 0
    least, most = style.angles_deg
    for number, (clean, angle) in enumerate(zip(series.clean, series.plan.angles_deg, strict=True)):
        beyond += not least - 1 <= angle <= most + 1
        if clean.std() == 0:
            continue
        first, second, third = (styled(clean, angle, style, draw) for _ in range(3))
        apart = np.float32(math.sqrt(0.5)) * (second - third)
        images[number], even[number], odd[number] = first, first + apart, first - apart
    drawn: dict[str, Any] = {**series.drawn, "noise": "style", "style_seed": seed}
    if beyond:
        drawn["style_images_beyond_its_tilts"] = beyond
        word = f"images beyond the style's tilts of {least:.4g} to {most:.4g}° are styled as those at its ends"
        drawn["words"] = [*drawn.get("words", ()), word]
    return series._replace(images=images, even=even, odd=odd, drawn=drawn)


@torch.no_grad()
def styled(clean: Image, angle_deg: float, style: Style, draw: torch.Generator) -> Image:
    """One draw of one image, in the units of the clean one, its mean removed."""
    given = torch.from_numpy(np.ascontiguousarray(clean))[None, None] * style.contrast
    noise = draw_noise(1, (clean.shape[0], clean.shape[1]), draw)
    made: Image = (style.styler(given, angle_deg, noise)[0, 0] / style.contrast).numpy()
    return np.asarray(made - made.mean(dtype=np.float64), dtype=np.float32)
