"""The same projection through tomosipo and ASTRA, for those who have them and a CUDA device.

tomosipo is GPL-3 and needs CUDA: it is imported only when asked for, and nothing else here depends on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cryolithe.errors import DeviceError
from cryolithe.geometry import TiltGeometry


def import_tomosipo() -> Any:
    """The library, taught to take tensors.

    Raises:
        DeviceError: if it or a CUDA device is missing.
    """
    if not torch.cuda.is_available():
        raise DeviceError("the tomosipo projector needs a CUDA device and none is visible; use the torch projector")
    try:
        import tomosipo
        import tomosipo.torch_support
    except ImportError as error:
        raise DeviceError(
            f"the tomosipo projector cannot be imported ({error}); install tomosipo as its documentation says, "
            "or use the torch projector"
        ) from error
    return tomosipo


class TomosipoProjector:
    """Projection of ``(z, y, x)`` volumes by ASTRA's CUDA kernels; the same interface as `TorchProjector`.

    Raises:
        DeviceError: if tomosipo or a CUDA device is missing.
    """

    def __init__(self, geometry: TiltGeometry, slice_shape: tuple[int, int]) -> None:
        self._tomosipo = import_tomosipo()
        self.geometry = geometry
        self.slice_shape = slice_shape
        self.device = torch.device("cuda")

    def at_row(self, row: int) -> TomosipoProjector:
        """This one: bands that differ are refused before."""
        return self

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Project: ``(z, rows, x)`` -> ``(tilts, rows, X)``."""
        operator = self._operator(volume.shape[1])
        return operator(volume.float().cuda().contiguous()).transpose(0, 1)

    def adjoint(self, projections: torch.Tensor) -> torch.Tensor:
        """Back-project: ``(tilts, rows, X)`` -> ``(z, rows, x)``."""
        operator = self._operator(projections.shape[1])
        return operator.T(projections.float().cuda().transpose(0, 1).contiguous())

    def _operator(self, rows: int) -> Any:
        """tomosipo's operator for a slab of rows; its vectors are ordered (z, y, x), its data (v, angle, u)."""
        theta = self.geometry.angles_rad
        zero, one = np.zeros_like(theta), np.ones_like(theta)
        depth, width = self.slice_shape
        volume = self._tomosipo.volume(shape=(depth, rows, width))
        projection = self._tomosipo.parallel_vec(
            shape=(rows, self.geometry.image_shape[1]),
            ray_dir=np.stack([np.cos(theta), zero, -np.sin(theta)], axis=1),
            det_pos=np.zeros((theta.size, 3)),
            det_v=np.stack([zero, one, zero], axis=1),
            det_u=np.stack([np.sin(theta), zero, np.cos(theta)], axis=1),
        )
        return self._tomosipo.operator(volume, projection)
