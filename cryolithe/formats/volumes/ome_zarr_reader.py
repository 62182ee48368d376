"""Volumes from OME-Zarr, versions 0.1 to 0.5 (https://ngff.openmicroscopy.org), through zarr.

The finest level is read, in ``(z, y, x)`` whatever order the axes have, with its voxel sizes in Å.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError, InputError, ResourceError, shown
from cryolithe.formats.files import unreadable
from cryolithe.formats.sizes import size_told
from cryolithe.formats.volumes.zarr_chunks import missing_chunks
from cryolithe.machine.extras import install_command

# Of a level of a pyramid, a group, or an array: what the two versions of zarr put into a folder.
MARKS = (".zattrs", ".zgroup", ".zarray", "zarr.json")
_AXES = ("z", "y", "x")
_ANGSTROM = {
    "angstrom": 1.0, "ångström": 1.0, "å": 1.0, "a": 1.0, "picometer": 0.01, "pm": 0.01, "nanometer": 10.0, "nm": 10.0,
    "micrometer": 1e4, "micron": 1e4, "um": 1e4, "µm": 1e4, "μm": 1e4, "millimeter": 1e7, "mm": 1e7,
}  # fmt: skip
# Volumes up to this size are unpacked in memory, larger ones into a temporary file.
IN_MEMORY_BYTES = 256_000_000
_BLOCK_BYTES = 64_000_000


@dataclass(frozen=True)
class ZarrImage:
    """The finest level of an image.

    Attributes:
        path: the folder.
        array: zarr's array, axes as stored.
        order: of its axes, those that are z, y, x; the others have one entry.
        voxel_sizes_angstrom: along ``(z, y, x)``, 0 where nobody knows.
        origin_angstrom: position ``(z, y, x)`` of the first voxel.
        levels: of the pyramid.
        notes: what was assumed, in words.
        incomplete: what of it is not stored, in words; empty where it is all there.
    """

    path: Path
    array: Any
    order: tuple[int, int, int]
    voxel_sizes_angstrom: tuple[float, float, float]
    origin_angstrom: tuple[float, float, float]
    levels: int
    notes: tuple[str, ...]
    incomplete: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels ``(z, y, x)``."""
        z, y, x = (int(self.array.shape[axis]) for axis in self.order)
        return (z, y, x)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values, in the machine's byte order."""
        return np.dtype(self.array.dtype).newbyteorder("=")

    def block(self, z: slice, y: slice) -> NDArray[Any]:
        """Voxels ``[z, y, :]`` in ``(z, y, x)``, in the machine's byte order.

        Raises:
            FileFormatError: if the file is damaged.
        """
        place: list[Any] = [0] * self.array.ndim
        place[self.order[0]], place[self.order[1]], place[self.order[2]] = z, y, slice(None)
        try:
            values = np.asarray(self.array[tuple(place)])
        except Exception as error:  # codecs raise whatever they stumble over
            raise FileFormatError(f"{self.path} is damaged: {' '.join(str(error).split())[:200]}") from error
        kept = sorted(self.order)
        return np.ascontiguousarray(values.transpose([kept.index(axis) for axis in self.order]), dtype=self.dtype)

    def unpacked(self) -> NDArray[Any]:
        """All voxels: in memory, or, where they are many, in a temporary file that goes away with the process.

        Raises:
            ResourceError: if the folder of temporary files has too little room.
            FileFormatError: if a chunk is damaged.
        """
        needed = math.prod(self.shape) * self.dtype.itemsize
        if needed <= IN_MEMORY_BYTES:
            values = np.empty(self.shape, self.dtype)
            for z, y in self._blocks():
                values[z, y] = self.block(z, y)
            values.flags.writeable = False
            return values
        return self._on_disk(needed)

    def _on_disk(self, needed: int) -> NDArray[Any]:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise ResourceError(
                f"{self.path} holds {size_told(needed)} of voxels, which are unpacked into {folder}, where "
                f"{size_told(free)} are free; set TMPDIR to a folder with more room"
            )
        row = self.shape[2] * self.dtype.itemsize
        try:
            with tempfile.TemporaryFile(prefix="cryolithe-", dir=folder) as file:
                os.truncate(file.fileno(), needed)
                for z, y in self._blocks():
                    for plane, rows in enumerate(self.block(z, y), start=z.start):
                        # Written, not mapped: a full disk is then an error that can be told.
                        os.pwrite(file.fileno(), rows.tobytes(), (plane * self.shape[1] + y.start) * row)
                return np.memmap(file, dtype=self.dtype, mode="r", shape=self.shape)
        except OSError as error:
            raise ResourceError(f"{self.path} cannot be unpacked into {folder}: {error.strerror or error}") from error

    def _blocks(self) -> list[tuple[slice, slice]]:
        """Slabs of whole chunks, of 64 MB or one chunk's height and depth."""
        (depth, height, width), chunks = self.shape, self.array.chunks
        deep, high = max(1, int(chunks[self.order[0]])), max(1, int(chunks[self.order[1]]))
        high *= max(1, _BLOCK_BYTES // (deep * high * width * self.dtype.itemsize))
        return [
            (slice(z, min(z + deep, depth)), slice(y, min(y + high, height)))
            for z in range(0, depth, deep)
            for y in range(0, height, high)
        ]


def is_ome_zarr(path: Path) -> bool:
    """Whether a folder is one of zarr's, or has its name."""
    return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / mark).is_file() for mark in MARKS))


def open_ome_zarr(path: Path) -> ZarrImage:
    """Open the finest level of an image.

    Raises:
        InputError: if zarr is missing or the folder cannot be read.
        FileFormatError: if it is no OME-Zarr image of one volume, or none of its chunks is there.
    """
    image = _opened(path)
    missing, chunks = missing_chunks(path, image.array)
    if not missing:
        return image
    if missing == chunks:
        raise FileFormatError(f"{path} tells of a volume but holds none of its {chunks} chunks; copy it again")
    told = (
        f"{missing} of its {chunks} chunks are not stored, and read as {image.array.fill_value}: programs may leave "
        "out chunks of one value; if its own does not, copy it again"
    )
    return replace(image, notes=(*image.notes, told), incomplete=told)


def is_complete(path: Path) -> bool:
    """Whether an image of ours has every chunk of every level: they are all stored."""
    import zarr

    return not any(missing_chunks(path, array)[0] for _, array in zarr.open_group(str(path), mode="r").arrays())


def _opened(path: Path) -> ZarrImage:
    try:
        import zarr
    except ImportError as error:
        raise InputError(f"OME-Zarr needs the package zarr: {install_command('zarr')}") from error
    try:
        found = zarr.open(str(path), mode="r")
    except Exception as error:  # the library raises whatever it stumbles over
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise FileFormatError(f"{path} is no OME-Zarr image: {' '.join(str(error).split())[:200]}") from error
    if isinstance(found, zarr.Array):
        if found.ndim == 3 and not any((path.parent / mark).is_file() for mark in MARKS):
            return ZarrImage(
                path, _real(found, path), (0, 1, 2), (0.0,) * 3, (0.0,) * 3, 1,
                ("a plain zarr array: axes z, y, x assumed, voxel size unknown",),
            )  # fmt: skip
        raise FileFormatError(f"{path} is one level of an OME-Zarr image; give the folder of the image, {path.parent}")
    attributes: dict[str, Any] = dict(found.attrs)
    newer = attributes.get("ome")  # where version 0.5 keeps them
    if isinstance(newer, Mapping):
        attributes = {**attributes, **newer}
    scales = attributes.get("multiscales")
    if not isinstance(scales, list) or not scales:
        raise FileFormatError(f"{path} is no OME-Zarr image: expected the attribute 'multiscales', found none")
    try:
        return _image(path, found, scales)
    except FileFormatError:
        raise
    except (KeyError, TypeError, ValueError, ArithmeticError, IndexError, AttributeError, OSError) as error:
        raise FileFormatError(
            f"{path} is no usable OME-Zarr image: its attribute 'multiscales' lacks {shown(str(error))}"
        ) from error


def _image(path: Path, group: Any, scales: list[Any]) -> ZarrImage:
    notes: list[str] = []
    if len(scales) > 1:
        notes.append(f"holds {len(scales)} images, the first is read")
    scale = scales[0]
    arrays = [(dataset, group[str(dataset["path"])]) for dataset in scale["datasets"]]
    # By the specification the first is the finest; what counts is that it is.
    dataset, array = max(arrays, key=lambda pair: math.prod(pair[1].shape))
    axes: Any = scale.get("axes") or ("t", "c", "z", "y", "x")[-array.ndim :]
    names = [str(axis["name"] if isinstance(axis, Mapping) else axis).lower() for axis in axes]
    if len(names) != array.ndim or any(names.count(axis) != 1 for axis in _AXES):
        raise FileFormatError(f"{path} has the axes {', '.join(names)[:60]}; expected z, y and x")
    more = {name: size for name, size in zip(names, array.shape, strict=True) if name not in _AXES and size != 1}
    if more:
        told = ", ".join(f"{size} entries along {name}" for name, size in more.items())
        raise FileFormatError(f"{path} has {told[:60]}; expected one volume (z, y, x)")
    order = (names.index("z"), names.index("y"), names.index("x"))
    factors, shifts = np.ones(array.ndim), np.zeros(array.ndim)
    known = False
    transforms = (*dataset.get("coordinateTransformations", ()), *scale.get("coordinateTransformations", ()))
    for transform in transforms:
        values = np.asarray(transform.get(transform.get("type", ""), ()), dtype=np.float64)
        if transform.get("type") == "scale" and values.shape == factors.shape:
            factors, shifts, known = factors * values, shifts * values, True
        elif transform.get("type") == "translation" and values.shape == shifts.shape:
            shifts = shifts + values
        elif transform.get("type") != "identity":
            raise FileFormatError(
                f"{path} is placed by a transform {shown(transform.get('type'))} that is not known here"
            )
    units = [axes[axis].get("unit") if isinstance(axes[axis], Mapping) else None for axis in order]
    if not known or any(unit is None for unit in units):
        if known and not all(factors[axis] == 1 for axis in order):
            notes.append("its axes have no unit: the voxel size is unknown")
        return ZarrImage(path, _real(array, path), order, (0.0,) * 3, (0.0,) * 3, len(arrays), tuple(notes))
    if unknown := [unit for unit in units if str(unit).lower() not in _ANGSTROM]:
        raise FileFormatError(
            f"{path} measures lengths in {shown(unknown[0])}; expected angstrom, nanometer or micrometer"
        )
    lengths = [_ANGSTROM[str(unit).lower()] for unit in units]
    sizes = tuple(_size(float(factors[axis]) * length) for axis, length in zip(order, lengths, strict=True))
    origin = tuple(float(shifts[axis]) * length for axis, length in zip(order, lengths, strict=True))
    if sizes[2] and any(abs(size / sizes[2] - 1) > 0.01 for size in sizes):
        notes.append(f"voxel sizes differ: x {sizes[2]:g}, y {sizes[1]:g}, z {sizes[0]:g} Å; x is used")
    return ZarrImage(
        path, _real(array, path), order, (sizes[0], sizes[1], sizes[2]), (origin[0], origin[1], origin[2]),
        len(arrays), tuple(notes),
    )  # fmt: skip


def _size(length: float) -> float:
    """To the six digits that the other formats keep; 0 where it is no length."""
    return float(f"{length:.6g}") if math.isfinite(length) and length > 0 else 0.0


def _real(array: Any, path: Path) -> Any:
    if np.dtype(array.dtype).kind not in "uif" or math.prod(array.shape) == 0:
        raise FileFormatError(f"{path} holds {math.prod(array.shape)} {array.dtype} values; expected real numbers")
    return array
