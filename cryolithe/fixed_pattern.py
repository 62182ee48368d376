"""A pattern that all images of a stack hold, as a gain reference that was not applied leaves: it counts as signal.

Images at tilts far apart show a specimen from elsewhere, so that their finest details have nothing in common, but for
what is fixed to the detector. Rows and columns are left out: edges along a tilt axis stay where they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.spectra import middle

Image = NDArray[np.float32]
# Cycles per pixel along x and along y from which details are the finest, and of the images' middle the most pixels.
FROM_PER_PX, MOST_PX = 0.3, 1024
# Correlation of far tilts there from which a pattern spoils what neighbours tell (benchmarks/LOG.md), and deviations
# by chance that it must have.
WORTH_A_WORD, CERTAIN = 0.02, 5.0
FEWEST_IMAGES = 4


def shared_pattern(images: Iterable[Image]) -> float:
    """The share of the power of the finest details that all images have in common; 0 where it may be chance.

    Args:
        images: some of a stack, spread over it in the order of tilt or of time, each of shape ``(y, x)``; blank ones
            are left out.
    """
    fine = [spectrum for image in images if len(spectrum := _finest(image))]
    if len(fine) < FEWEST_IMAGES:
        return 0.0
    apart = len(fine) // 2
    products = [
        float((one * np.conj(other)).real.mean()) for first, one in enumerate(fine) for other in fine[first + apart :]
    ]
    by_chance = 1 / math.sqrt(2 * fine[0].size * len(products))
    share = float(np.mean(products))
    return share if share > max(WORTH_A_WORD, CERTAIN * by_chance) else 0.0


def _finest(image: Image) -> NDArray[np.complex64]:
    """The finest details of an image's middle, with a mean power of 1; empty for a blank one."""
    part = image[tuple(middle(size, MOST_PX) for size in image.shape)]
    if not np.ptp(part) > 0:
        return np.empty(0, np.complex64)
    ky, kx = np.abs(scipy.fft.fftfreq(part.shape[0])), scipy.fft.rfftfreq(part.shape[1])
    corner = (ky[:, None] >= FROM_PER_PX) & (ky[:, None] < 0.5) & (kx >= FROM_PER_PX) & (kx < 0.5)
    found = scipy.fft.rfft2(part - part.mean())[corner]
    power = float((np.abs(found) ** 2).mean()) if found.size else 0.0
    return np.asarray(found / np.sqrt(power) if power > 0 else found[:0], np.complex64)
