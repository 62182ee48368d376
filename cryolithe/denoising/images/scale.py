"""Grey levels of single images: every image has a brightness and a noise of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cryolithe.images import clipped_sigma

MOST_SIGMAS = 10.0


def image_scale(image: NDArray[np.float32]) -> tuple[float, float]:
    """Median and robust deviation of an image; the deviation is 0 where it is blank."""
    centre = float(np.median(image))
    return centre, clipped_sigma(np.asarray(image - np.float32(centre), np.float32))


def standard_image(image: NDArray[np.float32], centre: float, sigma: float) -> NDArray[np.float32]:
    """An image as the network sees it, shape ``(y, x)``."""
    scaled = (image - np.float32(centre)) / np.float32(sigma)
    return np.asarray(np.clip(scaled, -MOST_SIGMAS, MOST_SIGMAS), np.float32)
