"""The part of images that belongs to orders of a lattice, to go around a network that draws little of them.

An order k of a crystal stands in the images whose central slice passes it, in few values of their spectra: all of the
crystal's signal, and next to no noise. Filtered back-projection of these alone gives the order as it shows it
(`cryolithe.reconstruction.slabwise.orders` finds which of them a network loses):

    V = N(images) + (1 - kept) F(L)          L = values of the images' spectra about k
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.folding import symmetric
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.slabwise.orders import LostOrder

# Cycles/px about an order that belong to it: all of a crystal of 60 pixels and more, whatever its outline.
REACH = 0.03
# An image shows an order that passes its central slice by less than so many waves over the volume's depth.
WAVES = 1.5
# What stands in images that cannot show the order, as a part of what those have that can, is of the detector.
MOST_ELSEWHERE = 0.25

Complex = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Patch:
    """Some values of the spectrum of one image.

    Attributes:
        tilt: of which image.
        y: their frequencies along y, cycles/px, shape ``(Y,)``.
        x: likewise along x.
        values: weighed, shape ``(Y, X)``.
    """

    tilt: int
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    values: Complex


@dataclass(frozen=True, eq=False)
class LatticePart:
    """What images show of lost orders.

    Attributes:
        patches: of their spectra.
        tilts: number of images.
        image_shape: pixels ``(y, x)``.
    """

    patches: tuple[Patch, ...]
    tilts: int
    image_shape: tuple[int, int]

    def rows(self, first_row: int, rows: int) -> NDArray[np.float32]:
        """Rows of all tilts, shape ``(tilts, rows, x)``; rows beyond the image mirror it."""
        height, width = self.image_shape
        made = np.zeros((self.tilts, rows, width), np.float32)
        places = symmetric(np.arange(first_row, first_row + rows), height)
        for patch in self.patches:
            waves = _waves(places, patch.y) @ patch.values @ _waves(np.arange(width), patch.x).T
            made[patch.tilt] += 2 / (height * width) * waves.real
        return made


def lattice_part(
    images: NDArray[np.float32], geometry: TiltGeometry, depth: int, orders: Sequence[LostOrder]
) -> LatticePart | None:
    """What images show of orders that a network loses; None for nothing, or for a pattern of the detector.

    Args:
        images: prepared, shape ``(tilts, y, x)``.
        geometry: of them.
        depth: voxels of the volume along z.
        orders: which are lost, and how much of each is kept.
    """
    patches: list[Patch] = []
    done: list[LostOrder] = []
    for order in orders:
        found = _patches(images, geometry, depth, order, done)
        if found and _elsewhere(images, geometry, depth, order) <= MOST_ELSEWHERE:
            patches += found
            done.append(order)
    return LatticePart(tuple(patches), geometry.tilts, geometry.image_shape) if patches else None


def _seen(order: LostOrder, angle_rad: float) -> tuple[float, float, float]:
    """Where an image sees an order: frequencies along y and x, and how far that is from its central slice."""
    z, y, x = order.frequency_per_px
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return y, x * c + z * s, abs(z * c - x * s)


def _patches(
    images: NDArray[np.float32], geometry: TiltGeometry, depth: int, order: LostOrder, done: Sequence[LostOrder]
) -> list[Patch]:
    """About an order, without what orders that are done have already."""
    height, width = geometry.image_shape
    found = []
    for tilt, angle in enumerate(geometry.angles_rad):
        y, x, away = _seen(order, angle)
        if away > WAVES / depth:
            continue
        along_y, along_x = _near(y, height), _near(x, width)
        weight = _weights(along_y, along_x, y, x)
        for other in done:
            there_y, there_x, far = _seen(other, angle)
            if far <= WAVES / depth:
                taken = [_weights(along_y, along_x, sign * there_y, sign * there_x) for sign in (1, -1)]
                weight = np.maximum(weight - np.maximum(*taken), 0)
        weight *= 1 - max(order.kept, 0)
        values = weight * _values(np.asarray(images[tilt]), along_y, along_x)
        found.append(Patch(tilt, along_y, along_x, values))
    return found


def _elsewhere(images: NDArray[np.float32], geometry: TiltGeometry, depth: int, order: LostOrder) -> float:
    """Power where images would show an order that cannot, as a part of that of images that can."""
    height, width = geometry.image_shape
    seen = [_seen(order, angle) for angle in geometry.angles_rad]
    there, can = np.empty(len(seen)), np.array([away <= WAVES / depth for _, _, away in seen])
    z, y, x = order.frequency_per_px
    x = math.hypot(z, x)
    for tilt, (own_y, own_x, _) in enumerate(seen):
        places = [(own_y, own_x)] if can[tilt] else [(y, x), (y, -x)]
        image = np.asarray(images[tilt])
        there[tilt] = max(
            float(np.abs(_values(image, _near(b, height), _near(a, width))).max() ** 2) for b, a in places
        )
    if can.all():
        return 0.0
    return float(np.median(there[~can]) / max(there[can].max(), 1e-30))


def _near(frequency: float, size: int) -> NDArray[np.float64]:
    """Frequencies of a transform of ``size`` values within reach of one."""
    first, last = math.ceil((frequency - REACH) * size), math.floor((frequency + REACH) * size)
    return np.arange(first, max(last, first) + 1) / size


def _weights(along_y: NDArray[np.float64], along_x: NDArray[np.float64], y: float, x: float) -> NDArray[np.float64]:
    """1 within half of the reach of an order, falling to 0 at all of it."""
    away = np.hypot(along_y[:, None] - y, along_x - x) / REACH
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip(2 * away - 1, 0, 1)))


def _waves(places: NDArray[np.integer], frequencies: NDArray[np.float64]) -> Complex:
    """Shape ``(places, frequencies)``."""
    return np.asarray(np.exp(2j * np.pi * np.outer(places, frequencies)))


def _values(image: NDArray[np.float32], along_y: NDArray[np.float64], along_x: NDArray[np.float64]) -> Complex:
    """The spectrum of an image ``(y, x)`` at some frequencies."""
    y, x = (_waves(np.arange(size), values) for size, values in zip(image.shape, (along_y, along_x), strict=True))
    return np.asarray(y.conj().T @ image.astype(np.float64) @ x.conj())
