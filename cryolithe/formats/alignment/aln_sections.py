"""Which image of the stack each row of an AreTomo alignment is of.

Sections are counted from 0 before AreTomo3 2.0.7 and from 1 since; and some files count the series without its dark
images. The numbers must prove which: aligned and dark sections are disjoint and together the stack, or the rows number
what is left without the dark images, and then the angles must prove the order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cryolithe.errors import InputError

# Angles of a file and of an angle list belong to the same image when they agree so well, after the tilt offset.
AGREED_DEG = 0.5
# Neighbours of a sorted stack may be turned the wrong way by so little.
SAME_PLACE_DEG = 0.1
# Angles of one series in two files differ by less, once both are sorted and one offset is taken off.
FEWEST_APART_DEG = 1.0


@dataclass(frozen=True)
class Dark:
    """An image that was left out: its section and its angle.

    The angle is that which was recorded; since AreTomo3 2.0.10 it holds the tilt offset as the other images' do.
    """

    section: int
    tilt_deg: float


@dataclass(frozen=True)
class Sections:
    """What a file says about sections.

    Attributes:
        path: the file.
        rows: section and tilt of each aligned image; the tilt holds the offset that the program found.
        darks: images that were left out.
        count: images of the stack.
        offset_deg: the tilt offset, as the header has it (AlphaOffset); 0 where it does not.
    """

    path: Path
    rows: tuple[tuple[int, float], ...]
    darks: tuple[Dark, ...]
    count: int
    offset_deg: float

    @property
    def recorded_rows_deg(self) -> tuple[float, ...]:
        """Angles of the aligned images without the offset."""
        return tuple(tilt - self.offset_deg for _, tilt in self.rows)

    @property
    def recorded_darks_deg(self) -> tuple[float, ...]:
        """Angles of the images that were left out, without the offset where theirs hold it.

        No file says whether they do: the steps of the whole series are the more even without it.
        """
        readings = [tuple(dark.tilt_deg - held for dark in self.darks) for held in (0.0, self.offset_deg)]
        return min(readings, key=lambda darks_deg: _unevenness_deg((*self.recorded_rows_deg, *darks_deg)))


def _unevenness_deg(angles_deg: tuple[float, ...]) -> float:
    """How far the steps of sorted angles are from the usual one, all together."""
    steps = sorted(b - a for a, b in pairwise(sorted(angles_deg)))
    return sum(abs(step - steps[len(steps) // 2]) for step in steps)


@dataclass(frozen=True)
class Places:
    """A possible reading: index in the stack of each row and of each dark image, and what to tell about it."""

    rows: tuple[int, ...]
    darks: tuple[int, ...]
    note: str = ""


def stack_places(
    found: Sections, given_deg: tuple[float, ...] | None = None, beside_deg: tuple[float, ...] | None = None
) -> Places:
    """Find out which image of the stack each row is of.

    Args:
        found: what the file says.
        given_deg: angles of the stack's images as the user gives them; every row is compared with them.
        beside_deg: angles found beside the stack: they decide where the file itself leaves more than one reading.

    Raises:
        InputError: if the sections do not fit the stack, or do not tell which images they are.
    """
    numbers = [section for section, _ in found.rows]
    twice, times = Counter(numbers).most_common(1)[0]
    if times > 1:
        raise InputError(f"{found.path}: section {twice} is there twice; copy the file again, or align anew")
    bases = [base for base in (1, 0) if base <= min(numbers) and max(numbers) < found.count + base]
    if not bases:
        raise InputError(
            f"{found.path}: sections {min(numbers)} to {max(numbers)} do not fit a stack of {found.count} images; "
            "align anew"
        )
    proven, counted = _partitions(found, bases), _without_dark(found)
    if given_deg is not None:
        _same_count(found, given_deg)
        # The user's angles can also decide where the dark images say nothing.
        unproven = [Places(tuple(n - base for n in numbers), ()) for base in bases]
        possible = [*proven, *counted] or unproven
        told = [places for places in possible if not misfit(found, places, given_deg)]
        if not told:
            raise InputError(misfit(found, possible[0], given_deg))
    else:
        told = proven or [places for places in counted if _is_sorted(found, places)]
        if not told and beside_deg is not None and len(beside_deg) == found.count:
            told = [places for places in counted if not misfit(found, places, beside_deg)]
    if len({places.rows for places in told}) > 1:
        told = [places for places in told if places in proven or _is_sorted(found, places)]
    if len({places.rows for places in told}) != 1:
        remedy = "align anew" if given_deg else "give ANGLES, one for each image of the stack, or align anew"
        raise InputError(
            f"{found.path}: the aligned and the dark sections are not together the {found.count} images of the stack, "
            f"each once, and the angles do not prove that the rows count the series without its dark images; {remedy}"
        )
    return told[0]


def _partitions(found: Sections, bases: list[int]) -> list[Places]:
    """Readings in which aligned and dark sections are disjoint and together the stack."""
    readings = []
    for base in bases:
        rows = tuple(section - base for section, _ in found.rows)
        missing = set(range(found.count)) - set(rows)
        for dark_base in (base, 1 - base):
            darks = tuple(dark.section - dark_base for dark in found.darks)
            if set(darks) == missing:
                readings.append(Places(rows, darks))
    return readings


def _without_dark(found: Sections) -> list[Places]:
    """Readings in which the rows number the series without its dark images."""
    numbers = sorted(section for section, _ in found.rows)
    if not found.darks or numbers[0] not in (0, 1) or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return []
    readings = []
    for base in (numbers[0], 1 - numbers[0]):
        darks = tuple(d.section - base for d in found.darks)
        left = [place for place in range(found.count) if place not in darks]
        if len(left) == len(numbers):  # else dark sections lie outside, or are there twice
            rows = tuple(left[section - numbers[0]] for section, _ in found.rows)
            note = f"the rows of {found.path.name} count the series without its {len(darks)} dark images"
            readings.append(Places(rows, darks, note))
    return readings


def _is_sorted(found: Sections, places: Places) -> bool:
    """Whether the angles as recorded rise or fall all through the stack: those of the rows are without the offset."""
    if len(places.rows) + len(places.darks) != found.count:
        return False
    angles = dict(zip(places.darks, found.recorded_darks_deg, strict=True))
    angles |= dict(zip(places.rows, found.recorded_rows_deg, strict=True))
    steps = [b - a for a, b in pairwise(angles[place] for place in sorted(angles))]
    return all(step > -SAME_PLACE_DEG for step in steps) or all(step < SAME_PLACE_DEG for step in steps)


def misfit(found: Sections, places: Places, angles_deg: tuple[float, ...]) -> str:
    """What is against a reading in the angles of the stack's images, or an empty string.

    All rows may differ by one offset where the header explains it (AlphaOffset), or where it is so small that no other
    image is nearer.
    """
    tilts = [tilt for _, tilt in found.rows]
    differences = [tilt - angles_deg[place] for tilt, place in zip(tilts, places.rows, strict=True)]
    offset = sorted(differences)[len(differences) // 2]
    for place, tilt, difference in sorted(zip(places.rows, tilts, differences, strict=True)):
        if abs(difference - offset) > AGREED_DEG:
            return (
                f"{found.path}: image {place + 1} has the angle {tilt:g}° but ANGLES says {angles_deg[place]:g}°; "
                "give the angles of this stack, in its order, or leave ANGLES out"
            )
    steps = sorted(abs(b - a) for a, b in pairwise(sorted(angles_deg)))
    small = steps[len(steps) // 2] / 2 if steps else AGREED_DEG
    if abs(offset) > small and abs(offset - found.offset_deg) > AGREED_DEG:
        explained = f"its AlphaOffset is {found.offset_deg:g}°" if found.offset_deg else "it names no AlphaOffset"
        return (
            f"{found.path}: its angles are {offset:+g}° off ANGLES and {explained}: they may be those of other images; "
            "give the angles of this stack, in its order, or leave ANGLES out"
        )
    return ""


def other_series(found: Sections, angles_deg: tuple[float, ...], source: str) -> str:
    """What speaks against a file being of a stack with these angles in whatever order, or an empty string.

    Args:
        found: what the file says.
        angles_deg: of the stack's images.
        source: of the angles.
    """
    recorded = sorted((*found.recorded_rows_deg, *found.recorded_darks_deg))
    told = sorted(angles_deg)
    if len(recorded) != len(told):
        return ""
    differences = sorted(a - b for a, b in zip(recorded, told, strict=True))
    offset = differences[len(differences) // 2]
    steps = sorted(b - a for a, b in pairwise(told))
    near = max(FEWEST_APART_DEG, steps[len(steps) // 2] / 2 if steps else 0.0)
    if max(offset - differences[0], differences[-1] - offset) <= near:
        return ""
    return (
        f"{found.path} has tilts of {recorded[0]:g}° to {recorded[-1]:g}° but {source} says {told[0]:g}° to "
        f"{told[-1]:g}°, in other steps: one of them is of another series; move that away, or give the angles of this "
        "stack as ANGLES"
    )


def _same_count(found: Sections, angles_deg: tuple[float, ...]) -> None:
    if len(angles_deg) != found.count:
        raise InputError(f"{found.path} is for a stack of {found.count} images but {len(angles_deg)} angles were given")
