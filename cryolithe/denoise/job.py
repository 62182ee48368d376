"""What is to be denoised: files and choices, checked before any work."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cryolithe.denoise.beside import Beside
from cryolithe.denoise.blocks import Source
from cryolithe.denoise.figures import check_figure_name
from cryolithe.denoise.gaps import fitting_gap, gaps_of, training_gap
from cryolithe.denoise.output import Target, choose_target
from cryolithe.denoise.scale import describe_planes, survey
from cryolithe.errors import InputError, OutputError, SettingsError
from cryolithe.formats.record import changed_input, read_record_beside
from cryolithe.formats.volume_file import VolumeFile, open_volume_file
from cryolithe.formats.volume_kind import stack_refusal
from cryolithe.hashing import file_sha256
from cryolithe.work.watcher import Watcher

CPU_MINUTES = 30.0
SMALLEST_CROP = 64


@dataclass(frozen=True)
class DenoiseJob(Beside):
    """Files and choices of one denoising.

    Attributes:
        volume: input.
        output: to write.
        model: weights to use instead of training; with ``train_minutes`` those to start from.
        train_minutes: limit of the training; None: 30 minutes on a CPU, early stop on a GPU.
        lmax: largest gap of inference; None: from the voxel size.
        voxel_size: in Å, wins over the file's in choosing Lmax.
        augment: mean over four flips.
        keep_low: keep the low frequencies of the input.
        crop: side of the squares; None: 256 (training on a CPU: 128).
        batch: triplets of a training step; None: from memory.
        halves: volumes of even and odd images, for the guard.
        report: figure to write.
        sweep: panel to write instead of denoising.
        is_volume: the input is a volume even if its file may be a stack.
        fix_nonfinite: take NaN and Inf for the median.
        resume: go on with an interrupted run.
        overwrite: replace existing files.
        seed: of the training.
        size: of the network, a name of `cryolithe.denoise.model.SIZES`.
    """

    volume: Path
    output: Path
    model: Path | None = None
    train_minutes: float | None = None
    lmax: int | None = None
    voxel_size: float | None = None
    augment: bool = False
    keep_low: bool = True
    crop: int | None = None
    batch: int | None = None
    halves: tuple[Path, Path] | None = None
    report: Path | None = None
    sweep: Path | None = None
    is_volume: bool = False
    fix_nonfinite: bool = False
    resume: bool = False
    overwrite: bool = False
    seed: int = 0
    size: str = "published"

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

    job: DenoiseJob
    source: Source
    target: Target
    gaps: tuple[int, int]


def made_before(job: DenoiseJob) -> str | None:
    """Whether the output was made of this very volume with these choices: what differs, in words, or None.

    Raises:
        InputError: if the volume cannot be read.
    """
    record = read_record_beside(job.output)
    if not record:
        return "it has no record of how it was made"
    if changed_input(record, {"volume": job.volume}):
        return f"it was made of another {job.volume.name} than the one that is there now"
    before = record.get("choices")
    before = before if isinstance(before, dict) else {}
    for name, value in job.choices.items():
        if name not in before or before[name] != value:
            return f"it was made with other settings ({name.replace('_', '-')} {before.get(name)} instead of {value})"
    return None


def check_paths(job: DenoiseJob) -> None:
    """Refuse names that are taken or cannot be written.

    Raises:
        OutputError: says which and what to do.
    """
    parent = job.output.parent
    if not parent.is_dir():
        raise OutputError(f"the output folder {parent} does not exist; make it first or choose another -o")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"the output folder {parent} is not writable; choose another -o")
    for path, option in ((job.report, "--report"), (job.sweep, "--lmax-sweep")):
        if path is not None:
            check_figure_name(path, option)
    inputs = [path for path in (job.volume, job.model, *(job.halves or ())) if path is not None and path.exists()]
    made = [job.output, job.sidecar, job.report, *([job.weights] if job.trains else [])]
    written = [job.sweep] if job.sweep else [path for path in made if path is not None]
    if job.sweep and job.trains:
        written.append(job.weights)
    for path in written:
        if path.exists() and any(path.samefile(used) for used in inputs):
            raise OutputError(f"{path} is an input of this run; choose another name with -o")
        kept = job.resume and path == job.weights
        if path.exists() and not (job.overwrite or kept):
            hint = " (--model uses trained weights)" if path == job.weights else ""
            raise OutputError(f"{path} exists; give --overwrite to replace it{hint}, or another name with -o")
    state = job.state
    if job.trains and state.exists() and not (job.resume or job.overwrite):
        raise OutputError(
            f"{job.folder} holds an earlier training; give --resume to go on or --overwrite to start anew"
        )


def resolve(job: DenoiseJob, watcher: Watcher) -> Resolved:
    """Open the volume, look at all of it, choose what was left open; say what was decided.

    Raises:
        InputError: if the volume cannot be used.
        OutputError: if the output cannot be written.
    """
    volume = open_volume_file(job.volume)
    if volume.told.content == "stack" and not job.is_volume:
        raise stack_refusal(job.volume, volume.told)
    if volume.told.content == "unknown" and not job.is_volume:
        raise InputError(
            f"{job.volume} does not say whether it is a volume or a stack of images (space group 0); if its "
            f"{volume.shape[0]} sections are the z planes of a volume, give --is-volume"
        )
    target = choose_target(volume, job.output)
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
    found = survey(volume.read, volume.shape[0], repair, str(volume.path), lambda: watcher.advance(1))
    if found.repaired:
        watcher.note(f"{found.repaired} voxels that are not finite are taken for the median.")
    constant = describe_planes(found.usable)
    if constant:
        watcher.note(constant[0].upper() + constant[1:])
    return Source(volume, found)
