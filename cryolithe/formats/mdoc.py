"""SerialEM metadata of a tilt series (.mdoc), as far as tilt-series programs read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryolithe.formats.files import PathLike, replacing


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
