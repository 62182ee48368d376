"""Pictures of a denoising: the learning curve, the report, the panel of several Lmax."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.denoising.guard import Verdict
from cryolithe.errors import OutputError
from cryolithe.formats.files import replacing
from cryolithe.optimise.tables import Table
from cryolithe.report.figures import EXTRA_COLOURS, STYLE, draw_scale_bar, draw_section
from cryolithe.report.greys import dark_sign, grey_scale, told_polarity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".pdf", ".svg")
_BLUE, _ORANGE = "#0072B2", "#D55E00"
_BANDS_PER_DECADE = 60  # of the steps: more points than that only hide the curve


def check_figure_name(path: Path, option: str) -> None:
    """Raise OutputError unless a figure can be written under this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{option}: expected a name ending in {', '.join(SUFFIXES)}, got '{path}'")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}; make it first")


def plot_learning(path: Path, steps: Table, validations: Table) -> None:
    """Loss of the training, averaged over neighbouring steps, and of the blocks held back, against time."""
    rows, held = steps.rows(), validations.rows()
    if not rows:
        return
    figure = _figure(6.2, 3.6)
    axes = figure.add_subplot()
    minutes = np.array([float(row["seconds"]) for row in rows]) / 60
    losses = np.array([float(row["loss"]) for row in rows])
    axes.plot(minutes, losses, color="0.8", lw=0.8, label="training")
    width = max(1, len(rows) // _BANDS_PER_DECADE)
    if width > 1:
        whole = len(rows) // width * width
        means = [values[:whole].reshape(-1, width).mean(axis=1) for values in (minutes, losses)]
        axes.plot(*means, color=_BLUE, lw=1.5, label=f"training, mean over {width} rows")
    at = [float(row["seconds"]) / 60 for row in held]
    axes.plot(at, [float(row["loss"]) for row in held], "o-", color=_ORANGE, ms=3, lw=1.2, label="held back")
    axes.set(xlabel="time (min)", ylabel="loss", ylim=tuple(_padded(losses)))
    axes.legend(frameon=False)
    _save(figure, path)


def plot_report(
    path: Path,
    before: NDArray[Any],
    after: NDArray[Any],
    verdict: Verdict,
    voxel_size_angstrom: float | None,
    score: str | None = None,
    contrast: str | None = None,
) -> None:
    """One page: slices before, after and their difference; spectra; correlations.

    Args:
        path: image file.
        before: input, shape ``(z, y, x)``.
        after: output, the same shape.
        verdict: of the guard.
        voxel_size_angstrom: adds a scale bar, and frequencies in 1/Å.
        score: a line below.
        contrast: of dense matter, "dark" or "bright"; it is drawn dark. None where nobody knows.
    """
    figure = _figure(11.0, 12.6)
    rows = figure.add_gridspec(3, 1, height_ratios=(1.55, 1.0, 1.0))
    top, middle, bottom = (rows[n].subgridspec(1, 3) for n in range(3))
    columns = (("before", before), ("after", after), ("before - after", before - after))
    for column, (title, values) in enumerate(columns):
        both = top[column].subgridspec(2, 1, height_ratios=(before.shape[1], before.shape[0]))
        sign = dark_sign(contrast)
        slices = (("XY", sign * values[values.shape[0] // 2]), ("XZ", sign * values[:, values.shape[1] // 2]))
        scale = grey_scale(image for _, image in slices)
        for row, (view, image) in enumerate(slices):
            axes = figure.add_subplot(both[row])
            draw_section(axes, image, scale)
            axes.set(xticks=[], yticks=[], title=title if row == 0 else None)
            if column == 0:
                axes.set_ylabel(view, rotation=0, ha="right", va="center")
                if row == 0 and voxel_size_angstrom is not None:
                    draw_scale_bar(axes, image.shape[1], voxel_size_angstrom)
    _plot_maps(figure, [middle[n] for n in range(3)], verdict)
    _plot_shells([figure.add_subplot(bottom[n]) for n in range(3)], verdict, voxel_size_angstrom)
    if verdict.warnings:
        figure.suptitle(
            "\n".join(f"Warning: {_wrapped(text)}" for text in verdict.warnings), fontsize=8, color="#a34700"
        )
    lines = (*([] if score is None else [score]), f"Slices: {told_polarity(contrast)}")
    figure.supxlabel("\n".join(lines), fontsize=9)
    _save(figure, path)


def plot_sweep(
    path: Path,
    panels: Sequence[tuple[str, NDArray[Any]]],
    transforms: Sequence[NDArray[Any]],
    voxel_size_angstrom: float | None,
    sections: Sequence[NDArray[Any]] = (),
    contrast: str | None = None,
) -> None:
    """One column for each Lmax: the plane above, the magnitude of its Fourier transform below (published figure S1).

    With sections along z, they stand between the two.

    Args:
        path: image file.
        panels: titles and planes ``(y, x)``, the input first.
        transforms: log magnitudes, zero frequency in the middle, one for each panel.
        voxel_size_angstrom: adds a scale bar.
        sections: ``(z, x)``, one for each panel, or none.
        contrast: of dense matter, "dark" or "bright"; it is drawn dark. None where nobody knows.
    """
    sign = dark_sign(contrast)
    panels = [(title, sign * plane) for title, plane in panels]
    sections = [sign * section for section in sections]
    height, width = panels[0][1].shape
    heights = [1.0, *([sections[0].shape[0] / height] if sections else []), height / width]
    figure = _figure(2.1 * len(panels), 0.8 + 1.95 * sum(heights))
    grid = figure.subplots(len(heights), len(panels), squeeze=False, height_ratios=heights)
    for column, section in enumerate(sections):
        draw_section(grid[1, column], section, grey_scale(sections[1:]) if column else None)
        grid[1, column].set(xticks=[], yticks=[])
    if sections:
        grid[1, 0].set_ylabel("XZ section")
    denoised = grey_scale(plane for _, plane in panels[1:])  # all in the same units, and the input has noise beside
    low, high = np.percentile(transforms[0], (1, 99.9))
    floor = min(float(np.percentile(one, 1)) for one in transforms)
    for column, ((title, plane), transform) in enumerate(zip(panels, transforms, strict=True)):
        image, spectrum = grid[0, column], grid[-1, column]
        draw_section(image, plane, denoised if column else None)
        image.set(title=title, xticks=[], yticks=[])
        spectrum.imshow(transform, cmap="magma", vmin=max(floor, low - 0.5 * (high - low)), vmax=high, origin="lower")
        spectrum.set(xticks=[], yticks=[])
        if column == 0:
            image.set_ylabel("XY plane")
            spectrum.set_ylabel("log |Fourier transform|")
            if voxel_size_angstrom is not None:
                draw_scale_bar(image, plane.shape[1], voxel_size_angstrom)
    figure.supxlabel(told_polarity(contrast), fontsize=9)
    _save(figure, path)


def _plot_maps(figure: Figure, cells: Sequence[Any], verdict: Verdict) -> None:
    """Power before and after and the transfer, over (k_xy, k_z)."""
    found = verdict.spectra
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = (np.log10(power) for power in (found.before, found.after))
    low, high = np.nanpercentile(before[np.isfinite(before)], (1, 99.5))
    maps = (
        ("log power before", before, "magma", low - 1, high),
        ("log power after", after, "magma", low - 1, high),
        ("transfer", found.transfer, "RdBu_r", -1.0, 1.0),
    )
    for cell, (title, values, colours, least, most) in zip(cells, maps, strict=True):
        axes = figure.add_subplot(cell)
        shown = axes.imshow(
            values.T, cmap=colours, vmin=least, vmax=most, origin="lower", extent=(0, 0.5, 0, 0.5), aspect="equal"
        )
        axes.set(title=title, xlabel="k_xy (1/voxel)", ylabel="k_z (1/voxel)")
        figure.colorbar(shown, ax=axes, shrink=0.8)


def _plot_shells(grid: Sequence[Axes], verdict: Verdict, voxel_size_angstrom: float | None) -> None:
    """Power ratio, transfer against what looks like signal, and correlations."""
    scale, unit = (1.0, "voxel") if voxel_size_angstrom is None else (1 / voxel_size_angstrom, "Å")
    found = verdict.spectra
    x = found.shell_per_px[1:] * scale
    power, kept, agreement = grid
    power.semilogy(x, found.shell_ratio[1:], color=_BLUE)
    power.axhline(1, color="0.6", lw=0.8, ls="--")
    power.set(title="power after / before")
    kept.plot(x, found.shell_transfer[1:], color=_BLUE, label="transfer")
    kept.plot(x, verdict.coherence[1:], color=_ORANGE, ls="--", label=f"signal by {verdict.coherence_from}")
    kept.plot(x, verdict.warned_below[1:], color="#a34700", ls=":", lw=1.5, label="warned of below")
    kept.set(title=f"share of the input that is kept (mean {verdict.kept:.0%} of signal)", ylim=(-0.05, 1.1))
    agreement.plot(x, verdict.fsc_input[1:], color="black", label="input, output")
    if verdict.fsc_halves is not None:
        raw, new = verdict.fsc_halves
        at = np.linspace(0, 0.5, raw.size)[1:] * scale
        agreement.plot(at, raw[1:], color=EXTRA_COLOURS[0], label="halves before")
        agreement.plot(at, new[1:], color=EXTRA_COLOURS[1], label="halves after")
    agreement.set(title="Fourier shell correlation", ylim=(-0.05, 1.1))
    for axes in grid:
        axes.set_xlabel(f"spatial frequency (1/{unit})")
        axes.set_xlim(0, 0.5 * scale)
        axes.grid(color="0.9", lw=0.6)
    kept.legend(frameon=False)
    agreement.legend(frameon=False)


def _padded(values: NDArray[Any]) -> tuple[float, float]:
    """Limits of an axis that a few outliers do not stretch."""
    low, high = np.percentile(values, (0.5, 99))
    room = 0.15 * (high - low) + 1e-12
    return float(low - room), float(high + room)


def _wrapped(text: str, width: int = 150) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _figure(width: float, height: float) -> Figure:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        return Figure(figsize=(width, height), dpi=130, layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context(STYLE), replacing(path, overwrite=True) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower() or "png")
