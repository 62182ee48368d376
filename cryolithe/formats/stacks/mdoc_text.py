"""What is needed of SerialEM's .mdoc files, whatever else stands in them.

Only the lines ``[ZValue = N]``, ``TiltAngle = A`` and the tilt axis in a title can make a file unusable; doses and
times are kept as texts. Real files have titles broken over two lines, paths in old
encodings and names with ``=`` in them, at which the package mdocfile stops.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cryolithe.errors import FileFormatError
from cryolithe.formats.files import printable, read_text

LIMIT_BYTES = 50_000_000
_IMAGE = re.compile(r"\s*\[\s*ZValue\s*=\s*(\S+?)\s*\]?\s*", re.IGNORECASE)
_FRAME_SET = re.compile(r"\s*\[\s*FrameSet\s*=", re.IGNORECASE)
_SECTION = re.compile(r"\s*\[\s*\w+\s*=", re.IGNORECASE)
_ANGLE = re.compile(r"\s*TiltAngle\s*=\s*(.*?)\s*", re.IGNORECASE)
_FACT = re.compile(r"\s*(ExposureDose|PriorRecordDose|DateTime)\s*=\s*(.*?)\s*", re.IGNORECASE)
_VOLTAGE = re.compile(r"\s*Voltage\s*=\s*(\d+(?:\.\d*)?)\s*(?:kV)?\s*", re.IGNORECASE)
_PIECE = re.compile(r"\s*PieceCoordinates\s*=\s*(\S+)\s+(\S+)\s+(\S+)\s*", re.IGNORECASE)
_FRAMES = re.compile(r"\s*SubFramePath\s*=\s*\S.*", re.IGNORECASE)
_FILE = re.compile(r"\s*ImageFile\s*=\s*(.*?)\s*", re.IGNORECASE)
_PIXEL = re.compile(r"\s*PixelSpacing\s*=\s*(\d+(?:\.\d*)?)\s*", re.IGNORECASE)
_SIZE = re.compile(r"\s*ImageSize\s*=\s*(\d{1,6})\s+(\d{1,6})\s*", re.IGNORECASE)
# What is more is no pixel of a microscope.
_MOST_ANGSTROM = 1e6
_AXIS = re.compile(r"(tilt\s*axis\s*angle)\s*=\s*([-+]?\d+(?:\.\d*)?)", re.IGNORECASE)
_ROTATION = re.compile(r"\s*RotationAngle\s*=\s*([-+]?\d+(?:\.\d*)?)\s*", re.IGNORECASE)
# Tomography 5 writes it as one word.
_TOMOGRAPHY = "tiltaxisangle"


@dataclass
class MdocText:
    """The lines of an .mdoc that matter.

    Attributes:
        places: ZValue of each image, in the order of the file.
        angles_deg: its TiltAngle, or None.
        axis_deg: of the tilt axis from y, as a title says (Tomography 5: RotationAngle of the images), or None.
        facts: of each image, the texts of ExposureDose, PriorRecordDose and DateTime, by these names in small letters.
        image_file: name of the stack that the file is of, or an empty string.
        voltage_kv: of the microscope, or None.
        pieces: how many images are pieces of a larger one together with others (PieceCoordinates).
        with_frames: whether frames were recorded (SubFramePath), of which a stack is made afterwards, in any order.
        frame_sets: how many sections are of the frames of an exposure, and of no image of a stack.
        pixels_angstrom: PixelSpacing of the images, and of the file; those that are lengths.
        image_size: pixels ``(x, y)`` of the images, or None.
    """

    places: list[int] = field(default_factory=list)
    angles_deg: list[float | None] = field(default_factory=list)
    axis_deg: float | None = None
    image_file: str = ""
    voltage_kv: float | None = None
    facts: list[dict[str, str]] = field(default_factory=list)
    pieces: int = 0
    with_frames: bool = False
    frame_sets: int = 0
    pixels_angstrom: list[float] = field(default_factory=list)
    image_size: tuple[int, int] | None = None

    @property
    def rows(self) -> list[int]:
        """The number of each section in the file, in the order of ZValue."""
        return sorted(range(len(self.places)), key=self.places.__getitem__)


def read_mdoc_text(path: Path) -> MdocText:
    """Read the lines that matter.

    Raises:
        InputError: if the file cannot be read.
        FileFormatError: if a ZValue is no whole number, a TiltAngle no number, or an image has two angles.
    """
    made = MdocText()
    in_image = False
    word, turns = "", []
    pieces: list[tuple[str, ...]] = []
    for number, line in enumerate(read_text(path, "an .mdoc file", LIMIT_BYTES).splitlines(), start=1):
        if found := _IMAGE.fullmatch(line):
            if not found.group(1).isdecimal():
                raise FileFormatError(
                    f"{path}, line {number}: expected [ZValue = N], the number of an image from 0, found "
                    f"'{printable(line)[:60]}'"
                )
            made.places.append(int(found.group(1)))
            made.angles_deg.append(None)
            made.facts.append({})
            in_image = True
        elif _SECTION.match(line):
            in_image = False
            made.frame_sets += bool(_FRAME_SET.match(line))
        elif in_image and (found := _ANGLE.fullmatch(line)):
            angle = _number(path, number, found.group(1))
            if made.angles_deg[-1] not in (None, angle):
                raise FileFormatError(f"{path}, line {number}: a second TiltAngle for image {made.places[-1]}")
            made.angles_deg[-1] = angle
        elif in_image and (found := _ROTATION.fullmatch(line)):
            turns.append(float(found.group(1)))
        elif in_image and (found := _PIECE.fullmatch(line)):
            pieces.append(found.groups())
        elif in_image and _FRAMES.fullmatch(line):
            made.with_frames = True
        elif in_image and (found := _FACT.fullmatch(line)):
            made.facts[-1].setdefault(found.group(1).lower(), found.group(2))
        elif not made.places and (found := _FILE.fullmatch(line)):
            made.image_file = re.split(r"[\\/]", found.group(1))[-1]
        _note_optics(made, line)
        if not in_image and made.axis_deg is None and (found := _AXIS.search(line)):
            word, made.axis_deg = found.group(1).lower(), float(found.group(2))
    of_section = Counter(section for *_, section in set(pieces))
    made.pieces = sum(of_section[section] > 1 for *_, section in pieces)
    if made.axis_deg is not None and word == _TOMOGRAPHY:
        made.axis_deg = turns[0] if turns else _of_tomography_deg(made.axis_deg)
    return made


def _note_optics(made: MdocText, line: str) -> None:
    """Keep what a line says of the voltage and the pixels, wherever it stands."""
    if made.voltage_kv is None and (found := _VOLTAGE.fullmatch(line)):
        made.voltage_kv = float(found.group(1))
    elif (found := _PIXEL.fullmatch(line)) and 0 < float(found.group(1)) < _MOST_ANGSTROM:
        made.pixels_angstrom.append(float(found.group(1)))
    elif made.image_size is None and (found := _SIZE.fullmatch(line)):
        made.image_size = int(found.group(1)), int(found.group(2))


def _of_tomography_deg(title_deg: float) -> float:
    """The axis from y for the TiltAxisAngle of a title of Tomography 5, which counts from x, the other way round.

    Its RotationAngle is the same number, and what alignments of such series find.
    """
    return round((-title_deg - 90 + 180) % 360 - 180, 6)


def _number(path: Path, line: int, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in word:
        raise FileFormatError(f"{path}, line {line}: expected a TiltAngle in degrees, found '{printable(word)[:40]}'")
    return value
