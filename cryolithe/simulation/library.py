"""The molecules of a recipe, from whatever files hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryolithe.simulation.molecules import Molecule, load_molecules, select_molecules
from cryolithe.simulation.procedural import procedural_library
from cryolithe.simulation.recipe import Recipe
from cryolithe.simulation.structures import molecule_from_structure

STRUCTURE_ENDINGS = (".pdb", ".ent", ".cif", ".mmcif")
# Structures are rasterised finer than any specimen, and resampled when they are placed.
STRUCTURE_VOXEL_ANGSTROM = 4.0
_PROCEDURAL_BY_DEFAULT = 16


def load_library(paths: tuple[Path, ...], hold_out: tuple[str, ...] = ()) -> tuple[Molecule, ...]:
    """Read structures (PDB, mmCIF, also gzipped), MRC maps, folders of maps and HDF5 libraries into one library.

    Args:
        paths: files and folders; none gives an empty library.
        hold_out: names to leave out.

    Raises:
        InputError: if a file is missing or a name to hold out is not in the library.
        FileFormatError: if a file is not what its ending says.
    """
    molecules: list[Molecule] = []
    for path in paths:
        if path.name.lower().removesuffix(".gz").endswith(STRUCTURE_ENDINGS):
            molecules.append(molecule_from_structure(path, STRUCTURE_VOXEL_ANGSTROM))
        else:
            molecules += load_molecules(path)
    return select_molecules(tuple(molecules), hold_out) if molecules else ()


def recipe_library(recipe: Recipe, paths: tuple[Path, ...]) -> tuple[Molecule, ...]:
    """The molecules of a recipe: those of the files given, and procedural ones as it asks for.

    Raises:
        InputError, FileFormatError: see ``load_library``.
    """
    library = load_library(paths, recipe.hold_out)
    number = recipe.procedural
    if number is None:
        number = 0 if paths else _PROCEDURAL_BY_DEFAULT
    return library + procedural_library(number, np.random.default_rng([recipe.seed, 0]))
