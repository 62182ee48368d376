"""Which sign the tilt angles of a file have against an alignment's, where Warp's tools may have turned either round.

Warp's tools turn the angles of what they import round, unless they are told ``--dont_invert``; its files do not tell
which. So other files fit an alignment of Warp with one sign, with the other, or with both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

# By smaller steps sorted angles may go back.
_LEAST_STEP_DEG = 0.4
# Angles that are those of another file are shifted by no more; those of the other sign by more than a step, as both may
# be, where one side of a series has an image more, and the specimen is tilted by a step.
_NO_OFFSET_DEG, _OFFSET_DEG = 1.0, 5.0


@dataclass(frozen=True)
class Way:
    """The rows of a file for the images that are used, with one sign.

    Attributes:
        rows: of each image.
        offset_deg: by which the angles of the images differ from those of their rows, beyond what the alignment tells;
            0 where rows have none.
        named: whether the rows name these images themselves.
    """

    rows: tuple[int, ...]
    offset_deg: float = 0.0
    named: bool = False


def turns_back(angles_deg: Sequence[float]) -> bool:
    """Whether angles are not sorted: the order of a stack with such angles is not that of their negatives."""
    steps = {b > a for a, b in pairwise(angles_deg) if abs(b - a) > _LEAST_STEP_DEG}
    return len(steps) > 1


def sign_of(ways: Mapping[int, Way], angles_deg: Sequence[float], stage_sign: int | None) -> int:
    """The sign, 1 or -1, that a file's angles have; 0 where more than one fits, and nothing tells which.

    Args:
        ways: those that fit, at least one, by their sign.
        angles_deg: of the images, in the order of the stack.
        stage_sign: of the alignment, as `cryolithe.alignment.Alignment` has it.
    """
    if len(ways) == 1 or ways[1].rows == ways[-1].rows:
        return next(iter(ways))
    named = [sign for sign, way in ways.items() if way.named]
    # Rows in the order of the stack; of a sorted one the other sign has them, too, if its other end is first.
    in_turn = [sign for sign, way in ways.items() if all(b > a for a, b in pairwise(way.rows))]
    in_turn = in_turn if turns_back(angles_deg) else []
    apart = {sign: abs(way.offset_deg) for sign, way in ways.items()}
    moved = max(apart.values()) > _OFFSET_DEG
    unmoved = [sign for sign, offset in apart.items() if moved and offset <= _NO_OFFSET_DEG]
    for told in (named, in_turn, [stage_sign] if stage_sign else [], unmoved):
        if len(told) == 1:
            return told[0]
    return 0


def sign_notes(name: str, what: str, sign: int, of_warp: bool) -> Iterator[str]:
    """What to tell of the sign of a file's angles.

    Args:
        name: of the file.
        what: the values are.
        sign: 1, -1, or 0 where another one fits as well, and gives images other values.
        of_warp: whether the file is Warp's, and not the alignment.
    """
    who = name if of_warp else "Warp's alignment"
    if sign < 0:
        yield (
            f"the tilt angles of {name} fit those of the alignment with the other sign, as where a series was imported "
            f"into Warp with --dont_invert: images get their {what} so"
        )
    if sign == 0:
        by = "" if of_warp else "; an .mdoc beside the stack, in its order, tells it, if the stack is not sorted"
        yield (
            f"{who} has the angles of its images as Warp's tools turn them round, is supposed: if it was made with "
            f"--dont_invert, each image gets the {what} of the opposite tilt from {name}{by}"
        )
