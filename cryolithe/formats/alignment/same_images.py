"""Which row of a file is of which image of a series, where rows tell the tilt angles of their images.

Files list their images in different orders, and stacks lack some of them. What a row says of its place in the stack
decides, if the angles agree; else angles tell it. A tilt that was taken again has the angle of the image that it
replaces: images and rows of one angle are taken in their order, those that are left out among them, so that leaving an
image out never changes what another one gets. Where nothing decides, that is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median

from cryolithe.formats.alignment.image_order import LEAST_STEP_DEG
from cryolithe.formats.angle_signs import Way, sign_notes, sign_of
from cryolithe.formats.image_rows import NOTHING_ELSE, FileRows, Others

# Refined angles are this near to nominal ones, once the series is shifted by one offset, of at most so much.
NEAR_DEG, MOST_OFFSET_DEG = 1.0, 30.0
# Angles that are shifted by no more, on average, than programs round them, are not shifted by steps and a bit.
EXACT_DEG = 0.2
# A stage that is sent to the same angle again stops within this of it.
AGAIN_DEG = 0.05
# One assignment fits clearly better than another if the sum of its differences is less than the other's by this factor;
# the rest is what angles lose in computing.
CLEARLY, ROUNDING_DEG = 2.0, 1e-6
# Angle files have two decimals.
EXACTLY_DEG = 0.005
_NAMED = 6
_TOO_FEW = 3  # images tell nothing of an offset, which may be whole steps
_Images = Sequence[tuple[int, float]]
# Rows, by the number of the image that they may be of.
_Perhaps = dict[int, tuple[int, ...]]


@dataclass(frozen=True)
class Matched:
    """The rows of a file that are of the images of a series.

    Attributes:
        rows: of each image that is used, in their order.
        others: of each, the rows that may as well be its own; none where it is certain. Empty where all are.
        alike: likewise, but for rows that are taken in the order of the images, which sorting by angle keeps.
        named: whether the file names the images, or has one row for each of the stack, in its order.
        sign: that the angles of the images have against the file's.
        mirrored: the rows by the other sign, where that fits as well; else none.
    """

    rows: tuple[int, ...]
    others: tuple[tuple[int, ...], ...] = ()
    alike: tuple[tuple[int, ...], ...] = ()
    named: bool = False
    sign: int = 1
    mirrored: tuple[int, ...] = ()

    def doubt(self, path: Path, what: str, series: Others, differ: Callable[[int, int], bool]) -> tuple[str, ...]:
        """A warning of images that may have got the values of another row, which differ; a note of what was supposed.

        Args:
            path: of the file.
            what: the values are.
            series: the images that are used.
            differ: whether the values of two rows do.
        """
        numbers = series.used or range(len(self.rows))

        def images(perhaps: tuple[tuple[int, ...], ...]) -> list[int]:
            told = zip(numbers, self.rows, perhaps or ((),) * len(self.rows), strict=True)
            return [number + 1 for number, row, others in told if any(differ(row, other) for other in others)]

        other_sign = any(differ(*pair) for pair in zip(self.rows, self.mirrored, strict=False))
        notes = list(sign_notes(path.name, what, 0 if other_sign else self.sign, series.stage_sign is None))
        if found := images(self.others):
            notes.append(
                f"Warning: {path.name} has rows of the same tilt angle but of different {what}, and nothing tells "
                f"which of them {'are those of images' if found[1:] else 'is that of image'} {_shown(found)} of the "
                "stack: the nearest is taken, of equals that of the same turn; give a file with a row for each image "
                "of the stack, in its order"
            )
        if found := images(self.alike):
            notes.append(
                f"{path.name} has rows of the same tilt angle but of different {what}: they are taken for "
                f"{'images' if found[1:] else 'image'} {_shown(found)} of the stack in the order of the images"
            )
        return tuple(notes)


def _shown(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_NAMED])) + (", and others" if len(numbers) > _NAMED else "")


def same_images(angles_deg: Sequence[float], rows: FileRows, others: Others = NOTHING_ELSE) -> Matched | None:
    """The row of a file for each image; None if it is not clear which it is.

    Where Warp may have turned the angles of one side round, those of the other sign may fit as well, or alone.

    Args:
        angles_deg: of the images that are used.
        rows: of the file.
        others: what else is known of the series.
    """
    if not angles_deg:
        return None
    sides = {1: (list(angles_deg), others), -1: ([-angle for angle in angles_deg], others.turned)}
    if rows.any_sign == (others.stage_sign is not None):  # both are Warp's, or neither is
        del sides[-1]
    found = {sign: made for sign, side in sides.items() if (made := _with_one_sign(side[0], rows, side[1]))}
    if not found:
        return None
    ways = {sign: _way(made, sides[sign], rows) for sign, made in found.items()}
    sign = sign_of(ways, angles_deg, others.stage_sign)
    if sign == 0:
        return replace(found[1], mirrored=found[-1].rows)
    return replace(found[sign], sign=sign)


def _way(made: Matched, side: tuple[list[float], Others], rows: FileRows) -> Way:
    """Rows that were found, and how far the angles of a side are off theirs."""
    angles_deg, others = side
    offset = median(angle - rows.angles_deg[row] for angle, row in zip(angles_deg, made.rows, strict=True))
    return Way(made.rows, min(offset, offset - others.offset_deg, key=abs), made.named and rows.named)


def _with_one_sign(angles_deg: Sequence[float], rows: FileRows, others: Others) -> Matched | None:
    """As `same_images`, with angles of one sign."""
    images: _Images = list(zip(others.used or range(len(angles_deg)), angles_deg, strict=True))
    whole = sorted([*images, *others.left_out_deg]) if others.used else images
    named = _by_name(images, whole, rows, others) if others.used else None
    if named is not None:
        return Matched(named, named=True)
    kept = [image for image in whole if image[0] in others.kept]
    kept = kept if len(kept) == len(others.kept) else []
    for seen in [part for part in (whole, kept) if len(part) > len(images)] + [images]:
        numbers, angles = [number for number, _ in seen], [angle for _, angle in seen]
        known = Others(offset_deg=others.offset_deg, used=tuple(numbers), sections=others.sections)
        found = _by_angle(angles, rows.angles_deg, known) if len(seen) <= len(rows.angles_deg) else None
        if found is None:
            continue
        offset = median(angle - rows.angles_deg[row] for angle, row in zip(angles, found, strict=True))
        turns = _in_turn([angle - offset for angle in angles], rows.angles_deg) if others.used else None
        row_of = dict(zip(numbers, turns or found, strict=True))
        if turns is not None:
            return Matched(tuple(row_of[number] for number, _ in images))
        doubts = _settle(row_of, [(number, angle - offset) for number, angle in whole], rows.angles_deg)
        unsure, alike = (tuple(kind.get(number, ()) for number, _ in images) for kind in doubts)
        return Matched(tuple(row_of[number] for number, _ in images), unsure, alike)
    return None


def _by_name(images: _Images, whole: _Images, rows: FileRows, others: Others) -> tuple[int, ...] | None:
    """The rows that name the images, where the angles agree: of all images, or else of those that are used.

    Sorted stacks have the images of their .mdoc in another order. Some images may be shifted by whole steps, all of
    them may not.
    """
    half = _half_step_deg(rows.angles_deg)
    all_told = len(rows.angles_deg) == others.sections
    for row_of in rows.namings(others.sections):
        if all(number in row_of for number, _ in images):
            for some in (whole, images):
                apart = [angle - rows.angles_deg[row_of[number]] for number, angle in some if number in row_of]
                offset = median(apart)
                near = abs(offset) <= MOST_OFFSET_DEG and max(abs(one - offset) for one in apart) < half
                if near and (
                    (all_told and len(apart) > _TOO_FEW) or min(abs(offset), abs(offset - others.offset_deg)) < half
                ):
                    return tuple(row_of[number] for number, _ in images)
    return None


def _half_step_deg(angles_deg: Iterable[float]) -> float:
    """Half the usual distance of neighbouring angles that are not the same."""
    steps = sorted(b - a for a, b in pairwise(sorted(angles_deg)) if b - a > AGAIN_DEG)
    return (steps[len(steps) // 2] if steps else LEAST_STEP_DEG) / 2


def _in_turn(angles_deg: Sequence[float], told_deg: Sequence[float]) -> list[int] | None:
    """The rows of images that stand in the order of the stack, some others between them; None if not certain."""
    half = _half_step_deg(told_deg)
    first = _earliest(angles_deg, told_deg, half)
    last = _earliest(angles_deg[::-1], told_deg[::-1], half)
    if first is None or last is None or first != [len(told_deg) - 1 - row for row in reversed(last)]:
        return None
    return first


def _earliest(angles_deg: Sequence[float], told_deg: Sequence[float], within_deg: float) -> list[int] | None:
    """The first rising rows with these angles, or None."""
    rows: list[int] = []
    for angle in angles_deg:
        after = range(rows[-1] + 1 if rows else 0, len(told_deg))
        row = next((row for row in after if abs(told_deg[row] - angle) < within_deg), None)
        if row is None:
            return None
        rows.append(row)
    return rows


def _settle(row_of: dict[int, int], whole: _Images, told_deg: Sequence[float]) -> tuple[_Perhaps, _Perhaps]:
    """Give images of one angle the rows of that angle in their order; return what else may be the row of an image.

    The first is what nothing decides, the second what the order of the images does.

    Args:
        row_of: the row of each image, which is changed.
        whole: all images whose angles are known, less the offset.
        told_deg: angles of the rows.
    """
    angle_of, doubts, alike = dict(whole), _Perhaps(), _Perhaps()
    scatter = median(abs(angle_of[number] - told_deg[row]) for number, row in row_of.items())
    for rows in _alike(row_of, angle_of, told_deg):
        had = sorted(number for number, row in row_of.items() if row in rows)
        lacking = [number for number, angle in whole if number not in row_of and _near(angle, rows, told_deg)]
        lacking = lacking if len(had) + len(lacking) == len(rows) else []
        numbers, chosen = sorted([*had, *lacking]), rows
        if len(numbers) < len(rows):
            chosen = sorted(row_of[number] for number in had)
        in_turn = dict(zip(numbers, chosen, strict=True))
        by_angle = dict(
            zip(
                sorted(numbers, key=lambda number: (angle_of[number], number)),
                sorted(chosen, key=lambda row: (told_deg[row], row)),
                strict=True,
            )
        )
        costs = [
            sum(abs(angle_of[number] - told_deg[row]) for number, row in way.items()) for way in (in_turn, by_angle)
        ]
        taken, other = (in_turn, by_angle) if costs[0] <= CLEARLY * costs[1] + ROUNDING_DEG else (by_angle, in_turn)
        if taken == by_angle and costs[1] <= EXACTLY_DEG * len(numbers):  # the very angles that the file has
            other = taken
        image_of = {row: number for number, row in taken.items()}
        for number in had:
            row_of[number] = taken[number]
            fit = {
                row
                for row in rows
                if _fits_as_well((number, taken[number]), (image_of.get(row), row), (angle_of, told_deg, scatter))
            }
            unsure = (fit - set(chosen)) | ({other[number]} - {taken[number]})
            doubts[number] = tuple(sorted(unsure))
            alike[number] = () if unsure or taken != in_turn else tuple(sorted(fit - {taken[number]}))
    return doubts, alike


def _fits_as_well(
    one: tuple[int, int],
    other: tuple[int | None, int],
    told: tuple[dict[int, float], Sequence[float], float],
) -> bool:
    """Whether an image may have another's row, and that one, if there is one, its row.

    Args:
        one: number of an image, and its row.
        other: likewise.
        told: angles of images and of rows, and by how much those of one image usually differ.
    """
    (image, row), (second, second_row) = one, other
    angle_of, told_deg, scatter_deg = told
    now, changed = abs(angle_of[image] - told_deg[row]), abs(angle_of[image] - told_deg[second_row])
    if second is not None:
        now += abs(angle_of[second] - told_deg[second_row])
        changed += abs(angle_of[second] - told_deg[row])
    return changed <= max(CLEARLY * now, now + scatter_deg) + ROUNDING_DEG


def _near(angle_deg: float, rows: Iterable[int], told_deg: Sequence[float]) -> bool:
    return any(abs(angle_deg - told_deg[row]) < LEAST_STEP_DEG for row in rows)


def _alike(row_of: dict[int, int], angle_of: dict[int, float], told_deg: Sequence[float]) -> Iterable[list[int]]:
    """Rows of one tilt angle, where these are several, or of images that are of one; each rising."""
    half = _half_step_deg(told_deg)
    group = list(range(len(told_deg)))

    def join(one: int, other: int) -> None:
        kept, gone = group[one], group[other]
        group[:] = [kept if label == gone else label for label in group]

    for row, following in pairwise(sorted(range(len(told_deg)), key=told_deg.__getitem__)):
        if told_deg[following] - told_deg[row] <= min(LEAST_STEP_DEG, half):
            join(row, following)
    for number, following in pairwise(sorted(row_of, key=angle_of.__getitem__)):
        row, other = row_of[number], row_of[following]
        same = angle_of[following] - angle_of[number] <= AGAIN_DEG
        if same and abs(told_deg[row] - told_deg[other]) < half:
            join(row, other)
    found = ([row for row, of_row in enumerate(group) if of_row == label] for label in dict.fromkeys(group))
    return [rows for rows in found if rows[1:]]


def _by_angle(angles_deg: Sequence[float], told_deg: Sequence[float], others: Others) -> list[int] | None:
    """For each angle the row of a file whose angles are given; None if it is not clear which it is.

    Angles of an alignment are near to those of a file, once all are shifted by one offset (a pre-tilt). Where the file
    has as many images, any offset will do, and refined angles may differ by up to half a step. Where it has more,
    angles that are shifted by whole steps would be those of other images: the offset must be the one that is told, or
    none, or that of a file with the images of the stack in its order or by angle, or no other may fit.
    """
    offsets = {0.0, others.offset_deg, *(angles_deg[0] - angle for angle in told_deg)}
    moved = {
        offset: [angle - offset for angle in angles_deg]
        for offset in sorted(offsets, key=abs)
        if abs(offset) <= MOST_OFFSET_DEG
    }
    found = {offset: numbers for offset, angles in moved.items() if (numbers := _nearest(angles, told_deg)) is not None}
    if len(told_deg) == len(angles_deg):
        return next(iter(found.values()), None) or _in_order(angles_deg, told_deg)
    off = {
        offset: abs(sum(moved[offset]) - sum(told_deg[number] for number in found[offset])) / len(angles_deg)
        for offset in (others.offset_deg, 0.0)
        if offset in found
    }
    # Of equals the first one, the offset that is told: microscopes' files do not have it.
    told = min(off, key=lambda offset: round(off[offset], 2), default=None)
    if told is not None and off[told] <= EXACT_DEG:
        return found[told]
    ways = {tuple(numbers) for numbers in found.values()}
    of_stack = ways & _by_place(angles_deg, told_deg, others)
    if of_stack or told is not None:
        ways = of_stack or ways
        return list(ways.pop()) if len(ways) == 1 else None
    return None


def _by_place(angles_deg: Sequence[float], told_deg: Sequence[float], others: Others) -> set[tuple[int, ...]]:
    """The images of a file with those of the stack, in its order or, where the stack is sorted by angle, by that."""
    if len(told_deg) != others.sections:
        return set()
    rising = sorted(range(len(told_deg)), key=told_deg.__getitem__)
    orders = [list(range(len(told_deg)))]
    orders += [order for order, sign in ((rising, 1), (rising[::-1], -1)) if _rises(angles_deg, sign)]
    return {tuple(order[number] for number in others.used) for order in orders}


def _rises(angles_deg: Sequence[float], sign: int) -> bool:
    return all(sign * (b - a) > 0 for a, b in pairwise(angles_deg))


def _in_order(angles_deg: Sequence[float], told_deg: Sequence[float]) -> list[int] | None:
    """As many angles in the same order, which differ by less than half a step once they are shifted; else None."""
    wanted, told = (sorted(range(len(values)), key=values.__getitem__) for values in (angles_deg, told_deg))
    steps = [step for a, b in pairwise(told) if (step := told_deg[b] - told_deg[a]) > AGAIN_DEG]
    apart = [angles_deg[a] - told_deg[b] for a, b in zip(wanted, told, strict=True)]
    offset = sorted(apart)[len(apart) // 2]
    if abs(offset) > MOST_OFFSET_DEG or max(abs(one - offset) for one in apart) >= min(steps, default=0.0) / 2:
        return None
    of_place = dict(zip(wanted, told, strict=True))
    return [of_place[place] for place in range(len(wanted))]


def _nearest(wanted: Sequence[float], told: Sequence[float]) -> list[int] | None:
    """For each angle the number of one of the told ones, each at most once; None if one has none that is near."""
    free = dict(enumerate(told))
    numbers = []
    for angle in wanted:
        nearest = min(free, key=lambda number: abs(free[number] - angle), default=None)
        if nearest is None or abs(free.pop(nearest) - angle) > NEAR_DEG:
            return None
        numbers.append(nearest)
    return numbers
