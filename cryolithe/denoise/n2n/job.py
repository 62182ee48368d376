"""What is to be denoised by Noise2Noise: pairs of halves or whole volumes, and the choices that the method has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cryolithe.denoise.job import Job
from cryolithe.denoise.n2n.losses import LossName
from cryolithe.hashing import file_sha256

CPU_MINUTES, GPU_MINUTES = 10.0, 5.0
DEFAULT_BACKBONE = {"cpu": "unet-small", "cuda": "unet"}


@dataclass(frozen=True, kw_only=True)
class N2nJob(Job):
    """Files and choices of one denoising by Noise2Noise.

    The inputs of an item are ``half1`` and ``half2``, of even and of odd images or frames; or one whole ``volume``,
    with ``model`` alone.

    Attributes:
        backbone: name of `BACKBONES`; None: by the device.
        loss: that is minimised; None: l2.
    """

    backbone: str | None = None
    loss: LossName | None = None

    @property
    def choices(self) -> dict[str, Any]:
        """What decides the result beside the volumes, as plain values; weights by their content."""
        names = ("train_minutes", "backbone", "loss", "batch", "fix_nonfinite", "seed")
        model = None if self.model is None else file_sha256(self.model)
        return {"model_sha256": model, **{name: getattr(self, name) for name in names}}

    def limit_seconds(self, device: torch.device) -> float:
        """Time for the training."""
        minutes = self.train_minutes or (CPU_MINUTES if device.type == "cpu" else GPU_MINUTES)
        return 60 * minutes

    def backbone_on(self, device: torch.device) -> str:
        """The backbone that was asked for, or what suits the device."""
        return self.backbone or DEFAULT_BACKBONE.get(device.type, "unet-small")
