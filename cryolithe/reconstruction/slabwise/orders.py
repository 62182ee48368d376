"""Orders of a lattice that filtered back-projection shows and a network's volume lacks.

A crystal stands in Fourier space in few peaks, each far above the noise about it. To a network, which sees some tens of
voxels at a time, its period may be lost in noise that the whole crystal would average out: above all a period along x,
which only tilts near 0° show, while all show one along y. Means over shells do not tell: a peak is one voxel of
thousands. So each is looked at by itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import torch
from numpy.typing import NDArray

from cryolithe.reconstruction.slabwise.part_spectra import fade
from cryolithe.reconstruction.slabwise.planes import measured_region

# A peak stands out of what is about it, from one to another distance in voxels of Fourier space, by so many times.
# Noise reaches 15 among a million voxels, gold, membranes and bundles less than 60, spokes of seven tilts 70; lattices
# have 70 to 1200.
OUT_OF_NOISE = 70.0
_NEAR, _FAR = 1, 4
# Of the amplitude that filtered back-projection shows: less is told. Networks make more of what they know than it does,
# and the most of a lattice that they keep nearly whole is within their noise (benchmarks/LOG.md).
MOST_LOST = 0.8
# Cycles/px: below, few voxels are about a peak; beyond, interpolation leaves too little.
_LEAST, _MOST = 0.06, 0.4
# Peaks of a wide part are blurred by lattices smaller than it: it is looked at in pieces.
_PIECE_PX = 128
# With few tilts, central slices are spokes, which stand out of what lies between.
FEWEST_TILTS = 15
_SAME = 0.02
_MOST_TOLD = 3

Floats = NDArray[np.float32]


class LostOrder(NamedTuple):
    """A peak of which little is left.

    Attributes:
        frequency_per_px: along z, y and x.
        kept: the network's amplitude in phase with that of filtered back-projection, as a part of that.
    """

    frequency_per_px: tuple[float, float, float]
    kept: float

    @property
    def period_px(self) -> float:
        """Voxels from plane to plane of the lattice."""
        return 1 / math.hypot(*self.frequency_per_px)


def lost_orders(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], angles_deg: Sequence[float]
) -> tuple[LostOrder, ...]:
    """Peaks of filtered back-projection, in the measured region, that a network's volume weakens.

    Args:
        pairs: the network's voxels and those of filtered back-projection, shape ``(z, y, x)``; one shape in a pair.
        angles_deg: of the tilts.

    Returns:
        what is kept least of each, the least first; nothing for few tilts, and of parts that are not finite.
    """
    if len(set(angles_deg)) < FEWEST_TILTS:
        return ()
    found: list[LostOrder] = []
    for ours, back in pairs:
        for place in _pieces(back.shape):
            piece = [np.asarray(part[place].cpu(), dtype=np.float32) for part in (ours, back)]
            if all(np.isfinite(part).all() for part in piece):
                found += _lost(piece[0], piece[1], tuple(angles_deg))
    distinct: list[LostOrder] = []
    for order in sorted(found, key=lambda one: one.kept):
        if all(_apart(order, other) > _SAME for other in distinct):
            distinct.append(order)
    return tuple(distinct)


def lost_told(
    orders: Sequence[LostOrder],
    taken: Sequence[LostOrder],
    alone: Mapping[LostOrder, int],
    in_all: bool,
    voxel_size_angstrom: float | None,
) -> str:
    """What to tell of lost orders, of which there are some.

    Args:
        orders: which.
        taken: those of them that are taken from filtered back-projection.
        alone: those that stand in one image alone, and the numbers of these.
        in_all: whether all images can show one of these.
        voxel_size_angstrom: edge of a voxel, or None.
    """
    if len(alone) == len(orders):
        return _fringes_told(orders, alone, voxel_size_angstrom)
    left = [order for order in orders if order not in taken and order not in alone]
    groups = [[order for order in orders if order in taken], left]
    doubt = " (or of a pattern of the detector, which looks the same where all images can show it)" if in_all else ""
    ends = (
        f" are taken from the back-projection{doubt}",
        " stand in all images alike, as a pattern of the detector does, or are too many, and stay weak",
    )
    told = [f"{_listed(group, voxel_size_angstrom)}{end}" for group, end in zip(groups, ends, strict=True) if group]
    if alone:
        fringes = [order for order in orders if order in alone]
        told.append(_fringes_told(fringes, alone, voxel_size_angstrom))
    return (
        f"filtered back-projection shows orders of a lattice which the network weakens: {'; '.join(told)}. "
        "Others of a crystal may be weakened: compare with --method fbp."
    )


def _fringes_told(
    orders: Sequence[LostOrder], alone: Mapping[LostOrder, int], voxel_size_angstrom: float | None
) -> str:
    numbers = sorted({alone[order] for order in orders})
    which = ",".join(map(str, numbers))
    images = f"image {which} alone" if len(numbers) == 1 else f"one of the images {which} each"
    return (
        f"waves of {_listed(orders, voxel_size_angstrom)} stand in {images}, as fringes do (of interference, of ice "
        f"crystals), and are not taken for a lattice: look there, and leave out what is spoilt by --exclude {which}"
    )


def _listed(orders: Sequence[LostOrder], voxel_size_angstrom: float | None) -> str:
    size, unit = (voxel_size_angstrom, "Å") if voxel_size_angstrom else (1.0, "voxels")
    shown = ", ".join(
        f"{order.period_px * size:.3g} {unit} {_direction(order)} ({max(order.kept, 0):.0%} of it kept)"
        for order in orders[:_MOST_TOLD]
    )
    return f"{shown} and {len(orders) - _MOST_TOLD} more" if len(orders) > _MOST_TOLD else shown


def _direction(order: LostOrder) -> str:
    z, y, x = (abs(value) for value in order.frequency_per_px)
    largest = max(z, y, x)
    along = [name for name, value in (("x", x), ("y", y), ("z", z)) if value > largest / 3]
    return f"along {along[0]}" if len(along) == 1 else f"across {' and '.join(along)}"


def _apart(one: LostOrder, other: LostOrder) -> float:
    a, b = np.array(one.frequency_per_px), np.array(other.frequency_per_px)
    return float(min(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def _pieces(shape: Sequence[int]) -> list[tuple[slice, slice, slice]]:
    """All of z; rows and columns in equal pieces."""
    numbers = [max(1, round(size / _PIECE_PX)) for size in shape[1:]]
    (y, ny), (x, nx) = ((size, number) for size, number in zip(shape[1:], numbers, strict=True))
    rows = [slice(n * y // ny, (n + 1) * y // ny) for n in range(ny)]
    columns = [slice(n * x // nx, (n + 1) * x // nx) for n in range(nx)]
    return [(slice(None), row, column) for row in rows for column in columns]


def _lost(ours: Floats, back: Floats, angles_deg: tuple[float, ...]) -> list[LostOrder]:
    if min(back.shape) <= 2 * _FAR:
        return []
    fades = (fade(size, axis).numpy().astype(np.float32) for axis, size in enumerate(back.shape))
    weights = functools.reduce(np.multiply, fades)
    theirs = scipy.fft.fftn((back - np.float32(back.mean(dtype=np.float64))) * weights)
    z, y, x = np.meshgrid(*map(np.fft.fftfreq, back.shape), indexing="ij", sparse=True)
    measured = np.broadcast_to(measured_region(angles_deg, z, x, back.shape[0]), back.shape).astype(np.float32)
    power = (theirs.real**2 + theirs.imag**2) * measured
    about = _between(power) / np.maximum(_between(measured), 1.0)
    radius = np.sqrt(z**2 + y**2 + x**2).astype(np.float32)
    # Each peak stands there twice, at k and -k.
    half = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    high = (power > OUT_OF_NOISE * about) & (measured > 0.9) & (radius > _LEAST) & (radius < _MOST) & half
    if not high.any():
        return []
    high &= power == scipy.ndimage.maximum_filter(power, 2 * _NEAR + 3, mode="wrap")
    made = scipy.fft.fftn((ours - np.float32(ours.mean(dtype=np.float64))) * weights)
    common = _box((made * theirs.conj()).real, _NEAR) / np.maximum(_box(np.abs(theirs) ** 2, _NEAR), 1e-30)
    places = np.argwhere(high)
    orders = [
        LostOrder(
            (float(z[i, 0, 0]), float(y[0, j, 0]), float(x[0, 0, k])),
            # Digits beyond are those of the order of sums.
            round(float(common[i, j, k]), 3),
        )
        for i, j, k in places
    ]
    return [order for order in orders if order.kept < MOST_LOST]


def _box(values: NDArray[np.floating], reach: int) -> NDArray[np.floating]:
    """Sums over cubes of ``2 reach + 1`` voxels."""
    side = 2 * reach + 1
    return np.asarray(scipy.ndimage.uniform_filter(values, side, mode="wrap") * side**3)


def _between(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Sums over cubes without the smaller cubes in their middle."""
    return np.maximum(_box(values, _FAR) - _box(values, _NEAR), 0)
