"""What napari asks of a reader: whether a path is ours, and its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryolithe.errors import CryoLitheError, InputError
from cryolithe.formats.record import read_record_beside
from cryolithe.formats.star_tables import read_star
from cryolithe.formats.volumes.ome_zarr_reader import is_ome_zarr
from cryolithe.formats.volumes.volume_file import open_volume_file
from cryolithe.viewer.images import LayerData, image_layers
from cryolithe.viewer.particles import particle_layer

_POSITIONS = ("rlnCenteredCoordinateXAngst", "rlnCoordinateX")

Reader = Callable[[Any], list[LayerData]]


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """The function that reads a path, or several, or None where one of them is not ours: others may read it then."""
    paths = _paths(path)
    return read_layers if paths and all(_is_ours(each) for each in paths) else None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """The layers of files that are opened together; images before the points upon them.

    Args:
        path: one or several of MRC file, OME-Zarr image, particle STAR file, record (.json) of a volume.

    Raises:
        InputError: if one cannot be read.
    """
    paths = [_volume_of(each) for each in _paths(path)]
    stars = [each for each in paths if each.suffix.lower() == ".star"]
    images = [each for each in dict.fromkeys(paths) if each not in stars]
    layers: list[LayerData] = []
    seen: set[str] = set()
    for each in images:
        for layer in image_layers(each):
            # A half that is opened with its whole, or beside it, is one layer.
            key = f"{layer[1].get('metadata', {}).get('cryolithe', {}).get('file')} {layer[2]} {layer[1]['name']}"
            if key not in seen:
                seen.add(key)
                layers.append(layer)
    layers += [particle_layer(star, tuple(images)) for star in stars]
    return layers


def _paths(path: str | Sequence[str]) -> list[Path]:
    return [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]


def _volume_of(path: Path) -> Path:
    """The volume of a record, any other path itself.

    Raises:
        InputError: if a record's volume is not beside it.
    """
    if path.suffix.lower() != ".json":
        return path
    for suffix in (".mrc", ".zarr", ".rec", ".map"):
        volume = path.with_suffix(suffix)
        if volume.exists() and read_record_beside(volume):
            return volume
    raise InputError(f"{path} is no record of a volume that lies beside it")


def _is_ours(path: Path) -> bool:
    """Whether this program can read a file; its header is looked at."""
    try:
        path = _volume_of(path)
        if path.suffix.lower() == ".star":
            return any(column in table for table in read_star(path) for column in _POSITIONS)
        if path.is_dir() and not is_ome_zarr(path):
            return False
        return min(open_volume_file(path).shape) > 0
    except (CryoLitheError, OSError):
        return False
