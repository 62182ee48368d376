"""What is to be denoised by Samba: a volume, and the choices that the method has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cryolithe.denoising.job import Item, Job
from cryolithe.denoising.output import Target, choose_target
from cryolithe.denoising.samba.blocks import Source
from cryolithe.denoising.samba.gaps import fitting_gap, gaps_of, training_gap
from cryolithe.denoising.scale import describe_planes, survey
from cryolithe.errors import InputError, SettingsError
from cryolithe.files.hashing import file_sha256
from cryolithe.formats.reading import file_state
from cryolithe.formats.record import source_of
from cryolithe.formats.volumes.volume_file import VolumeFile, open_unturned
from cryolithe.work.watcher import Watcher

CPU_MINUTES = 30.0
SMALLEST_CROP = 64


@dataclass(frozen=True, kw_only=True)
class SambaJob(Job):
    """Files and choices of one denoising by Samba.

    Attributes:
        lmax: largest gap of inference; None: from the voxel size.
        voxel_size: in Å, wins over the file's in choosing Lmax.
        augment: mean over four flips.
        keep_low: keep the low frequencies of the input.
        crop: side of the squares; None: 256 (training on a CPU: 128).
        halves: volumes of even and odd images, for the guard.
        lmax_sweep: panel to write instead of denoising.
        size: of the network, a name of `cryolithe.denoising.samba.model.SIZES`.
    """

    lmax: int | None = None
    voxel_size: float | None = None
    augment: bool = False
    keep_low: bool = True
    crop: int | None = None
    halves: tuple[Path, Path] | None = None
    lmax_sweep: Path | None = None
    size: str = "published"

    @property
    def volume(self) -> Path:
        """The input."""
        return self.items[0].inputs["volume"]

    @property
    def choices(self) -> dict[str, Any]:
        """What decides the result beside the volume, as plain values for the record; weights by their content."""
        model = None if self.model is None else file_sha256(self.model)
        names = (
            "train_minutes",
            "lmax",
            "voxel_size",
            "augment",
            "keep_low",
            "crop",
            "batch",
            "fix_nonfinite",
            "seed",
            "size",
        )
        return {"model_sha256": model, "size": self.size, **{name: getattr(self, name) for name in names}}

    @property
    def idle(self) -> dict[str, str]:
        """See `Job.idle`."""
        found = super().idle
        if self.model is not None:
            found["size"] = "is for a network that begins anew: the one of --model has its own; leave it out"
        if self.lmax_sweep is not None:
            why = "has no part in --lmax-sweep, which denoises a small part only; leave it out"
            found |= dict.fromkeys(("report", "half1", "half2", "keep_low"), why)
        return found

    @property
    def read(self) -> tuple[Path, ...]:
        """All files that are read."""
        return (*super().read, *(self.halves or ()))

    @property
    def written(self) -> tuple[Path, ...]:
        """All files that are written, and must not be there before."""
        if self.lmax_sweep is None:
            return super().written
        return (self.lmax_sweep, *([self.weights] if self.trains else []))

    @property
    def figures(self) -> tuple[tuple[Path, str], ...]:
        """Pictures to write, with the options that name them."""
        return (*super().figures, *([(self.lmax_sweep, "--lmax-sweep")] if self.lmax_sweep else []))

    def limit_seconds(self, device: torch.device) -> float:
        """Time for the training."""
        if self.train_minutes is not None:
            return 60 * self.train_minutes
        return 60 * CPU_MINUTES if device.type == "cpu" else math.inf


@dataclass(frozen=True)
class Resolved:
    """A job whose input is known.

    Attributes:
        job: the choices.
        source: the volume, its grey scale and usable planes.
        target: what is written.
        gaps: largest ones of training and inference.
    """

    job: SambaJob
    source: Source
    target: Target
    gaps: tuple[int, int]
    warnings: tuple[str, ...] = ()  # of the only item: those of the job are its own

    @property
    def item(self) -> Item:
        """What is made of what."""
        return self.job.items[0]

    @property
    def volume(self) -> VolumeFile:
        """The input."""
        return self.source.volume

    @property
    def voxel_size_angstrom(self) -> float | None:
        """Of the user, or of the file."""
        return self.job.voxel_size or self.volume.voxel_size_angstrom

    def record(self) -> dict[str, Any]:
        """What the record tells of the input."""
        return {
            "input": {
                "path": self.job.volume,
                "fingerprint": self.source.fingerprint(),
                "notes": self.volume.notes,
            },
            "source": source_of([self.job.volume]),
        }


def resolve(job: SambaJob, watcher: Watcher) -> Resolved:
    """Open the volume, look at all of it, choose what was left open; say what was decided.

    Raises:
        InputError: if the volume cannot be used.
        OutputError: if the output cannot be written.
        SettingsError: if crops are to be too small.
    """
    volume = open_unturned(job.volume, job.is_volume)
    if volume.told.content == "unknown" and not job.is_volume:
        raise InputError(
            f"{job.volume} does not say whether it is a volume or a stack of images (space group 0); if its "
            f"{volume.shape[0]} sections are the z planes of a volume, give --is-volume"
        )
    target = choose_target(volume, job.items[0].output)
    for note in (*(f"Note on {job.volume.name}: {text}" for text in volume.notes), target.note):
        if note:
            watcher.note(note)
    if volume.of_network:
        watcher.note(
            f"Warning: {job.volume.name} was made by a network, which leaves hardly any independent noise: denoising "
            "it costs detail (benchmarks/README.md) and is meant for volumes of --method fbp or sirt"
        )
    source = look(volume, job.fix_nonfinite, watcher)
    planes = int(source.survey.usable.sum())
    if planes < 3:
        raise InputError(f"{job.volume} has {planes} planes with content along z; at least 3 are needed")
    size = job.voxel_size or volume.voxel_size_angstrom
    if size is None and job.lmax is None:
        watcher.note(
            "The voxel size is unknown: Lmax is chosen for a large one (3 in training, 6 in inference); give "
            "--voxel-size or --lmax"
        )
    gaps = gaps_of(job.lmax, size, planes)
    wished = 2 * training_gap(size) if job.lmax is None else job.lmax
    if gaps[1] < wished:
        watcher.note(
            f"Lmax {wished} needs {2 * wished + 1} planes, there are {planes}: reduced to {gaps[1]} (at most "
            f"{fitting_gap(planes)} fits)"
        )
    if job.crop is not None and job.crop < SMALLEST_CROP:
        raise SettingsError(f"--crop: expected at least {SMALLEST_CROP} pixels, got {job.crop}")
    return Resolved(job, source, target, gaps)


def look(volume: VolumeFile, repair: bool, watcher: Watcher) -> Source:
    """Survey a volume.

    Raises:
        InputError: if it has no content, or NaN that is not to be repaired.
    """
    watcher.stage(f"Looking at {volume.path.name}", volume.shape[0])
    state = file_state(volume.path)
    found = survey(volume.read, volume.shape[0], repair, str(volume.path), lambda: watcher.advance(1))
    if found.repaired:
        watcher.note(f"{found.repaired} voxels that are not finite are taken for the median.")
    constant = describe_planes(found.usable)
    if constant:
        watcher.note(constant[0].upper() + constant[1:])
    return Source(volume, found, state)
