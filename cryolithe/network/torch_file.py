"""Restricted reading of a ``torch.save`` file: tensors and plain values only, nothing is executed.

Three walls, each enough by itself against a hostile file:

1. The pickle's instructions are listed without running them (`pickletools`); every class or function that they name
   must be one of those below, and instructions that could make up a name are refused.
2. ``torch.load(weights_only=True)`` interprets the pickle with an unpickler that calls nothing else either.
3. Foreign classes that a published checkpoint does name are replaced by stand-ins that only keep what they are given.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch

from cryolithe.errors import ModelError

LIMIT_BYTES = 4_000_000_000
PICKLE_LIMIT_BYTES = 200_000_000

# What torch itself needs to rebuild tensors.
_STORAGES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
TENSOR_NAMES = frozenset(
    {
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "collections.OrderedDict",
        "__builtin__.set",
        "builtins.set",
        "_codecs.encode",  # of the bytes in a NumPy number
        *(f"torch.{kind}Storage" for kind in _STORAGES),
    }
)
# NumPy numbers, as in records of losses: read over, never rebuilt.
NUMBER_NAMES = frozenset(
    {"numpy.dtype", "numpy.ndarray"}
    | {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")}
)


class StandIn:
    """Takes the place of an object of a foreign class and keeps its state, unused.

    Attributes:
        state: what the object would have been restored from.
    """

    def __new__(cls, *args: object) -> StandIn:
        """Ignore what the real class would have been called with."""
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Number(StandIn):
    """In the place of NumPy numbers."""


def read_torch_file(path: Path, foreign: tuple[str, ...]) -> Any:
    """Read a file of ``torch.save``.

    Args:
        path: the file.
        foreign: full names of the only further classes that may occur; each object of theirs becomes a `StandIn`.

    Raises:
        ModelError: if the file is no such file or damaged, or names anything else (says what).
    """
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise ModelError(f"{path} has more than {LIMIT_BYTES / 1e9:g} GB; expected a few hundred MB")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    _check_names(_pickle_of(content, path), TENSOR_NAMES | NUMBER_NAMES | set(foreign), path)
    stand_ins: list[Any] = [(StandIn, name) for name in foreign] + [(_Number, name) for name in sorted(NUMBER_NAMES)]
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can fail anywhere in the reader
        raise ModelError(f"{path} is damaged: {_first_line(error)}") from error


# What a damaged archive shows as.
_DAMAGES = (
    zipfile.BadZipFile, OSError, ValueError, OverflowError, EOFError, NotImplementedError, RuntimeError
)  # fmt: skip


def _pickle_of(content: bytes, path: Path) -> bytes:
    """The one pickle of the archive, which must be as torch writes it: entries stored, no name twice."""
    if content[:2] != b"PK":
        raise ModelError(
            f"{path} is not a torch checkpoint: expected a zip archive as torch writes since version 1.6, found "
            f"{'an empty file' if not content else f'a file that begins with {content[:8]!r}'}"
        )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = [entry.filename.lower() for entry in entries]  # torch's reader may not tell case
            pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
            if len(set(names)) < len(names) or [p.filename.rpartition("/")[2] for p in pickles] != ["data.pkl"]:
                raise ModelError(
                    f"{path} is not a checkpoint of torch.save: expected one data.pkl in it, found "
                    f"{', '.join(p.filename for p in pickles) or 'none'}"
                )
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ModelError(f"{path} has compressed entries; torch.save writes none, so it was not made by it")
            if pickles[0].file_size > PICKLE_LIMIT_BYTES:
                raise ModelError(f"{path}: its pickle has more than {PICKLE_LIMIT_BYTES / 1e6:g} MB")
            return archive.read(pickles[0])
    except _DAMAGES as error:
        raise ModelError(f"{path} is damaged (cut short?): {_first_line(error)}; copy it again") from error


def _check_names(pickled: bytes, allowed: frozenset[str] | set[str], path: Path) -> None:
    """Raise ModelError if a pickle names anything that is not allowed; nothing of it is run."""
    texts = ["", ""]
    try:
        for instruction, argument, _ in pickletools.genops(pickled):
            name = ""
            if isinstance(argument, str):
                texts = [texts[1], argument]
            if instruction.name in ("GLOBAL", "INST"):
                name = str(argument).replace(" ", ".")
            elif instruction.name == "STACK_GLOBAL":
                name = ".".join(texts)
            elif instruction.name in ("EXT1", "EXT2", "EXT4"):
                name = f"extension {argument}"
            # Only GLOBAL tells its name for certain.
            if name and not (instruction.name == "GLOBAL" and name in allowed):
                raise ModelError(
                    f"{path} wants '{name}', which is no part of a published checkpoint; nothing was executed. "
                    "Do not use this file unless you know who made it"
                )
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise ModelError(f"{path} is damaged: its pickle cannot be read: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
