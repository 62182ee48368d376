"""The lock of a working folder: held by one run at a time, and given up when its process ends, however that ends.

The kernel's lock (flock) does that. File systems that have none (some mounts of Lustre, NFS without a lock daemon,
FUSE) get a file instead, which only one process can make: OUT.partial/owner names host and process. One whose process
has ended on this very machine is taken over; of other machines nothing is known, so a person has to remove it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryolithe.errors import OutputError
from cryolithe.machine.processes import process_began

OWNER, _NEXT_OWNER, LOCK = "owner", "owner.next", "lock"
# What flock answers where there is no such thing.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class HeldError(OutputError):
    """Another run that is alive has the folder; the run that waits for it finds what that made."""


def check_folder(path: Path) -> None:
    """Refuse the place of a working folder where something else is.

    Raises:
        OutputError: if it is a link, or no folder.
    """
    if path.is_symlink():
        raise OutputError(f"{path} is a link; links are not followed: remove it or choose another -o")
    if path.exists() and not path.is_dir():
        raise OutputError(
            f"cannot write into {path.parent}: File exists where the folder {path.name} would be; remove it or choose "
            "another -o"
        )


class FolderLock:
    """The lock of one folder, which is made if it is not there.

    Attributes:
        note: what the user should know about how it is locked, or an empty string.

    Raises:
        OutputError: if the folder cannot be made, is a link, or is locked by another run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._own: bytes | None = None
        self._kernel = True
        while not self._tried():
            pass
        self.note = ""
        if not self._kernel:
            self.note = (
                f"The file system of {path.parent} has no locks: {path / OWNER} keeps other runs away from this "
                "output. If this machine fails, remove that file before another one goes on."
            )

    @property
    def held(self) -> bool:
        """Whether it is still ours."""
        return self._descriptor >= 0

    def close(self) -> None:
        """Give up the lock; nothing happens where it was given up before."""
        if not self.held:
            return
        if self._own is not None and _content(self._path / OWNER) == self._own:
            with suppress(OSError):
                (self._path / OWNER).unlink()
        self._own = None
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def _tried(self) -> bool:
        """Try once; False if the folder was removed meanwhile by the run that held it."""
        path = self._path
        check_folder(path)
        try:
            path.mkdir(exist_ok=True)
            try:
                self._descriptor = no_link(path / LOCK, os.O_RDWR | os.O_CREAT)
            except FileNotFoundError:
                return False  # another run has just finished and removed the folder
        except OSError as error:
            raise OutputError(
                f"cannot write into {path.parent}: {error.strerror or error}; choose another -o"
            ) from error
        try:
            held = self._locked() and self._named_here()
        except BaseException:
            self.close()
            raise
        if not held:
            self.close()
        return held

    def _locked(self) -> bool:
        """Lock the folder, one way or the other."""
        self._kernel = True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._kernel = error.errno not in _NO_LOCKS
            if self._kernel:
                raise _held(f"{self._path} is locked", HeldError) from error
        if self._kernel and not os.path.lexists(self._path / OWNER):
            return True
        # A run on a machine that has no locks here may be at work, even where this one has.
        return self._owned()

    def _owned(self) -> bool:
        """Make the file that names the owner, or take over one whose process has ended; False to try again."""
        path, mine = self._path / OWNER, json.dumps(_this_process()).encode()
        try:
            _written(path, mine)
        except FileExistsError:
            found = _content(path)
            if found is None:
                return False
            _refuse_living(path, found)
            if not _replaced(path, found, mine):
                return False
        except FileNotFoundError:
            return False
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another -o") from error
        self._own = mine
        return True

    def _named_here(self) -> bool:
        """Whether the lock is on the file that others will find: a run that ends removes its folder."""
        with suppress(OSError):
            return os.fstat(self._descriptor).st_ino == (self._path / LOCK).stat().st_ino
        return False


def no_link(path: Path, flags: int) -> int:
    """Open a file that is no link; raises OSError for one that is."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _held(why: str, kind: type[OutputError] = OutputError) -> OutputError:
    return kind(f"another run is writing this output ({why}); wait for it or choose another -o")


def _written(path: Path, content: bytes) -> None:
    """Make a file that must not exist yet."""
    descriptor = no_link(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _content(path: Path) -> bytes | None:
    """The first bytes of a small file; None if it is not there, none where it cannot be read."""
    try:
        descriptor = no_link(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError:
        return b""
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)


def _replaced(path: Path, found: bytes, mine: bytes) -> bool:
    """Put our name in the place of an owner that has ended; False if somebody else was faster."""
    coming = path.with_name(_NEXT_OWNER)
    try:
        _written(coming, mine)
    except FileExistsError as error:
        raise _held(f"{coming} is there; if no run is at work, remove that file") from error
    except OSError:
        return False
    if _content(path) != found:
        coming.unlink(missing_ok=True)
        return False
    coming.replace(path)
    return True


def _refuse_living(path: Path, content: bytes) -> None:
    """Raise OutputError unless the owner is a process of this machine that has ended."""
    try:
        owner = json.loads(content)
        host, process, began = owner["host"], int(owner["process"]), owner["began"]
    except (ValueError, ArithmeticError, KeyError, TypeError, RecursionError):
        raise _held(f"{path} does not tell by whom; if no run is at work, remove that file") from None
    if host != socket.gethostname():
        raise _held(f"process {process} on {host}; if that one has ended, remove {path}")
    if process_began(process) is not None and began in (None, process_began(process)):
        raise _held(f"process {process} on this machine, {host}", HeldError)


def _this_process() -> dict[str, Any]:
    """A name of this lock, like no other."""
    process = {"host": socket.gethostname(), "process": os.getpid(), "began": process_began(os.getpid())}
    return {**process, "token": secrets.token_hex(8)}
