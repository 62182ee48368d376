"""IMOD's alignment files: .xf transforms, and what newst.com and tilt.com say about a reconstruction.

Sources: IMOD's manual pages of newstack and tilt (every key of them: `alignment.imod_keys`); the source of
``newstack`` (sections are listed, every so many of them taken, then those to exclude left out; a section has the
transform of its own line; sizes that nobody gives are the binned ones of its input) and of ``tilt`` (angles + OFFSET,
X-axis tilts of single views less XAXISTILT); RELION's importer of IMOD projects (centres, and SHIFT: a voxel w shows
the point w - SHIFT). IMOD's slices have their depth axis opposite to our z, so SHIFT's second number and XAXISTILT
change their signs here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryolithe.alignment import Matrix
from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.alignment.imod_command import Command, number, read_command
from cryolithe.formats.files import PathLike, printable, read_text

LIMIT_BYTES = 10_000_000
# X-axis tilts of single views that differ by less are the same.
SAME_TILT_DEG = 0.01
# Two whole numbers and nothing else: with a point, a sign or a third number it is a list.
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")


def read_xf(path: PathLike) -> tuple[tuple[Matrix, tuple[float, float]], ...]:
    """Read a transform file: six numbers a line, ``A11 A12 A21 A22 DX DY``, one line an image.

    Returns:
        matrix and shift of each image: (X, Y) becomes A (X, Y) + (DX, DY), counted from the middle of the image.

    Raises:
        InputError: if the file cannot be read or holds no transform.
        FileFormatError: if a line does not hold six finite numbers.
    """
    path = Path(path)
    found: list[tuple[Matrix, tuple[float, float]]] = []
    for count, line in enumerate(read_text(path, "an IMOD transform file", LIMIT_BYTES).splitlines(), start=1):
        if not line.strip():
            continue
        values = [number(word) for word in line.split()]
        if len(values) != 6 or not all(map(math.isfinite, values)):
            raise FileFormatError(
                f"{path}, line {count}: expected six numbers (A11 A12 A21 A22 DX DY), "
                f"found '{printable(line)[:60]}'; give the .xf of the alignment"
            )
        a, b, c, d, x, y = values
        found.append((((a, b), (c, d)), (x, y)))
    if not found:
        raise InputError(f"{path} holds no transform; expected one line of six numbers for each image")
    return tuple(found)


def read_tilts_deg(path: PathLike, what: str) -> tuple[float, ...]:
    """Read a file of one angle for each image, one or many a line, as ``tilt`` reads its TILTFILE and XTILTFILE.

    Raises:
        InputError: if it cannot be read, or holds no angle.
        FileFormatError: if there is something else than numbers.
    """
    path = Path(path)
    text = read_text(path, f"a file of {what}", LIMIT_BYTES)
    for word in text.split():
        if _DECIMAL_COMMA.fullmatch(word):
            raise FileFormatError(
                f"{path} holds '{printable(word)[:40]}', which may have a decimal comma; write decimal points, and a "
                "space between numbers"
            )
    words = text.replace(",", " ").split()
    values = tuple(number(word) for word in words)
    for word, value in zip(words, values, strict=True):
        if not math.isfinite(value):
            raise FileFormatError(f"{path}: expected {what} in degrees, found '{printable(word)[:40]}'")
    if not values:
        raise InputError(f"{path} holds no angle; expected {what}, one for each image")
    return values


def read_x_tilt_deg(path: PathLike) -> float:
    """Read an .xtilt file; its angles must agree.

    Raises:
        InputError: if views have different X-axis tilts.
        FileFormatError: if there is something else than numbers.
    """
    values = read_tilts_deg(path, "X-axis tilts")
    if max(values) - min(values) > SAME_TILT_DEG:
        raise InputError(
            f"{path}: the X-axis tilts of single views differ ({min(values):g}° to {max(values):g}°), which cannot be "
            "reconstructed row by row; align with one X-axis tilt for all views"
        )
    return sum(values) / len(values)


# How newstack rounds a size in binned pixels.
Rounding = Literal["whole bins", "parity", "any parity"]


@dataclass(frozen=True)
class NewstCommand:
    """What newst.com says.

    Attributes:
        transforms: the .xf file, or None.
        bin: BinByFactor times a whole ShrinkByFactor.
        size_px: SizeToOutputInXandY ``(x, y)`` in binned pixels, or None for the input's own.
        rounding: of a size that is not given: to the whole bins of the input; so that all of it is held, even sizes
            even and odd ones odd ("parity"); or so, whichever comes out ("any parity").
        listed: sections that are read, from 0, in this order; None for all.
        every: SkipSectionIncrement: of those, each so manieth is taken.
        excluded: sections, from 0, that are then left out.
        notes: what is in the file and not done here.
        input_name: InputFile, as it is written; empty where it is not there.
        output_name: OutputFile, likewise.
    """

    transforms: Path | None
    bin: int
    size_px: tuple[int, int] | None
    listed: tuple[int, ...] | None = None
    every: int = 1
    excluded: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    input_name: str = ""
    output_name: str = ""
    rounding: Rounding = "parity"

    def aligned_shape(self, raw: tuple[int, int]) -> tuple[int, int]:
        """Pixels ``(y, x)`` of an aligned image, in those of the raw stack, whose images have ``raw``.

        Without a size it is that of the input, as it lies, however far transforms turn it; an axis of ``raw`` that has
        the same whole bins stands for itself.
        """
        if self.size_px is not None:
            return self.size_px[1] * self.bin, self.size_px[0] * self.bin
        made = [_binned(n, self.bin, self.rounding) for n in raw]
        y, x = (n if n // self.bin == binned else binned * self.bin for n, binned in zip(raw, made, strict=True))
        return y, x

    def sections(self, count: int) -> tuple[int, ...]:
        """Sections, from 0, of a raw stack of ``count`` images that are in the aligned one, in its order.

        Raises:
            InputError: if a section that is not in the stack is asked for, one is asked for twice, or none is left.
        """
        listed = tuple(range(count)) if self.listed is None else self.listed
        wrong = sorted(section for section in {*listed, *self.excluded} if not 0 <= section < count)
        if wrong:
            raise InputError(
                f"SectionsToRead or ExcludeSections name section {wrong[0]}, but the stack holds sections 0 to "
                f"{count - 1}; give the stack that newst.com is for"
            )
        taken = tuple(section for section in listed[:: self.every] if section not in self.excluded)
        if len(set(taken)) != len(taken):
            raise InputError("SectionsToRead names a section twice; an image can be used once only")
        if not taken:
            raise InputError("SectionsToRead and ExcludeSections leave no image")
        return taken


def _binned(size_px: int, factor: int, rounding: Rounding) -> int:
    """Pixels that newstack makes of an axis; a single pixel beyond whole bins is dropped."""
    whole, left = divmod(size_px, factor)
    if rounding == "whole bins":
        return whole
    if whole % 2 != size_px % 2 and not (rounding == "any parity" and left <= 1):
        return whole + 1
    return whole + 2 if left > 1 else whole


def read_newst_com(path: PathLike, replaced: frozenset[str] = frozenset()) -> NewstCommand:
    """Read the commands with which IMOD makes an aligned stack.

    Args:
        path: the file.
        replaced: keys whose values are given otherwise; they may be useless.

    Raises:
        FileFormatError: if it holds no newstack command, or a value is no number.
        InputError: if it asks for something that is not done here.
    """
    command = read_command(Path(path), "newstack", replaced - {"BinByFactor"})
    for name, what in (("InputFile", "joins"), ("OutputFile", "writes")):
        if len(command.entries.get(name, [])) > 1:
            raise InputError(
                f"{command.path}: newstack {what} {len(command.entries[name])} stacks ({name}), which cannot be done "
                "here; make the aligned stack with newstack"
            )
    if any(command.all_numbers("OffsetsInXandY")):
        raise InputError(f"{command.path}: OffsetsInXandY other than 0 cannot be applied here; leave them out")
    size = () if command.word("SizeToOutputInXandY") == "/" else command.numbers("SizeToOutputInXandY", 2, ())
    if size and min(size) < 1:
        raise FileFormatError(
            f"{command.path}: expected a positive SizeToOutputInXandY, found {size[0]:g}, {size[1]:g}"
        )
    transforms = command.word("TransformFile")
    first = 1 if command.has("NumberedFromOne") and command.word("NumberedFromOne") != "0" else 0
    listed = None if command.word("SectionsToRead") == "/" else command.numbers_listed("SectionsToRead", "sections")
    (every,) = command.numbers("SkipSectionIncrement", 1, (1.0,))
    binning = _newst_bin(command, "BinByFactor" in replaced and not size)
    return NewstCommand(
        transforms=command.path.parent / transforms if transforms else None,
        bin=binning,
        size_px=(int(size[0]), int(size[1])) if size else None,
        listed=None if listed is None else tuple(section - first for section in listed),
        every=max(1, int(every)),
        excluded=frozenset(section - first for section in command.numbers_listed("ExcludeSections", "sections") or ()),
        notes=_ignored(command),
        input_name=command.word("InputFile"),
        output_name=command.word("OutputFile"),
        rounding=_rounding(command),
    )


def _rounding(command: Command) -> Rounding:
    """Shrinking, as by ShrinkByFactor and AntialiasFilter, has whole bins; binning may be let change even to odd."""
    if command.has("ShrinkByFactor") or any(command.numbers("AntialiasFilter", 1, ())):
        return "whole bins"
    return "any parity" if command.word("AllowOddEvenChange") not in ("", "0") else "parity"


def _newst_bin(command: Command, free: bool) -> int:
    """How many pixels of the raw stack make one of the aligned stack; 1 for a useless number where ``free``."""
    binning = number(command.word("BinByFactor")) if command.has("BinByFactor") else 1.0
    if not binning >= 1 or binning != int(min(binning, 1e6)):
        if free:
            return 1
        raise FileFormatError(
            f"{command.path}: expected a whole BinByFactor of 1 or more, found '{command.word('BinByFactor')[:40]}'"
        )
    (shrink,) = command.numbers("ShrinkByFactor", 1, (1.0,))
    if shrink < 1 or shrink != int(shrink):
        raise InputError(
            f"{command.path}: ShrinkByFactor {shrink:g} cannot be applied here, only whole numbers; make the aligned "
            "stack with newstack"
        )
    return int(binning * shrink)


def _ignored(command: Command) -> tuple[str, ...]:
    if not command.ignored:
        return ()
    keys = f"{', '.join(command.ignored)} {'is' if len(command.ignored) == 1 else 'are'}"
    name = printable(command.path.name)
    return (f"{name}: {keys} not applied (values or axes of IMOD's result, not where matter lies)",)


@dataclass(frozen=True)
class TiltCommand:
    """What tilt.com says, in pixels of the unbinned stack and with IMOD's signs.

    Attributes:
        angles: TILTFILE, or None.
        listed_angles_deg: ANGLES; empty where there are none.
        x_tilts: XTILTFILE, or None.
        local: LOCALFILE, or None.
        local_scale: LOCALSCALE, or None.
        image_binned: IMAGEBINNED: binning of the aligned stack.
        thickness_px: THICKNESS.
        full_image_px: FULLIMAGE ``(x, y)``, or None.
        subset_start_px: SUBSETSTART ``(x, y)``.
        angle_offset_deg: OFFSET, to be added to all angles.
        shift_px: SHIFT ``(x, z)``.
        x_axis_tilt_deg: XAXISTILT.
        slices: first and last of SLICE, or of TOTALSLICES, or None.
        width_px: WIDTH, or None.
        excluded: views to leave out, from 1.
        included: views to use alone, from 1; None for all.
        notes: what is in the file and not done here.
        input_name: InputProjections, as it is written; empty where it is not there.
    """

    angles: Path | None
    listed_angles_deg: tuple[float, ...]
    x_tilts: Path | None
    local: Path | None
    image_binned: float
    thickness_px: float | None
    full_image_px: tuple[int, int] | None
    subset_start_px: tuple[float, float]
    angle_offset_deg: float
    shift_px: tuple[float, float]
    x_axis_tilt_deg: float
    slices: tuple[int, int] | None = None
    width_px: float | None = None
    excluded: frozenset[int] = frozenset()
    included: frozenset[int] | None = None
    notes: tuple[str, ...] = ()
    local_scale: float | None = None
    input_name: str = ""


def read_tilt_com(path: PathLike, replaced: frozenset[str] = frozenset()) -> TiltCommand:
    """Read the commands with which IMOD reconstructs.

    Args:
        path: the file.
        replaced: keys whose values are given otherwise; they may be useless.

    Raises:
        FileFormatError: if it holds no tilt command, or a value is no number.
        InputError: if it asks for something that is not done here.
    """
    command = read_command(Path(path), "tilt", replaced)
    (binned,) = command.numbers("IMAGEBINNED", 1, (1.0,))
    if not binned >= 1:
        raise FileFormatError(f"{command.path}: expected IMAGEBINNED of 1 or more, found {binned:g}")
    offset = command.numbers("OFFSET", (1, 2), (0.0,))
    if len(offset) == 2 and offset[1] != 0:
        raise InputError(f"{command.path}: OFFSET moves the tilt axis by {offset[1]:g} pixels; only 0 is possible here")
    shift = command.numbers("SHIFT", (1, 2), (0.0, 0.0))
    thickness = command.numbers("THICKNESS", 1, ())
    if thickness and not thickness[0] >= 1:
        raise FileFormatError(
            f"{command.path}: expected a THICKNESS of 1 or more, found {thickness[0]:g}; give --thickness"
        )
    full = command.numbers("FULLIMAGE", 2, ())
    if not full and any(command.numbers("SUBSETSTART", 2, ())):
        raise FileFormatError(f"{command.path} holds SUBSETSTART without FULLIMAGE; give both, or neither")
    excluded = command.numbers_listed("EXCLUDELIST2", "views")
    included = command.numbers_listed("INCLUDE", "views")
    for name, views in (("EXCLUDELIST2", excluded), ("INCLUDE", included)):
        if views and min(views) < 1:
            raise FileFormatError(
                f"{command.path}: expected views from 1 in {name}, found {min(views)}; correct the list"
            )
    if excluded and included:
        raise InputError(f"{command.path} holds both INCLUDE and EXCLUDE lists; keep one")
    listed = command.all_numbers("ANGLES")
    if listed and command.has("TILTFILE"):
        raise InputError(f"{command.path} holds both ANGLES and TILTFILE; keep one, or give the angle file as ANGLES")
    start = command.numbers("SUBSETSTART", 2, (0.0, 0.0))
    width = command.numbers("WIDTH", 1, ())
    scale = command.numbers("LOCALSCALE", 1, ())
    if scale and not scale[0] > 0:
        raise FileFormatError(f"{command.path}: expected a positive LOCALSCALE, found {scale[0]:g}")
    folder = command.path.parent
    angles, x_tilts, local = (command.word(name) for name in ("TILTFILE", "XTILTFILE", "LOCALFILE"))
    return TiltCommand(
        angles=folder / angles if angles else None,
        listed_angles_deg=listed,
        x_tilts=folder / x_tilts if x_tilts else None,
        local=folder / local if local else None,
        image_binned=binned,
        thickness_px=thickness[0] if thickness else None,
        full_image_px=(int(full[0]), int(full[1])) if full else None,
        subset_start_px=(start[0], start[1]),
        angle_offset_deg=offset[0],
        shift_px=(shift[0], shift[1] if len(shift) == 2 else 0.0),
        x_axis_tilt_deg=command.numbers("XAXISTILT", 1, (0.0,))[0],
        slices=_slices(command),
        width_px=width[0] if width else None,
        excluded=frozenset(excluded or ()),
        included=None if included is None else frozenset(included),
        notes=_ignored(command),
        local_scale=scale[0] if scale else None,
        input_name=command.word("InputProjections"),
    )


def _slices(command: Command) -> tuple[int, int] | None:
    """First and last slice; in a run that is spread over computers TOTALSLICES holds them, and SLICE a part or -1."""
    whole = command.numbers("TOTALSLICES", 2, ())
    part = command.numbers("SLICE", (2, 3), ())
    first = whole or part[:2]
    return (int(first[0]), int(first[1])) if first and min(first) >= 0 else None
