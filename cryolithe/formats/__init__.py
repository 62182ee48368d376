"""Foreign files, read and written here and nowhere else: MRC, tilt angles, lists of series."""

from cryolithe.formats.angles import read_angles_deg, write_angles_deg
from cryolithe.formats.mrc import (
    MrcArray,
    RunningStatistics,
    VolumeStatistics,
    VolumeWriter,
    read_mrc,
    read_tilt_series,
    write_stack,
    write_volume,
)
from cryolithe.formats.series_entry import SeriesEntry
from cryolithe.formats.series_list import read_series_list
from cryolithe.formats.volume_file import read_volume

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
