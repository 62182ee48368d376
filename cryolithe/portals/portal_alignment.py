"""An alignment of the CryoET Data Portal as files of IMOD.

Of each image the portal has an in-plane rotation M (a matrix), an offset t and a tilt angle. A point of the aligned
image at q is seen at p = M q + t, both from the middle of the image: what the portal's own conversion of alignments
(the package cryoet-alignment) writes as IMOD's q = A p + d with A = Mᵀ and d = -Mᵀ t. Images of which the portal has
nothing were left out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cryolithe.errors import InputError
from cryolithe.formats.files import replacing

OffsetUnit = Literal["pixel", "angstrom"]


@dataclass(frozen=True)
class Section:
    """What is known of an image.

    Attributes:
        z_index: its place in the stack, from 0.
        tilt_deg: tilt angle.
        rotation: M, ``((xx, xy), (yx, yy))``.
        offset: t, ``(x, y)``, in the unit that is told apart.
        x_rotation_deg: rotation of the volume about x.
    """

    z_index: int
    tilt_deg: float
    rotation: tuple[tuple[float, float], tuple[float, float]]
    offset: tuple[float, float]
    x_rotation_deg: float = 0.0


@dataclass(frozen=True)
class PortalAlignment:
    """An alignment, with what the portal says of the stack and the volume.

    Attributes:
        sections: of the images that were aligned.
        images: of the stack.
        pixel_size_angstrom: of the stack.
        thickness_angstrom: of the volume; None where the portal does not say.
        tilt_offset_deg: said to be added to tilt angles.
        x_rotation_deg: said to turn the volume about x.
        volume_offset_angstrom: of the volume's middle, ``(x, y, z)``.
        local: whether images were also bent locally, which is not kept by the portal.

    Raises:
        InputError: if images lack parameters, or have them twice, or a number is not finite or positive.
    """

    sections: tuple[Section, ...]
    images: int
    pixel_size_angstrom: float
    thickness_angstrom: float | None = None
    tilt_offset_deg: float = 0.0
    x_rotation_deg: float = 0.0
    volume_offset_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0)
    local: bool = False

    def __post_init__(self) -> None:
        places = [section.z_index for section in self.sections]
        if not places:
            raise InputError("the portal has no parameters of single images for this alignment; choose another one")
        if len(set(places)) != len(places) or min(places) < 0 or max(places) >= self.images:
            raise InputError(
                f"the alignment has parameters of the images {min(places)} to {max(places)}, but the stack has "
                f"{self.images} (0 to {self.images - 1}), each once"
            )
        if not (math.isfinite(self.pixel_size_angstrom) and self.pixel_size_angstrom > 0):
            raise InputError(f"the portal gives a pixel size of {self.pixel_size_angstrom} Å; expected a positive one")
        numbers = [[s.tilt_deg, *s.rotation[0], *s.rotation[1], *s.offset] for s in self.sections]
        if not np.isfinite(np.array(numbers, dtype=np.float64)).all():
            raise InputError("the portal's alignment holds numbers that are not finite; choose another one")

    @property
    def left_out(self) -> tuple[int, ...]:
        """Places, from 0, of the images that the alignment does not use."""
        used = {section.z_index for section in self.sections}
        return tuple(place for place in range(self.images) if place not in used)


def alignment_notes(alignment: PortalAlignment, unit: OffsetUnit) -> tuple[str, ...]:
    """What is assumed of an alignment, and what of it is left undone, in lines for the user."""
    other = "angstrom" if unit == "pixel" else "pixel"
    lines = []
    if any(any(section.offset) for section in alignment.sections):
        lines.append(
            f"offsets of the images are taken to be in {unit}s of the stack. The portal calls them ångström, but its "
            "conversions from IMOD and AreTomo keep their pixels; if features are smeared across the tilt axis, fetch "
            f"again with --offsets {other}"
        )
    if alignment.left_out:
        shown = ", ".join(str(place + 1) for place in alignment.left_out)
        lines.append(f"images {shown} of {alignment.images} are not part of the alignment and are left out")
    undone = {
        f"the tilt offset of {alignment.tilt_offset_deg:g}° (the angles of single images are used as they are)":
            alignment.tilt_offset_deg,
        f"the rotation of {alignment.x_rotation_deg:g}° about x": alignment.x_rotation_deg,
        "rotations of single images about x": max((abs(s.x_rotation_deg) for s in alignment.sections), default=0.0),
        f"the volume's offset of {alignment.volume_offset_angstrom} Å (x, y, z)":
            max(abs(value) for value in alignment.volume_offset_angstrom),
    }  # fmt: skip
    lines += [f"not used: {what}, of which the portal does not say the sign" for what, value in undone.items() if value]
    if alignment.local:
        lines.append("the alignment is a local one: the portal has its global part alone")
    return tuple(lines)


def write_imod_files(
    folder: Path, name: str, alignment: PortalAlignment, unit: OffsetUnit, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write ``name.xf``, ``name.tlt``, ``name_newst.com``, ``name_tilt.com`` and ``series.csv``, which names them all.

    Args:
        folder: where the stack ``name.mrc`` lies.
        name: of the series.
        alignment: what the portal has.
        unit: of the offsets.
        overwrite: replace existing files.

    Raises:
        OutputError: if one exists, or cannot be written.
    """
    sections = {section.z_index: section for section in alignment.sections}
    per_px = 1.0 if unit == "pixel" else alignment.pixel_size_angstrom
    transforms, angles = [], []
    for place in range(alignment.images):
        section = sections.get(place)
        if section is None:  # left out by tilt.com: these numbers count for nothing
            transforms.append("1.0000000 0.0000000 0.0000000 1.0000000 0.000 0.000")
            angles.append("0.000")
            continue
        matrix = np.array(section.rotation).T
        shift = -matrix @ np.array(section.offset) / per_px
        transforms.append(" ".join(f"{value:.7f}" for value in (*matrix.ravel(), *shift)))
        angles.append(f"{section.tilt_deg:.4f}")
    tilt = ["$tilt -StandardInput", f"TILTFILE {name}.tlt"]
    if alignment.left_out:
        tilt.append(f"EXCLUDELIST2 {','.join(str(place + 1) for place in alignment.left_out)}")
    if alignment.thickness_angstrom:
        tilt.append(f"THICKNESS {max(1, round(alignment.thickness_angstrom / alignment.pixel_size_angstrom))}")
    texts = {
        f"{name}.xf": transforms,
        f"{name}.tlt": angles,
        f"{name}_newst.com": ["$newstack -StandardInput", f"TransformFile {name}.xf"],
        f"{name}_tilt.com": tilt,
    }
    paths = []
    for file, lines in texts.items():
        with replacing(folder / file, overwrite) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(folder / file)
    # Not newst.com: without a size, which nobody knows here, it would keep the raw images' however far they are turned.
    rows = [
        ("tilts", "xf", "tilt_com", "pixel_size"),
        (f"{name}.mrc", f"{name}.xf", f"{name}_tilt.com", f"{alignment.pixel_size_angstrom:g}"),
    ]
    paths.append(_write_list(folder / "series.csv", rows, overwrite))
    return tuple(paths)


def write_aligned(
    folder: Path, name: str, angles_deg: Sequence[float], pixel_size_angstrom: float, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write ``name.tlt`` and ``series.csv`` for a stack that is aligned already; see `write_imod_files`."""
    with replacing(folder / f"{name}.tlt", overwrite) as temporary:
        temporary.write_text("".join(f"{angle:.4f}\n" for angle in angles_deg), encoding="utf-8")
    rows = [("tilts", "angles", "pixel_size"), (f"{name}.mrc", f"{name}.tlt", f"{pixel_size_angstrom:g}")]
    return folder / f"{name}.tlt", _write_list(folder / "series.csv", rows, overwrite)


def _write_list(path: Path, rows: Sequence[tuple[str, ...]], overwrite: bool) -> Path:
    with (
        replacing(path, overwrite) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path
