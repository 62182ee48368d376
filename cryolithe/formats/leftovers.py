"""Temporary files beside outputs: their names tell by whom, so that what a killed process leaves is removed later.

``.NAME.PROCESS.BEGAN.HOST.TOKEN.KIND``, numbers in base 16. Of a process on another machine, or in another container,
nothing is known: its files stay. A process number that was given anew is told by when the process began.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from cryolithe.machine.processes import process_began

_OWNED = re.compile(r"\.([0-9a-f]{1,8})\.([0-9a-f]{1,16})\.([0-9a-f]{6})\.[0-9a-f]{6}\.[a-z]+")
# Of a target's name, in names of temporary files; what follows has at most 50.
_LONGEST_BYTES = 190


def temporary_beside(target: Path, kind: str = "partial") -> Path:
    """A name for what will become ``target`` or helps to make it, like no other, in the same folder.

    Args:
        target: the output.
        kind: ending, small letters.
    """
    process = os.getpid()
    owner = f"{process:x}.{process_began(process) or 0:x}.{_host()}"
    return target.with_name(f"{_begin(target)}.{owner}.{secrets.token_hex(3)}.{kind}")


def remove_leftovers(target: Path) -> None:
    """Remove temporary files and folders of ``target`` whose process was on this machine and has ended."""
    with suppress(OSError), os.scandir(target.parent) as inside:
        for path in [Path(entry.path) for entry in inside if entry.name.startswith(f"{_begin(target)}.")]:
            if _ended(target, path.name) is not True:
                continue
            with suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def may_be_in_use(target: Path, temporary: Path) -> bool:
    """Whether a temporary file of ``target`` tells by whom it is, and that one is not known to have ended."""
    return _ended(target, temporary.name) is False


def _begin(target: Path) -> str:
    """How names of temporary files of a target begin; file systems end names at 255 bytes."""
    name = os.fsencode(target.name)
    if len(name) <= _LONGEST_BYTES:
        return f".{target.name}"
    kept = name[: _LONGEST_BYTES - 10].decode(errors="ignore")
    return f".{kept}-{hashlib.sha256(name).hexdigest()[:8]}"


def _ended(target: Path, name: str) -> bool | None:
    """Whether the process that a name tells has ended; None where the name tells none."""
    found = _OWNED.fullmatch(name.removeprefix(_begin(target)))
    if not found:
        return None
    process, began = int(found[1], 16), int(found[2], 16)
    if found[3] != _host():
        return False
    now = process_began(process)
    return now is None or (began != 0 and now not in (0, began))


def _host() -> str:
    """This machine, and which numbers its processes have: containers may share the name of their host."""
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode(errors="surrogateescape")).hexdigest()[:6]
