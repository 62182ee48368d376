"""Names of files: those that stand in files, some of which no system takes, and short ones that tell files apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def exists(path: Path) -> bool:
    """Whether a name that stands in a file is that of anything; no for names that the system does not take."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether a name that stands in a file is that of a file; no for names that the system does not take."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a name that stands in a file is that of a folder; no for names that the system does not take."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def distinct_names(files: Sequence[Path]) -> list[str]:
    """What to call each file: its name without the ending, with as many of its folders as tell it from the others.

    >>> distinct_names([Path("a/ts_1.mrc"), Path("b/ts_1.mrc"), Path("b/ts_2.mrc")])
    ['a/ts_1', 'b/ts_1', 'ts_2']
    """
    return shortest_distinct(file_words(files))


def file_words(files: Sequence[Path]) -> list[tuple[str, ...]]:
    """The folders of each file, and its name without the ending; with it where two of one folder differ by theirs."""
    paths = [file.absolute() for file in files]
    stems = Counter((path.parent, path.stem) for path in paths)
    return [(*path.parts[1:-1], path.stem if stems[path.parent, path.stem] == 1 else path.name) for path in paths]


def shortest_distinct(words: Sequence[tuple[str, ...]]) -> list[str]:
    """Of the folders and the name of each file, as many of the last as tell it from the others.

    >>> shortest_distinct([("net",), ("run1", "net"), ("run2", "net"), ("run2", "other")])
    ['net', 'run1/net', 'run2/net', 'other']
    """
    names = []
    for own in words:
        for length in range(1, len(own) + 1):
            if sum(other[-length:] == own[-length:] for other in words) == 1:
                break
        names.append("/".join(own[-length:]))
    return names
