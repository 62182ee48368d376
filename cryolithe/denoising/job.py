"""What is to be denoised, whatever the method: files and choices, checked before any work."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cryolithe.denoising.figures import check_figure_name
from cryolithe.errors import OutputError
from cryolithe.formats.files import refuse_existing, refuse_nameless
from cryolithe.formats.record import changed_input, part_of, read_record_beside

UNTRAINED = "is for the training, and finished weights are used here; leave it out, or give --train-minutes"


@dataclass(frozen=True)
class Given:
    """What a user gave, of which a method makes a job.

    Attributes:
        volumes: whole ones.
        halves: volumes of even and of odd images or frames, in pairs.
        output: name for the result, or None.

    Raises:
        OutputError: if that is no name.
    """

    volumes: tuple[Path, ...] = ()
    halves: tuple[tuple[Path, Path], ...] = ()
    output: Path | None = None

    def __post_init__(self) -> None:
        if self.output is not None:
            refuse_nameless(self.output)


@dataclass(frozen=True)
class Item:
    """A volume that is to be made.

    Attributes:
        inputs: files that it is made of, by their names in the record.
        output: to write.
        report: figure to write, or None.
    """

    inputs: Mapping[str, Path]
    output: Path
    report: Path | None = None

    @property
    def sidecar(self) -> Path:
        """The record beside the output."""
        return self.output.with_name(self.output.stem + ".json")

    @property
    def names(self) -> str:
        """The inputs in words."""
        return " and ".join(str(path) for path in self.inputs.values())


@dataclass(frozen=True, kw_only=True)
class Job:
    """Files and choices of a denoising: one network, and what is made with it. Methods add their own choices.

    Attributes:
        items: what is made.
        learned: where the network and its training are kept, without an ending.
        model: weights to use instead of training; with ``train_minutes`` those to start from.
        train_minutes: limit of the training; None for the method's own.
        batch: examples of a training step; None for the method's own.
        is_volume: the inputs are volumes even if their files may be stacks.
        fix_nonfinite: take NaN and Inf for the median.
        resume: go on with an interrupted run.
        overwrite: replace existing files.
        seed: of the training.
        notes: what was assumed, in words.
    """

    items: tuple[Item, ...]
    learned: Path
    model: Path | None = None
    train_minutes: float | None = None
    batch: int | None = None
    is_volume: bool = False
    fix_nonfinite: bool = False
    resume: bool = False
    overwrite: bool = False
    seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> Path:
        """The trained network."""
        return self._learned(".safetensors")

    @property
    def folder(self) -> Path:
        """State, tables and curves of the training."""
        return self._learned(".run")

    @property
    def state(self) -> Path:
        """What an interrupted training goes on from."""
        return self.folder / "state.safetensors"

    @property
    def trains(self) -> bool:
        """Whether a network is to be trained."""
        return self.model is None or self.train_minutes is not None

    @property
    def used_weights(self) -> Path:
        """The network that the volumes are made with."""
        return self.weights if self.trains or self.model is None else self.model

    @property
    def choices(self) -> dict[str, Any]:
        """What decides the result beside the inputs, as plain values; weights by their content."""
        raise NotImplementedError

    @property
    def idle(self) -> dict[str, str]:
        """Choices that change nothing here, and why, in words."""
        return {} if self.trains else dict.fromkeys(("seed", "batch"), UNTRAINED)

    @property
    def read(self) -> tuple[Path, ...]:
        """All files that are read."""
        inputs = (path for item in self.items for path in item.inputs.values())
        return (*inputs, *([self.model] if self.model else []))

    @property
    def written(self) -> tuple[Path, ...]:
        """All files that are written, and must not be there before; those of a finished item have been."""
        made = [self.weights] if self.trains else []
        for item in self.items:
            if not (self.resume and item.output.exists() and made_before(self, item) is None):
                made += [path for path in (item.output, item.sidecar, item.report) if path is not None]
        return tuple(made)

    @property
    def figures(self) -> tuple[tuple[Path, str], ...]:
        """Pictures to write, with the options that name them."""
        return tuple((item.report, "--report") for item in self.items if item.report is not None)

    def limit_seconds(self, device: torch.device) -> float:
        """Time for the training."""
        raise NotImplementedError

    def _learned(self, ending: str) -> Path:
        return self.learned.with_name(self.learned.name + ending)


def beside(output: Path) -> Path:
    """Where the network of a single output is kept: ``tomo_n2n.mrc`` has ``tomo_n2n.safetensors`` and so on."""
    return output.with_name(output.stem)


def page_of(output: Path) -> Path:
    """The figure of the guard, where nobody named it: ``tomo_n2n.mrc`` has ``tomo_n2n.png``."""
    return output.with_name(output.stem + ".png")


def made_before(job: Job, item: Item) -> str | None:
    """Whether an output was made of these very inputs with these choices: what differs, in words, or None.

    Raises:
        InputError: if an input cannot be read.
    """
    record = read_record_beside(item.output)
    if not record:
        return "it has no record of how it was made"
    if name := changed_input(record, item.inputs):
        path = item.inputs.get(name)
        return f"it was made of another {path.name if path else name} than the one that is there now"
    before = part_of(record, "choices")
    for name, value in job.choices.items():
        if name not in before or before[name] != value:
            return f"it was made with other settings ({name.replace('_', '-')} {before.get(name)} instead of {value})"
    return None


def made_with(item: Item) -> str | None:
    """SHA-256 of the weights that an output was made with, by its record."""
    found = part_of(read_record_beside(item.output), "method", "weights").get("sha256")
    return found if isinstance(found, str) else None


def check_job(job: Job) -> None:
    """Refuse names that are taken or cannot be written.

    Raises:
        OutputError: says which and what to do.
    """
    for parent in dict.fromkeys([*(item.output.parent for item in job.items), job.learned.parent]):
        if len(job.items) > 1 and not parent.exists() and parent.parent.is_dir():
            parent.mkdir()
        if not parent.is_dir():
            raise OutputError(f"the output folder {parent} does not exist; make it first or choose another -o")
        if not os.access(parent, os.W_OK):
            raise OutputError(f"the output folder {parent} is not writable; choose another -o")
    for path, option in job.figures:
        check_figure_name(path, option)
    used = [path for path in job.read if path.exists()]
    kept = {job.weights, *(page_of(item.output) for item in job.items)}  # by a run that goes on
    twice = [path for path, times in Counter(item.output for item in job.items).items() if times > 1]
    if twice:
        raise OutputError(f"{twice[0]} would be written twice; give halves of different names, or denoise them apart")
    for path in (path for path in job.written if path.exists()):
        if any(path.samefile(one) for one in used):
            raise OutputError(f"{path} is an input of this run; choose another name with -o")
        hint = " (--model uses trained weights)" if path == job.weights else ""
        refuse_existing(path, job.overwrite or (job.resume and path in kept), hint=hint)
    if job.trains and job.state.exists() and not (job.resume or job.overwrite):
        raise OutputError(
            f"{job.folder} holds an earlier training; give --resume to go on or --overwrite to start anew"
        )
