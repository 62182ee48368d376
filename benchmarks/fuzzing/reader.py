"""`Parser`: a reader of a kind of file, valid files of that kind, and what its value must fulfil."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Parser:
    """A reader to be fuzzed.

    Attributes:
        name: of the kind of file.
        ending: of its name.
        read: reads a file and asserts what holds for its value.
        seeds: makes valid files of this kind, given a folder for temporary ones.
        native: whether a C library reads the file, which may end the process.
    """

    name: str
    ending: str
    read: Callable[[Path], object]
    seeds: Callable[[Path], list[bytes]]
    native: bool = False


def timeless(mrc: bytes) -> bytes:
    """An MRC file without the time at which it was made, which its first label tells: seeds must always be the same."""
    return mrc[:224] + b"seed".ljust(80) + mrc[304:]


def of_texts(*contents: str) -> Callable[[Path], list[bytes]]:
    """Valid files of these texts."""
    return lambda folder: [content.encode() for content in contents]


def of_files(pattern: str) -> Callable[[Path], list[bytes]]:
    """The repository's files of a pattern."""
    return lambda folder: [path.read_bytes() for path in sorted(ROOT.glob(pattern))]
