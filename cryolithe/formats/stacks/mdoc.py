"""SerialEM metadata of a tilt series (.mdoc), as far as tilt-series programs read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryolithe.errors import FileFormatError, GeometryError, InputError
from cryolithe.formats.files import PathLike, replacing
from cryolithe.formats.reading import Reading
from cryolithe.formats.stacks.mdoc_text import read_mdoc_text
from cryolithe.geometry import check_angles_deg

# Fewer or closer angles than these are those of maps and records.
FEWEST_ANGLES, LEAST_RANGE_DEG = 3, 2.0


def read_mdoc_angles_deg(path: PathLike, reading: Reading | None = None) -> tuple[float, ...]:
    """Tilt angles of the images of a stack, in its order.

    Where images were taken out, the rest keep their ZValue: these may be those of a stack that has the others no more,
    or of the whole one (`mdoc_places`).

    Args:
        path: the file.
        reading: through which it is read, where others ask for it too.

    Raises:
        FileFormatError: if it is no .mdoc of a tilt series, or two images have one ZValue.
        InputError: if the angles can belong to no tilt series, or images are pieces of a montage.
    """
    path = Path(path)
    made = (reading or Reading())(read_mdoc_text, path)
    count = len(made.places)
    if not count and made.frame_sets:
        raise FileFormatError(
            f"{path} describes no image of a stack: its {made.frame_sets} sections [FrameSet = ...] are of the frames "
            "of single exposures; give the .mdoc of the tilt series (sections [ZValue = 0], [ZValue = 1], ...), or a "
            "text file of the angles"
        )
    if not count:
        raise FileFormatError(f"{path} describes no image; expected sections [ZValue = 0], [ZValue = 1], ...")
    if made.pieces:
        raise InputError(
            f"{path}: {made.pieces} of {count} images are pieces of a montage (PieceCoordinates of one section), not "
            "whole ones; blend them (IMOD's blendmont), and give the blended stack and its angles"
        )
    twice = next((place for place in made.places if made.places.count(place) > 1), None)
    if twice is not None:
        raise FileFormatError(
            f"{path}: expected one section for each image, but [ZValue = {twice}] is there twice; mend the file, or "
            "give a text file of the angles"
        )
    ordered = tuple(made.angles_deg[row] for row in made.rows)
    known = tuple(angle for angle in ordered if angle is not None)
    if len(known) != count:
        first = sorted(made.places)[ordered.index(None)]
        raise FileFormatError(f"{path}: image {first + 1} has no TiltAngle; give a text file of the angles")
    try:
        check_angles_deg(known)
    except GeometryError as error:
        raise InputError(f"{path}: {error}") from error
    return known


def mdoc_places(path: PathLike, reading: Reading) -> tuple[int, ...]:
    """ZValue of each of the angles of `read_mdoc_angles_deg`; it is that of a readable file."""
    return tuple(sorted(reading(read_mdoc_text, Path(path)).places))


def is_tilt_series_mdoc(path: Path, reading: Reading) -> bool:
    """Whether an .mdoc has the angles of a tilt series: other stacks of SerialEM, such as maps, have one too."""
    try:
        angles = {angle for angle in reading(read_mdoc_text, path).angles_deg if angle is not None}
    except InputError:
        return False
    return len(angles) >= FEWEST_ANGLES and max(angles) - min(angles) > LEAST_RANGE_DEG


@dataclass(frozen=True)
class MdocImage:
    """What an .mdoc says about one image.

    Attributes:
        tilt_angle_deg: tilt angle.
        exposure_dose: electrons per Å² of this image.
        prior_dose: electrons per Å² before it.
        defocus_um: defocus; underfocus is negative in .mdoc files.
        acquired: position in the order of acquisition, from 0.
    """

    tilt_angle_deg: float
    exposure_dose: float
    prior_dose: float
    defocus_um: float
    acquired: int


def write_mdoc(
    path: PathLike,
    stack_name: str,
    images: Sequence[MdocImage],
    pixel_size_angstrom: float,
    image_shape: tuple[int, int],
    voltage_kv: float,
    overwrite: bool = False,
) -> None:
    """Write the .mdoc of a stack, one section for each image in stack order; acquisition time tells their order."""
    height, width = image_shape
    lines = [
        f"PixelSpacing = {pixel_size_angstrom:g}",
        f"Voltage = {voltage_kv:g}",
        f"ImageFile = {Path(stack_name).name}",
        f"ImageSize = {width} {height}",
        "DataMode = 2",
        "",
        "[T = Simulated by CryoLithe]",
    ]
    for number, image in enumerate(images):
        minutes, seconds = divmod(30 * image.acquired, 60)
        lines += [
            "",
            f"[ZValue = {number}]",
            f"TiltAngle = {image.tilt_angle_deg:.4f}",
            f"ExposureDose = {image.exposure_dose:.5f}",
            f"PriorRecordDose = {image.prior_dose:.5f}",
            f"Defocus = {image.defocus_um:.5f}",
            f"PixelSpacing = {pixel_size_angstrom:g}",
            f"DateTime = 01-Jan-2026  {12 + minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}",
        ]
    with replacing(path, overwrite) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")
