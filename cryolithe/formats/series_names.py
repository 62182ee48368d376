"""Which series of a table a file belongs to, told by names: the very name, or the name and what programs add to it.

``Position_1`` is not the series of ``Position_1_2.mrc``, though one name begins with the other: both are names that the
microscope's program gives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

# Endings of files, also of those that some tables name in place of a series (Warp: TS_1.tomostar).
_ENDING = re.compile(
    r"\.(gz|bz2|mrc|mrcs|st|ali|preali|rec|map|tif|tiff|hdf|h5|zarr|mdoc|tomostar|star|xml|aln|tlt|rawtlt)$",
    re.IGNORECASE,
)
# What programs add to the name of a binned copy.
_BINNED = r"bin(?P<bin>\d+)|\d+(?:\.\d+)?(?:apx|A)"
_COPY = re.compile(rf"_({_BINNED})$", re.IGNORECASE)
# What is made of even and odd images or frames, or of two halves: AreTomo, RELION, IMOD's users.
_HALF_WORDS = r"evn|even|odd|half[_-]?[12]"
_HALF = re.compile(rf"(?:^|[_.-])({_HALF_WORDS})(?=$|[_.-])", re.IGNORECASE)
_SECOND = ("odd", "2")
# What programs add to a name: IMOD, AreTomo, Warp's pixel size, denoisers, ourselves; and the halves of all of them.
_ADDED = re.compile(
    r"(?:_(st|ali|aligned|preali|rec|full|vol|2nd|ctf|fbp|sirt|sart|wbp|den|denoised|samba|n2n|"
    rf"confidence|error|unsupported|truth|{_BINNED})|[_.-]({_HALF_WORDS}))$",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"^rec_", re.IGNORECASE)  # RELION's volumes


@dataclass(frozen=True)
class Half:
    """Which half of what a file is, as its name says.

    Attributes:
        before: what stands before the word for the half, without what joins them.
        after: likewise, with what joins them.
        kind: of even and odd "frames", or of a first and a second "half".
        first: whether it is the even or the first one.
    """

    before: str
    after: str
    kind: Literal["frames", "half"]
    first: bool

    @property
    def other(self) -> Half:
        """The other half of the same."""
        return replace(self, first=not self.first)

    @property
    def whole(self) -> str:
        """The name without the word; empty where it says nothing else."""
        return self.before + self.after if self.before else self.after[1:]


def is_other_half(a: str, b: str) -> bool:
    """Whether two names are those of the two halves of one stack."""
    one, other = half_of(a), half_of(b)
    return one is not None and other is not None and one.other == other


def half_of(name: str) -> Half | None:
    """Which half a name says; of several words for halves the last one counts.

    Args:
        name: of a file or a folder; endings stay in ``after``.

    >>> half_of("ts_EVN_Vol")
    Half(before='ts', after='_Vol', kind='frames', first=True)
    """
    found = next(reversed(list(_HALF.finditer(name))), None)
    if found is None:
        return None
    word = found[1].lower()
    kind: Literal["frames", "half"] = "half" if word.startswith("half") else "frames"
    return Half(name[: found.start()], name[found.end() :], kind, not word.endswith(_SECOND))


def without_half(stem: str) -> str:
    """A name without what it says of halves: ``ts_EVN_Vol`` is ``ts_Vol``; a name that says nothing else stays."""
    half = half_of(stem)
    return (half.whole if half else "") or stem


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
        found.append(match[match.lastindex or 0].lower())
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
