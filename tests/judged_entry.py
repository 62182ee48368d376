"""Small series of particles at known places, laid out as an entry's manifest says, with positions and a template."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from cryolithe.curation.manifest import Manifest, read_manifest, write_manifest
from cryolithe.formats import write_angles_deg, write_stack, write_volume
from cryolithe.formats.particles.star import Particle, write_particles
from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.volume import Volume

TRAINING_DATA = Path(__file__).resolve().parents[1] / "training_data"
ANGLES = tuple(float(angle) for angle in range(-60, 61, 4))
SHAPE = (32, 96, 80)
LOBES = ((0, 0, 0, 1.0), (0.5, 0.1, 0, 0.9), (-0.2, 0.5, 0.2, 0.8), (0.1, -0.3, -0.5, 0.7))  # of the radius; weight


@dataclass(frozen=True)
class Scene:
    """A specimen, dense = bright, its particles' places ``(z, y, x)`` and the particle itself."""

    density: np.ndarray
    places: np.ndarray
    template: np.ndarray


def particle(diameter: float) -> np.ndarray:
    """A lump without symmetry in a box of an odd number of voxels."""
    side = 2 * int(np.ceil(diameter / 2)) + 5
    axes = np.ogrid[tuple(slice(-(side - 1) / 2, side / 2) for _ in range(3))]
    radius = diameter / 2
    return sum(
        weight * np.exp(-sum((a - radius * c) ** 2 for a, c in zip(axes, centre, strict=True)) / (0.3 * radius) ** 2)
        for *centre, weight in LOBES
    ).astype(np.float32)


@cache
def scene(diameter: float, number: int = 14) -> Scene:
    """Particles in all orientations, none closer to another than 1.3 diameters, none cut."""
    rng = np.random.default_rng(5)
    template, density, places = particle(diameter), np.zeros(SHAPE, np.float32), []
    side = template.shape[0]
    for _ in range(20_000):
        corner = [int(rng.integers(0, n - side + 1)) for n in SHAPE]
        place = np.array(corner) + (side - 1) / 2
        if len(places) < number and all(np.linalg.norm(place - other) > 1.3 * diameter for other in places):
            places.append(place)
            matrix, middle = Rotation.random(rng=rng).as_matrix(), np.full(3, (side - 1) / 2)
            turned = affine_transform(template, matrix, middle - matrix @ middle, order=1)
            density[tuple(slice(c, c + side) for c in corner)] += turned
    return Scene(density, np.array(places), template)


def judged_manifest(number: str, pixel: float, folder: Path) -> Manifest:
    """The manifest of an entry for images that need no binning, written into a folder for ``--manifests``."""
    shipped = read_manifest(TRAINING_DATA / f"empiar_{number}.yaml")
    manifest = shipped.model_copy(update={"pixel_size_angstrom": pixel, "binning": 1, "stack_binning": 1})
    folder.mkdir(exist_ok=True)
    write_manifest(folder / f"empiar_{number}.yaml", manifest, overwrite=True)
    return manifest


def judged_entry(manifest: Manifest, name: str, root: Path, made: Scene, noise: float = 1.0) -> dict[str, Path]:
    """Write stack, angles and halves, dense = dark, with positions; ``noise`` is that of a half, of the images' own.

    Returns:
        paths of the files by what they are, with ``particles`` and ``target`` (which is not written).
    """
    pair = manifest.select((name,))[0]
    paths = {role: root / path for role, path in manifest.paths(pair).items()}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    projector = make_projector(TiltGeometry(ANGLES, SHAPE[1:]), (SHAPE[0], SHAPE[2]))
    clean = -projector.forward(torch.from_numpy(made.density)).numpy()
    rng = np.random.default_rng(6)
    halves = [clean + noise * clean.std() * rng.standard_normal(clean.shape, dtype=np.float32) for _ in range(2)]
    stacks = {"stack": (halves[0] + halves[1]) / 2, "even": halves[0], "odd": halves[1]}
    for role in stacks.keys() & paths.keys():
        write_stack(paths[role], stacks[role], manifest.stack_pixel_angstrom, "made for a test")
    write_angles_deg(paths["angles"], np.array(ANGLES))
    series = pair.series or pair.name
    paths["particles"] = paths["stack"].with_name(f"{series}_particles.star")
    write_places(paths["particles"], series, made.places, manifest.voxel_size_angstrom)
    return paths


def write_places(path: Path, series: str, places: np.ndarray, voxel: float) -> None:
    """Positions in the volume of a series as RELION 5 has them."""
    particles = [Particle(series, "p", 1, tuple(map(float, place)), (0.0, 0.0, 0.0)) for place in places]
    write_particles(path, particles, SHAPE, voxel, overwrite=True)


def write_map(path: Path, values: np.ndarray, voxel: float | None) -> None:
    """A volume file in place of one that is there."""
    write_volume(path, Volume(np.asarray(values, np.float32), voxel), label="made for a test", overwrite=True)
