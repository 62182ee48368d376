"""Figures of correlation curves and of slices through volumes.

matplotlib is imported when a figure is drawn, and without pyplot: no global state, no display.
"""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError, OutputError
from cryolithe.formats.files import printable, replacing
from cryolithe.metrics import FloatArray, FscCurve
from cryolithe.report.greys import GreyScale, grey_scale, to_grey

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by colour-blind readers (Okabe & Ito, Color Universal Design, 2008).
CURVE_COLOURS = {"total": "#000000", "measured": "#0072B2", "missing": "#D55E00"}
EXTRA_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LABELS = {"total": "all coefficients", "measured": "measured", "missing": "missing wedge"}
THRESHOLDS = (0.5, 0.143)
DPI = 200
STYLE: dict[Any, Any] = {"font.size": 9.0, "axes.titlesize": 10.0, "axes.linewidth": 0.8, "legend.fontsize": 8.0}
# Sizes of the slice figure, inches.
WIDEST, TALLEST = 12.0, 10.0
MARGIN, GAP, TITLE = 0.45, 0.12, 0.3
LINE, LETTER = 0.17, 0.075  # of a caption


def plot_fsc(
    path: str | Path,
    curve: FscCurve,
    voxel_size_angstrom: float | None = None,
    title: str = "",
    extra_curves: Mapping[str, FscCurve] | None = None,
) -> None:
    """Draw the columns of a correlation curve against frequency.

    Args:
        path: image file; its suffix chooses the format.
        curve: all its columns are drawn.
        voxel_size_angstrom: edge of a voxel; makes the axis 1/Å instead of 1/px.
        title: text above the figure.
        extra_curves: further curves of the same voxel size by legend label; only their totals are drawn.

    Raises:
        OutputError: if the file cannot be written.
    """
    import matplotlib

    per_unit, unit = (1.0, "px") if voxel_size_angstrom is None else (1 / voxel_size_angstrom, "Å")
    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.4, 3.8), dpi=DPI, layout="constrained")
        axes = figure.add_subplot()
        lowest = 0.0
        drawn = [(LABELS[name], curve, values, CURVE_COLOURS[name]) for name, values in curve.columns().items()]
        for i, (label, other) in enumerate((extra_curves or {}).items()):
            drawn.append((label, other, other.total, EXTRA_COLOURS[i % len(EXTRA_COLOURS)]))
        for label, owner, values, colour in drawn:
            keep = np.isfinite(values) & (owner.frequency_per_px > 0)
            axes.plot(owner.frequency_per_px[keep] * per_unit, values[keep], color=colour, lw=1.4, label=label)
            lowest = min(lowest, float(values[keep].min(initial=0.0)))
        highest = float(curve.frequency_per_px[-1]) * per_unit
        for threshold in THRESHOLDS:
            axes.axhline(threshold, color="0.45", lw=0.8, ls=(0, (4, 3)), zorder=1)
            axes.annotate(
                f"{threshold:g}", (highest, threshold), (4, 0), textcoords="offset points", va="center", color="0.35"
            )
        axes.set(xlim=(0, highest), ylim=(lowest - 0.05, 1.05), ylabel="Fourier shell correlation")
        axes.set_xlabel(f"spatial frequency (1/{unit})")
        axes.grid(color="0.9", lw=0.6)
        axes.set_axisbelow(True)
        axes.legend(frameon=True, framealpha=0.9, edgecolor="0.85", fancybox=False)
        mark_periods(axes, highest, unit)
        if title:
            axes.set_title(printable(title), parse_math=False)
        _save(figure, Path(path))


def plot_central_slices(
    path: str | Path,
    panels: Sequence[tuple[str, NDArray[Any]]],
    voxel_size_angstrom: float | None = None,
    source: str = "",
    caption: str = "",
    scale: GreyScale | Sequence[GreyScale | None] | None = None,
    through: tuple[int, int, int] | None = None,
) -> None:
    """Draw orthogonal central slices of each volume: one column per volume, rows XY, XZ and YZ.

    All slices have the same size of a voxel. The slices of a volume share a grey scale (`cryolithe.report.greys`).
    With a scale for all of them the volumes are compared: YZ, which looks along the tilted direction as XZ does, is
    left out. Axes run to the right and upwards, with the origin at the lower left. Large values are bright: of
    volumes with dense matter bright give the negative (`cryolithe.report.greys.dark_sign`).

    Args:
        path: image file; its suffix chooses the format.
        panels: title and volume ``(z, y, x)`` of each column.
        voxel_size_angstrom: edge of a voxel in all volumes; adds a scale bar.
        source: what was drawn, kept in the text of a PNG file; see `drawn_source`.
        caption: below, in as many lines as it needs.
        scale: of all volumes, or one for each; None: each has its own.
        through: the voxel ``(z, y, x)`` that all slices go through; None: the middle one of each volume.

    Raises:
        InputError: if there is no volume or an array is not 3-D.
        OutputError: if the file cannot be written.
    """
    import matplotlib

    if not panels or any(volume.ndim != 3 for _, volume in panels):
        raise InputError(f"slices need volumes (z, y, x), got arrays of shape {[v.shape for _, v in panels]}")
    shown = 2 if isinstance(scale, GreyScale) else 3
    scales = [scale] * len(panels) if scale is None or isinstance(scale, GreyScale) else list(scale)
    columns = [dict(list(_central_slices(volume, through).items())[:shown]) for _, volume in panels]
    widths = [max(image.shape[1] for image in images.values()) for images in columns]
    heights = [max(images[view].shape[0] for images in columns) for view in columns[0]]
    gaps = (GAP * (len(columns) + 1), GAP * len(heights))
    inch_per_px = min(
        (WIDEST - MARGIN - gaps[0]) / sum(widths),
        (TALLEST - TITLE - gaps[1]) / sum(heights),
        3.2 / max(widths),  # a single small volume need not fill the page
    )
    across = inch_per_px * sum(widths) + gaps[0] + MARGIN
    lines = textwrap.wrap(printable(caption), max(20, int((across - 2 * GAP) / LETTER)))
    foot = LINE * len(lines) + (GAP if lines else 0.0)
    size = (across, inch_per_px * sum(heights) + gaps[1] + TITLE + foot)
    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, dpi=DPI)
        left = MARGIN + GAP
        for (title, _), images, width, given in zip(panels, columns, widths, scales, strict=True):
            greys = grey_scale(images.values()) if given is None else given
            top = size[1] - TITLE
            for (view, image), height in zip(images.items(), heights, strict=True):
                wide, tall = inch_per_px * image.shape[1], inch_per_px * image.shape[0]
                box = (left / size[0], (top - tall) / size[1], wide / size[0], tall / size[1])
                axes = figure.add_axes(box)
                draw_section(axes, image, greys, aspect="auto")
                axes.set(xticks=[], yticks=[])
                if left == MARGIN + GAP:
                    axes.set_ylabel(view, rotation=0, ha="right", va="center")
                if view == "XY":
                    axes.set_title(_shortened(printable(title), wide), parse_math=False)
                    if voxel_size_angstrom is not None:
                        draw_scale_bar(axes, image.shape[1], voxel_size_angstrom)
                top -= inch_per_px * height + GAP
            left += inch_per_px * width + GAP
        if lines:
            figure.text(
                (MARGIN + GAP) / size[0], (foot - GAP / 2) / size[1], "\n".join(lines), va="top", parse_math=False,
                fontsize=8.5, linespacing=1.25,
            )  # fmt: skip
        _save(figure, Path(path), source)


def _shortened(title: str, width_inches: float) -> str:
    """A title that fits over a panel: its middle is left out where it is too long."""
    most = max(8, int(width_inches / (1.1 * LETTER)))
    if len(title) <= most:
        return title
    return f"{title[: most // 2]}…{title[-(most - most // 2 - 1) :]}"


def drawn_source(path: Path) -> str:
    """The ``source`` that a figure of `plot_central_slices` was drawn of; empty where it tells none."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return str(image.info.get("Source", ""))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""


def plot_contact_sheet(
    path: str | Path,
    images: NDArray[Any],
    angles_deg: Sequence[float],
    volumes: Mapping[str, NDArray[Any]],
    voxel_size_angstrom: float | None = None,
    caption: str = "",
    image_facts: Sequence[str] = (),
) -> None:
    """Draw three tilt images and the XY and XZ slices of volumes, so that a person can judge a series by looking.

    All arrays have dense matter dark, and are shown so.

    Args:
        path: image file.
        images: shape ``(tilt, y, x)``.
        angles_deg: their angles; the images nearest to -60, 0 and 60 degrees are shown.
        volumes: titles and arrays ``(z, y, x)``.
        voxel_size_angstrom: adds scale bars.
        caption: above all.
        image_facts: a line for each image, which stands below its angle.

    Raises:
        OutputError: if it cannot be written, or not in this format.
    """
    import matplotlib

    angles = np.asarray(angles_deg, dtype=np.float64)
    rows: list[list[tuple[str, NDArray[Any], GreyScale]]] = [[], []]
    for wanted in (-60.0, 0.0, 60.0):
        nearest = int(np.abs(angles - wanted).argmin())
        # Each tilt has its own scale: fewer electrons pass a tilted specimen.
        told = f"tilt {angles[nearest]:.1f}°" + (f"\n{image_facts[nearest]}" if image_facts else "")
        rows[0].append((told, images[nearest], grey_scale([images[nearest]])))
    for title, volume in volumes.items():
        slices = _central_slices(volume)
        views = ("XY", "XZ")
        scale = grey_scale(slices[view] for view in views)
        rows[1] += [(f"{title}, {view}", slices[view], scale) for view in views]
    columns = math.lcm(*(len(row) for row in rows))
    most = max(len(row) for row in rows)
    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        tall, wide = (max(1.0, 3 * most / len(row)) for row in (rows[0], rows[1]))
        figure = Figure(figsize=(3 * most, tall + wide + 1.2), dpi=120, layout="constrained")
        grid = figure.add_gridspec(2, columns, height_ratios=(tall, wide))
        for row, panels in enumerate(rows):
            span = columns // len(panels)
            for column, (title, image, scale) in enumerate(panels):
                axes = figure.add_subplot(grid[row, column * span : (column + 1) * span])
                draw_section(axes, image, scale)
                axes.set(xticks=[], yticks=[])
                axes.set_title("\n".join(map(printable, title.split("\n"))), parse_math=False)
                if voxel_size_angstrom is not None:
                    draw_scale_bar(axes, image.shape[1], voxel_size_angstrom)
        if caption:
            figure.suptitle(printable(caption), fontsize=11, parse_math=False, wrap=True)
        _save(figure, Path(path))


def _central_slices(volume: NDArray[Any], through: tuple[int, int, int] | None = None) -> dict[str, FloatArray]:
    """Return the slices through the middle voxel by name: the first letter runs to the right, the second upwards."""
    z, y, x = through or (n // 2 for n in volume.shape)
    views = {"XY": volume[z], "XZ": volume[:, y], "YZ": volume[:, :, x]}
    return {name: np.asarray(image, dtype=np.float64) for name, image in views.items()}


def mark_periods(axes: Axes, highest: float, unit: str) -> None:
    """Label the upper edge of a frequency axis from 0 to ``highest`` with round periods in ``unit``."""
    exponents = range(math.floor(math.log10(1 / highest)), 6)
    ticks: list[float] = []
    for period in (digit * 10.0**e for e in exponents for digit in (1, 2, 3, 4, 5, 6, 8)):
        far = not ticks or ticks[-1] - 1 / period > 0.06 * highest
        if 0.1 * highest < 1 / period <= highest * (1 + 1e-9) and far:
            ticks.append(1 / period)
    upper = axes.secondary_xaxis("top")
    upper.set_xticks(ticks, [f"{1 / tick:.3g}" for tick in ticks])
    upper.set_xlabel(f"period ({unit})")


def draw_section(axes: Axes, section: NDArray[Any], scale: GreyScale | None = None, **options: Any) -> None:
    """Draw a section ``(y, x)`` in grey, y upwards: large values bright.

    Args:
        axes: where.
        section: its values.
        scale: of the sections beside it; its own without one.
        **options: of ``Axes.imshow``.
    """
    axes.imshow(to_grey(section, scale), cmap="gray", vmin=0, vmax=1, **{"origin": "lower"} | options)


def round_length_nm(width_nm: float) -> float:
    """Length of a scale bar for an image: 1, 2 or 5 times a power of ten, a seventh to a third of its width."""
    decade = 10.0 ** math.floor(math.log10(width_nm / 3))
    return max(digit * decade for digit in (1, 2, 5) if digit * decade <= width_nm / 3)


def draw_scale_bar(axes: Axes, width_px: int, voxel_size_angstrom: float) -> None:
    """Draw a bar of a round length, a seventh to a third of the image, with its length in nm."""
    width_nm = width_px * voxel_size_angstrom / 10
    length_nm = round_length_nm(width_nm)
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=2.5, foreground="black")]
    start, end = 0.05, 0.05 + length_nm / width_nm
    axes.plot(
        [start, end], [0.06, 0.06], transform=axes.transAxes, color="white", lw=2.5, solid_capstyle="butt",
        path_effects=[withStroke(linewidth=4, foreground="black")],
    )  # fmt: skip
    axes.annotate(
        f"{length_nm:g} nm", ((start + end) / 2, 0.06), (0, 4), xycoords="axes fraction", textcoords="offset points",
        ha="center", color="white", path_effects=outline,
    )  # fmt: skip


def _save(figure: Figure, path: Path, source: str = "") -> None:
    """Write a figure in the format of the path's suffix (PNG without one)."""
    kind = path.suffix[1:].lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise OutputError(f"{path}: a figure can be written as {', '.join(sorted(known))}, not as '{kind}'")
    with replacing(path, overwrite=True) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a name, that the font does not have: a box stands for it
        figure.savefig(temporary, format=kind, metadata={"Source": source} if source and kind == "png" else None)
