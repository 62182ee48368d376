"""The contrast transfer function of a series, whatever program wrote it, for the very images that are used.

Tables of RELION and Warp tell the angles of their images, which are matched; IMOD's file tells angles, which are
compared; rows of CTFFIND and AreTomo3 are those of the stack, or of its images that are used, AreTomo3's in the order
of tilt angles.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryolithe.ctf import Ctf
from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.ctf_tables import Told, read_relion_ctf, read_warp_ctf
from cryolithe.formats.ctf_text import has_columns, of_views, read_columns, read_views
from cryolithe.formats.doses import same_images
from cryolithe.formats.files import file_beside
from cryolithe.formats.reading import Reading
from cryolithe.formats.series_names import possible_names

# How names beside a stack go on after its own name.
BESIDE = ("_CTF.txt", "_ctf.txt", ".defocus", "_ctffind4.txt", "_ctffind5.txt")
# Settings of alignments whose files may tell it.
OF_ALIGNMENTS = ("star", "warp")


@dataclass(frozen=True)
class SeriesImages:
    """The images of a series that are used.

    Attributes:
        name: of the stack's file.
        sections: how many images the stack holds.
        used: numbers from 0 of those that are used.
        angles_deg: of these, as their files have them.
    """

    name: str
    sections: int
    used: tuple[int, ...]
    angles_deg: tuple[float, ...]


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
        ctf, by_tilt = reading(read_columns, path)
        ascending = list(series.angles_deg) == sorted(series.angles_deg)
        return _of_sorted(path, ctf, series) if by_tilt and not ascending else _of_rows(path, ctf, series)
    views = reading(read_views, path)
    return Ctf(of_views(path, views, series.sections, series.used, series.angles_deg))


def tells_ctf(path: Path, name: str, reading: Reading) -> bool:
    """Whether an alignment's file has a defocus for a series; no for what cannot be understood."""
    try:
        return _of_table(path, name, reading) is not None
    except InputError:
        return False


def ctf_file_of(tilts: Path, alignment: Mapping[str, Path], reading: Reading) -> Path:
    """The file that tells the defocus where no setting names it: the alignment's own, or the only one beside the stack.

    Raises:
        InputError: if there is none, or several.
    """
    for option in OF_ALIGNMENTS:
        if option in alignment and tells_ctf(alignment[option], tilts.name, reading):
            return alignment[option]
    found: list[Path] = []
    for base, ending in itertools.product(possible_names(tilts.name), BESIDE):
        path = file_beside(tilts, base, ending)
        if path and not any(path.samefile(other) for other in found):
            found.append(path)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"{', '.join(path.name for path in found)} beside {tilts.name} may all tell its defocus; choose one with "
            "--ctf-file"
        )
    raise InputError(
        f"the defocus of {tilts.name} is not known: expected --ctf-file (CTFFIND, AreTomo3's _CTF.txt, IMOD's "
        ".defocus, RELION's .star, Warp's .xml), one of these beside the stack, or --star or --warp with a defocus"
    )


def _of_table(path: Path, name: str, reading: Reading) -> Told | None:
    if path.suffix.lower() == ".star":
        return read_relion_ctf(path, name, reading)
    return reading(read_warp_ctf, path) if path.suffix.lower() == ".xml" else None


def _matched(path: Path, told: Told, series: SeriesImages) -> Ctf:
    angles, ctf = told
    numbers = same_images(series.angles_deg, angles)
    if numbers is None:
        raise InputError(
            f"{path} tells the defocus of {len(angles)} images ({_span(angles)}), expected one for each of these "
            f"{len(series.used)} ({_span(series.angles_deg)}) at its tilt angle; give the file of this series"
        )
    return replace(ctf, images=tuple(ctf.images[number] for number in numbers))


def _of_rows(path: Path, ctf: Ctf, series: SeriesImages) -> Ctf:
    if len(ctf.images) == series.sections:
        return replace(ctf, images=tuple(ctf.images[number] for number in series.used))
    if len(ctf.images) == len(series.used):
        note = f"the {len(ctf.images)} rows of {path.name} are taken for the images that are used, in their order"
        return replace(ctf, notes=(*ctf.notes, note))
    used = f", of which {len(series.used)} are used" if len(series.used) != series.sections else ""
    raise FileFormatError(
        f"{path} holds {len(ctf.images)} rows but the stack holds {series.sections} images{used}; give the table of "
        "this very stack, a row for each image"
    )


def _of_sorted(path: Path, ctf: Ctf, series: SeriesImages) -> Ctf:
    """Rows in the order of tilt angles, of images in another order."""
    if len(ctf.images) != len(series.used):
        raise InputError(
            f"{path} holds {len(ctf.images)} rows in the order of tilt angles, as AreTomo3 writes them, but "
            f"{len(series.used)} of the stack's images are used, in another order; give the stack that AreTomo3 wrote"
        )
    order = sorted(range(len(series.used)), key=series.angles_deg.__getitem__)
    images = dict(zip(order, ctf.images, strict=True))
    note = f"the rows of {path.name} are taken in the order of tilt angles, as AreTomo3 writes them"
    return replace(ctf, images=tuple(images[number] for number in range(len(order))), notes=(*ctf.notes, note))


def _span(angles_deg: Sequence[float]) -> str:
    return f"{min(angles_deg):g}° to {max(angles_deg):g}°"
