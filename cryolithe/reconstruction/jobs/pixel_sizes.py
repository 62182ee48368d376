"""The pixel size of a stack's images, by setting, header or .mdoc, and what to tell where these differ.

SerialEM writes PixelSpacing for images of a size (ImageSize). A stack of other images, binned or cut, has other pixels;
headers that programs write anew have 0 or 1 Å, which say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.formats.alignment.alignment_format import Named
from cryolithe.formats.alignment.stack_state import mdocs_beside, of_other_stack
from cryolithe.formats.stacks.mdoc_text import MdocText, read_mdoc_text
from cryolithe.formats.stacks.mrc import PLACEHOLDER, MrcArray

# Pixel sizes that differ by less are the same: of one microscope, calibrated better or worse.
SAME_PIXEL = 0.05
# Of a nominal pixel size, which an .mdoc has, and a calibrated one.
SAME_NOMINAL = 0.1


@dataclass(frozen=True)
class PixelSize:
    """What is taken for the images of a stack.

    Attributes:
        angstrom: their pixel size, or None where nothing tells it.
        notes: of this and of the header.
    """

    angstrom: float | None
    notes: tuple[str, ...] = ()


def pixel_size(named: Named, mrc: MrcArray, given: float | None) -> PixelSize:
    """Take the pixel size that is given, else that of the header; of ANGLES, an .mdoc, where the header has none.

    Args:
        named: the stack and its files.
        mrc: the stack.
        given: by a setting, Å, or None.
    """
    of_header, name = mrc.voxel_size_angstrom, named.tilts.name
    if given is not None:
        others = tuple(note for note in mrc.notes if note != PLACEHOLDER)
        if of_header is None or abs(given / of_header - 1) <= SAME_PIXEL:
            return PixelSize(given, others)
        told = f"a pixel size of {given:g} Å is taken, but the header of {name} says {of_header:g} Å"
        return PixelSize(given, (*others, told))
    found = _mdoc(named)
    if found is None:
        return PixelSize(of_header, mrc.notes)
    path, made = found
    of_mdoc, size = made.pixels_angstrom[0], mrc.data.shape[:0:-1]
    unknown = of_header is None or PLACEHOLDER in mrc.notes
    if unknown and of_header is not None and abs(of_mdoc / of_header - 1) <= SAME_PIXEL:
        return PixelSize(of_header, tuple(note for note in mrc.notes if note != PLACEHOLDER))
    header = f"the header of {name} has {'no pixel size' if of_header is None else 'the placeholder of 1 Å'}"
    if not _is_of(path, made, named.tilts, size):
        if not unknown or made.image_size is None:
            return PixelSize(of_header, mrc.notes)
        both = f"images of {_pixels(made.image_size)}, but these are of {_pixels(size)}"
        told = f"{header}: {path.name} tells {of_mdoc:g} Å for {both}; give --pixel-size"
    elif unknown and path == named.angles:
        told = f"a pixel size of {of_mdoc:g} Å is taken from {path.name}; {header}"
        return PixelSize(of_mdoc, (*(note for note in mrc.notes if note != PLACEHOLDER), told))
    elif of_header is None or unknown:
        told = (
            f"{header}, but {path.name} beside it tells {of_mdoc:g} Å; if that is right, give --pixel-size {of_mdoc:g}"
        )
    elif abs(of_mdoc / of_header - 1) <= SAME_NOMINAL:
        return PixelSize(of_header, mrc.notes)
    else:
        told = (
            f"the header of {name} tells a pixel size of {of_header:g} Å, which is taken, but {path.name} "
            f"{of_mdoc:g} Å; if that is right, give --pixel-size {of_mdoc:g}"
        )
        sure = made.image_size is not None and not _whole(of_mdoc / of_header)
        told = f"Warning: {told}" if sure else told
    return PixelSize(of_header, (*mrc.notes, told))


def _mdoc(named: Named) -> tuple[Path, MdocText] | None:
    """The .mdoc of a stack, ANGLES before those beside it, and what it tells, if that is one pixel size."""
    given = named.angles
    own = given is not None and given.suffix.lower() == ".mdoc"
    for path in ([given] if own and given is not None else []) + mdocs_beside(named.tilts):
        try:
            made = named.reading(read_mdoc_text, path)
        except InputError:  # of one that was not asked for, or is read for its angles anyway
            continue
        sizes = made.pixels_angstrom
        if (
            sizes
            and max(sizes) <= min(sizes) * (1 + SAME_PIXEL)
            and not of_other_stack(path, named.tilts, named.reading)
        ):
            return path, made
    return None


def _is_of(path: Path, made: MdocText, tilts: Path, size: tuple[int, ...]) -> bool:
    """Whether an .mdoc is of images of this size, turned or not; by names where it tells no size."""
    if made.image_size is not None:
        return sorted(made.image_size) == sorted(size)
    return path.name.lower() == f"{tilts.name}.mdoc".lower() or made.image_file == tilts.name


def _whole(ratio: float) -> bool:
    """Whether one pixel is a whole number of others, as detectors count them in super-resolution."""
    ratio = max(ratio, 1 / ratio)
    return round(ratio) > 1 and abs(ratio / round(ratio) - 1) <= SAME_PIXEL


def _pixels(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
