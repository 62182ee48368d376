"""AreTomo's alignment file (.aln), of AreTomo, AreTomo2 and AreTomo3.

Its rotation and shift lead from the aligned image to the raw one: ``p = R(ROT) q + T``, so here A = R(-ROT), d = -A T
(as in AreTomo's own writer of IMOD files). TILT already holds the tilt offset. Local (patch) shifts:
`alignment.bends_aretomo`. Up to AreTomo 1.2 the second line holds the numbers of images and of patches alone,
as ``# 41  0``, and no size. The package alnfile reads the newest files alone (it wants the two offsets) and leaves the
numbering of sections to the caller, so it is not used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cryolithe.alignment import Alignment, ImageAlignment, rotation
from cryolithe.errors import FileFormatError, GeometryError, InputError
from cryolithe.formats.alignment.alignment_format import AlignmentFile, AlignmentFormat, Named, Stack
from cryolithe.formats.alignment.aln_sections import Dark, Sections, other_series, stack_places
from cryolithe.formats.alignment.bends_aretomo import Patches, patch_bend, read_patches, whole_rows
from cryolithe.formats.alignment.image_order import image_order
from cryolithe.formats.facts import Fact, alignment_facts
from cryolithe.formats.files import PathLike, finite_numbers, printable, read_text

LIMIT_BYTES = 50_000_000
COLUMNS = 10
# A magnification or a tilt about x that is smaller makes no difference in a volume.
SAME_SCALE, SAME_TILT_DEG = 1e-3, 0.01
_OLD_SIZE = "line 2"


@dataclass(frozen=True)
class _Row:
    section: int
    rotation_deg: float
    shift_px: tuple[float, float]
    tilt_deg: float


def read_aln(
    path: PathLike,
    raw_angles_deg: tuple[float, ...] | None = None,
    beside_deg: tuple[float, ...] | None = None,
    beside_source: str = "",
    image_shape: tuple[int, int] | None = None,
) -> tuple[Alignment, tuple[int, int] | None]:
    """Read an alignment of AreTomo.

    Args:
        path: the file.
        raw_angles_deg: angles of the whole stack in its order, where the user gives them: each image's is compared.
        beside_deg: such angles from files beside the stack, for what the file itself leaves open; in whatever order,
            they must be those of the file.
        beside_source: the name of that file.
        image_shape: pixels ``(y, x)`` of the stack's images, for a file that does not tell the size of its own.

    Returns:
        the alignment, and the pixels ``(y, x)`` of the images that it is for; None where neither tells them.

    Raises:
        InputError: if images or patches are missing, it is not clear which images they are (see `stack_places`), or
            angles do not fit.
        FileFormatError: if it is no such file, or a number is not one.
    """
    path = Path(path)
    text = read_text(path, "an AreTomo alignment", LIMIT_BYTES)
    header, rows, darks, local = _read_rows(path, text)
    shape, count = _raw_size(path, header)
    shape = shape or image_shape
    if not rows:
        raise InputError(f"{path} holds no aligned image; AreTomo may have failed")
    _whole(path, count, len(rows), len(darks), (_patches_told(header), whole_rows(local)))
    if abs(_offset(path, header, "BetaOffset")) > SAME_TILT_DEG:
        raise InputError(f"{path}: a BetaOffset other than 0 is not understood; align with -TiltCor 0 or 1")
    numbers = tuple((row.section, row.tilt_deg) for row in rows)
    found = Sections(path, numbers, tuple(darks), count, _offset(path, header, "AlphaOffset"))
    places = stack_places(found, raw_angles_deg, beside_deg)
    if beside_deg and (other := other_series(found, beside_deg, beside_source)):
        raise InputError(other)
    notes = [places.note] if places.note else []
    patches: tuple[Patches | None, ...] = (None,) * len(rows)
    try:
        patches = read_patches(local, len(rows)) if local and shape else patches
        if local and shape and not any(patches):
            notes.append(f"{path.name} marks all of its {len(local)} local (patch) shifts as bad, and none is applied")
    except FileFormatError as error:
        notes.append(f"Warning: {len(local)} local (patch) shifts in {path.name} are not applied: {error}")
    images = []
    for place, row, bent in sorted(zip(places.rows, rows, patches, strict=True), key=lambda pair: pair[0]):
        matrix = rotation(-row.rotation_deg)
        (a, b), (c, d) = matrix
        x, y = row.shift_px
        if shape and math.hypot(x, y) > math.hypot(*shape):
            raise InputError(
                f"{path}: image {row.section} is shifted by ({x:g}, {y:g}) pixels, more than its size; align anew"
            )
        bend = patch_bend(bent, row.rotation_deg, shape) if shape else None
        images.append(ImageAlignment(place, row.tilt_deg, matrix, (-(a * x + b * y), -(c * x + d * y)), bend))
    try:
        source = path.name if any(image.bend for image in images) else ""
        dark = zip(places.darks, (found.offset_deg + tilt for tilt in found.recorded_darks_deg), strict=False)
        made = Alignment(
            tuple(images),
            count,
            notes=tuple(notes),
            local=source,
            left_out_deg=tuple(dark),
            offset_deg=found.offset_deg,
        )
        return made, shape
    except GeometryError as error:
        raise InputError(f"{path}: {error}") from error


def _read_rows(path: Path, text: str) -> tuple[dict[str, str], list[_Row], list[Dark], list[tuple[int, str]]]:
    """Header entries, rows of images, dark images, and number and text of the lines with local shifts."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("# AreTomo Alignment"):
        raise FileFormatError(f"{path} is no AreTomo alignment: its first line does not say so; give the .aln file")
    header: dict[str, str] = {}
    rows: list[_Row] = []
    darks: list[Dark] = []
    local: list[tuple[int, str]] = []
    in_local = False
    for number, line in enumerate(lines, start=1):
        content = line.strip()
        if content.startswith("#"):
            name, equals, value = content[1:].partition("=")
            in_local = in_local or name.strip() == "Local Alignment"
            if name.strip() == "DarkFrame":
                _, section, tilt = _numbers(path, number, value, 3)  # the first is its place among the sorted ones
                darks.append(Dark(int(section), tilt))
            elif equals:
                header[name.strip()] = value.strip()
            elif number == 2:
                header[_OLD_SIZE] = content[1:]
        elif content and in_local:
            local.append((number, content))
        elif content:
            section, turn, scale, x, y, *_, tilt = _numbers(path, number, content, COLUMNS)
            if section != int(section):
                raise FileFormatError(f"{path}, line {number}: expected a whole section number, found {section:g}")
            if abs(scale - 1) > SAME_SCALE:
                raise InputError(
                    f"{path}, line {number}: a magnification (GMAG) of {scale:g}, but AreTomo writes 1 and reads none, "
                    "so that nothing tells whether to multiply or divide; put 1 there, or give transforms of IMOD that "
                    "hold it (--xf)"
                )
            if not abs(tilt) <= 90:
                raise InputError(f"{path}, line {number}: expected a tilt within ±90°, found {tilt:g}; align anew")
            rows.append(_Row(int(section), turn, (x, y), tilt))
    return header, rows, darks, local


def _raw_size(path: Path, header: dict[str, str]) -> tuple[tuple[int, int] | None, int]:
    """Pixels ``(y, x)`` of the raw images, where they are told, and how many there are."""
    old = _counts(header.get(_OLD_SIZE, ""), 2)
    if old and "RawSize" not in header:
        return None, old[0]
    found = _counts(header.get("RawSize", ""), 3)
    if not found or min(found) < 1:
        shown = printable(header.get("RawSize", "").strip())[:40]
        raise FileFormatError(f"{path}: expected '# RawSize = X Y IMAGES', found '{shown}'")
    return (found[1], found[0]), found[2]


def _counts(text: str, count: int) -> list[int]:
    """So many whole numbers, or none."""
    words = text.split()
    fit = len(words) == count and all(word.isdecimal() and len(word) < 10 for word in words)
    return [int(word) for word in words] if fit else []


def _whole(path: Path, count: int, aligned: int, dark: int, patches: tuple[int, int]) -> None:
    """Refuse a file of which a part is missing.

    Args:
        path: the file.
        count: images of the stack.
        aligned: rows of images.
        dark: images that were left out.
        patches: of how many of each image the header tells, and how many rows of them there are.
    """
    if aligned + dark != count:
        raise InputError(
            f"{path} is for a stack of {count} images but holds {aligned} aligned and {dark} dark ones, "
            f"{abs(count - aligned - dark)} {'are missing' if aligned + dark < count else 'too many'}; "
            "copy the file again, or align anew"
        )
    told, found = patches
    if found < told * aligned:
        raise InputError(
            f"{path} tells of {told} patches (NumPatches) in each of {aligned} images but holds {found} rows of local "
            f"alignment, {told * aligned - found} are missing; copy the file again, or tell of 0 patches there and "
            "take '# Local Alignment' away to do without them"
        )


def _patches_told(header: dict[str, str]) -> int:
    """Of how many patches of each image the header tells; 0 where it tells of none."""
    told, old = _counts(header.get("NumPatches", ""), 1), _counts(header.get(_OLD_SIZE, ""), 2)
    return told[0] if told else old[1] if old else 0


def _offset(path: Path, header: dict[str, str], name: str) -> float:
    """An angle of the header, which older files do not have."""
    try:
        return float(header.get(name, "0"))
    except ValueError:
        raise FileFormatError(f"{path}: expected a number of degrees for {name}, found '{header[name][:40]}'") from None


def _numbers(path: Path, line: int, text: str, count: int) -> list[float]:
    values = finite_numbers(text.split())
    if values is None or len(values) != count:
        raise FileFormatError(f"{path}, line {line}: expected {count} numbers, found '{printable(text)[:60]}'")
    return values


def _of_stack(named: Named, stack: Stack) -> Alignment:
    path, known = named.files["aln"], image_order(named, stack.sections)
    given, beside = (known.angles_deg or None if known.given == wanted else None for wanted in (True, False))
    source = known.source if beside else ""
    alignment, shape = named.reading(read_aln, path, given, beside, source, stack.image_shape)
    if alignment.sections != stack.sections:
        raise InputError(
            f"{named.tilts} holds {stack.sections} images but {path} is for {alignment.sections}; give the stack that "
            "was aligned"
        )
    if shape is not None and shape != stack.image_shape:
        raise InputError(
            f"{path} is for images of {shape[1]} x {shape[0]} pixels but those of {named.tilts} are "
            f"{stack.image_shape[1]} x {stack.image_shape[0]}; give the raw stack that AreTomo aligned"
        )
    return alignment


def _facts(path: Path) -> list[Fact]:
    alignment, shape = read_aln(path)
    of_stack = f"{shape[0]} × {shape[1]} (y, x) of the raw stack" if shape else "not told"
    told = Fact("image_shape", list(shape) if shape else None, of_stack)
    return [*alignment_facts("alignment of AreTomo (.aln)", alignment, shape), told]


ARETOMO = AlignmentFormat(
    "AreTomo",
    (
        AlignmentFile(
            "aln",
            "AreTomo, AreTomo2 or AreTomo3: alignment of a raw stack.",
            frozenset({"angles", "axis", "shifts"}),
            beside=("{}.aln", "{}.st.aln", "{}.mrc.aln"),  # AreTomo 1 and 2 add .aln to the stack's whole name
            columns="tilts,aln",
        ),
    ),
    _of_stack,
    describe={".aln": _facts},
)
