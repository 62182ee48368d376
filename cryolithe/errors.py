"""The exception tree. Every message says what was expected, what was found, and what to do.

CryoLitheError            shown by the command line as one line, exit code 2
+-- InputError            a file or array that the user gave is not usable
|   +-- FileFormatError   ... because its bytes are not what its kind of file should hold
+-- GeometryError         angles, shapes or centres that describe no tomographic experiment
+-- SettingsError         an option or configuration key that is unknown or out of range
+-- ModelError            a network or its weights cannot be found, read or used
+-- DeviceError           the asked-for device or precision is not available
+-- OutputError           the result cannot be written where it was asked for
+-- ResourceError         memory or disk space does not suffice

CryoLitheWarning          what the library warns of, where the command prints a warning
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

# A message may quote what a file holds, or another library that does; beyond this nobody reads it.
MOST_CHARACTERS = 2000


def in_one_line(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text whose line ends and terminal controls are escaped, of at most ``most`` (60 or more) characters.

    The beginning says what is wrong, the end what to do: what is too much is left out between them.

    >>> in_one_line("expected a\\nnumber, found " + 500 * "x" + "; give a number", 70)
    'expected a\\\\nnumber, fou ... 495 characters ... xxxxxxxx; give a number'
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    if len(text) > most:
        room = (most - len(f" ... {len(text)} characters ... ")) // 2
        text = f"{text[:room]} ... {len(text) - 2 * room} characters ... {text[-room:]}"
    return text


def how_to_write(error: OSError) -> str:
    """What gives a file the room that it did not find; empty where the error is another."""
    if error.errno == errno.EFBIG:
        return "raise the limit on the size of a file (ulimit -f)"
    return "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""


class CryoLitheError(Exception):
    """Base of all errors that a user can mend; ``str(error)`` is one complete line, of a length that can be read."""

    def __str__(self) -> str:
        return in_one_line(super().__str__())


class InputError(CryoLitheError):
    """A file or array given by the user is not usable."""


class FileFormatError(InputError):
    """A file's bytes are not what a file of its kind should hold."""


class GeometryError(CryoLitheError):
    """Angles, shapes or centres that describe no tomographic experiment."""


class SettingsError(CryoLitheError):
    """An option or configuration key is unknown, or its value is out of range."""


class ModelError(CryoLitheError):
    """A network or its weights cannot be found, read or used."""


class DeviceError(CryoLitheError):
    """The requested device or precision is not available."""


class OutputError(CryoLitheError):
    """The result cannot be written where it was asked for."""


class ResourceError(CryoLitheError):
    """Memory or disk space does not suffice."""


class CryoLitheWarning(UserWarning):
    """Something that a user of the library must know about a result; the command prints it."""

    def __str__(self) -> str:
        return in_one_line(super().__str__())


def nearest_name(name: object, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the known name most like ``name``, or an empty string.

    A key of YAML need be no text.
    """
    matches = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" (did you mean '{matches[0]}'?)" if matches else ""


def reason(error: Exception) -> str:
    """What another library says of a file, for a message: it may quote the file at any length."""
    return in_one_line(" ".join(str(error).split()), 200)


def shown(value: object) -> str:
    """A value for a message: in one line of at most 60 characters.

    >>> shown({"a": "b\\nc"})
    "{'a': 'b\\\\nc'}"
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
