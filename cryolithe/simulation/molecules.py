"""Libraries of molecules from HDF5 or MRC density maps.

A molecule is a density on a cubic grid, zero in solvent, positive where denser, scaled so that the 90th percentile of
its inside, averaged over about 10 Å, is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError, InputError, shown
from cryolithe.files.names import exists, is_folder
from cryolithe.formats import read_volume
from cryolithe.formats.hdf5_file import open_hdf5
from cryolithe.formats.pairs import StoredArray

_LEVEL_ANGSTROM = 10.0
_VOXELS_ANGSTROM = (0.1, 1000.0)
MAP_ENDINGS = (".mrc", ".map", ".ccp4")
PROCEDURAL_1 = "procedural_1"  # the library that comes with the program


@dataclass(frozen=True)
class Molecule:
    """A density to be placed in specimens.

    Attributes:
        name: how it is called in manifests.
        density: shape ``(z, y, x)``, float32.
        voxel_size_angstrom: edge of its voxels.
    """

    name: str
    density: NDArray[np.float32]
    voxel_size_angstrom: float


def load_molecules(path: Path) -> tuple[Molecule, ...]:
    """Read a library: an HDF5 file with one dataset per molecule, one MRC map, or a folder of MRC maps.

    HDF5 datasets are ``(z, y, x)`` with the attribute ``voxel_size_angstrom``.

    Raises:
        InputError: if there is nothing of the kind at ``path``.
        FileFormatError: if a dataset is not a density map with a voxel size.
    """
    if not exists(path):
        raise InputError(
            f"molecule library {path} does not exist; give an HDF5 file, an MRC map, a folder of them, or "
            f"{PROCEDURAL_1}, which comes with the program"
        )
    if is_folder(path) or path.suffix.lower() in MAP_ENDINGS:
        molecules = tuple(_from_map(p) for p in library_files(path))
    else:
        molecules = _from_hdf5(path)
    if not molecules:
        raise InputError(f"molecule library {path} holds no density map")
    return molecules


def library_files(path: Path) -> list[Path]:
    """The files of a library: itself, or the maps in a folder."""
    return sorted(p for p in path.iterdir() if p.suffix.lower() in MAP_ENDINGS) if is_folder(path) else [path]


def select_molecules(molecules: tuple[Molecule, ...], without: tuple[str, ...]) -> tuple[Molecule, ...]:
    """Leave out molecules by name.

    Raises:
        InputError: if a name is not in the library (a held-out molecule that is misspelt would be trained on) or
            nothing is left.
    """
    names = {molecule.name for molecule in molecules}
    for name in without:
        if name not in names:
            raise InputError(
                f"molecule '{name}' is to be left out but is not in the library ({', '.join(sorted(names))})"
            )
    kept = tuple(molecule for molecule in molecules if molecule.name not in without)
    if not kept:
        raise InputError("every molecule of the library is left out; leave some in")
    return kept


def normalised(density: NDArray[np.floating], voxel_size_angstrom: float) -> NDArray[np.float32]:
    """Clip below zero and scale so that, averaged over about 10 Å, the 90th percentile of the inside is 1.

    The finer a map, the higher its peaks: without the averaging, maps of one molecule at several voxel sizes would get
    different masses.
    """
    density = np.clip(np.nan_to_num(density), 0, None).astype(np.float32)
    size = max(1, round(_LEVEL_ANGSTROM / voxel_size_angstrom)) if math.isfinite(voxel_size_angstrom) else 1
    smooth = scipy.ndimage.uniform_filter(density, size, mode="constant") if size > 1 and density.size else density
    inside = smooth[smooth > 0.05 * smooth.max()] if smooth.max(initial=0.0) > 0 else smooth
    level = float(np.percentile(inside, 90)) if inside.size else 0.0
    return density / level if level > 0 else density


def _checked(name: str, density: NDArray[Any], voxel_size_angstrom: Any, source: Path) -> Molecule:
    """A molecule from what a file says, or FileFormatError."""
    try:
        voxel = float(voxel_size_angstrom)
        raw = np.asarray(density, dtype=np.float32)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise FileFormatError(f"'{name}' in {source} is no density map of numbers: {error}") from error
    least, most = _VOXELS_ANGSTROM
    if not least <= voxel <= most:
        raise FileFormatError(
            f"'{name}' in {source} needs a positive voxel size of {least:g} to {most:g} Å, "
            f"got {shown(voxel_size_angstrom)}"
        )
    if raw.ndim != 3 or not raw.max(initial=0.0) > 0:
        raise FileFormatError(f"'{name}' in {source} must be a (z, y, x) map with positive density, denser = higher")
    values = normalised(raw, voxel)
    return Molecule(name, values, voxel)


def _from_hdf5(path: Path) -> tuple[Molecule, ...]:
    molecules = []
    try:
        with open_hdf5(path) as file:
            for name in file:
                item = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
                if not isinstance(item, h5py.Dataset) or item.ndim != 3 or "voxel_size_angstrom" not in item.attrs:
                    raise FileFormatError(
                        f"'{name}' in {path} is not a (z, y, x) dataset with the attribute voxel_size_angstrom"
                    )
                molecules.append(
                    _checked(name, StoredArray(item, path, name)[()], item.attrs["voxel_size_angstrom"], path)
                )
    # What is damaged inside HDF5 shows as any of these.
    except (OSError, RuntimeError, KeyError, ValueError, ArithmeticError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path} cannot be read as an HDF5 molecule library: {error}") from error
    return tuple(molecules)


def _from_map(path: Path) -> Molecule:
    volume = read_volume(path, is_volume=True)
    if volume.voxel_size_angstrom is None:
        raise FileFormatError(f"molecule map {path} has no voxel size in its header; set it before use")
    return _checked(path.stem, volume.voxels, volume.voxel_size_angstrom, path)


def resampled(molecule: Molecule, rotation: NDArray[np.float64], voxel_size_angstrom: float) -> NDArray[np.float32]:
    """A molecule rotated about its middle and brought to another voxel size, by cubic interpolation.

    Args:
        molecule: what to place.
        rotation: rotation matrix acting on ``(z, y, x)``.
        voxel_size_angstrom: voxel size wanted.

    Returns:
        cubic box of odd size, float32, never negative.
    """
    zoom = molecule.voxel_size_angstrom / voxel_size_angstrom
    half = int(np.ceil(0.5 * zoom * np.linalg.norm(molecule.density.shape))) + 1
    size = 2 * half + 1
    matrix = rotation.T / zoom
    offset = (np.array(molecule.density.shape) - 1) / 2 - matrix @ np.full(3, half)
    box = scipy.ndimage.affine_transform(molecule.density, matrix, offset, (size,) * 3, order=3, mode="constant")
    used = np.argwhere(box > 0.02)
    if used.size == 0:
        return np.clip(box, 0, None).astype(np.float32)
    reach = int(np.abs(used - half).max())
    inner = slice(half - reach, half + reach + 1)
    return np.clip(box[inner, inner, inner], 0, None).astype(np.float32)
