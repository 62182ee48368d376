"""How a denoiser is trained: the published recipe, and what a short time on a CPU makes of it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch

from cryolithe.denoising.samba.model import SambaConfig, SambaNet

STEPS_PER_GAP = 30_000
MOST_BATCH = 32
# On a CPU: smaller crops, so that there are enough steps in half an hour (benchmarks/LOG.md).
CPU_CROP, CPU_BATCH, CPU_VALIDATION = 128, 2, 16
# Bytes kept for the optimiser, the gradient and the weights, per weight; and working space beside what autograd keeps.
_BYTES_PER_WEIGHT, _WORKING_SPACE, _SHARE_OF_FREE = 16, 1.4, 0.8


@dataclass(frozen=True)
class Recipe:
    """What decides a training besides the volume.

    Attributes:
        largest_gap: L of the triplets (z - L, z, z + L).
        crop: side of the squares, pixels.
        overlap: of neighbouring squares.
        batch: triplets per step and process.
        learning_rate: of Adam, after the warm-up.
        warmup_steps: over which it rises from 0; with a time limit, no longer than ``warmup_share`` of that.
        warmup_share: see above.
        decay: of the learning rate at each step.
        cooldown_share: last part of a limited time, in which the learning rate falls to 0.
        validation_share: of the triplets.
        validation_blocks: of them that are looked at, at most.
        validate_every: steps; with a time limit, ``validations`` times in all.
        validations: see above.
        patience: validations without a better loss before the end.
        most_steps: end of a training that never stops to improve.
        seed: of weights, order and flips.
        network: sizes.
    """

    largest_gap: int
    crop: int = 256
    overlap: int = 16
    batch: int = MOST_BATCH
    learning_rate: float = 2e-4
    warmup_steps: int = 300
    warmup_share: float = 0.05
    decay: float = 0.99995
    cooldown_share: float = 0.35
    validation_share: float = 0.05
    validation_blocks: int = 256
    validate_every: int = 1000
    validations: int = 8
    patience: int = 10
    most_steps: int = 10 * STEPS_PER_GAP
    seed: int = 0
    network: SambaConfig = field(default_factory=SambaConfig)

    def plain(self) -> dict[str, Any]:
        """Values of JSON."""
        values: dict[str, Any] = _listed(dataclasses.asdict(self))
        return values


def make_recipe(gap: int, device: torch.device, network: SambaConfig, **changes: Any) -> Recipe:
    """The recipe for a device: as published on a GPU, with a batch that fits; small crops on a CPU.

    Args:
        gap: largest one of training.
        device: of the training.
        network: sizes.
        changes: fields of `Recipe` to set; None leaves the choice to this function.
    """
    chosen: dict[str, Any] = {"largest_gap": gap, "most_steps": gap * STEPS_PER_GAP, "network": network}
    if device.type == "cpu":
        chosen |= {"crop": CPU_CROP, "batch": CPU_BATCH, "validation_blocks": CPU_VALIDATION}
    wished = {key: value for key, value in changes.items() if value is not None}
    recipe = Recipe(**{**chosen, **wished})
    if device.type == "cpu" or "batch" in wished:
        return recipe
    free, _ = torch.cuda.mem_get_info(device)
    return dataclasses.replace(recipe, batch=fitting_batch(recipe, free))


def fitting_batch(recipe: Recipe, free_bytes: int) -> int:
    """Largest batch up to the published one that fits into memory."""
    network = SambaNet(recipe.network)
    weights = sum(p.numel() for p in network.parameters())
    left = _SHARE_OF_FREE * free_bytes - _BYTES_PER_WEIGHT * weights
    return max(1, min(MOST_BATCH, int(left / (_WORKING_SPACE * crop_bytes(network, recipe.crop)))))


def crop_bytes(network: SambaNet, crop: int, probe: int = 64) -> int:
    """Bytes that autograd keeps for one triplet in float32, counted on a small crop; they grow with its area."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    plane = torch.zeros(1, 1, probe, probe)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = network(plane, plane)
    del out
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    total = sum(size for pointer, size in kept.items() if pointer not in weights)
    return round(total * (crop / probe) ** 2)


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: _listed(one) for key, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, tuple | list) else value
