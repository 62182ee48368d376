"""SerialEM metadata of a tilt series (.mdoc), as far as tilt-series programs read it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryolithe.errors import FileFormatError, GeometryError, InputError
from cryolithe.formats.files import PathLike, printable, read_text, replacing
from cryolithe.geometry import check_angles_deg

LIMIT_BYTES = 50_000_000


def read_mdoc_angles_deg(path: PathLike) -> tuple[float, ...]:
    """Tilt angles of the images of a stack, in its order, read by the package mdocfile.

    Raises:
        FileFormatError: if it is no .mdoc of a tilt series, or numbers its images otherwise than 0, 1, 2, ...
        InputError: if the angles can belong to no tilt series.
    """
    from mdocfile.data_models import Mdoc

    path = Path(path)
    read_text(path, "an .mdoc file", LIMIT_BYTES)
    # The package tells every image with an old spelling of one entry.
    logging.getLogger("mdocfile").setLevel(logging.ERROR)
    try:
        sections = Mdoc.from_file(path).section_data
    except Exception as error:  # the package's parser raises whatever it stumbles over
        raise FileFormatError(f"{path} is not an .mdoc file: {printable(str(error))[:120]}") from error
    if not sections:
        raise FileFormatError(f"{path} describes no image; expected sections [ZValue = 0], [ZValue = 1], ...")
    places = [section.ZValue for section in sections]
    angles = [section.TiltAngle for section in sections]
    if sorted(place for place in places if place is not None) != list(range(len(sections))):
        raise FileFormatError(
            f"{path}: expected the images [ZValue = 0] to [ZValue = {len(sections) - 1}], one each; "
            "give the .mdoc of the whole stack"
        )
    if any(angle is None for angle in angles):
        raise FileFormatError(
            f"{path}: image {angles.index(None) + 1} has no TiltAngle; give a text file of the angles"
        )
    ordered = tuple(float(angle) for _, angle in sorted(zip(places, angles, strict=True)))
    try:
        check_angles_deg(ordered)
    except GeometryError as error:
        raise InputError(f"{path}: {error}") from error
    return ordered


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
