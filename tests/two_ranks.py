"""Two processes of a training, pretended in one: what the other rank adds to the sums over processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cryolithe.optimise.distributed import Place

FIRST = Place(torch.device("cpu"), torch.float32, rank=0, world=2)


def join_other(
    patch: pytest.MonkeyPatch, gradient_of_other: Callable[[int, torch.Tensor], torch.Tensor], numbers: int = 3
) -> None:
    """Let the other process have the same numbers, and a gradient of its own.

    Args:
        patch: undone at the end of the test.
        gradient_of_other: of the number of the step (from 0) and this process's gradient, both before any division.
        numbers: that are summed up with a gradient.
    """
    steps = iter(range(10**6))

    def add(flat: torch.Tensor, op: object = torch.distributed.ReduceOp.SUM) -> None:
        assert op == torch.distributed.ReduceOp.SUM
        if flat.numel() < 100:  # numbers without a gradient
            flat *= 2
            return
        own = flat[:-numbers].clone()
        flat[:-numbers] += gradient_of_other(next(steps), own)
        flat[-numbers:] *= 2

    patch.setattr(torch.distributed, "all_reduce", add)


def scaler() -> torch.amp.GradScaler:
    """That of float16, on a CPU."""
    return torch.amp.GradScaler("cpu", enabled=True, init_scale=1024.0)
