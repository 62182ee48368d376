"""Slabs of z in which the CTF is corrected with a defocus of their own (3-D CTF), and their back-projection.

A point at the height z has, in an image tilted by θ, ``h z / cos θ`` less defocus than the point of the middle plane
that is seen in the same column: ``x = (u - z sin θ) / cos θ`` in ``Δf + h (x sin θ - z cos θ)``. So prepared images are
corrected once for each slab, which is back-projected from its own (Jensen & Kornberg 2000, Ultramicroscopy 84, 57-64).
The defocus that is told is that of the middle of the volume.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from cryolithe.filters import filter_rows, padded_length, ramp_response
from cryolithe.geometry import TiltGeometry, centre_px
from cryolithe.optics.transfer import ANGSTROM_PER_UM, STEEPEST_DEG, STRIP_PHASE_RAD, phase_per_um
from cryolithe.projector import TorchProjector


@dataclass(frozen=True)
class Layers:
    """Slabs of a volume's planes.

    Attributes:
        planes: of each slab, in order and without gaps; an odd number of slabs, the middle one about the middle.
        voxel_size_angstrom: edge of a voxel.
        z_reversed: whether z runs against that of the angles of the files.
    """

    planes: tuple[range, ...]
    voxel_size_angstrom: float
    z_reversed: bool = False

    @property
    def middle(self) -> int:
        """The slab of the middle plane."""
        return len(self.planes) // 2

    def heights_um(self, angle_deg: float, hand: int) -> tuple[float, ...]:
        """By how much what lies in the middle of each slab is less defocused than what is seen beside it."""
        middle = centre_px(self.planes[-1].stop)
        along = ANGSTROM_PER_UM * math.cos(math.radians(angle_deg)) / self.voxel_size_angstrom
        sign = -hand if self.z_reversed else hand
        return tuple(sign * ((planes.start + planes.stop - 1) / 2 - middle) / along for planes in self.planes)


def make_layers(
    depth: int, voxel_size_angstrom: float, voltage_kv: float, angles_deg: Sequence[float], z_reversed: bool
) -> Layers:
    """Slabs through which the phase of the CTF at Nyquist changes by `STRIP_PHASE_RAD`, in the steepest image."""
    steepest = min(math.cos(math.radians(min(abs(angle), STEEPEST_DEG))) for angle in angles_deg)
    thick_um = STRIP_PHASE_RAD / phase_per_um(voltage_kv, (0.5 / voxel_size_angstrom) ** 2) * steepest
    thick_px = thick_um * ANGSTROM_PER_UM / voxel_size_angstrom
    count = max(1, math.ceil(depth / thick_px))
    count = min(count + 1 - count % 2, depth - 1 + depth % 2)
    edges = np.round(np.linspace(0, depth, count + 1)).astype(int).tolist()
    return Layers(tuple(range(a, b) for a, b in itertools.pairwise(edges)), voxel_size_angstrom, z_reversed)


@dataclass(frozen=True)
class LayeredFbp:
    """Filtered back-projection of slabs of z, each from its own images; rows are alike wherever they lie.

    Attributes:
        projectors: of the planes of each slab.
        window: of the ramp filter.
    """

    projectors: tuple[TorchProjector, ...]
    window: str
    row_multiple: int = 1
    halo_px: int = 0
    first_row: int = 0

    @property
    def device(self) -> torch.device:
        """Where results are."""
        return self.projectors[0].device

    def at(self, first_row: int) -> LayeredFbp:
        """The same for the slab that begins at a row of the volume."""
        return replace(self, first_row=first_row)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the volume ``(z, rows, x)`` from those of all images of each slab, ``(slabs * tilts, rows, X)``."""
        geometry = self.projectors[0].geometry
        weights = torch.from_numpy(geometry.angular_weights_rad()).float().to(self.device)[:, None, None]
        response = ramp_response(padded_length(rows.shape[-1]), self.window).to(rows).to(self.device)
        made = []
        for projector, part in zip(self.projectors, rows.split(geometry.tilts), strict=True):
            (filtered,) = filter_rows(part.to(self.device), response)
            made.append(projector.adjoint(filtered * weights))
        return torch.cat(made)


def layered_fbp(
    geometry: TiltGeometry, layers: Layers, slice_shape: tuple[int, int], device: torch.device, window: str
) -> LayeredFbp:
    """The method for a geometry and a slice ``(z, x)`` of the volume."""
    return LayeredFbp(tuple(TorchProjector(geometry, slice_shape, device, p) for p in layers.planes), window)
