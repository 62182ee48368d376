"""Of what pixels images are that a table of RELION is given for: those which RELION aligned, or a binned copy's.

``rlnTomoTiltSeriesPixelSize`` is that of the images that were aligned. RELION takes it whatever their headers say,
which are often wrong. Sizes in pixels tell as well: ``rlnTomoSizeX`` and ``Y`` are the volume's, which mostly has the
width and the height of the images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.formats.stacks.mrc import read_mrc

SAME_MULTIPLE = 0.02  # of a whole multiple, within which pixels are one
FAR_LARGER = 1.3  # than the volume, which may be wider than images, or a part of them
WIDTH, HEIGHT = "rlnTomoSizeX", "rlnTomoSizeY"
_WITH_HEADERS = (".mrc", ".mrcs", ".st", ".ali")


@dataclass(frozen=True)
class Images:
    """What is known of the images that a table is given for.

    Attributes:
        pixel_angstrom: by setting or header, or None.
        asked: whether the user says so, which is not doubted.
        shape: pixels ``(y, x)``, or None where they are not known.
        listed: whether they are the very files, one each, that the table lists.
        named: whether they are the stack that the table names.
    """

    pixel_angstrom: float | None
    asked: bool = False
    shape: tuple[int, int] | None = None
    listed: bool = False
    named: bool = False


@dataclass(frozen=True)
class Pixels:
    """What is taken for the pixels of such images.

    Attributes:
        angstrom: their size.
        binned: how many times the table's they are.
        of_table: whether the table's size is taken against that of the header.
    """

    angstrom: float
    binned: int
    of_table: bool = False


def named_stack(stack: Path) -> Images:
    """What the header says of a stack that a table names, or nothing where it cannot be read."""
    if stack.suffix.lower() not in _WITH_HEADERS:
        return Images(None, listed=True)
    try:
        mrc = read_mrc(stack)
    except InputError:
        return Images(None, named=True)  # told when the series is looked at
    height, width = mrc.data.shape[-2:]
    return Images(mrc.voxel_size_angstrom, shape=(height, width), named=True)


def pixels_of(images: Images, of_table: float, series: Mapping[str, str]) -> Pixels | None:
    """The pixels of images by those that RELION aligned; None where what is known does not fit together.

    Images of the width and height that the table tells are those that were aligned; of a whole part of both, a copy
    binned by that, if their pixels are as many times as large. Where sizes tell nothing, pixels alone do. A stack that
    the table names is the one that was aligned where its header agrees with the table, whatever volume was asked for.

    Args:
        images: what is known of them.
        of_table: ``rlnTomoTiltSeriesPixelSize``, Å.
        series: what the table says of the series, by column.
    """
    here = images.pixel_angstrom
    by_pixels = whole_multiple(here / of_table) if here else None
    by_sizes = None if images.asked else _times_by_sizes(images.shape, series)
    if images.asked:
        binned = by_pixels
    elif images.listed or by_sizes == 1 or (images.named and by_pixels == 1):
        binned = 1
    elif here is None:
        binned = by_sizes or 1
    elif by_sizes is not None:
        binned = by_sizes if by_sizes == by_pixels else None
    else:
        # The stack that was aligned is no copy of finer pixels, or of a part of them, nor one whose finer copy would be
        # far larger than the volume: its header is wrong.
        own = images.named and (by_pixels is None or _beyond_volume(images.shape, by_pixels, series))
        binned = 1 if own else by_pixels
    if binned is None:
        return None
    if here is not None and by_pixels == binned:
        return Pixels(here, binned)
    return Pixels(of_table * binned, binned, here is not None)


def checked_pixels(images: Images, of_table: float, series: Mapping[str, str], path: Path) -> Pixels:
    """The same, or a refusal.

    Args:
        images: as for `pixels_of`.
        of_table: likewise.
        series: likewise.
        path: the table, for the message.

    Raises:
        InputError: if what is known does not fit together.
    """
    found = pixels_of(images, of_table, series)
    if found is not None:
        return found
    times, here = _times_by_sizes(images.shape, series), images.pixel_angstrom or 0.0
    if times is not None and images.shape is not None and not images.asked:
        height, width = images.shape
        raise InputError(
            f"{path} is for pixels of {of_table:g} Å and images of {series[WIDTH]} x {series[HEIGHT]}; those of the "
            f"stack are of {width} x {height}, as if binned by {times}, but its header says {here:g} Å, expected "
            f"{of_table * times:g}; give its right --pixel-size"
        )
    raise InputError(
        f"{path} is for pixels of {of_table:g} Å but those of the stack are {here:g} Å; expected the same, "
        "or a whole number of times as large; give the stack that was aligned, or its right --pixel-size"
    )


def is_resampled(images: Images, of_table: float, series: Mapping[str, str]) -> bool:
    """Whether images are of other, coarser pixels than those of any binned copy, as far as is known."""
    return pixels_of(replace(images, named=False), of_table, series) is None and (
        (images.pixel_angstrom or 0.0) > of_table and _times_by_sizes(images.shape, series) is None
    )


def whole_multiple(times: float) -> int | None:
    """How many times pixels are others, to 2 %; None if that is no whole number from 1."""
    if not 0.5 < times < math.inf or abs(times - round(times)) > SAME_MULTIPLE * times:
        return None
    return round(times)


def _beyond_volume(shape: tuple[int, int] | None, times: int, series: Mapping[str, str]) -> bool:
    """Whether images with so many times the pixels would be far larger than the volume that the table tells."""
    told = _told_sizes(series)
    if shape is None or not told:
        return False
    return all(times * b > FAR_LARGER * a for a, b in zip(told, sorted(shape), strict=True))


def _told_sizes(series: Mapping[str, str]) -> list[float]:
    """Width and height of the volume, the smaller first; empty where they are not told."""
    try:
        told = sorted(float(series[name]) for name in (WIDTH, HEIGHT))
    except (KeyError, ValueError):
        return []
    return told if told[0] > 0 and math.isfinite(told[1]) else []


def _times_by_sizes(shape: tuple[int, int] | None, series: Mapping[str, str]) -> int | None:
    """How many pixels of images that were aligned one of these is, by sizes in either orientation; None if untold."""
    told = _told_sizes(series)
    if shape is None or not told:
        return None
    here = sorted(shape)
    times = round(told[1] / here[1])
    # Programs cut or fill what is left of an edge.
    fits = times >= 1 and all(abs(a - times * b) < times for a, b in zip(told, here, strict=True))
    return times if fits else None
