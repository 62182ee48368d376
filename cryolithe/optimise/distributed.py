"""Several processes that train one network: started by torchrun, which says who is who in the environment.

Every process draws its own runs and computes its own gradient; one sum over the processes per step carries gradients,
loss and the wish to stop. So all of them hold the same weights and stop at the same step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed

from cryolithe.errors import CryoLitheError, DeviceError

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where a process computes, and which of how many it is.

    Attributes:
        device: of the network.
        precision: of the matrix products.
        rank: number of the process, from 0.
        world: number of processes.
    """

    device: torch.device
    precision: torch.dtype = torch.float32
    rank: int = 0
    world: int = 1

    @property
    def stream(self) -> tuple[int, int]:
        """Which share of the data is this process's."""
        return self.rank, self.world

    def autocast(self) -> torch.autocast:
        """Products in this precision, within a ``with`` statement."""
        mixed = self.precision != torch.float32
        return torch.autocast(self.device.type, dtype=self.precision if mixed else None, enabled=mixed)


def join_processes(device: torch.device, precision: torch.dtype) -> Place:
    """Join the other processes of torchrun; a single process without it.

    Each process of a machine takes the GPU of its local rank.

    Raises:
        DeviceError: if the processes do not find each other or there are too few GPUs.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Place(device, precision)
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise DeviceError(
                f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; "
                "lower --nproc-per-node"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    # Functions of this module have the group of all processes as a default, as it is when the module is read. torch
    # reads it with the first optimiser: then the group and its threads would stay for good, and could abort the process
    # at its end.
    import_module("torch.distributed.nn.functional")
    try:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise DeviceError(f"the processes of torchrun do not find each other: {error}") from error
    return Place(device, precision, torch.distributed.get_rank(), world)


def leave_processes() -> None:
    """Undo `join_processes`; no thread of it is left."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def least(number: int, place: Place) -> int:
    """The smallest of the numbers of all processes, which is then that of each of them."""
    if place.world == 1:
        return number
    found = torch.tensor([number], dtype=torch.int64, device=place.device)
    torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MIN)
    return int(found.item())


def average(parameters: Iterable[torch.nn.Parameter], numbers: list[float], place: Place) -> list[float]:
    """Average the gradients, and some numbers, over the processes.

    Gradients that are scaled, as those of float16 are, are still scaled then: what overflowed in one process has to be
    seen by all, so that they skip the step together.

    Args:
        parameters: of the network; their gradients become the averages.
        numbers: of this process.
        place: of this process.

    Returns:
        the averages of the numbers.
    """
    if place.world == 1:
        return numbers
    gradients = [p.grad for p in parameters if p.grad is not None]
    tail = torch.tensor(numbers, dtype=torch.float32, device=place.device)
    flat = torch.cat([*(g.flatten() for g in gradients), tail])
    torch.distributed.all_reduce(flat)
    flat /= place.world
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
    return [float(value) for value in flat[start:].tolist()]


def any_wishes(wish: bool, place: Place) -> bool:
    """Whether any process wishes something; a single one need not ask."""
    return wish if place.world == 1 else average([], [float(wish)], place)[0] > 0


class Together:
    """Lets what fails in one process end all of them: the others would wait for it.

    Args:
        place: of this process.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._failures: list[BaseException] = []

    def tried(self, work: Callable[[], T]) -> T | None:
        """Result of some work, or None if it failed, which `settle` then tells."""
        try:
            return work()
        except BaseException as error:
            self._failures.append(error)
            return None

    def guarded(self, hook: Callable[..., object]) -> Callable[..., bool]:
        """A hook that answers whether to stop, which it also does when it failed."""

        def call(*arguments: Any) -> bool:
            return bool(self.tried(lambda: hook(*arguments))) or bool(self._failures)

        return call

    def settle(self) -> None:
        """Raise this process's failure, if it has one, and in all others an error that says so.

        Raises:
            CryoLitheError: in the processes that did not fail.
        """
        failed = any_wishes(bool(self._failures), self._place)
        if self._failures:
            raise self._failures[0]
        if failed:
            raise CryoLitheError("process 0 could not go on, see its message; the others end with it")
