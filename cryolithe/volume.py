"""`Volume`: voxels with their size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import GeometryError
from cryolithe.geometry import VolumeGrid


@dataclass(frozen=True)
class Volume:
    """A 3-D density.

    Attributes:
        voxels: shape ``(z, y, x)``, any real dtype; may be a read-only memory map.
        voxel_size_angstrom: edge of a (cubic) voxel, or None where nobody knows it.
        origin_angstrom: position ``(z, y, x)`` of the first voxel.

    Raises:
        GeometryError: if there are not three axes or the voxel size is not positive.
    """

    voxels: NDArray[np.generic]
    voxel_size_angstrom: float | None = None
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3:
            raise GeometryError(f"a volume has three axes (z, y, x), got shape {self.voxels.shape}")
        if self.voxel_size_angstrom is not None and not self.voxel_size_angstrom > 0:
            raise GeometryError(f"the voxel size must be positive, got {self.voxel_size_angstrom} Å")

    @property
    def grid(self) -> VolumeGrid:
        """The voxel grid, without the voxels."""
        z, y, x = self.voxels.shape
        return VolumeGrid((z, y, x))
