"""In which order the axes of a volume's file run: z, y, x, or those of IMOD's tilt, which the record beside it tells.

``cryolithe reconstruct --orientation xzy`` writes sections along y and rows against z, as IMOD's tilt does, and nothing
in such a file says so. The record counts only where it is that of the very file: a volume that was turned since, or
replaced by another, has another shape or other extremes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from numpy.typing import NDArray

from cryolithe.formats.record import part_of

Axes = Literal["zyx", "yzx"]
# Of the span, by which the extremes of a header, which are float32, may differ from those in a record.
_SAME_VALUES = 1e-4
TURNED = "the axes of {} are those of --orientation xzy, as its record says: it was turned to (z, y, x)"


def stored_axes(record: Mapping[str, Any], shape: tuple[int, ...], extremes: tuple[float, float] | None = None) -> Axes:
    """The order of the axes of a volume as it is stored.

    Args:
        record: that lies beside it; may be empty.
        shape: as stored.
        extremes: smallest and largest value as its header tells them; None where it does not.
    """
    told = part_of(record, "volume")
    if part_of(record, "geometry").get("axis_order") != "yzx":
        return "zyx"
    expected = told.get("shape_zyx")
    if not isinstance(expected, list | tuple) or len(expected) != 3:
        return "zyx"
    if (expected[1], expected[0], expected[2]) != tuple(shape) or not _has_extremes(told, extremes):
        return "zyx"
    return "yzx"


def _has_extremes(told: Mapping[str, Any], extremes: tuple[float, float] | None) -> bool:
    """Whether values are those of a record, as far as both tell of them."""
    statistics = told.get("statistics")
    if extremes is None or not isinstance(statistics, Mapping):
        return True
    low, high = statistics.get("minimum"), statistics.get("maximum")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return True
    allowed = _SAME_VALUES * max(abs(high - low), 1e-30)
    return abs(extremes[0] - low) <= allowed and abs(extremes[1] - high) <= allowed


def turned(voxels: NDArray[Any]) -> NDArray[Any]:
    """Voxels ``(y, -z, x)`` as ``(z, y, x)``, without a copy."""
    return voxels.transpose(1, 0, 2)[::-1]


def turned_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a volume that was turned to ``(z, y, x)``."""
    settings = record.get("settings")
    told = {**settings, "orientation": "xyz"} if isinstance(settings, Mapping) else settings
    geometry = {**record["geometry"], "axis_order": "zyx", "depth_axis": "z"}
    return {**record, "geometry": geometry, **({"settings": told} if "settings" in record else {})}
