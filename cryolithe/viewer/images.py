"""Volumes and tilt stacks as layers: scale, greys, names, angles; what lies beside them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import CryoLitheError
from cryolithe.formats.stacks.angles import read_angles_deg
from cryolithe.formats.volumes.ome_zarr_reader import open_ome_zarr
from cryolithe.formats.volumes.volume_file import VolumeFile, open_volume_file, upright
from cryolithe.formats.volumes.volume_kind import Seen, angles_beside, record_for
from cryolithe.report.greys import MAP_RANGES
from cryolithe.viewer.greys import middle_sections, shown_greys

# What napari takes for a layer: data, arguments of the layer, its kind.
LayerData = tuple[Any, dict[str, Any], str]

HALVES = ("_EVN", "_ODD")
# Maps beside a volume, and the colour into which they rise from nothing.
MAPS = {"confidence": (1.0, 1.0, 0.0), "error": (0.0, 0.8, 1.0), "unsupported": (1.0, 0.0, 0.6)}
UNIT = "angstrom"


def image_layers(path: Path) -> list[LayerData]:
    """The layers of a volume or a stack, with what belongs to it and lies beside it.

    Args:
        path: MRC file, OME-Zarr image, TIFF file, or folder of TIFF files.

    Raises:
        InputError: if it cannot be read.
    """
    found = open_volume_file(path)
    if found.told.content == "stack":
        return stack_layers(found)
    return [volume_layer(found), *_beside(found)]


def volume_layer(found: VolumeFile, visible: bool = True) -> LayerData:
    """A volume, upright as ``(z, y, x)`` whatever its orientation in the file, in Å where its voxel size is known.

    Args:
        found: the file.
        visible: whether it is shown at first.
    """
    record = record_for(found.path)
    kind = next((kind for kind in MAPS if found.path.stem.endswith(f"_{kind}")), None)
    shown = upright(found)
    voxels = shown.voxels() if shown is not found else _lazy(found)
    sections = [np.asarray(voxels[z]) for z in middle_sections((voxels.shape[0], voxels.shape[1], voxels.shape[2]))]
    limits, colours = shown_greys(sections)
    if kind is not None:
        limits, colours = MAP_RANGES[kind], _colours(MAPS[kind])
    meta = {
        **file_place(shown),
        "name": found.path.stem,
        "contrast_limits": limits,
        "colormap": colours,
        "visible": visible,
        "metadata": {
            "cryolithe": {
                "file": str(found.path),
                "voxel_size_angstrom": shown.voxel_size_angstrom,
                "taken_for": f"volume, because {found.told.reason}",
                "notes": [note.removesuffix("; x is used") for note in shown.notes],
                "labels": list(found.labels),
                "record": record,
            }
        },
    }
    if kind is not None:
        meta |= {"blending": "translucent", "opacity": 0.5}
    return voxels, meta, "image"


def file_place(found: VolumeFile) -> dict[str, Any]:
    """Where the layer of a volume's file lies, as its header tells."""
    return layer_place(found.voxel_sizes_angstrom, found.origin_angstrom if found.voxel_size_angstrom else (0.0,) * 3)


def layer_place(
    sizes_angstrom: tuple[float, float, float], origin_angstrom: tuple[float, float, float]
) -> dict[str, Any]:
    """Where a layer ``(z, y, x)`` lies: in Å, or in voxels where nobody knows their size.

    Args:
        sizes_angstrom: edges of a voxel; 0 where they are not known.
        origin_angstrom: position of the first voxel, in voxels where they are not.
    """
    usual = sizes_angstrom[2]
    known = {"units": (UNIT,) * 3} if usual else {}
    return {
        "scale": tuple((size or usual) if usual else 1.0 for size in sizes_angstrom),
        "translate": tuple(float(value) for value in origin_angstrom),
        "axis_labels": ("z", "y", "x"),
        **known,
    }


def stack_layers(found: VolumeFile) -> list[LayerData]:
    """A stack of tilt images, and the tilt angle of each where they lie beside it, written into its corner."""
    images = _lazy(found)
    angles_file = angles_beside(Seen(found.path, found.shape))
    angles = read_angles_deg(angles_file) if angles_file else ()
    first = _least_tilted(angles) if angles else found.shape[0] // 2
    limits, colours = shown_greys([np.asarray(images[first])])
    size = found.voxel_size_angstrom or 1.0
    # Images follow each other by number: only their rows and columns have a length.
    place = {"scale": (1.0, size, size), "axis_labels": ("tilt", "y", "x")}
    if found.voxel_size_angstrom:
        place["units"] = ("pixel", UNIT, UNIT)
    told = {
        "file": str(found.path),
        "pixel_size_angstrom": found.voxel_size_angstrom,
        "taken_for": f"tilt stack, because {found.told.reason}",
        "tilt_angles_deg": list(angles),
        "angles_file": str(angles_file) if angles_file else None,
        "notes": list(found.notes),
    }
    meta = {
        **place,
        "name": found.path.stem,
        "contrast_limits": limits,
        "colormap": colours,
        "metadata": {"cryolithe": told},
    }
    layers: list[LayerData] = [(images, meta, "image")]
    if angles:
        layers.append(_angle_layer(angles, place, found.path.stem))
    return layers


def _angle_layer(angles_deg: tuple[float, ...], place: dict[str, Any], name: str) -> LayerData:
    """A point in the corner of each image whose text is the tilt angle: seen in every viewer, without a widget."""
    corners = np.zeros((len(angles_deg), 3))
    corners[:, 0] = np.arange(len(angles_deg))
    meta = {
        **place,
        "name": f"{name} angles",
        "size": 1,
        "opacity": 1.0,
        "face_color": "transparent",
        "border_color": "transparent",
        "features": {"tilt_deg": np.array(angles_deg)},
        "text": {"string": "{tilt_deg:.1f}°", "size": 14, "color": "yellow", "anchor": "upper_left"},
    }
    return corners, meta, "points"


def _beside(found: VolumeFile) -> list[LayerData]:
    """Halves and maps, hidden at first; what is there but not usable is left out."""
    layers = []
    for addition in (*HALVES, *(f"_{kind}" for kind in MAPS)):
        path = found.path.with_name(f"{found.path.stem}{addition}{found.path.suffix}")
        if not path.exists():
            continue
        try:
            other = open_volume_file(path)
        except CryoLitheError:
            continue
        if other.told.content != "stack" and sorted(other.shape) == sorted(found.shape):
            layers.append(volume_layer(other, visible=False))
    return layers


def _lazy(found: VolumeFile) -> Any:
    """An array that is read where it is looked at."""
    if found.kind == "ome-zarr":
        image = open_ome_zarr(found.path)
        if image.array.ndim == 3 and image.order == (0, 1, 2):
            return image.array
    return found.voxels()


def _least_tilted(angles_deg: tuple[float, ...]) -> int:
    return min(range(len(angles_deg)), key=lambda number: math.fabs(angles_deg[number]))


def _colours(full: tuple[float, float, float]) -> NDArray[np.float32]:
    """From nothing to a colour."""
    height = np.linspace(0, 1, 256, dtype=np.float32)
    return np.stack([*(np.float32(part) * height for part in full), height], axis=1)
