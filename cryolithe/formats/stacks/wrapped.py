"""Unsigned integers under a header that says signed: those above the middle of their range wrap to its lower end.

Two things tell of it. Neighbouring pixels: where one lies on either side of the middle, they jump from one end of the
signed range to the other, and hardly any neighbours do so about 0, as they would if the values were signed. And the
histogram: it goes on from one end to the other, falls off beyond, and nothing is heaped up at an end, as what was cut
off there is (gold, hot pixels).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# So many values, of whole rows, are looked at, in this many sections at least.
_ENOUGH, _SECTIONS = 3_000_000, 3
# Neighbours whose values differ by more of the range than this jump: no edge is as steep where both are recorded.
_JUMP = 0.75
# So many jumps, and values on the side that holds less, are no accident; neighbours that would jump in the other
# reading must be fewer by this factor. Where they are not even more by the second, neither reading is good.
_LEAST, _FEWER, _DOUBTFUL = 20, 4.0, 0.9
# Where values are cut off, a level at the end holds more than so many times what the next ones do.
_CUT_OFF = 3.0
# Half of what lies on the side that holds less is within this part of the range of where the ends meet.
_NEAR = 1 / 6
# Levels at an end at which programs cut off, as a part of the range, and no fewer than two (-128 and -127).
_END = 2**-12
# An end of this part of the range holds values, where it is doubtful what they are.
_OCCUPIED = 1 / 32

Signs = Literal["signed", "unsigned", "doubtful"]


def signs(values: NDArray[Any]) -> Signs:
    """What signed integers of 8 or 16 bits, shape ``(z, y, x)``, are: signed, unsigned ones wrapped, or either."""
    span = 2 ** (8 * values.dtype.itemsize)
    jumps, jumps_if_unsigned, counts = _looked_at(values, span)
    if jumps < _LEAST or jumps + 2 * np.sqrt(jumps) < _DOUBTFUL * jumps_if_unsigned:
        return "signed"
    below, above = _levels_from_middle(counts)
    if any(_cut_off(side, span) for side in (below, above)):
        return "signed"
    lesser, greater = sorted((below, above), key=lambda side: int(side.sum()))
    if _falls_off(lesser, greater) and jumps > _FEWER * jumps_if_unsigned:
        return "unsigned"
    ends = [int(side[: max(1, round(_OCCUPIED * 2 * len(side)))].sum()) for side in (below, above)]
    return "doubtful" if min(ends) >= _LEAST else "signed"


def jumps_more_as_unsigned(values: NDArray[Any]) -> bool:
    """Whether neighbours of signed integers, shape ``(z, y, x)``, jump more often if taken for unsigned ones."""
    jumps, jumps_if_unsigned, _ = _looked_at(values, 2 ** (8 * values.dtype.itemsize))
    return jumps_if_unsigned > jumps


def _looked_at(values: NDArray[Any], span: int) -> tuple[int, int, NDArray[np.int64]]:
    """Jumps between neighbours along x as the values are and as unsigned ones, and the counts of the unsigned ones."""
    sections, rows, columns = values.shape
    taken = min(sections, max(_SECTIONS, _ENOUGH // max(1, rows * columns)))
    step = max(1, taken * rows * columns // _ENOUGH)
    jumps = jumps_if_unsigned = 0
    counts = np.zeros(span, np.int64)
    for section in np.unique(np.linspace(0, sections - 1, taken).round().astype(int)):
        signed = values[section, ::step].astype(np.int32)
        unsigned = signed & (span - 1)
        counts += np.bincount(unsigned.ravel(), minlength=span)
        jumps += int(np.count_nonzero(np.abs(np.diff(signed)) > _JUMP * span))
        jumps_if_unsigned += int(np.count_nonzero(np.abs(np.diff(unsigned)) > _JUMP * span))
    return jumps, jumps_if_unsigned, counts


def _levels_from_middle(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts below and above the middle of the unsigned range, each from there, in steps of what all values share."""
    occupied = np.flatnonzero(counts)
    step = max(1, int(np.gcd.reduce(np.diff(occupied)))) if len(occupied) > 1 else 1
    middle = len(counts) // 2
    first = int(occupied[0]) % step if len(occupied) else 0
    levels = counts[first::step]
    below = int(np.ceil((middle - first) / step))
    return levels[:below][::-1], levels[below:]


def _cut_off(side: NDArray[np.int64], span: int) -> bool:
    """Whether values were cut off at an end: a level there holds far more than those beside it."""
    for place in range(min(len(side), max(2, int(span * _END * len(side) / (span // 2))))):
        beyond = side[place + 1 :]
        beside = [*side[max(0, place - 1) : place], *beyond[beyond > 0][:4]]
        expected = float(max(beside, default=0))
        if side[place] > _CUT_OFF * (expected + np.sqrt(expected)) + 4:
            return True
    return False


def _falls_off(lesser: NDArray[np.int64], greater: NDArray[np.int64]) -> bool:
    """Whether a histogram goes on from the side that holds more to the other one, and falls off there."""
    total = int(lesser.sum())
    if total < _LEAST:
        return False
    half = int(np.searchsorted(np.cumsum(lesser), total / 2)) + 1
    if half > _NEAR * 2 * len(lesser):
        return False
    width = max(1, (half + 1) // 2)
    near, far, before = (float(part.sum()) for part in (lesser[:width], lesser[width : 2 * width], greater[:width]))
    return near >= 0.9 * far - 2 * np.sqrt(far) and before >= near / 3
