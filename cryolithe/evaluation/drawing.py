"""What every figure of a report is drawn by: PNG bytes without pyplot, sections with scale bars, one set of colours."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.report.figures import draw_scale_bar, draw_section
from cryolithe.report.greys import GreyScale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[Any]

DPI = 130  # sharp on paper at a page's width, and some 100 kB a figure
MOST_PIXELS = 640  # along an image's side: more is lost at this resolution, and costs bytes
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "0.45"


@dataclass(frozen=True)
class Drawn:
    """A figure: heading, caption in plain words, and PNG bytes."""

    title: str
    caption: str
    png: bytes

    @property
    def width_inches(self) -> float:
        """As drawn: the width in the PNG header over the resolution."""
        return int.from_bytes(self.png[16:20], "big") / DPI


@contextmanager
def png_figure(width: float, height: float) -> Iterator[tuple[Figure, io.BytesIO]]:
    """A new figure of so many inches, saved as PNG at the end."""
    from matplotlib.figure import Figure

    figure, out = Figure(figsize=(width, height), dpi=DPI, layout="constrained"), io.BytesIO()
    yield figure, out
    # No date or version: the same numbers give the same bytes.
    figure.savefig(out, format="png", metadata={"Software": None})


def reduced(image: Array, longest: int = 0) -> Array:
    """Block means of an image ``(y, x)``, a copy, where a figure could not show all of its pixels.

    Args:
        image: values.
        longest: side of what it is drawn beside at the same scale, px; 0 for its own.
    """
    step = -(-(longest or max(image.shape)) // MOST_PIXELS)
    y_step, x_step = (min(step, n) for n in image.shape)
    y, x = image.shape[0] // y_step, image.shape[1] // x_step
    values = np.array(image[: y * y_step, : x * x_step], dtype=np.float32)
    blocks: Array = values.reshape(y, y_step, x, x_step).mean(axis=(1, 3)) if step > 1 else values
    return blocks


def show_image(axes: Axes, image: Array, title: str, voxel: float | None, scale: GreyScale | None = None) -> None:
    """Show an image, reduced, with its title, and with a scale bar where the voxel size is known, Å."""
    extent = (-0.5, image.shape[1] - 0.5, -0.5, image.shape[0] - 0.5)
    draw_section(axes, reduced(image), scale, extent=extent)
    axes.set(xticks=[], yticks=[], title=title)
    if voxel is not None:
        draw_scale_bar(axes, image.shape[1], voxel)
