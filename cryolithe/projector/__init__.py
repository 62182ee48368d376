"""Forward projection, back-projection, FBP and SIRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from cryolithe.column_shifts import row_bands
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

    def at_row(self, row: int) -> Projector:
        """The projector of the band of rows that holds a row of the images, where bands differ."""
        ...

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Project: ``(z, rows, x)`` -> ``(tilts, rows, X)``."""
        ...

    def adjoint(self, projections: torch.Tensor) -> torch.Tensor:
        """Back-project: ``(tilts, rows, X)`` -> ``(z, rows, x)``."""
        ...


def bands_of(projector: Projector, first_row: int, rows: int) -> list[tuple[int, int]]:
    """The bands of a slab in which points are seen in the same columns: first row and the one after the last."""
    shifts = projector.geometry.shifts
    return [(0, rows)] if shifts is None else list(row_bands(shifts, first_row, rows))


def by_bands(
    projector: Projector,
    first_row: int,
    rows: torch.Tensor,
    work: Callable[[Projector, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """What each band's projector makes of the rows of a slab, joined.

    Args:
        projector: of all rows.
        first_row: of the slab, in the images.
        rows: of images, shape ``(tilts, slab, X)``, or of a volume, shape ``(z, slab, x)``.
        work: makes images or a volume of the rows of a band.
    """
    bands = bands_of(projector, first_row, rows.shape[1])
    made = [work(projector.at_row(first_row + start), rows[:, start:stop]) for start, stop in bands]
    return made[0] if len(made) == 1 else torch.cat(made, dim=1)


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
