"""Smooth power spectra over frequency and tilt: cubic B-splines in the logarithm of frequency, each of whose
coefficients is a polynomial of the cosine and the sine of the tilt angle.

The sine is there for series whose last images are at one side: these have seen the most exposure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

FloatArray = NDArray[np.float64]

SPLINES = 11
_DEGREE = 3
_STIFFNESS = 1.0  # of the second differences of coefficients, against weights that are counts of coefficients
_ROUNDS = 60
_LONGEST_STEP = 1.5  # of the logarithm of power, in a round
_FLAT_TERMS, _BENT_TERMS = 5, 9  # distinct angles from which on power may slope, and bend, with the tilt
_FEWEST_POWER = 1e-8  # of the largest power: a fit does not fall below it where there is no signal


@dataclass(frozen=True)
class Surface:
    """Power over frequency and tilt.

    Attributes:
        coefficients: shape ``(SPLINES, terms)`` of ``ln power``.
        frequency_per_px: least and largest frequency.
        angle_deg: least and largest angle; beyond them the power is that at them.
    """

    coefficients: FloatArray
    frequency_per_px: tuple[float, float]
    angle_deg: tuple[float, float]

    def power(self, frequency_per_px: FloatArray, angles_deg: FloatArray | tuple[float, ...]) -> FloatArray:
        """Power at frequencies and angles, beyond the ends as at them, shape ``(angles, frequencies)``."""
        basis = _basis(np.clip(frequency_per_px, *self.frequency_per_px), self.frequency_per_px)
        angles = np.clip(np.asarray(angles_deg, dtype=np.float64), *self.angle_deg)
        return np.asarray(np.exp(_terms(angles, self.coefficients.shape[1]) @ self.coefficients.T @ basis.T))


def _basis(frequency: FloatArray, bounds: tuple[float, float]) -> FloatArray:
    """Values of the splines, shape ``(frequencies, SPLINES)``."""
    low, high = math.log(bounds[0]), math.log(bounds[1])
    step = (high - low) / (SPLINES - _DEGREE)
    knots = low + step * np.arange(-_DEGREE, SPLINES + 1)
    place = np.clip(np.log(frequency), low, high - 1e-9 * step)
    return np.asarray(BSpline.design_matrix(place, knots, _DEGREE, extrapolate=False).toarray())


def _terms(angles_deg: FloatArray, number: int) -> FloatArray:
    """1, cosine, sine, square of the cosine: the first ``number`` of them, shape ``(angles, number)``."""
    radians = np.deg2rad(angles_deg)
    cosine = np.cos(radians)
    return np.stack([np.ones_like(cosine), cosine, np.sin(radians), cosine**2], axis=1)[:, :number]


def fit_surface(
    frequency_per_px: FloatArray,
    angles_deg: FloatArray,
    measured: FloatArray,
    counts: FloatArray,
    misfit: float,
    noise: FloatArray | float = 0.0,
) -> Surface:
    """Fit the power whose mean the measured values scatter about, by Fisher scoring with a logarithmic link.

    Values may be negative, as cross-spectra are where there is no signal: it is their mean that is fitted, not the
    mean of their logarithms. The mean of n products of two halves that hold the signal S and noise of 2 N each
    scatters by ``((S + 2 N)² + S²) / 2 n``, that of n squares (N = 0) by ``S² / n``.

    Args:
        frequency_per_px: of the rings, shape ``(K,)``, rising.
        angles_deg: shape ``(T,)``.
        measured: shape ``(T, K)``.
        counts: independent coefficients that each value is a mean of, to be broadcast to that shape.
        misfit: relative deviation of measured values that noise does not explain, such as rings of a CTF.
        noise: power N of the noise of the average of two halves, to be broadcast to that shape.
    """
    bounds = (float(frequency_per_px[0]), float(frequency_per_px[-1]))
    distinct = np.unique(np.round(angles_deg, 1)).size
    number = 1 if distinct < _FLAT_TERMS else 3 if distinct < _BENT_TERMS else 4
    splines, terms = _basis(frequency_per_px, bounds), _terms(angles_deg, number)
    bends = np.diff(np.eye(SPLINES), 2, axis=0)
    stiff = np.kron(_STIFFNESS * bends.T @ bends, np.eye(number)) + 1e-9 * np.eye(SPLINES * number)
    unit = max(float(np.median(np.abs(measured), axis=0).max()), 1e-300)
    values, beside = measured / unit, 2 * np.asarray(noise) / unit
    start = np.maximum(np.mean(values, axis=0), 1e-4)
    first = np.linalg.lstsq(splines, np.log(start), rcond=None)[0]
    found = np.zeros((SPLINES, number))
    found[:, 0] = first
    floor = math.log(_FEWEST_POWER)
    for _ in range(_ROUNDS):
        logs = np.maximum(terms @ found.T @ splines.T, floor)
        mean = np.exp(logs)
        weight = mean**2 / (((mean + beside) ** 2 + mean**2) / (2 * counts) + (misfit * mean) ** 2)
        push = weight * (values - mean) / mean
        information = np.einsum("tk,ka,kb,ti,tj->aibj", weight, splines, splines, terms, terms, optimize=True)
        gradient = np.einsum("tk,ka,ti->ai", push, splines, terms, optimize=True).ravel() - stiff @ found.ravel()
        step = np.linalg.solve(information.reshape(stiff.shape) + stiff, gradient).reshape(found.shape)
        moved = float(np.abs(terms @ step.T @ splines.T).max())
        found = found + step * min(1.0, _LONGEST_STEP / max(moved, 1e-12))
        if moved < 1e-6:
            break
    found[:, 0] += math.log(unit)
    return Surface(found, bounds, (float(angles_deg.min()), float(angles_deg.max())))


def surface_of(values: Any, frequency_per_px: tuple[float, float], angle_deg: tuple[float, float]) -> Surface:
    """A surface of stored coefficients."""
    return Surface(np.asarray(values, dtype=np.float64), frequency_per_px, angle_deg)
