"""A profile as a picture: spectra, SSNR, and noise beside that of another profile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryolithe.errors import OutputError
from cryolithe.formats.files import printable, replacing
from cryolithe.noise.contrast import HISTOGRAM_SIGMAS
from cryolithe.noise.imitate import nearest_images, noise_image
from cryolithe.noise.profile import Profile
from cryolithe.report.figures import STYLE, draw_scale_bar, draw_section
from cryolithe.report.greys import grey_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#D55E00", "#009E73")
_STYLES = ("-", "--", ":")
_SAMPLE_PX = 128
_LOWEST_DB = -45.0
_BANDS_DEG = ((0.0, 15.0), (30.0, 50.0), (50.0, 90.0))


def draw_profiles(path: Path, profiles: Mapping[str, Profile]) -> None:
    """Draw one or more profiles beside each other.

    Args:
        path: image file, PNG unless its name says otherwise.
        profiles: by what they are called, the measured one first.

    Raises:
        OutputError: if the file cannot be written.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        columns = max(2, len(profiles))
        figure = Figure(figsize=(5.2 * columns, 11.5), dpi=110, layout="constrained")
        grid = figure.add_gridspec(3, 2 * columns)
        half = columns
        spectra, ratios = figure.add_subplot(grid[0, :half]), figure.add_subplot(grid[0, half:])
        against, histogram = figure.add_subplot(grid[1, :half]), figure.add_subplot(grid[1, half:])
        for (name, profile), style in zip(profiles.items(), _STYLES, strict=False):
            _spectra(spectra, ratios, printable(name), profile, style)
            _against_tilt(against, histogram, printable(name), profile, style)
        for axes in (spectra, ratios, against, histogram):
            axes.legend(fontsize=6.5)
            axes.grid(alpha=0.25)
        for axes in (spectra, ratios):
            axes.set_ylim(bottom=_LOWEST_DB)
        for column, (name, profile) in enumerate(profiles.items()):
            for row, angle in enumerate((0.0, 55.0)):
                axes = figure.add_subplot(grid[2, 2 * column + row])
                _sample(axes, f"{printable(name)}: noise near {angle:.0f}°", profile, angle)
        first = next(iter(profiles.values()))
        if first.notes:
            figure.suptitle(printable(" ".join(first.notes)), fontsize=8, wrap=True)
        kind = path.suffix[1:].lower() or "png"
        if kind not in figure.canvas.get_supported_filetypes():
            raise OutputError(f"{path}: a figure cannot be written as '{kind}'; give a name ending in .png")
        with replacing(path, overwrite=True) as temporary:
            figure.savefig(temporary, format=kind, metadata={"Software": None} if kind == "png" else None)


def _spectra(spectra: Axes, ratios: Axes, name: str, profile: Profile, style: str) -> None:
    frequency = profile.frequency_per_px / profile.pixel_size_angstrom
    away = np.abs(profile.angles_deg)
    # Units differ between stacks: all are relative to the noise at low tilts.
    unit = float(np.median(profile.noise_variance()[away <= away.min() + 15]))
    for (low, high), colour in zip(_BANDS_DEG, _COLOURS, strict=True):
        chosen = (away >= low) & (away < high)
        if not chosen.any():
            continue
        angles, label = profile.angles_deg[chosen], f"{name}, {low:.0f}-{high:.0f}°"
        signal = profile.signal.power(profile.frequency_per_px, angles).mean(axis=0)
        noise = profile.noise.power(profile.frequency_per_px, angles).mean(axis=0)
        measured = profile.signal_power[chosen].mean(axis=0)
        spectra.plot(frequency, 10 * np.log10(signal / unit), style, color=colour, label=f"signal, {label}")
        spectra.plot(frequency, 10 * np.log10(noise / unit), style, color=colour, alpha=0.5, lw=2.5)
        positive = measured > 0
        dots: dict[str, Any] = {"ms": 2.0, "color": colour, "alpha": 0.6}
        spectra.plot(
            frequency[positive], 10 * np.log10(measured[positive] / unit), "." if style == "-" else "x", **dots
        )
        ratios.plot(frequency, 10 * np.log10(signal / noise), style, color=colour, label=label)
    spectra.set(xscale="log", xlabel="frequency (1/Å)", ylabel="power (dB over mean noise at low tilt)")
    spectra.set_title("signal (thin; dots: cross-spectra) and noise (thick)")
    ratios.set(xscale="log", xlabel="frequency (1/Å)", ylabel="spectral SNR (dB)")
    ratios.set_title("spectral SNR, by tilt")


def _against_tilt(against: Axes, histogram: Axes, name: str, profile: Profile, style: str) -> None:
    variance = profile.noise_variance()
    noise = 10 * np.log10(variance / np.median(variance))
    for series in np.unique(profile.series):
        own = np.flatnonzero(profile.series == series)
        own = own[np.argsort(profile.angles_deg[own], kind="stable")]
        angles, labelled = profile.angles_deg[own], series == profile.series[0]
        for values, what, colour in ((profile.snr_db(), "SNR", 0), (noise, "noise", 1)):
            label = f"{what}, {name}" if labelled else None
            against.plot(angles, values[own], style, color=_COLOURS[colour], label=label)
    against.set(xlabel="tilt (°)", ylabel="dB", title="SNR, and noise over its median")
    total = profile.histogram.sum()
    if total > 0:
        width = 2 * HISTOGRAM_SIGMAS / profile.histogram.size
        places = -HISTOGRAM_SIGMAS + width * (np.arange(profile.histogram.size) + 0.5)
        histogram.plot(places, np.maximum(profile.histogram / total / width, 1e-6), style, color="#000000", label=name)
    histogram.set(yscale="log", xlabel="low-passed brightness (standard deviations)", ylabel="density")
    histogram.set_title("contrast")


def _sample(axes: Axes, title: str, profile: Profile, angle_deg: float) -> None:
    rng = np.random.default_rng(0)
    images = nearest_images(profile, int(profile.series[0]), angle_deg)
    sample: Any = noise_image(profile, images, (_SAMPLE_PX, _SAMPLE_PX), 1.0, rng)
    draw_section(axes, sample, grey_scale([sample]))
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8, parse_math=False)
    if math.isfinite(profile.pixel_size_angstrom):
        draw_scale_bar(axes, sample.shape[1], profile.pixel_size_angstrom)
