"""Volumes of even and of odd images or frames that belong together, told by the names that the field's programs give.

AreTomo: ``base_EVN_Vol.mrc``, ``base_ODD_Vol.mrc``. RELION: ``rec_base_half1.mrc``, ``rec_base_half2.mrc``. Warp:
``even/base_10.00Apx.mrc``, ``odd/base_10.00Apx.mrc``. IMOD's users: ``base_even_rec.mrc``, ``base_odd_rec.mrc``.
This program: ``base_rec_EVN.mrc``, ``base_rec_ODD.mrc``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.formats.files import MRC_VOLUME_ENDINGS, unreadable
from cryolithe.formats.ome_zarr_reader import is_ome_zarr
from cryolithe.formats.series_names import additions
from cryolithe.formats.tiff import ENDINGS
from cryolithe.formats.volume_file import open_volume_file

HALF = re.compile(r"(?:^|[_.-])(evn|even|odd|half[_-]?[12])(?=$|[_.-])", re.IGNORECASE)
_FIRST, _SECOND = {"evn": "frames", "even": "frames", "half1": "half"}, {"odd": "frames", "half2": "half"}
_MADE_OF_HALVES = {"n2n", "samba", "den", "denoised", "confidence", "error", "unsupported"}


@dataclass(frozen=True)
class HalfVolumes:
    """What was found in a folder.

    Attributes:
        pairs: volumes of even and odd images or frames, in the order of their names.
        left_out: files that are called halves but are in no pair, with the reason.
    """

    pairs: tuple[tuple[Path, Path], ...]
    left_out: tuple[tuple[Path, str], ...]


@dataclass(frozen=True)
class _Half:
    """Whose half a file is, and which."""

    whole: str
    first: bool


def without_half(stem: str) -> str:
    """A name without what it says of halves: ``ts_EVN_Vol`` is ``ts_Vol``; a name that says nothing else stays."""
    return HALF.sub("", stem).strip("_.-") or stem


def find_half_volumes(folder: Path) -> HalfVolumes:
    """Find pairs of half volumes in a folder and in the folders directly inside it; headers are read.

    Raises:
        InputError: if the folder cannot be read, or two files may both be the same half.
    """
    halves: dict[str, dict[bool, Path]] = {}
    left_out: list[tuple[Path, str]] = []
    unsure: set[Path] = set()
    for path in _volumes(folder):
        if not (half := _half_of(path, folder)):
            continue
        content = open_volume_file(path).told.content
        if content == "stack":
            left_out.append((path, "a stack of images"))
            continue
        if content == "unknown":
            unsure.add(path)
        sides = halves.setdefault(half.whole, {})
        if half.first in sides:
            raise InputError(
                f"{sides[half.first]} and {path} could both be the {'first' if half.first else 'second'} half of one "
                "volume; move one away, or give the halves with --half1 and --half2"
            )
        sides[half.first] = path
    left_out += [(p, "its other half is missing") for s in halves.values() if len(s) == 1 for p in s.values()]
    pairs = [(sides[True], sides[False]) for sides in halves.values() if len(sides) == 2]
    sure = [pair for pair in pairs if not unsure & set(pair)]
    if sure:  # what does not say what it is may be stacks, which lie beside the volumes that were made of them
        left_out += [(p, "not known to be a volume") for pair in pairs if pair not in sure for p in pair]
    return HalfVolumes(tuple(sure or pairs), tuple(sorted(left_out)))


def _volumes(folder: Path) -> Iterable[Path]:
    """Files that may be volumes, sorted, here and one level below."""
    try:
        inside = sorted(folder.iterdir())
        below = [sub for sub in inside if sub.is_dir() and not is_ome_zarr(sub) and sub.suffix != ".partial"]
        deeper = [path for sub in below if os.access(sub, os.R_OK | os.X_OK) for path in sorted(sub.iterdir())]
    except OSError as error:
        raise unreadable(folder, error) from error
    for path in (*inside, *deeper):
        if path.name.startswith(".") or _MADE_OF_HALVES & set(additions(path.name)):
            continue
        named = path.suffix.lower() in (*MRC_VOLUME_ENDINGS, *ENDINGS)
        if (named and path.is_file()) or (path.is_dir() and is_ome_zarr(path)):
            yield path


def _half_of(path: Path, root: Path) -> _Half | None:
    """Which half of what a file is, by its name, else by that of its folder."""
    place = path.parent.relative_to(root).as_posix()
    if found := _told(path.name):
        word, rest = found
        kind, first = (_FIRST[word], True) if word in _FIRST else (_SECOND[word], False)
        return _Half(f"{place}/{rest} {kind}", first)
    folder = path.parent.name.lower()
    if path.parent == root or folder not in (*_FIRST, *_SECOND):
        return None
    kind, first = (_FIRST[folder], True) if folder in _FIRST else (_SECOND[folder], False)
    return _Half(f"*/{path.name} {kind}", first)


def _told(name: str) -> tuple[str, str] | None:
    """Which half a name says, and the name without that."""
    found = HALF.search(name)
    if found is None:
        return None
    return re.sub("[_-]", "", found.group(1).lower()), name[: found.start()] + "*" + name[found.end() :]
