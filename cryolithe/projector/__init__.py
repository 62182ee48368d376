"""Forward projection, back-projection, FBP and SIRT."""

from __future__ import annotations

from typing import Protocol

import torch

from cryolithe.errors import SettingsError, nearest_name
from cryolithe.geometry import TiltGeometry
from cryolithe.projector.torch_engine import TorchProjector

ENGINES = ("torch", "tomosipo")


class Projector(Protocol):
    """A linear map between volumes and tilt images, with its adjoint; slices across the tilt axis are independent.

    Attributes:
        geometry: angles and detector width.
        slice_shape: voxels along ``(z, x)``.
        device: where results are.
    """

    geometry: TiltGeometry
    slice_shape: tuple[int, int]
    device: torch.device

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Project: ``(z, rows, x)`` -> ``(tilts, rows, X)``."""
        ...

    def adjoint(self, projections: torch.Tensor) -> torch.Tensor:
        """Back-project: ``(tilts, rows, X)`` -> ``(z, rows, x)``."""
        ...


def check_engine(engine: str) -> None:
    """Refuse an engine that is not there, before anything is done for it.

    Raises:
        DeviceError: if tomosipo is asked for and cannot run.
    """
    if engine == "tomosipo":
        from cryolithe.projector.tomosipo_engine import import_tomosipo

        import_tomosipo()


def make_projector(
    geometry: TiltGeometry,
    slice_shape: tuple[int, int],
    device: torch.device | str = "cpu",
    engine: str = "torch",
) -> Projector:
    """Choose a projector.

    Args:
        geometry: angles and detector width.
        slice_shape: voxels along ``(z, x)``.
        device: for the torch engine.
        engine: "torch", or "tomosipo" where it and a CUDA device are present.

    Raises:
        SettingsError: for an unknown engine.
        DeviceError: if tomosipo is asked for and cannot run.
    """
    if engine == "torch":
        return TorchProjector(geometry, slice_shape, device)
    if engine == "tomosipo":
        from cryolithe.projector.tomosipo_engine import TomosipoProjector

        return TomosipoProjector(geometry, slice_shape)
    raise SettingsError(f"unknown projector '{engine}'{nearest_name(engine, ENGINES)}; known: {', '.join(ENGINES)}")
