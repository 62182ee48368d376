"""Molecules from atomic models: PDB and mmCIF files to electrostatic-type densities.

Every atom is a sum of Gaussians, the electron scattering factors of the International Tables (volume C, table 4.3.2.2)
as gemmi holds them, f(s) = sum a_i exp(-b_i s²/4) with s in 1/Å, blurred further by a B-factor. Hydrogens count where
the file has them; the ice that a molecule displaces is not subtracted, which at resolutions of simulated tomograms
is a change of scale that the normalisation takes away.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError, InputError, SettingsError
from cryolithe.files.names import is_file
from cryolithe.simulation.molecules import Molecule, normalised

STRUCTURE_ENDINGS = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz")
_FINE_ANGSTROM = 2.0  # atoms are drawn on a grid at least this fine, then averaged over voxels
# A stray position in a damaged file must not make a box that fills the memory; hollow capsids have 400 Å³ per atom.
_MOST_PER_ATOM_ANGSTROM3, _ALWAYS_ANGSTROM = 1e5, 300.0
_FARTHEST_ANGSTROM = 1e6  # from the origin: PDB's columns end at 1e4, and beyond this digits of an Å are lost
_LARGEST_FINE_GRID = 500  # points along an edge, beyond which the fine grid gets coarser


def molecule_from_structure(path: Path, voxel_size_angstrom: float, b_factor_angstrom2: float = 50.0) -> Molecule:
    """The electrostatic-type density of the first model of a PDB or mmCIF file, which may be gzipped.

    Waters are left out. A voxel holds the mean over its cube; the middle of the atoms' bounding box is the middle of
    the array, and the orientation is the file's.

    Args:
        path: a file ending on one of ``STRUCTURE_ENDINGS``.
        voxel_size_angstrom: edge of a voxel.
        b_factor_angstrom2: blur of all atoms on top of their scattering factors, exp(-B s²/4).

    Returns:
        a molecule named like the file, scaled as `cryolithe.simulation.molecules.normalised` does.

    Raises:
        SettingsError: if the voxel size is not positive or the B-factor is negative.
        InputError: if there is no such file.
        FileFormatError: if it cannot be read as a structure, or holds no atoms beside water.
    """
    if not 0 < voxel_size_angstrom < math.inf:
        raise SettingsError(f"the voxel size must be a positive number of Å, got {voxel_size_angstrom}")
    if not 0 <= b_factor_angstrom2 < math.inf:
        raise SettingsError(f"the B-factor must be 0 or a positive number of Å², got {b_factor_angstrom2}")
    elements, positions, occupancies = _atoms(path)
    if (farthest := float(np.abs(positions).max())) > _FARTHEST_ANGSTROM:
        raise FileFormatError(
            f"{path}: an atom lies {farthest:.2g} Å from the origin, expected at most {_FARTHEST_ANGSTROM:.0e}; look "
            "for a stray position"
        )
    volume = float(np.prod(np.ptp(positions, axis=0) + 20.0))
    if volume > max(_ALWAYS_ANGSTROM**3, _MOST_PER_ATOM_ANGSTROM3 * len(positions)):
        raise FileFormatError(
            f"{path}: its {len(positions)} atoms lie in a box of {volume:.2g} Å³, too large for a molecule; look for a "
            "stray position"
        )
    density = _rasterised(elements, positions, occupancies, voxel_size_angstrom, b_factor_angstrom2)
    name = path.name
    for ending in sorted(STRUCTURE_ENDINGS, key=len, reverse=True):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return Molecule(name, normalised(density, voxel_size_angstrom), float(voxel_size_angstrom))


def _atoms(path: Path) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
    """Element names, positions ``(atoms, 3)`` as z, y, x in Å, and occupancies of the first model without waters."""
    import gemmi

    if not is_file(path):
        raise InputError(f"structure file {path} does not exist; give a PDB or mmCIF file")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        reason = str(error).strip().splitlines() or ["unknown reason"]
        raise FileFormatError(f"{path} cannot be read as a PDB or mmCIF structure: {reason[0]}") from error
    if len(structure) > 0:
        structure.setup_entities()
        structure.remove_waters()
    atoms = [site.atom for site in structure[0].all()] if len(structure) > 0 else []
    atoms = [a for a in atoms if a.occ > 0 and a.element.name != "X" and all(map(math.isfinite, a.pos.tolist()))]
    if not atoms:
        raise FileFormatError(f"{path} holds no atoms (waters aside); expected a PDB or mmCIF structure with a model")
    positions = np.array([a.pos.tolist()[::-1] for a in atoms])
    return np.array([a.element.name for a in atoms]), positions, np.array([a.occ for a in atoms])


def _rasterised(
    elements: NDArray[Any],
    positions: NDArray[np.float64],
    occupancies: NDArray[np.float64],
    voxel: float,
    b_factor: float,
) -> NDArray[np.float64]:
    """Scattering density ``(z, y, x)`` as means over voxels: atoms on a fine grid, their shapes by FFT."""
    import gemmi

    low, high = positions.min(axis=0), positions.max(axis=0)
    pad = 6.0 + 3.0 * math.sqrt(b_factor / (8 * math.pi**2)) + voxel
    shape = np.ceil((high - low + 2 * pad) / voxel).astype(int)
    shape += 1 - shape % 2  # odd, so that the middle of the molecule is the middle of a voxel
    factor = max(1, math.ceil(voxel / _FINE_ANGSTROM))
    while factor > 1 and factor * shape.max() > _LARGEST_FINE_GRID:
        factor -= 1
    step = voxel / factor
    fine = tuple(int(n) * factor for n in shape)
    # Fine points are the middles of cells, so that blocks of them are the voxels.
    places = (positions - (low + high) / 2) / step + (np.array(fine) - 1) / 2
    axes = [scipy.fft.fftfreq(fine[0], step), scipy.fft.fftfreq(fine[1], step), scipy.fft.rfftfreq(fine[2], step)]
    grids = np.meshgrid(*axes, indexing="ij", sparse=True)
    s2 = (grids[0] ** 2 + grids[1] ** 2 + grids[2] ** 2).astype(np.float32)
    spectrum = np.zeros(s2.shape, dtype=np.complex64)
    for element in sorted(set(elements.tolist())):
        chosen = elements == element
        coefficients = gemmi.Element(element).c4322
        if coefficients is None:
            coefficients = gemmi.Element("C").c4322
        shape_of_atom = np.zeros_like(s2)
        for a, b in zip(coefficients.a, coefficients.b, strict=True):
            shape_of_atom += np.float32(a) * np.exp(np.float32(-(b + b_factor) / 4) * s2)
        points = _splatted(places[chosen], occupancies[chosen], fine)
        spectrum += scipy.fft.rfftn(points) * shape_of_atom
    # Sharing an atom between the 8 nearest points is a convolution with a triangle along each axis: undo it.
    for grid in grids:
        spectrum /= (np.sinc(grid * step) ** 2).astype(np.float32)
    density = scipy.fft.irfftn(spectrum, fine) / step**3
    blocks = (int(shape[0]), factor, int(shape[1]), factor, int(shape[2]), factor)
    return np.asarray(density.reshape(blocks).mean(axis=(1, 3, 5)), dtype=np.float64)


def _splatted(places: NDArray[np.float64], weights: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Weights shared between the 8 grid points around each place (given in grid points)."""
    floor = np.floor(places).astype(np.int64)
    part = places - floor
    total = np.zeros(math.prod(shape))
    for corner in np.ndindex(2, 2, 2):
        share = np.where(np.array(corner) == 1, part, 1 - part).prod(axis=1) * weights
        index = np.ravel_multi_index(tuple((floor + corner).T), shape)
        total += np.bincount(index, share, minlength=total.size)
    return total.reshape(shape).astype(np.float32)
