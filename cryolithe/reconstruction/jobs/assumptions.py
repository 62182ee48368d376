"""What the files beside a stack tell about it, what they are checked against, and what is assumed where they do not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from cryolithe.formats.alignment.alignment_format import Named
from cryolithe.formats.alignment.alignments import flags_that_move
from cryolithe.formats.alignment.stack_state import NOT_FOR_RECONSTRUCTION, for_viewing, of_other_stack, stack_state
from cryolithe.formats.files import printable
from cryolithe.formats.reading import Reading
from cryolithe.formats.stacks.angles import read_angles_deg
from cryolithe.settings import ReconstructSettings

# Directions of the tilt axis that differ by less may be the same; the images of aligned stacks have it along an edge.
ALONG_DEG = 2.0
# Pixels of tilt series, from super-resolution to binned for an overview; other values are of another unit.
USUAL_PIXEL_ANGSTROM = (0.3, 150.0)
# Of angles: between neighbours, and in median steps; programs leave out two or three dark images in a row.
WIDE_GAP_DEG, WIDE_GAP_STEPS = 12.5, 4.0
# From the lowest to the highest angle; a series of less resolves nothing along the beam.
LEAST_SPAN_DEG = 25.0


def of_denoised_images(tilts: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """A warning about a stack that was denoised to be looked at; empty for others."""
    if not for_viewing(tilts, labels):
        return ()
    return (
        f"Warning: {tilts.name} says that it holds denoised images, {NOT_FOR_RECONSTRUCTION}: they are no projections "
        "any more, and the volume will show what is not there; reconstruct from the stack that they were made of",
    )


def assumptions(named: Named, tilt_axis_deg: float | None) -> tuple[str, ...]:
    """What to tell the user about how a stack is taken.

    Args:
        named: the stack, and its angle file if one was given.
        tilt_axis_deg: of the axis by which images are turned; None where an alignment brings them into register.
    """
    notes, angles = [], named.angles
    if angles is not None and angles.suffix.lower() == ".mdoc":
        # Also frames have one, in the order of acquisition.
        other = of_other_stack(angles, named.tilts, named.reading)
        told = f", which is the .mdoc of {printable(other)[:100]}" if other else ""
        # A stack's own is called by its whole name; that of frames has another order where images were sorted since.
        own = angles.name.lower() == f"{named.tilts.name}.mdoc".lower()
        if not own and not named.files and not _sorted(angles, named.reading):
            told += f" (not sorted: if the images of {named.tilts.name} are, give their angles in their order)"
        notes.append(f"the angles are taken from {angles.name} in the order of its ZValue{told}")
    state = stack_state(named.tilts, angles, named.reading)
    if tilt_axis_deg is None or state.aligned is not False:
        return tuple(notes)
    if state.prealigned and not tilt_axis_deg:
        axis = "with its tilt axis (--tilt-axis)" if not state.axis_deg else f"with --tilt-axis {state.axis_deg:g}"
        notes.append(
            f"Warning: {state.reason}: its images are shifted, and neither turned nor stretched, but they are taken as "
            f"aligned, their tilt axis along y; give the raw stack with its alignment ({flags_that_move()}), or this "
            f"one {axis} for a first look"
        )
    elif not tilt_axis_deg:
        turn = "" if state.axis_deg is None else f" or --tilt-axis {state.axis_deg:g}"
        notes.append(
            f"it is taken as aligned, its tilt axis along y (--tilt-axis 0), but {state.reason}: if it is raw, give "
            f"its alignment ({flags_that_move()}){turn}"
        )
    elif state.axis_deg is not None and abs((state.axis_deg - tilt_axis_deg + 90) % 180 - 90) > ALONG_DEG:
        notes.append(f"{state.reason}, but --tilt-axis is {tilt_axis_deg:g}, which is taken")
    return tuple(notes)


def of_handedness(settings: ReconstructSettings) -> tuple[str, ...]:
    """A warning where a volume that is in Warp's frame is turned out of it."""
    if settings.handedness != "warp" or "warp" not in settings.alignment_files:
        return ()
    return (
        "Warning: with --warp the volume is in Warp's own frame as it is, and --handedness warp mirrors it along z; "
        "leave that away unless it is wanted",
    )


def unusual(angles_deg: Sequence[float], pixel_size_angstrom: float | None, excluded: bool) -> tuple[str, ...]:
    """Warnings of angles and of a pixel size that no tilt series has, which units explain.

    Args:
        angles_deg: of the images that are used.
        pixel_size_angstrom: or None.
        excluded: whether the user leaves out images, which may be why.
    """
    notes, span = [], max(angles_deg) - min(angles_deg)
    low, high = USUAL_PIXEL_ANGSTROM
    too_many = ", or does --exclude name too many" if excluded else ""
    if len(angles_deg) > 1 and span < LEAST_SPAN_DEG:
        notes.append(
            f"Warning: the angles are {min(angles_deg):g}° to {max(angles_deg):g}°, a range of {span:.3g}° where tilt "
            "series have 60° to 140°: such a volume holds next to nothing along the beam; "
            f"are they in degrees{too_many}?"
        )
    if len(angles_deg) == 1:
        remedy = "name fewer in --exclude" if excluded else "give a tilt series"
        notes.append(f"Warning: one image alone tells nothing of depth, it is smeared along its beam; {remedy}")
    ordered = sorted(angles_deg)
    steps = [after - before for before, after in pairwise(ordered)]
    if steps and max(steps) > max(WIDE_GAP_DEG, WIDE_GAP_STEPS * median(steps)):
        place = steps.index(max(steps))
        notes.append(
            f"Warning: no image between {ordered[place]:g}° and {ordered[place + 1]:g}°: a second missing wedge of "
            f"{max(steps):.3g}°, which the volume is smeared by as by the first; "
            f"are images or angles missing{too_many}?"
        )
    if pixel_size_angstrom is not None and not low <= pixel_size_angstrom <= high:
        notes.append(
            f"Warning: a pixel size of {pixel_size_angstrom:g} Å, but tilt series are recorded at {low:g} to {high:g} "
            "Å: is it in another unit? (1 nm is 10 Å); give --pixel-size"
        )
    return tuple(notes)


def _sorted(mdoc: Path, reading: Reading) -> bool:
    """Whether the angles of an .mdoc rise or fall all through, in the order of its images."""
    steps = [b - a for a, b in pairwise(read_angles_deg(mdoc, reading))]
    return all(step >= 0 for step in steps) or all(step <= 0 for step in steps)
