"""Whether the rows of a table stand in the order of a stack's images, told by angles that are known of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.formats.alignment_format import Named
from cryolithe.formats.angles import angles_beside, read_angles_deg

# Rows of images that are closer than this cannot be told apart by their angles.
LEAST_STEP_DEG = 0.4


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
    angles = read_angles_deg(named.angles, named.reading)
    if len(angles) != sections:
        raise InputError(
            f"{named.tilts} holds {sections} images but {named.angles} holds {len(angles)} angles; "
            "give the angle file that belongs to this stack"
        )
    return angles


def image_order(named: Named, sections: int) -> ImageOrder:
    """What is known of the order of the images: from ANGLES, else from the first file of angles beside the stack.

    Raises:
        InputError: if ANGLES cannot be read, or does not hold one angle for each image.
    """
    if named.angles is not None:
        return ImageOrder(angles_of(named, sections), named.angles.name, True)
    for path in angles_beside(named.tilts):
        try:
            found = read_angles_deg(path, named.reading)
        except InputError:  # nobody asked for this file
            continue
        if len(found) == sections:
            return ImageOrder(found, path.name)
    return ImageOrder()
