"""Volumes as OME-Zarr 0.4 and 0.5 (https://ngff.openmicroscopy.org): a pyramid of ever smaller copies, through zarr.

Version 0.4 is stored as Zarr 2, which every viewer reads; 0.5 as Zarr 3.

zarr is an optional dependency: ``pip install cryolithe[zarr]``.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.errors import InputError, OutputError
from cryolithe.formats.files import PathLike, sync
from cryolithe.formats.stacks.mrc_header import VolumeStatistics
from cryolithe.formats.stacks.running_statistics import RunningStatistics
from cryolithe.formats.volumes.pages import release_pages
from cryolithe.machine.extras import install_command

Version = Literal["0.4", "0.5"]
CHUNK_PX = 64
_AXES = ("z", "y", "x")
SMALLEST_PX = 64  # the last level's longest axis is at most this


def write_ome_zarr(
    path: PathLike,
    volume: NDArray[Any],
    voxel_size_angstrom: float | tuple[float, float, float] | None,
    name: str,
    convert: Callable[[NDArray[Any]], NDArray[Any]] = lambda block: block,
    version: Version = "0.4",
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> VolumeStatistics:
    """Write a volume and its pyramid; each level has half the voxels of the one before along each axis, by averaging.

    Args:
        path: folder to make.
        volume: shape ``(z, y, x)``; read chunk by chunk.
        voxel_size_angstrom: edge of a voxel, its edges along ``(z, y, x)``, or None: then scales are in voxels, without
            a unit.
        name: of the image in the metadata.
        convert: applied to each part of the volume before it is stored.
        version: of OME-Zarr.
        origin: position ``(z, y, x)`` of the first voxel, in Å, or in voxels where their size is not known.

    Returns:
        statistics of the values as stored at full size.

    Raises:
        OutputError: if zarr is missing, or the disk does not take it.
    """
    zarr = _zarr(OutputError)
    path = Path(path)
    sample = convert(volume[:0, :0, :0])
    given = voxel_size_angstrom
    sizes = given if isinstance(given, tuple) else (given or 1.0,) * 3
    running = RunningStatistics()
    newer = version == "0.5"
    stored: dict[str, Any] = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
    if newer:
        stored = {"dimension_names": _AXES}
    try:
        group = zarr.open_group(str(path), mode="w", zarr_format=3 if newer else 2)
        source, datasets = volume, []
        for level, shape in enumerate(_shapes(volume.shape)):
            array = group.create_array(
                str(level),
                shape=shape,
                dtype=sample.dtype,
                chunks=tuple(min(CHUNK_PX, n) for n in shape),
                config={"write_empty_chunks": True},  # then one that is not there is known to be lost
                **stored,
            )
            for place in _chunks(shape):
                block = convert(source[place]) if level == 0 else _halved(source, place, shape, sample.dtype)
                if level == 0:
                    running.add(block)
                array[place] = block
                release_pages(volume)
            datasets.append(_dataset(level, sizes, origin))
            source = array
        multiscale = _multiscale(name, datasets, voxel_size_angstrom is not None)
        if newer:  # the version is that of all metadata of the group
            group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}
        else:
            group.attrs["multiscales"] = [{"version": version, **multiscale}]
        for folder, _, files in os.walk(path):
            for file in files:
                sync(Path(folder) / file)
            sync(Path(folder))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return running.result()


def version_of(path: Path) -> Version:
    """The version to write beside an image: 0.5 where that is stored as Zarr 3."""
    return "0.5" if (path / "zarr.json").is_file() else "0.4"


def pyramid_bytes(shape: tuple[int, int, int], itemsize: int) -> int:
    """Bytes of the voxels that `write_ome_zarr` stores, before they are compressed: noise hardly becomes smaller.

    Args:
        shape: voxels ``(z, y, x)`` of the full size.
        itemsize: bytes of a voxel.
    """
    return itemsize * sum(math.prod(level) for level in _shapes(shape))


def _shapes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Voxels of each level, the full size first."""
    yield shape
    while max(shape) > SMALLEST_PX:
        shape = tuple(max(1, n // 2) for n in shape)
        yield shape


def read_ome_zarr(path: PathLike, level: int = 0) -> Any:
    """Open a level of an image, shape ``(z, y, x)``; values are read when they are indexed.

    Raises:
        InputError: if zarr is missing, or there is no such image.
    """
    zarr = _zarr(InputError)
    try:
        return zarr.open_group(str(path), mode="r")[str(level)]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is no OME-Zarr image with level {level}: {error}") from error


def _zarr(kind: type[InputError] | type[OutputError]) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise kind(f"OME-Zarr needs the package zarr: {install_command('zarr')}") from error
    return zarr


def _chunks(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    starts = [range(0, n, CHUNK_PX) for n in shape]
    return [
        tuple(slice(first, min(first + CHUNK_PX, n)) for first, n in zip(corner, shape, strict=True))
        for corner in itertools.product(*starts)
    ]


def _halved(source: Any, place: tuple[slice, ...], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Means of 2 x 2 x 2 voxels (fewer along an axis of one voxel); the last voxel of an odd axis has no partner."""
    steps = [min(2, n) for n in source.shape]
    block = source[tuple(slice(p.start * s, p.stop * s) for p, s in zip(place, steps, strict=True))]
    sizes = [p.stop - p.start for p in place]
    parts = np.asarray(block, dtype=np.float32).reshape([n for pair in zip(sizes, steps, strict=True) for n in pair])
    mean = parts.mean(axis=(1, 3, 5))
    return (np.rint(mean) if np.issubdtype(dtype, np.integer) else mean).astype(dtype)


def _dataset(level: int, sizes: tuple[float, ...], origin: tuple[float, float, float]) -> dict[str, Any]:
    """Scale and position of a level: its first voxel is the middle of 2^level voxels of the volume."""
    factor = 2.0**level
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": [size * factor for size in sizes]}]
    if level or any(origin):
        first = [place + size * (factor - 1) / 2 for place, size in zip(origin, sizes, strict=True)]
        transforms.append({"type": "translation", "translation": first})
    return {"path": str(level), "coordinateTransformations": transforms}


def _multiscale(name: str, datasets: list[dict[str, Any]], known_size: bool) -> dict[str, Any]:
    unit = {"unit": "angstrom"} if known_size else {}
    return {
        "name": name,
        "axes": [{"name": axis, "type": "space", **unit} for axis in _AXES],
        "datasets": datasets,
        "type": "mean",
        "metadata": {"description": "means of 2 x 2 x 2 voxels", "method": f"CryoLithe {__version__}"},
    }
