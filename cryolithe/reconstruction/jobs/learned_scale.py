"""What a bundled model is told of where voxels have another size than any that it learned from."""

from __future__ import annotations

import math

from cryolithe.hashing import file_sha256
from cryolithe.models import bundled_models
from cryolithe.network.checkpoint import Model

# Voxels of the series that the bundled models learned from (docs/models.md, Data).
LEARNED_ANGSTROM = (5.0, 16.0)


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
    bundled = bundled_models().get(model.name)
    if finest <= voxel_angstrom <= coarsest or bundled is None or file_sha256(bundled) != model.sha256:
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
