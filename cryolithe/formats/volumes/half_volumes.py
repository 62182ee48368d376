"""Volumes of even and of odd images or frames that belong together, told by the names that the field's programs give.

AreTomo: ``base_EVN_Vol.mrc``, ``base_ODD_Vol.mrc``. RELION: ``rec_base_half1.mrc``, ``rec_base_half2.mrc``. Warp:
``even/base_10.00Apx.mrc``, ``odd/base_10.00Apx.mrc``. IMOD's users: ``base_even_rec.mrc``, ``base_odd_rec.mrc``.
This program: ``base_rec_EVN.mrc``, ``base_rec_ODD.mrc``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.formats.files import MRC_VOLUME_ENDINGS, unreadable
from cryolithe.formats.series_names import Half, additions, half_of
from cryolithe.formats.volumes.ome_zarr_reader import is_ome_zarr
from cryolithe.formats.volumes.tiff import ENDINGS
from cryolithe.formats.volumes.volume_file import open_volume_file

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


def find_half_volumes(folder: Path) -> HalfVolumes:
    """Find pairs of half volumes in a folder and in the folders directly inside it; headers are read.

    Raises:
        InputError: if the folder cannot be read, or two files may both be the same half.
    """
    halves: dict[tuple[str, Half], dict[bool, Path]] = {}
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
        place, told = half
        sides = halves.setdefault((place, told if told.first else told.other), {})
        if told.first in sides:
            raise InputError(
                f"{sides[told.first]} and {path} could both be the {'first' if told.first else 'second'} half of one "
                "volume; move one away, or give the halves with --half1 and --half2"
            )
        sides[told.first] = path
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


def _half_of(path: Path, root: Path) -> tuple[str, Half] | None:
    """Which half of what a file is, by its name, else by that of its folder; and where the other one may lie."""
    if half := half_of(path.name):
        return path.parent.relative_to(root).as_posix(), half
    half = half_of(path.parent.name)
    return (f"*/{path.name}", half) if half and not half.whole and path.parent != root else None
