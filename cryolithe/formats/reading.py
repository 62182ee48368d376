"""`Reading`: what was read of the files of a command, each file once however many ask for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from cryolithe.errors import InputError
from cryolithe.files.hashing import file_sha256
from cryolithe.formats.files import COLLECTED

P = ParamSpec("P")
T = TypeVar("T")
State = tuple[int, int, int]
# Contents that are kept for other parsers; beyond that, the oldest are forgotten.
_KEPT_BYTES = 64_000_000


def file_state(path: Path) -> State | None:
    """Inode, size and time of a file, which tell whether it has changed; None where it is not there."""
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def changed_error(path: Path, doing: str, then: str = "run again when it is complete") -> InputError:
    """Return the error for an input that is no more as it was.

    Args:
        path: the file.
        doing: what was done meanwhile, for the message: "it was measured".
        then: what to do.
    """
    return InputError(f"the input {path} changed while {doing}; {then}")


def refuse_changed(states: Mapping[Path, State | None], doing: str) -> None:
    """Raise InputError, which names the file, where one is no more as it was.

    Args:
        states: of files, when they were found.
        doing: what was done meanwhile, for the message: "it was measured".
    """
    for path, state in states.items():
        if file_state(path) != state:
            raise changed_error(path, doing)


@dataclass(frozen=True)
class _Answer:
    """What a parser gave, or what it refused the file with."""

    value: Any
    error: InputError | None = None


class Reading:
    """Calls parsers, and remembers their answers for as long as the files stay as they are.

    Several parsers of a file get the content that the first of them read, and so the same bytes.

    A copy that is sent to another process has forgotten everything: it may be on another machine.
    """

    def __init__(self) -> None:
        self._states: dict[Path, State | None] = {}
        self._answers: dict[Path, dict[Any, _Answer]] = {}
        self._hashes: dict[Path, str] = {}
        self._contents: dict[Path, bytes] = {}
        self._kept_bytes = 0

    def __reduce__(self) -> tuple[type[Reading], tuple[()]]:
        return Reading, ()

    def __call__(self, parse: Callable[Concatenate[Path, P], T], path: Path, *args: P.args, **more: P.kwargs) -> T:
        """What ``parse(path, ...)`` returns, or raises as InputError: it is called for the first of equal questions.

        Args:
            parse: reads a file, and nothing else.
            path: the file.
            args: more arguments, hashable.
            more: likewise.
        """
        self._forget_if_changed(path)
        answers, key = self._answers.setdefault(path, {}), (parse, args, tuple(more.items()))
        if key not in answers:
            contents = {path: self._contents[path]} if path in self._contents else {}
            token = COLLECTED.set(contents)
            try:
                answers[key] = _Answer(parse(path, *args, **more))
            except InputError as error:
                answers[key] = _Answer(None, error)
            finally:
                COLLECTED.reset(token)
            if path in contents and path not in self._contents:
                self._hashes[path] = hashlib.sha256(contents[path]).hexdigest()
                self._keep(path, contents[path])
        answer = answers[key]
        if answer.error is not None:
            raise type(answer.error)(str(answer.error)) from answer.error
        value: T = answer.value
        return value

    def sha256(self, path: Path) -> str:
        """The SHA-256 of a file: of the very bytes that were parsed, where it was.

        Raises:
            OSError: if it cannot be read.
        """
        self._forget_if_changed(path)
        if path not in self._hashes:
            self._hashes[path] = file_sha256(path)
        return self._hashes[path]

    def _keep(self, path: Path, content: bytes) -> None:
        if len(content) > _KEPT_BYTES:
            return
        self._contents[path] = content
        self._kept_bytes += len(content)
        while self._kept_bytes > _KEPT_BYTES:
            self._kept_bytes -= len(self._contents.pop(next(iter(self._contents))))

    def _forget_if_changed(self, path: Path) -> None:
        state = file_state(path)
        if state is None or self._states.get(path) != state:
            self._states[path] = state
            self._answers.pop(path, None)
            self._hashes.pop(path, None)
            self._kept_bytes -= len(self._contents.pop(path, b""))
