"""Brightness that changes smoothly across every image: a gradient of the illumination or of the ice, or a vignette.

It lies below the lowest frequency of the field, so that no tilt says where in depth it belongs. Filtered
back-projection hardly shows it, but networks, which learned from even images, are misled: a gradient of 20 % across
images of 55 electrons a pixel takes their volumes from a correlation of 0.92 with the truth to 0.91, one of 40 % to
0.85; without a quadratic surface in each image it is 0.92 (benchmarks/uneven.py).

The surface is taken out where it is strong in most images, what is left is mostly noise, and the next orders of
polynomials hold much less. Of a specimen in vacuum that stands out of little noise, it would be a part of the specimen;
and so it would be of a body as large as the field, which light and ice are not like: a body ends somewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolithe.reconstruction.images.remainder import MOST_SMOOTH, remainder_of

# Least share of the variance, of that of all else, in the median image. Simulated cells, proteins, vesicles, lamellae
# have at most 0.10 (fields of 64 voxels), six real series of ribosomes 0.02, two other real series 0.2 and 0.6.
UNEVEN_SHARE = 0.12
# Least power of the largest coefficient of the surface, in that of the largest of the orders 3 and 4, in the median
# image. Gradients and vignettes of that share have 17 to 460 in noise of -5 dB, in simulated cells 15 to 180, another
# real series 79; balls, shells, slabs of half a field and more 1 to 5, sharp edges up to 13, cells without a gradient 5
# at most. Without it a ball of 28 pixels in a field of 96 lost .07 of its correlation with the truth (`draft`).
STEEP = 15.0
_ORDER, _NEXT = 2, 4
_LEAST = 1e-300


class Surface(NamedTuple):
    """A quadratic surface, fitted to an image.

    Attributes:
        coefficients: shape ``(3, 3)``, of products of orthonormal polynomials along y and x, up to the second order.
        share: its variance, as a share of the variance of all else.
        smooth: correlation of neighbouring pixels of all else.
        steep: power of its largest coefficient, in that of the largest of the next two orders.
    """

    coefficients: NDArray[np.float64]
    share: float
    smooth: float
    steep: float


def surface_of(image: NDArray[np.float32]) -> Surface:
    """The surface that fits an image ``(y, x)`` best, its mean left out."""
    along_y, along_x = (_polynomials(size) for size in image.shape)
    found = along_y.T @ image.astype(np.float64) @ along_x
    orders = np.add.outer(range(along_y.shape[1]), range(along_x.shape[1]))
    beyond = (orders > _ORDER) & (orders <= _NEXT)
    next_power = float(np.square(found[beyond]).max()) if beyond.any() else 0.0
    found[(orders == 0) | (orders > _ORDER)] = 0
    coefficients = np.zeros((_ORDER + 1, _ORDER + 1))
    rows, columns = (min(size, _ORDER + 1) for size in found.shape)
    coefficients[:rows, :columns] = found[:rows, :columns]
    own_power = float(np.square(coefficients).max())
    rest = remainder_of(image, _values(coefficients, image.shape))
    share = float(np.square(coefficients).sum()) / image.size / rest.power
    return Surface(coefficients, share, rest.smooth, own_power / max(next_power, _LEAST))


def without_surface(image: NDArray[np.float32], surface: Surface) -> NDArray[np.float32]:
    """An image ``(y, x)`` less a surface."""
    return image - _values(surface.coefficients, image.shape)


def unevenness(surfaces: Sequence[Surface]) -> float:
    """The median share of the surfaces of a series; 0 where they are to stay."""
    share = float(np.median([surface.share for surface in surfaces]))
    smooth = float(np.median([surface.smooth for surface in surfaces]))
    steep = float(np.median([surface.steep for surface in surfaces]))
    return share if share >= UNEVEN_SHARE and smooth <= MOST_SMOOTH and steep >= STEEP else 0.0


def _polynomials(size: int) -> NDArray[np.float64]:
    """Orthonormal polynomials of the orders 0 to 4 on so many pixels, shape ``(size, orders)``."""
    place = np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1)
    return np.asarray(np.linalg.qr(np.stack([place**order for order in range(_NEXT + 1)], 1)[:, :size])[0])


def _values(coefficients: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    along_y, along_x = (_polynomials(size)[:, : _ORDER + 1] for size in shape)
    used = coefficients[: along_y.shape[1], : along_x.shape[1]]
    return np.asarray((along_y @ used @ along_x.T).astype(np.float32))
