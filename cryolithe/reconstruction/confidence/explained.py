"""How much of a network's volume is right in all, told by tilts that it did not see.

The local moments of `confidence.doubt` say where a volume is wrong, but not how wrong: what all runs of a
network share is not in them. Images tell that. The noise of the odd tilts' back-projection F_O has nothing to do with
the even tilts' volume E, nor with F_E, so that over a shell |k| of the region that the tilts measured, with T the
specimen as filtered back-projection shows it and g = <B E, E> / <E, E> what is left of an amplitude by that (B: project
to the other half's tilts and back),

    <E, T> = <E, F_O> / g        |T|² = <F_E, F_O> / (g² c)        r² = <E, T>² / (<H, H> |T|²)

without any truth; H, the mean of both halves, stands for the volume: <H, H> = (<E, E> + <E, O>) / 2. c is what planes
of even and odd tilts have in common: all where they lie closer than a third of a slice's thickness, nothing farther
from the tilt axis.

Two things no image tells, and they are assumed. In the missing wedge the specimen has as much power as in the measured
region of the same shell, and what the network drew there (after `--wedge-trust`) is as right as the rest: layers across
the beam, as the faces of the ice are, break that. And beyond the last shell in which the images show anything the
specimen's power falls with the fourth power of the frequency, as that of bodies with faces does (Porod 1951).

r² is the squared correlation of volume and specimen, and 1 - r² the share of the volume's power that is error, as the
specimen is scaled by regression.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.arrays.spectra import times_counted
from cryolithe.reconstruction.confidence.doubt import Ensemble, rounded
from cryolithe.reconstruction.slabwise.part_spectra import CORRELATED, frequencies_of, spectrum_of
from cryolithe.reconstruction.slabwise.planes import measured_region

# Shells between zero and Nyquist.
SHELLS = 24
# c of planes whose distance is u slices' thicknesses: 1 up to the first, 0 from the second on, as back-projections of
# white specimens have it.
_SHARED_UP_TO, _APART_FROM = 0.35, 0.9
# Of less than this c, nothing is learnt.
_LEAST_SHARED = 0.1
# Shells in which back-projection leaves less than this share of its best amplitude are not asked.
_LEAST_GAIN = 0.15
# Deviations above nothing from which on a shell shows something, and shells that tell the amplitude beyond the last.
_SURE, _TAIL_SHELLS = 2.0, 4
_TINY = 1e-30


class Seen(NamedTuple):
    """Parts of the volumes that are asked about, each of shape ``(z, y, x)``; see `Ensemble` for their meaning."""

    halves: tuple[torch.Tensor, torch.Tensor]
    images: tuple[torch.Tensor, torch.Tensor]
    again: tuple[torch.Tensor, torch.Tensor]

    @classmethod
    def of(cls, rows: Ensemble, planes: slice = slice(None)) -> Seen:
        """Copies of some planes, which keep nothing else in memory."""
        given = (rows.halves, rows.images, rows.again)
        pairs = [(first[planes].clone(), second[planes].clone()) for first, second in given]
        return cls(*pairs)


class Sums(NamedTuple):
    """Sums by shell, each of shape ``(SHELLS,)``; those that end on ``near`` count by c, near the tilt axis.

    Attributes:
        own: mean of <E, E> and <O, O>, measured region.
        halves: <H, H> there.
        missing: <H, H> in the missing wedge.
        seen: mean of <E, F_O> and <O, F_E>.
        seen_variance: of it, if images were nothing but noise.
        again: mean of <B E, E> and <B O, O>.
        own_near: as ``own``.
        again_near: as ``again``.
        images_near: <F_E, F_O>.
        images_variance: of it, likewise.
        weight_near: sum of c².
        number: frequencies in the measured region.
        number_missing: in the missing wedge.
    """

    own: NDArray[np.float64]
    halves: NDArray[np.float64]
    missing: NDArray[np.float64]
    seen: NDArray[np.float64]
    seen_variance: NDArray[np.float64]
    again: NDArray[np.float64]
    own_near: NDArray[np.float64]
    again_near: NDArray[np.float64]
    images_near: NDArray[np.float64]
    images_variance: NDArray[np.float64]
    weight_near: NDArray[np.float64]
    number: NDArray[np.float64]
    number_missing: NDArray[np.float64]


@dataclass(frozen=True)
class Explained:
    """What of a volume is right in all.

    Attributes:
        share: r², squared correlation of volume and specimen, from 0 to 1.
        measured: the same in the measured region alone.
        finest_per_px: up to which frequency the images show anything, cycles/px; 0 where they show nothing.
    """

    share: float
    measured: float
    finest_per_px: float

    @property
    def error(self) -> float:
        """The expected squared error, as a share of the volume's mean square."""
        return 1 - self.share


def explained(parts: Iterable[Sums]) -> Explained:
    """How much of a volume is right.

    Args:
        parts: sums of parts that stand for the volume.

    Returns:
        nothing where the images show nothing.
    """
    added = Sums(*(np.sum(values, axis=0) for values in zip(*parts, strict=True)))
    share, measured, finest = (rounded(value, 4) for value in _told(added))
    return Explained(share, measured, finest)


def sums_of(seen: Seen, angles_deg: tuple[float, ...]) -> Sums:
    """Ask the images about a part of a volume; sums are made in float64.

    Args:
        seen: with the whole depth, of the planes that are handed out, and width of the volume.
        angles_deg: of the tilts.
    """
    shape = tuple(seen.halves[0].shape)
    pairs = [[spectrum_of(part).to(torch.complex64) for part in pair] for pair in seen]
    (even, odd), (of_even, of_odd), (even_again, odd_again) = pairs
    z, y, x = frequencies_of(shape)
    radius, across = np.sqrt(z**2 + y**2 + x**2), np.hypot(z, x) + 0 * y
    # Half-way between two shells it is the even one: results that are published were made so.
    shell = torch.from_numpy(np.minimum(np.rint(2 * SHELLS * radius), SHELLS + 1).astype(np.int64).ravel())
    measured = measured_region(angles_deg, z, x, shape[0]) * np.ones_like(radius)
    common = shared_of(across, angles_deg, shape[0])
    count = times_counted(shape[2]) * np.ones_like(radius)

    def by_shell(values: torch.Tensor | float, weight: NDArray[np.floating]) -> NDArray[np.float64]:
        weights = torch.from_numpy(weight.ravel())
        place = shell.to(values.device) if isinstance(values, torch.Tensor) else shell
        summed = torch.bincount(place, weights.to(place.device) * values, SHELLS + 2)
        return np.asarray(summed[1 : SHELLS + 1].cpu().numpy())

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b.conj()).real

    inside, outside, near = count * measured, count * (1 - measured), count * measured * common
    powers = [part.abs().square_() for part in (even, odd, of_even, of_odd)]
    own, again = (powers[0] + powers[1]) / 2, (product(even, even_again) + product(odd, odd_again)) / 2
    halves = (own + product(even, odd)) / 2
    noise = (powers[0] * powers[3] + powers[1] * powers[2]) / 4
    return Sums(
        own=by_shell(own, inside),
        halves=by_shell(halves, inside),
        missing=by_shell(halves, outside),
        seen=by_shell((product(even, of_odd) + product(odd, of_even)) / 2, inside),
        seen_variance=by_shell(noise, (count * measured) ** 2 * CORRELATED / 2),
        again=by_shell(again, inside),
        own_near=by_shell(own, near),
        again_near=by_shell(again, near),
        images_near=by_shell(product(of_even, of_odd), near),
        images_variance=by_shell(powers[2] * powers[3], near**2 * CORRELATED / 2),
        weight_near=by_shell(1.0, near * common),
        number=by_shell(1.0, inside),
        number_missing=by_shell(1.0, outside),
    )


def shared_of(across_per_px: NDArray[np.floating], angles_deg: tuple[float, ...], depth: int) -> NDArray[np.float64]:
    """c: what planes of even and odd tilts share at a distance from the tilt axis.

    Args:
        across_per_px: that distance, ``|(k_z, k_x)|``, cycles/px.
        angles_deg: of the tilts.
        depth: of the volume in voxels, whose reciprocal is a slice's thickness.
    """
    steps = np.diff(np.unique(np.asarray(angles_deg)))
    apart = across_per_px * depth * np.radians(float(np.median(steps)) if steps.size else 0.0)
    fall = np.clip((apart - _SHARED_UP_TO) / (_APART_FROM - _SHARED_UP_TO), 0, 1)
    shared = 0.5 + 0.5 * np.cos(np.pi * fall)
    return np.where(shared >= _LEAST_SHARED, shared, 0.0)


def _told(sums: Sums) -> tuple[float, float, float]:
    """r², r² in the measured region, and the finest frequency that is seen."""
    gain, near = (b / np.maximum(a, _TINY) for a, b in ((sums.own, sums.again), (sums.own_near, sums.again_near)))
    asked = (gain > _LEAST_GAIN * gain.max()) & (near > _LEAST_GAIN * near.max()) & (sums.weight_near > 0)
    asked &= sums.images_variance > 0
    if not asked.any():
        return 0.0, 0.0, 0.0
    gain, near = (np.where(asked, values, 1.0) for values in (gain, near))
    power, last = _specimen(sums, asked, near)
    right = float((sums.seen / gain)[asked].sum())
    chance = float((sums.seen_variance / gain**2)[asked].sum())
    if last < 0 or right <= 0:
        return 0.0, 0.0, 0.0
    right *= max(0.0, 1 - _SURE**2 * chance / right**2)
    halves, missing = float(sums.halves.sum()), float(sums.missing.sum())
    there, beyond = float((power * sums.number).sum()), float((power * sums.number_missing).sum())

    def squared(factor: float, volume: float, specimen: float) -> float:
        return min(1.0, (right * factor) ** 2 / max(volume * specimen, _TINY))

    whole = 1 + missing / max(halves, _TINY)  # what is drawn in the wedge is as right as the rest
    share = squared(whole, halves + missing, there + beyond)
    return share, squared(1.0, halves, there), (last + 1) / (2 * SHELLS)


def _specimen(sums: Sums, asked: NDArray[np.bool_], gain: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Mean power of the specimen's coefficients by shell, and the last shell that shows any; -1 for none."""
    weight = np.where(asked, sums.weight_near, 1.0)
    power = np.where(asked, sums.images_near / gain**2 / weight, 0.0)
    spread = np.where(asked, np.sqrt(sums.images_variance) / gain**2 / weight, np.inf)
    seen = asked & (power > _SURE * spread)
    # One alone of so many may be chance.
    pairs = np.flatnonzero(seen & np.concatenate(([seen[0]], seen[:-1])))
    if not pairs.size:
        return power, -1
    last = int(pairs[-1])
    number = np.arange(1.0, SHELLS + 1)
    told = np.arange(max(0, last + 1 - _TAIL_SHELLS), last + 1)
    fall = number**-4.0
    counts = fall[told] / spread[told]
    level = float((power[told] / spread[told] * counts).sum() / (counts**2).sum())
    return np.where(number - 1 > last, max(0.0, level) * fall, power), last
