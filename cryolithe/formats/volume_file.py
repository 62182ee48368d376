"""Volumes in any of the files that hold them, read plane by plane: MRC, TIFF, folders of TIFF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.formats.mrc import read_mrc
from cryolithe.formats.tiff import ENDINGS, read_planes, read_tiff, tiff_files

Kind = Literal["mrc", "tiff", "sequence"]
_KEPT_PLANES = 64  # of a sequence, whose files are read whole


@dataclass(frozen=True)
class VolumeFile:
    """A volume on disk.

    Attributes:
        path: file or folder.
        kind: how it is stored.
        shape: voxels ``(z, y, x)``.
        dtype: of the values, in the machine's byte order.
        read: plane z, shape ``(y, x)``, as stored.
        voxel_sizes_angstrom: along ``(z, y, x)``, 0 where nobody knows.
        origin_angstrom: position ``(z, y, x)`` of the first voxel.
        maybe_stack: whether it may as well be a stack of images: the file does not say that it is a volume.
        notes: what was forgiven, in words.
        labels: texts of the header.
        names: of the files of a sequence.
    """

    path: Path
    kind: Kind
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[int], NDArray[Any]]
    voxel_sizes_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)
    maybe_stack: bool = False
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Edge of a voxel along x, or None."""
        return self.voxel_sizes_angstrom[2] or None


def open_volume_file(path: Path) -> VolumeFile:
    """Open a volume: a folder of TIFF files, a TIFF file, or an MRC file of any name.

    Raises:
        InputError: if it is not usable.
    """
    if path.is_dir():
        files = tiff_files(path)
        read, plane, dtype, size = read_planes(files)
        sizes = (size or 0.0,) * 3
        names = tuple(file.name for file in files)
        read = lru_cache(maxsize=_KEPT_PLANES)(read)
        return VolumeFile(path, "sequence", (len(files), *plane), dtype.newbyteorder("="), read, sizes, names=names)
    if path.suffix.lower() in ENDINGS:
        planes, size = read_tiff(path)
        shape = (planes.shape[0], planes.shape[1], planes.shape[2])
        dtype = planes.dtype.newbyteorder("=")
        return VolumeFile(path, "tiff", shape, dtype, lambda z: planes[z], (size or 0.0,) * 3)
    mrc = read_mrc(path)
    data = mrc.data
    if data.ndim != 3:
        raise InputError(f"{path} has {data.ndim} axes; expected a volume (z, y, x)")
    return VolumeFile(
        path=path,
        kind="mrc",
        shape=(data.shape[0], data.shape[1], data.shape[2]),
        dtype=data.dtype.newbyteorder("="),
        read=lambda z: data[z],
        voxel_sizes_angstrom=mrc.voxel_sizes_angstrom,
        origin_angstrom=mrc.origin_angstrom,
        # IMOD writes space group 0 into stacks and volumes alike.
        maybe_stack=mrc.ispg == 0 and path.suffix.lower() not in (".rec", ".map"),
        notes=mrc.notes,
        labels=mrc.labels,
    )
