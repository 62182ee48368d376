"""`TiltSeries`: tilt images with the geometry in which they were recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import GeometryError
from cryolithe.geometry import TiltGeometry


class Images(Protocol):
    """What a series needs of its images: an array ``(tilt, y, x)`` does, and so do files that are read one by one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes along tilt, y, x."""
        ...

    @property
    def ndim(self) -> int:
        """3."""
        ...

    def __getitem__(self, number: int, /) -> Any:
        """An image."""
        ...


@dataclass(frozen=True)
class TiltSeries:
    """Tilt images with their angles; aligned, tilt axis along y, unless an alignment goes with them.

    Attributes:
        images: shape ``(tilt, y, x)``, any real dtype; may be a read-only memory map, or files read one by one.
        geometry: angles and image shape; must agree with ``images``.
        pixel_size_angstrom: edge of a pixel, or None where nobody knows it.
        notes: what a user should know about the file that it came from.
        sections: which of the images belong to the geometry, in its order; None for all.
        labels: texts of the file's header, oldest first.
        ctf_corrected: whether flags of the header say that its CTF was corrected.

    Raises:
        GeometryError: if the images and the geometry disagree, or the pixel size is not positive.
    """

    images: Images
    geometry: TiltGeometry
    pixel_size_angstrom: float | None = None
    notes: tuple[str, ...] = ()
    sections: tuple[int, ...] | None = None
    labels: tuple[str, ...] = ()
    ctf_corrected: bool = False

    def __post_init__(self) -> None:
        if self.images.ndim != 3:
            raise GeometryError(f"a tilt series has three axes (tilt, y, x), got shape {self.images.shape}")
        if self.sections is not None:
            if len(self.sections) != self.geometry.tilts:
                raise GeometryError(f"{len(self.sections)} images do not fit {self.geometry.tilts} tilt angles")
            if min(self.sections) < 0 or max(self.sections) >= self.images.shape[0]:
                raise GeometryError(
                    f"image {max(self.sections) + 1} is asked for, but the stack holds {self.images.shape[0]}"
                )
        elif self.images.shape[0] != self.geometry.tilts:
            raise GeometryError(
                f"the stack holds {self.images.shape[0]} images but there are {self.geometry.tilts} tilt angles; "
                "give the angle file that belongs to this stack"
            )
        if tuple(self.images.shape[1:]) != self.geometry.image_shape:
            raise GeometryError(
                f"images of shape {self.images.shape[1:]} do not fit a geometry for {self.geometry.image_shape}"
            )
        if self.pixel_size_angstrom is not None and not self.pixel_size_angstrom > 0:
            raise GeometryError(f"the pixel size must be positive, got {self.pixel_size_angstrom} Å")

    def section(self, number: int) -> int:
        """Index in the stack, from 0, of the image of an angle."""
        return number if self.sections is None else self.sections[number]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of each image in the stack, from 1, as messages and ``--exclude`` count."""
        return tuple(self.section(number) + 1 for number in range(self.geometry.tilts))

    def image(self, number: int) -> NDArray[np.generic]:
        """The image of an angle, shape ``(y, x)``."""
        return np.asarray(self.images[self.section(number)])
