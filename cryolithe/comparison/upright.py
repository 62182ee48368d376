"""Copies of half volumes that cannot be used as they are.

Denoisers read files plane by plane along z, and write the type that they read: axes in another order are turned, and
whole numbers become the densities that they stand for, lest those of a denoised volume be rounded as coarsely.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cryolithe.evaluation.halves import half_of, write_densities
from cryolithe.formats.record import read_record_beside, record_path
from cryolithe.formats.stacks.mrc_writer import write_volume
from cryolithe.formats.volumes.axes import turned_record
from cryolithe.formats.volumes.volume_file import open_volume_file, read_volume
from cryolithe.report.json_files import write_json


def is_upright(path: Path) -> bool:
    """Whether the axes of a volume's file run along z, y, x, and its values are no whole numbers."""
    found = open_volume_file(path)
    return found.axes == "zyx" and found.dtype.kind == "f"


def write_upright(path: Path, place: Path) -> None:
    """Write a volume with its axes in the order z, y, x, as densities, and its record beside it, which tells contrast.

    Args:
        path: of the volume.
        place: of the copy, an MRC file.
    """
    found = open_volume_file(path)
    volume, record, dtype = read_volume(path, is_volume=True), read_record_beside(path), found.dtype
    if dtype.kind != "f":
        write_densities(replace(half_of(found), volume=volume), place, found.labels)
        if record:
            told = {key: value for key, value in record["volume"].items() if key != "scaling"}
            record["volume"] = {**told, "dtype": "float32"}
    else:
        write_volume(place, volume, label=found.labels, dtype=min(dtype, np.dtype(np.float32)), overwrite=True)
    if found.axes != "zyx":
        record = turned_record(record)
    if record:
        write_json(record_path(place), {**record, "volume": {**record["volume"], "path": place.name}})
