"""Central sections of a volume, as a page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.comparison.value import Comparison
from cryolithe.evaluation.drawing import reduced
from cryolithe.report.figures import draw_scale_bar, draw_section
from cryolithe.report.greys import GreyScale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

WIDTH = 11.5  # inches, of a page's figures


@dataclass(frozen=True)
class Sections:
    """The central sections of a volume.

    Attributes:
        title: of the method.
        xy: shape ``(y, x)``.
        xz: shape ``(z, x)``.
    """

    title: str
    xy: Array
    xz: Array


def sections_of(title: str, volume: Array) -> Sections:
    """The central sections of a volume ``(z, y, x)``, with fewer pixels where a page could not show them."""
    xy, xz = np.asarray(volume[len(volume) // 2]), np.asarray(volume[:, volume.shape[1] // 2])
    return Sections(title, reduced(xy, volume.shape[2]), reduced(xz, volume.shape[2]))


def draw_pair(
    pair: tuple[Axes, Axes], shown: Sections, scale: GreyScale, found: Comparison, labelled: bool, bar: bool = True
) -> None:
    """Draw XY above and XZ below, in common greys.

    Args:
        pair: the axes of both.
        shown: the sections.
        scale: their greys.
        found: whose volumes they are of: their shape and voxel size.
        labelled: whether the axes are named.
        bar: whether there is a scale bar, where the voxel size is known.
    """
    depth, height, width = found.shape_zyx
    for name, axes, image, pixels in zip(("XY", "XZ"), pair, (shown.xy, shown.xz), (height, depth), strict=True):
        draw_section(axes, image, scale, extent=(-0.5, width - 0.5, -0.5, pixels - 0.5))
        axes.set(xticks=[], yticks=[])
        if labelled:
            axes.set_ylabel(name)
    pair[0].set_title(shown.title, fontsize=9.5)
    if bar and found.voxel_size_angstrom:
        draw_scale_bar(pair[0], width, found.voxel_size_angstrom)
