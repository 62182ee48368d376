"""Copies of half volumes whose axes are in another order than z, y, x: denoisers read files plane by plane along z."""

from __future__ import annotations

from pathlib import Path

from cryolithe.formats.record import read_record_beside, record_path
from cryolithe.formats.stacks.mrc_writer import write_volume
from cryolithe.formats.volumes.axes import turned_record
from cryolithe.formats.volumes.volume_file import open_volume_file, read_volume
from cryolithe.report import write_json


def is_upright(path: Path) -> bool:
    """Whether the axes of a volume's file run along z, y, x."""
    return open_volume_file(path).axes == "zyx"


def write_upright(path: Path, place: Path) -> None:
    """Write a volume with its axes in the order z, y, x, and its record beside it, which tells contrast and scale.

    Args:
        path: of the volume.
        place: of the copy, an MRC file.
    """
    found = open_volume_file(path)
    write_volume(place, read_volume(path, is_volume=True), label=found.labels, dtype=found.dtype, overwrite=True)
    record = read_record_beside(path)
    if found.axes != "zyx":
        record = turned_record(record)
    if record:
        write_json(record_path(place), {**record, "volume": {**record["volume"], "path": place.name}})
