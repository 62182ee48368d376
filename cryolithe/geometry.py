"""Axis order, signs, units and centres: the one place where they are written down.

Arrays
    volume              ``(z, y, x)``
    tilt images         ``(tilt, y, x)``
    The tilt axis runs along y. Indices start at 0; a pixel's coordinate is that of its centre.

Projection of a point (single-axis tilt by the angle θ, parallel beam)
    ``u = (x - cx) cos θ + (z - cz) sin θ + cu``     detector column, pixels
    ``v = y - cy + cv``                              detector row, pixels

    This is the sign convention of IMOD after ``trimvol -rx``, of RELION-5 and of teamtomo. Local alignments may add to
    u away from the middle of the volume (`cryolithe.column_shifts`).

Centres
    ``(N - 1) / 2`` for an axis of N pixels: IMOD's convention, the geometric middle of the field. Other centres, and
    what alignments say, are folded into the images (`cryolithe.alignment`).

Coordinates are float32 everywhere (float16 coordinates would be wrong by up to 0.5 px rms at 4096 px).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryolithe.column_shifts import ColumnShifts
from cryolithe.errors import GeometryError

FEW_IMAGES = 5  # so few may well lie close together
ANGLE_TOLERANCE_DEG = 1e-6  # a frequency on the border of the wedge is measured, whatever atan2 rounds to


def centre_px(size_px: int) -> float:
    """Coordinate of the middle of an axis of ``size_px`` pixels: ``(N - 1) / 2``."""
    return (size_px - 1) / 2


def _sizes(shape: tuple[int, ...], axes: int, what: str) -> tuple[int, ...]:
    """Whole, positive sizes as plain integers, or GeometryError."""
    try:
        sizes = tuple(operator.index(n) for n in shape)
    except TypeError:
        sizes = ()
    if len(sizes) != axes or any(n <= 0 for n in sizes):
        raise GeometryError(f"{what}, got {shape}")
    return sizes


@dataclass(frozen=True)
class VolumeGrid:
    """The voxel grid of a volume, centred on the tilt axis.

    Attributes:
        shape: voxels along ``(z, y, x)``.

    Raises:
        GeometryError: if a size is not a positive whole number.
    """

    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _sizes(self.shape, 3, "a volume needs three positive sizes (z, y, x)"))

    @property
    def centre(self) -> tuple[float, float, float]:
        """Voxel coordinates ``(z, y, x)`` of the point on the tilt axis in the middle of the volume."""
        z, y, x = (centre_px(n) for n in self.shape)
        return z, y, x


@dataclass(frozen=True)
class TiltGeometry:
    """How each tilt image sees the specimen; holds no pixels.

    Attributes:
        angles_deg: tilt angle of each image in degrees, in stack order, all within ±90.
        image_shape: pixels of one image along ``(y, x)``.
        shifts: what a local alignment adds to u by depth; None for nothing.

    Raises:
        GeometryError: if there is no angle, an angle is not finite or outside ±90°, or an image size is not positive.
            Whether angles can be those of a whole series is asked where they are read (`check_angles_deg`): a part of
            one may be all of one angle, where images were taken again.

    >>> TiltGeometry((-60.0, 0.0, 60.0), (100, 128)).centre
    (49.5, 63.5)
    """

    angles_deg: tuple[float, ...]
    image_shape: tuple[int, int]
    shifts: ColumnShifts | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        angles = tuple(float(a) for a in self.angles_deg)
        object.__setattr__(self, "angles_deg", angles)
        _check_each_angle(angles)
        sizes = _sizes(self.image_shape, 2, "tilt images need two positive sizes (y, x)")
        object.__setattr__(self, "image_shape", sizes)

    @property
    def tilts(self) -> int:
        """Number of tilt images."""
        return len(self.angles_deg)

    @property
    def centre(self) -> tuple[float, float]:
        """Pixel coordinates ``(v, u)`` of the tilt axis' middle in every image."""
        return centre_px(self.image_shape[0]), centre_px(self.image_shape[1])

    @cached_property
    def angles_rad(self) -> NDArray[np.float64]:
        """Tilt angles in radians, shape ``(tilts,)``."""
        return np.deg2rad(np.asarray(self.angles_deg, dtype=np.float64))

    def columns(self, x_px: ArrayLike, z_px: ArrayLike) -> NDArray[np.float64]:
        """Detector columns u at which points are seen.

        Args:
            x_px: x minus the volume's centre, pixels, any shape S.
            z_px: z minus the volume's centre, pixels, broadcastable with ``x_px``.

        Returns:
            u in pixels, shape ``(tilts, *S)``.
        """
        x, z = np.broadcast_arrays(np.asarray(x_px, dtype=np.float64), np.asarray(z_px, dtype=np.float64))
        theta = self.angles_rad.reshape((-1,) + (1,) * x.ndim)
        u = x * np.cos(theta) + z * np.sin(theta) + self.centre[1]
        if self.shifts is None:
            return u
        import torch

        points = [torch.from_numpy(np.ascontiguousarray(n.ravel())) for n in (z, x)]
        return u + self.shifts.of_points(points[0], points[1]).numpy().reshape(u.shape)

    def angular_weights_rad(self) -> NDArray[np.float64]:
        """Quadrature weight of each tilt for the integral over θ, radians, shape ``(tilts,)``.

        Each angle stands for the interval up to half-way to its neighbours; the two outermost ones reach as
        far outward as inward. Equal angles share their interval; the sum is at most π. All of a single angle weigh 1
        together.
        """
        distinct, inverse, counts = np.unique(self.angles_rad, return_inverse=True, return_counts=True)
        if len(distinct) == 1:
            return np.full(self.tilts, 1 / self.tilts)
        gaps = np.diff(distinct)
        gaps = np.concatenate([gaps[:1], gaps, gaps[-1:]])
        weights = ((gaps[:-1] + gaps[1:]) / 2 / counts)[inverse]
        # Views 180° apart are the same view: all of them together stand for π at most.
        return np.asarray(weights * min(1.0, np.pi / weights.sum()))

    def select(self, keep: ArrayLike) -> TiltGeometry:
        """Return the geometry of the images at the indices ``keep``."""
        shifts = None if self.shifts is None else self.shifts.select(keep)
        return TiltGeometry(tuple(np.asarray(self.angles_deg)[np.asarray(keep)]), self.image_shape, shifts)

    def mirrored(self, axis: str) -> TiltGeometry:
        """Return the geometry of the specimen mirrored along "x", "y" or "z".

        The images are mirrored with it along x and y. With x' = -x and u' = -u, u' = x' cos θ - z sin θ: a tilt by -θ.
        With z' = -z and images as they are, u = x cos θ - z' sin θ: again a tilt by -θ. y has no part in it.
        """
        angles = self.angles_deg if axis == "y" else tuple(-angle for angle in self.angles_deg)
        return TiltGeometry(angles, self.image_shape, None if self.shifts is None else self.shifts.mirrored(axis))

    def at_row(self, row: int) -> TiltGeometry:
        """Return the geometry of the band of rows that holds a row of the images."""
        if self.shifts is None:
            return self
        return replace(self, shifts=self.shifts.at(self.shifts.band_middle(row) - self.centre[0]))


def check_angles_deg(angles_deg: tuple[float, ...]) -> None:
    """Raise GeometryError unless the angles can be all of those of one tilt series, in degrees."""
    _check_each_angle(angles_deg)
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.size > 1 and np.ptp(angles) == 0:
        raise GeometryError(
            f"all {angles.size} tilt angles are {angles[0]:g}°: a tilt series needs different angles; "
            "check that the first column of the angle file holds them"
        )
    reach = float(np.abs(angles).max())
    if angles.size > FEW_IMAGES and reach < np.pi / 2:
        raise GeometryError(
            f"all {angles.size} angles are within ±{reach:.3g}°, too little for a tilt series; "
            "give degrees (not radians), and angles rather than transforms (.xf)"
        )


def _check_each_angle(angles_deg: tuple[float, ...]) -> None:
    """Raise GeometryError unless there are angles, and each can be one of a tilt series."""
    angles = np.asarray(angles_deg, dtype=np.float64)
    if angles.size == 0:
        raise GeometryError("a tilt series needs at least one angle, got none")
    if not np.isfinite(angles).all():
        bad = int(np.flatnonzero(~np.isfinite(angles))[0])
        raise GeometryError(f"tilt angles must be finite numbers; angle {bad + 1} is {angles[bad]}")
    if (np.abs(angles) > 90).any():
        bad = int(np.flatnonzero(np.abs(angles) > 90)[0])
        raise GeometryError(f"tilt angles must lie within ±90°; angle {bad + 1} is {angles[bad]:g}°")


def check_tilt_range(tilt_range_deg: tuple[float, float]) -> None:
    """Raise GeometryError unless the range (lowest, highest) is not empty and lies within ±90°."""
    low, high = tilt_range_deg
    if not -90 <= low < high <= 90:
        raise GeometryError(f"a tilt range goes from a lower to a higher angle within ±90°, got {low:g}° to {high:g}°")


def is_measured(kx: ArrayLike, kz: ArrayLike, tilt_range_deg: tuple[float, float]) -> NDArray[np.bool_]:
    """Tell which frequencies some image of a continuous tilt range measures.

    Args:
        kx: frequency along x, any unit.
        kz: frequency along z, broadcastable with ``kx`` to the shape S.
        tilt_range_deg: lowest and highest tilt angle, degrees.

    Returns:
        Boolean, shape S: the angle of (kx, kz) modulo 180° lies inside the range, or kx = kz = 0.
    """
    low, high = tilt_range_deg
    kx, kz = np.asarray(kx), np.asarray(kz)
    angle = np.rad2deg(np.arctan2(kz, kx))
    # Measured is what lies at most the range's width above its lower end, modulo 180° as f and -f are conjugates.
    above = np.mod(angle - low + ANGLE_TOLERANCE_DEG, 180.0)
    return np.asarray((above <= high - low + 2 * ANGLE_TOLERANCE_DEG) | ((kx == 0) & (kz == 0)))
