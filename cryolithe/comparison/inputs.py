"""What is known beside the data: tilt range, voxel size, truth, particles; every misfit is said before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.artefacts.half_agreement import Expected
from cryolithe.comparison.sources import SeriesSource, Source, VolumeSource, shared_per_px
from cryolithe.comparison.value import Setting, Target, Truth
from cryolithe.errors import GeometryError, InputError, SettingsError
from cryolithe.evaluation.comparing import VOXEL_SIZE_TOLERANCE
from cryolithe.evaluation.halves import doubt_about_scales, half_of
from cryolithe.evaluation.heldout import opposite_z
from cryolithe.evaluation.in_hand import Named
from cryolithe.evaluation.inputs import (
    DEFAULT_TILT_RANGE,
    SHARED_PRIOR,
    open_checked,
    open_template,
    open_volume,
)
from cryolithe.evaluation.pair_doubts import Looks, doubts_about
from cryolithe.evaluation.picking import DIAMETER_ANGSTROM
from cryolithe.evaluation.positions import turned_told
from cryolithe.formats.particles.star import read_positions
from cryolithe.formats.record import read_record_beside, recorded_angles_deg
from cryolithe.formats.volumes.volume_file import NAMED_REC
from cryolithe.geometry import check_tilt_range
from cryolithe.metrics import check_volume
from cryolithe.training.class_scoring import SUMMARY
from cryolithe.work.watcher import WARNING

Array = NDArray[Any]
FEWEST_PX, FEWEST_VOXELS = 4.0, 16  # of a particle's diameter; along each axis of a volume
INPUTS = ("truth", "labels", "template", "particles")


@dataclass(frozen=True)
class Seen:
    """What the data say.

    Attributes:
        shape: voxels ``(z, y, x)`` of what is made.
        voxel_size_angstrom: or None.
        tilt_range_deg: lowest and highest tilt.
        tilts: images of the series, or None.
        notes: what was assumed, and how images are corrected.
    """

    shape: tuple[int, int, int]
    voxel_size_angstrom: float | None
    tilt_range_deg: tuple[float, float]
    tilts: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Beside:
    """Everything that the methods are compared under.

    Attributes:
        setting: see there.
        shape: voxels ``(z, y, x)``.
        name: of the data, for titles.
        lines: on the data, for the page.
        notes: what was assumed.
        files: that were named beside the data.
    """

    setting: Setting
    shape: tuple[int, int, int]
    name: str
    lines: tuple[str, ...]
    notes: tuple[str, ...]
    files: Mapping[str, Path]


def look(source: Source, tilt_range: str | None) -> Seen:
    """Shape, voxel size and tilt range.

    Args:
        source: what the user gave.
        tilt_range: what the user says of it, as ``60`` or ``-51,60``.

    Raises:
        CryoLitheError: if the data cannot be read, or do not fit together.
    """
    if isinstance(source, SeriesSource):
        if tilt_range is not None:
            raise SettingsError("--tilt-range is for half volumes; of a series the angles tell it")
        run = source.resolved()
        angles = run.series.geometry.angles_deg
        z, y, x = run.output_shape
        _check_size((z, y, x))
        # z may run the other way than the angles say: the range is that of what is written.
        corrected = tuple(f"{note[:1].upper()}{note[1:]}." for note in run.corrections.notes)
        return Seen((z, y, x), run.voxel_size_angstrom, (min(angles), max(angles)), len(angles), corrected)
    return _look_at_halves(source, tilt_range)


def _look_at_halves(source: VolumeSource, tilt_range: str | None) -> Seen:
    """What two half volumes say; they are opened once, their headers are compared before their voxels are read."""
    notes: list[str] = []
    first, second = (open_checked(path, notes, False, NAMED_REC) for path in source.halves)
    if first.shape != second.shape:
        raise InputError(
            f"the halves differ in shape (z, y, x): {first.path} has {first.shape}, {second.path} has {second.shape}; "
            "give the halves of one tomogram"
        )
    sizes = first.voxel_size_angstrom, second.voxel_size_angstrom
    if sizes[0] and sizes[1] and abs(sizes[0] / sizes[1] - 1) > VOXEL_SIZE_TOLERANCE:
        raise InputError(
            f"the halves differ in voxel size: {first.path} has {sizes[0]:g} Å, {second.path} has {sizes[1]:g} Å"
        )
    one_file = first.path.samefile(second.path)
    voxels = (first.voxels(), second.voxels())
    if one_file or all(map(np.array_equal, *voxels)):  # plane by plane: most differ in the first one
        raise InputError(
            f"{first.path} and {second.path} are the same volume; give reconstructions of the even and of the odd "
            "frames"
        )
    for values, file in zip(voxels, (first, second), strict=True):
        check_volume(values, str(file.path))
    _check_size(first.shape)
    if tilt_range is not None:
        found = parse_range(tilt_range)
    else:
        found, note = _recorded_range(source)
        notes.append(note)
    names = first.path.name, second.path.name
    against = opposite_z(*(read_record_beside(path) for path in source.halves))
    expected = Expected(own_noise=True, opposite_z=against)
    doubts = doubts_about(Looks(voxels, names, expected, tilt_range_deg=found, flag="--tilt-range"))
    halves = half_of(first), half_of(second)
    doubts += doubt_about_scales(halves, names)
    notes += [half.note for half in halves if half.note]
    shared = [SHARED_PRIOR] if first.of_network and second.of_network else []
    return Seen(first.shape, sizes[0], found, None, (*shared, *notes, *(f"{WARNING}{line}." for line in doubts)))


def parse_range(text: str) -> tuple[float, float]:
    """The tilt range that a user wrote.

    Raises:
        SettingsError: if it is none.
    """
    try:
        numbers = [float(part) for part in text.replace("−", "-").replace("±", "").replace("°", "").split(",")]
        low, high = (-abs(numbers[0]), abs(numbers[0])) if len(numbers) == 1 else numbers
        check_tilt_range((low, high))
    except (ValueError, GeometryError) as error:
        raise SettingsError(
            f"--tilt-range: expected degrees within ±90 such as 60 (for ±60°) or -51,49, got '{text}'"
        ) from error
    return low, high


def _recorded_range(source: VolumeSource) -> tuple[tuple[float, float], str]:
    if angles := recorded_angles_deg(read_record_beside(source.halves[0])):
        low, high = min(angles), max(angles)
        if -90 <= low < high <= 90:
            return (low, high), f"Tilt range {low:g}° to {high:g}°, from the record of {source.halves[0].name}."
    return DEFAULT_TILT_RANGE, "Tilt range of ±60° assumed, as neither --tilt-range nor a record tells it."


def _check_size(shape: tuple[int, ...]) -> None:
    if min(shape) < FEWEST_VOXELS:
        raise InputError(
            f"a volume of {' x '.join(map(str, shape))} voxels (z, y, x) is too small to compare methods on; expected "
            f"{FEWEST_VOXELS} or more along each axis (--thickness, --bin)"
        )


def known_beside(source: Source, seen: Seen, options: Mapping[str, Any], contrast: str) -> Beside:
    """Truth and particles, checked against the data.

    Args:
        source: what the user gave.
        seen: what the data say.
        options: truth, labels, template, particles, kind, particle_diameter; None where not given.
        contrast: auto, dark or bright.

    Raises:
        InputError: if one does not fit.
        SettingsError: if options contradict each other.
    """
    notes = list(seen.notes)
    truth = _truth(options, seen, notes)
    target = _target(source, seen, options, (contrast, notes))
    split = source.split if isinstance(source, SeriesSource) else "volumes"
    shared = shared_per_px(source, seen.shape[0])
    if shared is not None and seen.voxel_size_angstrom:
        notes.append(
            "No halves of frames: every other tilt is a half. Shells finer than "
            f"{seen.voxel_size_angstrom / shared:.3g} Å are left out, where neighbouring tilts share "
            f"nothing in a volume {seen.shape[0]} voxels thick."
        )
    setting = Setting(seen.tilt_range_deg, split, seen.voxel_size_angstrom, shared, truth, target)
    size = f"{seen.voxel_size_angstrom:.4g} Å voxels" if seen.voxel_size_angstrom else "unknown voxel size"
    low, high = seen.tilt_range_deg
    halves = {
        "frames": "even and odd frames",
        "tilts": "even and odd tilts",
        "volumes": "two volumes",
    }
    tilts = f"{seen.tilts} tilts" if seen.tilts else "tilt range"
    lines = (
        ", ".join(str(path) for name, path in source.files.items() if "angles" not in name),
        f"{' × '.join(map(str, seen.shape))} (z, y, x), {size}; {tilts} {low:g}° to {high:g}°; "
        f"halves: {halves[split]}.",
    )
    files = {name: options[name] for name in INPUTS if options.get(name) is not None}
    return Beside(setting, seen.shape, source.name, lines, tuple(notes), files)


def _fits(named: Named, seen: Seen, what: str) -> None:
    if named.voxels.shape != seen.shape:
        raise InputError(
            f"{what} {named.name} has the shape (z, y, x) {named.voxels.shape}, the volumes have {seen.shape}; they "
            "have to show the same voxels (--thickness, --bin)"
        )


def _truth(options: Mapping[str, Any], seen: Seen, notes: list[str]) -> Truth | None:
    if options.get("truth") is None:
        if options.get("labels") is not None:
            raise SettingsError("--labels goes with --truth: classes of voxels alone tell nothing")
        return None
    truth = open_volume(options["truth"], notes, True)
    _fits(truth, seen, "the truth")
    if options.get("labels") is None:
        return Truth(truth.voxels)
    labels = open_volume(options["labels"], notes, True)
    _fits(labels, seen, "the labels")
    return Truth(truth.voxels, np.rint(labels.voxels).astype(np.int16), SUMMARY)


def _made_as(source: Source) -> dict[str, Any]:
    """The record of the volumes that are compared, or what it will tell of the sense of z."""
    if isinstance(source, VolumeSource):
        return read_record_beside(source.halves[0])
    return {"geometry": {"handedness": source.settings.handedness, "flip_z": source.settings.flip_z}}


def _target(source: Source, seen: Seen, options: Mapping[str, Any], told: tuple[str, list[str]]) -> Target | None:
    contrast, notes = told
    template, particles = options.get("template"), options.get("particles")
    if template is None and particles is None:
        if options.get("kind") is not None or options.get("particle_diameter") is not None:
            raise SettingsError("--kind and --particle-diameter go with --template and --particles")
        return None
    if template is None or particles is None:
        raise SettingsError("--template and --particles belong together: a map, and where its particles are")
    voxel = seen.voxel_size_angstrom
    if voxel is None:
        mend = "give --pixel-size" if isinstance(source, SeriesSource) else "write it into the headers of the halves"
        raise InputError(f"the voxel size is not known, so that a template has no size either; {mend}")
    diameter = options.get("particle_diameter")
    if diameter is None:
        diameter = DIAMETER_ANGSTROM
        notes.append(f"Particle diameter of {diameter:g} Å assumed (a ribosome): give --particle-diameter.")
    if not FEWEST_PX * voxel <= diameter <= min(seen.shape) * voxel:
        raise InputError(
            f"a particle of {diameter:g} Å is {diameter / voxel:.1f} voxels wide; expected {FEWEST_PX:g} to "
            f"{min(seen.shape)} (--particle-diameter)"
        )
    opened = open_template(template, voxel, notes)
    size = opened.voxel_size_angstrom or voxel
    extent = min(opened.voxels.shape) * size
    if extent > max(seen.shape) * voxel:
        raise InputError(
            f"the template {template} is {extent:.0f} Å wide, more than the volume ({max(seen.shape) * voxel:.0f} Å); "
            "give a map of one particle, with its voxel size in the header"
        )
    positions = read_positions(particles, seen.shape, voxel, source.name)
    places, inside = positions.position_px, positions.inside(seen.shape)
    notes += [*positions.notes, *positions.outside_told(seen.shape), *turned_told(particles, _made_as(source))]
    if options.get("kind") is not None:
        of_kind = np.array([kind == options["kind"] for kind in positions.kinds])
        if not of_kind.any():
            names = ", ".join(sorted(set(positions.kinds))[:6])
            raise InputError(f"{particles} holds no particle of the kind '{options['kind']}'; there are {names}")
        inside &= of_kind
    if not inside.any():
        raise InputError(
            f"none of the {len(places)} particles of {particles} lies in the volume of "
            f"{' x '.join(map(str, seen.shape))} voxels of {voxel:g} Å; do they belong to it?"
        )
    dark = contrast != "bright"
    recorded = read_record_beside(source.halves[0]).get("volume", {}) if isinstance(source, VolumeSource) else {}
    if contrast == "auto":
        dark = recorded.get("contrast") != "bright"
        if recorded.get("contrast") is None:
            notes.append("Dense matter taken to be dark, as in cryo-EM: --contrast bright for the opposite.")
    return Target(opened.voxels, voxel / size, places[inside], float(diameter), dark)
