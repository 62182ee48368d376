"""What speaks against an alignment: files beside the stack, its header, the microscope, and the alignment itself.

All of it is taken nevertheless, with a warning: which one is wrong cannot be known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from cryolithe.alignment import IDENTITY, Alignment
from cryolithe.formats.alignment.alignment_format import AlignmentFile, AlignmentFormat, Named, Stack
from cryolithe.formats.alignment.image_order import (
    MIRRORED,
    angles_given,
    angles_known,
    contradiction,
    frames_note,
    of_frames,
    opposite_signs,
)
from cryolithe.formats.alignment.stack_state import axes_told

# Axes of a series lie within degrees of each other, and of what the microscope is told.
NEAR_AXIS_DEG = 30.0
# Shifts are a few percent of a field; in pixels of another size they may be anything.
MOST_SHIFT = 0.4

_Told = tuple[str, list[float], list[float]]


def alignment_doubts(named: Named, stack: Stack, alignment: Alignment, program: AlignmentFormat) -> tuple[str, ...]:
    """Warnings and notes about an alignment.

    Args:
        named: the stack and its files.
        stack: what is known of its images.
        alignment: as it was read.
        program: whose files describe it.
    """
    source = next(iter(named.files.values())).name
    told = list(_angles_told(named, alignment, program))
    teller = next((named.files[file.option].name for file in program.files if _tells_angles(file, named)), source)
    found = [*_angle_doubts(named, told, program.any_sign, teller), *_shift_doubts(stack, alignment, source)]
    moves = any(image.matrix != IDENTITY for image in alignment.images)  # else the stack is in register
    if moves:
        found += _axis_doubts(alignment, source)
    warnings = (*(f"Warning: {text}" for text in found), *_order_notes(named, told, teller))
    return (*warnings, *_axis_notes(named, alignment, source)) if moves else warnings


def _angle_doubts(named: Named, told: Sequence[_Told], any_sign: bool, source: str) -> Iterator[str]:
    """The first of what tells the images' angles that contradicts the alignment's."""
    for name, angles_deg, found in told:
        against = MIRRORED if opposite_signs(angles_deg, found) else ""
        if not against and not of_frames(named, name):
            against = contradiction(angles_deg, found)
        if against and not (any_sign and against == MIRRORED):
            yield (
                f"the angles by {source} and {name} contradict each other: {against}; those by {source} are taken, and "
                f"the volume is wrong if they are not those of {named.tilts.name}"
            )
            return


def _order_notes(named: Named, told: Sequence[_Told], source: str) -> Iterator[str]:
    """A note on an .mdoc called like the stack whose frames were recorded in another order than the alignment has."""
    for name, angles_deg, found in told:
        if of_frames(named, name) and name.lower() == f"{named.tilts.name}.mdoc".lower():
            yield from frames_note(name, source, named.tilts.name, contradiction(angles_deg, found))


def _tells_angles(file: AlignmentFile, named: Named) -> bool:
    return file.option in named.files and "angles" in file.tells


def _angles_told(named: Named, alignment: Alignment, program: AlignmentFormat) -> Iterator[_Told]:
    """What tells the images' angles, its name, the alignment's angles, and those that it tells of the same images.

    That is ANGLES, which are compared with the others themselves, or else the files beside the stack and its header;
    not those that the alignment's own files name, whose angles it has, in whatever order.
    """
    told = dict(alignment.left_out_deg) | {image.section: image.angle_deg for image in alignment.images}
    places = sorted(section for section in told if section < alignment.sections)
    given = angles_given(named, alignment.sections)
    if named.angles is not None and given is not None:
        others = [] if program.takes_angles else [(named.angles.name, given)]
    else:
        others = angles_known(named, alignment.sections, tuple(program.further(named).values()))
    for name, found in others:
        yield name, [told[place] for place in places], [found[place] for place in places]


def _axis_doubts(alignment: Alignment, source: str) -> Iterator[str]:
    """Images whose axis is turned against the others'."""
    axes = {i.section: -math.degrees(math.atan2(i.matrix[1][0], i.matrix[0][0])) for i in alignment.images}
    middle = alignment.axis_deg
    turned = [section for section, axis in axes.items() if abs((axis - middle + 180) % 360 - 180) > NEAR_AXIS_DEG]
    if turned:
        yield (
            f"{source} turns the tilt axis of image {turned[0] + 1} of the stack to {axes[turned[0]]:.4g}°, those of "
            f"the others to {middle:.4g}°: {len(turned)} of {len(axes)} images are turned against the others"
        )


def _axis_notes(named: Named, alignment: Alignment, source: str) -> Iterator[str]:
    """A note on an axis that is not the microscope's: that may be told of turned frames, and so is no warning."""
    middle = alignment.axis_deg
    for path, told in axes_told(named.tilts, named.angles, named.reading):
        # An axis has no direction of its own; its angle may be told half a turn further.
        if abs((middle - told + 90) % 180 - 90) > NEAR_AXIS_DEG:
            yield (
                f"the tilt axis lies at {middle:.4g}° by {source} and at {told:.4g}° by {path.name}: is "
                f"{source} of another session?"
            )
        return


def _shift_doubts(stack: Stack, alignment: Alignment, source: str) -> Iterator[str]:
    """Shifts that no series has."""
    most = max(alignment.images, key=lambda image: math.hypot(*image.shift_px))
    size, field = math.hypot(*most.shift_px), min(stack.image_shape)
    if size > MOST_SHIFT * field:
        pixel = alignment.pixel_size_angstrom or stack.pixel_size_angstrom
        of = f", at {pixel:g} Å a pixel" if pixel else ""
        yield (
            f"{source} shifts image {most.section + 1} of the stack by {size:.0f} pixels of {field}{of}: is it of "
            "another series, or the pixel size wrong (--pixel-size)?"
        )
