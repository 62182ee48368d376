"""IMOD's alignment files: .xf transforms, and what newst.com and tilt.com say about a reconstruction.

Sources: IMOD's manual pages of newstack and tilt; the source of ``tilt`` (angles + OFFSET, X-axis tilts of single views
less XAXISTILT); RELION's importer of IMOD projects (centres, and SHIFT: a voxel w shows the point w - SHIFT). IMOD's
slices have their depth axis opposite to our z, so SHIFT's second number and XAXISTILT change their signs here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from cryolithe.alignment import Matrix
from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.files import PathLike, printable, read_text

LIMIT_BYTES = 10_000_000
MOST_VIEWS = 100_000
# X-axis tilts of single views that differ by less are the same.
SAME_TILT_DEG = 0.01
# Keys whose effect on the geometry is not known well enough to imitate it.
_REFUSED_IN_NEWST = ("DistortionField", "GradientFile", "UseTransformLines", "RotateByAngle", "ExpandByFactor")
_REFUSED_IN_TILT = ("ANGLES", "COMPFRACTION", "COMPRESS", "ZFACTORFILE")


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
    for number, line in enumerate(read_text(path, "an IMOD transform file", LIMIT_BYTES).splitlines(), start=1):
        if not line.strip():
            continue
        values = [_number(word) for word in line.split()]
        if len(values) != 6 or not all(map(math.isfinite, values)):
            raise FileFormatError(
                f"{path}, line {number}: expected six numbers (A11 A12 A21 A22 DX DY), "
                f"found '{printable(line)[:60]}'; give the .xf of the alignment"
            )
        a, b, c, d, x, y = values
        found.append((((a, b), (c, d)), (x, y)))
    if not found:
        raise InputError(f"{path} holds no transform; expected one line of six numbers for each image")
    return tuple(found)


def read_x_tilt_deg(path: PathLike) -> float:
    """Read an .xtilt file; its lines must agree.

    Raises:
        InputError: if views have different X-axis tilts.
        FileFormatError: if a line does not start with a number.
    """
    path = Path(path)
    text = read_text(path, "a file of X-axis tilts", LIMIT_BYTES)
    words = [line.split()[0] for line in text.splitlines() if line.strip()]
    values = [_number(word) for word in words]
    for word, value in zip(words, values, strict=True):
        if not math.isfinite(value):
            raise FileFormatError(f"{path}: expected X-axis tilts in degrees, found '{printable(word)[:40]}'")
    if not values:
        raise InputError(f"{path} holds no X-axis tilt; expected one line for each image")
    if max(values) - min(values) > SAME_TILT_DEG:
        raise InputError(
            f"{path}: the X-axis tilts of single views differ ({min(values):g}° to {max(values):g}°), which cannot be "
            "reconstructed row by row; align with one X-axis tilt for all views"
        )
    return sum(values) / len(values)


@dataclass(frozen=True)
class NewstCommand:
    """What newst.com says.

    Attributes:
        transforms: the .xf file, or None.
        stack: name of the raw stack, or "".
        bin: BinByFactor.
        images_binned: ImagesAreBinned: how far the stack was binned after its transforms were found.
        size_px: SizeToOutputInXandY ``(x, y)`` in binned pixels, or None.
    """

    transforms: Path | None
    stack: str
    bin: int
    images_binned: float
    size_px: tuple[int, int] | None


def read_newst_com(path: PathLike) -> NewstCommand:
    """Read the commands with which IMOD makes an aligned stack.

    Raises:
        FileFormatError: if it holds no newstack command, or a value is no number.
        InputError: if it asks for something that is not done here.
    """
    command = _read_command(Path(path), "newstack")
    for name in _REFUSED_IN_NEWST:
        if command.has(name):
            raise InputError(f"{command.path}: {name} cannot be applied here; make the aligned stack with newstack")
    if any(command.numbers("OffsetsInXandY", 2, (0.0, 0.0))):
        raise InputError(f"{command.path}: OffsetsInXandY other than 0 cannot be applied here; leave them out")
    (binning,) = command.numbers("BinByFactor", 1, (1.0,))
    (before,) = command.numbers("ImagesAreBinned", 1, (1.0,))
    if binning < 1 or binning != int(binning) or not before > 0:
        raise FileFormatError(f"{command.path}: expected a whole BinByFactor of 1 or more, found {binning:g}")
    size = command.numbers("SizeToOutputInXandY", 2, None)
    if size is not None and min(size) < 1:
        raise FileFormatError(
            f"{command.path}: expected a positive SizeToOutputInXandY, found {size[0]:g}, {size[1]:g}"
        )
    transforms = command.word("TransformFile")
    return NewstCommand(
        command.path.parent / transforms if transforms else None,
        command.word("InputFile"),
        int(binning),
        before,
        (int(size[0]), int(size[1])) if size else None,
    )


@dataclass(frozen=True)
class TiltCommand:
    """What tilt.com says, in pixels of the unbinned stack and with IMOD's signs.

    Attributes:
        angles: TILTFILE, or None.
        x_tilts: XTILTFILE, or None.
        image_binned: IMAGEBINNED: binning of the aligned stack.
        thickness_px: THICKNESS.
        full_image_px: FULLIMAGE ``(x, y)``, or None.
        subset_start_px: SUBSETSTART ``(x, y)``.
        angle_offset_deg: OFFSET, to be added to all angles.
        shift_px: SHIFT ``(x, z)``.
        x_axis_tilt_deg: XAXISTILT.
        excluded: views to leave out, from 1.
        included: views to use alone, from 1; None for all.
        notes: what is in the file and not done here.
    """

    angles: Path | None
    x_tilts: Path | None
    image_binned: float
    thickness_px: float | None
    full_image_px: tuple[int, int] | None
    subset_start_px: tuple[float, float]
    angle_offset_deg: float
    shift_px: tuple[float, float]
    x_axis_tilt_deg: float
    excluded: frozenset[int] = frozenset()
    included: frozenset[int] | None = None
    notes: tuple[str, ...] = ()


def read_tilt_com(path: PathLike) -> TiltCommand:
    """Read the commands with which IMOD reconstructs.

    Raises:
        FileFormatError: if it holds no tilt command, or a value is no number.
        InputError: if it asks for something that is not done here.
    """
    command = _read_command(Path(path), "tilt")
    for name in _REFUSED_IN_TILT:
        if command.has(name):
            raise InputError(
                f"{command.path}: {name} cannot be applied here; reconstruct from an aligned stack instead"
            )
    (binned,) = command.numbers("IMAGEBINNED", 1, (1.0,))
    if not binned >= 1:
        raise FileFormatError(f"{command.path}: expected IMAGEBINNED of 1 or more, found {binned:g}")
    offset = command.numbers("OFFSET", (1, 2), (0.0,))
    if len(offset) == 2 and offset[1] != 0:
        raise InputError(f"{command.path}: OFFSET moves the tilt axis by {offset[1]:g} pixels; only 0 is possible here")
    shift = command.numbers("SHIFT", (1, 2), (0.0, 0.0))
    thickness = command.numbers("THICKNESS", 1, None)
    if thickness is not None and not thickness[0] >= 1:
        raise FileFormatError(f"{command.path}: expected a THICKNESS of 1 or more, found {thickness[0]:g}")
    full = command.numbers("FULLIMAGE", 2, None)
    excluded = frozenset(
        view for name in ("EXCLUDE", "EXCLUDELIST", "EXCLUDELIST2") for view in command.list_of_views(name)
    )
    included = frozenset(command.list_of_views("INCLUDE")) if command.has("INCLUDE") else None
    if excluded and included is not None:
        raise InputError(f"{command.path} holds both INCLUDE and EXCLUDE lists; keep one")
    start = command.numbers("SUBSETSTART", 2, (0.0, 0.0))
    local = command.word("LOCALFILE")
    angles, x_tilts = command.word("TILTFILE"), command.word("XTILTFILE")
    return TiltCommand(
        angles=command.path.parent / angles if angles else None,
        x_tilts=command.path.parent / x_tilts if x_tilts else None,
        image_binned=binned,
        thickness_px=thickness[0] if thickness else None,
        full_image_px=(int(full[0]), int(full[1])) if full else None,
        subset_start_px=(start[0], start[1]),
        angle_offset_deg=offset[0],
        shift_px=(shift[0], shift[1] if len(shift) == 2 else 0.0),
        x_axis_tilt_deg=command.numbers("XAXISTILT", 1, (0.0,))[0],
        excluded=excluded,
        included=included,
        notes=(f"the local alignments in {local} are not applied",) if local else (),
    )


@dataclass(frozen=True)
class _Command:
    """Entries of a command file: name -> the texts that follow it."""

    path: Path
    entries: dict[str, list[str]] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        return name.lower() in self.entries

    def word(self, name: str) -> str:
        return printable(self.entries.get(name.lower(), [""])[-1])

    def numbers(self, name: str, count: int | tuple[int, int], default: tuple[float, ...] | None) -> tuple[float, ...]:
        if not self.has(name):
            return default  # type: ignore[return-value]
        text = self.word(name)
        values = tuple(_number(word) for word in text.replace(",", " ").split())
        low, high = (count, count) if isinstance(count, int) else count
        if not low <= len(values) <= high or not all(map(math.isfinite, values)):
            wanted = f"{low}" if low == high else f"{low} or {high}"
            raise FileFormatError(
                f"{self.path}: expected {wanted} number{'' if high == 1 else 's'} after {name}, found '{text[:40]}'"
            )
        return values

    def list_of_views(self, name: str) -> list[int]:
        views: list[int] = []
        for text in self.entries.get(name.lower(), []):
            for part in text.replace(",", " ").split():
                first, dash, last = part.partition("-")
                ends = (first, last if dash else first)
                if not all(end.isdecimal() and len(end) < 6 and int(end) > 0 for end in ends):
                    raise FileFormatError(
                        f"{self.path}: expected views such as 1,4-7 after {name}, found '{printable(text)[:40]}'"
                    )
                views += range(int(ends[0]), int(ends[1]) + 1)
                if len(views) > MOST_VIEWS:
                    raise FileFormatError(f"{self.path}: {name} lists more than {MOST_VIEWS} views")
        return views


def _read_command(path: Path, program: str) -> _Command:
    """The entries for one program; lines that start with # are comments, with $ commands."""
    entries: dict[str, list[str]] = {}
    inside = found = False
    for line in read_text(path, "an IMOD command file", LIMIT_BYTES).splitlines():
        text = line.strip()
        if text.startswith("$"):
            words = text[1:].split()
            inside = bool(words) and Path(words[0]).name == program
            found = found or inside
        elif inside and text and not text.startswith("#"):
            name, _, value = text.replace("\t", " ").partition(" ")
            entries.setdefault(name.lower(), []).append(value.strip())
    if not found:
        raise FileFormatError(f"{path} holds no command ${program}; give IMOD's {program[:5]}.com")
    return _Command(path, entries)


def _number(word: str) -> float:
    try:
        return math.nan if "_" in word else float(word)
    except ValueError:
        return math.nan
