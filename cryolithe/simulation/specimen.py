"""Plain specimens, crowded molecules, membranes, solid bodies and beads in a box of ice, and their plain images.

Density is positive where denser than ice; protein is about 1. Images are projections, with white noise or without.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.simulation.canvas import INSIDE, overlap
from cryolithe.simulation.classes import Structure, membrane_classes, protein_class
from cryolithe.simulation.diverse import draw_diverse
from cryolithe.simulation.molecules import Molecule, resampled
from cryolithe.simulation.procedural import procedural_molecule


@dataclass(frozen=True)
class SpecimenRecipe:
    """What a specimen may contain; each pair is (least, most) of a uniform draw.

    Attributes:
        shape: voxels ``(z, y, x)``.
        voxel_size_angstrom: range of voxel sizes.
        crowding: fraction of the box to fill with molecules.
        procedural_share: part of the molecules that are procedural (all, where no library is given).
        membranes: number of membranes.
        body_chance: chance of a large solid body.
        bead_chance: chance of a few gold beads.
        diverse: chance that the specimen is none of the above but a scene of membranes, filaments, bodies and a few
            molecules (`cryolithe.simulation.diverse`).
    """

    shape: tuple[int, int, int] = (64, 128, 128)
    voxel_size_angstrom: tuple[float, float] = (7.0, 13.0)
    crowding: tuple[float, float] = (0.02, 0.12)
    procedural_share: float = 0.15
    membranes: tuple[int, int] = (0, 3)
    body_chance: float = 0.25
    bead_chance: float = 0.15
    diverse: float = 0.0


@dataclass(frozen=True)
class Specimen:
    """A specimen and its voxel size.

    Attributes:
        density: shape ``(z, y, x)``, float32.
        voxel_size_angstrom: edge of a voxel.
        labels: what each voxel belongs to, values of `cryolithe.simulation.classes.Structure`, shape ``(z, y, x)``;
            None where nobody knows.
    """

    density: NDArray[np.float32]
    voxel_size_angstrom: float
    labels: NDArray[np.uint8] | None = None


def make_specimen(recipe: SpecimenRecipe, library: tuple[Molecule, ...], rng: np.random.Generator) -> Specimen:
    """Draw a specimen.

    Args:
        recipe: what it may contain.
        library: molecules to place; may be empty.
        rng: source of all randomness: the same state gives the same specimen.
    """
    voxel = float(rng.uniform(*recipe.voxel_size_angstrom))
    # A recipe without diverse scenes draws no number for them: it stays what it was.
    if recipe.diverse > 0 and rng.random() < recipe.diverse:
        drawn, labels = draw_diverse(recipe.shape, voxel, library, rng)
        return Specimen(drawn, voxel, labels)
    density = np.zeros(recipe.shape, dtype=np.float32)
    labels = np.zeros(recipe.shape, dtype=np.uint8)
    if rng.random() < recipe.body_chance:
        body = _solid_body(recipe.shape, rng)
        labels[body > 0.05 * body.max()] = Structure.BODY  # layers may be as thin as that
        np.maximum(density, body, out=density)
    for _ in range(_count(rng, recipe.membranes)):
        values, classes = _membrane(recipe.shape, voxel, rng)
        np.copyto(labels, classes, where=(classes > 0) & (values > density))
        np.maximum(density, values, out=density)
    _add_molecules((density, labels), recipe, voxel, library, rng)
    if rng.random() < recipe.bead_chance:
        for _ in range(_count(rng, (1, 3))):
            bead = _bead(recipe.shape, voxel, rng)
            labels[bead > 0.5 * bead.max()] = Structure.GOLD
            np.maximum(density, bead, out=density)
    return Specimen(density, voxel, labels)


def _count(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _add_molecules(
    drawn: tuple[NDArray[np.float32], NDArray[np.uint8]],
    recipe: SpecimenRecipe,
    voxel: float,
    library: tuple[Molecule, ...],
    rng: np.random.Generator,
) -> None:
    """Place molecules where there is room until the crowding is reached or places become rare; density and labels."""
    density, labels = drawn
    classes = {id(molecule): protein_class(molecule) for molecule in library}
    occupied = density > INSIDE
    wanted = rng.uniform(*recipe.crowding) * density.size
    filled, misses = 0, 0
    while filled < wanted and misses < 200:
        if not library or rng.random() < recipe.procedural_share:
            molecule = procedural_molecule(rng, "procedural")
        else:
            molecule = library[rng.integers(len(library))]
        rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
        box = resampled(molecule, rotation, voxel) * np.float32(rng.uniform(0.8, 1.2))
        body = box > INSIDE
        if not body.any():
            misses += 20  # a molecule thinner than a voxel
            continue
        for _ in range(20):
            # Centres anywhere in the box: molecules are cut by its faces, as a field of view cuts them.
            corner = [int(rng.integers(n)) - box.shape[0] // 2 for n in density.shape]
            target, source = overlap(corner, box.shape[0], density.shape)
            if not (occupied[target] & body[source]).any():
                density[target] = np.maximum(density[target], box[source])
                occupied[target] |= body[source]
                labels[target][body[source]] = classes.get(id(molecule)) or protein_class(molecule)
                filled += int(body[source].sum())
                misses = 0
                break
            misses += 1


def _coordinates(shape: tuple[int, int, int]) -> list[NDArray[np.float32]]:
    return list(np.ogrid[tuple(slice(0, n) for n in shape)])


def _membrane(
    shape: tuple[int, int, int], voxel: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A bilayer as part of an ellipsoid, and its labels.

    Its two leaflets are 2.5 nm apart between head-group peaks (total ≈ 4-5 nm).
    """
    semi_axes = rng.uniform(120.0, 900.0) / voxel * rng.uniform(0.8, 1.25, size=3)
    centre = [rng.uniform(-0.3 * n, 1.3 * n) for n in shape]
    scaled = [(g - c) / a for g, c, a in zip(_coordinates(shape), centre, semi_axes, strict=True)]
    radius = np.sqrt(sum(s * s for s in scaled)) + 1e-6
    # First-order distance to the ellipsoid: (r - 1) over the length of the gradient of r.
    gradient = np.sqrt(sum((s / a) ** 2 for s, a in zip(scaled, semi_axes, strict=True))) / radius + 1e-6
    distance = (radius - 1) / gradient * voxel
    leaflets = np.exp(-(((np.abs(distance) - 12.5) / 6.0) ** 2)) + 0.35 * np.exp(-((distance / 14.0) ** 2))
    labels = np.zeros(shape, dtype=np.uint8)
    inside = np.nonzero(np.abs(distance) < max(22.0, voxel / 2))
    normals = [(place - c) / a**2 for place, c, a in zip(inside, centre, semi_axes, strict=True)]
    labels[inside] = membrane_classes(np.stack(normals, axis=1))
    return (rng.uniform(0.6, 1.0) * leaflets).astype(np.float32), labels


def _solid_body(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """A convex or ellipsoidal body, even or layered inside, with soft edges: what no window alone can see into."""
    grids = _coordinates(shape)
    centre = [rng.uniform(0.2 * n, 0.8 * n) for n in shape]
    reach = rng.uniform(0.12, 0.4) * shape[0] + 4
    if rng.random() < 0.5:
        semi_axes = reach * rng.uniform(0.6, 1.8, size=3)
        radius = np.sqrt(sum(((g - c) / a) ** 2 for g, c, a in zip(grids, centre, semi_axes, strict=True)))
        depth = (1 - radius) * semi_axes.min()
    else:
        depth = np.full(shape, np.inf)
        for normal in rng.normal(size=(int(rng.integers(5, 10)), 3)):
            unit = normal / np.linalg.norm(normal)
            along = sum(k * (g - c) for k, g, c in zip(unit, grids, centre, strict=True))
            depth = np.minimum(depth, reach * rng.uniform(0.6, 1.4) - along)
    inside = 1 / (1 + np.exp(-np.clip(depth / rng.uniform(0.4, 1.2), -30, 30)))
    level = rng.uniform(0.3, 1.5)
    if rng.random() < 0.6:
        # Layers that follow the surface, or flat ones across the body.
        normal = rng.normal(size=3)
        flat = sum(k * (g - c) for k, g, c in zip(normal / np.linalg.norm(normal), grids, centre, strict=True))
        layered = depth if rng.random() < 0.4 else flat
        period, contrast = rng.uniform(4.0, 24.0), rng.uniform(0.1, 0.9)
        inside = inside * (1 + contrast * np.sign(np.sin(2 * np.pi * layered / period + rng.uniform(0, 6.3))))
    return (level * inside).astype(np.float32)


def _bead(shape: tuple[int, int, int], voxel: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A gold bead 5-15 nm across, several times as dense as protein."""
    centre = [rng.uniform(0, n) for n in shape]
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(_coordinates(shape), centre, strict=True)))
    radius = rng.uniform(25.0, 75.0) / voxel
    return (rng.uniform(4.0, 8.0) / (1 + np.exp(np.clip((distance - radius) / 0.4, -30, 30)))).astype(np.float32)


def project(specimen: Specimen, angles_deg: tuple[float, ...]) -> NDArray[np.float32]:
    """Noiseless images of a specimen with the mean of each image removed, shape ``(tilts, y, x)``."""
    depth, height, width = specimen.density.shape
    geometry = TiltGeometry(angles_deg, (height, width))
    images = make_projector(geometry, (depth, width)).forward(torch.from_numpy(specimen.density))
    return (images - images.mean(dim=(1, 2), keepdim=True)).numpy()


def noise_sigma(images: NDArray[np.float32], snr_db: float) -> float:
    """Standard deviation of white noise for a signal-to-noise ratio.

    ``snr_db = 10 log10(variance of the images / variance of the noise)``, over the whole series (paper, section 4.1).
    """
    return float(np.sqrt(images.var() / 10 ** (snr_db / 10)))


def add_white_noise(images: NDArray[np.float32], snr_db: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Images with white Gaussian noise at ``snr_db``, same shape, float32."""
    noise = rng.standard_normal(images.shape, dtype=np.float32)
    return images + np.float32(noise_sigma(images, snr_db)) * noise
