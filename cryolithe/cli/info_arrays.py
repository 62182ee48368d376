"""``cryolithe info`` on stacks and volumes: MRC, TIFF, folders of TIFF, OME-Zarr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats import MrcArray, RunningStatistics, read_mrc
from cryolithe.formats.facts import Fact, bytes_text
from cryolithe.formats.volumes.volume_file import VolumeFile, open_volume_file
from cryolithe.formats.volumes.volume_kind import Seen, Told, axes_of, volume_or_stack

SAMPLED_SECTIONS = 64


def mrc_facts(path: Path) -> list[Fact]:
    """A stack or a volume in an MRC file.

    Raises:
        FileFormatError: if it is none.
    """
    mrc = read_mrc(path)
    depth, rows, columns = mrc.data.shape
    pixel = mrc.voxel_size_angstrom
    told = volume_or_stack(Seen(path, (depth, rows, columns), mrc.ispg, mrc.mz, mrc.labels))
    return [
        Fact("kind", _mrc_kind(mrc, told)),
        Fact("kind_because", told.reason),
        Fact("shape", [depth, rows, columns], f"{depth} × {rows} × {columns} ({_order(path, mrc)})"),
        Fact("dtype", mrc.data.dtype.name, f"{mrc.data.dtype.name} (MRC mode {mrc.mode})"),
        Fact("pixel_size_angstrom", pixel, "unknown (0 in the header)" if pixel is None else f"{pixel:g} Å"),
        *_value_facts(len(mrc.data), lambda section: np.asarray(mrc.data[section])),
        _origin_fact(mrc.origin_angstrom),
        Fact("space_group", mrc.ispg, f"{mrc.ispg} (mz {mrc.mz})"),
        Fact("byte_order", mrc.byte_order),
        Fact("extended_header_bytes", mrc.extended_header_bytes, bytes_text(mrc.extended_header_bytes)),
        Fact("labels", list(mrc.labels)),
        Fact("notes", list(mrc.notes)),
    ]


def volume_facts(path: Path) -> list[Fact]:
    """A volume (or stack) in a TIFF file, a folder of TIFF files, or an OME-Zarr image.

    Raises:
        InputError: if it is none of them.
    """
    found = open_volume_file(path)
    depth, rows, columns = found.shape
    size = found.voxel_size_angstrom
    return [
        Fact("kind", _named(found)),
        Fact("kind_because", found.told.reason),
        Fact("shape", [depth, rows, columns], f"{depth} × {rows} × {columns} (z, y, x)"),
        Fact("dtype", found.dtype.name),
        Fact("pixel_size_angstrom", size, "unknown" if size is None else f"{size:g} Å"),
        *_value_facts(depth, found.read),
        _origin_fact(found.origin_angstrom),
        Fact("notes", list(found.notes)),
    ]


def _order(path: Path, mrc: MrcArray) -> str:
    if axes_of(path, mrc.data.shape, mrc.extremes) == "yzx":
        return "y, z, x: --orientation xzy by its record"
    return "z or tilt, y, x"


def _named(found: VolumeFile) -> str:
    stored = {"tiff": "TIFF", "sequence": "one TIFF file for each plane", "ome-zarr": "OME-Zarr", "mrc": "MRC"}
    return f"{'tilt stack' if found.told.content == 'stack' else 'volume'} ({stored[found.kind]})"


def _mrc_kind(mrc: MrcArray, told: Told) -> str:
    if mrc.data.shape[0] == 1:
        return "image"
    if told.content == "unknown":
        return "tilt stack or volume (the header does not say)"
    if told.content == "volume":
        return "volume"
    # Many programs mark tilt stacks as volumes.
    return "tilt stack (by its name; marked as a volume)" if mrc.ispg > 0 else "tilt stack"


def _origin_fact(origin: tuple[float, float, float]) -> Fact:
    return Fact("origin_angstrom", list(origin), ", ".join(f"{o:g}" for o in origin) + " Å (z, y, x)")


def _value_facts(count: int, read: Callable[[int], NDArray[Any]]) -> list[Fact]:
    """Statistics of the finite values in sections spread evenly over the file."""
    sections = np.unique(np.linspace(0, count - 1, min(count, SAMPLED_SECTIONS)).round().astype(int))
    running, not_finite = RunningStatistics(), 0
    for section in sections:
        plane = read(int(section))
        finite = np.isfinite(plane)
        kept = int(np.count_nonzero(finite))
        not_finite += plane.size - kept
        running.add(plane if kept == plane.size else plane[finite])
    found = running.result()
    values = {"minimum": found.minimum, "maximum": found.maximum, "mean": found.mean, "std": found.rms}
    return [
        *(Fact(name, value, f"{value:.6g}") for name, value in values.items()),
        Fact("non_finite_pixels", not_finite),
        Fact("sampled_sections", len(sections), f"{len(sections)} of {count}, for the five values above"),
    ]
