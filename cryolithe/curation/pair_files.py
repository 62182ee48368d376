"""Training files of any program: whether their targets belong to their images, and what dense matter is in these."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from cryolithe.artefacts.borders import without_border
from cryolithe.curation.contrast import contrast_fault
from cryolithe.curation.judging import faults_of
from cryolithe.curation.match import LARGEST_PX, compare
from cryolithe.curation.samples import averaged
from cryolithe.formats.pairs import open_pair


def faults_of_file(path: Path) -> tuple[str, ...]:
    """What is wrong with the target or the contrast of a training file.

    Nothing is of one that this program made, and judged then.

    Raises:
        FileFormatError: if the file is no pair.
    """
    with open_pair(path) as pair:
        if str(pair.origin.get("program", "")).startswith("CryoLithe"):
            return ()
        factor = max(1, math.ceil(max(pair.truth.shape[1:]) / LARGEST_PX))
        if len(pair.truth) < factor:
            return ()
        # Chunks hold all tilts, or all z, of some rows: reading by rows reads each of them once.
        images, _ = averaged(pair.images, factor, axis=1, keep_axis=True)
        target, _ = averaged(pair.truth, factor, axis=1)
        images = np.stack([without_border(image) for image in images])
        angles = tuple(pair.angles_deg)
        contrast = contrast_fault(images, angles, len(target))
        return (*faults_of(compare(images, target, angles, factor)), *([contrast] if contrast else []))
