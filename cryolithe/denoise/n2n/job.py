"""What is to be denoised by Noise2Noise: files and choices, checked before any work."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cryolithe.denoise.beside import Beside
from cryolithe.denoise.figures import check_figure_name
from cryolithe.denoise.n2n.losses import LossName
from cryolithe.denoise.n2n.network import BACKBONES
from cryolithe.denoise.output import default_output
from cryolithe.errors import InputError, OutputError
from cryolithe.hashing import file_sha256

SUFFIX = "_n2n"
CPU_MINUTES, GPU_MINUTES = 10.0, 5.0
DEFAULT_BACKBONE = {"cpu": "unet-small", "cuda": "unet"}
_HALF = re.compile(r"[_.-](evn|even|odd|half[_-]?[12])(?=$|[_.-])", re.IGNORECASE)


@dataclass(frozen=True)
class N2nJob(Beside):
    """Files and choices of one denoising by Noise2Noise.

    Attributes:
        halves: volumes of even and of odd images or frames; or one whole volume, with ``model`` alone.
        output: to write.
        model: weights to use instead of training; with ``train_minutes`` those to start from.
        train_minutes: limit of the training; None: 10 minutes on a CPU, 5 on a GPU.
        backbone: name of `BACKBONES`; None: by the device.
        loss: that is minimised; None: l2.
        batch: patches of a training step; None: by the device.
        report: figure to write.
        is_volume: the inputs are volumes even if their files may be stacks.
        fix_nonfinite: take NaN and Inf for the median.
        resume: go on with an interrupted run.
        overwrite: replace existing files.
        seed: of the training.
    """

    halves: tuple[Path, ...]
    output: Path
    model: Path | None = None
    train_minutes: float | None = None
    backbone: str | None = None
    loss: LossName | None = None
    batch: int | None = None
    report: Path | None = None
    is_volume: bool = False
    fix_nonfinite: bool = False
    resume: bool = False
    overwrite: bool = False
    seed: int = 0

    @property
    def choices(self) -> dict[str, Any]:
        """What decides the result beside the volumes, as plain values; weights by their content."""
        names = ("train_minutes", "backbone", "loss", "batch", "fix_nonfinite", "seed")
        model = None if self.model is None else file_sha256(self.model)
        return {"model_sha256": model, **{name: getattr(self, name) for name in names}}

    @property
    def inputs(self) -> dict[str, Path]:
        """The volumes by their names in the record."""
        names = ("half1", "half2") if len(self.halves) > 1 else ("volume",)
        return dict(zip(names, self.halves, strict=True))

    def limit_seconds(self, device: torch.device) -> float:
        """Time for the training."""
        minutes = self.train_minutes or (CPU_MINUTES if device.type == "cpu" else GPU_MINUTES)
        return 60 * minutes

    def backbone_on(self, device: torch.device) -> str:
        """The backbone that was asked for, or what suits the device."""
        return self.backbone or DEFAULT_BACKBONE.get(device.type, "unet-small")


def output_of(first: Path) -> Path:
    """``tomo_EVN.mrc`` to ``tomo_n2n.mrc``, like the outputs of other methods in kind and place."""
    named = default_output(first, SUFFIX)
    stem = named.stem.removesuffix(SUFFIX)
    whole = _HALF.sub("", stem)
    return named.with_name((whole or stem) + SUFFIX + named.suffix)


def check_job(job: N2nJob) -> None:
    """Refuse choices that do not go together, and names that are taken or cannot be written.

    Raises:
        InputError: if there is nothing to learn from.
        OutputError: says which name and what to do.
    """
    if job.trains and len(job.halves) < 2:
        raise InputError(
            "Noise2Noise learns from two halves: give --half1 and --half2 (volumes of even and odd images or frames), "
            "or --model with weights that were trained before, without --train-minutes"
        )
    if job.backbone is not None and job.backbone not in BACKBONES:
        raise InputError(f"--backbone: expected one of {', '.join(BACKBONES)}, got {job.backbone}")
    parent = job.output.parent
    if not parent.is_dir():
        raise OutputError(f"the output folder {parent} does not exist; make it first or choose another -o")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"the output folder {parent} is not writable; choose another -o")
    if job.report is not None:
        check_figure_name(job.report, "--report")
    used = [path for path in (*job.halves, job.model) if path is not None and path.exists()]
    made = [job.output, job.sidecar, job.report, *([job.weights] if job.trains else [])]
    for path in (path for path in made if path is not None and path.exists()):
        if any(path.samefile(one) for one in used):
            raise OutputError(f"{path} is an input of this run; choose another name with -o")
        if not (job.overwrite or (job.resume and path == job.weights)):
            hint = " (--model uses trained weights)" if path == job.weights else ""
            raise OutputError(f"{path} exists; give --overwrite to replace it{hint}, or another name with -o")
    if job.trains and job.state.exists() and not (job.resume or job.overwrite):
        raise OutputError(
            f"{job.folder} holds an earlier training; give --resume to go on or --overwrite to start anew"
        )


def volume_bytes(shape: tuple[int, int, int], itemsize: int) -> int:
    """Disk that the scratch of a denoising and its result take, at most."""
    return math.prod(shape) * (4 + max(4, itemsize))
