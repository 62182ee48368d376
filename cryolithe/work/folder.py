"""The working folder of a run: what survives a crash, and what tells a later run where to go on.

    OUT.partial/
        lock            held while a run is alive
        owner           who holds it, on file systems without locks (`locking`)
        journal.jsonl   first line: what is being done (plan); then one line for each finished part (entry)
        commit.json     which file is about to become the output
        ...             what the work puts there: parts of the result so far

An entry's line is written after its values are on the disk, so what the journal says is done is done. Each line has a
checksum of itself, and that of its part's values: what a failing disk or another program changed is made anew. Links
are not followed: a folder or file that is one is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import OutputError
from cryolithe.work.locking import LOCK, OWNER, FolderLock, no_link

_LINE_CRC = "line_crc32"

E = TypeVar("E")  # an entry: a dataclass of plain values, with a key that names its part and the checksum of its values


def checksum(values: NDArray[Any]) -> int:
    """CRC-32 of values as stored, in this order."""
    return zlib.crc32(np.ascontiguousarray(values).data)


class WorkFolder(Generic[E]):
    """The working folder of one output, locked for this process.

    Args:
        path: the folder.
        entry: makes an entry of what `dataclasses.asdict` made of it; TypeError or KeyError where it is none.

    Attributes:
        path: the folder.
        plan: what is being done, as plain values; None until `begin`.
        entries: finished parts in the order in which they were made.

    Raises:
        OutputError: if the folder cannot be made, is a link, or is locked by another run.
    """

    def __init__(self, path: Path, entry: Callable[..., E] = dict) -> None:  # type: ignore[assignment]
        self.path = path
        self.plan: dict[str, Any] | None = None
        self.entries: list[E] = []
        self._entry = entry
        self._lock = FolderLock(path)
        self._read()

    @property
    def note(self) -> str:
        """What the user should know about how the folder is locked, or an empty string."""
        return self._lock.note

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
        self.plan, self.entries = None, []
        self.journal.unlink(missing_ok=True)

    def begin(self, plan: dict[str, Any]) -> None:
        """Start the journal anew."""
        self.forget()
        self.plan = plan
        self._append(plan)

    def settle(self, plan: dict[str, Any]) -> None:
        """Write the first line anew, now that more of it is known; finished parts stay."""
        self._begin_with(plan, self.entries)

    def keep(self, intact: Callable[[E], bool]) -> bool:
        """Drop the entries whose values are not those that were written; return whether any was dropped."""
        kept = [entry for entry in self.entries if intact(entry)]
        if len(kept) == len(self.entries):
            return False
        assert self.plan is not None
        self._begin_with(self.plan, kept)
        return True

    def done(self, entry: E) -> None:
        """Note a part whose values are on the disk."""
        self._append(asdict(entry))  # type: ignore[call-overload]
        self.entries.append(entry)

    def remove(self) -> None:
        """Delete the folder and give up the lock; nothing happens where that was given up before."""
        if not self._lock.held:
            return
        try:
            # What `recover` looks for goes last: so a removal that is cut short is completed by the next run.
            last = (self.commit, self.path / LOCK, self.path / OWNER)
            for path in self.path.glob("*"):
                if path not in last:
                    delete(path)
            for path in last:
                delete(path)
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
            self.entries = [self._entry(**record) for record in records[1:]]
        except (TypeError, KeyError):
            self.plan, self.entries = None, []

    def _begin_with(self, plan: dict[str, Any], entries: list[E]) -> None:
        self.begin(plan)
        for entry in entries:
            self.done(entry)

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


def delete(path: Path) -> None:
    """Delete a file or a folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
