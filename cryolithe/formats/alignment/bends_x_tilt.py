"""Tilts about x that differ a little from image to image, as RELION refines them (``rlnTomoXTilt``), as fields.

A volume is tilted about x by one angle (`cryolithe.alignment.Alignment`). What an image's own differs from that turns
the specimen about x once more: a point P is seen where Rx(δ) P would be. What that moves along the tilt axis changes
with depth and can be undone for the volume's middle alone (`reconstruction.jobs.depth_shifts` tells what is
left), which bounds δ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolithe.bending import Bend, Floats
from cryolithe.errors import InputError
from cryolithe.formats.star_tables import StarTable

X_TILT = "rlnTomoXTilt"
# X tilts of single images that differ by less are the same.
SAME_TILT_DEG = 0.01
# Refined ones differ by half a degree; at a depth of 200 pixels 1° moves matter by 3.5 pixels along the axis.
MOST_OFF_DEG = 1.0


@dataclass(frozen=True, eq=False)
class XTiltBend:
    """The field of an image; see `cryolithe.bending.Bend`.

    Attributes:
        x_tilt_deg: δ.
        angle_deg: its tilt.
        seen: field that is looked up where the turned specimen is seen, or None.
    """

    x_tilt_deg: float
    angle_deg: float
    seen: Bend | None = None

    @property
    def deep(self) -> bool:
        """Always: matter above the axis moves the other way than matter below."""
        return True

    def at(self, x_px: Floats, y_px: Floats, z_px: Floats | float) -> Floats:
        """See `cryolithe.bending.Bend`."""
        x, y, z = np.broadcast_arrays(x_px, y_px, z_px)
        c, s = math.cos(math.radians(self.x_tilt_deg)), math.sin(math.radians(self.x_tilt_deg))
        rise = y * s + z * (c - 1)
        moved = np.stack([rise * math.sin(math.radians(self.angle_deg)), y * (c - 1) - z * s])
        return moved if self.seen is None else moved + self.seen.at(x + moved[0], y + moved[1], z)


def read_x_tilts_deg(table: StarTable) -> tuple[float, NDArray[np.float64]]:
    """The X tilt of a series, and what each image's own adds to it; zeros where they are the same.

    Raises:
        InputError: if they differ too much.
        FileFormatError: if one is no number.
    """
    tilts = table.numbers(X_TILT) if X_TILT in table else np.zeros(len(table))
    middle = float(np.median(tilts))
    if np.ptp(tilts) <= SAME_TILT_DEG:
        return middle, np.zeros(len(tilts))
    if np.abs(tilts - middle).max() > MOST_OFF_DEG:
        raise InputError(
            f"{table.path}: {X_TILT} differs among images ({tilts.min():g}° to {tilts.max():g}°) by more than "
            f"{MOST_OFF_DEG:g}° from their median, which cannot be reconstructed row by row; align with one X tilt "
            "for all images"
        )
    return middle, tilts - middle
