"""The colour of a lab's noise: found from halves of frames, and made white in what a network sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cryolithe.adapt.halves import HalfSeries
from cryolithe.artefacts.noise_colour import LEAST_GAIN, MOST_GAIN, Gain, radial_power, whitening_gain
from cryolithe.reconstruction.setup.whitening import whitened

# Images of a series by whose halves its noise is measured.
_MOST_IMAGES = 16


def lab_gain(series: Sequence[HalfSeries], rows: Sequence[range]) -> Gain | None:
    """The factors that make the noise of a lab's series white; None where it is white, or nobody knows it.

    Half of the difference of two halves of frames is noise like that of their mean, and nothing else.

    Args:
        series: of the lab; those in odd and even tilts tell nothing.
        rows: of each, to look at; none of those held back.
    """
    powers = []
    for one, chosen in zip(series, rows, strict=True):
        if not one.of_frames or not chosen:
            continue
        even, odd = (half.rows(chosen.start, len(chosen)).numpy() for half in one.halves)
        tilts = np.unique(np.linspace(0, len(even) - 1, min(len(even), _MOST_IMAGES)).round().astype(int))
        powers.append(np.mean([radial_power((even[number] - odd[number]) / 2) for number in tilts], axis=0))
    return whitening_gain(np.mean(powers, axis=0)) if powers else None


def white_series(series: HalfSeries, gain: Gain) -> HalfSeries:
    """A series in halves of frames whose images are filtered; they are written beside those as they were."""
    stacks = []
    for half in series.halves:
        pixels = half.stack.pixels
        assert isinstance(pixels, Path)
        stacks.append(whitened(half.stack, gain, pixels.with_name(f"{pixels.stem}_white{pixels.suffix}")))
    sign = np.sign(series.halves[0].divisor)
    divisor = float(sign * np.sqrt(np.mean([stack.sigma**2 for stack in stacks])))
    even, odd = (replace(half, stack=stack, divisor=divisor) for stack, half in zip(stacks, series.halves, strict=True))
    return replace(series, halves=(even, odd))


@dataclass(frozen=True)
class Factors:
    """Of a filter for a lab's images.

    Attributes:
        whole: for images as they are recorded, which a model asks for.
        further: for images as they are prepared, which a filter that the model asked for may have passed.
    """

    whole: Gain
    further: Gain


def of_recorded(before: Gain | None, further: Gain, series: Sequence[HalfSeries]) -> Factors | None:
    """What a filter of prepared images is to those that were recorded; None where only some were filtered before.

    Args:
        before: the factors that the model asked for; images of another colour stayed as they were.
        further: that are wanted of the prepared images.
        series: these, of halves of frames; others are not looked at.
    """
    passed = {half.stack.whitened for one in series if one.of_frames for half in one.halves}
    if len(passed) > 1:
        return None
    first = before if before is not None and True in passed else (1.0,) * len(further)
    # Both within limits, and so that one after the other is the whole.
    whole = [round(float(one), 4) for one in np.clip(np.multiply(first, further), LEAST_GAIN, MOST_GAIN)]
    return Factors(tuple(whole), tuple(float(one) for one in np.divide(whole, first)))
