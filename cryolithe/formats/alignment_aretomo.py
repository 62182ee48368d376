"""AreTomo's alignment file (.aln), of AreTomo, AreTomo2 and AreTomo3.

Its rotation and shift lead from the aligned image to the raw one: ``p = R(ROT) q + T``, so here A = R(-ROT), d = -A T
(as in AreTomo's own writer of IMOD files). TILT already holds the tilt offset. The package alnfile reads the newest
files alone (it wants the two offsets) and leaves the numbering of sections to the caller, so it is not used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryolithe.alignment import Alignment, ImageAlignment, rotation
from cryolithe.errors import FileFormatError, GeometryError, InputError
from cryolithe.formats.files import PathLike, printable, read_text

LIMIT_BYTES = 50_000_000
COLUMNS = 10
# A magnification or a tilt about x that is smaller makes no difference in a volume.
SAME_SCALE, SAME_TILT_DEG = 1e-3, 0.01
# Angles of a file and of an angle list belong to the same image when they agree so well, after the tilt offset.
SAME_ANGLE_DEG = 0.5


@dataclass(frozen=True)
class _Row:
    section: int
    rotation_deg: float
    shift_px: tuple[float, float]
    tilt_deg: float


@dataclass(frozen=True)
class _Dark:
    sorted_index: int
    section: int
    tilt_deg: float


def read_aln(path: PathLike, raw_angles_deg: tuple[float, ...] | None = None) -> tuple[Alignment, tuple[int, int]]:
    """Read an alignment of AreTomo.

    Sections are counted from 0 before AreTomo3 2.0.7 and from 1 since. Which it is follows from the numbers: those of
    the aligned and of the dark images together must be all images of the stack; where that leaves both open, the
    angles of the stack decide, and else a file without a section 0 counts from 1.

    Args:
        path: the file.
        raw_angles_deg: angles of the whole stack in its order, where they are known: each image's is compared.

    Returns:
        the alignment, and the pixels ``(y, x)`` of the images that it is for.

    Raises:
        InputError: if images are missing, or angles do not fit.
        FileFormatError: if it is no such file, or a number is not one.
    """
    path = Path(path)
    text = read_text(path, "an AreTomo alignment", LIMIT_BYTES)
    header, rows, darks, local = _read_rows(path, text)
    width, height, count = _raw_size(path, header)
    if not rows:
        raise InputError(f"{path} holds no aligned image; AreTomo may have failed")
    if len(rows) + len(darks) != count:
        raise InputError(
            f"{path} is for a stack of {count} images but holds {len(rows)} aligned and {len(darks)} dark ones, "
            f"{abs(count - len(rows) - len(darks))} {'are missing' if len(rows) + len(darks) < count else 'too many'}; "
            "copy the file again, or align anew"
        )
    base, notes = _first_section(path, rows, darks, count, raw_angles_deg)
    if abs(_offset(path, header, "BetaOffset")) > SAME_TILT_DEG:
        raise InputError(f"{path}: a BetaOffset other than 0 is not understood; align with -TiltCor 0 or 1")
    if local:
        notes.append(f"{local} local (patch) shifts in {path.name} are not applied")
    images = []
    for row in sorted(rows, key=lambda row: row.section):
        matrix = rotation(-row.rotation_deg)
        (a, b), (c, d) = matrix
        x, y = row.shift_px
        if math.hypot(x, y) > math.hypot(width, height):
            raise InputError(
                f"{path}: image {row.section} is shifted by ({x:g}, {y:g}) pixels, more than its size; align anew"
            )
        images.append(ImageAlignment(row.section - base, row.tilt_deg, matrix, (-(a * x + b * y), -(c * x + d * y))))
    try:
        made = Alignment(tuple(images), count, notes=tuple(notes))
    except GeometryError as error:
        raise InputError(f"{path}: {error}") from error
    if raw_angles_deg is not None:
        _compare_angles(path, made, raw_angles_deg)
    return made, (height, width)


def _first_section(
    path: Path, rows: list[_Row], darks: list[_Dark], count: int, raw_angles_deg: tuple[float, ...] | None
) -> tuple[int, list[str]]:
    """Whether sections are counted from 0 or from 1, and what to tell about it."""
    numbers = [row.section for row in rows]
    twice, times = Counter(numbers).most_common(1)[0]
    if times > 1:
        raise InputError(f"{path}: section {twice} is there twice; copy the file again, or align anew")
    possible = [base for base in (1, 0) if base <= min(numbers) and max(numbers) < count + base]
    if not possible:
        raise InputError(
            f"{path}: sections {min(numbers)} to {max(numbers)} do not fit a stack of {count} images; align anew"
        )
    if len(possible) == 1 or not darks:
        return possible[0], []
    # The second column of a dark image is its section, the first its place among the sorted images, from 0.
    missing = {base: set(range(count)) - {n - base for n in numbers} for base in possible}
    for told in ({base: {d.section - base for d in darks} for base in possible},
                 {base: {d.sorted_index for d in darks} for base in possible}):  # fmt: skip
        fitting = [base for base in possible if told[base] == missing[base]]
        if len(fitting) == 1:
            return fitting[0], []
    if raw_angles_deg is not None and len(raw_angles_deg) == count:
        misfit = {b: max(abs(r.tilt_deg - raw_angles_deg[r.section - b]) for r in rows) for b in possible}
        return min(misfit, key=lambda base: misfit[base]), []
    note = f"{path.name} does not tell whether it counts images from 0 or 1; 1 is taken (AreTomo3 since 2.0.7)"
    return 1, [note + ": give ANGLES, one for each image of the stack, to make sure"]


def _compare_angles(path: Path, alignment: Alignment, raw_angles_deg: tuple[float, ...]) -> None:
    """Raise InputError unless each image has the angle of its place in the stack, but for one offset."""
    if len(raw_angles_deg) != alignment.sections:
        raise InputError(
            f"{path} is for a stack of {alignment.sections} images but {len(raw_angles_deg)} angles were given"
        )
    differences = [image.angle_deg - raw_angles_deg[image.section] for image in alignment.images]
    offset = sorted(differences)[len(differences) // 2]
    for image, difference in zip(alignment.images, differences, strict=True):
        if abs(difference - offset) > SAME_ANGLE_DEG:
            raise InputError(
                f"{path}: image {image.section + 1} has the angle {image.angle_deg:g}° but ANGLES says "
                f"{raw_angles_deg[image.section]:g}°; give the angles of this stack, in its order, or leave ANGLES out"
            )


def _read_rows(path: Path, text: str) -> tuple[dict[str, str], list[_Row], list[_Dark], int]:
    """Header entries, rows of images, dark images, and how many local shifts there are."""
    lines = text.splitlines()
    if not lines or not lines[0].startswith("# AreTomo Alignment"):
        raise FileFormatError(f"{path} is no AreTomo alignment: its first line does not say so; give the .aln file")
    header: dict[str, str] = {}
    rows: list[_Row] = []
    darks: list[_Dark] = []
    local, in_local = 0, False
    for number, line in enumerate(lines, start=1):
        content = line.strip()
        if content.startswith("#"):
            name, equals, value = content[1:].partition("=")
            in_local = in_local or name.strip() == "Local Alignment"
            if name.strip() == "DarkFrame":
                place, section, tilt = _numbers(path, number, value, 3)
                darks.append(_Dark(int(place), int(section), tilt))
            elif equals:
                header[name.strip()] = value.strip()
        elif content and in_local:
            local += 1
        elif content:
            section, turn, scale, x, y, *_, tilt = _numbers(path, number, content, COLUMNS)
            if section != int(section):
                raise FileFormatError(f"{path}, line {number}: expected a whole section number, found {section:g}")
            if abs(scale - 1) > SAME_SCALE:
                raise InputError(f"{path}, line {number}: a magnification (GMAG) of {scale:g} is not applied here")
            if not abs(tilt) <= 90:
                raise InputError(f"{path}, line {number}: expected a tilt within ±90°, found {tilt:g}; align anew")
            rows.append(_Row(int(section), turn, (x, y), tilt))
    return header, rows, darks, local


def _raw_size(path: Path, header: dict[str, str]) -> tuple[int, int, int]:
    words = header.get("RawSize", "").split()
    if len(words) != 3 or not all(word.isdecimal() and len(word) < 10 and int(word) > 0 for word in words):
        raise FileFormatError(f"{path}: expected '# RawSize = X Y IMAGES', found '{printable(' '.join(words))[:40]}'")
    return int(words[0]), int(words[1]), int(words[2])


def _offset(path: Path, header: dict[str, str], name: str) -> float:
    """An angle of the header, which older files do not have."""
    try:
        return float(header.get(name, "0"))
    except ValueError:
        raise FileFormatError(f"{path}: expected a number of degrees for {name}, found '{header[name][:40]}'") from None


def _numbers(path: Path, line: int, text: str, count: int) -> list[float]:
    words: Iterable[str] = text.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != count or not all(map(math.isfinite, values)):
        raise FileFormatError(f"{path}, line {line}: expected {count} numbers, found '{printable(text)[:60]}'")
    return values
