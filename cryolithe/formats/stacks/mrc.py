"""MRC files: tilt stacks and volumes.

Reading forgives what programs of the field really write (no MAP stamp, wrong machine stamp, old unsigned bytes) and
says so in `MrcArray.notes`. Sizes are checked against the file's length before anything is mapped or allocated.
"""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.files import PathLike, input_size_bytes, printable, unreadable
from cryolithe.formats.stacks.angles import read_angles_of
from cryolithe.formats.stacks.mrc_header import (
    HEADER_BYTES,
    LARGEST_AXIS_PX,
    MODES,
    Header,
    VolumeStatistics,
    byte_orders,
    has_map_stamp,
    of_other_kind,
    understand,
)
from cryolithe.formats.stacks.mrc_writer import VolumeWriter, write_stack, write_volume
from cryolithe.formats.stacks.running_statistics import RunningStatistics
from cryolithe.formats.stacks.wrapped import jumps_more_as_unsigned, signs
from cryolithe.geometry import TiltGeometry
from cryolithe.tilts import TiltSeries

__all__ = [
    "MrcArray",
    "RunningStatistics",
    "VolumeStatistics",
    "VolumeWriter",
    "read_mrc",
    "read_tilt_series",
    "write_stack",
    "write_volume",
]

# Images compress to a tenth at best, labels to a hundredth; what expands further may be made to fill the memory.
MOST_EXPANSION, ALWAYS_EXPANDED_BYTES = 500, 100_000_000
PLACEHOLDER = "a pixel size of 1 Å is often a placeholder; check it"
_WRAPPED = (
    "{} read as unsigned, though MRC2014 has them signed: as such neighbouring pixels jump from one end of {} to the "
    "other, and hardly any do about 0, as in no image"
)
_DOUBTFUL = (
    "{} read as signed, as MRC2014 has them, but they fill both ends of {}, and neighbouring pixels jump from one to "
    "the other: if they are unsigned, write them as MRC mode 6"
)
_FLAGGED = (
    "bytes read as signed, as IMOD's flag says, but as such neighbouring pixels jump from one end of -128 to 127 to "
    "the other, and hardly any do about 0: if they are unsigned, write them as MRC mode 6"
)
_TOLD = "{} read as unsigned, though MRC2014 has them signed: the header's largest value, {:g}, is beyond {}"
_SIGNED = {0: ("bytes", "-128 to 127"), 1: ("16-bit integers", "-32768 to 32767")}
_ORDER_NAMES = {"<": "little-endian", ">": "big-endian"}


@dataclass(frozen=True)
class MrcArray:
    """The content of an MRC file.

    Attributes:
        data: shape ``(z or tilt, y, x)``, read-only, in the file's dtype and byte order; a memory map unless the file
            is compressed.
        voxel_sizes_angstrom: along ``(z, y, x)``; 0 where the header does not say.
        mode: MRC mode of the values: 0, 1, 2, 6 or 12.
        ispg: space group; 0 for image stacks, 1 and more for volumes.
        mz: sections of the unit cell; 1 for MRC2014 image stacks.
        labels: the header's texts that are not empty.
        origin_angstrom: position ``(z, y, x)`` of the first voxel: the origin, or where that is 0 the start in voxels.
        extended_header_bytes: bytes between the header and the data.
        byte_order: ``"little-endian"`` or ``"big-endian"``.
        notes: what was forgiven, in words.
        extremes: smallest and largest value as the header says, None where it does not.
    """

    data: NDArray[Any]
    voxel_sizes_angstrom: tuple[float, float, float]
    mode: int
    ispg: int
    mz: int
    labels: tuple[str, ...]
    origin_angstrom: tuple[float, float, float]
    extended_header_bytes: int
    byte_order: str
    notes: tuple[str, ...]
    ctf_corrected: bool = False
    extremes: tuple[float, float] | None = None

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Voxel size along x, or None where the header does not say."""
        return self.voxel_sizes_angstrom[2] or None


def read_mrc(path: PathLike) -> MrcArray:
    """Open an MRC file (also one compressed by gzip or bzip2, which is then held in memory).

    Axes that are stored in another order than z, y, x are transposed.

    Raises:
        InputError: if the file does not exist or cannot be read.
        FileFormatError: if it is no MRC file, is damaged or truncated, or holds complex or 4-bit values or a
            stack of volumes.
    """
    path = Path(path)
    size = input_size_bytes(path)
    content: bytearray | None = None
    try:
        with path.open("rb") as stream:
            raw = stream.read(HEADER_BYTES)
        opener = _decompressor(raw)
        if opener:
            content, size = _decompress(path, opener)
            raw = bytes(content[:HEADER_BYTES])
    except OSError as error:
        raise unreadable(path, error) from error
    if other := of_other_kind(path, raw):
        raise FileFormatError(other)
    if size < HEADER_BYTES:
        raise FileFormatError(
            f"{path} is not an MRC file: expected at least a header of {HEADER_BYTES} bytes, found {size} bytes"
        )
    header = understand(raw, size, path)
    stored = np.dtype("u1" if header.unsigned_bytes else MODES[header.mode]).newbyteorder(header.order)
    shape = (header.shape[0], header.shape[1], header.shape[2])
    data: NDArray[Any]
    if content is None:
        try:
            data = np.memmap(path, dtype=stored, mode="r", offset=header.data_offset, shape=shape)
        except (OSError, ValueError) as error:
            raise unreadable(path, error) from error
    else:
        data = np.frombuffer(content, stored, count=math.prod(shape), offset=header.data_offset).reshape(shape)
        data.flags.writeable = False
    unsigned, note = _signs(header, data)
    if unsigned:
        data = data.view(data.dtype.str.replace("i", "u"))
    if sorted(header.axes) == [1, 2, 3]:
        data = data.transpose([header.axes.index(axis) for axis in (3, 2, 1)])
    described = _describe(header, data, size)
    return replace(described, notes=(*described.notes, note)) if note else described


def _signs(header: Header, data: NDArray[Any]) -> tuple[bool, str]:
    """Whether integers that should be signed are unsigned, by the header's extremes or by themselves, and what to say.

    IMOD's stamp tells of bytes alone whether they are signed: where it says that they are, the header's extremes may
    still contradict it, and where the bytes themselves do, that is told.
    """
    if header.mode not in _SIGNED or header.unsigned_bytes:
        return False, ""
    low, high = float(header.fields["dmin"]), float(header.fields["dmax"])
    what, range_ = _SIGNED[header.mode]
    most = 2 ** (8 * data.dtype.itemsize)
    if low >= 0 and most // 2 - 1 < high < most:
        sections = data[[0, len(data) // 2, len(data) - 1]].view(data.dtype.str.replace("i", "u"))
        fits = low <= sections.min() and sections.max() <= high  # else it is the header of other values
        # The whole range fits whatever is there, also signed values under the header of what they were made from.
        if fits and not (low < 1 and high > most - 2 and jumps_more_as_unsigned(data)):
            return True, _TOLD.format(what, high, range_)
    read = signs(data)
    if header.mode == 0 and header.imod_stamp:
        return False, _FLAGGED if read == "unsigned" else ""
    told = {"signed": "", "unsigned": _WRAPPED, "doubtful": _DOUBTFUL}[read]
    return read == "unsigned", told.format(what, range_)


def _describe(header: Header, data: NDArray[Any], size: int) -> MrcArray:
    """Turn a trusted header into the public value, with notes on what was forgiven."""
    fields = header.fields
    notes = []
    if not has_map_stamp(header.raw):
        notes.append("no MAP stamp")
    orders, stamped = byte_orders(header.raw)
    if not stamped:
        notes.append(f"no machine stamp, {_ORDER_NAMES[header.order]} assumed from sizes")
    elif orders[0] != header.order:
        notes.append(f"the machine stamp is wrong, {_ORDER_NAMES[header.order]} assumed from sizes")
    if size > header.end:
        notes.append(f"file is {size - header.end} bytes longer than its header says; the rest is ignored")
    if header.unsigned_bytes:
        notes.append("bytes read as unsigned (old IMOD file)")
    if sorted(header.axes) != [1, 2, 3]:
        notes.append(f"axis numbers {header.axes[::-1]} make no sense, x, y, z assumed")
    elif header.axes != (3, 2, 1):
        notes.append(f"axes stored in the order {header.axes[::-1]}, transposed to z, y, x")
    sizes = tuple(_spacing_angstrom(float(fields["cella"][a]), int(fields[f"m{a}"])) for a in "zyx")
    # A stack's images have no spacing along z.
    compared = sizes if int(fields["ispg"]) > 0 else sizes[1:]
    if sizes[2] and any(abs(other / sizes[2] - 1) > 0.01 for other in compared):
        notes.append(f"pixel sizes differ: x {sizes[2]:g}, y {sizes[1]:g}, z {sizes[0]:g} Å; x is used")
    if sizes[2] == sizes[1] == 1:
        notes.append(PLACEHOLDER)
    origin = tuple(float(fields["origin"][a]) for a in "zyx")
    if not all(map(math.isfinite, origin)):
        origin = (0.0, 0.0, 0.0)
        notes.append("the origin is not finite, 0 assumed")
    elif not any(origin):
        origin = _started_angstrom(header, sizes)
    low, high = float(fields["dmin"]), float(fields["dmax"])
    labels = (printable(bytes(label).decode("ascii", errors="replace")) for label in fields["label"])
    return MrcArray(
        data=data,
        voxel_sizes_angstrom=(sizes[0], sizes[1], sizes[2]),
        mode=header.mode,
        ispg=int(fields["ispg"]),
        mz=int(fields["mz"]),
        labels=tuple(label for label in labels if label),
        origin_angstrom=(origin[0], origin[1], origin[2]),
        extended_header_bytes=header.data_offset - HEADER_BYTES,
        byte_order=_ORDER_NAMES[header.order],
        notes=tuple(notes),
        ctf_corrected=header.ctf_corrected,
        extremes=(low, high) if low <= high else None,  # MRC2014 says by the opposite that nobody computed them
    )


def _started_angstrom(header: Header, sizes_angstrom: tuple[float, ...]) -> tuple[float, ...]:
    """Place ``(z, y, x)`` of the first voxel where the header has it in voxels, as maps cut out of a cell do.

    ChimeraX and other viewers take it so where the origin is 0. It stands for columns, rows and sections.
    """
    starts = header.ints("nzstart", "nystart", "nxstart")
    if any(abs(start) > LARGEST_AXIS_PX for start in starts):
        return (0.0, 0.0, 0.0)
    axes = header.axes if sorted(header.axes) == [1, 2, 3] else (3, 2, 1)
    return tuple(starts[axes.index(axis)] * size + 0.0 for axis, size in zip((3, 2, 1), sizes_angstrom, strict=True))


def _spacing_angstrom(cell_angstrom: float, samples: int) -> float:
    """Return cell / samples to the six digits that survive float32, or 0 where that is no length."""
    spacing = cell_angstrom / samples if samples > 0 else 0.0
    return float(f"{spacing:.6g}") if math.isfinite(spacing) and spacing > 0 else 0.0


def _decompressor(raw: bytes) -> Callable[[Path], gzip.GzipFile | bz2.BZ2File] | None:
    """Return what opens a file that starts with these bytes, or None if it is not compressed."""
    if raw[:3] == b"\x1f\x8b\x08":
        return lambda path: gzip.GzipFile(path, "rb")
    if raw[:3] == b"BZh":
        return lambda path: bz2.BZ2File(path, "rb")
    return None


def _decompress(path: Path, opener: Callable[[Path], gzip.GzipFile | bz2.BZ2File]) -> tuple[bytearray, int]:
    """Return the content, no more of it than its MRC header asks for, and its whole length in bytes."""
    try:
        with opener(path) as stream:
            content = bytearray(stream.read(HEADER_BYTES))
            size = len(content)
            headers = (
                [Header(bytes(content), order) for order in byte_orders(content)[0]] if size == HEADER_BYTES else []
            )
            wanted = max((header.end for header in headers if header.plausible), default=0)
            most = max(ALWAYS_EXPANDED_BYTES, MOST_EXPANSION * path.stat().st_size)
            # Without a believable header there is nothing to wait for: a small file may expand to a huge one.
            while wanted and (chunk := stream.read(2**20)):
                content += chunk[: max(0, wanted - len(content))]
                size += len(chunk)
                if size > most:
                    raise FileFormatError(
                        f"{path} expands to more than {MOST_EXPANSION} times its size, which no image does; "
                        "decompress it yourself if it is yours"
                    )
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileFormatError(f"{path} is damaged: it cannot be decompressed ({error}); copy it again") from error
    return content, size


def stack_shape(path: Path) -> tuple[int, int, int] | None:
    """Images, rows and columns, as the header of a plain MRC file says; None if it is none, or cannot be read."""
    try:
        size = input_size_bytes(path)
        with path.open("rb") as stream:
            header = understand(stream.read(HEADER_BYTES), size, path)
    except (OSError, ValueError, InputError):
        return None
    sections, rows, columns = header.shape
    return sections, rows, columns


def read_tilt_series(
    stack_path: PathLike, angles_path: PathLike, pixel_size_angstrom: float | None = None
) -> TiltSeries:
    """Read an aligned stack, shape ``(tilt, y, x)``, and its angles.

    Args:
        stack_path: MRC file; the images stay on disk until they are used.
        angles_path: text file with one angle per line, in the order of the images.
        pixel_size_angstrom: wins over the stack's header; with neither the series' pixel size is None.

    Raises:
        InputError: if a file is not usable, or the counts of images and angles differ.
        GeometryError: if the pixel size is not positive.
    """
    mrc = read_mrc(stack_path)
    tilts, rows, columns = mrc.data.shape
    angles = read_angles_of(angles_path, tilts)
    if tilts != len(angles):
        raise InputError(
            f"{stack_path} holds {tilts} images but {angles_path} holds {len(angles)} angles; "
            "give the angle file that belongs to this stack"
        )
    pixel_size = mrc.voxel_size_angstrom if pixel_size_angstrom is None else pixel_size_angstrom
    return TiltSeries(mrc.data, TiltGeometry(angles, (rows, columns)), pixel_size, mrc.notes, labels=mrc.labels)
