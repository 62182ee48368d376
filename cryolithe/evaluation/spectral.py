"""Correlations in Fourier space that `cryolithe.metrics` does not have: along directions, and of images.

Frequencies are in cycles per pixel; a direction is a unit vector ``(z, y, x)``. Shells are those of
`cryolithe.arrays.spectra`: ``1 / min(shape)`` wide, corners beyond Nyquist left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.signal.windows import tukey

from cryolithe.arrays.spectra import FloatArray, shell_of, spectrum_planes, times_counted

Array = NDArray[Any]

CONE_HALF_ANGLE_DEG = 20.0  # that of directional FSC in common use (Tan et al., Nature Methods 14, 793, 2017)
CONE_STEP_DEG = 15.0
TAPERED = 0.25  # share of each axis over which a volume falls to zero at its two ends
FEWEST_IN_SHELL = 6  # coefficients: the correlation of fewer says nothing


@dataclass(frozen=True)
class ConeFsc:
    """Fourier shell correlation in D double cones, S shells.

    Attributes:
        names: of the directions, length D.
        angles_deg: angle from x towards z of the directions across the tilt axis (an image taken at this tilt
            measures them); NaN for the tilt axis itself. Shape ``(D,)``.
        half_angle_deg: of the cones.
        frequency_per_px: centres of the shells, shape ``(S,)``.
        values: correlation, NaN where a cone holds less than 6 coefficients, shape ``(D, S)``.
    """

    names: tuple[str, ...]
    angles_deg: FloatArray
    half_angle_deg: float
    frequency_per_px: FloatArray
    values: FloatArray


def edge_taper(shape: tuple[int, ...], share: float = TAPERED) -> tuple[Array, ...]:
    """Cosine windows (Tukey) along each axis, float32: ends that do not fit together would shine along the axes."""
    return tuple(tukey(n + 2, share)[1:-1].astype(np.float32) for n in shape)


def cone_directions(step_deg: float = CONE_STEP_DEG) -> tuple[tuple[str, ...], FloatArray, FloatArray]:
    """Names, angles and ``(D, 3)`` vectors of directions across the tilt axis, ``step_deg`` apart, and of the axis."""
    angles = np.arange(-90 + step_deg, 90 + step_deg / 2, step_deg)
    names = [{0.0: "x", 90.0: "z"}.get(float(a), f"{a:+.0f}°") for a in angles]
    radians = np.deg2rad(angles)
    vectors = np.stack([np.sin(radians), np.zeros_like(radians), np.cos(radians)], axis=1)
    return (*names, "y"), np.append(angles, np.nan), np.vstack([vectors, [0.0, 1.0, 0.0]])


def cone_correlation(
    first: Array, second: Array, shape: tuple[int, ...], half_angle_deg: float = CONE_HALF_ANGLE_DEG
) -> ConeFsc:
    """Correlate two half spectra over the parts of shells that lie in double cones about directions.

    ``FSC_d(s) = Re Σ A B* / sqrt(Σ|A|² Σ|B|²)`` over the coefficients of shell s with
    ``|k · d| ≥ |k| cos(half angle)`` (directional FSC: Diebolder et al., Biophys. J. 2015; Tan et al. 2017).

    Args:
        first: made by `cryolithe.arrays.spectra.half_spectrum`.
        second: likewise.
        shape: of the volumes.
        half_angle_deg: of the cones.
    """
    names, angles, vectors = cone_directions()
    shells = min(shape) // 2 + 1
    sums = np.zeros((len(names), 4, shells + 1))
    border = math.cos(math.radians(half_angle_deg))
    for plane in spectrum_planes(shape):
        at, bt = first[plane.index], second[plane.index]
        terms = [
            (plane.times * term).ravel()
            for term in ((at * bt.conj()).real, np.abs(at) ** 2, np.abs(bt) ** 2, np.ones_like(plane.radius))
        ]
        shell, least = plane.shell.ravel(), border * plane.radius
        for number, (dz, dy, dx) in enumerate(vectors):
            inside = np.flatnonzero(np.abs(dz * plane.kz + dy * plane.ky + dx * plane.kx) >= least)
            for row, term in enumerate(terms):
                sums[number, row] += np.bincount(shell[inside], term[inside], minlength=shells + 1)
    ab, aa, bb, count = (sums[:, row, :shells] for row in range(4))
    power = np.sqrt(aa * bb)
    values = np.divide(ab, power, out=np.full(power.shape, np.nan), where=(power > 0) & (count >= FEWEST_IN_SHELL))
    return ConeFsc(names, angles, half_angle_deg, np.arange(shells) / min(shape), values)


def ring_correlation(a: Array, b: Array) -> tuple[FloatArray, FloatArray]:
    """Fourier ring correlation of two images (van Heel & Stöffler-Meilicke, EMBO J. 4, 2389, 1985).

    Args:
        a: real, shape ``(y, x)``.
        b: the same shape; scale and offset do not matter.

    Returns:
        frequencies, cycles/pixel, and correlations, both of shape ``(min(y, x) // 2 + 1,)``; NaN for empty rings.
    """
    shortest = min(a.shape)
    rings = shortest // 2 + 1
    at, bt = (
        scipy.fft.rfft2(np.asarray(image, dtype=np.float64) - np.mean(image, dtype=np.float64)) for image in (a, b)
    )
    ky, kx = scipy.fft.fftfreq(a.shape[0])[:, None], scipy.fft.rfftfreq(a.shape[1])
    ring = np.minimum(shell_of(np.hypot(ky, kx), shortest), rings).ravel()
    times = np.broadcast_to(times_counted(a.shape[1]), at.shape).copy()
    times[0, 0] = 0.0
    ab, aa, bb = (
        np.bincount(ring, (times * term).ravel(), minlength=rings + 1)[:rings]
        for term in ((at * bt.conj()).real, np.abs(at) ** 2, np.abs(bt) ** 2)
    )
    power = np.sqrt(aa * bb)
    values = np.divide(ab, power, out=np.full(rings, np.nan), where=power > 0)
    return np.arange(rings) / shortest, values
