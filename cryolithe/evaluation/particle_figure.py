"""The figure of particles found in a volume: circles about the picks, and the best of them cut out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cryolithe.evaluation.drawing import BLUE, GREEN, ORANGE, SKY, Array, Drawn, png_figure, show_image
from cryolithe.evaluation.evaluate import Evaluation, Pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST = 8  # picks that are shown one by one


def draw_picks(found: Evaluation, shown: Pictures, voxel: float | None) -> Drawn:
    """The best picks and the known positions in the slab that holds most of these, and the best ones one by one."""
    assert shown.picks is not None
    assert shown.hits is not None
    assert shown.known is not None
    assert found.picking is not None
    volume, across = shown.volume, found.picking.diameter_angstrom / (voxel or 1.0)
    slab = _fullest_slab(shown.known[:, 0], len(volume), across)
    best = min(len(shown.picks), max(len(shown.known), BEST))
    picks, hits = shown.picks[:best], shown.hits[:best]
    size = (8.8, 4.7) if found.matching else (6.2, 5.6)
    with png_figure(size[0], size[1] + 1.5) as (figure, out):
        rows = figure.add_gridspec(2, 1, height_ratios=(size[1], 1.5))
        upper, lower = (figure.add_subfigure(rows[number]) for number in range(2))
        grid = upper.subplots(1, 2 if found.matching else 1, squeeze=False)[0]
        low, high = _thinner(slab)
        image = shown.drawn_sign * np.asarray(volume[low:high], dtype=np.float32).mean(axis=0)
        show_image(grid[0], image, f"mean of sections {low} to {high - 1} of {len(volume)}", voxel)
        missed = _missed(shown.known, picks[hits], found.picking.tolerance_angstrom / (voxel or 1.0))
        near = missed[(missed[:, 0] >= slab[0]) & (missed[:, 0] < slab[1])]
        grid[0].plot(
            near[:, 2], near[:, 1], "P", color=GREEN, mec="white", ms=7, label=f"known, not picked ({len(near)})"
        )
        _circle(grid[0], picks[hits], slab, across, SKY, "picked, known")
        _circle(grid[0], picks[~hits], slab, across, ORANGE, "picked, not known")
        grid[0].set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(-0.5, image.shape[0] - 0.5))
        grid[0].legend(
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.01),
            ncols=3,
            handletextpad=0.2,
            columnspacing=1.0,
        )
        if found.matching:
            grid[1].plot(found.matching.recall, found.matching.precision, ".-", color=BLUE, ms=3, lw=1)
            grid[1].set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="template matching")
            grid[1].grid(color="0.9", lw=0.6)
        _best(lower, shown, across)
    wide_nm = (2 * _reach(across) + 1) * (voxel or 1.0) / 10
    caption = (
        f"Circles are as wide as the particle that was assumed, {found.picking.diameter_angstrom:g} Å "
        f"(--particle-diameter): the {best} best picks by a difference of Gaussians, and known positions that are not "
        "among them (crosses), in the slab one particle thick that holds most known ones. Below, the best picks, the "
        f"best first, each {wide_nm:.3g} nm wide, as means of the middle third of a particle; {shown.polarity}."
        + (" Right: precision over recall of template matching as its threshold falls." if found.matching else "")
    )
    return Drawn("Finding particles", caption, out.getvalue())


def _fullest_slab(known_z: Array, depth: int, across_px: float) -> tuple[int, int]:
    """First section, and the one after the last, of the slab one particle thick that holds most known positions."""
    reach = max(2.0, 0.5 * across_px)
    middles = np.arange(depth)
    held = (np.abs(known_z[None] - middles[:, None]) <= reach).sum(axis=1)
    most = np.flatnonzero(held == held.max())
    middle = int(most[np.abs(most - depth / 2).argmin()])
    return max(0, round(middle - reach)), min(depth, round(middle + reach) + 1)


def _thinner(slab: tuple[int, int]) -> tuple[int, int]:
    """The middle third of a slab: a mean of all of it would hide what is in it."""
    third = (slab[1] - slab[0]) // 3
    return slab[0] + third, max(slab[1] - third, slab[0] + third + 1)


def _missed(known: Array, hits: Array, tolerance_px: float) -> Array:
    """Known positions with no hit within the tolerance."""
    if not len(hits):
        return known
    near: Array = np.linalg.norm(known[:, None] - hits[None], axis=-1).min(axis=1) <= tolerance_px
    return known[~near]


def _circle(axes: Axes, positions: Array, slab: tuple[int, int], across_px: float, colour: str, label: str) -> None:
    """Circles about the positions within a slab, as wide as a particle, and an entry for the legend."""
    from matplotlib.collections import EllipseCollection
    from matplotlib.patheffects import withStroke

    near = positions[(positions[:, 0] >= slab[0]) & (positions[:, 0] < slab[1])]
    widths = np.full(len(near), across_px)
    circles = EllipseCollection(
        widths, widths, np.zeros(len(near)), units="xy", offsets=near[:, :0:-1], offset_transform=axes.transData,
        facecolors="none", edgecolors=colour, linewidths=1.6,
    )  # fmt: skip
    circles.set_path_effects([withStroke(linewidth=2.6, foreground="white", alpha=0.7)])
    axes.add_collection(circles)
    axes.plot([], [], "o", mfc="none", mec=colour, mew=1.6, ms=8, label=f"{label} ({len(near)})")


def _reach(across_px: float) -> int:
    """From the middle to the edge of a picture of one pick, which is one and a half particles wide."""
    return max(4, round(0.75 * across_px))


def _best(figure: Any, shown: Pictures, across_px: float) -> None:
    """The best picks cut out of the volume."""
    assert shown.picks is not None
    assert shown.hits is not None
    reach, thick = _reach(across_px), max(1, round(across_px / 6))
    axes = figure.subplots(1, BEST, squeeze=False)[0]
    for number, one in enumerate(axes):
        one.set_axis_off()
        if number >= len(shown.picks):
            continue
        z, y, x = np.rint(shown.picks[number]).astype(int)
        cut = np.asarray(shown.volume[max(0, z - thick) : z + thick + 1], dtype=np.float32).mean(axis=0)
        padded = np.pad(cut, reach, constant_values=float(np.median(cut)))[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
        one.set_axis_on()
        hit = bool(shown.hits[number])
        show_image(
            one,
            shown.drawn_sign * padded,
            f"{number + 1}: {'known' if hit else 'not known'}",
            None,
        )
        one.title.set_fontsize(8)
        for side in one.spines.values():
            side.set(edgecolor=SKY if hit else ORANGE, linewidth=2)
