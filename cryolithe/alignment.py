"""`Alignment`: how the images of a raw stack are brought into register, whatever program found it out.

Each image has an affine map from raw pixels p to aligned pixels q, both ``(x, y)`` and counted from a rotation centre:

    ``q = A p + d``            IMOD's .xf; other programs' shifts are turned into it where their files are read

and the specimen point P, counted from the centre of rotation too, is seen at ``q = (Px cos θ + Pz sin θ, Py)``
(`cryolithe.geometry`). Everything else that programs say about a volume's place (shifts, centres, the hand) amounts to
another P for a voxel, and is folded into the map, so that an image is interpolated once. What local alignments add to q
is an image's `cryolithe.bending.Bend`, part of the same interpolation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryolithe.bending import IDLE_PX, Bend, Floats, largest_px
from cryolithe.errors import GeometryError
from cryolithe.geometry import centre_px

Centre = Literal["imod", "relion"]
Matrix = tuple[tuple[float, float], tuple[float, float]]
IDENTITY: Matrix = ((1.0, 0.0), (0.0, 1.0))
# Alignments turn images and change their scale by some percent; what is nearly singular is a damaged file.
SMALLEST_DETERMINANT, LARGEST_DETERMINANT = 0.25, 4.0
MOST_X_TILT_DEG = 45.0


def rotation(angle_deg: float) -> Matrix:
    """Matrix that turns ``(x, y)`` counter-clockwise when y is drawn upwards."""
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return (c, -s), (s, c)


@dataclass(frozen=True)
class ImageAlignment:
    """One image of a stack.

    Attributes:
        section: its index in the stack, from 0.
        angle_deg: tilt angle.
        matrix: A, rows ``(xx, xy), (yx, yy)``.
        shift_px: d, ``(x, y)``.
        bend: what a local alignment adds to q; None where there is none.

    Raises:
        GeometryError: if a number is not finite, or the matrix cannot be undone.
    """

    section: int
    angle_deg: float
    matrix: Matrix = IDENTITY
    shift_px: tuple[float, float] = (0.0, 0.0)
    bend: Bend | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        numbers = (self.angle_deg, *self.matrix[0], *self.matrix[1], *self.shift_px)
        if not all(map(math.isfinite, numbers)):
            raise GeometryError(f"the alignment of image {self.section + 1} holds a number that is not finite")
        (a, b), (c, d) = self.matrix
        if not SMALLEST_DETERMINANT <= a * d - b * c <= LARGEST_DETERMINANT:
            raise GeometryError(
                f"the transform of image {self.section + 1} is no rotation with little distortion: its determinant is "
                f"{a * d - b * c:g}, expected about 1"
            )


@dataclass(frozen=True)
class Alignment:
    """A whole series, as one program's files describe it.

    Attributes:
        images: those to be used, in the order of the stack.
        sections: images that the stack must hold, used or not.
        centre: where pixels are counted from: ``(N - 1) / 2`` (imod) or ``N // 2`` (relion).
        aligned_shape: pixels ``(y, x)`` of an aligned image, in the stack's pixels; None for the stack's own shape,
            turned where the tilt axis lies nearer to the horizontal.
        bin: binning that the files ask for, or None.
        thickness_px: of the volume, in the stack's pixels, or None.
        shift_px: ``(x, z)`` of the specimen point in the middle of the volume, in the stack's pixels.
        x_tilt_deg: α of P = Rx(α) V for a point V of the volume, Rx as RELION's: ``y = Vy cos α - Vz sin α``.
        pixel_size_angstrom: of the stack, where the files tell it.
        notes: what a user should know.
        local: name of the file that the images' bends come from; empty where none is bent.
        left_out_deg: section and angle of images that are left out, where files tell them: other files have them, too.
        stacked: sections of the raw stack in the aligned one, in its order, where a program left some out of that.
        offset_deg: that the program added to the microscope's angles, where its files tell it; ``images`` have it.
        kept: sections that the program itself used, in the stack's order, where others were left out since; else none.
        stage_sign: that turns its angles into the microscope's, where a program may have turned them round: 1 or -1,
            0 where nothing tells it; None for programs that never do.

    Raises:
        GeometryError: if no image is left, a number is not finite, or the volume is tilted too far about x.
    """

    images: tuple[ImageAlignment, ...]
    sections: int
    centre: Centre = "imod"
    aligned_shape: tuple[int, int] | None = None
    bin: int | None = None
    thickness_px: float | None = None
    shift_px: tuple[float, float] = (0.0, 0.0)
    x_tilt_deg: float = 0.0
    pixel_size_angstrom: float | None = None
    notes: tuple[str, ...] = ()
    local: str = ""
    left_out_deg: tuple[tuple[int, float], ...] = ()
    stacked: tuple[int, ...] = ()
    offset_deg: float = 0.0
    kept: tuple[int, ...] = ()
    stage_sign: int | None = None

    def __post_init__(self) -> None:
        if not self.images:
            raise GeometryError("the alignment leaves no image to reconstruct from")
        if not all(map(math.isfinite, (*self.shift_px, self.x_tilt_deg))):
            raise GeometryError("the alignment holds a shift or an angle that is not finite")
        if not abs(self.x_tilt_deg) < MOST_X_TILT_DEG:
            raise GeometryError(
                f"the alignment tilts the volume by {self.x_tilt_deg:g}° about x; expected less than "
                f"{MOST_X_TILT_DEG:g}°"
            )

    @property
    def excluded(self) -> tuple[int, ...]:
        """Sections, from 0, that are left out."""
        used = {image.section for image in self.images}
        return tuple(section for section in range(self.sections) if section not in used)

    @property
    def axis_deg(self) -> float:
        """Angle of the tilt axis in the raw images from y, counter-clockwise: the middle one of all images."""
        angles = sorted(-math.degrees(math.atan2(i.matrix[1][0], i.matrix[0][0])) for i in self.images)
        return angles[len(angles) // 2]


def largest_bend_px(alignment: Alignment, shape: tuple[int, int], depth_px: float = 0.0) -> float:
    """The largest displacement by a local alignment in any image, at any depth of the volume, pixels of the stack.

    Args:
        alignment: of the series.
        shape: pixels ``(y, x)`` of an aligned image.
        depth_px: thickness of the volume; 0 for its middle alone.
    """
    return max((_largest_px(alignment, image, shape, depth_px) for image in alignment.images), default=0.0)


def without_bends(alignment: Alignment) -> Alignment:
    """The alignment without its local part."""
    return replace(alignment, images=tuple(replace(image, bend=None) for image in alignment.images), local="")


def without_idle_bends(alignment: Alignment, shape: tuple[int, int], depth_px: float) -> Alignment:
    """The alignment without those bends that move nothing; arguments as for `largest_bend_px`."""
    idle = (_largest_px(alignment, image, shape, depth_px) <= IDLE_PX for image in alignment.images)
    images = tuple(replace(i, bend=None) if still else i for i, still in zip(alignment.images, idle, strict=True))
    bent = any(image.bend is not None for image in images)
    return replace(alignment, images=images, local=alignment.local if bent else "")


def _largest_px(alignment: Alignment, image: ImageAlignment, shape: tuple[int, int], depth_px: float) -> float:
    if image.bend is None:
        return 0.0
    middle = alignment.shift_px[1]
    return largest_px(image.bend, shape, image.angle_deg, (middle - depth_px / 2, middle + depth_px / 2))


@dataclass(frozen=True)
class View:
    """Where the pixels of a prepared image lie in a raw one.

    Attributes:
        matrix: from pixels about the middle of the prepared image, before binning, to raw pixels about the middle.
        offset_px: ``(x, y)`` to add.
        bend: what a local alignment adds to a pixel's place before that, or None.
        seen_px: where the middle of the prepared image is seen by the global alignment, ``(x, y)`` as `Bend` counts.
        depth_px: z of the middle of the volume, likewise.
    """

    matrix: Matrix = IDENTITY
    offset_px: tuple[float, float] = (0.0, 0.0)
    bend: Bend | None = field(default=None, repr=False)
    seen_px: tuple[float, float] = (0.0, 0.0)
    depth_px: float = 0.0

    @property
    def identity(self) -> bool:
        """Whether pixels stay where they are."""
        return self.matrix == IDENTITY and self.offset_px == (0.0, 0.0) and self.bend is None

    def displaced_px(self, x_px: Floats, y_px: Floats) -> Floats:
        """Displacement ``(u, v)`` of pixels about the middle of the prepared image, before binning."""
        if self.bend is None:
            return np.zeros((2, *np.broadcast_shapes(x_px.shape, y_px.shape)))
        return self.bend.at(x_px + self.seen_px[0], y_px + self.seen_px[1], self.depth_px)


@dataclass(frozen=True)
class VolumePlace:
    """How the voxels of the wanted volume are counted.

    Attributes:
        shape: voxels ``(z, y, x)``.
        bin: pixels of the stack along the edge of a voxel.
        centre: which voxel lies on the axis: ``(N - 1) / 2`` (imod) or ``N // 2`` (relion).
        mirrored: z runs the other way.
    """

    shape: tuple[int, int, int]
    bin: int = 1
    centre: Centre = "imod"
    mirrored: bool = False


def views(alignment: Alignment, image_shape: tuple[int, int], place: VolumePlace) -> tuple[View, ...]:
    """The maps from prepared pixels to raw ones, one for each used image.

    With them, voxel w about the middle of its array is seen at ``(wx cos θ' + wz sin θ', wy)`` about the middle of the
    prepared image, θ' = -θ where z is mirrored: what the reconstruction methods assume.

    Args:
        alignment: of the series.
        image_shape: pixels ``(y, x)`` of a raw image.
        place: of the volume.
    """
    raw = np.array([_off_middle_px(n, alignment.centre) for n in image_shape[::-1]])
    # The point in the middle of the array, counted from the voxel on the axis: half a voxel for even sizes and N // 2.
    middle = [-_off_middle_px(n, place.centre) * place.bin for n in place.shape[::-1]]
    flip = -1.0 if place.mirrored else 1.0
    x = alignment.shift_px[0] + middle[0]
    z = alignment.shift_px[1] + flip * middle[2]
    tilt = math.radians(alignment.x_tilt_deg)
    y = middle[1] * math.cos(tilt) - z * math.sin(tilt)
    z = middle[1] * math.sin(tilt) + z * math.cos(tilt)
    made = []
    for image in alignment.images:
        theta = math.radians(image.angle_deg)
        seen = np.array([x * math.cos(theta) + z * math.sin(theta), y])
        inverse = np.linalg.inv(np.array(image.matrix, dtype=np.float64))
        offset = inverse @ (seen - np.array(image.shift_px)) + raw
        view = View(_matrix(inverse), (float(offset[0]), float(offset[1])))
        if image.bend is not None:
            view = replace(view, bend=image.bend, seen_px=(float(seen[0]), float(seen[1])), depth_px=z)
        made.append(view)
    return tuple(made)


def plain_alignment(angles_deg: tuple[float, ...], centre: Centre = "imod") -> Alignment:
    """The alignment of a stack that is aligned already."""
    images = tuple(ImageAlignment(section, angle) for section, angle in enumerate(angles_deg))
    return Alignment(images, len(images), centre)


def _off_middle_px(size: int, centre: Centre) -> float:
    """How far the centre of rotation lies from the middle of an axis."""
    return 0.0 if centre == "imod" else size // 2 - centre_px(size)


def _matrix(values: NDArray[np.float64]) -> Matrix:
    (a, b), (c, d) = values.tolist()
    return (a + 0.0, b + 0.0), (c + 0.0, d + 0.0)  # no negative zeros
