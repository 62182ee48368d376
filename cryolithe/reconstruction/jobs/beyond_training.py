"""What is told of a bundled model where a series is unlike any that it learned from: other voxels, very few tilts."""

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
# smoothed back-projection anywhere: of 12 (over ±60°) they were not, of 9 in bundles, of 7 in membranes, too. Narrow
# and one-sided ranges cost them little against it.
LEARNED_TILTS, FEWEST_TILTS = 16, 10
# Images that lie no further apart count as one tilt.
ONE_TILT_DEG = 0.1


def scale_notes(model: Model | None, voxel_angstrom: float | None, binning: int) -> tuple[str, ...]:
    """A warning where a bundled model meets voxels beyond those it learned from; of other models nobody knows them.

    Networks count in voxels: to them a membrane in voxels of 2 Å is twenty voxels thick, as no membrane that they know.

    Args:
        model: which reconstructs; None for other methods.
        voxel_angstrom: edge of a voxel, after binning; None where it is not known.
        binning: by which the images are binned already.
    """
    if model is None or voxel_angstrom is None:
        return ()
    finest, coarsest = LEARNED_ANGSTROM
    if finest <= voxel_angstrom <= coarsest or not _is_bundled(model):
        return ()
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
    """A note where a bundled model meets fewer tilts than it can do with; of other models nobody knows them.

    Args:
        model: which reconstructs; None for other methods.
        angles_deg: of the images that it is given; those of one angle count once.
    """
    tilts = 1 + int(np.count_nonzero(np.diff(np.sort(angles_deg)) > ONE_TILT_DEG))
    if model is None or tilts >= FEWEST_TILTS or not _is_bundled(model):
        return ()
    return (
        f"model {model.name} learned from series of {LEARNED_TILTS} tilts or more; of {tilts}, what it draws within "
        "membranes and bundles may be worse than a smoothed back-projection: compare with --method fbp",
    )


def _is_bundled(model: Model) -> bool:
    """Whether a model is one of the program's own, not only by its name."""
    bundled = bundled_models().get(model.name)
    return bundled is not None and file_sha256(bundled) == model.sha256
