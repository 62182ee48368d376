"""What is wrong with how a target fits its tilt series, in words; of training files as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolithe.curation.match import LARGEST_PX, Match, compare
from cryolithe.formats.pairs import open_pair
from cryolithe.images import fourier_crop

LEAST_CORRELATION = 0.05  # in large fields even less is significant, and means little
LEAST_SIGNIFICANCE = 7.0  # targets of other series reach 5.5


def faults_of(match: Match) -> Iterator[str]:
    """What is wrong with a target; nothing if it fits its series."""
    if match.significance < LEAST_SIGNIFICANCE or abs(match.best_correlation) < LEAST_CORRELATION:
        yield (
            f"the target does not belong to the series: correlation with our FBP {match.best_correlation:.2f} at best, "
            f"{match.significance:.1f} times the usual one at other shifts; expected more than {LEAST_CORRELATION} and "
            f"{LEAST_SIGNIFICANCE:g} times; check the files, target_axes and binning"
        )
        return
    if match.mirrored:
        axes = " and ".join(match.mirrored)
        remedy = {
            ("z",): "change target_flip_z, or the signs of the angles",
            ("z", "y"): "the target is turned half around x: turn it back",
            ("z", "x"): "the target is turned half around the tilt axis: turn it back",
            ("y", "x"): "the target is turned half around z: turn it back",
        }.get(match.mirrored, "the target has the wrong handedness: mirror it back")
        yield (
            f"the target is MIRRORED along {axes}: correlation with our FBP {match.correlation:.2f} as it is, "
            f"{match.best_correlation:.2f} mirrored; {remedy}"
        )
    if match.best_correlation < 0:
        yield (
            f"the target is INVERTED: correlation with our FBP {match.best_correlation:.2f}, expected a positive one; "
            "correct target_contrast or stack_contrast"
        )
    if not match.mirrored and max(map(abs, match.shift_px)) > match.precision_px:
        shift = ", ".join(f"{value + 0.0:+.1f}" for value in match.shift_px)
        rows, columns = (round(-value) for value in match.shift_px[1:])
        offset = f", or add ({rows:+d}, {columns:+d}) to offset_px (y, x)" if rows or columns else " along z"
        yield (
            f"the target is SHIFTED by (z, y, x) = ({shift}) px against the series, expected at most "
            f"{match.precision_px:g} px; shift it back{offset}"
        )


def faults_of_file(path: Path) -> tuple[str, ...]:
    """What is wrong with the target of a training file; nothing of one that this program made, and judged then.

    Raises:
        FileFormatError: if the file is no pair.
    """
    with open_pair(path) as pair:
        if str(pair.origin.get("program", "")).startswith("CryoLithe"):
            return ()
        factor = max(1, -(-max(pair.truth.shape[1:]) // LARGEST_PX))
        images = np.stack([_binned(pair.images[n], factor) for n in range(len(pair.angles_deg))])
        depth = len(pair.truth) // factor
        if not depth:
            return ()
        first = (len(pair.truth) - depth * factor) // 2
        slabs = (
            np.mean([_binned(pair.truth[z], factor) for z in range(start, start + factor)], axis=0, dtype=np.float32)
            for start in range(first, first + depth * factor, factor)
        )
        return tuple(faults_of(compare(images, np.stack(list(slabs)), tuple(pair.angles_deg), factor)))


def _binned(plane: NDArray[np.floating], factor: int) -> NDArray[np.float32]:
    return fourier_crop(np.asarray(plane, dtype=np.float32), factor)
