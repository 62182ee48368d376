"""Half volumes that belong together: opened, looked at, and refused where nothing can be learned from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.spectra import central
from cryolithe.artefacts.faces import ReadPlanes, find_lacking
from cryolithe.artefacts.half_agreement import (
    LONGEST,
    SIGMAS,
    Agreement,
    agreement,
    doubt_about_mirrors,
    is_shifted,
    shares_noise,
)
from cryolithe.denoising.periods import told
from cryolithe.denoising.scale import SIGMAS_PER_UNIT, Survey, survey
from cryolithe.errors import InputError
from cryolithe.formats.record import part_of, read_record_beside
from cryolithe.formats.volumes.volume_file import VolumeFile, open_unturned

FEWEST_VOXELS = 16  # along an axis
_SAME_VOXEL_SIZE = 0.005  # relative: headers round
MOST_APART = 1.1  # voxel sizes of volumes that one network suits
_SAME_NOISE = 0.9
MOST_LACKING = 0.1  # of a half that has one value where the other varies: less leaves enough to learn from


@dataclass(frozen=True)
class Half:
    """A half volume as the network sees it.

    Attributes:
        volume: on disk.
        survey: its grey scale, from all of its voxels.
    """

    volume: VolumeFile
    survey: Survey

    def box(self, place: tuple[slice, slice, slice]) -> NDArray[np.float32]:
        """Standardised voxels of a box: the whole volume has the median 0 and the robust deviation 1."""
        z, y, x = place
        if self.volume.whole is not None:
            values = self.volume.whole()[z, y, x]
        else:
            values = np.stack([self.volume.read(k)[y, x] for k in range(z.start, z.stop)])
        return np.float32(SIGMAS_PER_UNIT) * self.survey.scale.apply(values)

    def levels(self, z: int) -> NDArray[Any]:
        """Grey levels of a plane, shape ``(y, x)``; what is not finite is the median."""
        return self.survey.scale.levels(self.volume.read(z))

    @property
    def unit(self) -> float:
        """Grey levels of a standard deviation."""
        return self.survey.scale.unit / SIGMAS_PER_UNIT


@dataclass(frozen=True)
class HalfPair:
    """Two halves of one volume.

    Attributes:
        first: of the even images or frames.
        second: of the odd ones.
        found: what they have in common.
        warnings: what speaks against them, in words.
    """

    first: Half
    second: Half
    found: Agreement
    warnings: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels ``(z, y, x)``."""
        return self.first.volume.shape

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Edge of a voxel, or None."""
        return self.first.volume.voxel_size_angstrom or self.second.volume.voxel_size_angstrom

    def fingerprint(self) -> str:
        """Tells pairs apart: SHA-256 of shape and voxels."""
        text = f"{self.shape} {self.first.survey.sha256} {self.second.survey.sha256}"
        return hashlib.sha256(text.encode()).hexdigest()


def open_pair(
    half1: Path, half2: Path, is_volume: bool = False, repair: bool = False, advance: Callable[[], object] = int
) -> HalfPair:
    """Open two half volumes and look at all of both.

    Args:
        half1: volume of one half.
        half2: volume of the other.
        is_volume: take files that do not say so for volumes.
        repair: take values that are not finite for the median.
        advance: called after each plane.

    Raises:
        InputError: if a file is no usable volume, or the two are no halves of one.
    """
    files = [_open(path, is_volume) for path in (half1, half2)]
    if half1.exists() and half2.exists() and half1.samefile(half2):
        raise InputError(f"--half1 and --half2 are the same file, {half1}: give the volumes of even and of odd images")
    _check_alike(*files)
    _check_images(*files)
    looked = [Half(f, survey(f.read, f.shape[0], repair, str(f.path), advance)) for f in files]
    if looked[0].survey.sha256 == looked[1].survey.sha256:
        raise InputError(f"{half1} and {half2} hold the same voxels: give the volumes of even and of odd images")
    planes = [ReadPlanes(file.read, file.shape[0]) for file in files]
    lacking = find_lacking(planes[0], planes[1], (str(half1), str(half2)))
    if lacking is not None and lacking.share >= MOST_LACKING:
        raise InputError(lacking.told)
    middle = central(files[0].shape, LONGEST)
    boxes = [half.box(middle) for half in looked]
    found = agreement(*boxes)
    size = files[0].voxel_size_angstrom or files[1].voxel_size_angstrom
    doubts = judged(found, half1, half2, size)
    if mirrored := doubt_about_mirrors(boxes[0], boxes[1], (half1.name, half2.name)):
        doubts = (mirrored,)  # shifts of mirrored volumes tell nothing
    if lacking is not None:
        doubts = (lacking.told, *doubts)
    return HalfPair(looked[0], looked[1], found, doubts)


def open_half(path: Path, is_volume: bool = False, repair: bool = False, advance: Callable[[], object] = int) -> Half:
    """Open one volume, half or whole, and look at all of it; arguments and errors as `open_pair`."""
    file = _open(path, is_volume)
    return Half(file, survey(file.read, file.shape[0], repair, str(path), advance))


def _open(path: Path, is_volume: bool) -> VolumeFile:
    opened = open_unturned(path, is_volume)
    if opened.told.content == "unknown" and not is_volume:
        raise InputError(
            f"{path} does not say whether it is a volume or a stack of images (space group 0); if it is a volume, give "
            "--is-volume"
        )
    if min(opened.shape) < FEWEST_VOXELS:
        shape = " x ".join(map(str, opened.shape))
        raise InputError(f"{path} has {shape} voxels (z, y, x); at least {FEWEST_VOXELS} along each axis are needed")
    return opened


def _check_alike(first: VolumeFile, second: VolumeFile) -> None:
    """Refuse volumes whose files say that they are of different things."""
    if first.shape != second.shape:
        raise InputError(
            f"the halves differ in shape: {first.path} has {first.shape} voxels (z, y, x), {second.path} has "
            f"{second.shape}; give volumes of one specimen and size"
        )
    sizes = [file.voxel_size_angstrom for file in (first, second)]
    if sizes[0] and sizes[1] and abs(sizes[0] / sizes[1] - 1) > _SAME_VOXEL_SIZE:
        raise InputError(
            f"the halves differ in voxel size: {first.path} has {sizes[0]:g} Å, {second.path} has {sizes[1]:g} Å; give "
            "volumes of one binning"
        )
    contrasts = [contrast_of(file.path) for file in (first, second)]
    if contrasts[0] and contrasts[1] and contrasts[0] != contrasts[1]:
        raise InputError(
            f"the halves differ in contrast: by its record {first.path} is {contrasts[0]}, {second.path} is "
            f"{contrasts[1]}; reconstruct both with the same --contrast"
        )


def _check_images(first: VolumeFile, second: VolumeFile) -> None:
    """Refuse volumes that by their records were made of the same images: their noise is the same, however filtered."""
    stacks, sections = [], []
    for file in (first, second):
        record = read_record_beside(file.path)
        stacks.append(part_of(record, "inputs", "tilts").get("sha256"))
        told = part_of(record, "geometry").get("sections")
        sections.append(set(told) if isinstance(told, list) else None)
    if stacks[0] is None or stacks[0] != stacks[1]:
        return
    if sections[0] is not None and sections[1] is not None and not sections[0] & sections[1]:
        return
    raise InputError(
        f"{first.path} and {second.path} were made of the same images by their records, so that they have the same "
        "noise, which nothing can be learned from; give volumes of the even and the odd frames or images"
    )


def contrast_of(path: Path) -> str | None:
    """Contrast by the record beside a volume, or None."""
    contrast = part_of(read_record_beside(path), "volume").get("contrast")
    return contrast if isinstance(contrast, str) else None


def judged(found: Agreement, half1: Path, half2: Path, voxel_size_angstrom: float | None = None) -> tuple[str, ...]:
    """What speaks against two halves, in words.

    Raises:
        InputError: if one is the negative of the other, or both have the same noise.
    """
    names = f"{half1.name} and {half2.name}"
    finest = told(found.high_from_per_px, None, voxel_size_angstrom)
    if found.low < -SIGMAS * found.low_sigma:
        raise InputError(
            f"{names} have opposite contrast: their low frequencies correlate by {found.low:.2f}; invert one of them"
        )
    by_chance = SIGMAS * found.high_sigma
    if found.high > max(_SAME_NOISE, by_chance):
        raise InputError(
            f"{names} have the same noise: in details finer than {finest} they correlate by "
            f"{found.high:.2f}; give halves of different images or frames, not denoised, not copies of one volume"
        )
    warnings = []
    if shares_noise(found):
        warnings.append(
            f"{names} correlate by {found.high:.2f} in details finer than {finest}, where chance "
            f"allows {by_chance:.2g}: either there is signal up to the highest frequencies, or the halves share noise "
            "(images in common, frames interpolated, denoised before), which is then kept as if it were signal"
        )
    if found.low < SIGMAS * found.low_sigma:
        warnings.append(
            f"{names} have nothing in common that chance does not explain (correlation {found.low:.3f} at low "
            f"frequencies, chance allows {SIGMAS * found.low_sigma:.2g}): are they halves of one volume?"
        )
    if found.shift_px is not None and is_shifted(found):
        z, y, x = found.shift_px
        warnings.append(
            f"{half2.name} is shifted against {half1.name} by {z:.1f}, {y:.1f}, {x:.1f} voxels along z, y, x: details "
            "finer than about twice that are lost; reconstruct both with the alignment of the whole series"
        )
    return tuple(warnings)
