"""What is denoised: two halves or one whole volume, opened and looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median_low
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.artefacts.faces import ReadPlanes, filled_doubt, filled_outside
from cryolithe.denoising.job import Item
from cryolithe.denoising.n2n.halves import MOST_APART, Half, HalfPair, contrast_of, open_half, open_pair
from cryolithe.denoising.n2n.job import N2nJob
from cryolithe.denoising.output import Target, choose_target
from cryolithe.denoising.scale import GreyScale
from cryolithe.errors import InputError
from cryolithe.formats.record import source_of
from cryolithe.formats.volumes.int8 import Int8Scale
from cryolithe.formats.volumes.int8_files import known_scale_of
from cryolithe.formats.volumes.volume_file import VolumeFile, open_volume_file
from cryolithe.work.watcher import Listening, Watcher

Array = NDArray[np.float32]


@dataclass(frozen=True)
class N2nView:
    """An item whose inputs are known.

    Attributes:
        item: what is made of what.
        halves: one (a whole volume) or two.
        pair: the two, or None.
        target: what is written.
        warnings: what speaks against its inputs.
        scales: of the halves, where these are 8-bit values and both tell; else empty.
    """

    item: Item
    halves: tuple[Half, ...]
    pair: HalfPair | None
    target: Target
    warnings: tuple[str, ...] = ()
    scales: tuple[Int8Scale, ...] = ()

    @property
    def volume(self) -> VolumeFile:
        """The first of the inputs."""
        return self.halves[0].volume

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels ``(z, y, x)``."""
        return self.volume.shape

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Of the first input."""
        return self.volume.voxel_size_angstrom

    def mean_box(self, place: tuple[slice, slice, slice]) -> Array:
        """Mean of the standardised halves in a box."""
        total = sum(half.box(place) for half in self.halves)
        return np.asarray(total / np.float32(len(self.halves)), np.float32)

    def undone(self, values: Array) -> NDArray[Any]:
        """Standardised values in grey levels: mean centre and mean unit of the halves, in the wider of their types."""
        unit = sum(half.unit for half in self.halves) / len(self.halves)
        centre = sum(half.survey.scale.centre for half in self.halves) / len(self.halves)
        return GreyScale(centre, unit, np.result_type(*(half.survey.scale.dtype for half in self.halves))).undo(values)

    def filled(self, z: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Where a plane has one value from its edges on in all halves, and the mean of their grey levels."""
        planes = [half.levels(z) for half in self.halves]
        where = np.logical_and.reduce([filled_outside(plane) for plane in planes])
        if self.target.scale and len(set(self.scales)) > 1:  # the result's values of their densities
            own = self.target.scale
            planes = [(s.densities(p) - own.offset) / own.step for s, p in zip(self.scales, planes, strict=True)]
        return where, np.asarray(sum(planes) / np.float32(len(planes)))

    def record(self) -> dict[str, Any]:
        """What the record tells of the halves."""
        source = source_of([half.volume.path for half in self.halves])
        if self.pair is None:
            return {"source": source, "halves": None}
        return {"source": source, "halves": {**asdict(self.pair.found), "warnings": self.pair.warnings}}


def check_together(job: N2nJob) -> None:
    """Refuse to train one network on volumes of different voxel sizes or contrasts; headers and records are read.

    Raises:
        InputError: names the volume that differs from most.
    """
    if not job.trains or len(job.items) < 2:
        return
    first = {item.names: next(iter(item.inputs.values())) for item in job.items}
    contrasts = {contrast: names for names, path in first.items() if (contrast := contrast_of(path))}
    if len(contrasts) > 1:
        told = "; ".join(f"{names}: {contrast}" for contrast, names in contrasts.items())
        raise InputError(
            f"the volumes differ in contrast by their records ({told}); a network learns one: reconstruct all with the "
            "same --contrast, or denoise them apart"
        )
    sizes = {names: open_volume_file(path).voxel_size_angstrom for names, path in first.items()}
    known = [size for size in sizes.values() if size]
    if not known:
        return
    usual = median_low(known)
    for names, size in sizes.items():
        if size and not 1 / MOST_APART <= size / usual <= MOST_APART:
            raise InputError(
                f"{names} have voxels of {size:g} Å, others {usual:g} Å: a network learns details of one scale; train "
                "on volumes within 10 % of each other, and denoise the rest apart"
            )


def look(job: N2nJob, item: Item, watcher: Watcher) -> N2nView:
    """Open the inputs of an item, look at all of them, say what was found.

    Raises:
        CryoLitheError: if they cannot be used.
    """
    heard = Listening(watcher)
    warnings: tuple[str, ...] = ()
    paths = tuple(item.inputs.values())
    which = "the halves" if len(job.items) == 1 else " and ".join(path.name for path in paths)
    heard.stage(f"Looking at {which if len(paths) > 1 else paths[0].name}", 1)
    pair: HalfPair | None = None
    if len(paths) == 1:
        halves: tuple[Half, ...] = (open_half(paths[0], job.is_volume, job.fix_nonfinite),)
    else:
        pair = open_pair(paths[0], paths[1], job.is_volume, job.fix_nonfinite)
        halves, warnings = (pair.first, pair.second), pair.warnings
    heard.advance(1)
    for half in halves:
        warnings += filled_doubt(ReadPlanes(half.volume.read, half.volume.shape[0]), half.volume.path.name)
        for text in half.volume.notes:
            heard.note(f"Note on {half.volume.path.name}: {text}")
        if half.survey.repaired:
            heard.note(
                f"{half.volume.path.name}: {half.survey.repaired} voxels that are not finite are taken for the median."
            )
        if half.volume.of_network:
            heard.note(
                f"Warning: {half.volume.path.name} was made by a network, which leaves hardly any independent noise: "
                "Noise2Noise is meant for halves of --method fbp or sirt"
            )
    for text in warnings:
        heard.note(f"Warning: {text}")
    target, scales = choose_target(halves[0].volume, item.output), _scales(halves)
    if target.dtype == np.int8:
        target = replace(target, scale=common_scale(halves, scales) if scales else None)
    if target.note:
        heard.note(target.note)
    return N2nView(item, halves, pair, target, tuple(heard.warnings), scales)


def _scales(halves: Sequence[Half]) -> tuple[Int8Scale, ...]:
    """The scales of 8-bit halves; none where one does not tell, or is of another type."""
    found = [known_scale_of(half.volume) for half in halves]
    known = tuple(scale for scale in found if scale is not None)
    return known if len(known) == len(halves) else ()


def common_scale(halves: Sequence[Half], scales: Sequence[Int8Scale]) -> Int8Scale:
    """What values stand for that have the mean centre and the mean unit of halves (`N2nView.undone`).

    Standardised values are those of the mean density where its centre and its unit are the means of those of the
    halves' densities.

    Args:
        halves: one or two.
        scales: of their values.
    """
    if len(set(scales)) == 1:
        return scales[0]
    pairs = list(zip(halves, scales, strict=True))
    centre = float(np.mean([half.survey.scale.centre for half in halves]))
    unit = float(np.mean([half.unit for half in halves]))
    step = float(np.mean([scale.step * half.unit for half, scale in pairs])) / unit
    density = float(np.mean([scale.offset + scale.step * half.survey.scale.centre for half, scale in pairs]))
    return Int8Scale(density - step * centre, step)
