"""Local alignment: how far matter is seen from where the global transform of its image puts it.

A point P of the specimen, counted from the centre of rotation, is seen at ``q + e(q, Pz)`` in the aligned image, where
``q = (Px cos θ + Pz sin θ, Py)`` is what the global alignment says (`cryolithe.alignment`). e is a `Bend`: a smooth
field of one image, in pixels of the stack along the aligned image's axes. Programs differ in what theirs depend on:

- the place in the image: e is the same at every depth (`RawBend`: AreTomo, RELION, Warp's image grids);
- the place in the specimen (IMOD's local areas, Warp's volume grids): along a beam, e changes with the depth.

The images are bent back when they are resampled (`cryolithe.images.resample`), for the depth of the volume's middle.
What that leaves above and below changes the columns in which points are seen (`cryolithe.column_shifts`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Field = Callable[[Floats, Floats], Floats]
# Places along either axis at which a field is looked at to find its largest displacement.
LOOKS = 33
# Depths of a volume at which one that changes along beams is looked at, its faces included.
DEPTHS = 9
# Less moves nothing.
IDLE_PX = 1e-4
SMALLEST_COSINE = 0.05


class Bend(Protocol):
    """The field of one image."""

    @property
    def deep(self) -> bool:
        """Whether it changes along a beam."""

    def at(self, x_px: Floats, y_px: Floats, z_px: Floats | float) -> Floats:
        """e, shape ``(2, *S)``: ``(u, v)`` in pixels of the stack.

        Args:
            x_px: where the global alignment sees the points, from the centre of rotation, shape S.
            y_px: likewise.
            z_px: depth of the points, from the centre of rotation, broadcastable with S.
        """


@dataclass(frozen=True, eq=False)
class RawBend:
    """A field that depends on the place in the raw image.

    Attributes:
        matrix: A of the image's transform, q = A p + d.
        shift_px: d, or zero where the program looks its field up before it shifts.
        field: displacement in the raw image, shape ``(2, *S)``, at places from the raw image's centre of rotation.
    """

    matrix: tuple[tuple[float, float], tuple[float, float]]
    shift_px: tuple[float, float]
    field: Field

    @property
    def deep(self) -> bool:
        """Never: all that lies on a beam moves alike."""
        return False

    def at(self, x_px: Floats, y_px: Floats, z_px: Floats | float) -> Floats:
        """A field(A⁻¹ (q - d)); see `Bend`."""
        matrix = np.array(self.matrix)
        place = np.einsum("ij,j...->i...", np.linalg.inv(matrix), _less(x_px, y_px, self.shift_px))
        return np.einsum("ij,j...->i...", matrix, self.field(place[0], place[1]))


def _less(x_px: Floats, y_px: Floats, shift_px: tuple[float, float]) -> Floats:
    return np.stack(np.broadcast_arrays(x_px - shift_px[0], y_px - shift_px[1]))


def specimen_x_px(x_px: Floats, z_px: Floats | float, angle_deg: float) -> Floats:
    """x of the points of the specimen that are seen at ``x_px`` and lie at a depth, by a tilt of ``angle_deg``.

    At nearly 90° a beam runs along x and such points are anywhere; they are taken as if the tilt were a little less.
    """
    cosine = math.cos(math.radians(angle_deg))
    cosine = math.copysign(max(abs(cosine), SMALLEST_COSINE), cosine)
    return np.asarray((x_px - z_px * math.sin(math.radians(angle_deg))) / cosine)


def cell(place: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """The node of ``count`` on a grid at or before a place, counted in steps, and how far after it that is.

    Places beyond the outermost nodes are taken for these.
    """
    inside = np.clip(place, 0.0, count - 1.0)
    first = np.minimum(inside.astype(np.int64), max(0, count - 2))
    return first, inside - first


def largest_px(
    bend: Bend, shape: tuple[int, int], angle_deg: float = 0.0, faces_px: tuple[float, float] = (0.0, 0.0)
) -> float:
    """The largest displacement in an image, pixels of the stack.

    All of the image is looked at for the depth of the volume's middle, for which images are bent back. Where the field
    changes along a beam, points of the volume are at other depths, too.

    Args:
        bend: its field.
        shape: pixels ``(y, x)`` of the aligned image, and of the volume.
        angle_deg: tilt of the image.
        faces_px: least and greatest z of the volume, from the centre of rotation.
    """
    x, y = places(shape)
    moved = [bend.at(x, y, sum(faces_px) / 2)]
    if bend.deep and faces_px[0] != faces_px[1]:
        theta, z = math.radians(angle_deg), np.linspace(*faces_px, DEPTHS)[:, None, None]
        u, v, z = np.broadcast_arrays(x * math.cos(theta) + z * math.sin(theta), y, z)
        moved.append(bend.at(u, v, z))
    return max(float(np.hypot(one[0], one[1]).max()) for one in moved)


def places(shape: tuple[int, int], count: int = LOOKS) -> tuple[Floats, Floats]:
    """A coarse grid of places ``(x, y)`` in an image of ``shape`` ``(y, x)``, from its middle."""
    y, x = (np.linspace(-(n - 1) / 2, (n - 1) / 2, count) for n in shape)
    across, down = np.meshgrid(x, y)
    return across, down
