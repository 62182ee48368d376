"""MRC2014 volumes and stacks out: whole arrays, or row by row without holding the volume in memory."""

from __future__ import annotations

import errno
import math
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mrcfile import utils
from numpy.typing import DTypeLike, NDArray

from cryolithe.errors import GeometryError, OutputError, how_to_write
from cryolithe.formats.files import PathLike, replacing, unwritable
from cryolithe.formats.stacks.mrc_header import (
    HEADER_BYTES,
    MODES,
    NOT_COMPUTED,
    Header,
    VolumeStatistics,
    volume_header,
)
from cryolithe.formats.stacks.running_statistics import RunningStatistics
from cryolithe.volume import Volume

if TYPE_CHECKING:
    from cryolithe.formats.stacks.image_files import ImageFiles

# A link in the place of a temporary file would lead the writing elsewhere.
_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


class VolumeWriter:
    """An MRC volume on disk that is filled row by row, in any order, without holding it in memory.

    Until `finish` the header's label says that the file is unfinished. Use `create` or `open`, as context managers.
    """

    def __init__(self, target: Path, descriptor: int, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self.target = target
        self.shape = shape
        self.dtype = dtype
        self._descriptor = descriptor

    @classmethod
    def create(
        cls,
        path: PathLike,
        shape: tuple[int, int, int],
        voxel_size_angstrom: float | None,
        dtype: DTypeLike,
        *,
        target: PathLike | None = None,
    ) -> VolumeWriter:
        """Make a file of the final length, so that a disk that is too full is found at once.

        Args:
            path: usually a temporary name; an existing file is replaced.
            shape: voxels along ``(z, y, x)``.
            voxel_size_angstrom: edge of a voxel, or None.
            dtype: of the voxels on disk: float32 (mode 2), float16 (mode 12) or an integer type of MRC.
            target: the name to be shown in messages where ``path`` is a temporary one.

        Raises:
            OutputError: if the folder does not exist or the disk has too little room.
        """
        path, stored = Path(path), _stored_dtype(dtype)
        needed = HEADER_BYTES + math.prod(shape) * stored.itemsize
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o666)
        except OSError as error:
            raise unwritable(Path(target or path), error) from error
        writer = cls(Path(target or path), descriptor, shape, stored)
        try:
            _reserve(descriptor, path, needed)
            unfinished = volume_header(shape, stored, NOT_COMPUTED, "CryoLithe: unfinished", voxel_size_angstrom)
            writer._write_at(0, unfinished)
        except OSError as error:
            writer.close()
            path.unlink(missing_ok=True)
            raise _full_or_unwritable(writer.target, error, needed) from error
        return writer

    @classmethod
    def open(
        cls, path: PathLike, shape: tuple[int, int, int], dtype: DTypeLike, *, target: PathLike | None = None
    ) -> VolumeWriter:
        """Open a file made by `create`, with the same arguments, to go on writing.

        Raises:
            OutputError: if it does not exist, or has other sizes or another dtype.
        """
        path, stored = Path(path), _stored_dtype(dtype)
        try:
            descriptor = os.open(path, os.O_RDWR | _FLAGS)
        except OSError as error:
            raise unwritable(path, error) from error
        writer = cls(Path(target or path), descriptor, shape, stored)
        header = Header(os.read(descriptor, HEADER_BYTES).ljust(HEADER_BYTES, b"\0"), "<")
        expected = (*shape, utils.mode_from_dtype(stored), HEADER_BYTES + math.prod(shape) * stored.itemsize)
        found = (*header.shape, header.mode, os.fstat(descriptor).st_size)
        if found != expected:
            writer.close()
            raise OutputError(
                f"{path} is not the unfinished volume to go on with: expected (z, y, x, mode, bytes) {expected}, "
                f"found {found}; remove it to start anew"
            )
        return writer

    def write_rows(self, y0: int, slab: NDArray[Any]) -> None:
        """Write rows ``y0`` to ``y0 + rows`` of all sections.

        Args:
            y0: first row.
            slab: shape ``(z, rows, x)``, float32 (or what casts safely to the volume's dtype within its kind).

        Raises:
            GeometryError: if the slab does not fit into the volume.
            OutputError: if the disk is full, or a finite value overflows float16.
        """
        nz, ny, nx = self.shape
        if slab.ndim != 3 or slab.shape[::2] != (nz, nx) or y0 < 0 or y0 + slab.shape[1] > ny:
            raise GeometryError(f"rows of shape {slab.shape} from row {y0} do not fit a volume of {self.shape}")
        for z in range(nz):
            plane = self.cast(slab[z])
            self._checked_write(HEADER_BYTES + (z * ny + y0) * nx * self.dtype.itemsize, plane)

    def write_sections(self, z0: int, block: NDArray[Any]) -> None:
        """Write whole sections from ``z0`` on.

        Args:
            z0: first section.
            block: shape ``(sections, y, x)``, as for `write_rows`.

        Raises:
            GeometryError: if the block does not fit into the volume.
            OutputError: if the disk is full, or a finite value overflows float16.
        """
        nz, ny, nx = self.shape
        if block.ndim != 3 or block.shape[1:] != (ny, nx) or z0 < 0 or z0 + block.shape[0] > nz:
            raise GeometryError(f"sections of shape {block.shape} from {z0} do not fit a volume of {self.shape}")
        self._checked_write(HEADER_BYTES + z0 * ny * nx * self.dtype.itemsize, self.cast(block))

    def cast(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the values as they are stored, C-contiguous.

        Raises:
            OutputError: if a finite value overflows float16, or the values are of another kind.
        """
        if not np.can_cast(values.dtype, self.dtype, "same_kind"):
            raise OutputError(f"{self.target}: {values.dtype.name} values cannot be written as {self.dtype.name}")
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values.astype(self.dtype, copy=False))
        if self.dtype.kind == "f" and stored.dtype.itemsize < values.dtype.itemsize:
            overflow = np.isinf(stored) & np.isfinite(values)
            if overflow.any():
                largest = float(np.abs(values[overflow]).max())
                raise OutputError(
                    f"{self.target}: the value {largest:g} is too large for {self.dtype.name} (at most "
                    f"{float(np.finfo(self.dtype).max):g}); write float32"
                )
        return stored

    def sync(self) -> None:
        """Wait until the rows written so far are on the disk.

        Raises:
            OutputError: if the disk reports an error.
        """
        try:
            getattr(os, "fdatasync", os.fsync)(self._descriptor)
        except OSError as error:
            raise self._failure(error) from error

    def finish(
        self,
        statistics: VolumeStatistics,
        label: str | tuple[str, ...],
        voxel_size_angstrom: float | tuple[float, float, float] | None,
        origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        """Write the final header and wait until the file is on the disk.

        Args:
            statistics: of the values as stored; not finite ones are marked as not computed.
            label: one or several, of which at most 10 are kept and of each at most 80 ASCII characters.
            voxel_size_angstrom: edge of a voxel, its edges along ``(z, y, x)``, or None (0 in the header).
            origin_angstrom: position ``(z, y, x)`` of the first voxel.

        Raises:
            OutputError: if the disk is full or reports an error.
        """
        edges = voxel_size_angstrom if isinstance(voxel_size_angstrom, tuple) else (voxel_size_angstrom or 0.0,) * 3
        header = volume_header(self.shape, self.dtype, statistics, label, edges[2])
        for axis, size, edge, position in zip("zyx", self.shape, edges, origin_angstrom, strict=True):
            header[0]["cella"][axis] = size * edge
            header[0]["origin"][axis] = position
        self._finish_with(header)

    def _finish_with(self, header: NDArray[Any]) -> None:
        self._checked_write(0, header)
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> VolumeWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _failure(self, error: OSError) -> OutputError:
        return _full_or_unwritable(self.target, error, HEADER_BYTES + math.prod(self.shape) * self.dtype.itemsize)

    def _checked_write(self, offset: int, values: NDArray[Any]) -> None:
        try:
            self._write_at(offset, values)
        except OSError as error:
            raise self._failure(error) from error

    def _write_at(self, offset: int, values: NDArray[Any]) -> None:
        rest = memoryview(values.reshape(-1).view(np.uint8).data)
        while rest:  # one call may write less than it was given, at most 2 GiB on Linux
            if sys.platform == "win32":
                os.lseek(self._descriptor, offset, os.SEEK_SET)
                written = os.write(self._descriptor, rest)
            else:
                written = os.pwrite(self._descriptor, rest, offset)
            rest = rest[written:]
            offset += written


def _stored_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    wanted = np.dtype(dtype)
    if wanted.str[1:] not in MODES.values():
        raise OutputError(f"MRC files hold {', '.join(np.dtype(m).name for m in MODES.values())}, not {wanted}")
    return wanted.newbyteorder("<")


def _reserve(descriptor: int, path: Path, needed: int) -> None:
    """Make the file ``needed`` bytes long and reserve the room; raises OSError with ENOSPC if there is too little."""
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if sys.platform == "linux":
        try:
            os.posix_fallocate(descriptor, 0, needed)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # these mean: not on this file system
                raise
    os.truncate(descriptor, needed)


def reserve_room(path: Path, needed: int, target: Path) -> None:
    """Make a file of ``needed`` bytes that only holds the room for something else.

    Args:
        path: the file; an existing one is replaced.
        needed: bytes.
        target: the name to be shown in messages.

    Raises:
        OutputError: if the disk has too little room.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o666)
        try:
            _reserve(descriptor, path, needed)
        finally:
            os.close(descriptor)
    except OSError as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise _full_or_unwritable(target, error, needed) from error


class NoRoomError(OutputError):
    """A file is too large for where it is written."""


def _full_or_unwritable(path: Path, error: OSError, needed: int) -> OutputError:
    if not (remedy := how_to_write(error)):
        return unwritable(path, error)
    free = f", {shutil.disk_usage(path.parent).free} are free in {path.parent}" if error.errno != errno.EFBIG else ""
    return NoRoomError(
        f"{path} cannot be written ({error.strerror}): it needs {needed} bytes{free}; {remedy}, or choose another "
        "folder with -o"
    )


def write_volume(
    path: PathLike,
    volume: Volume,
    *,
    label: str | tuple[str, ...],
    dtype: DTypeLike = np.float32,
    overwrite: bool = False,
) -> None:
    """Write a volume as MRC2014; ``path`` appears only when it is complete.

    Args:
        path: the new file.
        volume: voxels of any real dtype that casts to ``dtype`` within its kind.
        label: one or several, of which at most 10 are kept and of each at most 80 ASCII characters.
        dtype: float32 (mode 2), float16 (mode 12) or an integer type of MRC.
        overwrite: replace an existing file.

    Raises:
        OutputError: if the file exists and is not to be overwritten, or cannot be written.
    """
    with (
        replacing(path, overwrite) as temporary,
        VolumeWriter.create(temporary, volume.grid.shape, volume.voxel_size_angstrom, dtype, target=path) as writer,
    ):
        writer.write_rows(0, volume.voxels)
        statistics = _statistics_as_stored(writer, volume.voxels)
        writer.finish(statistics, label, volume.voxel_size_angstrom, volume.origin_angstrom)


def write_stack(
    path: PathLike,
    images: NDArray[Any] | ImageFiles,
    pixel_size_angstrom: float | None,
    label: str,
    overwrite: bool = False,
) -> None:
    """Write an image stack as MRC2014 (space group 0, mz 1); ``path`` appears only when it is complete.

    Args:
        path: the new file.
        images: shape ``(tilt, y, x)``; one image after the other is asked for. 8- and 16-bit integers and float16 are
            kept (uint8 becomes uint16), wider integers become the 16-bit type that holds them, or float32 if none
            does, all else becomes float32.
        pixel_size_angstrom: edge of a pixel, or None (0 in the header).
        label: at most 80 ASCII characters are kept.
        overwrite: replace an existing file.

    Raises:
        GeometryError: if there are not three axes, or one is empty.
        OutputError: if the file exists and is not to be overwritten, cannot be written, or the values are not real.
    """
    if images.ndim != 3 or 0 in images.shape:
        raise GeometryError(f"a stack has three axes (tilt, y, x), none of them empty, got shape {images.shape}")
    dtype = _stack_dtype(images)
    shape = (images.shape[0], images.shape[1], images.shape[2])
    wider = images.dtype.kind in "ui" and dtype != images.dtype
    running = RunningStatistics()
    with (
        replacing(path, overwrite) as temporary,
        VolumeWriter.create(temporary, shape, pixel_size_angstrom, dtype, target=path) as writer,
    ):
        for number in range(shape[0]):
            image = np.asarray(images[number])
            stored = writer.cast(image.astype(dtype) if wider else image)
            writer.write_sections(number, stored[None])
            running.add(stored)
        header = volume_header(shape, writer.dtype, running.result(), label, pixel_size_angstrom)
        record = header[0]
        record["ispg"], record["mz"] = 0, 1
        record["cella"]["z"] = pixel_size_angstrom or 0.0
        writer._finish_with(header)


def _statistics_as_stored(writer: VolumeWriter, values: NDArray[Any]) -> VolumeStatistics:
    running = RunningStatistics()
    for plane in values:
        running.add(writer.cast(plane))
    return running.result()


def _stack_dtype(images: NDArray[Any] | ImageFiles) -> np.dtype[Any]:
    """Return the dtype of MRC that holds the images."""
    kind = images.dtype.kind
    if kind not in "uifb":
        raise OutputError(f"an MRC stack holds real numbers, not {images.dtype}")
    if kind == "b":
        return np.dtype(np.int8)
    if kind == "f":
        return np.dtype(np.float16 if images.dtype.itemsize == 2 else np.float32)
    if images.dtype.str[1:] in MODES.values():
        return images.dtype.newbyteorder("<")
    lowest = min(int(np.min(images[number])) for number in range(images.shape[0]))
    highest = max(int(np.max(images[number])) for number in range(images.shape[0]))
    for candidate in (np.uint16, np.int16):
        if np.iinfo(candidate).min <= lowest and highest <= np.iinfo(candidate).max:
            return np.dtype(candidate)
    return np.dtype(np.float32)
