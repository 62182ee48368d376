"""TIFF volumes: one file of many planes, or a folder of files in alphanumerical order."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError, InputError, OutputError
from cryolithe.formats.files import input_size_bytes, unreadable, unwritable

ENDINGS = (".tif", ".tiff")
# Units that ImageJ and OME write, in Å.
_ANGSTROM = {"nm": 10.0, "micron": 1e4, "um": 1e4, "µm": 1e4, "μm": 1e4, "\\u00b5m": 1e4, "å": 1.0, "a": 1.0}
_ANGSTROM |= {"angstrom": 1.0, "pm": 0.01, "\\u00c5": 1.0}
_BIG_BYTES = 4_000_000_000  # offsets of a plain TIFF have 32 bits
# A compressed file that promises more than this is damaged, or made to fill the memory.
_MOST_EXPANSION, _ALWAYS_READ_BYTES = 500, 100_000_000
_IMAGEJ = (np.uint8, np.uint16, np.float32)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts names with numbers as people count: plane_2 before plane_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def tiff_files(folder: Path) -> list[Path]:
    """The TIFF files of a folder in alphanumerical order.

    Raises:
        InputError: if there is none.
    """
    found = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file()]
    if not found:
        raise InputError(
            f"{folder} is a folder, which is read as the planes of a volume, and holds no .tif files; expected one for "
            "each plane, or the file of a volume"
        )
    return sorted(found, key=lambda path: natural_key(path.name))


def read_tiff(path: Path) -> tuple[NDArray[Any], float | None]:
    """Planes ``(z, y, x)`` of a file, on the disk where they are not compressed, and the voxel size in Å or None.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if it is no TIFF file, or holds colours or planes of several sizes.
    """
    input_size_bytes(path)
    try:
        with tifffile.TiffFile(path) as file:
            _check_chain(file, path)
            if len(file.series) != 1:
                raise FileFormatError(
                    f"{path} holds {len(file.series)} images of different shapes; expected one volume"
                )
            series = file.series[0]
            size = _voxel_size_angstrom(file)
            shape, axes = tuple(n for n in series.shape if n != 1), series.axes
            if "S" in axes or len(shape) > 3:
                raise FileFormatError(
                    f"{path} has the axes {axes} and shape {series.shape}; expected grey planes z, y, x"
                )
            mappable = series.dataoffset is not None and file.pages.first.compression == 1
            if not mappable and series.nbytes > max(_ALWAYS_READ_BYTES, _MOST_EXPANSION * path.stat().st_size):
                raise FileFormatError(
                    f"{path} promises {series.nbytes} bytes, more than {_MOST_EXPANSION} times its size; is it damaged?"
                )
            data: NDArray[Any] = tifffile.memmap(path, mode="r") if mappable else file.asarray()
    except InputError:
        raise
    except Exception as error:  # the library's parser raises whatever it stumbles over
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise FileFormatError(f"{path} is no usable TIFF file: {' '.join(str(error).split())[:200]}") from error
    if data.dtype.kind not in "uif" or data.size == 0:
        raise FileFormatError(f"{path} holds {data.size} {data.dtype} values; expected real numbers")
    planes = data.reshape(-1, *data.shape[-2:]) if data.ndim >= 2 else data[None, None]
    return planes, size


def read_planes(
    paths: list[Path],
) -> tuple[Callable[[int], NDArray[Any]], tuple[int, int], np.dtype[Any], float | None]:
    """A sequence of files of one plane each.

    Returns:
        what reads plane z, the shape ``(y, x)`` and dtype of a plane, and the voxel size in Å or None.

    Raises:
        FileFormatError: if the first file holds more than one plane.
    """
    first, size = read_tiff(paths[0])
    if first.shape[0] != 1:
        raise FileFormatError(f"{paths[0]} holds {first.shape[0]} planes; in a folder, expected one in each file")
    shape, dtype = (first.shape[1], first.shape[2]), first.dtype

    def plane(z: int) -> NDArray[Any]:
        values, _ = read_tiff(paths[z])
        if values.shape != (1, *shape) or values.dtype != dtype:
            raise FileFormatError(
                f"{paths[z]} holds {values.dtype.name} of shape {values.shape}, {paths[0].name} holds {dtype.name} of "
                f"shape {(1, *shape)}; all planes must be alike"
            )
        return values[0]

    return plane, shape, dtype, size


def write_tiff(
    path: Path,
    planes: Callable[[int], NDArray[Any]],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    voxel_size_angstrom: float | None,
) -> None:
    """Write planes one after the other into one file, with the voxel size as ImageJ stores it where it can.

    Raises:
        OutputError: if it cannot be written.
    """
    big = int(np.prod(shape)) * dtype.itemsize > _BIG_BYTES
    imagej = dtype.newbyteorder("=") in [np.dtype(kind) for kind in _IMAGEJ] and not big
    options: dict[str, Any] = {"photometric": "minisblack", "contiguous": True}
    if imagej:
        options["metadata"] = {"axes": "ZYX"}
    elif shape[0] == 1:  # the library's own note of a shape would make a plane a volume of one
        options["metadata"] = None
    if voxel_size_angstrom:
        per_nm = 10.0 / voxel_size_angstrom
        options["resolution"] = (per_nm, per_nm)
        if imagej:
            options["metadata"] |= {"spacing": 1 / per_nm, "unit": "nm"}
    try:
        with tifffile.TiffWriter(path, bigtiff=big, imagej=imagej) as file:
            file.write((planes(z) for z in range(shape[0])), shape=shape, dtype=dtype, **options)
    except OSError as error:
        raise unwritable(path, error) from error
    except ValueError as error:
        raise OutputError(f"{path} cannot be written as TIFF: {error}") from error


def _check_chain(file: tifffile.TiffFile, path: Path) -> None:
    """Raise FileFormatError if the last plane says that an earlier one comes next: the library would go on for ever."""
    tiff, handle = file.tiff, file.filehandle
    offset, seen = file.pages.first.offset, set[int]()
    while offset and offset not in seen:
        seen.add(offset)
        handle.seek(offset)
        try:
            (tags,) = struct.unpack(tiff.tagnoformat, handle.read(tiff.tagnosize))
            handle.seek(offset + tiff.tagnosize + tags * tiff.tagsize)
            (offset,) = struct.unpack(tiff.offsetformat, handle.read(tiff.offsetsize))
        except (struct.error, OSError, OverflowError):  # the file ends here: what is lacking is found as it is read
            return
    if offset:
        raise FileFormatError(
            f"{path} is a damaged TIFF file: plane {len(seen)} is followed by an earlier one; copy it again"
        )


def _voxel_size_angstrom(file: tifffile.TiffFile) -> float | None:
    """Pixel size along x from ImageJ's or OME's metadata; other resolutions in TIFF are usually those of a printer."""
    if file.ome_metadata:
        number = re.search(r'PhysicalSizeX="([^"]+)"', file.ome_metadata)
        unit = re.search(r'PhysicalSizeXUnit="([^"]+)"', file.ome_metadata)
        return _length(number[1], unit[1] if unit else "µm") if number else None
    tag = file.pages.first.tags.get("XResolution")
    if not file.imagej_metadata or tag is None or not tag.value[0]:
        return None
    return _length(tag.value[1] / tag.value[0], str(file.imagej_metadata.get("unit", "")))


def _length(value: object, unit: str) -> float | None:
    try:
        length = float(value) * _ANGSTROM[unit.lower()]  # type: ignore[arg-type]
    except (ValueError, KeyError):
        return None
    return float(f"{length:.6g}") if 0 < length < 1e6 else None
