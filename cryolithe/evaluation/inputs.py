"""From the files that a user names to arrays that fit together; every misfit is said with both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.narrow import narrowed
from cryolithe.errors import InputError, SettingsError
from cryolithe.evaluation.comparing import VOXEL_SIZE_TOLERANCE, doubts_about_mask
from cryolithe.evaluation.heldout import opposite_z
from cryolithe.evaluation.in_hand import InHand, Judged, Named, is_same, record_name, record_of
from cryolithe.evaluation.pair_doubts import sentence
from cryolithe.evaluation.picking import DIAMETER_ANGSTROM
from cryolithe.evaluation.positions import known_positions, turned_told
from cryolithe.evaluation.tilt_images import Images, check_images, open_images
from cryolithe.formats.particles.star import Positions
from cryolithe.formats.record import recorded_angles_deg
from cryolithe.formats.volumes.axes import TURNED
from cryolithe.formats.volumes.pages import release_pages
from cryolithe.formats.volumes.volume_file import IS_VOLUME, VolumeFile, open_volume_file, refuse_stack, upright
from cryolithe.formats.volumes.volume_kind import refuse_map
from cryolithe.metrics import check_volume
from cryolithe.tilts import TiltSeries

Array = NDArray[Any]

SAME_VALUES = 1e-4  # of the span, by which the extremes in a record may differ from those of its volume
DEFAULT_TILT_RANGE = (-60.0, 60.0)
SHARED_PRIOR = (
    "Both halves were made by a network and share what it learned: where it adds the same structure to both, they "
    "agree although the data say nothing. Their FSC is no measure of resolution; compare halves of --method fbp."
)


@dataclass(frozen=True)
class Request:
    """What the user asked for; see ``cryolithe evaluate --help``."""

    volume: Judged
    reference: Judged | None = None
    halves: tuple[Judged, Judged] | None = None
    mask: Judged | None = None
    tilts: Path | TiltSeries | None = None  # a series has its angles
    angles: Path | None = None
    held_out: str | None = None
    tilt_range_deg: tuple[float, float] | None = None
    particles: Path | Positions | None = None
    kind: str | None = None
    template: Judged | None = None
    particle_diameter_angstrom: float | None = None
    contrast: str | None = None
    crop: bool = False
    keep_sign: bool = False
    is_volume: bool = False


@dataclass(frozen=True)
class Task:
    """Everything that an evaluation needs, checked.

    Attributes:
        volume: to be judged.
        reference: the truth, or a better volume.
        halves: made of different data.
        mask: weights from 0 to 1.
        images: and which of them to compare.
        tilt_range_deg: of the data behind the volume.
        particles: known positions, in voxels of the volume.
        kind: the only kind that the template is.
        template: a map, dense = bright.
        diameter_angstrom: of the particles.
        dark: whether dense matter is dark in the volume.
        crop: compare the common middle of volumes of different shapes.
        keep_sign: leave a reference of the other polarity as it is.
        reference_opposite_z: whether records tell that the z of volume and reference run against each other.
        halves_opposite_z: likewise of the halves.
        notes: what was assumed.
        warnings: what contradicts itself.
    """

    volume: Named
    reference: Named | None
    halves: tuple[Named, Named] | None
    mask: Named | None
    images: Images | None
    tilt_range_deg: tuple[float, float]
    particles: Positions | None
    kind: str | None
    template: Named | None
    diameter_angstrom: float
    dark: bool
    crop: bool
    keep_sign: bool
    reference_opposite_z: bool = False
    halves_opposite_z: bool = False
    notes: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())


def load(request: Request) -> Task:
    """Open and check everything.

    Raises:
        InputError: if a file cannot be used, or two do not fit together.
        SettingsError: if options contradict each other.
    """
    _check_options(request)
    notes: list[str] = []
    warnings: list[str] = []
    record = record_of(request.volume)
    volume = open_volume(request.volume, notes, request.is_volume)
    record = _of_this(record, volume, request.volume, warnings)
    reference = open_volume(request.reference, notes, request.is_volume) if request.reference else None
    if reference and request.reference and is_same(request.reference, request.volume):
        notes.append("The reference is the volume itself: every score is perfect and says nothing.")
    halves = _open_halves(request.halves, (notes, warnings), request.is_volume) if request.halves else None
    for other in (reference, *(halves or ())):
        if other is not None:
            check_fit(volume, other, request.crop)
    mask = _open_mask(request.mask, volume, request.crop) if request.mask else None
    if mask is not None:
        sizes = mask.voxel_size_angstrom, volume.voxel_size_angstrom
        warnings += map(sentence, doubts_about_mask(sizes, (mask.name, volume.name)))
    images = _images(request, record, notes)
    if images:
        check_images(images, volume)
        warnings += [images.choice.warning] if images.choice.warning else []
    return Task(
        volume=volume,
        reference=reference,
        halves=halves,
        mask=mask,
        images=images,
        tilt_range_deg=_tilt_range(request, record, images, notes),
        particles=_particles(request, record, volume, (notes, warnings)),
        kind=request.kind,
        dark=_is_dark(request, record, notes),
        diameter_angstrom=_diameter(request, notes),
        template=open_template(request.template, volume.voxel_size_angstrom, notes) if request.template else None,
        crop=request.crop,
        keep_sign=request.keep_sign,
        reference_opposite_z=request.reference is not None and opposite_z(record, record_of(request.reference)),
        halves_opposite_z=request.halves is not None and opposite_z(*map(record_of, request.halves)),
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def _images(request: Request, record: dict[str, Any], notes: list[str]) -> Images | None:
    if request.tilts is None:
        return None
    if isinstance(request.tilts, TiltSeries):
        return open_images(request.volume, request.tilts, request.held_out, record, notes)
    assert request.angles is not None
    return open_images(request.volume, (request.tilts, request.angles), request.held_out, record, notes)


def _tilt_range(
    request: Request, record: Mapping[str, Any], images: Images | None, notes: list[str]
) -> tuple[float, float]:
    """The tilt range of the data behind the volume, and a note where nobody told it."""
    if request.tilt_range_deg:
        return request.tilt_range_deg
    if used := recorded_angles_deg(record):
        found, source = (min(used), max(used)), "from the volume's sidecar"
    elif images:
        angles, choice = images.series.geometry.angles_deg, images.choice
        kept = [angle for n, angle in enumerate(angles) if not (images.named and n in choice.numbers)]
        found, source = (min(kept), max(kept)), "from the angle file"
    else:
        notes.append("Tilt range of ±60° assumed: there is neither --tilt-range, nor a sidecar, nor --angles.")
        return DEFAULT_TILT_RANGE
    notes.append(f"Tilt range {found[0]:g}° to {found[1]:g}°, {source}.")
    return found


def _particles(
    request: Request, record: Mapping[str, Any], volume: Named, told: tuple[list[str], list[str]]
) -> Positions | None:
    """The known positions in voxels of the volume."""
    given, (notes, warnings) = request.particles, told
    if given is None:
        return None
    found, noted, warned = known_positions(given, request.volume.name, volume.voxels.shape, volume.voxel_size_angstrom)
    notes += [*noted, *turned_told(given, record)]
    warnings += warned
    return found


def _diameter(request: Request, notes: list[str]) -> float:
    """Of the particles, Å."""
    if request.particles and not request.particle_diameter_angstrom:
        notes.append(f"Particle diameter of {DIAMETER_ANGSTROM:g} Å assumed (a ribosome): give --particle-diameter.")
    return request.particle_diameter_angstrom or DIAMETER_ANGSTROM


def open_template(path: Judged, voxel_size_angstrom: float | None, notes: list[str]) -> Named:
    """A map of a particle; one without a voxel size of its own gets that of the volume, which is noted.

    Args:
        path: of the file, or the voxels.
        voxel_size_angstrom: of the volume.
        notes: what was assumed is added.

    Raises:
        InputError: says what is wrong with it.
    """
    found = open_volume(path, notes, True)
    if found.voxel_size_angstrom or not voxel_size_angstrom:
        return found
    notes.append(
        f"The template {found.name} has no voxel size: that of the volume, {voxel_size_angstrom:g} Å, is taken."
    )
    return replace(found, voxel_size_angstrom=voxel_size_angstrom)


def open_volume(path: Judged, notes: list[str], is_volume: bool, otherwise: str = IS_VOLUME) -> Named:
    """Read a volume and refuse stacks of images, and NaN, constant and tiny ones.

    Args:
        path: of the file, or the voxels.
        notes: what was assumed is added.
        is_volume: take it for one, whatever it seems to be.
        otherwise: what to give for a volume that seems to be a stack, see `refuse_stack`.

    Raises:
        InputError: says what is wrong with it.
    """
    if isinstance(path, InHand):
        check_volume(path.voxels, path.name)
        voxels = np.asarray(narrowed(path.voxels), dtype=np.float32)
        return Named(path.name, voxels, path.voxel_size_angstrom, of_network=path.of_network)
    found = open_checked(path, notes, is_volume, otherwise)
    stored = found.voxels()
    check_volume(stored, str(path))
    voxels = np.asarray(narrowed(stored), dtype=np.float32)
    return Named(str(path), voxels, found.voxel_size_angstrom, found.origin_angstrom, found.of_network)


def open_checked(path: Path, notes: list[str], is_volume: bool, otherwise: str = IS_VOLUME) -> VolumeFile:
    """Open the file of a volume, upright; arguments, notes and refusals of what is none as for `open_volume`."""
    found = open_volume_file(path)
    if not is_volume:
        refuse_stack(found, otherwise)
        refuse_map(path, found.labels)
    if found.told.content == "unknown" and not is_volume:
        notes.append(f"{path} was taken for a volume: {found.told.reason}.")
    if found.axes != "zyx":
        told = TURNED.format(path)
        notes.append(f"{told[:1].upper()}{told[1:]}.")
    if found.incomplete:
        notes.append(f"{path}: {found.incomplete}.")
    return upright(found)


def _of_this(record: dict[str, Any], volume: Named, path: Judged, warnings: list[str]) -> dict[str, Any]:
    """The record, or an empty one where its shape or its extremes are not those of the volume."""
    told = record.get("volume", {})
    shape, statistics = told.get("shape_zyx"), told.get("statistics")
    differs = isinstance(shape, list) and sorted(map(str, shape)) != sorted(map(str, volume.voxels.shape))
    if isinstance(statistics, dict) and not differs:
        low, high = statistics.get("minimum"), statistics.get("maximum")
        if isinstance(low, int | float) and isinstance(high, int | float):
            found = float(volume.voxels.min()), float(volume.voxels.max())
            allowed = SAME_VALUES * max(abs(high - low), 1e-30)
            differs = abs(found[0] - low) > allowed or abs(found[1] - high) > allowed
    if not differs:
        return record
    warnings.append(
        f"{record_name(path)} is not the record of this volume (its shape or values differ): it is not used, so "
        "that neither the tilt range nor the images used are known."
    )
    return {}


def release(*volumes: Named | None) -> None:
    """Let go of the pages of files that are mapped into memory; they come back from the file when they are needed.

    Without this a volume that was looked at once counts as memory in use until the end, as batch systems count it.
    """
    for volume in volumes:
        if volume is not None:
            release_pages(volume.voxels)


def check_fit(a: Named, b: Named, crop: bool) -> None:
    """Raise InputError unless two volumes can be compared voxel by voxel."""
    sizes = (a.voxel_size_angstrom, b.voxel_size_angstrom)
    if sizes[0] and sizes[1] and abs(sizes[0] / sizes[1] - 1) > VOXEL_SIZE_TOLERANCE:
        raise InputError(
            f"the volumes differ in voxel size: {a.name} has {sizes[0]:g} Å, {b.name} has {sizes[1]:g} Å; "
            "resample one of them"
        )
    if a.voxels.shape != b.voxels.shape and not crop:
        raise InputError(
            f"the volumes differ in shape (z, y, x): {a.name} has {a.voxels.shape}, {b.name} has {b.voxels.shape}; "
            "give --crop to compare the middle that both have"
        )


def _is_dark(request: Request, sidecar: dict[str, Any], notes: list[str]) -> bool:
    known = request.contrast or sidecar.get("volume", {}).get("contrast")
    if known is None and request.particles:
        notes.append("Dense matter taken to be dark in the volume, as in cryo-EM: --contrast bright for the opposite.")
    return known != "bright"


def _check_options(request: Request) -> None:
    if not isinstance(request.tilts, TiltSeries) and bool(request.tilts) != bool(request.angles):
        raise SettingsError("--tilts and --angles belong together: give both or neither")
    if request.held_out and not request.tilts:
        raise SettingsError("--held-out needs --tilts and --angles")
    if request.template and not request.particles:
        raise SettingsError("--template needs --particles: without known positions there is nothing to count")
    if request.kind and not request.template:
        raise SettingsError("--kind says which of the particles the --template is; give both")
    diameter = request.particle_diameter_angstrom
    if diameter is not None and not 1 <= diameter < 1e6:
        raise SettingsError(f"--particle-diameter: expected a length in Å, at least 1, got {diameter:g}")


def _open_halves(
    paths: tuple[Judged, Judged], told: tuple[list[str], list[str]], is_volume: bool
) -> tuple[Named, Named]:
    notes, warnings = told
    first, second = (open_volume(path, notes, is_volume) for path in paths)
    if first.of_network and second.of_network:
        warnings.append(SHARED_PRIOR)
    same = is_same(*paths)
    if same or (first.voxels.shape == second.voxels.shape and np.array_equal(first.voxels, second.voxels)):
        what = "file" if same and isinstance(paths[0], Path) else "volume"
        raise InputError(
            f"the half maps are the same {what}: {paths[0]} and {paths[1]}; "
            "give reconstructions of the even and of the odd frames (or tilts)"
        )
    return first, second


def _open_mask(path: Judged, volume: Named, crop: bool) -> Named:
    opened = path if isinstance(path, InHand) else upright(open_volume_file(path))
    voxels = opened.voxels if isinstance(opened, InHand) else opened.voxels()
    if not np.isfinite(voxels).all() or voxels.min() < 0:
        raise InputError(f"the mask {path} must hold finite values of 0 or more; 1 keeps a voxel and 0 leaves it out")
    if not voxels.max() > 0:
        raise InputError(f"the mask {path} is 0 in all {voxels.size} voxels, so there is nothing to compare")
    # Masks come as 0 and 1, and as 0 and 255.
    weights = np.asarray(voxels, dtype=np.float32) / np.float32(voxels.max())
    named = Named(str(path), weights, opened.voxel_size_angstrom)
    if weights.shape != volume.voxels.shape and not crop:
        raise InputError(
            f"the mask {path} has the shape (z, y, x) {weights.shape}, but {volume.name} has {volume.voxels.shape}; "
            "give --crop to compare the middle that both have"
        )
    return named
