"""Grey levels of single images: every image has a brightness and a noise of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from cryolithe.images import clipped_sigma

MOST_SIGMAS = 10.0
# Deviations beyond which values are cut where amplitudes are measured: a bead has power at all frequencies, more than
# all else, and says nothing of the rest.
MOST_MEASURED_SIGMAS = 4.0


def image_scale(image: NDArray[np.float32]) -> tuple[float, float]:
    """Median and robust deviation of an image; the deviation is 0 where it is blank."""
    centre = float(np.median(image))
    return centre, clipped_sigma(np.asarray(image - np.float32(centre), np.float32))


def standard_image(image: NDArray[np.float32], centre: float, sigma: float) -> NDArray[np.float32]:
    """An image in units of its deviation, shape ``(y, x)``, without hot pixels.

    A pixel that is far from the median of its surroundings is a defect; what is bright with them is gold, or carbon.
    """
    scaled = np.asarray((image - np.float32(centre)) / np.float32(sigma), np.float32)
    if np.abs(scaled).max(initial=0.0) <= MOST_SIGMAS:
        return scaled
    near = median_filter(scaled, 3, mode="nearest")
    return np.asarray(np.clip(scaled, near - MOST_SIGMAS, near + MOST_SIGMAS), np.float32)


def for_network(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """A standard image as networks for images take it: they never saw what is farther out."""
    return np.asarray(np.clip(image, -MOST_SIGMAS, MOST_SIGMAS), np.float32)


def for_measuring(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """A standard image as amplitudes are measured in it."""
    return np.asarray(np.clip(image, -MOST_MEASURED_SIGMAS, MOST_MEASURED_SIGMAS), np.float32)
