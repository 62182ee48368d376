"""The images of a volume, prepared once more as its record tells: what a projection of the volume can be compared with.

A record names the files, by their content, and the settings. What `reconstruct` did to images in memory (aligned,
turned, bent, shifted, corrected) is not in any file: to compare a volume with a stack as it is would compare it with
images that lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.files.hashing import file_sha256
from cryolithe.files.names import is_file
from cryolithe.formats.alignment.alignments import alignment_files
from cryolithe.formats.reading import Reading
from cryolithe.formats.record import part_of
from cryolithe.formats.series_names import is_other_half
from cryolithe.geometry import TiltGeometry
from cryolithe.reconstruction.images.evenness import surface_of, without_surface
from cryolithe.reconstruction.images.preparation import prepare_image
from cryolithe.reconstruction.jobs.job import Job, ResolvedJob, resolve
from cryolithe.reconstruction.jobs.parts import wanted_part
from cryolithe.settings import ReconstructSettings
from cryolithe.tilts import TiltSeries

STACKS = ("tilts", "even tilts", "odd tilts")
# What records of averages name beside these.
_VOLUMES = ("even", "odd")
# Settings that say where the images are seen and how they are corrected; files are looked for, see `_found`.
_KEPT = (
    "thickness", "bin", "pixel_size", "tilt_axis", "local_alignment", "ctf_state", "ctf", "voltage", "cs",
    "amplitude_contrast", "dose_weight", "centre", "handedness", "flip_z",
)  # fmt: skip
# What settings call the files that records name otherwise.
_NAMED = {"ctf_file": "ctf", "dose": "dose"}
# And what was found out or assumed, in the record of the CTF's correction.
_OPTICS = {
    "defocus_hand": "defocus_hand", "voltage": "voltage_kv", "cs": "spherical_aberration_mm",
    "amplitude_contrast": "amplitude_contrast",
}  # fmt: skip
_SAME = 1e-3
# Values of images that are kept once they are prepared: they are looked at, and then compared.
_KEPT_VALUES = 1 << 27


@dataclass(frozen=True)
class RecordedImages:
    """Images as a volume was made of them, or would have been of those that it was made without.

    Attributes:
        series: prepared one by one when they are read, pixels as large as the volume's voxels, angles of its z.
        sections: their places in the stack, from 0.
        note: what was done to them, in words.
        left_out: places of wanted images that the alignment leaves out.
    """

    series: TiltSeries
    sections: tuple[int, ...]
    note: str
    left_out: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Prepared:
    """Images ``(tilt, y, x)`` that are prepared when they are asked for; the last ones are kept."""

    run: ResolvedJob
    uneven: bool
    kept: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sizes along tilt, y, x."""
        made = self.run.preparation.image_shape(self.run.series.geometry.image_shape)
        return (self.run.series.geometry.tilts, *made)

    @property
    def ndim(self) -> int:
        """3."""
        return 3

    def __getitem__(self, number: int, /) -> NDArray[np.float32]:
        if number not in self.kept:
            image = prepare_image(self.run.series, self.run.preparation, number)
            self.kept[number] = without_surface(image, surface_of(image)) if self.uneven else image
            for other in list(self.kept)[: -max(1, _KEPT_VALUES // image.size)]:
                del self.kept[other]
        return self.kept[number]


def prepared_in_memory(record: Mapping[str, Any]) -> bool:
    """Whether a record tells of images that were moved or corrected, which their stack does not show."""
    geometry, settings, method = (part_of(_made_of(record), name) for name in ("geometry", "settings", "method"))
    corrections = part_of(method, "corrections")
    return bool(
        geometry.get("transforms")
        or settings.get("tilt_axis")
        or any(corrections.get(name) for name in ("ctf", "dose_weight"))
    )


def recorded_images(
    record: Mapping[str, Any], volume: Path | None, files: tuple[Path, Path], sections: Sequence[int]
) -> RecordedImages | None:
    """Some images of the stack that a volume was made from, or of its other half, prepared as the record tells.

    Args:
        record: of the volume.
        volume: its file; None where it is in memory.
        files: the stack and its angles.
        sections: the wanted images, by their places in the stack from 0; those that the alignment leaves out are not
            among the result.

    Returns:
        None where the record is of another stack, or images were taken as they are.

    Raises:
        InputError: if a file that the record names is not found as it was, or an alignment has none of the images.
    """
    record = _made_of(record)
    reading = Reading()  # a stack is hashed once
    if not prepared_in_memory(record) or not _is_of(record, files[0], reading):
        return None
    if not part_of(record, "settings"):
        raise InputError(
            f"the volume's record, of an earlier version, does not tell how images of {files[0].name} were aligned; "
            "denoise it anew, or compare with a stack that is aligned"
        )
    found = _Files(record, tuple(dict.fromkeys(p.parent for p in (*files, *([] if volume is None else [volume])))))
    settings = _settings(record, found)
    angles = part_of(record, "inputs").get("angles")
    job = Job(files[0], found.of("angles", files[1]) if angles else None, volume or files[0], settings, reading=reading)
    run = resolve(job)
    found.refuse_others(run.files.hashes() | run.files.row_hashes())
    _refuse_elsewhere(run, record)
    wanted = tuple(sorted({image.section for image in run.alignment.images} & set(sections)))
    if not wanted:
        raise InputError(
            f"the alignment of {files[0].name} leaves out all of the {len(sections)} images to compare; name others "
            "with --held-out"
        )
    run = wanted_part(replace(run, job=replace(job, sections=wanted)))
    images = _Prepared(run, bool(part_of(record, "method").get("unevenness")))
    shape = images.shape
    series = TiltSeries(
        images, TiltGeometry(run.series.geometry.angles_deg, shape[1:], run.preparation.shifts), run.voxel_size_angstrom
    )
    return RecordedImages(series, wanted, _told(run), tuple(sorted(set(sections) - set(wanted))))


def _told(run: ResolvedJob) -> str:
    how = run.preparation
    moved = ", ".join(path.name for path in run.job.settings.alignment_files.values())
    done = [f"aligned ({moved})" if moved else "moved"] if how.views is not None or how.tilt_axis_deg else []
    done += ["corrected"] if how.corrections is not None else []
    return f"{run.job.tilts.name} is {' and '.join(done)} in memory, as the volume's record tells"


def _made_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record of a reconstruction: of a denoised volume that of what was denoised."""
    source = part_of(record, "source")
    if not any(name in part_of(source, "inputs") for name in STACKS):
        return record
    return source if "settings" in source else {**source, "geometry": part_of(record, "geometry")}


def _is_of(record: Mapping[str, Any], stack: Path, reading: Reading) -> bool:
    """Whether a stack is one that a record names, or the other half of its frames."""
    known = [entry for name in STACKS if (entry := part_of(record, "inputs", name))]
    if reading.sha256(stack) in {entry.get("sha256") for entry in known}:
        return True
    return any(is_other_half(stack.name, Path(str(entry.get("path"))).name) for entry in known)


class _Files:
    """Files of a record, looked for where they may lie now, told by their content."""

    def __init__(self, record: Mapping[str, Any], folders: tuple[Path, ...]) -> None:
        self._inputs = part_of(record, "inputs")
        self._folders = folders

    def of(self, name: str, *first: Path) -> Path:
        """The file of an input.

        Raises:
            InputError: if it is nowhere, or another one lies in its place.
        """
        entry = part_of(self._inputs, name)
        told, wanted = Path(str(entry.get("path", name))), entry.get("sha256")
        places = [*first, told, *(folder / part for folder in self._folders for part in (told, told.name))]
        there = [place for place in dict.fromkeys(places) if is_file(place)]
        for place in there:
            if file_sha256(place) == wanted:
                return place
        if there and "row_sha256" in entry:  # what it tells of this series is compared when that is read
            return there[0]
        where = f"{there[-1]} is not the one it was" if there else f"expected it beside {self._folders[0]}"
        raise InputError(
            f"the volume's images were aligned or corrected in memory by {told.name}, which is not found: {where}; put "
            "it there, or compare with a stack that is aligned"
        )

    def has(self, name: str) -> bool:
        """Whether there was such an input."""
        return name in self._inputs

    def refuse_others(self, hashes: Mapping[str, str]) -> None:
        """Raise InputError where a run would read a file that the record does not name."""
        entries = [part_of(self._inputs, name) for name in self._inputs]
        known = {entry.get(kind) for entry in entries for kind in ("sha256", "row_sha256")}
        for name, sha256 in hashes.items():
            if name not in STACKS and sha256 not in known:
                raise InputError(
                    f"{name}: the volume was made with another file than is there now; put that one back, or compare "
                    "with a stack that is aligned"
                )
        read = set(hashes.values())
        for name in self._inputs:
            entry = part_of(self._inputs, name)
            if name not in (*STACKS, *_VOLUMES) and not read & {entry.get(kind) for kind in ("sha256", "row_sha256")}:
                self.of(name)  # tells that it is not there


def _settings(record: Mapping[str, Any], found: _Files) -> ReconstructSettings:
    told = part_of(record, "settings")
    kept = {name: told[name] for name in _KEPT if told.get(name) is not None}
    files = {name: str(found.of(name)) for name in alignment_files() if told.get(name) is not None}
    files |= {setting: str(found.of(name)) for setting, name in _NAMED.items() if found.has(name)}
    corrections = part_of(record, "method", "corrections")
    ctf, weighed = part_of(corrections, "ctf"), part_of(corrections, "dose_weight")
    if weighed.get("voltage_kv") is not None:
        kept["voltage"] = weighed["voltage_kv"]
    if kept.get("ctf", "none") != "none":
        kept |= {setting: ctf[name] for setting, name in _OPTICS.items() if ctf.get(name) is not None}
    return ReconstructSettings.model_validate(
        {"method": "fbp", "fix_nonfinite": True, "device": "cpu", **kept, **files}
    )


def _refuse_elsewhere(run: ResolvedJob, record: Mapping[str, Any]) -> None:
    """Raise InputError unless images come to lie where the record says that they lay."""
    geometry = part_of(record, "geometry")
    of_section = {image.section + 1: image for image in run.alignment.images}
    pairs = zip(run.alignment.images, run.series.geometry.angles_deg, strict=True)
    angle_of = {image.section + 1: angle_deg for image, angle_deg in pairs}
    sections, angles, transforms = (geometry.get(n) or [] for n in ("sections", "tilt_angles_deg", "transforms"))
    lie = [of_section[n] for n in sections if n in of_section]
    now = [[*image.matrix[0], *image.matrix[1], *image.shift_px] for image in lie]
    same = len(lie) == len(sections) == len(angles) and np.allclose([angle_of[n] for n in sections], angles, atol=_SAME)
    if not same or (transforms and not np.allclose(now, transforms, atol=_SAME)):
        raise InputError(
            f"the files of {run.job.tilts.name} give other angles or transforms than the volume's record tells; "
            "compare with a stack that is aligned"
        )
