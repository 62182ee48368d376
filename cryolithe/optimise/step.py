"""One step of any training: the gradient of a loss, and what the optimiser makes of it.

Between the two the loop averages gradients over the processes. Those of float16 are scaled, and still are then: what
overflowed in one process is seen by all, so that they skip the step together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from cryolithe.optimise.state import State


def trainable(precision: torch.dtype, device: torch.device) -> torch.dtype:
    """The precision that training uses: float16 only where its gradients can be scaled."""
    return torch.float32 if precision == torch.float16 and device.type == "cpu" else precision


def gradient(state: State[Any], losses: Iterable[torch.Tensor]) -> float:
    """Gradient of the sum of losses, scaled in float16; returns that sum.

    Each loss's graph is gone before the next one is asked for.
    """
    state.optimiser.zero_grad(set_to_none=True)
    total: torch.Tensor | float = 0.0
    for loss in losses:
        state.scaler.scale(loss).backward()
        total = total + loss.detach()
    return float(total)  # waits for the device, once a step


def update(state: State[Any], rate: float, clip_norm: float) -> float:
    """Take the step with an averaged gradient; returns its norm before clipping.

    Args:
        state: its gradients are used up, its step is counted.
        rate: of learning.
        clip_norm: longest gradient.
    """
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.scaler.unscale_(state.optimiser)
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), clip_norm)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.step += 1
    return float(norm)


@torch.no_grad()
def follow(averaged: torch.nn.Module, network: torch.nn.Module, decay: float, steps: int) -> None:
    """Move averaged weights towards those of a network: early weights are forgotten quickly, late ones slowly.

    Args:
        averaged: is changed.
        network: of the same architecture.
        decay: what is left of an old weight, at most.
        steps: done, with this one.
    """
    slow: list[torch.Tensor] = list(averaged.parameters())
    fast: list[torch.Tensor] = list(network.parameters())
    torch._foreach_lerp_(slow, fast, 1 - min(decay, steps / (9 + steps)))
