"""The pictures of a comparison as PNG bytes: drawn without pyplot, colour-blind-safe, the same bytes every time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cryolithe.comparison.advice import half_db, is_leak
from cryolithe.comparison.sections import WIDTH, Sections, draw_pair
from cryolithe.comparison.value import Comparison
from cryolithe.denoising.ceiling import half_snr_db
from cryolithe.evaluation.drawing import Drawn, png_figure
from cryolithe.formats.sizes import decimal_told
from cryolithe.report.figures import STYLE, mark_periods
from cryolithe.report.greys import grey_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = (4, 5, 3)  # that are tried, the most wanted first
GREY = "0.45"
# Okabe & Ito; the raw one is black and the Gaussian grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A", "#542788")


def draw(found: Comparison, sections: Sequence[Sections]) -> list[Drawn]:
    """All pictures of a comparison."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        drawn = [_sections(found, sections), _shells(found), _half_snr(found), _wedge(found)]
        if found.raw.truth is not None:
            drawn.append(_truth(found))
        if found.raw.matching is not None:
            drawn.append(_matching(found))
    return drawn


def colours_of(found: Comparison) -> dict[str, str]:
    """A colour for each method."""
    left = iter(COLOURS * (1 + len(found.methods) // len(COLOURS)))
    fixed = {"gaussian": GREY}
    return {m.name: "black" if m.kind == "raw" else fixed.get(m.name) or next(left) for m in found.methods}


def _sections(found: Comparison, sections: Sequence[Sections]) -> Drawn:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    depth, height, width = found.shape_zyx
    columns = len(sections) if len(sections) <= max(COLUMNS) else min(COLUMNS, key=lambda n: -len(sections) % n)
    rows = -(-len(sections) // columns)
    each = WIDTH / columns
    tall = each * (height + depth) / width + 0.3
    with png_figure(WIDTH, rows * tall + 0.1) as (figure, out):
        ratios = [part for _ in range(rows) for part in (height, depth)]
        grid = figure.add_gridspec(2 * rows, columns, height_ratios=ratios)
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(w_pad=0.02, h_pad=0.02, hspace=0.01, wspace=0.01)
        for number, one in enumerate(sections):
            row, column = divmod(number, columns)
            upper, lower = (figure.add_subplot(grid[2 * row + part, column]) for part in (0, 1))
            draw_pair((upper, lower), one, grey_scale([one.xy, one.xz]), found, labelled=number == 0)
    return Drawn(
        "Central sections",
        "XY above, XZ below (z upwards, the tilt axis across the section), each volume in greys found by one and the "
        "same rule from its own sections, so that no method looks better by contrast alone. Smooth is not right: what "
        "the curves below do not confirm is not to be believed however clear it looks.",
        out.getvalue(),
    )


def _frequency_axis(axes: Axes, found: Comparison) -> float:
    """Label the axis of frequencies; what a frequency per pixel is multiplied by."""
    size = found.voxel_size_angstrom
    scale, unit = (1 / size, "Å") if size else (1.0, "px")
    highest = float(found.frequency_per_px[-1]) * scale
    axes.set(xlim=(0, highest), xlabel=f"frequency (1/{unit})")
    mark_periods(axes, highest, unit)
    return scale


def _shells(found: Comparison) -> Drawn:
    colours = colours_of(found)
    with png_figure(WIDTH, 4.3) as (figure, out):
        left, right = figure.subplots(1, 2)
        scale = _frequency_axis(left, found)
        _frequency_axis(right, found)
        x = found.frequency_per_px * scale
        most = found.ceiling
        known = np.isfinite(most)
        above = "above the ceiling" + ("" if found.split == "tilts" else ": leak")
        left.fill_between(x[known], most[known], 1.02, color="#f6d5c3", lw=0, label=above)
        left.plot(x, most, color="#D55E00", lw=0.9, ls="--", label="ceiling: √(FSC of the raw halves)")
        for one in found.methods:
            style = {"color": colours[one.name], "lw": 2.0 if one.kind == "raw" else 1.3, "label": one.title}
            left.plot(x, one.fsc, **style)
            if one.kind != "raw":
                right.plot(x, one.fsc - found.raw.fsc, **style)
        left.axhline(0, color=GREY, lw=0.6)
        right.axhline(0, color="black", lw=2.0)
        left.set(ylim=(-0.1, 1.02), ylabel="FSC with the raw other half, measured region")
        right.set(ylabel=f"the same less that of the {found.raw.title}")
        gains = [v for one in found.methods for v in (one.fsc - found.raw.fsc)[known] if math.isfinite(v)]
        low, high = min([-0.05, *gains]), max([0.05, *gains])
        right.set_ylim(max(-1.0, 1.1 * low), min(1.0, 1.1 * high))
        if found.shared_per_px is not None and found.shared_per_px < found.frequency_per_px[-1]:
            for axes in (left, right):
                axes.axvspan(found.shared_per_px * scale, x[-1], color="0.93", lw=0)
        left.legend(loc="upper right", framealpha=0.9)
    return Drawn(
        "What the raw other half confirms",
        "Fourier shell correlation of one half, after each method, with the back-projection of the <b>other</b> half, "
        "which no method has touched; measured region only, mean of both directions. A filter cannot change it, so "
        "what lies above the black line was added by the method and is confirmed by independent data; what lies below "
        "was lost. The dashed line is what the signal itself would reach: above it, halves share noise. Right: gain "
        "and loss against the raw halves."
        + (" The grey part is left out: halves of tilts share nothing there." if found.shared_per_px else ""),
        out.getvalue(),
    )


def _half_snr(found: Comparison) -> Drawn:
    colours = colours_of(found)
    shown = [one for one in found.methods if math.isfinite(half_db(one))]
    with png_figure(WIDTH, 0.34 * max(2, len(shown)) + 0.9) as (figure, out):
        axes = figure.subplots()
        values = [half_db(one) for one in shown]
        ceiling = half_snr_db(found.raw.half.ceiling)
        floor = min([*values, ceiling if math.isfinite(ceiling) else 0.0], default=0.0) - 1
        places = np.arange(len(shown))[::-1]
        lengths, shades = [value - floor for value in values], [colours[one.name] for one in shown]
        axes.barh(places, lengths, left=floor, color=shades, height=0.66)
        for place, one, value in zip(places, shown, values, strict=True):
            note = f"{decimal_told(value, 1)} dB" + ("  leak" if is_leak(found, one) else "")
            axes.annotate(note, (value, place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, [one.title for one in shown])
        if math.isfinite(ceiling):
            axes.axvline(ceiling, color="#D55E00", ls="--", lw=1.2)
            axes.annotate(
                f"ceiling {decimal_told(ceiling, 1)} dB", (ceiling, 1.0), (0, 2), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="bottom", color="#D55E00",
            )  # fmt: skip
        top = max([*values, ceiling if math.isfinite(ceiling) else floor], default=1.0)
        axes.set(xlim=(floor, top + 0.12 * (top - floor) + 0.2), xlabel="half SNR (dB)")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return Drawn(
        "Half SNR and its ceiling",
        "10 log10(r / (1 − r)), with r the correlation of a half, after each method, with the raw other half (Frank & "
        "Al-Ali 1975; Bepler et al. 2020). The signal itself reaches the ceiling, r = √(r of the "
        "raw halves); measured region. Unlike the curves above it rises with smoothing: compare with the Gaussian, not "
        "with the raw halves.",
        out.getvalue(),
    )


def _wedge(found: Comparison) -> Drawn:
    colours = colours_of(found)
    with png_figure(WIDTH, 3.4) as (figure, out):
        axes = figure.subplots()
        scale = _frequency_axis(axes, found)
        for one in found.methods:
            axes.plot(
                found.frequency_per_px * scale, one.wedge_fill, color=colours[one.name],
                lw=2.0 if one.kind == "raw" else 1.3, label=f"{one.title} ({100 * one.wedge_share:.1f} % of all power)",
            )  # fmt: skip
        axes.axhline(1, color=GREY, lw=0.8, ls=":")
        highest = max([float(np.nanmax(one.wedge_fill)) for one in found.methods if np.isfinite(one.wedge_fill).any()])
        axes.set(ylim=(0, min(1.8, max(1.1, 1.05 * highest))), ylabel="power in the wedge / measured")
        axes.legend(loc="upper right", framealpha=0.9)
    return Drawn(
        "What stands in the missing wedge",
        "Power of a coefficient in the missing wedge over that of a measured one of the same shell: 0 for an empty "
        f"wedge, about 1 for a specimen without directions ({100 * found.isotropic_wedge_share:.0f} % of all power). "
        "No image measured it: no halves can confirm what a network puts there. A little leaks from the measured "
        "region into every volume of finite size.",
        out.getvalue(),
    )


def _truth(found: Comparison) -> Drawn:
    colours = colours_of(found)
    with png_figure(WIDTH, 4.0) as (figure, out):
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, title in ((left, "measured region"), (right, "missing wedge")):
            scale = _frequency_axis(axes, found)
            axes.axhline(0, color=GREY, lw=0.6)
            axes.set_title(title, pad=24)
            for one in found.methods:
                if one.truth is None:
                    continue
                values = one.truth.measured if axes is left else one.truth.missing
                axes.plot(
                    found.frequency_per_px * scale, values, color=colours[one.name],
                    lw=2.0 if one.kind == "raw" else 1.3, label=one.title,
                )  # fmt: skip
        left.set(ylabel="FSC with the truth", ylim=(-0.15, 1.02))
        right.legend(loc="upper right", framealpha=0.9)
    return Drawn(
        "Correlation with the truth",
        "Of the whole volume with the simulated specimen. Negative or swinging values come from the CTF, where it was "
        "left in the images.",
        out.getvalue(),
    )


def _matching(found: Comparison) -> Drawn:
    colours = colours_of(found)
    with png_figure(6.2, 4.2) as (figure, out):
        axes = figure.subplots()
        for one in found.methods:
            if one.matching is None:
                continue
            axes.plot(
                one.matching.recall, one.matching.precision, color=colours[one.name],
                lw=2.0 if one.kind == "raw" else 1.3, label=f"{one.title}: {one.matching.pr_auc:.2f}",
            )  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.legend(loc="best", framealpha=0.9, title="PR-AUC")
    return Drawn(
        "Template matching",
        "Precision over recall as the threshold falls, against the known positions; coarse search, template with the "
        "same missing wedge and not low-passed.",
        out.getvalue(),
    )
