"""Whether tables and ANGLES stand in the order of a stack's images, told by angles that are known of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.formats.alignment.alignment_format import Named
from cryolithe.formats.stacks.angles import angles_beside, read_angles_deg, read_angles_of
from cryolithe.formats.stacks.header_angles import read_header_angles_deg
from cryolithe.formats.stacks.mdoc import mdoc_places
from cryolithe.formats.stacks.mdoc_text import read_mdoc_text

# Rows of images that are closer than this cannot be told apart by their angles.
LEAST_STEP_DEG = 0.4
# Refined angles differ from nominal ones by a degree, and all of them by the tilt of a lamella. Two images further
# apart than this do not change places by that, and a range does not grow by so much.
SURE_STEP_DEG, RANGE_DEG = 1.5, 10.0
MOST_OFFSET_DEG = 30.0
MIRRORED = "their angles have opposite signs, which mirrors the volume along z"
FEWEST_COUNTED = 5  # fewer whole numbers in a row may well be angles


@dataclass(frozen=True)
class ImageOrder:
    """What is known of the order of a stack's images.

    Attributes:
        angles_deg: of the images, in the stack's order; empty where nothing tells them.
        source: of the angles, for messages.
        given: by the user, and not only found beside the stack.
    """

    angles_deg: tuple[float, ...] = ()
    source: str = ""
    given: bool = False

    def compared(self, path: Path, places: Sequence[int], rows: Sequence[Sequence[float]], told: bool = False) -> str:
        """Compare a table's angles with those of the images; return a note for the user.

        Args:
            path: the table.
            places: index in the stack of each row.
            rows: angles of the rows, as often as a table has them (nominal, refined, of the other sign): those that fit
                best count. Refined angles differ from nominal ones; what must not happen is that another image's angle
                is nearer.
            told: whether the table says itself which image a row is of. Then only angles that were given can object.

        Raises:
            InputError: if the rows stand in another order than the images.
        """
        if told and not self.given:
            return ""
        if not self.angles_deg:
            return (
                f"the rows of {path.name} are taken in the order of the images; give ANGLES, one for each image of "
                "the stack, to have that order checked"
            )
        known = [self.angles_deg[place] for place in places]
        best = min(rows, key=lambda angles: max(abs(a - b) for a, b in zip(angles, known, strict=True)))
        for place, angle, image in zip(places, best, known, strict=True):
            if abs(angle - image) > self._half_step:
                raise InputError(
                    f"{path} gives image {place + 1} of the stack the angle {angle:g}° but {self.source} says "
                    f"{image:g}°: the rows are in another order than the images, or of another series; give a table "
                    "in the order of the stack" + ("" if self.given else ", or the right angles of the stack as ANGLES")
                )
        return f"the order of the rows of {path.name} agrees with {self.source}"

    @property
    def _half_step(self) -> float:
        """Half the usual distance of neighbouring angles."""
        ordered = sorted(self.angles_deg)
        steps = sorted(b - a for a, b in pairwise(ordered))
        return max(steps[len(steps) // 2], LEAST_STEP_DEG) / 2 if steps else LEAST_STEP_DEG


def angles_of(named: Named, sections: int) -> tuple[float, ...]:
    """The angles of a stack's images, as ANGLES has them.

    Raises:
        InputError: if the file cannot be read, or does not hold one angle for each image.
    """
    assert named.angles is not None
    angles = read_angles_of(named.angles, sections, named.reading)
    if len(angles) == sections:
        return angles
    remedy = "give the angle file that belongs to this stack"
    if len(angles) < sections:
        remedy += f": it must hold all {sections}, also those of images that --exclude leaves out"
    elif _is_mdoc(named):
        remedy += "; if images were taken out of the stack, take their sections out of a copy of the .mdoc"
    raise InputError(f"{named.tilts} holds {sections} images but {named.angles} holds {len(angles)} angles; {remedy}")


def angle_of_images(named: Named, sections: int) -> dict[int, float]:
    """The angle of each image of a stack, by its number from 0, as ANGLES has it.

    An .mdoc out of which sections were taken tells the angles of the other images, which are then those to use.

    Raises:
        InputError: as `angles_of`.
    """
    if not _lacking(named, sections):
        return dict(enumerate(angles_of(named, sections)))
    assert named.angles is not None
    angles = read_angles_deg(named.angles, named.reading)
    return dict(zip(mdoc_places(named.angles, named.reading), angles, strict=True))


def of_gaps(named: Named, sections: int) -> tuple[str, ...]:
    """What to tell of an .mdoc out of which sections were taken: whether the stack has their images."""
    if named.angles is None or not (missing := _gaps(named)):
        return ()
    shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    if lacking := _lacking(named, sections):
        numbers = ", ".join(str(place + 1) for place in lacking)
        return (f"left out: {numbers} of {sections}, of which {named.angles.name} tells nothing",)
    return (
        f"{named.angles.name} has no ZValue {shown}: its other sections are taken for the {sections} images, in their "
        "order, as if those had been taken out of the stack, too",
    )


def _is_mdoc(named: Named) -> bool:
    return named.angles is not None and named.angles.suffix.lower() == ".mdoc"


def _gaps(named: Named) -> tuple[int, ...]:
    """The ZValues that the .mdoc of a stack lacks before others."""
    if not _is_mdoc(named) or named.angles is None:
        return ()
    try:
        places = mdoc_places(named.angles, named.reading)
    except InputError:
        return ()
    return tuple(sorted(set(range(max(places, default=0))) - set(places)))


def _lacking(named: Named, sections: int) -> tuple[int, ...]:
    """The images of a stack, by their number from 0, of which its .mdoc tells nothing, though it has gaps for some.

    Without a gap it may as well be of another stack.
    """
    if not _gaps(named) or named.angles is None:
        return ()
    places = mdoc_places(named.angles, named.reading)
    if len(places) >= sections or len(set(places)) != len(places) or places[-1] >= sections:
        return ()
    return tuple(sorted(set(range(sections)) - set(places)))


def doubts(named: Named, sections: int) -> tuple[str, ...]:
    """Warnings where files beside a stack, or its header, contradict its ANGLES, which are taken for all that.

    Args:
        named: the stack, and its angle file if one was given.
        sections: images of the stack.

    Raises:
        InputError: if ANGLES only count the images, and another file tells their angles.
    """
    given = named.angles
    angles_deg = angles_given(named, sections)
    if given is None or angles_deg is None:
        return ()
    counting = _counting(angles_deg)
    others = angles_known(named, sections)
    for name, found in others:
        if counting and max(abs(a - b) for a, b in zip(angles_deg, found, strict=True)) > RANGE_DEG:
            raise InputError(
                f"{given} holds {counting}, which counts the images and tells no angles: {name} beside "
                f"{named.tilts.name} tells {_span(found)}; give that file, or one with the angles in its first column"
            )
    for name, found in others:
        against = contradiction(angles_deg, found)
        if against and against != MIRRORED and of_frames(named, name):
            return tuple(frames_note(name, given.name, named.tilts.name, against))
        if against:
            return (
                f"Warning: {given.name} and {name} contradict each other: {against}; {given.name} "
                f"is taken, and the volume is wrong if it is not that of {named.tilts.name}",
            )
    if not counting or others:
        return ()
    return (
        f"Warning: {given.name} holds {counting}, one for each image: these are taken for tilt angles, but they "
        "may be the numbers of the images; if so, give a file with the angles in its first column",
    )


def _counting(angles_deg: Sequence[float]) -> str:
    """The numbers, in short, if they count the images; else an empty string."""
    count = len(angles_deg)
    for start in (0, 1):
        if count >= FEWEST_COUNTED and list(angles_deg) == list(range(start, start + count)):
            return f"{start}, {start + 1}, ... {start + count - 1}"
    return ""


def contradiction(angles_deg: Sequence[float], others_deg: Sequence[float]) -> str:
    """What tells that two files cannot both hold the angles of a series, or an empty string."""
    spans = f"{_span(angles_deg)} and {_span(others_deg)}"
    extents = [max(angles) - min(angles) for angles in (angles_deg, others_deg)]
    if abs(extents[0] - extents[1]) > RANGE_DEG:
        return f"they tell {spans}"
    # In each order of one file, the angles of the other must not fall clearly below those before.
    ordered = sorted(range(len(others_deg)), key=others_deg.__getitem__)
    for place, first in enumerate(ordered):
        for second in ordered[place + 1 :]:
            apart = others_deg[second] - others_deg[first], angles_deg[first] - angles_deg[second]
            if min(apart) > SURE_STEP_DEG:
                if opposite_signs(angles_deg, others_deg):
                    return MIRRORED
                one = min(first, second)
                return (
                    f"their angles are in another order (image {one + 1}: {angles_deg[one]:g}° and "
                    f"{others_deg[one]:g}°, image {max(first, second) + 1}: {angles_deg[max(first, second)]:g}° and "
                    f"{others_deg[max(first, second)]:g}°)"
                )
    return ""


def of_frames(named: Named, name: str) -> bool:
    """Whether a file is an .mdoc that need not be in the order of the stack: of frames, or of a stack of another name.

    Frames have it in the order in which they were taken: beside a sorted stack it tells the sign alone.
    """
    if not name.lower().endswith(".mdoc"):
        return False
    given, stack = named.angles, named.tilts.name.lower()
    path = given if given is not None and given.name == name else named.tilts.with_name(name)
    mdoc = named.reading(read_mdoc_text, path)
    return mdoc.with_frames or (name.lower() != f"{stack}.mdoc" and mdoc.image_file.lower() != stack)


def frames_note(name: str, source: str, stack: str, against: str) -> Iterator[str]:
    """What to tell of an .mdoc of frames that are in another order than the angles that are taken."""
    if against and against != MIRRORED:
        yield (
            f"{name} is in another order than {source}: right where {stack} was put into the order of {source} after "
            "its frames were recorded"
        )


def opposite_signs(angles_deg: Sequence[float], others_deg: Sequence[float]) -> bool:
    """Whether angles are those of the same images with the other sign, and perhaps an offset."""
    sums = sorted(a + b for a, b in zip(angles_deg, others_deg, strict=True))
    if not sums or max(angles_deg) - min(angles_deg) <= RANGE_DEG:
        return False
    middle = sums[len(sums) // 2]
    return max(sums[-1] - middle, middle - sums[0]) < RANGE_DEG / 2 and abs(middle) < MOST_OFFSET_DEG


def _span(angles_deg: Sequence[float]) -> str:
    return f"{min(angles_deg):g}° to {max(angles_deg):g}°"


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def angles_given(named: Named, sections: int) -> tuple[float, ...] | None:
    """What ANGLES holds, where that is an angle for each image; None else."""
    return next((found for _, found in _readable([named.angles] if named.angles else [], named, sections)), None)


def angles_known(named: Named, sections: int, but: Sequence[Path] = ()) -> list[tuple[str, tuple[float, ...]]]:
    """An angle for each image by what is not ANGLES, and its name: the files beside the stack, then its header.

    Files in ``but`` are left out: those of which the alignment itself is made.
    """
    taken = [*but, *([] if named.angles is None else [named.angles])]
    beside = [path for path in angles_beside(named.tilts) if not any(_is_same(path, one) for one in taken)]
    found = [(path.name, angles) for path, angles in _readable(beside, named, sections)]
    # A table that stands for a stack has no header.
    table = named.tilts in named.files.values()
    in_header = () if table else named.reading(read_header_angles_deg, named.tilts)
    return [*found, (f"the header of {named.tilts.name}", in_header)] if len(in_header) == sections else found


def _readable(paths: Sequence[Path], named: Named, sections: int) -> Iterator[tuple[Path, tuple[float, ...]]]:
    """Files that hold an angle for each image, and these; what cannot be read is told where it is asked for."""
    for path in paths:
        try:
            found = read_angles_of(path, sections, named.reading)
        except InputError:
            continue
        if len(found) == sections:
            yield path, found


def image_order(named: Named, sections: int) -> ImageOrder:
    """What is known of the order of the images: from ANGLES, else from the first file of angles beside the stack.

    Raises:
        InputError: if ANGLES cannot be read, or does not hold one angle for each image.
    """
    if named.angles is not None:
        return ImageOrder(angles_of(named, sections), named.angles.name, True)
    for path, found in _readable(angles_beside(named.tilts), named, sections):
        return ImageOrder(found, path.name)
    return ImageOrder()
