"""Simulated tilt series with known truth for quality.py: which there are, and how they are prepared.

All come from the shipped recipes (training_data/recipes), cut to small fields and filled only with molecules that the
bundled models never saw, or with procedural ones to try a script out. A series is drawn from the seed and its number
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT
from numpy.typing import NDArray

from cryolithe.files.yaml_table import merged, read_yaml_table
from cryolithe.geometry import TiltGeometry
from cryolithe.projector import Projector, make_projector
from cryolithe.simulation import Molecule, Recipe, SimulatedSeries, load_library, simulate_series
from cryolithe.simulation.procedural import procedural_library
from cryolithe.training.class_scoring import structure_labels
from cryolithe.training.scaling import measure_scale

Volume = NDArray[np.float32]

SEED = 90_000
PROCEDURAL = 8
UNSEEN = ("1bxn", "1u6g", "3cf3", "3d2f", "mb_5wek")
VOXEL_ANGSTROM = 10.0


@dataclass(frozen=True)
class Scene:
    """Series of one kind.

    Attributes:
        title: as tables show it.
        recipe: name of a shipped recipe.
        imaging: what is changed in the recipe's part of that name, nested tables entry by entry.
        voxel_angstrom: edge of a voxel.
    """

    title: str
    recipe: str
    imaging: Mapping[str, Any] = field(default_factory=dict)
    voxel_angstrom: float = VOXEL_ANGSTROM


@dataclass(frozen=True)
class Series:
    """A tilt series with its truth.

    Attributes:
        truth: dense = bright, shape ``(z, y, x)``.
        labels: classes of its voxels, the same shape.
        images: mean removed, dense = bright, shape ``(tilts, y, x)``.
        angles_deg: of the images.
    """

    truth: Volume
    labels: NDArray[np.uint8]
    images: Volume
    angles_deg: tuple[float, ...]


@dataclass(frozen=True)
class Case:
    """One series as every method gets it, and what is known of it.

    Attributes:
        number: of the series.
        truth: density, dense = bright, shape ``(z, y, x)``.
        images: standardised, dense = bright, mean removed, shape ``(tilts, y, x)``.
        even: from the even frames, in the same units.
        odd: from the odd frames.
        angles_deg: of the images.
        projector: between images and volume.
        voxel_angstrom: edge of a voxel.
        known_px: places of the particles ``(z, y, x)``, shape ``(N, 3)``.
        diameter_px: of the particles, their mean.
        labels: classes of voxels (`cryolithe.simulation.Structure`), like ``truth``.
    """

    number: int
    truth: Volume
    images: torch.Tensor
    even: torch.Tensor
    odd: torch.Tensor
    angles_deg: tuple[float, ...]
    projector: Projector
    voxel_angstrom: float
    known_px: NDArray[np.float64]
    diameter_px: float
    labels: NDArray[np.uint8]


def isolated(snr_db: float) -> Scene:
    """Isolated proteins in white noise of some strength."""
    return Scene(f"isolated proteins, {snr_db:+g} dB", "isolated_proteins", {"snr_db": [snr_db, snr_db]})


SCENES = (
    *(isolated(snr_db) for snr_db in (-10.0, 0.0, 10.0)),
    Scene("cellular", "cellular"),
    Scene("lamella", "lamella"),
    Scene("vesicles and gold", "vesicles_gold"),
)

# What does not change from one condition to the next: 41 tilts of ±60°, 120 e/Å², the contrast of atoms, 3.5 µm.
PLAIN: dict[str, Any] = {
    "specimen_contrast": [1.0, 1.0],
    "total_exposure": [120.0, 120.0],
    "optics": {"defocus_um": [3.5, 3.5]},
    "scheme": {
        "kinds": ["dose-symmetric"],
        "reach_deg": [60.0, 60.0],
        "step_deg": [3.0, 3.0],
        "pretilt_deg": [0.0, 0.0],
        "jitter_deg": [0.0, 0.0],
        "missing": [0, 0],
    },
}


def _changed(title: str, voxel_angstrom: float = VOXEL_ANGSTROM, **imaging: Any) -> Scene:
    return Scene(title, "cellular", merged(PLAIN, imaging), voxel_angstrom)


def _reaching(reach_deg: float) -> dict[str, Any]:
    """As many tilts over another range."""
    return {"reach_deg": [reach_deg] * 2, "step_deg": [reach_deg / 20] * 2}


CONDITIONS = (
    _changed("base: ±60°, 41 tilts, 10 Å"),
    *(_changed(f"41 tilts of ±{reach:g}°", scheme=_reaching(reach)) for reach in (40.0, 50.0, 70.0)),
    *(_changed(f"{n} of 41 tilts dropped", scheme={"missing": [n, n]}) for n in (10, 20)),
    *(_changed(f"voxels of {size:g} Å", size) for size in (6.0, 14.0)),
    *(_changed(f"misalignment {s:g} px rms", faults={"shift_px": [s, s]}) for s in (0.5, 1.0, 2.0)),
    *(isolated(snr_db) for snr_db in (-10.0, -5.0, 0.0, 5.0, 10.0)),
)


def recipe_of(scene: Scene, side: int) -> Recipe:
    """A shipped recipe in a field of ``side / 2 x side x side`` voxels, as thick as the field allows."""
    values = read_yaml_table(ROOT / "training_data" / "recipes" / f"{scene.recipe}.yaml", "recipe")
    depth, voxel = side // 2, scene.voxel_angstrom
    values["seed"] = SEED
    values["imaging"] = merged(values["imaging"], scene.imaging)
    values["cell"] |= {
        "shape": [depth, side, side],
        "voxel_size_angstrom": [voxel, voxel],
        "thickness_nm": [0.08 * voxel * depth, 0.095 * voxel * depth],
    }
    return Recipe(**values)


def any_molecules(path: Path | None) -> tuple[Molecule, ...]:
    """All molecules of a library, or some procedural ones."""
    return load_library((path,)) if path else procedural_library(8, np.random.default_rng(1))


def placed_molecules(path: Path | None) -> tuple[Molecule, ...]:
    """The molecules of a library that were held out of training; procedural ones where there is no library.

    Raises:
        SystemExit: if the library has none of them.
    """
    if path is None:
        return procedural_library(PROCEDURAL, np.random.default_rng(SEED))
    found = tuple(molecule for molecule in load_library((path,)) if molecule.name in UNSEEN)
    if not found:
        raise SystemExit(f"{path} has none of the molecules that were held out of training: {', '.join(UNSEEN)}")
    return found


def make_case(scene: Scene, side: int, library: tuple[Molecule, ...], number: int) -> Case:
    """Simulate one series and prepare it as `cryolithe reconstruct` and training do."""
    return case_of(simulate_series(recipe_of(scene, side), library, number), scene, library, number)


def case_of(made: SimulatedSeries, scene: Scene, library: tuple[Molecule, ...], number: int) -> Case:
    """Prepare a simulated series."""
    scale = measure_scale(made.series.images, f"series {number}")
    tilts = np.flatnonzero(scale.usable)
    images = scale.apply(made.series.images[tilts], tilts)
    halves = []
    for half in (made.series.even, made.series.odd):
        own = measure_scale(half, f"half of series {number}")
        halves.append(own.apply(half[tilts], tilts) * (own.sigma / scale.sigma))
    angles = tuple(float(a) for a in np.asarray(made.series.plan.angles_deg)[tilts])
    depth, height, width = made.truth.shape
    known, diameter_px = _particles(made, library, scene.voxel_angstrom)
    return Case(
        number, -made.truth, images, halves[0], halves[1], angles,
        make_projector(TiltGeometry(angles, (height, width)), (depth, width)), scene.voxel_angstrom, known, diameter_px,
        structure_labels(made.cell.labels, made.cell.classes, library),
    )  # fmt: skip


def _particles(
    made: SimulatedSeries, library: tuple[Molecule, ...], voxel_angstrom: float
) -> tuple[NDArray[np.float64], float]:
    """Places of the library's molecules whose middle lies in the field, and their mean diameter in voxels."""
    diameters = {molecule.name: diameter_angstrom(molecule) for molecule in library}
    size = np.array(made.truth.shape)
    placed = [p for p in made.cell.placements if p.name in diameters]
    places = np.array([p.position_px for p in placed], dtype=np.float64).reshape(-1, 3)
    inside: NDArray[np.bool_] = np.all((places > -0.5) & (places < size - 0.5), axis=1)
    found = [diameters[p.name] for p, keep in zip(placed, inside, strict=True) if keep]
    return places[inside], float(np.mean(found)) / voxel_angstrom if found else 0.0


def diameter_angstrom(molecule: Molecule) -> float:
    """Diameter of the ball with the molecule's radius of gyration: ``2 sqrt(5 / 3) R``."""
    mass = np.clip(molecule.density, 0, None).ravel().astype(np.float64)
    places = np.indices(molecule.density.shape).reshape(3, -1)
    centre = places @ mass / mass.sum()
    spread = (((places - centre[:, None]) ** 2).sum(axis=0) @ mass) / mass.sum()
    return float(2 * np.sqrt(5 / 3 * spread) * molecule.voxel_size_angstrom)
