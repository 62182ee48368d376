"""The contrast transfer function of a series, whatever program wrote it, for the very images that are used.

Tables of RELION and Warp tell their images and the angles of these, which are matched; IMOD's file tells angles, which
are compared; rows of CTFFIND and AreTomo3 are those of the stack, or of its images that are used, AreTomo3's in the
order of tilt angles.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.alignment.relion_listing import further_tables
from cryolithe.formats.alignment.same_images import same_images
from cryolithe.formats.angle_signs import Way, sign_notes, sign_of
from cryolithe.formats.files import PathLike, file_beside
from cryolithe.formats.image_rows import SeriesImages, possible_rows, rows_of
from cryolithe.formats.microscope.ctf_tables import Told, read_relion_ctf, read_warp_ctf
from cryolithe.formats.microscope.ctf_text import Columns, differ, has_columns, read_columns
from cryolithe.formats.microscope.defocus_views import of_views, read_views
from cryolithe.formats.reading import Reading
from cryolithe.formats.series_names import possible_names
from cryolithe.optics.ctf import Ctf

# How names beside a stack go on after its own name.
BESIDE = ("_CTF.txt", "_ctf.txt", ".defocus", "_ctffind4.txt", "_ctffind5.txt")
# Settings of alignments whose files may tell it.
OF_ALIGNMENTS = ("star", "warp")


def read_ctf(path: Path, series: SeriesImages, reading: Reading) -> Ctf:
    """Read the values of the images of a series, in their order.

    Args:
        path: RELION's .star, Warp's .xml, IMOD's .defocus, a table of CTFFIND or AreTomo3.
        series: whose images.
        reading: through which files are read.

    Raises:
        InputError: if the file cannot be read, tells no defocus, or is not of these images.
    """
    ending = path.suffix.lower()
    if ending in (".star", ".xml"):
        told = _of_table(path, series.name, reading)
        if told is None:
            raise InputError(f"{path} tells no defocus; give the file of a program that estimated it with --ctf-file")
        return _matched(path, told, series)
    if ending != ".defocus" and reading(has_columns, path):
        return _of_rows(path, reading(read_columns, path), series)
    return of_views(path, reading(read_views, path), series)


def ctf_file_of(tilts: Path, alignment: Mapping[str, Path], reading: Reading) -> Path:
    """The file that tells the defocus where no setting names it: the alignment's own, or the only one beside the stack.

    Raises:
        InputError: if there is none, or several.
    """
    unreadable: InputError | None = None
    for option in OF_ALIGNMENTS:
        try:
            if option in alignment and _of_table(alignment[option], tilts, reading) is not None:
                return alignment[option]
        except InputError as error:
            unreadable = error
    found = _beside(tilts)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{', '.join(path.name for path in found)} beside {tilts.name} may all tell its defocus; choose one with "
            "--ctf-file"
        )
    if unreadable is not None:
        raise unreadable
    raise InputError(
        f"the defocus of {tilts.name} is not known: expected --ctf-file (CTFFIND, AreTomo3's _CTF.txt, IMOD's "
        ".defocus, RELION's .star, Warp's .xml), one of these beside the stack, or --star or --warp with a defocus"
    )


def read_with(path: Path, tilts: Path, reading: Reading) -> dict[str, Path]:
    """The other files that are read with one that tells defocus or doses, by what they are: tables of RELION.

    Raises:
        InputError: if a file cannot be read, or no series is that of the stack.
    """
    return further_tables(path, tilts, reading) if path.suffix.lower() == ".star" else {}


def tells_defocus(tilts: Path, alignment: Mapping[str, Path], reading: Reading) -> bool:
    """Whether `ctf_file_of` has a file to look into, readable or not."""
    for path in (alignment[option] for option in OF_ALIGNMENTS if option in alignment):
        try:
            if _of_table(path, tilts, reading) is not None:
                return True
        except InputError:
            return True
    return bool(_beside(tilts))


def _beside(tilts: Path) -> list[Path]:
    """Files beside a stack whose names say that they tell its defocus."""
    found: list[Path] = []
    for base, ending in itertools.product(possible_names(tilts.name), BESIDE):
        path = file_beside(tilts, base, ending)
        if path and not any(path.samefile(other) for other in found):
            found.append(path)
    return found


def _of_table(path: Path, tilts: PathLike, reading: Reading) -> Told | None:
    if path.suffix.lower() == ".star":
        return read_relion_ctf(path, tilts, reading)
    return reading(read_warp_ctf, path) if path.suffix.lower() == ".xml" else None


def _matched(path: Path, told: Told, series: SeriesImages) -> Ctf:
    angles, images = told.rows.angles_deg, told.ctf.images
    matched = same_images(series.angles_deg, told.rows, series.others)
    if matched is None:
        raise InputError(
            f"{path} tells the defocus of {len(angles)} images ({_span(angles)}), expected one for each of these "
            f"{len(series.used)} ({_span(series.angles_deg)}) at its tilt angle, without doubt which; give the file of "
            "this series, or of its very images"
        )
    doubt = matched.doubt(path, "defoci", series.others, lambda a, b: differ(images[a], images[b]))
    made = replace(told.ctf, images=tuple(images[row] for row in matched.rows), notes=(*told.ctf.notes, *doubt))
    return _of_sign(made, path, matched.sign)


def _of_sign(made: Ctf, path: Path, sign: int) -> Ctf:
    """Values for images whose angles have a sign against the file's, whose hand of the defocus is that of its own."""
    if sign >= 0 or made.hand is None:
        return made
    note = f"the hand of the defocus gradient by {path.name} is that of its own angles, and is not taken"
    return replace(made, hand=None, notes=(*made.notes, note))


def _of_rows(path: Path, table: Columns, series: SeriesImages) -> Ctf:
    sides = series.signs if table.sorted_by_angle else {1: series}
    fits = {sign: made for sign, side in sides.items() if (made := rows_of(table.numbers, side, table.sorted_by_angle))}
    if fits:
        ways = {sign: Way(places) for sign, (_, places) in fits.items()}
        sign = sign_of(ways, series.angles_deg, series.stage_sign)
        rows, places = fits[sign or 1]
        images = tuple(table.ctf.images[place] for place in places)
        if sign == 0 and not any(map(differ, images, (table.ctf.images[place] for place in fits[-1][1]))):
            sign = 1
        # Such tables tell no angles, so that nothing can be said of their order.
        order = "" if table.sorted_by_angle else "are taken in the order of the stack's images"
        told = " and ".join(part for part in (rows.note, order) if part)
        note = f"the {len(table.numbers)} rows of {path.name} {told}" if told else ""
        notes = (*table.ctf.notes, *([note] if note else []), *sign_notes(path.name, "defoci", sign, of_warp=False))
        return _of_sign(replace(table.ctf, images=images, notes=notes), path, sign)
    last, count = table.numbers[-1], len(table.numbers)
    if last != count:
        raise FileFormatError(
            f"{path}: expected rows numbered 1 to {count}, found {count} up to {last}, and rows of images that are "
            "used are missing; give the table of this very stack, a row for each image"
        )
    counts = dict.fromkeys(len(rows.images) for rows in possible_rows(series))
    if table.sorted_by_angle and count in counts:
        raise InputError(
            f"{path} holds {count} rows in the order of tilt angles, as AreTomo3 writes them, but the angles of the "
            "stack's images that are left out are not known; give the stack that AreTomo3 wrote"
        )
    used = f", of which {len(series.used)} are used" if len(series.used) != series.sections else ""
    raise FileFormatError(
        f"{path} holds {count} rows but the stack holds {series.sections} images{used}; give the table of this very "
        "stack, a row for each image"
    )


def _span(angles_deg: Sequence[float]) -> str:
    return f"{min(angles_deg):g}° to {max(angles_deg):g}°"
