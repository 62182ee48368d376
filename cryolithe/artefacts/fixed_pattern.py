"""A pattern that all images of a stack hold, as a gain reference that was not applied leaves: it counts as signal.

Images at tilts far apart show a specimen from elsewhere, so that their finest details have nothing in common, but for
what is fixed to the detector. What lies on the tilt axis stays where it is, too, but in at most three of nine parts of
an image; edges along rows and columns are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import scipy.fft
import scipy.signal.windows
from numpy.typing import NDArray

from cryolithe.arrays.spectra import middle

Image = NDArray[np.float32]
# Cycles per pixel along x and along y from which details are the finest; of the images' middle the most pixels, and the
# parts along each axis into which that is cut.
FROM_PER_PX, MOST_PX, PARTS = 0.3, 1024, 3
# Correlation of far tilts there from which a pattern spoils what neighbours tell (benchmarks/LOG.md), and deviations
# by chance that it must have.
WORTH_A_WORD, CERTAIN = 0.02, 4.0
FEWEST_IMAGES = 4
# A window makes neighbouring coefficients alike: by so much a mean of them deviates more than one of as many others.
# The median of parts deviates by a quarter more than their mean.
OF_WINDOW, OF_MEDIAN = 1.5, 1.25
# In images that were low-passed so little power is left in the finest details, in that of as many others, that they are
# what rounding and the window leave of coarse ones, which show the specimen.
LEAST_POWER = 1e-9


def shared_pattern(images: Iterable[Image]) -> float:
    """The share of the power of the finest details that all images have in common; 0 where it may be chance.

    Products of independent images have a mean of 0, and by how much they deviate they tell themselves: all the more
    the fewer coefficients hold power, as in images that were low-passed.

    Args:
        images: some of a stack, spread over it in the order of tilt or of time, each of shape ``(y, x)``; blank ones,
            and those without fine details, are left out.
    """
    fine = np.array([spectra for image in images if (spectra := _finest(image)) is not None])
    if len(fine) < FEWEST_IMAGES:
        return 0.0
    apart = len(fine) // 2
    products = np.array(
        [(one * np.conj(other)).real.mean(-1) for first, one in enumerate(fine) for other in fine[first + apart :]]
    )
    pairs, parts = products.shape
    of_white = OF_WINDOW / math.sqrt(2 * fine.shape[-1])
    by_chance = OF_MEDIAN * max(of_white, float((products - products.mean(0)).std())) / math.sqrt(pairs * parts)
    share = float(np.median(products.mean(0)))
    return share if share > max(WORTH_A_WORD, CERTAIN * by_chance) else 0.0


def _finest(image: Image) -> NDArray[np.complex64] | None:
    """The finest details of the parts of an image's middle, shape ``(parts, coefficients)``, of a mean power of 1; None
    for a blank or tiny image."""
    cut = image[tuple(middle(size, MOST_PX) for size in image.shape)]
    edge_y, edge_x = (size // PARTS for size in cut.shape)
    if min(edge_y, edge_x) < 2 or not np.ptp(cut) > 0:
        return None
    ky, kx = np.abs(scipy.fft.fftfreq(edge_y)), scipy.fft.rfftfreq(edge_x)
    corner = (ky[:, None] >= FROM_PER_PX) & (ky[:, None] < 0.5) & (kx >= FROM_PER_PX) & (kx < 0.5)
    if not corner.any():
        return None
    largest = float(np.abs(cut).max())  # whose square may be beyond the numbers, as may its inverse
    parts = (
        (cut[: PARTS * edge_y, : PARTS * edge_x] / np.float32(largest))
        .reshape(PARTS, edge_y, PARTS, edge_x)
        .swapaxes(1, 2)
    )
    window = np.outer(scipy.signal.windows.hann(edge_y), scipy.signal.windows.hann(edge_x)).astype(np.float32)
    seen = (parts - parts.mean((2, 3), keepdims=True)) * window
    found = scipy.fft.rfft2(seen)[..., corner].reshape(PARTS**2, -1)
    power, of_all = float((np.abs(found) ** 2).mean()), float((seen**2).sum(dtype=np.float64)) / PARTS**2
    return np.asarray(found / math.sqrt(power), np.complex64) if power > LEAST_POWER * of_all else None
