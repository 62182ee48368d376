"""What is to be denoised by Noise2Noise: pairs of halves or whole volumes, and the choices that the method has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from cryolithe.denoising.job import UNTRAINED, Job
from cryolithe.denoising.n2n.bundled import general_weights
from cryolithe.denoising.n2n.losses import LossName
from cryolithe.denoising.n2n.network import BACKBONES, Denoiser, load_denoiser
from cryolithe.denoising.n2n.purposes import PURPOSES, Purpose, PurposeName
from cryolithe.errors import ModelError
from cryolithe.files.hashing import file_sha256

CPU_MINUTES, GPU_MINUTES = 10.0, 5.0
DEFAULT_BACKBONE = {"cpu": "unet-small", "cuda": "unet"}
START_GENERAL = True  # a simulated lamella, a minute of one core: +3.8 dB and FSC 0.53 with them, +3.5 and 0.47 without


@dataclass(frozen=True, kw_only=True)
class N2nJob(Job):
    """Files and choices of one denoising by Noise2Noise.

    The inputs of an item are ``half1`` and ``half2``, of even and of odd images or frames; or one whole ``volume``,
    with ``model`` alone.

    Attributes:
        backbone: name of `BACKBONES`; None: by the device.
        loss: that is minimised; None: by the purpose, or l2.
        for_: what the result is for.
        start: what a training begins with, where there is no ``model``; None: general weights of the backbone, if the
            package has some and they help (`START_GENERAL`).
    """

    backbone: str | None = None
    loss: LossName | None = None
    for_: PurposeName | None = None
    start: Literal["general", "fresh"] | None = None

    @property
    def choices(self) -> dict[str, Any]:
        """What decides the result beside the volumes, as plain values; weights by their content."""
        names = ("train_minutes", "backbone", "loss", "for_", "start", "batch", "fix_nonfinite", "seed")
        model = None if self.model is None else file_sha256(self.model)
        return {"model_sha256": model, **{name.rstrip("_"): getattr(self, name) for name in names}}

    @property
    def idle(self) -> dict[str, str]:
        """See `Job.idle`."""
        told = self.purpose is not None and self.purpose.note is not None  # which is worth something by itself
        return super().idle | ({} if self.trains or told else {"for_": UNTRAINED})

    def limit_seconds(self, device: torch.device) -> float:
        """Time for the training."""
        minutes = self.train_minutes or (CPU_MINUTES if device.type == "cpu" else GPU_MINUTES)
        return 60 * minutes

    def backbone_on(self, device: torch.device) -> str:
        """The backbone that was asked for, or what suits the device."""
        return self.chosen_backbone or DEFAULT_BACKBONE.get(device.type, "unet-small")

    @property
    def chosen_backbone(self) -> str | None:
        """The backbone that was asked for, or what suits the purpose; None: by the device."""
        return self.backbone or (self.purpose.backbone if self.purpose else None)

    @property
    def purpose(self) -> Purpose | None:
        """What suits what the result is for."""
        return PURPOSES[self.for_] if self.for_ else None

    @property
    def wanted_loss(self) -> LossName | None:
        """The loss that was asked for, or what suits the purpose; None for the default."""
        return self.loss or (self.purpose.loss if self.purpose else None)

    def begun_with(self, device: torch.device) -> Denoiser | None:
        """Weights that a training begins with.

        Raises:
            ModelError: if they cannot be read, or general ones were asked for and do not suit the backbone.
        """
        if self.model is not None:
            return load_denoiser(self.model)
        path = general_weights()
        if self.start == "fresh" or (self.start is None and not START_GENERAL):
            return None
        if path is None:
            if self.start is None:
                return None
            raise ModelError("--start general: this copy of the program has no general weights; leave --start away")
        found = load_denoiser(path)
        if found.config == BACKBONES[self.backbone_on(device)]:
            return found
        if self.start is None:
            return None
        raise ModelError(
            f"--start general: the general weights are of another network than {self.backbone_on(device)}; "
            "choose another --backbone, or --start fresh"
        )
