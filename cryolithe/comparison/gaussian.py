"""The Gaussian filter that a user would choose by the halves: the plainest of denoisers, which others have to beat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import spectrum_planes
from cryolithe.denoising.ceiling import correlation

Array = NDArray[Any]

SIGMAS_PX = tuple(float(s) for s in np.arange(0.0, 4.01, 0.25))


def shell_gaussian(volume: Array, sigma_px: float) -> NDArray[np.float32]:
    """A Gaussian filter with one factor for each shell of frequency, so that it changes no shell correlation.

    Args:
        volume: shape ``(z, y, x)``; taken to go on periodically.
        sigma_px: deviation in voxels; 0 leaves it as it is.
    """
    values = np.asarray(volume, dtype=np.float32)
    if sigma_px == 0:
        return values
    spectrum = scipy.fft.rfftn(values)
    for plane in spectrum_planes(values.shape):
        frequency = plane.shell / min(values.shape)
        spectrum[plane.index] *= np.exp(-2 * math.pi**2 * sigma_px**2 * frequency**2)
    return np.asarray(scipy.fft.irfftn(spectrum, s=values.shape), dtype=np.float32)


def best_sigma_px(first: Array, second: Array, sigmas_px: Sequence[float] = SIGMAS_PX) -> float:
    """Deviation of the Gaussian after which a half is most like the other, raw one, in voxels; of several the least.

    Args:
        first: a half, shape ``(z, y, x)``.
        second: the other one.
        sigmas_px: to choose from.
    """
    return max(sigmas_px, key=lambda sigma: correlation(shell_gaussian(first, sigma), second))
