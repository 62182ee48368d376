"""The working folder of a run: what survives a crash, and what tells a later run where to go on.

    OUT.partial/
        lock            held while a run is alive
        owner           who holds it, on file systems without locks (`locking`)
        journal.jsonl   first line: what is being done (plan); then one line for each finished slab
        stack.f32       the prepared tilt images
        volume.mrc      the volume so far
        finished.*      the volume in the type, order or format asked for, where that differs
        sidecar.json    its record, when it is finished
        commit.json     which file is about to become the output

A slab's line is written after its voxels are on the disk, so what the journal says is done is done. Each line has a
checksum of itself, and that of its slab's voxels: what a failing disk or another program changed is made anew. Links
are not followed: a folder or file that is one is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import OutputError
from cryolithe.formats import VolumeStatistics
from cryolithe.formats.mrc_header import HEADER_BYTES
from cryolithe.reconstruct.locking import LOCK, OWNER, FolderLock, no_link

_LINE_CRC = "line_crc32"


@dataclass(frozen=True)
class Slab:
    """A finished slab: its rows, statistics and checksum of its voxels as stored, what it was made with.

    Attributes:
        batch: points at a time; 1 for methods without.
        precision: of a network's layers, as a user types it; None for other methods.
    """

    start: int
    stop: int
    voxels: int
    statistics: VolumeStatistics
    batch: int
    crc32: int
    precision: str | None = None


def checksum(slab: NDArray[Any]) -> int:
    """CRC-32 of a slab's voxels as stored, shape ``(z, rows, x)``, in this order."""
    return zlib.crc32(np.ascontiguousarray(slab).data)


def _stored_checksum(descriptor: int, shape: tuple[int, int, int], slab: Slab) -> int:
    """CRC-32 of a slab in an open volume of ``(sections, rows, bytes of a row)``."""
    sections, rows, row_bytes = shape
    found, length = 0, (slab.stop - slab.start) * row_bytes
    for section in range(sections):
        place = HEADER_BYTES + (section * rows + slab.start) * row_bytes
        found = zlib.crc32(os.pread(descriptor, length, place), found)
    return found


class WorkFolder:
    """The working folder of one output, locked for this process.

    Attributes:
        path: the folder.
        plan: what is being done, as plain values; None until `begin`.
        slabs: finished slabs in the order in which they were made.

    Raises:
        OutputError: if the folder cannot be made, is a link, or is locked by another run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan: dict[str, Any] | None = None
        self.slabs: list[Slab] = []
        self._lock = FolderLock(path)
        self._read()

    @property
    def note(self) -> str:
        """What the user should know about how the folder is locked, or an empty string."""
        return self._lock.note

    @property
    def stack(self) -> Path:
        """File of the prepared images."""
        return self.path / "stack.f32"

    @property
    def volume(self) -> Path:
        """File of the volume so far."""
        return self.path / "volume.mrc"

    @property
    def sidecar(self) -> Path:
        """File of the finished volume's record."""
        return self.path / "sidecar.json"

    @property
    def commit(self) -> Path:
        """File that tells which file becomes the output."""
        return self.path / "commit.json"

    @property
    def journal(self) -> Path:
        """File of the journal."""
        return self.path / "journal.jsonl"

    def forget(self) -> None:
        """Drop an earlier run's journal before its volume is replaced, so that it never speaks of another volume."""
        self.plan, self.slabs = None, []
        self.journal.unlink(missing_ok=True)

    def begin(self, plan: dict[str, Any]) -> None:
        """Start the journal anew."""
        self.forget()
        self.plan = plan
        self._append(plan)

    def settle(self, plan: dict[str, Any]) -> None:
        """Write the first line anew, now that more of it is known; finished slabs stay."""
        slabs = self.slabs
        self.begin(plan)
        for slab in slabs:
            self.done(slab)

    def keep_intact(self, shape: tuple[int, int, int], dtype: str) -> bool:
        """Drop finished slabs whose voxels are not those that were written; return whether any was dropped.

        Args:
            shape: voxels ``(z, y, x)`` of the volume so far.
            dtype: of its voxels.
        """
        try:
            descriptor = no_link(self.volume, os.O_RDONLY)
        except OSError:
            intact = []
        else:
            width = shape[2] * np.dtype(dtype).itemsize
            intact = [s for s in self.slabs if _stored_checksum(descriptor, (*shape[:2], width), s) == s.crc32]
            os.close(descriptor)
        if len(intact) == len(self.slabs):
            return False
        assert self.plan is not None
        self.begin(self.plan)
        for slab in intact:
            self.done(slab)
        return True

    def done(self, slab: Slab) -> None:
        """Note a slab whose voxels are on the disk."""
        self._append(asdict(slab))
        self.slabs.append(slab)

    def remove(self) -> None:
        """Delete the folder and give up the lock."""
        try:
            # What `recover` looks for goes last: so a removal that is cut short is completed by the next run.
            last = (self.commit, self.path / LOCK, self.path / OWNER)
            for path in self.path.glob("*"):
                if path not in last:
                    _delete(path)
            for path in last:
                _delete(path)
            # Not what another run may have begun in it since its lock is gone.
            with suppress(OSError):
                self.path.rmdir()
        finally:
            self._lock.close()

    def release(self) -> None:
        """Give up the lock and keep the folder for a later run."""
        self._lock.close()

    def _read(self) -> None:
        """Read an earlier run's journal; a last line that was cut off by a crash is cut off the file too."""
        try:
            lines = self.journal.read_bytes().split(b"\n")
        except OSError:
            return
        records = []
        for line in lines[:-1]:
            record = _checked(line)
            if record is None:
                break
            records.append(record)
        os.truncate(self.journal, sum(len(line) + 1 for line in lines[: len(records)]))
        if not records:
            return
        self.plan = records[0]
        try:
            self.slabs = [
                Slab(**{**record, "statistics": VolumeStatistics(**record["statistics"])}) for record in records[1:]
            ]
        except (TypeError, KeyError):
            self.plan, self.slabs = None, []

    def _append(self, record: dict[str, Any]) -> None:
        try:
            descriptor = no_link(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                file.write(json.dumps({**record, _LINE_CRC: zlib.crc32(json.dumps(record).encode())}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write the journal {self.journal}: {error.strerror or error}") from error


def _checked(line: bytes) -> dict[str, Any] | None:
    """The record in a line of the journal, or None if it is not what was written."""
    try:
        record = json.loads(line)
        written = record.pop(_LINE_CRC)
        return record if zlib.crc32(json.dumps(record).encode()) == written else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
