"""Particles of a STAR file as points, in the places that they have in their volume."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from cryolithe.errors import CryoLitheError, InputError
from cryolithe.formats.files import MRC_VOLUME_ENDINGS
from cryolithe.formats.particles.star import read_positions
from cryolithe.formats.record import read_record_beside, turned_over_told
from cryolithe.formats.series_names import matching_name, possible_names
from cryolithe.formats.volumes.ome_zarr_reader import is_ome_zarr
from cryolithe.formats.volumes.volume_file import VolumeFile, open_volume_file, upright
from cryolithe.viewer.images import LayerData, file_place

_SIZE_ANGSTROM = 200.0
_SIZE_PX = 8.0
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


def particle_layer(path: Path, volumes: tuple[Path, ...] = ()) -> LayerData:
    """The particles of a volume as points, coloured by their kind.

    Args:
        path: STAR file of particles.
        volumes: that may be theirs, the likeliest first; those beside the file are asked after them.

    Raises:
        InputError: if the file holds no positions, or none of a volume that is there.
    """
    why: CryoLitheError | None = None
    for candidate in (*volumes, *volumes_beside(path)):
        try:
            found = upright(open_volume_file(candidate))
            if found.told.content == "stack":
                continue
            return _points(path, found)
        except CryoLitheError as error:
            why = why or error
    if why is not None:
        raise why
    raise InputError(
        f"{path}: no volume of these particles lies beside it, which tells where they are; open both together"
    )


def volumes_beside(path: Path) -> list[Path]:
    """Volumes in a particle file's folder that may be theirs: by their names, those of the same series first."""
    stem = path.stem.removesuffix("_particles")
    try:
        files = sorted(path.parent.iterdir())
    except OSError:
        return []
    found = [
        file for file in files if (file.suffix.lower() in MRC_VOLUME_ENDINGS and file.is_file()) or is_ome_zarr(file)
    ]

    def rank(file: Path) -> tuple[bool, bool, int]:
        ours = matching_name([stem], file.name) is not None or stem in possible_names(file.name)
        return (not ours, not file.stem.endswith("_rec"), len(file.name))

    return sorted(found, key=rank)


def _seen_near_by() -> dict[str, Any]:
    """What shows a particle also in the planes that cut through it; napari 0.9 gave that another name."""
    try:
        older = tuple(int(part) for part in version("napari").split(".")[:2]) < (0, 9)
    except (PackageNotFoundError, ValueError):
        older = False
    return {"out_of_slice_display": True} if older else {"projection_mode": "rescale_spherical"}


def _points(path: Path, found: VolumeFile) -> LayerData:
    size = found.voxel_size_angstrom
    positions = read_positions(path, found.shape, size, found.path.name)
    inside = positions.inside(found.shape)
    kinds = np.array(positions.kinds)
    shown = [kind or "particle" for kind in positions.kinds]
    order = {kind: number for number, kind in enumerate(sorted(set(shown)))}
    turned = turned_over_told(path.name, read_record_beside(found.path))
    # What stands in the list of layers: nobody looks into metadata.
    doubts = [] if inside.all() else [f"{np.count_nonzero(~inside)} of {len(inside)} outside"]
    doubts += ["the volume's z is turned round"] if turned else []
    meta = {
        **file_place(found),
        "name": f"{path.stem} ({', '.join(doubts)})" if doubts else path.stem,
        "size": _SIZE_ANGSTROM / size if size else _SIZE_PX,
        "face_color": "transparent",
        "border_color": [_COLOURS[order[kind] % len(_COLOURS)] for kind in shown] or "yellow",
        "border_width": 0.08,
        **_seen_near_by(),
        "features": {"kind": kinds},
        "metadata": {
            "cryolithe": {
                "file": str(path), "volume": str(found.path), "tomogram": positions.tomogram,
                "notes": [*positions.notes, *positions.outside_told(found.shape), *turned],
            },
        },
    }  # fmt: skip
    return positions.position_px, meta, "points"
