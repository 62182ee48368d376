"""Which field the aligned images of IMOD cover: what newst.com and tilt.com say of it, against that of the raw stack.

IMOD's ``tilt`` has of FULLIMAGE and SUBSETSTART where the middle of a field is that its images are a part of. They are
written as those of the raw images, but any field will do in whose middle the aligned ones lie.
"""

from __future__ import annotations

import math
from pathlib import Path

from cryolithe.alignment import Alignment
from cryolithe.errors import InputError
from cryolithe.formats.alignment.imod import NewstCommand, TiltCommand

# A field of view and the one that an alignment is for may differ so much: IMOD makes sizes even.
SAME_SIZE = 0.02
# Fields of so many times the raw ones' sides, both of them, are of other pixels: a turn by 45° needs 1.42.
OTHER_PIXELS = 1.5


def turned(made: Alignment, newst: NewstCommand | None, raw: tuple[int, int]) -> tuple[str, ...]:
    """A note where transforms turn the field by about 90°, and no file gives a size of the aligned images.

    Args:
        made: the alignment.
        newst: newst.com, or None.
        raw: pixels ``(y, x)`` of raw images.
    """
    width, height = raw  # turned
    if width == height or abs(math.sin(math.radians(made.axis_deg))) <= math.sqrt(0.5):
        return ()
    if made.aligned_shape is None:
        return (
            f"the transforms turn the images, and no file tells the size of the aligned ones: {width} x {height} is "
            "taken (the whole field); give --newst-com for that of IMOD's",
        )
    if newst is not None and newst.size_px is None and made.aligned_shape == newst.aligned_shape(raw):
        return (
            f"newst.com gives no SizeToOutputInXandY: as IMOD's, aligned images keep the size of raw ones, {raw[1]} x "
            f"{raw[0]}, which is not their whole field turned ({width} x {height})",
        )
    return ()


def same_field(
    source: Path, full_px: tuple[int, int], shapes: tuple[tuple[int, int], tuple[int, int] | None], unit: float
) -> None:
    """Raise InputError if FULLIMAGE, (x, y), is the field neither of raw images, in either orientation, nor of aligned.

    ``shapes`` are those of raw and of aligned images, (y, x), the latter None where nobody tells it.
    """
    (height, width), aligned = shapes
    raw, full = sorted((width * unit, height * unit)), sorted(full_px)
    if all(abs(a - b) <= SAME_SIZE * a + unit for a, b in zip(full, raw, strict=True)):
        return
    times = [a / b for a, b in zip(full, raw, strict=True)]
    of_aligned = aligned is not None and all(
        abs(a - b * unit) <= 2 * unit for a, b in zip(full_px, aligned[::-1], strict=True)
    )
    if of_aligned and min(times) < OTHER_PIXELS and max(times) > 1 / OTHER_PIXELS:
        return
    raise InputError(
        f"{source} is for images of {full_px[0]} x {full_px[1]} pixels but those of the stack are "
        f"{width} x {height}{f' times {unit:g}' if unit != 1 else ''}; give the stack that this project is of"
    )


def shape_by_tilt(tilt: TiltCommand, raw: tuple[int, int], unit: float) -> tuple[int, int] | None:
    """Raw images' shape ``(y, x)``, as it lies or turned, if tilt.com says that the aligned ones have it; else None."""
    assert tilt.full_image_px is not None
    wanted = [full - 2 * start for full, start in zip(tilt.full_image_px, tilt.subset_start_px, strict=True)]

    def off(shape: tuple[int, int]) -> float:
        return max(abs(n * unit - px) / px if px > 0 else math.inf for n, px in zip(shape[::-1], wanted, strict=True))

    nearest = min(raw, raw[::-1], key=off)
    return nearest if off(nearest) <= SAME_SIZE else None


def in_the_middle(source: Path, tilt: TiltCommand, covered_px: tuple[float, float], stack_px: tuple[int, int]) -> None:
    """Raise InputError if the aligned images, (x, y), do not cover FULLIMAGE - 2 SUBSETSTART, in its middle."""
    assert tilt.full_image_px is not None
    starts = tilt.subset_start_px
    wanted = [full - 2 * start for full, start in zip(tilt.full_image_px, starts, strict=True)]
    # Sizes are rounded to whole binned pixels, starts to whole pixels. Along y an offset moves nothing but the axis of
    # a tilt about x.
    off = [abs(a - b) / tilt.image_binned for a, b in zip(covered_px, wanted, strict=True)]
    if off[0] <= 1 and off[1] <= 2:
        return
    raise InputError(
        f"{source}: SUBSETSTART is not in the middle of FULLIMAGE for this stack: FULLIMAGE - 2 SUBSETSTART is "
        f"{wanted[0]:g} x {wanted[1]:g} pixels, but the aligned images of a stack of {stack_px[0]} x {stack_px[1]} "
        f"cover {covered_px[0]:g} x {covered_px[1]:g}; give the stack that this project is of (a part that is not "
        "in the middle cannot be reconstructed here)"
    )


def part_notes(tilt: TiltCommand, shape: tuple[int, int] | None, unit: float) -> tuple[str, ...]:
    """What SLICE and WIDTH leave out of IMOD's volume and is made here, with IMOD's rounding of binned numbers."""
    binned = int(tilt.image_binned)
    rows, columns = (round(n * unit / tilt.image_binned) for n in shape) if shape else (None, None)
    first, parts = [], []
    if tilt.slices is not None:
        start, last = ((index + binned) // binned - 1 for index in tilt.slices)
        if start > 0 or rows is None or last < rows - 1:
            parts.append(f"SLICE {tilt.slices[0]} {tilt.slices[1]}")
            first.append(f"row {start}")
    if tilt.width_px is not None and columns is not None and int(tilt.width_px) // binned != columns:
        parts.append(f"WIDTH {tilt.width_px:g}")
        first.append(f"column {(columns - int(tilt.width_px) // binned) / 2:g}")
    elif tilt.width_px is not None and columns is None:
        parts.append(f"WIDTH {tilt.width_px:g}")
    if not parts:
        return ()
    begins = f"; IMOD's volume begins at {' and '.join(first)} of it" if first else ""
    return (f"{' and '.join(parts)} not applied: the whole field is reconstructed{begins}",)
