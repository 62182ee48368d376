"""``cryolithe.evaluate``: how good is a tomogram, by every test that the data at hand allow?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from cryolithe.arrays.narrow import narrowed
from cryolithe.arrays.spectra import transforming
from cryolithe.errors import InputError, SettingsError
from cryolithe.evaluation.evaluate import Evaluation
from cryolithe.evaluation.evaluate import evaluate as evaluated
from cryolithe.evaluation.in_hand import InHand, Judged
from cryolithe.evaluation.inputs import Request, load
from cryolithe.evaluation.on_device import transforms_on
from cryolithe.formats import read_angles_deg, read_mrc
from cryolithe.formats.particles.star import Positions
from cryolithe.geometry import TiltGeometry, check_angles_deg
from cryolithe.library.arrays import Files, array_of, is_path, numbers_of, path_of
from cryolithe.library.correlating import tilt_range_of
from cryolithe.library.undisturbed import undisturbed
from cryolithe.library.volumes import Volume, refuse_unknown, volume_of
from cryolithe.library.watching import Heard
from cryolithe.machine.device import choose_device
from cryolithe.tilts import TiltSeries

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cryolithe.library.arrays import Angles, Array
    from cryolithe.library.volumes import VolumeLike


class Choices(TypedDict, total=False):
    """What is seldom said; as the flags of ``cryolithe evaluate``, with ``_`` for ``-``."""

    held_out: str | Sequence[int] | None
    tilt_range: float | Sequence[float] | str | None
    particles: Files | Array | None
    template: VolumeLike | None
    kind: str | None
    particle_diameter: float | None
    contrast: Literal["dark", "bright"] | None
    crop: bool
    keep_sign: bool
    device: str


@undisturbed
def evaluate(
    volume: VolumeLike,
    voxel_size_angstrom: float | None = None,
    *,
    reference: VolumeLike | None = None,
    halves: tuple[VolumeLike, VolumeLike] | None = None,
    mask: VolumeLike | None = None,
    tilts: Array | Files | None = None,
    angles_deg: Angles | Files | None = None,
    **choices: Unpack[Choices],
) -> Evaluation:
    """Score a tomogram: the numbers that ``cryolithe evaluate`` writes.

    Args:
        volume: to be judged ``(z, y, x)``: `Volume`, array, tensor, or path.
        voxel_size_angstrom: edge of a voxel of it, in place of what it says.
        reference: the truth, or a better volume, of the same shape.
        halves: reconstructions of the even and of the odd frames or tilts.
        mask: weights: 1 keeps a voxel, 0 leaves it out.
        tilts: aligned images ``(tilt, y, x)``, for the comparison with projections.
        angles_deg: their tilt angles.
        choices: ``held_out`` (``"beyond 50"`` or numbers of images from 1), ``tilt_range`` (degrees), ``particles``
            (STAR file, or positions ``(N, 3)`` as z, y, x in voxels), ``template`` (map, dense = bright), ``kind``,
            ``particle_diameter`` (Å), ``contrast``, ``crop``, ``keep_sign``, ``device``.

    Returns:
        all scores; None where a test was not made, with the reason in ``skipped``. It has ``notes`` of what was
        assumed, and ``warnings``, which are also raised as CryoLitheWarning.

    Raises:
        InputError: if something cannot be used, or two things do not fit together.
        SettingsError: if choices contradict each other.

    >>> import cryolithe
    >>> series = cryolithe.simulate(shape=(16, 32, 32))
    >>> volume = cryolithe.fbp(series.tilts, series.angles_deg, series.voxel_size_angstrom)
    >>> found = cryolithe.evaluate(volume, reference=series.truth)
    >>> found.reference.polarity, 0 < found.reference.curves.mean["total"] < 1
    ('same', True)
    """
    refuse_unknown(choices, frozenset(Choices.__annotations__), "cryolithe.evaluate")
    held_out = choices.get("held_out")
    if held_out is not None and not isinstance(held_out, str):
        held_out = ",".join(str(int(number)) for number in held_out)
    tilt_range, diameter = choices.get("tilt_range"), choices.get("particle_diameter")
    if diameter is not None and not math.isfinite(diameter):
        raise SettingsError(f"particle_diameter: expected a length in Å, got {diameter!r}")
    contrast = choices.get("contrast")
    if contrast not in (None, "dark", "bright"):
        raise SettingsError(f"contrast: expected 'dark' or 'bright', got {contrast!r}")
    if halves is not None and (is_path(halves) or len(halves) != 2):
        raise InputError("halves: expected a pair of volumes, of the even and of the odd frames or tilts")
    if (tilts is None) != (angles_deg is None):
        raise SettingsError("tilts and angles_deg belong together: give both or neither")
    template = choices.get("template")
    device = choose_device(choices.get("device", "auto"))
    heard = Heard()
    judged = _judged(volume, "volume", heard, voxel_size_angstrom)
    request = Request(
        judged,
        None if reference is None else _judged(reference, "reference", heard),
        None if halves is None else (_judged(halves[0], "half 1", heard), _judged(halves[1], "half 2", heard)),
        None if mask is None else _judged(mask, "mask", heard),
        None if tilts is None else _series(tilts, angles_deg),
        held_out=held_out,
        tilt_range_deg=None if tilt_range is None else tilt_range_of(tilt_range, "tilt_range"),
        particles=_particles(choices.get("particles")),
        kind=choices.get("kind"),
        template=None if template is None else _judged(template, "template", heard),
        particle_diameter_angstrom=diameter,
        contrast=contrast,
        crop=bool(choices.get("crop", False)),
        keep_sign=bool(choices.get("keep_sign", False)),
        is_volume=not is_path(volume),
    )
    with transforming(transforms_on(device, heard.note)):
        found, _ = evaluated(load(request))
    heard.warnings += found.warnings
    heard.warn()
    return replace(found, notes=(*heard.notes, *found.notes))


def _judged(value: VolumeLike, name: str, heard: Heard, voxel_size_angstrom: float | None = None) -> Judged:
    """A path as it is, so that the file's own record and name count; else the volume in hand."""
    if is_path(value) and voxel_size_angstrom is None:
        return path_of(value, name)  # type: ignore[arg-type]
    found: Volume = volume_of(value, name, voxel_size_angstrom)
    named = str(value) if is_path(value) else name
    for text in found.notes if is_path(value) else ():
        heard.note(f"{text}.")
    return InHand(named, found.voxels, found.voxel_size_angstrom, found.record, found.of_network)


def _series(tilts: Any, angles_deg: Any) -> TiltSeries:
    """Images in the host's memory, or mapped from a file."""
    angles = read_angles_deg(path_of(angles_deg, "angles_deg")) if is_path(angles_deg) else None
    numbers = angles if angles is not None else numbers_of(angles_deg, "angles_deg")
    if is_path(tilts):
        mrc = read_mrc(path_of(tilts, "tilts"))
        images, size = mrc.data, mrc.voxel_size_angstrom
    else:
        images, size = narrowed(array_of(tilts, "tilts", "tilt, y, x")), None
    if images.ndim != 3 or len(images) != len(numbers):
        raise InputError(f"tilts of shape {images.shape} do not fit {len(numbers)} angles; give one for each image")
    check_angles_deg(tuple(numbers))
    geometry = TiltGeometry(tuple(numbers), (images.shape[1], images.shape[2]))
    return TiltSeries(images, geometry, size)


def _particles(given: Any) -> Path | Positions | None:
    if given is None:
        return None
    if is_path(given):
        return path_of(given, "particles")
    places = array_of(given, "particles", "particle, zyx").astype(np.float64)
    if places.shape[1] != 3 or not np.isfinite(places).all():
        raise InputError(f"particles: expected finite positions (N, 3) as z, y, x in voxels, got shape {places.shape}")
    return Positions(places, ("",) * len(places))
