"""Series of one profile brought to one grey scale: programs scale each series on its own, as by its range."""

from __future__ import annotations

import dataclasses

import numpy as np

from cryolithe.noise.measure import Measured
from cryolithe.noise.rings import FloatArray, weights

# In either direction: of series that are scaled alike, thickness and exposure change the noise by less.
WORTH_A_NOTE = 1.5


def scales_of(parts: list[Measured]) -> list[float]:
    """Factors that bring the grey values of series to those of the first, by which their noise becomes equal.

    Noise of the same tilts is compared; signal and noise keep their ratio, whatever the factor. Grey values may be
    counts, with a mean, or may have lost it: only noise is known of all of them.
    """
    first = _noise(parts[0])
    return [1.0, *(float(np.exp(_difference(first, _noise(part)) / 2)) for part in parts[1:])]


def _noise(part: Measured) -> tuple[FloatArray, FloatArray]:
    """Angles of a series, rising, and the logarithm of the variance of its noise."""
    order = np.argsort(part.angles_deg, kind="stable")
    variance = part.noise_power @ weights(2 * part.noise_power.shape[1])
    return part.angles_deg[order], np.log(variance)[order]


def _difference(first: tuple[FloatArray, FloatArray], other: tuple[FloatArray, FloatArray]) -> float:
    """By how much the first is larger at the angles that both have; of all if there are none."""
    both = (other[0] >= first[0][0]) & (other[0] <= first[0][-1])
    if not both.any():
        return float(np.median(first[1]) - np.median(other[1]))
    return float(np.median(np.interp(other[0][both], *first) - other[1][both]))


def scaled(part: Measured, factor: float) -> Measured:
    """What would have been measured of images that are larger by a factor."""
    return dataclasses.replace(
        part,
        noise_power=part.noise_power * factor**2,
        signal_power=part.signal_power * factor**2,
        levels=part.levels * factor,
        backgrounds=part.backgrounds * factor,
        tiles=part.tiles * np.float32(factor),
    )


def told_scales(scales: list[float]) -> tuple[str, ...]:
    """What a user should know of them: which series were changed by much."""
    unlike = {n: factor for n, factor in enumerate(scales, start=1) if abs(np.log(factor)) > np.log(WORTH_A_NOTE)}
    if not unlike:
        return ()
    told = ", ".join(f"series {n} was multiplied by {factor:.3g}" for n, factor in unlike.items())
    return (f"the noise of the series differs, as of other grey scales: {told}, so that its noise is that of series 1",)
