"""The figures of a report, as PNG bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryolithe.evaluation.drawing import BLUE, GREY, Array, Drawn, png_figure, reduced, show_image
from cryolithe.evaluation.evaluate import Curves, Evaluation, Pictures
from cryolithe.evaluation.heldout import CALLED, TELLS
from cryolithe.evaluation.particle_figure import draw_picks
from cryolithe.report.figures import (
    CURVE_COLOURS,
    LABELS,
    STYLE,
    THRESHOLDS,
    draw_scale_bar,
    mark_periods,
)
from cryolithe.report.greys import grey_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAP = "cividis"
HALVES_REMARK = (
    " Halves tell how far they repeat, not how far they are right; "
    "a wedge that holds next to no energy can correlate, too."
)


def draw_figures(found: Evaluation, shown: Pictures) -> list[Drawn]:
    """Draw what there is to show."""
    import matplotlib

    voxel = found.voxel_size_angstrom
    with matplotlib.rc_context(STYLE):
        drawn = [_slices(found, shown)]
        if found.reference:
            drawn += [
                _fsc("Fourier shell correlation with the reference", found.reference.curves, voxel),
                _cones("Correlation with the reference by direction", found.reference.curves, found, voxel),
            ]
        if found.halves:
            drawn += [
                _fsc("Fourier shell correlation of the halves", found.halves.curves, voxel, HALVES_REMARK),
                _cones("Correlation of the halves by direction", found.halves.curves, found, voxel),
            ]
            if shown.agreement is not None:
                drawn.append(_agreement(found, shown.agreement, voxel))
        if found.reprojection:
            drawn.append(_reprojection(found, shown, voxel))
        drawn.append(_wedge(found, voxel))
        if shown.picks is not None:
            drawn.append(draw_picks(found, shown, voxel))
    return drawn


def _planes(volume: Array) -> tuple[Array, Array]:
    """The XY and the XZ section through the middle voxel."""
    return np.asarray(volume[len(volume) // 2]), np.asarray(volume[:, volume.shape[1] // 2])


def _slices(found: Evaluation, shown: Pictures) -> Drawn:
    panels = [("volume", shown.volume)]
    if shown.reference is not None:
        panels.append(("reference" if shown.sign > 0 else "reference, sign flipped", shown.reference))
    depth, height, width = shown.volume.shape
    scale = min(3.6 / width, 3.6 / height)
    size = (max(3.2, scale * width * len(panels) + 0.4), scale * (height + depth) + 0.9)
    with png_figure(*size) as (figure, out):
        grid = figure.add_gridspec(2, len(panels), height_ratios=(height, depth))
        for column, (title, volume) in enumerate(panels):
            sign = shown.drawn_sign * (shown.sign if column else 1.0)
            planes = [sign * plane for plane in _planes(volume)]
            greys = grey_scale(reduced(plane) for plane in planes)
            for row, (name, plane) in enumerate(zip(("XY", "XZ"), planes, strict=True)):
                axes = figure.add_subplot(grid[row, column])
                show_image(axes, plane, f"{title}, {name}", found.voxel_size_angstrom, greys)
    caption = (
        f"Sections through the middle: XY, seen along the beam, and XZ, across the tilt axis, with x to the right; "
        f"{shown.polarity}. The "
        "curve of greys is steep about the background and bends towards black and white, so that faint membranes show "
        "beside dense particles; each volume has a scale of its own, by the same rule."
    )
    return Drawn("Sections", caption, out.getvalue())


def _frequency_axis(axes: Axes, highest: float, voxel: float | None, ylabel: str, periods: bool = True) -> float:
    """Label a frequency axis; returns what a frequency in 1/px is multiplied by."""
    per, unit = (1.0, "px") if voxel is None else (1 / voxel, "Å")
    axes.set(xlim=(0, highest * per), xlabel=f"spatial frequency (1/{unit})", ylabel=ylabel)
    axes.grid(color="0.9", lw=0.6)
    axes.set_axisbelow(True)
    if periods:
        mark_periods(axes, highest * per, unit)
    return per


def _thresholds(axes: Axes) -> None:
    for threshold in THRESHOLDS:
        axes.axhline(threshold, color=GREY, lw=0.8, ls=(0, (4, 3)), zorder=1)


def _legend(axes: Axes, **options: Any) -> None:
    axes.legend(frameon=True, framealpha=0.9, edgecolor="0.85", fancybox=False, **options)


def _fsc(title: str, found: Curves, voxel: float | None, remark: str = "") -> Drawn:
    styles = {"total": "-", "measured": "--", "missing": "-."}  # told apart without colour, too
    with png_figure(5.6, 3.6) as (figure, out):
        axes = figure.add_subplot()
        frequency = found.fsc.frequency_per_px
        per = _frequency_axis(axes, float(frequency[-1]), voxel, "correlation")
        lowest = 0.0
        for name, values in found.fsc.columns().items():
            keep = np.isfinite(values) & (frequency > 0)
            colour = CURVE_COLOURS[name]
            axes.plot(frequency[keep] * per, values[keep], color=colour, ls=styles[name], lw=1.5, label=LABELS[name])
            lowest = min(lowest, float(values[keep].min(initial=0.0)))
        _thresholds(axes)
        axes.set_ylim(lowest - 0.05, 1.05)
        _legend(axes)
    caption = (
        "All coefficients, those inside the tilt range, and those of the missing wedge. Dashed lines: 0.5 and 0.143."
    )
    return Drawn(title, caption + remark, out.getvalue())


def _cones(title: str, curves: Curves, found: Evaluation, voxel: float | None) -> Drawn:
    cones = curves.cones
    across = np.isfinite(cones.angles_deg)
    step = float(np.diff(cones.angles_deg[across])[0])
    with png_figure(5.6, 3.6) as (figure, out):
        axes = figure.add_subplot()
        highest = float(cones.frequency_per_px[-1])
        per = _frequency_axis(axes, highest, voxel, "direction, degrees from x towards z")
        axes.grid(visible=False)
        low, high = cones.angles_deg[across][[0, -1]]
        half = 0.5 / (2 * (len(cones.frequency_per_px) - 1))
        image = axes.imshow(
            cones.values[across], cmap=MAP, vmin=0, vmax=1, origin="lower", aspect="auto", interpolation="nearest",
            extent=(-half * per * 2, (highest + half * 2) * per, low - step / 2, high + step / 2),
        )  # fmt: skip
        axes.set_xlim(0, highest * per)
        axes.set_yticks([-60, -30, 0, 30, 60, 90], ["-60", "-30", "0 (x)", "30", "60", "90 (z)"])
        axes.set_facecolor("0.85")
        for border in found.tilt_range_deg:
            axes.axhline(border, color="white", lw=2.2)
            axes.axhline(border, color="black", lw=1.2, ls=(0, (4, 2)))
        figure.colorbar(image, ax=axes, label="correlation")
    caption = (
        f"Correlation in double cones of {cones.half_angle_deg:g}° half angle about directions across the tilt axis. "
        "An image taken at a tilt measures the direction of the same angle; the broken lines end the tilt range. "
        "Cones overlap, so that values change gradually over the border. Grey: too few coefficients."
    )
    return Drawn(title, caption, out.getvalue())


def _agreement(found: Evaluation, agreement: Array, voxel: float | None) -> Drawn:
    depth, height, width = agreement.shape
    scale = 3.4 / max(width, height)
    with png_figure(7.6, max(3.0, scale * (height + depth) + 0.8)) as (figure, out):
        grid = figure.add_gridspec(2, 2, height_ratios=(height, depth), width_ratios=(1, 0.9))
        maps: list[Axes] = []
        image = None
        for row, (name, plane) in enumerate(zip(("XY", "XZ"), _planes(agreement), strict=True)):
            axes = figure.add_subplot(grid[row, 0])
            extent = (-0.5, plane.shape[1] - 0.5, -0.5, plane.shape[0] - 0.5)
            image = axes.imshow(reduced(plane), cmap=MAP, vmin=0, vmax=1, origin="lower", extent=extent)
            axes.set(xticks=[], yticks=[], title=f"agreement, {name}")
            if voxel is not None:
                draw_scale_bar(axes, plane.shape[1], voxel)
            maps.append(axes)
        if image is not None:
            figure.colorbar(image, ax=maps, label="local correlation", shrink=0.7)
        axes = figure.add_subplot(grid[:, 1])
        axes.hist(agreement[::2, ::2, ::2].ravel(), bins=80, range=(-1, 1), color=BLUE, density=True)
        axes.set(xlim=(-1, 1), xlabel="local correlation", ylabel="share of voxels, density")
        axes.grid(color="0.9", lw=0.6)
        axes.set_axisbelow(True)
    sigma = found.halves.agreement.window_sigma_px if found.halves else 0.0
    caption = (
        f"Correlation of the two halves in a Gaussian window of σ = {sigma:g} voxels about each voxel: where the "
        "halves say the same. A first map of confidence, not proof: what a network invents alike in both agrees, too."
    )
    return Drawn("Local agreement of the halves", caption, out.getvalue())


def _reprojection(found: Evaluation, shown: Pictures, voxel: float | None) -> Drawn:
    scores = found.reprojection
    assert scores is not None
    rows = len(shown.images)
    with png_figure(7.6, 2.9 * rows + 2.9) as (figure, out):
        grid = figure.add_gridspec(rows + 1, 2, height_ratios=(*(1.0,) * rows, 0.95))
        for row, picture in enumerate(shown.images):
            kinds = (("image", picture.image), ("projection of the volume", picture.projection))
            for column, (name, image) in enumerate(kinds):
                seen = shown.drawn_sign * np.asarray(image, dtype=np.float32)
                show_image(figure.add_subplot(grid[row, column]), seen, f"{name}, tilt {picture.angle_deg:.1f}°", voxel)
        axes = figure.add_subplot(grid[rows, 0])
        order = np.argsort(scores.angles_deg)
        axes.plot(scores.angles_deg[order], scores.correlation[order], "o", color=BLUE, ms=3.5)
        axes.set(xlabel="tilt (degrees)", ylabel="correlation with the image")
        axes.set_ylim(min(0.0, float(np.nanmin(scores.correlation)) - 0.05), 1.02)
        axes.grid(color="0.9", lw=0.6)
        axes = figure.add_subplot(grid[rows, 1])
        highest = float(scores.frequency_per_px[-1])
        per = _frequency_axis(axes, highest, voxel, "Fourier ring correlation")
        for values in scores.ring_correlation_each:
            axes.plot(scores.frequency_per_px[1:] * per, values[1:], color="0.8", lw=0.6)
        axes.plot(scores.frequency_per_px[1:] * per, scores.ring_correlation[1:], color="black", lw=1.6, label="mean")
        _thresholds(axes)
        axes.set_ylim(min(0.0, float(np.nanmin(scores.ring_correlation)) - 0.05), 1.02)
        _legend(axes)
    caption = (
        f"Projections of the volume against {len(scores.angles_deg)} {CALLED[scores.use]} ({TELLS[scores.use]}), in "
        f"columns whose rays cross at least half of the volume's thickness. "
        "Noise in the images keeps even a perfect volume below 1."
    )
    return Drawn("Reprojection", caption, out.getvalue())


def _wedge(found: Evaluation, voxel: float | None) -> Drawn:
    kinds = [("volume", found.wedge, BLUE, "-")]
    if found.reference:
        kinds.append(("reference", found.reference.wedge, "black", "--"))
    with png_figure(7.6, 3.3) as (figure, out):
        left, right = figure.subplots(1, 2)
        per = _frequency_axis(left, 0.5, voxel, "energy in the wedge / expected")
        for label, wedge, colour, style in kinds:
            keep = np.isfinite(wedge.fill_by_shell)
            keep[0] = False
            left.plot(wedge.frequency_per_px[keep] * per, wedge.fill_by_shell[keep], style, color=colour, label=label)
            angle, power = np.append(wedge.angle_deg, 90.0), np.append(wedge.angular_power, wedge.angular_power[0])
            right.plot(angle, power, style, color=colour, drawstyle="steps-mid", label=label)
        left.axhline(1, color=GREY, lw=0.8, ls=(0, (4, 3)))
        left.set_ylim(bottom=0)
        right.set(xlim=(-90, 90), xticks=[-90, -60, -30, 0, 30, 60, 90], ylabel="power per coefficient / mean")
        right.set_xlabel("direction, degrees from x towards z")
        right.set_ylim(bottom=0)
        right.axvspan(-90, found.tilt_range_deg[0], color="0.92", lw=0)
        right.axvspan(found.tilt_range_deg[1], 90, color="0.92", lw=0)
        right.grid(color="0.9", lw=0.6)
        _legend(left)
    caption = (
        "Left: energy in the missing wedge over what would be there if its coefficients were as strong as the measured "
        "ones of the same shell; 0: nothing was added, 1: filled as an isotropic specimen would. Right: mean power by "
        "direction across the tilt axis (grey: the missing wedge); abrupt steps are streaks."
    )
    return Drawn("Energy in the missing wedge", caption, out.getvalue())
