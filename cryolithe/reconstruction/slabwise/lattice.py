"""The part of images that belongs to orders of a lattice, to go around a network that weakens them.

An order k of a crystal stands in the images whose central slice passes it, in few values of their spectra: all of the
crystal's signal, and next to no noise. Filtered back-projection of these alone gives the order as it shows it
(`cryolithe.reconstruction.slabwise.orders` finds which of them a network loses):

    V = N(images) + (1 - kept) F(L)          L = values of the images' spectra about k

A fringe of one image looks like an order, too: it has all of its power on one central slice. A crystal that fills the
volume's depth D shows an order also in images whose central slice passes it at a distance q, by sinc²(q D), and a
thinner one by more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import scipy.fft
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
# Another image than the strongest holds the order where it has so many times what images have that cannot show it, and
# at least so much of the strongest.
ABOVE_NOISE, LEAST_OF_STRONGEST = 2.5, 0.01
# Images that a crystal must show in so much of its strength, or in so much as stands out of noise and is not next to
# nothing. Dose, thickness and the CTF leave some of these as little of that as the fourth number, most of a fringe's
# none: so many of them hold an order of a crystal.
SURELY_SEEN, EVER_SEEN, LEAST_SEEN, LEAST_LEFT, LEAST_MANY = 0.3, 0.03, 0.2, 0.05, 0.2
# Orders that are taken at most, those of which least is kept.
MOST_ORDERS = 24

Complex = NDArray[np.complexfloating]
Whole = NDArray[np.int64]


class Patch(NamedTuple):
    """Some values of the spectrum of one image.

    Attributes:
        tilt: of which image.
        y: their places along y in a transform of the image, may be negative, shape ``(Y,)``.
        x: likewise along x.
        values: shape ``(Y, X)``.
    """

    tilt: int
    y: Whole
    x: Whole
    values: Complex


@dataclass(frozen=True, eq=False)
class LatticePart:
    """What images show of lost orders.

    Attributes:
        patches: of their spectra, weighed.
        tilts: number of images.
        image_shape: pixels ``(y, x)``.
        orders: that are taken.
        in_all: whether all images can show one of them, so that none tells whether it is of the detector.
        alone: orders that stand in one image, though others would show them, and in which.
    """

    patches: tuple[Patch, ...]
    tilts: int
    image_shape: tuple[int, int]
    orders: tuple[LostOrder, ...]
    in_all: bool
    alone: tuple[tuple[LostOrder, int], ...]

    def rows(self, first_row: int, rows: int) -> NDArray[np.float32]:
        """Rows of all tilts, shape ``(tilts, rows, x)``; rows beyond the image mirror it.

        A row has the same bytes whichever others are asked for.
        """
        height, width = self.image_shape
        places = symmetric(np.arange(first_row, first_row + rows), height)
        made = np.zeros((self.tilts, rows, width), np.float32)
        for tilt in {patch.tilt for patch in self.patches}:
            spectrum = np.zeros((rows, width // 2 + 1), np.complex128)
            for patch in (one for one in self.patches if one.tilt == tilt):
                waves = np.exp(2j * np.pi * np.outer(places, patch.y / height))
                along_x = np.einsum("ry,yx->rx", waves, patch.values) / height
                for column, place in enumerate(patch.x):
                    # Values at k and -k are each other's conjugates, and count as one; at 0 both are the same value.
                    value = along_x[:, column] if place >= 0 else along_x[:, column].conj()
                    spectrum[:, abs(place)] += value if place else 2 * value.real
            made[tilt] = scipy.fft.irfft(spectrum, width, axis=1)
        return made


def lattice_part(
    images: NDArray[np.float32], geometry: TiltGeometry, depth: int, orders: Sequence[LostOrder]
) -> LatticePart:
    """What images show of orders that a network loses.

    An order that stands in images which cannot show it is a pattern of the detector and is not taken. Where all can,
    as those along y, nothing tells that. Nor is one that stands in a single image: it is a fringe of that image, or of
    a crystal so thick that no other image shows it, which is believed where another order is sure.

    Args:
        images: prepared, shape ``(tilts, y, x)``.
        geometry: of them.
        depth: voxels of the volume along z.
        orders: which are lost, and how much of each is kept, the least first.
    """
    orders = tuple(orders)[:MOST_ORDERS]
    shape, angles = geometry.image_shape, geometry.angles_rad
    away = np.array([[_seen(order, angle)[2] * depth for angle in angles] for order in orders])
    can = away <= WAVES
    power = np.zeros(can.shape)
    patches: dict[tuple[int, int], Patch] = {}
    for tilt, angle in enumerate(angles):
        spectrum = scipy.fft.rfft2(np.asarray(images[tilt], dtype=np.float32))
        for number, order in enumerate(orders):
            y, x, _ = _seen(order, angle)
            if can[number, tilt]:
                patch = patches[number, tilt] = _patch(spectrum, shape, tilt, (y, x))
                power[number, tilt] = float(np.abs(patch.values).max() ** 2)
            else:  # where it would stand if it were in all images alike
                x = math.hypot(order.frequency_per_px[0], order.frequency_per_px[2])
                looks = [_patch(spectrum, shape, tilt, place) for place in ((y, x), (y, -x))]
                power[number, tilt] = max(float(np.abs(look.values).max() ** 2) for look in looks)
    looked = [_looked(*one) for one in zip(power, away, can, strict=True)]
    sure = "specimen" in looked
    taken = [number for number, one in enumerate(looked) if one == "specimen" or (one == "unsure" and sure)]
    alone = [number for number, one in enumerate(looked) if one == "alone" or (one == "unsure" and not sure)]
    weighed = []
    for place, number in enumerate(taken):
        others = [orders[other] for other in taken[:place]]
        for tilt in np.flatnonzero(can[number]).tolist():
            patch = patches[number, tilt]
            weight = _own_weight(patch, orders[number], others, (angles[tilt], depth), shape)
            weighed.append(patch._replace(values=(1 - max(orders[number].kept, 0)) * weight * patch.values))
    in_all = any(bool(can[number].all()) for number in taken)
    fringes = tuple((orders[number], int(np.where(can[number], power[number], 0).argmax())) for number in alone)
    return LatticePart(
        tuple(weighed), geometry.tilts, shape, tuple(orders[number] for number in taken), in_all, fringes
    )


def _looked(
    power: NDArray[np.float64], away: NDArray[np.float64], can: NDArray[np.bool_]
) -> Literal["specimen", "detector", "alone", "unsure"]:
    """What an order is of, by the power that each image has where it would show it.

    Args:
        power: by image.
        away: of its central slice from the order, in waves over the volume's depth.
        can: which images can show it.
    """
    if not can.any():
        return "detector"
    strongest = int(np.where(can, power, -1).argmax())
    most = float(power[strongest])
    elsewhere = 0.0 if can.all() else float(np.median(power[~can]))
    if elsewhere > MOST_ELSEWHERE * most:
        return "detector"
    others = can.copy()
    others[strongest] = False
    expected = np.sinc(away) ** 2
    told = (expected >= EVER_SEEN) & (LEAST_SEEN * expected * most >= ABOVE_NOISE * elsewhere)
    surely = others & ((expected >= SURELY_SEEN) | told)
    left = np.maximum(LEAST_LEFT * expected * most, ABOVE_NOISE * elsewhere)
    if surely.any() and np.mean(power[surely] > left[surely]) < LEAST_MANY:
        return "alone"
    holds = power > max(ABOVE_NOISE * elsewhere, LEAST_OF_STRONGEST * most)
    return "specimen" if (others & holds).any() else "unsure"


def _seen(order: LostOrder, angle_rad: float) -> tuple[float, float, float]:
    """Where an image sees an order: frequencies along y and x, and how far that is from its central slice."""
    z, y, x = order.frequency_per_px
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return y, x * c + z * s, abs(z * c - x * s)


def _patch(spectrum: Complex, shape: tuple[int, int], tilt: int, place: tuple[float, float]) -> Patch:
    """Values within reach of a place in the half spectrum of an image."""
    y, x = (_near(frequency, size) for frequency, size in zip(place, shape, strict=True))
    rows, columns = y[:, None] % shape[0], x[None, :]
    mirrored = spectrum[-y[:, None] % shape[0], np.abs(columns)].conj()
    return Patch(tilt, y, x, np.where(columns < 0, mirrored, spectrum[rows, np.abs(columns)]))


def _near(frequency: float, size: int) -> Whole:
    """Places in a transform of ``size`` values within reach of a frequency; between 0 and Nyquist, either way."""
    first, last = math.ceil((frequency - REACH) * size), math.floor((frequency + REACH) * size)
    most = (size - 1) // 2
    return np.unique(np.clip(np.arange(first, max(last, first) + 1), -most, most))


def _own_weight(
    patch: Patch, order: LostOrder, others: Sequence[LostOrder], seen: tuple[float, int], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """About an order, without what others have already.

    Args:
        patch: of the order.
        order: which.
        others: that come before it.
        seen: tilt of the image in radians, and depth of the volume.
        shape: of the image.
    """
    angle_rad, depth = seen
    frequencies = patch.y / shape[0], patch.x / shape[1]
    y, x, _ = _seen(order, angle_rad)
    weight = _weights(frequencies, y, x)
    for other in others:
        there_y, there_x, away = _seen(other, angle_rad)
        if away <= WAVES / depth:
            taken = [_weights(frequencies, sign * there_y, sign * there_x) for sign in (1, -1)]
            weight = np.maximum(weight - np.maximum(*taken), 0)
    return weight


def _weights(at: tuple[NDArray[np.float64], NDArray[np.float64]], y: float, x: float) -> NDArray[np.float64]:
    """1 within half of the reach of an order, falling to 0 at all of it."""
    away = np.hypot(at[0][:, None] - y, at[1] - x) / REACH
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip(2 * away - 1, 0, 1)))
