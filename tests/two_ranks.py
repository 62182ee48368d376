"""Two processes of a training: real ones, or pretended in one by what the other adds to the sums over both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.distributed
from patience import PATIENCE_S

from cryolithe.optimise.distributed import Place

FIRST = Place(torch.device("cpu"), torch.float32, rank=0, world=2)


def run_both(*words: object) -> list[tuple[int, str]]:
    """Run a command of ``cryolithe`` in two processes that find each other; returns codes and standard errors."""
    return run_two("-m", "cryolithe", *words, "--device", "cpu", "--precision", "fp32")


def run_two(*words: object) -> list[tuple[int, str]]:
    """Run Python with some arguments in two processes that find each other; returns codes and standard errors."""
    # As under torchrun the processes meet at a store of whoever started them: that of process 0 would go with it, while
    # the other still takes its leave.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    command = [sys.executable, *map(str, words)]
    settings = {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
    }  # fmt: skip
    processes = [
        subprocess.Popen(command, env=os.environ | settings | {"RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    try:
        told = [process.communicate(timeout=PATIENCE_S)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, told, strict=True)]


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
