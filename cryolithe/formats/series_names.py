"""Which series of a table a file belongs to, told by names: the very name, or the name and what programs add to it.

``Position_1`` is not the series of ``Position_1_2.mrc``, though one name begins with the other: both are names that the
microscope's program gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePath

# Endings of files, also of those that some tables name in place of a series (Warp: TS_1.tomostar).
_ENDING = re.compile(
    r"\.(gz|bz2|mrc|mrcs|st|ali|preali|rec|map|tif|tiff|hdf|h5|zarr|mdoc|tomostar|star|xml|aln|tlt|rawtlt)$",
    re.IGNORECASE,
)
# What programs add to the name of a binned copy.
_BINNED = r"bin(?P<bin>\d+)|\d+(?:\.\d+)?(?:apx|A)"
_COPY = re.compile(rf"_({_BINNED})$", re.IGNORECASE)
# What programs add to a name: IMOD, AreTomo (and its halves), RELION's halves, Warp's pixel size, denoisers, ourselves.
_ADDED = re.compile(
    r"_(st|ali|aligned|preali|rec|full|vol|2nd|evn|odd|even|half1|half2|ctf|fbp|sirt|sart|wbp|den|denoised|samba|n2n|"
    rf"confidence|error|unsupported|truth|{_BINNED})$",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"^rec_", re.IGNORECASE)  # RELION's volumes


def matching_name(names: Iterable[str], file_name: str) -> str | None:
    """The name among ``names`` that is that of a file, or None.

    The name itself is looked for first, then what is left of it when one addition after the other is taken off.

    Args:
        names: of series, as a table has them.
        file_name: of a stack or a volume.
    """
    known = {without_ending(name): name for name in reversed(list(names))}
    return next((known[name] for name in possible_names(file_name) if name in known), None)


def tells_series(file_name: str) -> bool:
    """Whether a file is called by anything but what it is: no for ``rec.mrc`` and ``fbp_denoised.mrc``."""
    words = f"_{without_ending(file_name)}"
    while found := _ADDED.search(words):
        words = words[: found.start()]
    return words.lower() not in ("", "_tomogram", "_tomo", "_volume", "_tilts", "_stack")


def additions(file_name: str) -> tuple[str, ...]:
    """What programs added to a name, in small letters, also by a file's ending (.ali)."""
    name = PurePath(file_name).name
    found = []
    while match := _ENDING.search(name) or _ADDED.search(name):
        found.append(match.group(1).lower())
        name = name[: match.start()]
    return tuple(found)


def whole_stem(stem: str) -> str:
    """The name of the stack that one is a binned copy of, without endings; its own where it is none."""
    while found := _COPY.search(stem):
        stem = stem[: found.start()]
    return stem


def binning(file_name: str) -> int:
    """By how much a stack or its transforms are binned, as the name says.

    >>> binning("ts_01_ali_bin4.mrc")
    4
    """
    marks = [_COPY.search(f"_{added}") for added in additions(file_name)]
    return math.prod(int(mark["bin"]) for mark in marks if mark and mark["bin"]) or 1


def is_prealigned(file_name: str) -> bool:
    """Whether a stack is called as IMOD calls the one whose images are shifted, and not yet turned or stretched."""
    found = additions(file_name)
    return "preali" in found and not {"ali", "aligned"} & set(found)


def without_ending(name: str) -> str:
    """A name without its folder and the endings of files."""
    name = PurePath(name).name
    while found := _ENDING.search(name):
        name = name[: found.start()]
    return name


def possible_names(file_name: str) -> Iterator[str]:
    """The names of the series that a file may be of: its own, then without one addition after the other."""
    name = without_ending(file_name)
    while True:
        yield name
        if _BEFORE.match(name):
            yield _BEFORE.sub("", name)
        found = _ADDED.search(name)
        if not found:
            return
        name = name[: found.start()]
