"""The classes of structure that voxels of specimens are labelled with, named once."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from cryolithe.simulation.molecules import Molecule

SMALL_KDA = 100.0
ALONG_AXIS = 0.8  # cosine from which on a normal counts to an axis: within 37 degrees
# A map of level 1 inside has soft edges: 0.58 Da for each Å³ of its integral gives the masses of crystal structures of
# 30 kDa to 2.6 MDa within a fifth (protein itself: 0.81 Da/Å³).
DALTON_PER_ANGSTROM3 = 0.58


class Structure(IntEnum):
    """What a voxel belongs to: a value of `Specimen.labels`.

    Membranes are told apart by the axis that their normal lies along, as a missing wedge treats them differently.
    """

    ICE = 0
    MEMBRANE_Z = 1
    MEMBRANE_Y = 2
    MEMBRANE_X = 3
    MEMBRANE_OBLIQUE = 4
    FILAMENT = 5
    MICROTUBULE = 6
    SMALL_PROTEIN = 7
    LARGE_PROTEIN = 8
    GOLD = 9
    CRYSTAL = 10
    BODY = 11


MEMBRANES = (Structure.MEMBRANE_Z, Structure.MEMBRANE_Y, Structure.MEMBRANE_X, Structure.MEMBRANE_OBLIQUE)
FILAMENTS = (Structure.FILAMENT, Structure.MICROTUBULE)
PROTEINS = (Structure.SMALL_PROTEIN, Structure.LARGE_PROTEIN)


def mass_kda(molecule: Molecule) -> float:
    """Mass of a molecule by the integral of its density."""
    return float(molecule.density.sum()) * molecule.voxel_size_angstrom**3 * DALTON_PER_ANGSTROM3 / 1000


def protein_class(molecule: Molecule) -> Structure:
    """Whether a molecule is small or large."""
    return Structure.SMALL_PROTEIN if mass_kda(molecule) < SMALL_KDA else Structure.LARGE_PROTEIN


def membrane_classes(normals: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Classes of membrane by normals ``(n, 3)`` in z, y, x of any length, ``(n,)``."""
    length = np.linalg.norm(normals, axis=1)
    cosines = np.abs(normals) / np.maximum(length, 1e-12)[:, None]
    axis = cosines.argmax(axis=1)
    along = cosines.max(axis=1) >= ALONG_AXIS
    return np.where(along, int(Structure.MEMBRANE_Z) + axis, int(Structure.MEMBRANE_OBLIQUE)).astype(np.uint8)
