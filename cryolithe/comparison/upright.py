"""Copies of half volumes that cannot be used as they are.

Denoisers read files plane by plane along z, and write the type that they read: axes in another order are turned, and
whole numbers become the densities that they stand for, lest those of a denoised volume be rounded as coarsely. Doubles
become float32, less a large constant that they have in common.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cryolithe.evaluation.halves import half_of, write_densities
from cryolithe.formats.record import read_record_beside, record_path
from cryolithe.formats.stacks.mrc_writer import write_volume
from cryolithe.formats.volumes.axes import turned_record
from cryolithe.formats.volumes.volume_file import open_volume_file, read_volume
from cryolithe.report.json_files import write_json


def is_upright(path: Path) -> bool:
    """Whether the axes of a volume's file run along z, y, x, and its values are densities that float32 holds."""
    found = open_volume_file(path)
    return found.axes == "zyx" and _holds_densities(found.dtype)


def write_upright(path: Path, place: Path) -> None:
    """Write a volume with its axes in the order z, y, x, as densities, and its record beside it, which tells contrast.

    Args:
        path: of the volume.
        place: of the copy, an MRC file.
    """
    found = open_volume_file(path)
    volume, record, dtype = read_volume(path, is_volume=True), read_record_beside(path), found.dtype
    if not _holds_densities(dtype):
        write_densities(replace(half_of(found), volume=volume), place, found.labels)
        if record:
            told = {key: value for key, value in record["volume"].items() if key != "scaling"}
            record["volume"] = {**told, "dtype": "float32"}
    else:
        write_volume(place, volume, label=found.labels, dtype=dtype, overwrite=True)
    if found.axes != "zyx":
        record = turned_record(record)
    if record:
        write_json(record_path(place), {**record, "volume": {**record["volume"], "path": place.name}})


def _holds_densities(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" and np.can_cast(dtype, np.float32)
