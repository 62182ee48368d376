"""Scores by class of structure on fixed simulated scenes that no training draws, with white noise and 41 tilts.

As in `cryolithe.training.scoring`, the network stands with its share of filtered back-projection, and alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.fidelity import Region, best_gaussian, class_fidelity, region_masks, sheet_normals
from cryolithe.geometry import TiltGeometry
from cryolithe.network import Network
from cryolithe.projector import make_projector
from cryolithe.projector.classical import fbp, sirt_margin_px
from cryolithe.reconstruction.slabwise.methods import ON_CPU, Compute, SirtMethod
from cryolithe.reconstruction.slabwise.networks import FBP_SHARE
from cryolithe.simulation import Molecule, Specimen, Structure, add_white_noise, project
from cryolithe.simulation.classes import FILAMENTS, MEMBRANES, PROTEINS, membrane_classes, protein_class
from cryolithe.simulation.diverse import Scene, draw_scene
from cryolithe.training.scoring import (
    ALONE,
    FBP,
    NETWORK,
    SIRT,
    SIRT_ITERATIONS,
    WorstShell,
    finished_array,
    range_of,
    reconstruct_array,
    truth_fsc,
    worst_of,
    worst_shell,
)

SHAPE = (64, 128, 128)
VOXEL_ANGSTROM = 10.0
SEED = 20262
GAUSSIAN = "fbp+gaussian"
SIGMAS_PX = (0.0, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)

REGIONS: dict[str, Region] = {
    "membranes": Region(tuple(int(kind) for kind in MEMBRANES)),
    **{f"membranes, normal {kind.name.rsplit('_', 1)[1].lower()}": Region((int(kind),)) for kind in MEMBRANES},
    "filaments": Region((int(Structure.FILAMENT),)),
    "microtubules": Region((int(Structure.MICROTUBULE),)),
    "small proteins": Region((int(Structure.SMALL_PROTEIN),)),
    "large proteins": Region((int(Structure.LARGE_PROTEIN),)),
    "around gold": Region((int(Structure.GOLD),), around=True),
    "crystals": Region((int(Structure.CRYSTAL),)),
    "bodies": Region((int(Structure.BODY),)),
}
# What is told after each validation of a training.
SUMMARY: dict[str, Region] = {
    "membranes": REGIONS["membranes"],
    "filaments": Region(tuple(int(kind) for kind in FILAMENTS)),
    "proteins": Region(tuple(int(kind) for kind in PROTEINS)),
}

Table = dict[str, dict[str, dict[str, float]]]  # method -> class -> band -> correlation


@dataclass(frozen=True)
class ClassScene:
    """Series of one kind.

    Attributes:
        title: as tables show it.
        scene: what the specimens hold.
        reach_deg: tilts go from minus to plus this, 41 of them evenly.
        snr_db: of the images.
    """

    title: str
    scene: Scene
    reach_deg: float
    snr_db: float

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """Of the images."""
        return tuple(float(a) for a in np.linspace(-self.reach_deg, self.reach_deg, 41))


@dataclass(frozen=True)
class SceneScores:
    """What was found on a scene.

    Attributes:
        title: of the scene.
        fidelity: method -> class -> band -> correlation, means over the specimens that have the class.
        worst_shells: of each method beside FBP, the worst of all specimens.
    """

    title: str
    fidelity: Table
    worst_shells: dict[str, WorstShell]


_BILAYERS = Scene(1.0, (5, 8), 0.0, (0, 0), (0, 0), 0.0, 0.0)
CLASS_SCENES = (
    ClassScene("bilayers only, ±60°, -3 dB", _BILAYERS, 60.0, -3.0),
    ClassScene("bilayers only, ±54°, -8 dB", _BILAYERS, 54.0, -8.0),
    ClassScene(
        "vesicles, ±60°, -3 dB",
        Scene(1.0, (12, 16), 0.0, (0, 0), (0.005, 0.01), 1.0, 0.5, shapes=("vesicle",)),
        60.0,
        -3.0,
    ),
    ClassScene(
        "filaments and microtubules, ±60°, -3 dB",
        Scene(1.0, (0, 0), 1.0, (0, 0), (0, 0), 0.0, 0.0, others=("filament",) * 5 + ("microtubule",) * 2),
        60.0,
        -3.0,
    ),
    ClassScene("small proteins, ±60°, -3 dB", Scene(1.0, (0, 0), 0.0, (0.02, 0.04), (0, 0), 1.0, 0.0), 60.0, -3.0),
    ClassScene("mixed, ±60°, 0 dB", Scene(1.0, (2, 4), 1.0, (0.01, 0.02), (0.02, 0.04), 1.0, 1.0), 60.0, 0.0),
)


def class_benchmark(
    network: Network,
    library: tuple[Molecule, ...],
    specimens: int = 2,
    compute: Compute = ON_CPU,
    scenes: Sequence[ClassScene] = CLASS_SCENES,
    shape: tuple[int, int, int] = SHAPE,
    share: float = FBP_SHARE,
) -> Iterator[SceneScores]:
    """Score FBP, FBP with the best Gaussian, SIRT, a network as users get it and the network alone.

    Args:
        network: float32 weights on the CPU.
        library: molecules that it never saw; there are procedural ones beside them.
        specimens: of each scene.
        compute: device and precision of the network.
        scenes: what to score on.
        shape: of the specimens.
        share: of filtered back-projection.

    Yields:
        the scores of each scene. The Gaussian is the one that suits each class and band of each specimen best, which
        no user can choose.
    """
    for number, scene in enumerate(scenes):
        depth, height, width = shape
        geometry, margin = TiltGeometry(scene.angles_deg, (height, width)), sirt_margin_px(depth)
        projector, wide = (make_projector(geometry, (depth, width + 2 * m)) for m in (0, margin))
        tables: list[Table] = []
        shells: dict[str, list[WorstShell]] = {SIRT: [], NETWORK: [], ALONE: []}
        for which in range(specimens):
            density, labels, noisy = draw_series(scene, [SEED, number, which], library, shape)
            rows = torch.from_numpy(noisy)
            back = fbp(projector, rows).numpy()
            alone = reconstruct_array(network, noisy, scene.angles_deg, depth, compute)
            estimates = {
                FBP: back,
                SIRT: SirtMethod(wide, SIRT_ITERATIONS, margin_px=margin)(rows).numpy(),
                NETWORK: finished_array(network, alone, noisy, scene.angles_deg, share, compute),
                ALONE: alone,
            }
            table = class_fidelity(density, estimates, labels, REGIONS)
            smooth = best_gaussian(density, back, region_masks(labels, REGIONS), SIGMAS_PX)
            tables.append({FBP: table.pop(FBP), GAUSSIAN: smooth, **table})
            tilts = range_of(scene.angles_deg)
            plain = truth_fsc(density, back, tilts)
            for method, found in shells.items():
                found.append(worst_shell(truth_fsc(density, estimates[method], tilts), plain))
        worst = {method: worst_of(found) for method, found in shells.items()}
        yield SceneScores(scene.title, mean_table(tables), worst)


def draw_series(
    scene: ClassScene, seed: Sequence[int], library: tuple[Molecule, ...], shape: tuple[int, int, int] = SHAPE
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    """Draw a specimen of a scene and its tilt series.

    Args:
        scene: the kind.
        seed: of all randomness.
        library: molecules to place beside procedural ones.
        shape: of the specimen.

    Returns:
        density ``(z, y, x)``, labels of its voxels, images ``(tilts, y, x)``, mean removed.
    """
    rng = np.random.default_rng(seed)
    density, labels = draw_scene(scene.scene, shape, VOXEL_ANGSTROM, library, rng)
    images = project(Specimen(density, VOXEL_ANGSTROM), scene.angles_deg)
    noisy = add_white_noise(images, scene.snr_db, rng)
    noisy -= noisy.mean(axis=(1, 2), keepdims=True)
    return density, labels, noisy


def mean_table(tables: Sequence[Table]) -> Table:
    """Means over tables, of each class over those tables that have it."""
    found: Table = {}
    for method in tables[0]:
        labels = dict.fromkeys(label for table in tables for label in table[method])
        found[method] = {
            label: _mean([table[method][label] for table in tables if label in table[method]]) for label in labels
        }
    return found


def summary_fidelity(
    truth: NDArray[np.float32], estimate: NDArray[np.float32], labels: NDArray[np.uint8]
) -> dict[str, float]:
    """Mean over the bands for membranes, filaments and proteins; NaN for what is not there."""
    found = class_fidelity(truth, {"": estimate}, labels, SUMMARY)[""]
    return {name: float(np.mean(list(found[name].values()))) if name in found else float("nan") for name in SUMMARY}


def structure_labels(
    labels: NDArray[np.uint16], classes: Sequence[str], library: tuple[Molecule, ...]
) -> NDArray[np.uint8]:
    """The labels of a simulated cell as values of `Structure`; membranes by the direction of their normal.

    Args:
        labels: of the cell, 0 for ice and ``i + 1`` for ``classes[i]``, shape ``(z, y, x)``.
        classes: names of things and molecules.
        library: the molecules, by which small ones are told from large.
    """
    known = {molecule.name: protein_class(molecule) for molecule in library} | _OF_CELLS
    values = np.array([Structure.ICE, *(known.get(name, Structure.LARGE_PROTEIN) for name in classes)], dtype=np.uint8)
    found: NDArray[np.uint8] = values[labels]
    inside = found == Structure.MEMBRANE_OBLIQUE
    if inside.any():
        found[inside] = membrane_classes(sheet_normals(inside))
    return found


_OF_CELLS = {
    "membrane": Structure.MEMBRANE_OBLIQUE,
    "actin": Structure.FILAMENT,
    "nucleic acid": Structure.FILAMENT,
    "microtubule": Structure.MICROTUBULE,
    "gold": Structure.GOLD,
    "carbon": Structure.BODY,
    "ice crystal": Structure.CRYSTAL,
}


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {band: float(np.mean([row[band] for row in rows])) for band in rows[0]}
