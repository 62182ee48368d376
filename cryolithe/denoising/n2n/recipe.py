"""How a Noise2Noise network is trained."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from cryolithe.denoising.n2n.losses import LossName
from cryolithe.denoising.n2n.network import BACKBONES, Config, plain_config

# On a CPU patches and batches are small, so that there are enough steps in minutes.
CPU_EDGE, CPU_BATCH = 64, 2
GPU_EDGE, GPU_BATCH = 96, 8


@dataclass(frozen=True)
class Recipe:
    """What decides a training besides the volumes.

    Attributes:
        config: of the network.
        loss: that is minimised.
        edge: of the patches, voxels.
        batch: patches of a step.
        learning_rate: of AdamW, after the warm-up; it falls to 0 along a cosine.
        warmup_steps: over which it rises from 0.
        weight_decay: of AdamW.
        ema_decay: what is left of averaged weights at each step, at most.
        validations: in all, evenly over the training.
        validation_patches: of the rows held back, at most.
        patience: validations without a better score before the end.
        most_steps: end of a training.
        seed: of weights, places and turns.
    """

    config: Config = field(default_factory=lambda: BACKBONES["unet-small"])
    loss: LossName = "l2"
    edge: int = CPU_EDGE
    batch: int = CPU_BATCH
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    weight_decay: float = 1e-4
    ema_decay: float = 0.99
    validations: int = 16
    validation_patches: int = 12
    patience: int = 6
    most_steps: int = 20_000
    seed: int = 0

    def plain(self) -> dict[str, Any]:
        """Values of JSON."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "config": plain_config(self.config)}


def make_recipe(config: Config, device: torch.device, **changes: Any) -> Recipe:
    """The recipe for a device.

    Args:
        config: of the network.
        device: of the training.
        changes: fields of `Recipe` to set; None leaves the choice to this function.
    """
    edge, batch = (CPU_EDGE, CPU_BATCH) if device.type == "cpu" else (GPU_EDGE, GPU_BATCH)
    wished = {key: value for key, value in changes.items() if value is not None}
    return Recipe(**{"config": config, "edge": edge, "batch": batch, **wished})


class WarmCosine(Protocol):
    """What has a learning rate at its peak, and steps over which it rises to that."""

    @property
    def learning_rate(self) -> float:
        """At its peak."""

    @property
    def warmup_steps(self) -> int:
        """Over which it rises."""


def learning_rate(recipe: WarmCosine, step: int, done: float) -> float:
    """Warm-up, then half a cosine to 0.

    Args:
        recipe: rate and length of the warm-up.
        step: from 0.
        done: part of the training that is done, by steps or time, whichever is further.
    """
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
