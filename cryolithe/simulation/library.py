"""The molecules of a recipe, from whatever files hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryolithe.simulation.crowd import check_fits, fits
from cryolithe.simulation.molecules import PROCEDURAL_1, Molecule, load_molecules, select_molecules
from cryolithe.simulation.procedural import procedural_library
from cryolithe.simulation.recipe import Recipe
from cryolithe.simulation.shipped_molecules import molecules_beside, procedural_1, shipped_molecules
from cryolithe.simulation.structures import molecule_from_structure

STRUCTURE_ENDINGS = (".pdb", ".ent", ".cif", ".mmcif")
# Structures are rasterised finer than any specimen, and resampled when they are placed.
STRUCTURE_VOXEL_ANGSTROM = 4.0
_PROCEDURAL_BY_DEFAULT = 16


def load_library(paths: tuple[Path, ...], hold_out: tuple[str, ...] = ()) -> tuple[Molecule, ...]:
    """Read structures (PDB, mmCIF, also gzipped), MRC maps, folders of maps and HDF5 libraries into one library.

    Args:
        paths: files and folders, or names of shipped libraries; none gives an empty library.
        hold_out: names to leave out.

    Raises:
        InputError: if a file is missing or a name to hold out is not in the library.
        FileFormatError: if a file is not what its ending says.
    """
    molecules: list[Molecule] = []
    for path in paths:
        if (shipped := shipped_molecules(path)) is not None:
            molecules += shipped
        elif path.name.lower().removesuffix(".gz").endswith(STRUCTURE_ENDINGS):
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


def recipe_files(recipe: Recipe, folder: Path, given: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """The files of a recipe's molecules, or those given instead.

    Args:
        recipe: that names some, or none.
        folder: that its paths are relative to.
        given: files that replace them.
    """
    return given or tuple(molecules_beside(folder, name) for name in recipe.molecules)


def with_molecules(
    recipe: Recipe, folder: Path, given: tuple[Path, ...] = ()
) -> tuple[Recipe, tuple[Molecule, ...], str | None]:
    """A recipe with its molecules: those of `procedural_1` where nobody names any or asks for a number.

    Args:
        recipe: of a simulation.
        folder: that its paths are relative to.
        given: files that replace those of the recipe.

    Returns:
        the recipe that says so, the molecules, and a note where they are those of `procedural_1` by default.

    Raises:
        InputError, FileFormatError: see ``load_library``.
        SettingsError: if a molecule does not fit into the field.
    """
    files, note = recipe_files(recipe, folder, given), None
    if not files and recipe.procedural is None:
        names = {molecule.name for molecule in procedural_1()}
        # Nobody asked for these: those too large for the field stay away.
        large = [molecule.name for molecule in procedural_1() if not fits(recipe.cell, molecule)]
        kept = [name for name in recipe.hold_out if name in names and name not in large]
        without = (*kept, *(large if len(large) < len(names) else ()))
        recipe = recipe.model_copy(update={"molecules": (PROCEDURAL_1,), "hold_out": without})
        files = (Path(PROCEDURAL_1),)
        but = f", without {', '.join(without)}" if without else ""
        note = f"no molecules were given: those of {PROCEDURAL_1}, which comes with the program, are placed{but}"
    library = recipe_library(recipe, files)
    check_fits(recipe.cell, library)
    return recipe, library, note


def plain_library(files: tuple[Path, ...]) -> tuple[tuple[Molecule, ...], str]:
    """The molecules of a series without a recipe, `procedural_1` where no files are given; and what to call them."""
    return load_library(files or (Path(PROCEDURAL_1),)), ", ".join(path.name for path in files) or PROCEDURAL_1
