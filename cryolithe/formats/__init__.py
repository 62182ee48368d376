"""Foreign files, read and written here and nowhere else: MRC, tilt angles, lists of series."""

from cryolithe.formats.series.series_list import read_series_list
from cryolithe.formats.series_entry import SeriesEntry
from cryolithe.formats.stacks.angles import read_angles_deg, write_angles_deg
from cryolithe.formats.stacks.mrc import (
    MrcArray,
    RunningStatistics,
    VolumeStatistics,
    VolumeWriter,
    read_mrc,
    read_tilt_series,
    write_stack,
    write_volume,
)
from cryolithe.formats.volumes.volume_file import read_volume

__all__ = [
    "MrcArray",
    "RunningStatistics",
    "SeriesEntry",
    "VolumeStatistics",
    "VolumeWriter",
    "read_angles_deg",
    "read_mrc",
    "read_series_list",
    "read_tilt_series",
    "read_volume",
    "write_angles_deg",
    "write_stack",
    "write_volume",
]
