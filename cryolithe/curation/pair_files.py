"""Training files of any program: whether their targets belong to their images."""

from __future__ import annotations

import math
from pathlib import Path

from cryolithe.curation.judging import faults_of
from cryolithe.curation.match import LARGEST_PX, compare
from cryolithe.curation.samples import averaged
from cryolithe.formats.pairs import open_pair


def faults_of_file(path: Path) -> tuple[str, ...]:
    """What is wrong with the target of a training file; nothing of one that this program made, and judged then.

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
        return tuple(faults_of(compare(images, target, tuple(pair.angles_deg), factor)))
