"""What is told of a bundled model where a series is unlike any that it learned from: other voxels, tilts, ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cryolithe.files.hashing import file_sha256
from cryolithe.models import bundled_models
from cryolithe.network.checkpoint import Model

# Voxels of the series that the bundled models learned from (docs/models.md, Data).
LEARNED_ANGSTROM = (5.0, 16.0)
# Fewest tilts that they were shown (`fewest_tilts` of their recipes), and fewest of which they were hardly worse than
# smoothed back-projection anywhere: of 12 (over ±60°) they were not, of 9 in bundles, of 7 in membranes, too.
LEARNED_TILTS, FEWEST_TILTS = 16, 10
# The narrowest range of tilts that they were shown, ±40° of which a third was cut off at either end, and to how far on
# its shorter side such a range reaches at least. Beyond it they cost little against back-projection, but from 0 to 60°
# `fast` moves a specimen by 0.45 voxels along z, back-projection by 0.15 (benchmarks/LOG.md).
LEARNED_SPAN_DEG, LEARNED_SIDE_DEG = 53.0, 5.0
# Images that lie no further apart count as one tilt.
ONE_TILT_DEG = 0.1


def scale_notes(model: Model | None, voxel_angstrom: float | None, binning: int) -> tuple[str, ...]:
    """A warning where a bundled model meets voxels beyond those it learned from, a note where nobody knows their size.

    Of other models nobody knows what they learned from.

    Networks count in voxels: to them a membrane in voxels of 2 Å is twenty voxels thick, as no membrane that they know.

    Args:
        model: which reconstructs; None for other methods.
        voxel_angstrom: edge of a voxel, after binning; None where it is not known.
        binning: by which the images are binned already.
    """
    finest, coarsest = LEARNED_ANGSTROM
    if model is None or (voxel_angstrom is not None and finest <= voxel_angstrom <= coarsest) or not _is_bundled(model):
        return ()
    if voxel_angstrom is None:
        return (
            f"the pixel size is not known, so nobody has checked that voxels are of {finest:g} to {coarsest:g} Å, from "
            f"which model {model.name} learned: of others, what it draws of things that are of other sizes in voxels "
            "is a guess; give --pixel-size",
        )
    if voxel_angstrom < finest:
        # Towards the middle of the range, but never beyond it.
        factor = binning * max(2, math.floor(math.sqrt(finest * coarsest) / voxel_angstrom))
        advice = f"give --bin {factor}"
    else:
        advice = "bin less, or compare with --method fbp"
    return (
        f"Warning: voxels of {voxel_angstrom:.3g} Å: model {model.name} learned from voxels of {finest:g} to "
        f"{coarsest:g} Å, and what it draws of things that are of other sizes in voxels is a guess; {advice}; if the "
        "pixel size is wrong, give --pixel-size",
    )


def tilt_notes(model: Model | None, angles_deg: Sequence[float]) -> tuple[str, ...]:
    """Notes where a bundled model meets fewer tilts than it can do with, or a range unlike those it learned from.

    Args:
        model: which reconstructs; None for other methods, and of other models nobody knows them.
        angles_deg: of the images that it is given; those of one angle count once.
    """
    tilts = 1 + int(np.count_nonzero(np.diff(np.sort(angles_deg)) > ONE_TILT_DEG))
    few, told = tilts < FEWEST_TILTS, _range_told(min(angles_deg), max(angles_deg))
    if model is None or not (few or told) or not _is_bundled(model):
        return ()
    notes = []
    if few:
        notes.append(
            f"model {model.name} learned from series of {LEARNED_TILTS} tilts or more; of {tilts}, what it draws "
            "within membranes and bundles may be worse than a smoothed back-projection: compare with --method fbp"
        )
    if told:
        notes.append(f"model {model.name} learned from {told}: compare with --method fbp")
    return tuple(notes)


def _range_told(lowest_deg: float, highest_deg: float) -> str:
    """From which ranges models learned, and what may be wrong of this one; empty where it is as one of those."""
    span = highest_deg - lowest_deg
    if span == 0:  # one tilt is told of as that
        return ""
    if span < LEARNED_SPAN_DEG:
        return (
            f"ranges of tilts of {LEARNED_SPAN_DEG:g}° or more; of {span:.3g}°, what it draws where none measured is "
            "more of a guess than usual"
        )
    if min(highest_deg, -lowest_deg) < LEARNED_SIDE_DEG:
        return (
            f"tilts to either side, by {LEARNED_SIDE_DEG:g}° at least; of {lowest_deg:g}° to {highest_deg:g}°, it may "
            "move what it draws along z, by half a voxel"
        )
    return ""


def _is_bundled(model: Model) -> bool:
    """Whether a model is one of the program's own, not only by its name."""
    bundled = bundled_models().get(model.name)
    return bundled is not None and file_sha256(bundled) == model.sha256
