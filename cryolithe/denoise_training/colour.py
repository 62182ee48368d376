"""Noise of any colour: what detectors, binning, interpolation and filters leave in images."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import times_counted
from cryolithe.artefacts.noise_colour import draw_colour, drawn_power
from cryolithe.denoise_training.config import PlainEntry


def draw_amplitude(plain: PlainEntry, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """By what the spectra of white noise are multiplied; their mean square is 1, so that the noise keeps its variance.

    Args:
        plain: what is drawn.
        shape: of the images, ``(y, x)``.
        rng: source of randomness.

    Returns:
        shape ``(y, x // 2 + 1)``, for `scipy.fft.rfft2`.
    """
    frequency = np.hypot(scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])[None])
    drawn = draw_colour(plain.colour_db, rng)
    smoothed = float(rng.uniform(*plain.blur_px)) if rng.random() < 0.5 else 0.0
    power = drawn_power(frequency, drawn) * np.exp(-((2 * np.pi * smoothed * frequency) ** 2))
    # Columns that stand for two of the whole spectrum count twice.
    mean = float((power * times_counted(shape[1])).sum() / (shape[0] * shape[1]))
    return np.sqrt(power / mean).astype(np.float32)


def coloured(white: NDArray[np.float32], amplitude: NDArray[np.float32]) -> NDArray[np.float32]:
    """White noise with another spectrum, shape ``(tilts, y, x)``."""
    shape = (white.shape[1], white.shape[2])
    made: NDArray[np.float32] = scipy.fft.irfft2(scipy.fft.rfft2(white) * amplitude, s=shape)
    return made.astype(np.float32, copy=False)
