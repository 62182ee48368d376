"""Angles of an IMOD project: those of ANGLES or of tilt.com, for the images of the raw stack or of the aligned one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryolithe.errors import GeometryError, InputError, SettingsError
from cryolithe.formats.alignment.alignment_format import Named
from cryolithe.formats.alignment.image_order import contradiction
from cryolithe.formats.alignment.imod import TiltCommand, read_tilts_deg
from cryolithe.formats.stacks.angles import angles_beside, read_angles_of
from cryolithe.geometry import check_angles_deg

OF_TILT_COMMAND = "ANGLES of tilt.com"
# Files of angles are written to a hundredth of a degree.
SAME_DEG = 0.05

_Sections = tuple[tuple[int, float], ...]


def angles_of_project(
    tilt: TiltCommand | None, path: Path | None, named: Named, sections: int, taken: tuple[int, ...]
) -> tuple[tuple[float, ...], _Sections]:
    """The angle of each image of the aligned stack, of as many lines, or of lines for the whole raw stack.

    In that case also section and angle of each other image.

    Args:
        tilt: tilt.com, or None.
        path: the angle file, of the user or of tilt.com; None for angles that stand in tilt.com itself.
        named: the stack and its files.
        sections: images of the raw stack.
        taken: those of the aligned one.

    Raises:
        InputError: if a file is not usable, or is for another number of images.
        SettingsError: if nothing tells the angles.
    """
    if path is not None:
        source, values = str(path), read_angles_of(path, sections, named.reading)
        if tilt is not None and path == tilt.angles and len(values) not in (len(taken), sections):
            # Many may stand in a line.
            values = _checked(source, named.reading(read_tilts_deg, path, "tilt angles"))
    elif tilt is not None and tilt.listed_angles_deg:
        source = OF_TILT_COMMAND
        values = _checked(source, tilt.listed_angles_deg)
    else:
        raise SettingsError("give ANGLES (the .tlt file), or a --tilt-com that names it as TILTFILE")
    if len(values) == len(taken):
        return values, ()
    if len(values) == sections:
        others = tuple((section, values[section]) for section in range(sections) if section not in taken)
        return tuple(values[section] for section in taken), others
    of_newst = f", of which newst.com takes {len(taken)}," if len(taken) != sections else ""
    raise InputError(
        f"{named.tilts} holds {sections} images{of_newst} but {source} holds {len(values)} angles; "
        "give the angle file that belongs to this stack"
    )


def angle_notes(named: Named, given_deg: tuple[float, ...], source: str, told_deg: tuple[float, ...]) -> Iterator[str]:
    """What to tell of ANGLES, which are taken, beside the angles that tilt.com tells itself.

    Args:
        named: the stack and its files.
        given_deg: by ANGLES, of each image of the aligned stack.
        source: of the others.
        told_deg: likewise.
    """
    assert named.angles is not None
    given, stack = named.angles.name, named.tilts.name
    against = contradiction(given_deg, told_deg)
    if against and source in (path.name for path in angles_beside(named.tilts)):
        return  # what lies beside the stack is compared with ANGLES anyway
    if against:
        yield (
            f"Warning: {given} and {source}, which tilt.com names, contradict each other: {against}; {given} is taken, "
            f"and the volume is wrong if it is not that of {stack}"
        )
        return
    most = max(abs(one - other) for one, other in zip(given_deg, told_deg, strict=True))
    if most > SAME_DEG:
        yield (
            f"{given} is taken in place of {source} of tilt.com, from which it differs by up to {most:.2g}°; leave "
            "ANGLES out for those that IMOD reconstructed with"
        )


def _checked(source: str, angles_deg: tuple[float, ...]) -> tuple[float, ...]:
    try:
        check_angles_deg(angles_deg)
    except GeometryError as error:
        raise InputError(f"{source}: {error}") from error
    return angles_deg
