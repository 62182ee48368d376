"""What speaks against two volumes that are compared: one list for every command and function that correlates them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.narrow import narrowed
from cryolithe.artefacts.faces import filled_doubt, has_noise_everywhere, lacking_doubt
from cryolithe.artefacts.half_agreement import Expected, doubts_about_places
from cryolithe.artefacts.missing_wedge import wedge_doubts
from cryolithe.metrics import FscCurve

Array = NDArray[Any]

# Correlation in every shell: of copies, rescaled and rounded, and what halves with noise of their own do not reach.
SAME_VOLUME, SAME_HALVES = 0.9999, 0.98
OPPOSITE_VOLUMES, SIGMAS = 0.3, 5.0  # of the lowest shells where one is inverted, beyond chance
OPPOSITE_CONTRAST = "opposite contrast (the lowest shells correlate by {:.2f}): invert one of them"


@dataclass(frozen=True)
class Looks:
    """Two volumes that are compared voxel by voxel.

    Attributes:
        voxels: of each, shape ``(z, y, x)``, finite.
        names: for messages.
        expected: what they are to each other.
        same: they are one file or array, of which only borders and the wedge are asked.
        borders: whether faces of one value are asked for: a mask leaves them out, and a truth may have them.
        tilt_range_deg: that is told or supposed of both; None where it has no part in the comparison.
        flag: by which a user tells it.
    """

    voxels: tuple[Array, Array]
    names: tuple[str, str]
    expected: Expected
    same: bool = False
    borders: bool = True
    tilt_range_deg: tuple[float, float] | None = None
    flag: str = ""


def doubts_about(pair: Looks, curve: FscCurve | None = None) -> tuple[str, ...]:
    """What speaks against a comparison, as lines for warnings: borders, copies, contrast, places, noise, the wedge.

    Args:
        pair: the volumes.
        curve: how they correlate, or None where nobody has computed it yet.
    """
    first, second = (narrowed(voxels) for voxels in pair.voxels)
    both = ((first, pair.names[0]), (second, pair.names[1]))
    halves, doubts = pair.expected.own_noise, list[str]()
    filled = [filled_doubt(voxels, name) for voxels, name in both] if pair.borders else []
    # A border of one alone is in common with nothing, as where a truth ends in vacuum; but halves are made alike.
    if pair.borders and not pair.same and (halves or all(map(has_noise_everywhere, (first, second)))):
        doubts += lacking_doubt(first, second, pair.names)
    if not doubts and (halves or all(filled)):
        doubts += [line for lines in filled for line in lines]
    if not pair.same:
        if curve is not None:
            doubts += doubts_about_curve(curve, halves)
        if not (halves and curve is not None and least_correlation(curve) > SAME_HALVES):  # all noise is in common
            doubts += doubts_about_places(first, second, pair.names, pair.expected)
    if pair.tilt_range_deg is not None:
        for voxels, name in both:
            doubts += wedge_doubts(voxels, name, pair.tilt_range_deg, pair.flag)
    return tuple(doubts)


def sentence(doubt: str) -> str:
    """A line as a sentence; the name of a file at its beginning stays as it is."""
    return f"{doubt[:1].upper()}{doubt[1:]}." if doubt.startswith("the ") else f"{doubt}."


def doubts_about_curve(curve: FscCurve, halves: bool = False) -> tuple[str, ...]:
    """What a curve says against two volumes as independent looks at one specimen.

    Args:
        curve: of the volumes.
        halves: whether they should have noise of their own.
    """
    least = least_correlation(curve)
    if halves and least > SAME_HALVES:
        return (
            f"the halves correlate by {least:.3f} or more in every shell: they are copies of one volume, or hold the "
            "same noise, and neither FSC nor SNR tells anything",
        )
    if least > SAME_VOLUME:
        return (
            "the volumes are the same but for their grey levels: every shell correlates perfectly, which tells nothing "
            "of resolution",
        )
    low = opposite_correlation(curve.total, curve.counts)
    return () if low is None else (f"the {'halves' if halves else 'volumes'} are of {OPPOSITE_CONTRAST.format(low)}",)


def least_correlation(curve: FscCurve) -> float:
    """The lowest correlation of any shell with anything in it, but the mean; NaN where there is none."""
    found = curve.total[1:][np.isfinite(curve.total[1:])]
    return float(found.min()) if found.size else math.nan


def opposite_correlation(fsc: NDArray[np.float64], counts: NDArray[np.number[Any]]) -> float | None:
    """Correlation of the lowest shells of two volumes of opposite contrast; None of others.

    Args:
        fsc: correlation by shell, NaN where there is none, shape ``(S,)``.
        counts: coefficients of each shell, the same shape.
    """
    shells = slice(1, max(3, len(fsc) // 4))
    usable = np.where(np.isfinite(fsc[shells]), counts[shells], 0)
    low = float(np.nan_to_num(fsc[shells]) @ usable / max(1, usable.sum()))
    return low if low < -max(OPPOSITE_VOLUMES, SIGMAS / math.sqrt(max(1, usable.sum() / 2))) else None
