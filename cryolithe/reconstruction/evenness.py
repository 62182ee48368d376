"""Brightness that changes smoothly across every image: a gradient of the illumination or of the ice, or a vignette.

It lies below the lowest frequency of the field, so that no tilt says where in depth it belongs. Filtered
back-projection hardly shows it, but networks, which learned from even images, are misled: a gradient of 20 % across
images of 55 electrons a pixel took their volumes from a correlation of 0.90 with the truth to 0.86, one of 40 % to
0.76; without a quadratic surface in each image it is 0.89 (benchmarks/LOG.md).

The surface is taken out where it is strong in most images, and what is left is mostly noise: of a specimen in vacuum
that stands out of little noise, it would be a part of the specimen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Least share of the variance, of that of all else, in the median image. Simulated cells, proteins, vesicles, lamellae
# have at most 0.10 (fields of 64 voxels), six real series of ribosomes 0.02, two other real series 0.2 and 0.6.
UNEVEN_SHARE = 0.12
# Most correlation of neighbouring pixels of all else, in the median image: noise of an aligned, interpolated stack has
# up to 0.6, images of little noise 0.8 and more.
MOST_SMOOTH = 0.7
_LEAST = 1e-300


class Surface(NamedTuple):
    """A quadratic surface, fitted to an image.

    Attributes:
        coefficients: shape ``(3, 3)``, of products of orthonormal polynomials along y and x, up to the second order.
        share: its variance, as a share of the variance of all else.
        smooth: correlation of neighbouring pixels of all else.
    """

    coefficients: NDArray[np.float64]
    share: float
    smooth: float


def surface_of(image: NDArray[np.float32]) -> Surface:
    """The surface that fits an image ``(y, x)`` best, its mean left out."""
    along_y, along_x = (_polynomials(size) for size in image.shape)
    found = along_y.T @ image.astype(np.float64) @ along_x
    orders = np.add.outer(range(along_y.shape[1]), range(along_x.shape[1]))
    found[(orders == 0) | (orders > 2)] = 0
    coefficients = np.zeros((3, 3))
    coefficients[: found.shape[0], : found.shape[1]] = found
    rest = image - _values(coefficients, image.shape)
    rest -= rest.mean(dtype=np.float64).astype(np.float32)
    power = float(np.square(rest, dtype=np.float64).mean())
    neighbours = ((rest[1:], rest[:-1]), (rest[:, 1:], rest[:, :-1]))
    pairs = [float(np.multiply(a, b, dtype=np.float64).mean()) for a, b in neighbours if a.size]
    smooth = float(np.mean(pairs)) / max(power, _LEAST) if pairs else 1.0
    return Surface(coefficients, float(np.square(coefficients).sum()) / image.size / max(power, _LEAST), smooth)


def without_surface(image: NDArray[np.float32], surface: Surface) -> NDArray[np.float32]:
    """An image ``(y, x)`` less a surface."""
    return image - _values(surface.coefficients, image.shape)


def unevenness(surfaces: Sequence[Surface]) -> float:
    """The median share of the surfaces of a series; 0 where they are to stay."""
    share = float(np.median([surface.share for surface in surfaces]))
    smooth = float(np.median([surface.smooth for surface in surfaces]))
    return share if share >= UNEVEN_SHARE and smooth <= MOST_SMOOTH else 0.0


def _polynomials(size: int) -> NDArray[np.float64]:
    """Orthonormal polynomials of the orders 0 to 2 on so many pixels, shape ``(size, orders)``."""
    place = np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1)
    return np.asarray(np.linalg.qr(np.stack([place**0, place, place**2], 1)[:, :size])[0])


def _values(coefficients: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    along_y, along_x = (_polynomials(size) for size in shape)
    used = coefficients[: along_y.shape[1], : along_x.shape[1]]
    return np.asarray((along_y @ used @ along_x.T).astype(np.float32))
