"""Figures: slices through volumes side by side, and below them the power of the same volumes in Fourier space."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats.files import replacing
from cryolithe.report.figures import STYLE, draw_scale_bar, draw_section
from cryolithe.report.greys import grey_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Volume = NDArray[np.float32]

DPI = 100
PANEL_INCHES, GAP, LEFT, TOP = 1.45, 0.06, 0.62, 0.34
TITLE_CHARACTERS = 25  # that fit above a panel, in one of two lines
DECADES = 5.0  # of power that a panel shows
COLOURS = 128  # of the palette that keeps a file small
EDGE = "#D55E00"  # border of the wedge, told apart from grey by everyone
ROWS = ("xy", "xz", "power\nkx, ky", "power\nkx, kz")


def draw_sheet(
    path: Path, panels: Mapping[str, Volume], voxel_size_angstrom: float, tilt_range_deg: tuple[float, float]
) -> None:
    """Draw one column per volume: its central xy and xz slices, and its mean power in the planes (kx, ky), (kx, kz).

    The slices of a volume share a grey scale (`cryolithe.report.greys`). Power is logarithmic, over five decades below
    the highest; lines mark the border of the missing wedge.

    Args:
        path: of the PNG.
        panels: volumes ``(z, y, x)`` of one shape, dense = bright, by title.
        voxel_size_angstrom: for the scale bar.
        tilt_range_deg: of the images.
    """
    import matplotlib

    depth, height, width = next(iter(panels.values())).shape
    tall = [PANEL_INCHES * size / width for size in (height, depth)]
    tall += [PANEL_INCHES, PANEL_INCHES]
    size = (LEFT + len(panels) * (PANEL_INCHES + GAP), TOP + sum(tall) + GAP * len(tall))
    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, dpi=DPI)
        for column, (title, volume) in enumerate(panels.items()):
            left, top = LEFT + column * (PANEL_INCHES + GAP), size[1] - TOP
            images = (volume[depth // 2], volume[:, height // 2], _power(volume, 0), _power(volume, 1))
            greys = grey_scale(images[:2])
            for row, (image, inches) in enumerate(zip(images, tall, strict=True)):
                box = (left / size[0], (top - inches) / size[1], PANEL_INCHES / size[0], inches / size[1])
                axes = figure.add_axes(box)
                axes.set(xticks=[], yticks=[])
                if row < 2:
                    draw_section(axes, image, greys)
                else:
                    strongest = float(image.max())
                    axes.imshow(
                        image, cmap="gray", vmin=strongest - DECADES, vmax=strongest, origin="lower",
                        extent=(-0.5, 0.5, -0.5, 0.5), aspect="auto", interpolation="nearest",
                    )  # fmt: skip
                if row == 3:
                    _draw_wedge(axes, tilt_range_deg)
                if row == 0:
                    axes.set_title(textwrap.fill(title, TITLE_CHARACTERS), fontsize=7.5, pad=3)
                    if column == 0:
                        draw_scale_bar(axes, width, voxel_size_angstrom)
                if column == 0:
                    axes.set_ylabel(ROWS[row], rotation=0, ha="right", va="center", fontsize=8)
                top -= inches + GAP
        _save(figure, path)


def _power(volume: Volume, axis: int) -> NDArray[np.float64]:
    """log10 of the power of an edge-tapered volume, summed along kz (0) or ky (1), middle = frequency 0."""
    window = [np.hanning(n + 2)[1:-1] for n in volume.shape]
    tapered = (volume - volume.mean()) * window[0][:, None, None] * window[1][:, None] * window[2]
    power = (np.abs(np.fft.fftn(tapered)) ** 2).sum(axis=axis)
    return np.asarray(np.log10(np.fft.fftshift(power) + 1e-30))


def _draw_wedge(axes: Axes, tilt_range_deg: tuple[float, float]) -> None:
    for angle in tilt_range_deg:
        x, z = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        reach = 0.5 / max(abs(x), abs(z))
        for start in (0.55, -0.55):  # the middle stays free
            axes.plot([start * reach * x, np.sign(start) * reach * x], [start * reach * z, np.sign(start) * reach * z],
                      color=EDGE, lw=0.8)  # fmt: skip
    axes.set(xlim=(-0.5, 0.5), ylim=(-0.5, 0.5))


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG with a palette: a third of the bytes."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    with replacing(path, overwrite=True) as temporary:
        image = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        image.save(temporary, format="PNG", optimize=True)
