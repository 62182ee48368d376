"""HDF5 files: new ones on disks that may fill up, and given ones that may be damaged.

The HDF5 library may crash the process when a write fails while it tidies up. So it writes through a file that never
fails in its eyes: the first error is kept, later writes are dropped, and the error is raised when all is closed.

Of a damaged file the library may read one part for ever: texts of attributes lie in "global heaps", rows of objects
each of which says where the next one begins, which may be where it is itself (HDF5 File Format Specification, III.E).
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from cryolithe.errors import FileFormatError
from cryolithe.formats.files import PathLike, replacing

# Signature, version and reserved bytes of a global heap; its size follows, then its objects.
_HEAP = b"GCOL\x01\x00\x00\x00"
_OBJECT = struct.Struct("<HHIQ")
# Heaps are looked for in so many bytes from either end: libraries write texts before or after the arrays.
_LOOKED_AT_BYTES = 1_000_000
_CHECKSUM_BYTES = 4  # of the filter fletcher32


class _PatientFile(io.FileIO):
    """A file that keeps the first error of writing instead of raising it."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                done += super().write(view[done:]) or 0
            except OSError as error:
                self.error = error
        if done < len(view):
            self.seek(len(view) - done, os.SEEK_CUR)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextmanager
def new_hdf5_file(path: PathLike, overwrite: bool, needed_bytes: int = 0) -> Iterator[h5py.File]:
    """Give an HDF5 file to fill; it appears as ``path`` only when it is complete and on disk.

    Args:
        path: the new file.
        overwrite: replace an existing file.
        needed_bytes: about how large it will get; the room is looked for before anything is written.

    Raises:
        OutputError: if it exists and is not to be overwritten, or cannot be written.
    """
    with replacing(path, overwrite) as temporary, _PatientFile(temporary, "w+") as raw:
        if shutil.disk_usage(Path(path).parent).free < needed_bytes:
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: it needs some {needed_bytes / 1e6:.1f} MB")
        with h5py.File(raw, "w", track_order=True) as file:
            yield file
            if raw.error:
                raise raw.error
        if raw.error:
            raise raw.error
        os.fsync(raw.fileno())


def open_hdf5(path: PathLike) -> h5py.File:
    """Open a file for reading, unless a text in it would be read for ever.

    Raises:
        OSError: if it cannot be read, or is no HDF5 file.
        FileFormatError: if its texts are damaged so.
    """
    with Path(path).open("rb") as stream:
        first = stream.read(_LOOKED_AT_BYTES)
        start = max(len(first), os.fstat(stream.fileno()).st_size - _LOOKED_AT_BYTES)
        stream.seek(start)
        last = stream.read(_LOOKED_AT_BYTES)
    # What goes on from the first block to the last is one block.
    blocks = [first + last] if start == len(first) else [first, last]
    if any(_is_endless(block, found.start()) for block in blocks for found in re.finditer(re.escape(_HEAP), block)):
        raise FileFormatError(
            f"{path} is a damaged HDF5 file: its texts follow one another without end; copy it again, or make it anew"
        )
    return h5py.File(path, "r")


def refuse_empty_chunks(dataset: h5py.Dataset, path: PathLike) -> None:
    """Refuse an array with a stored part that has no room for its checksum: HDF5 ends the process that reads it.

    Also one whose filters or parts h5py cannot list.

    Raises:
        FileFormatError: if there is such a part.
    """
    sizes: set[int] = set()
    try:
        if not dataset.chunks or not dataset.fletcher32:
            return
        dataset.id.chunk_iter(lambda chunk: sizes.add(chunk.size))
    except (IndexError, RuntimeError, ValueError) as error:
        raise FileFormatError(
            f"{path} is a damaged HDF5 file: the parts of its array '{dataset.name}' cannot be found ({error}); "
            "copy it again, or make it anew"
        ) from error
    if sizes and min(sizes) <= _CHECKSUM_BYTES:
        raise FileFormatError(
            f"{path} is a damaged HDF5 file: a part of its array '{dataset.name}' is stored in {min(sizes)} bytes; "
            "copy it again, or make it anew"
        )


def _is_endless(content: bytes, place: int) -> bool:
    """Whether one of the objects of the heap at a place is followed by itself, or by one before it."""
    header = len(_HEAP) + 8
    if place + header > len(content):
        return False
    (size,) = struct.unpack_from("<Q", content, place + len(_HEAP))
    stop = min(place + size, len(content))
    place += header
    while place + _OBJECT.size <= stop:
        index, _, _, length = _OBJECT.unpack_from(content, place)
        # Object 0 is the room that is free, its header included; others are padded to eight bytes.
        step = length if index == 0 else _OBJECT.size + -(-length // 8) * 8
        step %= 2**64  # as the library counts
        if not 0 < step < 2**63:
            return True
        place += step
    return False
