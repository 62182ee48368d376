"""Cells as values: what they may contain, what they are, and where their molecules lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import SettingsError

Array = NDArray[np.float64]
Pair = tuple[float, float]
Span = tuple[int, int]
_MOST_VOXELS = 2**31


@dataclass(frozen=True)
class CellRecipe:
    """What a cell may contain; each pair is (least, most) of a uniform draw.

    Attributes:
        shape: voxels of the field of view, ``(z, y, x)``.
        voxel_size_angstrom: edge of a voxel.
        margin: part of the field's width by which the specimen goes on at either end of x.
        crowding: fraction of the free volume of the slab to fill with molecules.
        cluster_share: part of the molecules that come in clusters of one kind.
        cluster_size: molecules in a cluster.
        vesicles: number of vesicles per µm² of slab; likewise ``tubes``, ``organelles``, ``actin``,
            ``microtubules``, ``nucleic_acids``, ``gold`` and ``crystals``.
        tubes: number of membrane tubes.
        organelles: number of membranes within membranes.
        sheets: number of bent sheets through the slab, in all.
        vesicle_radius_nm: mean radius of vesicles; organelles are up to twice as large, tubes 10-30 nm.
        membrane_proteins: number per 1000 nm² of membrane.
        actin: number of actin filaments.
        microtubules: number of microtubules.
        nucleic_acids: number of bare chains.
        gold: number of gold fiducials.
        gold_diameter_nm: their size.
        bodies: number of lipid droplets, granules and dense bodies, per µm² as well.
        ribosomes_micromolar: concentration of large particles of protein and RNA, see
            `cryolithe.simulation.procedural.large_particle`: 3-10 µM in eukaryotes, 20 and more in bacteria.
        cytosol_mg_ml: protein too small to be resolved, see `cryolithe.simulation.cytosol`; 0 for pure ice.
        cytosol_variation: how much its concentration varies: standard deviation of its logarithm.
        roughness_nm: standard deviation of the height of the slab's faces.
        carbon_chance: chance of a carbon film with a hole whose rim crosses the field (not in a lamella).
        crystals: number of ice crystals on the surfaces.
        lamella_chance: chance that the slab was cut by a focused ion beam: its faces cut through what is there and
            are damaged.
        thickness_nm: thickness of the slab; what does not fit the field's depth is cut by it.
        pretilt_deg: angle of a lamella about y.
        damage_nm: depth of the damaged layer at the faces of a lamella.

    Raises:
        SettingsError: if a range is empty or negative, or the shape or voxel size is impossible.
    """

    shape: tuple[int, int, int] = (128, 256, 256)
    voxel_size_angstrom: Pair = (8.0, 13.0)
    margin: float = 0.5
    crowding: Pair = (0.05, 0.25)
    cluster_share: float = 0.2
    cluster_size: Span = (3, 12)
    vesicles: Pair = (0.0, 60.0)
    tubes: Pair = (0.0, 25.0)
    organelles: Pair = (0.0, 8.0)
    sheets: Span = (0, 1)
    vesicle_radius_nm: Pair = (20.0, 80.0)
    membrane_proteins: Pair = (0.5, 3.0)
    actin: Pair = (0.0, 60.0)
    microtubules: Pair = (0.0, 10.0)
    nucleic_acids: Pair = (0.0, 40.0)
    gold: Pair = (0.0, 30.0)
    gold_diameter_nm: Pair = (5.0, 15.0)
    bodies: Pair = (0.0, 0.0)
    ribosomes_micromolar: Pair = (0.0, 0.0)
    cytosol_mg_ml: Pair = (0.0, 0.0)
    cytosol_variation: Pair = (0.0, 0.0)
    roughness_nm: Pair = (0.0, 0.0)
    carbon_chance: float = 0.05
    crystals: Pair = (0.0, 3.0)
    lamella_chance: float = 0.5
    thickness_nm: Pair = (80.0, 300.0)
    pretilt_deg: Pair = (-6.0, 6.0)
    damage_nm: Pair = (5.0, 20.0)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 8:
            raise SettingsError(f"a field needs at least 8 voxels along z, y and x, got {self.shape}")
        if math.prod(self.shape) * (1 + 2 * max(self.margin, 0)) > _MOST_VOXELS:
            raise SettingsError(f"a field of {self.shape} voxels with its margins is too large; at most 2^31 voxels")
        for name, value in vars(self).items():
            if isinstance(value, tuple) and len(value) == 2:
                low, high = value
                if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                    raise SettingsError(f"{name} must be (least, most), got {value}")
                if low < 0 and name != "pretilt_deg":
                    raise SettingsError(f"{name} must not be negative, got {value}")
        if self.voxel_size_angstrom[0] <= 0 or self.thickness_nm[0] <= 0:
            raise SettingsError("the voxel size and the thickness must be above 0")
        if self.crowding[1] > 1 or not 0 <= self.margin <= 4 or max(map(abs, self.pretilt_deg)) > 45:
            raise SettingsError("crowding goes up to 1, margin from 0 to 4, and pretilt_deg to 45")
        if self.cytosol_mg_ml[1] > 600 or self.cytosol_variation[1] > 2:
            raise SettingsError("cytosol_mg_ml goes up to 600, cytosol_variation to 2")
        for name in ("cluster_share", "carbon_chance", "lamella_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is a share from 0 to 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Placement:
    """A molecule or body in the field of view.

    Attributes:
        name: its class.
        label: its number in the label mask.
        position_px: ``(z, y, x)`` of its centre in voxels of the field.
        rotation: ``(3, 3)``, from the reference to the specimen, acting on ``(z, y, x)``.
        euler_deg: the same as RELION's rot, tilt and psi.
    """

    name: str
    label: int
    position_px: tuple[float, float, float]
    rotation: Array
    euler_deg: tuple[float, float, float]


@dataclass(frozen=True)
class Cell:
    """A specimen.

    Attributes:
        density: ``(z, y, x)`` float32; x goes beyond the field of view at both ends.
        field: the part of x that is the field of view.
        labels: ``(z, y, x)`` uint16 of the field: 0 is ice, else the number of a class.
        classes: names; the label of ``classes[i]`` is ``i + 1``.
        placements: what is in the field.
        voxel_size_angstrom: edge of a voxel.
        slab_px: depth below the nearer surface of the slab, ``(z, x)`` float32, negative in vacuum.
        wanted_crowding: fraction of the free volume that was to be filled with molecules.
        reached_crowding: what fitted.
        lamella: whether the slab was cut by an ion beam.
    """

    density: NDArray[np.float32]
    field: slice
    labels: NDArray[np.uint16]
    classes: tuple[str, ...]
    placements: tuple[Placement, ...]
    voxel_size_angstrom: float
    slab_px: NDArray[np.float32]
    wanted_crowding: float
    reached_crowding: float
    lamella: bool

    @property
    def thickness_angstrom(self) -> float:
        """Thickness of the slab across its faces, as far as it lies in the grid."""
        return 2 * max(float(self.slab_px.max()), 0.0) * self.voxel_size_angstrom


def relion_euler_deg(rotation: Array) -> tuple[float, float, float]:
    """RELION's rot, tilt and psi of a rotation ``(3, 3)`` that takes the reference to the specimen, acting on z, y, x.

    RELION's matrix, which takes the reference to the specimen, is the transpose of Rz(rot) Ry(tilt) Rz(psi).
    """
    m = np.asarray(rotation)[::-1, ::-1].T
    sine = math.hypot(m[0, 2], m[1, 2])
    tilt = math.atan2(sine, m[2, 2])
    if sine > 1e-9:
        rot, psi = math.atan2(m[1, 2], m[0, 2]), math.atan2(m[2, 1], -m[2, 0])
    else:
        rot, psi = math.atan2(math.copysign(1.0, m[2, 2]) * m[1, 0], m[1, 1]), 0.0  # also for half a turn
    return math.degrees(rot), math.degrees(tilt), math.degrees(psi)
