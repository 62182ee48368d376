"""New HDF5 files on disks that may fill up.

The HDF5 library may crash the process when a write fails while it tidies up. So it writes through a file that never
fails in its eyes: the first error is kept, later writes are dropped, and the error is raised when all is closed.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from cryolithe.formats.files import PathLike, replacing


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
