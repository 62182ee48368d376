"""What stands in the missing wedge of one volume, and how streaky it is: no second volume needed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.spectra import FloatArray, half_spectrum, shell_of, spectrum_planes, times_counted
from cryolithe.evaluation.spectral import edge_taper
from cryolithe.geometry import check_tilt_range, is_measured

Array = NDArray[Any]

# Directions are told apart as finely as the grid allows: a bin is two steps of the coarser axis wide at a frequency of
# 0.25, and one of these widths, which divide the half circle.
ANGLE_BINS_DEG = (5.0, 7.5, 10.0, 15.0, 20.0, 30.0)
STEPS_PER_BIN, AT_FREQUENCY = 2.0, 0.25
LOWEST_ACROSS = 0.15  # cycles/pixel in the plane (kx, kz): below, bins are narrower than the grid
FAINTEST = 1e-8  # of the strongest ring: fainter ones hold rounding errors only


@dataclass(frozen=True)
class WedgeEnergy:
    """Power of a volume by shell (S) and by angle in the plane (kx, kz) (B bins).

    Attributes:
        tilt_range_deg: what counts as measured.
        share: energy in the wedge over all energy, 0 to 1.
        fill: energy in the wedge over what would be there if a coefficient of the wedge held as much as a measured
            one of its shell: 0 for an empty wedge, about 1 for an isotropic specimen.
        frequency_per_px: centres of the shells, shape ``(S,)``.
        fill_by_shell: the same for each shell, NaN where a shell has no coefficient of one kind, shape ``(S,)``.
        angle_deg: centres of the angular bins, from -90° up to 90°, which is the same direction, shape ``(B,)``.
        angular_power: mean power per coefficient, each ring of (kx, kz) divided by its mean; 1 everywhere for an
            isotropic volume. Shape ``(B,)``.
        streak_index: rms step of the angular power between neighbouring bins, over its mean. Bins are wider in
            thin volumes: compare volumes of one shape.
    """

    tilt_range_deg: tuple[float, float]
    share: float
    fill: float
    frequency_per_px: FloatArray
    fill_by_shell: FloatArray
    angle_deg: FloatArray
    angular_power: FloatArray
    streak_index: float


def wedge_energy(volume: Array, tilt_range_deg: tuple[float, float]) -> WedgeEnergy:
    """Measure how energy is distributed between the measured region and the missing wedge.

    The streak index: streaks are lines along one direction of the section across the tilt axis, that is, power that
    starts or ends abruptly as the direction turns, at the border of the wedge or between two tilts. With P the
    angular power in B bins around the half circle it is ``sqrt(mean (P_{i+1} - P_i)²) / mean P``. White noise of a
    tilt range R (degrees, whole bins) and an empty wedge gives ``(180 / R) sqrt(2 / B)``; an isotropic volume 0.

    Args:
        volume: real, shape ``(z, y, x)``; its ends are tapered, so that they do not shine along the axes.
        tilt_range_deg: lowest and highest tilt.
    """
    check_tilt_range(tilt_range_deg)
    spectrum = half_spectrum(volume, tapers=edge_taper(volume.shape))
    shells = min(volume.shape) // 2 + 1
    power = np.zeros((2, shells + 1))
    count = np.zeros((2, shells + 1))
    across = np.zeros((volume.shape[0], volume.shape[2] // 2 + 1))  # summed along ky
    for plane in spectrum_planes(volume.shape):
        energy = plane.times * np.abs(spectrum[plane.index]) ** 2
        missing = np.broadcast_to(~is_measured(plane.kx, plane.kz, tilt_range_deg), energy.shape)
        slot = (plane.shell + (shells + 1) * missing).ravel()
        power += np.bincount(slot, energy.ravel(), minlength=power.size).reshape(power.shape)
        count += np.bincount(slot, plane.times.ravel(), minlength=count.size).reshape(count.shape)
        across[plane.index] = energy.sum(axis=0)
    power, count = power[:, :shells], count[:, :shells]
    both = (count > 0).all(axis=0) & (power[0] > 0)
    expected = np.divide(power[0] * count[1], count[0], out=np.zeros(shells), where=both)
    fill = np.divide(power[1], expected, out=np.full(shells, np.nan), where=both & (expected > 0))
    angle, angular = _angular_power(across, volume.shape)
    steps = np.diff(np.append(angular, angular[0]))  # the half circle closes: -90° and 90° are the same direction
    steps = steps[np.isfinite(steps)]
    streak = math.sqrt(float(np.mean(steps**2))) / float(np.nanmean(angular)) if steps.size else math.nan
    return WedgeEnergy(
        tilt_range_deg=tilt_range_deg,
        share=float(power[1].sum() / power.sum()),
        fill=float(power[1][both].sum() / expected.sum()) if expected.sum() > 0 else math.nan,
        frequency_per_px=np.arange(shells) / min(volume.shape),
        fill_by_shell=fill,
        angle_deg=angle,
        angular_power=angular,
        streak_index=streak,
    )


def _angular_power(across: FloatArray, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
    """Angles and mean whitened power of ``across``, energies of the half plane ``(kz, kx)``."""
    kz, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[2])
    radius = np.hypot(kz, kx)
    times = np.broadcast_to(times_counted(shape[2]), radius.shape)
    shortest = min(shape[0], shape[2])
    ring = shell_of(radius, shortest)
    rings = int(ring.max()) + 1
    total = np.bincount(ring.ravel(), across.ravel(), minlength=rings)
    held = np.bincount(ring.ravel(), times.ravel(), minlength=rings)
    mean = np.divide(total, held, out=np.zeros(rings), where=held > 0)
    keep = (radius >= LOWEST_ACROSS) & (radius <= 0.5) & (mean[ring] > FAINTEST * mean.max())
    wanted = np.rad2deg(STEPS_PER_BIN / shortest / AT_FREQUENCY)
    width = next((w for w in ANGLE_BINS_DEG if w >= wanted - 0.5), ANGLE_BINS_DEG[-1])
    bins = round(180 / width)
    # Bins are centred on the axes, so that the rows of the grid along them do not fall on a border.
    number = np.rint((np.rad2deg(np.arctan2(kz, kx)) + 90) / width).astype(np.intp) % bins
    white = across[keep] / mean[ring[keep]]
    found = np.bincount(number[keep], white, minlength=bins)
    weight = np.bincount(number[keep], times[keep], minlength=bins)
    power = np.full(bins, np.nan)
    power[weight > 0] = found[weight > 0] / weight[weight > 0]
    return -90 + width * np.arange(bins, dtype=np.float64), power
