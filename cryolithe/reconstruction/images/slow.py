"""What changes slowly across images: a body of ice that is thinner in the middle of a hole, a patch of illumination.

It lies below the frequencies that networks have learned from, whose fields are some hundred pixels wide and even, and
misleads them: a lens of ice takes the particles in its thin middle below filtered back-projection, and a dark patch is
drawn as the filling of a vesicle (benchmarks/LOG.md). But it may be specimen, as a wide body is. So where there is much
of it, it goes around the network: the network gets the images without it, and filtered back-projection, which is
linear, adds its volume of it to the network's.

    V = N(images - S) + F(S)

S is a spline through means over squares, N the network with its share of filtered back-projection (see
`cryolithe.reconstruction.slabwise.fusion`), F filtered back-projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.arrays.folding import symmetric
from cryolithe.reconstruction.images.remainder import MOST_SMOOTH, remainder_of

# Edge of the squares, and deviation of a Gaussian over them: with that of the spline, 16 pixels in all.
SQUARE_PX = 8
_SIGMA_SQUARES = 1.9
# What is smoother than that has waves of about so many pixels and more.
LEAST_WAVE_PX = 100
# Least share of the variance, of that of all else, in the median image. Simulated cells, proteins, vesicles, lamellae
# have .003 to .05, real ribosomes .01, balls and slabs of half a field .06 to .17, patches and lenses of ice up to 5;
# two other real series .5.
LEAST_SHARE = 0.2
# Pixels along x that are computed from the squares around them alone.
_BAND_PX = 16 * SQUARE_PX


class Slow(NamedTuple):
    """The slow part of an image.

    Attributes:
        squares: smoothed means, shape ``(Y, X)``, float32.
        share: its variance, as a share of that of all else.
        smooth: correlation of neighbouring pixels of all else.
    """

    squares: NDArray[np.float32]
    share: float
    smooth: float


@dataclass(frozen=True)
class SlowPart:
    """The slow part of the images of a series.

    Attributes:
        squares: of each image, shape ``(tilts, Y, X)``, float32.
        image_shape: pixels ``(y, x)`` of an image.
        share: median of the images' shares.
    """

    squares: NDArray[np.float32]
    image_shape: tuple[int, int]
    share: float

    def rows(self, first_row: int, rows: int) -> NDArray[np.float32]:
        """Rows of all tilts, shape ``(tilts, rows, x)``; rows beyond the image mirror it."""
        height, width = self.image_shape
        places = symmetric(np.arange(first_row, first_row + rows), height)
        return _expanded(self.squares, _spline(places, self.squares.shape[1]), _spline(np.arange(width), _count(width)))


def slow_of(image: NDArray[np.float32]) -> Slow:
    """The slow part of an image ``(y, x)``."""
    squares = scipy.ndimage.gaussian_filter(_means(image), _SIGMA_SQUARES, mode="reflect").astype(np.float32)
    slow = _nearly_of_image(squares, image.shape)
    rest = remainder_of(image, slow)
    return Slow(squares, float(slow.var(dtype=np.float64)) / rest.power, rest.smooth)


def without_slow(image: NDArray[np.float32], slow: Slow) -> NDArray[np.float32]:
    """An image ``(y, x)`` less its slow part."""
    return image - _of_image(slow.squares, image.shape)


def slow_part(found: Sequence[Slow], image_shape: tuple[int, int], least_share: float = LEAST_SHARE) -> SlowPart | None:
    """The slow part of a series, where it is to go around a network; None where it stays in the images.

    Args:
        found: of each image.
        image_shape: pixels ``(y, x)``.
        least_share: below which it stays; 0 where it is known to go, whatever these images are.
    """
    share, smooth = (float(np.median([getattr(slow, name) for slow in found])) for name in ("share", "smooth"))
    if least_share and (share < least_share or smooth > MOST_SMOOTH):
        return None
    return SlowPart(np.stack([slow.squares for slow in found]), image_shape, share)


def _means(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Over squares, those at the ends of the axes being cut off."""
    height, width = image.shape
    rows = np.empty((_count(height), width))
    whole = height // SQUARE_PX
    rows[:whole] = image[: whole * SQUARE_PX].reshape(whole, SQUARE_PX, width).mean(1, dtype=np.float64)
    if whole < len(rows):
        rows[-1] = image[whole * SQUARE_PX :].mean(0, dtype=np.float64)
    edges = np.arange(0, width, SQUARE_PX)
    return np.asarray(np.add.reduceat(rows, edges, axis=1) / np.diff(np.append(edges, width)))


def _of_image(squares: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    y, x = (_spline(np.arange(size), _count(size)) for size in shape)
    return _expanded(squares, y, x)


def _nearly_of_image(squares: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The same but for the last digits, to measure it: few squares count for a pixel, and only those are asked."""
    y, x = (_spline(np.arange(size), _count(size)) for size in shape)
    along_y = y @ squares
    made = np.empty(shape, np.float32)
    for first in range(0, shape[1], _BAND_PX):
        band = slice(first, first + _BAND_PX)
        near = slice(max(first // SQUARE_PX - 2, 0), (first + _BAND_PX) // SQUARE_PX + 2)
        made[:, band] = along_y[:, near] @ x[band, near].T
    return made


def _expanded(squares: NDArray[np.float32], y: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(y @ squares @ x.T)


def _count(size: int) -> int:
    return -(-size // SQUARE_PX)


def _spline(places: NDArray[np.intp], squares: int) -> NDArray[np.float32]:
    """By how much each square counts at some pixels, as a cubic B-spline of them, shape ``(places, squares)``."""
    at = (places - (SQUARE_PX - 1) / 2) / SQUARE_PX
    first = np.floor(at).astype(np.intp)
    t = at - first
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    found = np.zeros((len(places), squares), np.float32)
    for step, weight in enumerate(weights, start=-1):
        np.add.at(found, (np.arange(len(places)), symmetric(first + step, squares)), weight / 6)
    return found
