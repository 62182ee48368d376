"""Whether images are in the order of their angles: those at neighbouring tilts must look alike.

The mean correlation of coarse images along the order of angles is compared with that along the order of the stack.
Where angles are right, the first is as high as the second (a stack sorted by angle) or higher (one in the order of
acquisition). Over 20 simulated series at -10 and 0 dB, right angles never had the stack ahead, and shuffled ones always
by 0.27 or more. Angles in a dose-symmetric order beside a sorted stack make neighbours of every other image, which has
the stack ahead by 0.01 to 0.06: that is no more than noise may do, and is not told.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cryolithe.reconstruction.asymmetry import averaged
from cryolithe.reconstruction.preparation import PreparedStack

# Pixels across a coarse image, and the band that is compared, as sigmas of these pixels.
WIDEST_PX, FINE_PX, COARSE_PX = 32, 1.0, 6.0
FEWEST_TILTS, FEWEST_PX = 7, 16
# By which the stack must be ahead, and how alike its neighbours must be.
MARGIN, LEAST_ALIKE = 0.15, 0.3


def order_warnings(stack: PreparedStack) -> tuple[str, ...]:
    """A warning where images are clearly more alike in the order of the stack than in that of their angles."""
    angles = stack.geometry.angles_deg
    height, width = stack.geometry.image_shape
    factor = max(1, min(height, width) // WIDEST_PX)
    rows = min(height // factor, 2 * WIDEST_PX)
    if len(angles) < FEWEST_TILTS or min(rows, width // factor) < FEWEST_PX:
        return ()
    images = averaged(stack, (height // factor - rows) // 2, rows, factor).numpy()
    by_angle = _alike(images[np.argsort(angles, kind="stable")])
    by_stack = _alike(images)
    if by_stack < LEAST_ALIKE or by_stack - by_angle < MARGIN:
        return ()
    return (
        f"the images are in another order than the angles: those at neighbouring angles are less alike (mean "
        f"correlation {by_angle:.2f}) than those that follow each other in the stack ({by_stack:.2f}); give the angles "
        "in the order of the stack",
    )


def _alike(images: NDArray[np.float32]) -> float:
    """Mean correlation of each image with the next, within a band, shape ``(tilts, y, x)``."""
    made = []
    for image in images.astype(np.float64):
        band = gaussian_filter(image - gaussian_filter(image, COARSE_PX), FINE_PX)
        band -= band.mean()
        made.append(band / max(float(np.sqrt(np.square(band).mean())), 1e-30))
    return float(np.mean([(one * other).mean() for one, other in pairwise(made)]))
