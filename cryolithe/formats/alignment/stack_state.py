"""Whether a stack is raw or aligned, as far as its name and the files beside it tell.

Aligned are ``_ali``, ``.ali`` (IMOD) and ``_aligned`` (AreTomo, Warp); raw are ``.st`` beside a ``.rawtlt`` (IMOD,
Warp's ts_stack), stacks whose angles AreTomo wrote for IMOD beside transforms, and stacks whose .mdoc says that the
tilt axis is not along y. Prealigned ones (``_preali``, ``.preali``) are neither: shifted, and their tilt axis where it
was. Microscopes' programs write wrong axes, too, so an .mdoc is a reason to tell the user and none to turn the images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryolithe.errors import InputError
from cryolithe.files.names import is_file
from cryolithe.formats.alignment.alignments import format_of_table
from cryolithe.formats.files import file_beside
from cryolithe.formats.reading import Reading
from cryolithe.formats.record import read_record_beside
from cryolithe.formats.series_names import (
    additions,
    is_prealigned,
    matching_name,
    possible_names,
    whole_stem,
    without_ending,
)
from cryolithe.formats.stacks.mdoc_text import read_mdoc_text

# What labels and records say of images that were denoised to be looked at.
NOT_FOR_RECONSTRUCTION = "not for reconstruction"
# Ends the name of the folder of what AreTomo writes for IMOD.
FOR_IMOD = "_Imod"
ALIGNED = frozenset({"ali", "aligned"})
# A tilt axis nearer to y than this, or to -y, is along it.
ALONG_Y_DEG = 1.0
_MDOC_ENDINGS = (".mrc.mdoc", ".st.mdoc", ".mdoc")


@dataclass(frozen=True)
class StackState:
    """What is known of a stack.

    Attributes:
        aligned: whether it is; None where nothing tells.
        reason: what tells it, as a sentence's part; empty where nothing does.
        axis_deg: of the tilt axis from y, as an .mdoc says, or None.
        prealigned: whether its name says that its images are shifted, and not yet turned.
    """

    aligned: bool | None
    reason: str = ""
    axis_deg: float | None = None
    prealigned: bool = False


def for_viewing(tilts: Path, labels: Sequence[str] = ()) -> bool:
    """Whether a stack says, in its header or in the record beside it, that it is not for reconstruction.

    Copies of such a stack keep its labels, and stacks whose header was written anew may keep their record.
    """
    if any(NOT_FOR_RECONSTRUCTION in label.lower() for label in labels):
        return True
    use = read_record_beside(tilts).get("volume", {}).get("use")
    return isinstance(use, str) and NOT_FOR_RECONSTRUCTION in use


def is_aligned_name(tilts: Path) -> bool:
    """Whether a stack has a name that programs give to aligned ones, or to halves and binned copies of them."""
    return format_of_table(tilts) is None and bool(ALIGNED & set(additions(tilts.name)))


def series_name(tilts: Path) -> str:
    """The name of a stack without what calls it aligned: aligned and raw stacks of a series have it in common.

    So have binned copies of the aligned one.
    """
    name = whole_stem(tilts.stem)
    for mark in sorted(ALIGNED):
        for join in "_.":
            if name.lower().endswith(join + mark):
                return name[: -len(join + mark)]
    return tilts.stem


def stack_state(tilts: Path, angles: Path | None, reading: Reading) -> StackState:
    """What the name of a stack and the files beside it tell.

    Args:
        tilts: the stack.
        angles: its angle file; an .mdoc counts wherever it lies.
        reading: through which files are read, where others ask for them too.
    """
    if is_aligned_name(tilts):
        return StackState(True, f"the name of {tilts.name} says that it is aligned")
    axes = axes_told(tilts, angles, reading)
    if is_prealigned(tilts.name):
        axis_deg = next((axis for _, axis in axes), None)
        return StackState(False, f"the name of {tilts.name} says that it is prealigned", axis_deg, True)
    for mdoc, axis in axes:
        if abs((axis + 90) % 180 - 90) > ALONG_Y_DEG:
            return StackState(False, f"{mdoc.name} says that the tilt axis lies at {axis:g}° from y", axis)
    base = without_ending(tilts.name)
    rawtlt = tilts.with_name(f"{base}.rawtlt")
    if angles is not None and angles.parent.name.endswith(FOR_IMOD) and angles.parent != tilts.parent:
        transforms = angles.with_suffix(".xf")
        if is_file(transforms):
            return StackState(False, f"{transforms} beside {angles.name} is what AreTomo aligns a raw stack by")
    if tilts.name.lower().removesuffix(".gz").removesuffix(".bz2").endswith(".st") and is_file(rawtlt):
        return StackState(False, f"a .st beside {rawtlt.name} is how a raw stack is called")
    return StackState(None)


def mdocs_beside(tilts: Path) -> list[Path]:
    """The .mdoc files beside a stack that have its name: that of the stack itself, then that of the series."""
    named = [(base, end) for base in possible_names(tilts.name) for end in _MDOC_ENDINGS]
    found = [file_beside(tilts, base, end) for base, end in ((tilts.name, ".mdoc"), *named)]
    return list(dict.fromkeys(path for path in found if path))


def of_other_stack(mdoc: Path, tilts: Path, reading: Reading) -> str:
    """The name of the stack that an .mdoc says it is of, where that is not this one; else an empty string."""
    try:
        name = reading(read_mdoc_text, mdoc).image_file
    except InputError:
        return ""
    return name if name and matching_name([name], tilts.name) is None else ""


def axes_told(tilts: Path, angles: Path | None, reading: Reading) -> Iterator[tuple[Path, float]]:
    """The tilt axes, degrees from y, that .mdoc files of a stack tell, and these: its angle file, then those beside."""
    given = [angles] if angles is not None and angles.suffix.lower() == ".mdoc" else []
    for mdoc in (*given, *mdocs_beside(tilts)):
        try:
            axis = reading(read_mdoc_text, mdoc).axis_deg
        except InputError:  # of a file that was not asked for, or is read for its angles anyway
            continue
        if axis is not None:
            yield mdoc, axis
