"""What every denoiser can do, so that one run (`run`), one training (`session`) and one command serve them all."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.denoising.job import Given, Item, Job
from cryolithe.denoising.output import Target
from cryolithe.formats import VolumeStatistics
from cryolithe.formats.volumes.volume_file import VolumeFile
from cryolithe.machine.device import precision_name
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks
from cryolithe.optimise.state import State
from cryolithe.work.watcher import Watcher

# A training with fewer steps, or that gains a smaller share, has learned next to nothing; what usually is enough.
FEWEST_STEPS, LEAST_GAIN, ENOUGH_STEPS = 100, 0.05, 1000

Array = NDArray[np.float32]
Halves = tuple[Array, Array, Array, Array]  # first and second before, first and second after


N = TypeVar("N", bound=torch.nn.Module)


class Weights(Protocol):
    """A trained network and what its file tells of it."""

    @property
    def card(self) -> dict[str, Any]:
        """Plain values: what it was trained on and how, with the ``seconds`` that it took."""
        ...

    @property
    def sha256(self) -> str:
        """Of the file."""
        ...


class View(Protocol):
    """An item of a job whose inputs were opened and looked at."""

    @property
    def item(self) -> Item:
        """What is made of what."""
        ...

    @property
    def volume(self) -> VolumeFile:
        """What the output is like in kind, shape and voxel size."""
        ...

    @property
    def target(self) -> Target:
        """What is written."""
        ...

    @property
    def voxel_size_angstrom(self) -> float | None:
        """For figures."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against its inputs, where a job has several items."""
        ...

    def record(self) -> dict[str, Any]:
        """What the record tells of the inputs."""
        ...


@dataclass(frozen=True)
class Applied:
    """What an application made.

    Attributes:
        statistics: of the values as stored.
        middle: before and after in the middle of the volume, scaled; None if there is too little to compare.
        record: what the record tells of it under "method".
    """

    statistics: VolumeStatistics
    middle: tuple[Array, Array] | None
    record: dict[str, Any]


@dataclass(kw_only=True)
class LearningState(State[N]):
    """All that changes during the training of a denoiser.

    Attributes:
        best: the weights of the best score on what is held back.
        validated: part of the training that was done at the last validation.
        first_loss: of what is held back, before the first step; not finite where nobody looked.
        finished: whether it came to its end.
    """

    best: N
    validated: float = 0.0
    first_loss: float = math.inf
    finished: bool = False


def means_of(place: Place, limit_seconds: float) -> dict[str, Any]:
    """What a training is computed with, see `cryolithe.optimise.state.went_on`.

    Args:
        place: of this process.
        limit_seconds: for all steps together.
    """
    # Digits as they were given, which seconds have not: of 0.12 minutes 0.11999999999999998 would come back.
    minutes = float(f"{limit_seconds / 60:.12g}")
    return {
        "device": str(place.device),
        "precision": precision_name(place.precision),
        "processes": place.world,
        "train_minutes": minutes if math.isfinite(minutes) else None,
    }


S = TypeVar("S", bound=LearningState[Any])
H = TypeVar("H")


class Training(ABC, Generic[S, H]):
    """A training with states S, which finds H when it looks at what is held back.

    Attributes:
        state: is changed by the training; there after `begin`.
        fingerprint: tells apart what is learned from.
        began_with: SHA-256 of the weights that it starts from, by what to call them; empty for random ones.
        settings: what else decides it, as plain values; a state keeps them as ``recipe``.
        left_open: names of those settings that nobody chose, and that follow the device.
        asked_anew: names of those that follow choices which also serve the application; the weights of a training that
            is done are applied with others, too.
        most_steps: end of a training.
        columns: of the table of validations, after step and seconds.
        anew: whether the network began with random weights.
    """

    state: S
    fingerprint: str
    began_with: Mapping[str, str] = MappingProxyType({})
    settings: Mapping[str, Any] = MappingProxyType({})
    left_open: Collection[str] = ()
    asked_anew: Collection[str] = ()
    most_steps: int
    columns: ClassVar[tuple[str, ...]]
    anew: bool = True

    @abstractmethod
    def plan(self) -> str:
        """In words."""

    @abstractmethod
    def begin(self) -> S:
        """The state before the first step."""

    @abstractmethod
    def run(self, hooks: Hooks, on_validation: Callable[[S, H], object]) -> None:
        """Train the state on until its end, or until a hook asks to stop.

        Args:
            hooks: limit, clock, and what is told of a step.
            on_validation: told the state and what was found; True asks to stop.
        """

    @abstractmethod
    def save_state(self, path: Path) -> None:
        """Write all that is needed to go on exactly."""

    @abstractmethod
    def load_state(self, path: Path) -> None:
        """Go back to a saved state; CryoLitheError if it is of something else."""

    @abstractmethod
    def row(self, found: H) -> tuple[float, ...]:
        """What was found, by `columns`."""

    @abstractmethod
    def told(self, found: H) -> tuple[str, float, int]:
        """What was found: the name of a number, the number, digits to print of it."""

    def first_look(self) -> float:
        """The loss of what is held back before the first step, in all processes; infinite if that is not known."""
        return math.inf

    def gained(self) -> tuple[str, float]:
        """What the training gained on what is held back: in words, and as a share, of which a twentieth is little."""
        first, best = self.state.first_loss, self.state.best_loss
        if not (math.isfinite(first) and math.isfinite(best) and first > 0):
            return "", math.inf
        return f"loss of what is held back {first:.4g} before, {best:.4g} at best ({best / first - 1:+.0%})", (
            1 - best / first
        )

    def hardly_trained(self) -> str | None:
        """Why the network has learned next to nothing, and what to do; None if it has."""
        steps, (told, share) = self.state.step, self.gained()
        if steps >= FEWEST_STEPS and (share >= LEAST_GAIN or not self.anew):
            return None
        result = (
            "this is what an untrained network makes"
            if self.anew
            else "the weights are nearly those that it began with"
        )
        why = (
            f"only {steps} step{'s' if steps != 1 else ''}"
            if steps < FEWEST_STEPS
            else f"in {steps} steps hardly anything was learned"
        )
        minutes = max(1, math.ceil(self.state.seconds / max(1, steps) * ENOUGH_STEPS / 60))
        longer = (
            f"give --train-minutes {minutes} or more ({ENOUGH_STEPS} steps take about that long here), or use a GPU"
            if steps < ENOUGH_STEPS
            else "train longer (--train-minutes), or look at the input: is there structure in it?"
        )
        return f"hardly trained, {why}{f' ({told})' if told else ''}: {result}; {longer}"

    @abstractmethod
    def save_weights(self, path: Path) -> str | None:
        """Write the best network; returns a warning, or None."""


J = TypeVar("J", bound=Job)
V = TypeVar("V", bound=View)
W = TypeVar("W", bound=Weights)


class Method(ABC, Generic[J, V, W]):
    """A denoiser with jobs J, views V and weights W.

    Attributes:
        name: of ``--method``.
        state_format: of the file of a saved training, see `write_state`; its value ``learned_from`` is a fingerprint.
        advice: what to do where signal was lost.
        scored: whether the correlation of a denoised half with the raw other one tells what the result is worth.
    """

    name: ClassVar[str]
    state_format: ClassVar[str]
    advice: ClassVar[str]
    scored: ClassVar[bool]

    @abstractmethod
    def job(self, given: Given, choices: Mapping[str, Any]) -> J:
        """The job that a user wants.

        Args:
            given: files.
            choices: fields of the job by name.

        Raises:
            CryoLitheError: if files or choices do not go together.
        """

    @abstractmethod
    def look(self, job: J, watcher: Watcher) -> list[V]:
        """Open and look at the inputs of all items; say what was found.

        Raises:
            CryoLitheError: if something cannot be used.
        """

    @abstractmethod
    def disk_bytes(self, job: J, view: V) -> int:
        """Room on the disk that an item takes, at most."""

    @abstractmethod
    def training(self, job: J, views: Sequence[V], place: Place) -> Training[Any, Any]:
        """A training on all items, at its beginning."""

    @abstractmethod
    def load(self, path: Path) -> W:
        """Read weights; ModelError if they are none of this method."""

    @abstractmethod
    def doubts(self, job: J, views: Sequence[V], weights: W) -> list[str]:
        """What speaks against weights that were trained before, in words."""

    @abstractmethod
    def apply(self, job: J, view: V, weights: W, place: Place, watcher: Watcher) -> Applied:
        """Denoise an item by tiles and write its output, in bounded memory."""

    @abstractmethod
    def halves(self, job: J, view: V, weights: W, place: Place, watcher: Watcher) -> Halves | None:
        """The middle of both halves of an item, before and after each was denoised alone; None if there are none."""

    def instead(self, job: J, view: V, weights: W, place: Place, watcher: Watcher) -> Path | None:
        """What is made instead of volumes, if the job asks for that."""
        return None
