"""Which row of a table is of which image of a series, where an alignment leaves images out that a table may have.

Programs write a row for each image of the raw stack, for those of the aligned stack, or for those that are used, in the
order of the stack or of tilt angles. The number of rows tells which; nothing else is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Others:
    """What is known of a series beside the angles of its images that are used.

    Attributes:
        left_out_deg: number from 0 and angle of images that are not used, which a file may have, too.
        offset_deg: that an alignment has added to the angles of the microscope, a pre-tilt, say; 0 where none is told.
        used: numbers from 0 in the stack of the images that are used; empty where they are not known.
        sections: images that the stack holds, used or not.
        kept: as `SeriesImages` has it.
        stage_sign: likewise.
    """

    left_out_deg: tuple[tuple[int, float], ...] = ()
    offset_deg: float = 0.0
    used: tuple[int, ...] = ()
    sections: int = 0
    kept: tuple[int, ...] = ()
    stage_sign: int | None = None

    @property
    def turned(self) -> Others:
        """The same with angles of the other sign."""
        return replace(self, left_out_deg=_turned(self.left_out_deg), offset_deg=-self.offset_deg)


NOTHING_ELSE = Others()


@dataclass(frozen=True)
class SeriesImages:
    """The images of a series that are used, and what is known of the others.

    Attributes:
        name: path of the stack's file.
        sections: how many images the stack holds.
        used: numbers from 0 of those that are used.
        angles_deg: of these, as their files have them.
        left_out_deg: number from 0 and angle of images that are left out, as far as angles are known.
        stacked: numbers from 0 of the images in the aligned stack, in its order, where that has not all of them.
        kept: numbers from 0 of those that a program itself used, where others are left out since; else none.
        offset_deg: that these angles have more than the microscope's, where files tell it.
        stage_sign: as `cryolithe.alignment.Alignment` has it.
    """

    name: str
    sections: int
    used: tuple[int, ...]
    angles_deg: tuple[float, ...]
    left_out_deg: tuple[tuple[int, float], ...] = ()
    stacked: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()
    offset_deg: float = 0.0
    stage_sign: int | None = None

    @property
    def others(self) -> Others:
        """What is known beside the angles of the images that are used."""
        return Others(self.left_out_deg, self.offset_deg, self.used, self.sections, self.kept, self.stage_sign)

    @property
    def signs(self) -> dict[int, SeriesImages]:
        """The same with each sign, 1 or -1, that the angles of another file may have against these."""
        if self.stage_sign is None:
            return {1: self}
        angles, left_out = tuple(-angle for angle in self.angles_deg), _turned(self.left_out_deg)
        return {1: self, -1: replace(self, angles_deg=angles, left_out_deg=left_out, offset_deg=-self.offset_deg)}

    @property
    def angle_of(self) -> dict[int, float]:
        """The angle of each image, by its number, as far as they are known."""
        return {**dict(self.left_out_deg), **dict(zip(self.used, self.angles_deg, strict=True))}


def _turned(angles_deg: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    return tuple((number, -angle) for number, angle in angles_deg)


@dataclass(frozen=True)
class FileRows:
    """The rows of a file that tells the angles of its images, and what it says of their places in a stack.

    Attributes:
        angles_deg: of each row.
        places: number from 0 that each row has in the stack of the file; empty where it tells none.
        named: whether the rows name images of a stack, which may have more of them (RELION's N@stack).
        kept: the rows, in their order, of a stack of those images alone that are used (Warp's UseTilt).
        any_sign: whether the angles may be the microscope's or their negatives (Warp's).
    """

    angles_deg: tuple[float, ...] = ()
    places: tuple[int, ...] = ()
    named: bool = False
    kept: tuple[int, ...] = ()
    any_sign: bool = False

    def namings(self, sections: int) -> Iterator[dict[int, int]]:
        """What may be the row of each image of a stack, by the image's number: what the file names comes first."""
        count = len(self.angles_deg)
        fits = len(set(self.places)) == count and max(self.places, default=0) < sections
        if fits and (self.named or count == sections):
            yield {place: row for row, place in enumerate(self.places)}
        if count == sections:
            yield {row: row for row in range(count)}
        elif len(self.kept) == sections:
            yield dict(enumerate(self.kept))


@dataclass(frozen=True)
class Rows:
    """Images for which a table may have rows: their numbers from 0 in the stack, in the order of the rows."""

    images: tuple[int, ...]
    note: str = ""

    def places(self, used: Sequence[int]) -> tuple[int, ...]:
        """The row, from 0, of each image that is used."""
        return tuple(map({image: row for row, image in enumerate(self.images)}.__getitem__, used))


def possible_rows(series: SeriesImages) -> Iterator[Rows]:
    """What the rows of a table may be, in the order of the stack; the whole stack comes first."""
    whole = tuple(range(series.sections))
    yield Rows(whole)
    if series.stacked not in ((), whole) and set(series.used) <= set(series.stacked):
        yield Rows(series.stacked, "are taken for the images of the aligned stack")
    if series.kept not in ((), whole, series.stacked) and set(series.used) <= set(series.kept):
        yield Rows(series.kept, "are taken for the images that the alignment has, in their order")
    if series.used not in (whole, series.stacked, series.kept):
        yield Rows(series.used, "are taken for the images that are used, in their order")


def by_angle(rows: Rows, series: SeriesImages) -> Rows | None:
    """The same images in the order of their angles; None where an angle is not known, and may be anywhere."""
    angles = series.angle_of
    known = [angles[image] for image in rows.images if image in angles]
    if len(known) < len(rows.images):
        return rows if known == sorted(known) else None
    order = sorted(rows.images, key=angles.__getitem__)
    again = ", those of one angle in the order of the stack" if len(set(known)) < len(known) else ""
    return rows if order == list(rows.images) else Rows(tuple(order), _SORTED + again)


_SORTED = "are taken in the order of tilt angles, as AreTomo3 writes them"


def rows_of(numbers: Sequence[int], series: SeriesImages, sorted_by_angle: bool) -> tuple[Rows, tuple[int, ...]] | None:
    """What the rows of a table are, and the row of each image that is used; None where they do not fit the series.

    Args:
        numbers: of the rows, from 1 on, rising; those of images that a program did not look at may be missing.
        series: whose images.
        sorted_by_angle: whether the rows are in the order of tilt angles.
    """
    for rows in possible_rows(series):
        ordered = by_angle(rows, series) if sorted_by_angle else rows
        if ordered is None:
            continue
        count = len(ordered.images)
        if len(numbers) == count and numbers[-1] == count:
            return ordered, ordered.places(series.used)
        gaps = numbers[-1] != len(numbers) and numbers[-1] <= count
        row = {number - 1: place for place, number in enumerate(numbers)}
        places = ordered.places(series.used)
        if gaps and all(place in row for place in places):
            missing = f"{count - len(numbers)} of {count} rows are missing, all of them of images that are left out"
            return Rows(ordered.images, missing), tuple(row[place] for place in places)
    return None
