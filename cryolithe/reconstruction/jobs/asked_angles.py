"""What to say where a stack is named without angles: also those that its header tells."""

from __future__ import annotations

from cryolithe.formats.alignment.alignment_format import Named
from cryolithe.formats.alignment.alignments import flags_that_bring_angles
from cryolithe.formats.stacks.header_angles import read_header_angles_deg


def no_angles(named: Named) -> str:
    """The line that asks for them.

    Angles of a header are those that the microscope was asked for, and not always of the images that a program has left
    in the file: to take them is the user's choice.

    Args:
        named: a stack without angles and without an alignment.
    """
    told, tilts = f"give ANGLES, or an alignment that brings them ({flags_that_bring_angles()})", named.tilts
    if angles := named.reading(read_header_angles_deg, tilts):
        told += (
            f"; the header of {tilts.name} tells {len(angles)} angles, {min(angles):g}° to {max(angles):g}°, as the "
            f"microscope was asked for: to take them, write them to a file (IMOD: extracttilts {tilts.name} "
            f"{tilts.stem}.rawtlt)"
        )
    return f"{told}; see: cryolithe reconstruct --help"
