"""Numbers to rank tomograms by: half-map correlation, streaks, contrast, empty slabs. Arrays in, numbers out.

They compare candidates of one data set, read at the same small size; none of them is a resolution to publish.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import times_counted
from cryolithe.metrics import fourier_shell_correlation, mean_correlation, resolution_at

Float32 = NDArray[np.float32]

FSC_THRESHOLD = 0.143
ASSUMED_TILTS_DEG = (-60.0, 60.0)
LOW_PASS = 0.1  # cycles/voxel at which the Gaussian low-pass passes half of the amplitude
NOISE_BAND = (0.35, 0.5)  # cycles/voxel where noise is taken to be alone,
OFF_AXES = 0.15  # ... with two components of at least this: faces that do not match make beams along the axes
STREAK_BAND = (0.1, 0.45)  # cycles/voxel
SIDES = (3.0, 6.0)  # how far from the ridge its sides lie, in Fourier samples: beyond the main lobe of Hann's window
WIDEST_SIDE_DEG = 25.0  # the sides must not reach other directions of note, such as the z axis
SLABS = 32
SLAB_OVER_NOISE = 2.0
SLAB_OVER_BEST = 0.05


@dataclass(frozen=True)
class Numbers:
    """The numbers of a candidate; None where one cannot be told.

    Attributes:
        fsc_mean: mean half-map correlation over all shells but the first and the last.
        resolution: period where that falls below 0.143, infinite if it never lies above.
        resolution_unit: "Å" or "px" (of the averaged volume).
        resolution_reached: whether it falls below at all; if not, ``resolution`` is an upper bound. None where there
            are no halves.
        streak_db: see `streak_energy_db`.
        contrast: see `contrast`.
        noise_from: "halves" or "high frequencies".
        empty_fraction: see `empty_slabs`.
    """

    fsc_mean: float | None = None
    resolution: float | None = None
    resolution_unit: str = "px"
    resolution_reached: bool | None = None
    streak_db: float | None = None
    contrast: float | None = None
    noise_from: str | None = None
    empty_fraction: float | None = None


def measure(
    volume: Float32,
    halves: tuple[Float32, Float32] | None,
    tilt_range_deg: tuple[float, float] | None,
    voxel_size_angstrom: float | None,
) -> Numbers:
    """All numbers of a volume ``(z, y, x)`` that is finite and not constant.

    Args:
        volume: the candidate.
        halves: from half of the frames each, finite; those that are constant are passed over.
        tilt_range_deg: `ASSUMED_TILTS_DEG` where None.
        voxel_size_angstrom: for the resolution.
    """
    usable = halves if halves and all(half.min() < half.max() for half in halves) else None
    fsc_mean = resolution = reached = None
    unit = "px"
    if usable:
        curve = fourier_shell_correlation(*usable)
        fsc_mean = mean_correlation(curve.total)
        found = resolution_at(curve.total, curve.frequency_per_px, FSC_THRESHOLD, voxel_size_angstrom)
        resolution, unit, reached = found.value, found.unit, found.reached
    return Numbers(
        fsc_mean=_or_none(fsc_mean),
        resolution=resolution,
        resolution_unit=unit,
        resolution_reached=reached,
        streak_db=_or_none(streak_energy_db(volume, tilt_range_deg or ASSUMED_TILTS_DEG)),
        contrast=_or_none(contrast(volume, usable)),
        noise_from="halves" if usable else "high frequencies",
        empty_fraction=_or_none(empty_slabs(volume)),
    )


def streak_energy_db(volume: Float32, tilt_range_deg: tuple[float, float]) -> float:
    """Power along the borders of the missing wedge over that of the directions beside them, in dB.

    What differs between neighbouring tilts cancels, but the outermost tilts have a neighbour on one side only: bright
    objects leave streaks along their beams, (x, z) = (-sin θ, cos θ), whose Fourier transform lies on the line
    (kx, kz) = r (cos θ, sin θ), the border of the wedge. With P(kx, kz) the power of all sections (z, x), Hann-windowed
    and without their means, t = kz cos θ - kx sin θ the distance from that line, and
    δ = sqrt((sin θ / Nx)² + (cos θ / Nz)²) the width of a Fourier sample across it,

        E = 10 log10 mean over borders θ and shells s of  ⟨P⟩_ridge / ((⟨P⟩_inner + ⟨P⟩_outer) / 2)

    where the ridge is |t| ≤ δ and its sides are 3 δ ≤ ±t ≤ 6 δ, all in the shell s of |k|. One side lies in the
    wedge: a mere step from measured to missing gives the ridge half of the power and E ≈ 0, as does a filled wedge.
    Shells span 0.1 to 0.45 cycles/voxel, without those where the sides would reach more than 25° away.

    Args:
        volume: shape ``(z, y, x)``.
        tilt_range_deg: lowest and highest tilt.

    Returns:
        NaN where the volume is too small to tell directions apart, or empty.
    """
    depth, _, width = volume.shape
    power = _section_power(volume)
    kz, kx = scipy.fft.fftfreq(depth)[:, None], scipy.fft.rfftfreq(width)[None]
    radius = np.hypot(kx, kz)
    shell = np.floor(radius * min(depth, width)).astype(int)
    ratios: list[float] = []
    for theta in np.deg2rad(tilt_range_deg):
        sine, cosine = math.sin(theta), math.cos(theta)
        sample = math.hypot(sine / width, cosine / depth)
        distance = (kz * cosine - kx * sine) / sample
        nearest = max(STREAK_BAND[0], SIDES[1] * sample / math.sin(math.radians(WIDEST_SIDE_DEG)))
        used = (radius >= nearest) & (radius <= STREAK_BAND[1]) & (kx * cosine + kz * sine > 0)
        parts = (
            np.abs(distance) <= 1,
            (distance >= SIDES[0]) & (distance <= SIDES[1]),
            (distance <= -SIDES[0]) & (distance >= -SIDES[1]),
        )
        ridge, one, other = (_shell_means(power, shell, used & part) for part in parts)
        for s in ridge.keys() & one.keys() & other.keys():
            if one[s] + other[s] > 0:
                ratios.append(2 * ridge[s] / (one[s] + other[s]))
    mean = float(np.mean(ratios)) if ratios else 0.0
    return 10 * math.log10(mean) if mean > 0 else math.nan


def contrast(volume: Float32, halves: tuple[Float32, Float32] | None = None) -> float:
    """Robust spread of what is large over the noise: 1.4826 MAD(L) / σ.

    L is the volume, low-passed by a Gaussian that halves amplitudes at 0.1 cycles/voxel. With halves a and b it is
    that of (a + b) / 2, and σ the standard deviation of (a - b) / 2; without, σ² is the mean power of the coefficients
    between 0.35 and 0.5 cycles/voxel that lie off the axes, as if noise were white. The two kinds of noise cannot be
    compared. White noise alone gives 0.06.

    Returns:
        NaN where there is no noise at all.
    """
    if halves:
        low, _, _ = _low_passed(np.asarray((halves[0] + halves[1]) / 2, dtype=np.float32))
        noise = float(((halves[0] - halves[1]) / 2).std())
    else:
        low, _, noise = _low_passed(volume)
    spread = 1.4826 * float(np.median(np.abs(low - np.median(low))))
    return spread / noise if noise > 0 else math.nan


def empty_slabs(volume: Float32) -> float:
    """Fraction of slabs across z that hold vacuum or bare ice.

    The low-passed volume (see `contrast`) is cut into at most 32 slabs. A slab is empty if the variance in it is at
    most twice that which white noise of the strength found at high frequencies leaves after the low-pass, or at most
    5 % of the 95th percentile over the slabs (a denoised volume has little noise anywhere).
    """
    low, gain, noise = _low_passed(volume)
    slabs = np.array_split(low, min(SLABS, len(low)), axis=0)
    variances = np.array([float(slab.var(dtype=np.float64)) for slab in slabs])
    least = max(SLAB_OVER_NOISE * gain * noise**2, SLAB_OVER_BEST * float(np.percentile(variances, 95)))
    return float((variances <= least).mean())


def _section_power(volume: Float32) -> NDArray[np.float64]:
    """Power of the sections (z, x) over ``(kz, kx >= 0)``, summed over y."""
    depth, rows, width = volume.shape
    window = np.hanning(depth + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    power = np.zeros((depth, width // 2 + 1))
    for y in range(rows):
        section = volume[:, y].astype(np.float64)
        power += np.abs(scipy.fft.rfft2((section - section.mean()) * window)) ** 2
    return power


def _shell_means(power: NDArray[np.float64], shell: NDArray[Any], chosen: NDArray[np.bool_]) -> dict[int, float]:
    """Mean power of the chosen coefficients of each shell that has any."""
    counts = np.bincount(shell[chosen])
    sums = np.bincount(shell[chosen], weights=power[chosen])
    return {int(s): float(sums[s] / counts[s]) for s in np.flatnonzero(counts)}


def _low_passed(volume: Float32) -> tuple[Float32, float, float]:
    """The low-passed volume, what the low-pass leaves of the variance of white noise, and the noise's deviation."""
    spectrum = scipy.fft.rfftn(volume - volume.mean(dtype=np.float64), workers=1)
    ky, kx = scipy.fft.fftfreq(volume.shape[1])[:, None], scipy.fft.rfftfreq(volume.shape[2])[None]
    twice = times_counted(volume.shape[2])
    gain = noise = count = 0.0
    for plane, kz in enumerate(scipy.fft.fftfreq(volume.shape[0])):
        squared = kx**2 + ky**2 + kz**2
        middle = np.maximum(np.minimum(kx, abs(ky)), np.minimum(np.maximum(kx, abs(ky)), abs(kz)))
        band = (squared >= NOISE_BAND[0] ** 2) & (squared <= NOISE_BAND[1] ** 2) & (middle >= OFF_AXES)
        noise += float((np.abs(spectrum[plane]) ** 2 * band * twice).sum())
        count += float((band * twice).sum())
        passed = np.exp(-math.log(2) * squared / LOW_PASS**2)
        gain += float((passed**2 * twice).sum())
        spectrum[plane] *= passed
    low: Float32 = scipy.fft.irfftn(spectrum, s=volume.shape, workers=1).astype(np.float32)
    return low, gain / volume.size, math.sqrt(noise / count / volume.size)


def _or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
