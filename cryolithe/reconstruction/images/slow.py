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

# Edge of the squares, and deviation of a Gaussian over them: with that of the spline, 16 pixels in all.
SQUARE_PX = 8
_SIGMA_SQUARES = 1.9
# What is smoother than that has waves of about so many pixels and more.
LEAST_WAVE_PX = 100
# Least share of the variance, of that of all else, in the median image. Simulated cells, proteins, vesicles, lamellae
# have .003 to .05, real ribosomes .01, balls and slabs of half a field .06 to .17, patches and lenses of ice up to 5;
# two other real series .5.
LEAST_SHARE = 0.2
# Most correlation of neighbouring pixels of all else: in images of little noise the slow part is specimen.
MOST_SMOOTH = 0.7
_LEAST = 1e-30


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
    means = image.astype(np.float64)
    for axis, size in enumerate(image.shape):
        edges = np.arange(0, size, SQUARE_PX)
        counts = np.diff(np.append(edges, size)).reshape((-1, 1) if axis == 0 else (1, -1))
        means = np.add.reduceat(means, edges, axis=axis) / counts
    squares = scipy.ndimage.gaussian_filter(means, _SIGMA_SQUARES, mode="reflect").astype(np.float32)
    slow = _of_image(squares, image.shape)
    rest = image - slow
    rest -= rest.mean(dtype=np.float64).astype(np.float32)
    power = max(float(np.square(rest, dtype=np.float64).mean()), _LEAST)
    neighbours = ((rest[1:], rest[:-1]), (rest[:, 1:], rest[:, :-1]))
    pairs = [float(np.multiply(a, b, dtype=np.float64).mean()) for a, b in neighbours if a.size]
    smooth = float(np.mean(pairs)) / power if pairs else 1.0
    return Slow(squares, float(slow.var(dtype=np.float64)) / power, smooth)


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


def _of_image(squares: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    y, x = (_spline(np.arange(size), _count(size)) for size in shape)
    return _expanded(squares, y, x)


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
