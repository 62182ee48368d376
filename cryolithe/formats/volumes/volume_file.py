"""Volumes in any of the files that hold them, read plane by plane: MRC, TIFF, folders of TIFF, OME-Zarr.

The one door of every command that takes a volume.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.formats.files import PathLike
from cryolithe.formats.record import part_of, read_record_beside
from cryolithe.formats.stacks.mrc import read_mrc
from cryolithe.formats.volumes.axes import TURNED, Axes, turned
from cryolithe.formats.volumes.ome_zarr_reader import is_ome_zarr, open_ome_zarr
from cryolithe.formats.volumes.tiff import ENDINGS, read_planes, read_tiff, tiff_files
from cryolithe.formats.volumes.volume_kind import Seen, Told, axes_of, refuse_map, volume_or_stack
from cryolithe.volume import Volume

Kind = Literal["mrc", "tiff", "sequence", "ome-zarr"]
_VOLUME = Told("volume", "nothing speaks against it")
IS_VOLUME = "--is-volume"
# What serves where there is no such option: its ending says that a file is a volume.
NAMED_REC = "a copy whose name ends in .rec"
# What `cryolithe reconstruct` writes into the headers of volumes of its networks.
NETWORK_LABEL = re.compile(r"CryoLithe \S+ model ")
_T = TypeVar("_T")
_KEPT_PLANES = 64  # of a sequence, whose files are read whole


@dataclass(frozen=True)
class VolumeFile:
    """A volume on disk.

    Attributes:
        path: file or folder.
        kind: how it is stored.
        shape: voxels ``(z, y, x)``, or in the order of ``axes``.
        dtype: of the values, in the machine's byte order.
        read: plane by its number, as stored.
        told: whether it is a volume at all, or a stack of images.
        whole: all planes at once, where that is another way than one by one.
        voxel_sizes_angstrom: along ``(z, y, x)``, 0 where nobody knows.
        origin_angstrom: position ``(z, y, x)`` of the first voxel.
        notes: what was forgiven, in words.
        labels: texts of the header.
        names: of the files of a sequence.
        axes: in which order they are stored: ``zyx``, or ``yzx`` as of ``--orientation xzy``; see `upright`.
        incomplete: what of it is not stored and read as a fill value, in words; it is among the notes, too.
    """

    path: Path
    kind: Kind
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    read: Callable[[int], NDArray[Any]]
    told: Told = _VOLUME
    whole: Callable[[], NDArray[Any]] | None = None
    voxel_sizes_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)
    origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    axes: Axes = "zyx"
    incomplete: str = ""

    @property
    def of_network(self) -> bool:
        """Whether a network made it, as far as its labels and its record tell."""
        named = part_of(read_record_beside(self.path), "method").get("name") == "network"
        return named or any(NETWORK_LABEL.match(label) for label in self.labels)

    def voxels(self) -> NDArray[Any]:
        """All voxels, shape ``(z, y, x)`` or as stored, read-only; on the disk where the file allows it."""
        return self.whole() if self.whole else np.stack([self.read(z) for z in range(self.shape[0])])

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Edge of a voxel along x, or None."""
        return self.voxel_sizes_angstrom[2] or None


def open_volume_file(path: Path) -> VolumeFile:
    """Open a volume: an OME-Zarr image, a folder of TIFF files, a TIFF file, or an MRC file of any name.

    What it turns out to be is in ``told``: whoever needs a volume asks there.

    Raises:
        InputError: if it is not usable.
    """
    if is_ome_zarr(path):
        return _zarr_file(path)
    if path.is_dir():
        files = tiff_files(path)
        read, plane, dtype, size = read_planes(files)
        shape = (len(files), *plane)
        read = lru_cache(maxsize=_KEPT_PLANES)(read)
        told = Told("volume", "a folder holds the planes of a volume")
        names = tuple(file.name for file in files)
        return VolumeFile(
            path, "sequence", shape, dtype.newbyteorder("="), read, told, None, (size or 0.0,) * 3, names=names
        )
    if path.suffix.lower() in ENDINGS:
        planes, size = read_tiff(path)
        shape = (planes.shape[0], planes.shape[1], planes.shape[2])
        told = volume_or_stack(Seen(path, shape))
        told = Told("volume", "a TIFF file of planes") if told.content == "unknown" else told
        dtype, sizes = planes.dtype.newbyteorder("="), (size or 0.0,) * 3
        return VolumeFile(path, "tiff", shape, dtype, lambda z: planes[z], told, lambda: planes, sizes)
    mrc = read_mrc(path)
    data = mrc.data
    if data.ndim != 3:
        raise InputError(f"{path} has {data.ndim} axes; expected a volume (z, y, x)")
    shape = (data.shape[0], data.shape[1], data.shape[2])
    return VolumeFile(
        path=path,
        kind="mrc",
        shape=shape,
        dtype=data.dtype.newbyteorder("="),
        read=lambda z: data[z],
        told=volume_or_stack(Seen(path, shape, mrc.ispg, mrc.mz, mrc.labels)),
        whole=lambda: data,
        voxel_sizes_angstrom=mrc.voxel_sizes_angstrom,
        origin_angstrom=mrc.origin_angstrom,
        notes=mrc.notes,
        labels=mrc.labels,
        axes=axes_of(path, shape, mrc.extremes),
    )


def upright(found: VolumeFile) -> VolumeFile:
    """The volume with its axes in the order z, y, x, whatever that in its file is."""
    if found.axes == "zyx":
        return found
    voxels = cache(lambda: turned(found.voxels()))
    return replace(
        found,
        shape=_swapped(found.shape),
        read=lambda z: voxels()[z],
        whole=voxels,
        voxel_sizes_angstrom=_swapped(found.voxel_sizes_angstrom),
        origin_angstrom=_swapped(found.origin_angstrom),
        notes=(*found.notes, TURNED.format(found.path)),
        axes="zyx",
    )


def refuse_stack(found: VolumeFile, otherwise: str = NAMED_REC) -> None:
    """Refuse a stack of images where a volume is wanted.

    Args:
        found: the file.
        otherwise: what to give if it is a volume all the same: `IS_VOLUME` where there is the option.

    Raises:
        InputError: says what to give.
    """
    if found.told.content == "stack":
        raise InputError(
            f"{found.path} is a stack of tilt images, not a volume: {found.told.reason}; give the reconstruction, or "
            f"{otherwise} if its sections are the z planes of a volume"
        )


def open_unturned(path: Path, is_volume: bool) -> VolumeFile:
    """Open a volume whose sections are planes of z, for what writes a volume like it beside it.

    Args:
        path: as `open_volume_file` takes it.
        is_volume: take what seems to be a stack of images for one.

    Raises:
        InputError: if it is not usable, a stack of images, a map of trust, or its axes are in another order.
    """
    found = open_volume_file(path)
    if not is_volume:
        refuse_stack(found, IS_VOLUME)
    refuse_map(path, found.labels)
    if found.axes != "zyx":
        raise InputError(
            f"{found.path} was written with --orientation xzy, so that its sections are no planes of z, as expected; "
            "reconstruct with --orientation xyz, denoise that, and turn the result by 90° about x"
        )
    return found


def read_volume(path: PathLike, is_volume: bool = False) -> Volume:
    """Read a volume, shape ``(z, y, x)``; the voxels stay on disk until they are used, where the file allows it.

    A file that does not say whether it is a volume is taken for one: a caller that can ask or tell uses
    `open_volume_file`.

    Args:
        path: MRC or TIFF file, folder of TIFF files, or OME-Zarr image.
        is_volume: take it for one whatever else is known.

    Raises:
        InputError: if the file is not usable (see `read_mrc`), or a stack of images.
    """
    found = open_volume_file(Path(path))
    if not is_volume:
        refuse_stack(found)
    found = upright(found)
    return Volume(found.voxels(), found.voxel_size_angstrom, found.origin_angstrom)


def _swapped(values: tuple[_T, _T, _T]) -> tuple[_T, _T, _T]:
    return values[1], values[0], values[2]


def _zarr_file(path: Path) -> VolumeFile:
    image = open_ome_zarr(path)
    voxels = cache(image.unpacked)
    told = Told("volume", "an OME-Zarr image")
    return VolumeFile(
        path, "ome-zarr", image.shape, image.dtype, lambda z: voxels()[z], told, voxels, image.voxel_sizes_angstrom,
        image.origin_angstrom, image.notes, incomplete=image.incomplete,
    )  # fmt: skip
