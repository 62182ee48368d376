"""Whether images were aligned before an alignment moves them: a stack of an aligned series, given as the raw one.

As in `evidence.common_lines` the sums of images across the tilt axis are compared between tilts that foreshorten the
specimen differently. If they agree in the images as they were read, along y, and no more once an alignment has moved
and turned them, the images had their places before.
"""

from __future__ import annotations

import numpy as np
import torch

from cryolithe.artefacts.borders import without_border
from cryolithe.formats.volumes.pages import release_pages
from cryolithe.reconstruction.evidence.common_lines import (
    FEWEST_PX,
    GOOD_AGREEMENT,
    LEAST_TURN_DEG,
    STEP_DEG,
    TIMES_OTHERS,
    WIDEST_PX,
    agreement,
    far_pairs,
)
from cryolithe.reconstruction.images.defects import without_defects
from cryolithe.reconstruction.images.preparation import Preparation, finite_image
from cryolithe.tilts import TiltSeries

# What is left of the agreement of images as they were read, at most. An alignment that turns and moves them by what it
# finds leaves more, as it makes images agree.
MOST_LEFT = 0.5


def moved_series(series: TiltSeries, how: Preparation) -> TiltSeries | None:
    """A series as it was read, where its images are read elsewhere, as an alignment tells, or turned; else None."""
    stays = how.tilt_axis_deg == 0 if how.views is None else all(view.identity for view in how.views)
    return None if stays else series


def aligned_before_warnings(series: TiltSeries, images: torch.Tensor) -> tuple[str, ...]:
    """A warning where images agree along y as they were read, and clearly not as they are moved.

    Args:
        series: as it was read.
        images: as they are moved, see `cryolithe.reconstruction.evidence.common_lines.coarse_images`.
    """
    pairs = far_pairs(np.asarray(series.geometry.angles_deg))
    if min(*images.shape[1:], *series.geometry.image_shape) < FEWEST_PX or len(pairs) == 0:
        return ()
    moved = float(agreement(images, pairs, np.zeros(1)).still[0])
    if moved >= GOOD_AGREEMENT:
        return ()
    # Only these images are read once more.
    paired, pairs = np.unique(pairs, return_inverse=True)
    pairs = pairs.reshape(-1, 2)
    read = _coarse(series, paired.tolist())
    along = agreement(read, pairs, np.zeros(1))
    before = float(along.still[0])
    if before < GOOD_AGREEMENT or not along.still_sound[0] or moved > MOST_LEFT * before:
        return ()
    # What stays where it is on the detector agrees in all directions.
    turned = np.arange(LEAST_TURN_DEG, 180.0 - LEAST_TURN_DEG + STEP_DEG / 2, STEP_DEG)
    if before < TIMES_OTHERS * agreement(read, pairs, turned).still.max():
        return ()
    return (
        f"the images agree along y as they are in the file (mean correlation {before:.2f}), and not as the alignment "
        f"or --tilt-axis moves them ({moved:.2f}): the stack seems to be aligned already, or the alignment to be of "
        "another stack or of other pixels, and the volume to be wrong; leave it out, or give what belongs together",
    )


def _coarse(series: TiltSeries, tilts: list[int]) -> torch.Tensor:
    """The middle of some images as they were read, averaged over squares of pixels, mean 0 each and one variance."""
    height, width = series.geometry.image_shape
    side = min(height, width)
    factor = max(1, side // WIDEST_PX)
    rows, columns = height // factor, width // factor
    top, left = (height - rows * factor) // 2, (width - columns * factor) // 2
    parts = []
    for number in tilts:
        image = finite_image(series.image(number))
        release_pages(series.images)
        squares = image[top : top + rows * factor, left : left + columns * factor]
        # What was filled in and what is defective is sought in few pixels: full images would take their time.
        coarse = squares.reshape(rows, factor, columns, factor).mean(axis=(1, 3), dtype=np.float32)
        parts.append(without_defects(without_border(coarse)))
    images = torch.from_numpy(np.stack(parts))
    images = images - images.mean(dim=(1, 2), keepdim=True)
    return images / images.square().mean().sqrt().clamp_min(1e-30)
