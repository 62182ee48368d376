"""The molecules of a recipe, from whatever files hold them."""

from __future__ import annotations

from pathlib import Path

from cryolithe.simulation.molecules import Molecule, load_molecules, select_molecules
from cryolithe.simulation.structures import molecule_from_structure

STRUCTURE_ENDINGS = (".pdb", ".ent", ".cif", ".mmcif")
# Structures are rasterised finer than any specimen, and resampled when they are placed.
STRUCTURE_VOXEL_ANGSTROM = 4.0


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
