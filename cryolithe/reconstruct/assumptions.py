"""What the files beside a stack tell about it, what they are checked against, and what is assumed where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.formats import read_angles_deg
from cryolithe.formats.alignment_names import angles_beside
from cryolithe.formats.files import printable
from cryolithe.formats.image_order import ImageOrder
from cryolithe.formats.stack_state import NOT_FOR_RECONSTRUCTION, for_viewing, of_other_stack, stack_state

# Directions of the tilt axis that differ by less may be the same; the images of aligned stacks have it along an edge.
ALONG_DEG = 2.0


def angles_of(path: Path, tilts: Path, sections: int) -> tuple[float, ...]:
    """The angles of a stack's images.

    Raises:
        InputError: if the file cannot be read, or does not hold one angle for each image.
    """
    angles = read_angles_deg(path)
    if len(angles) != sections:
        raise InputError(
            f"{tilts} holds {sections} images but {path} holds {len(angles)} angles; "
            "give the angle file that belongs to this stack"
        )
    return angles


def image_order(tilts: Path, angles: Path | None, sections: int) -> ImageOrder:
    """What is known of the order of the images: from ANGLES, else from the first file of angles beside the stack.

    Raises:
        InputError: if ANGLES cannot be read, or does not hold one angle for each image.
    """
    if angles is not None:
        return ImageOrder(angles_of(angles, tilts, sections), angles.name, True)
    for path in angles_beside(tilts):
        try:
            found = read_angles_deg(path)
        except InputError:  # nobody asked for this file
            continue
        if len(found) == sections:
            return ImageOrder(found, path.name)
    return ImageOrder()


def of_denoised_images(tilts: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """A warning about a stack that was denoised to be looked at; empty for others."""
    if not for_viewing(tilts, labels):
        return ()
    return (
        f"Warning: {tilts.name} says that it holds denoised images, {NOT_FOR_RECONSTRUCTION}: they are no projections "
        "any more, and the volume will show what is not there; reconstruct from the stack that they were made of",
    )


def assumptions(tilts: Path, angles: Path | None, tilt_axis_deg: float | None) -> tuple[str, ...]:
    """What to tell the user about how a stack is taken.

    Args:
        tilts: the stack.
        angles: its angle file, or None.
        tilt_axis_deg: of the axis by which images are turned; None where an alignment brings them into register.
    """
    notes = []
    if angles is not None and angles.suffix.lower() == ".mdoc":
        # Also frames have one, in the order of acquisition.
        other = of_other_stack(angles, tilts)
        told = f", which is the .mdoc of {printable(other)[:100]}" if other else ""
        notes.append(f"the angles are taken from {angles.name} in the order of its ZValue{told}")
    state = stack_state(tilts, angles)
    if tilt_axis_deg is None or state.aligned is not False:
        return tuple(notes)
    if not tilt_axis_deg:
        turn = "" if state.axis_deg is None else f" or --tilt-axis {state.axis_deg:g}"
        notes.append(
            f"it is taken as aligned, its tilt axis along y (--tilt-axis 0), but {state.reason}: if it is raw, give "
            f"its alignment (--xf, --newst-com, --aln, --star, --warp){turn}"
        )
    elif state.axis_deg is not None and abs((state.axis_deg - tilt_axis_deg + 90) % 180 - 90) > ALONG_DEG:
        notes.append(f"{state.reason}, but --tilt-axis is {tilt_axis_deg:g}, which is taken")
    return tuple(notes)
