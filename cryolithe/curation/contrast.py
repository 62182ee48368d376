"""Whether dense matter is dark in the images of a pair, as training files have it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.evidence.polarity import settle
from cryolithe.reconstruction.images.preparation import Preparation, prepare_stack
from cryolithe.reconstruction.setup.looking import look_at
from cryolithe.tilts import TiltSeries


def contrast_fault(images: NDArray[Any], angles_deg: tuple[float, ...], depth: int) -> str:
    """What is wrong with the contrast of a pair's images; empty where they look as they should, or do not tell.

    Args:
        images: shape ``(tilt, y, x)``, dense = dark as it is believed.
        angles_deg: one for each image.
        depth: planes of the target.
    """
    series = TiltSeries(np.asarray(images, np.float32), TiltGeometry(angles_deg, (images.shape[1], images.shape[2])))
    stack = prepare_stack(series, Preparation(fix_nonfinite=True), None)
    found = settle("auto", (), look_at(series, stack, depth))
    # Light bodies in dense matter look a little like inverted images: what is not sure is not told.
    if found.found != "bright" or found.weak:
        return ""
    return (
        f"dense matter looks BRIGHT in the images ({str(found.evidence).replace('; ', ', ')}), and pairs have it dark, "
        "in images and target; invert both, or correct stack_contrast and target_contrast (light bodies in dense "
        "matter, such as pores, look so, too)"
    )
