"""The loop of any training: gradient, average over the processes, step; until its end, its time or a wish to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from cryolithe.errors import CryoLitheError
from cryolithe.optimise.distributed import Place, any_wishes, average
from cryolithe.optimise.state import State

THREADS_BESIDE_GPU = 4
S = TypeVar("S", bound=State[Any])
B = TypeVar("B")


@dataclass(frozen=True)
class Progress:
    """What a step tells its watcher.

    Attributes:
        step: its number, from 1.
        loss: mean over all processes.
        learning_rate: that it was taken with.
        gradient_norm: before clipping.
        time_share: part of the time limit that is spent; 0 without one.
        done: part of the whole that is done, by steps or time.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    time_share: float
    done: float


@dataclass(frozen=True)
class Hooks:
    """What a training tells and asks its surroundings.

    Attributes:
        on_step: told the state and the step's progress; True asks to stop (all processes stop together).
        on_bad_loss: told the batch and the step (from 0) whose loss is not finite.
        stop_wanted: asked in every step.
        limit_seconds: time for all steps together.
        clock: seconds.
    """

    on_step: Callable[[Any, Progress], object] = lambda state, progress: None
    on_bad_loss: Callable[[Any, int], object] = lambda batch, step: None
    stop_wanted: Callable[[], bool] = lambda: False
    limit_seconds: float = math.inf
    clock: Callable[[], float] = field(default=time.monotonic)


@dataclass(frozen=True)
class Task(Generic[S, B]):
    """What is trained.

    Attributes:
        steps: at most, from the first one on.
        batches: of coming steps, from the state's on; closed at the end.
        learning_rate: of a step (from 0), and of the part of the time limit that is spent before it.
        gradient: makes the gradient of a batch and returns its loss, see `step.gradient`.
        update: takes the step at a learning rate and returns the gradient's norm, see `step.update`.
        remedy: what to do when the loss is not finite.
    """

    steps: int
    batches: Generator[B, None, None]
    learning_rate: Callable[[int, float], float]
    gradient: Callable[[S, B], float]
    update: Callable[[S, float], float]
    remedy: str


def loader_threads(device: torch.device) -> int:
    """Threads that make batches while the device computes; a CPU has none to spare."""
    return 0 if device.type == "cpu" else THREADS_BESIDE_GPU


def optimise(task: Task[S, B], place: Place, hooks: Hooks, state: S) -> S:
    """Train from a state on, until there are no more batches, the time is up, or somebody wishes to stop.

    Args:
        task: what is trained.
        place: device, precision, process.
        hooks: what is told and asked.
        state: is changed and returned.

    Raises:
        CryoLitheError: if the loss is not finite.
    """
    before, started = state.seconds, hooks.clock()
    share = state.seconds / hooks.limit_seconds
    try:
        for batch in task.batches:
            rate = task.learning_rate(state.step, share)
            loss = task.gradient(state, batch)
            state.seconds = before + hooks.clock() - started
            numbers = [loss, float(hooks.stop_wanted()), state.seconds]
            loss, asked, seconds = average(state.network.parameters(), numbers, place)
            if not math.isfinite(loss):
                hooks.on_bad_loss(batch, state.step)
                raise CryoLitheError(f"the loss became {loss} at step {state.step + 1}; {task.remedy}")
            norm = task.update(state, rate)
            share = seconds / hooks.limit_seconds
            done = max(share, state.step / task.steps)
            enough = hooks.on_step(state, Progress(state.step, loss, rate, norm, share, done))
            state.interrupted = asked > 0
            if asked > 0 or share >= 1 or any_wishes(bool(enough), place):
                break
    finally:
        task.batches.close()
    return state
