"""The working folder of a run: what survives a crash, and what tells a later run where to go on.

    OUT.partial/
        lock            held while a run is alive
        journal.jsonl   first line: what is being done (plan); then one line for each finished slab
        stack.f32       the prepared tilt images
        volume.mrc      the volume so far
        finished.*      the volume in the type, order or format asked for, where that differs
        sidecar.json    its record, when it is finished
        commit.json     which file is about to become the output

A slab's line is written after its voxels are on the disk, so what the journal says is done is done. Links are not
followed: a folder or file that is one is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryolithe.errors import OutputError
from cryolithe.formats import VolumeStatistics


@dataclass(frozen=True)
class Slab:
    """A finished slab: its rows, its voxels' statistics, and the batch size it was made with."""

    start: int
    stop: int
    voxels: int
    statistics: VolumeStatistics
    batch: int


class WorkFolder:
    """The working folder of one output, locked for this process.

    Attributes:
        path: the folder.
        plan: what is being done, as plain values; None until `begin`.
        slabs: finished slabs in the order in which they were made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan: dict[str, Any] | None = None
        self.slabs: list[Slab] = []
        self._lock = _locked_folder(path)
        self._read()

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

    def done(self, slab: Slab) -> None:
        """Note a slab whose voxels are on the disk."""
        self.slabs.append(slab)
        self._append(asdict(slab))

    def remove(self) -> None:
        """Delete the folder and give up the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def release(self) -> None:
        """Give up the lock and keep the folder for a later run."""
        os.close(self._lock)

    def _read(self) -> None:
        """Read an earlier run's journal; a last line that was cut off by a crash is cut off the file too."""
        try:
            lines = self.journal.read_bytes().split(b"\n")
        except OSError:
            return
        records = []
        for line in lines[:-1]:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        os.truncate(self.journal, sum(len(line) + 1 for line in lines[: len(records)]))
        if not records or not isinstance(records[0], dict):
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
            descriptor = _no_link(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write the journal {self.journal}: {error.strerror or error}") from error


def _no_link(path: Path, flags: int) -> int:
    """Open a file that is no link; raises OSError for one that is."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _locked_folder(path: Path) -> int:
    """Make the folder and lock it; return the lock's descriptor, which holds it until it is closed.

    Raises:
        OutputError: if the folder cannot be made, is a link, or is locked by another run.
    """
    while True:
        if path.is_symlink():
            raise OutputError(f"{path} is a link; links are not followed: remove it or choose another -o")
        try:
            path.mkdir(exist_ok=True)
            try:
                lock = _no_link(path / "lock", os.O_RDWR | os.O_CREAT)
            except FileNotFoundError:
                continue  # another run has just finished and removed the folder
        except OSError as error:
            raise OutputError(
                f"cannot write into {path.parent}: {error.strerror or error}; choose another -o"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise OutputError(
                f"another run is writing this output ({path} is locked); wait for it or choose another -o"
            ) from error
        # A run that ends removes its folder: the lock must be on the file that others will find there.
        try:
            if os.fstat(lock).st_ino == (path / "lock").stat().st_ino:
                return lock
        except OSError:
            pass
        os.close(lock)
