"""The run of a general denoiser's training: series, state, tables, weights; resumable at any time.

NAME.safetensors            the averaged weights, when the training is done
NAME.series/                the series, see `cryolithe.denoise_training.store`
NAME.run/state.safetensors  everything a resumed training needs
NAME.run/last.safetensors   the averaged weights of the last validation
NAME.run/train.csv, validation.csv, learning.png, tensorboard/
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cryolithe import __version__
from cryolithe.denoise_training.config import GeneralConfig
from cryolithe.denoise_training.patches import SeriesPatches
from cryolithe.denoise_training.store import Store, Stored, open_store, series_sha256
from cryolithe.denoise_training.teacher import taught
from cryolithe.denoise_training.train import (
    Found,
    GeneralState,
    Hooks,
    load_state,
    new_state,
    save_state,
    train,
    validated,
)
from cryolithe.denoise_training.volumes import Maker
from cryolithe.denoising.figures import plot_learning
from cryolithe.denoising.method import means_of
from cryolithe.denoising.n2n.network import Denoiser, load_denoiser, save_denoiser
from cryolithe.errors import OutputError
from cryolithe.machine.device import precision_name
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Progress
from cryolithe.optimise.recorder import Recorder, recording
from cryolithe.optimise.state import means_told, went_on
from cryolithe.work.alone import alone_in, refuse_replaced
from cryolithe.work.watcher import WARNING, Watcher

STEP_FIELDS = ("step", "seconds", "loss", "learning_rate")
VALIDATION_FIELDS = ("step", "seconds", "loss", "whole", "half")
LOG_EVERY = 20
SAVE_EVERY_S = 120.0
LEFTOVERS = (
    "state.safetensors*",
    "last.safetensors",
    "train.csv",
    "validation.csv",
    "learning.png",
    "tensorboard/events.*",
)


@dataclass(frozen=True)
class GeneralJob:
    """One training.

    Attributes:
        config: what decides it.
        maker: of the series.
        output: weights to write.
        limit_seconds: for the steps, the series not counted.
        teacher: weights for the target "distilled".
        read: other files that are read, and what they are.
        resume: go on with a saved state.
        overwrite: replace an earlier one.
    """

    config: GeneralConfig
    maker: Maker
    output: Path
    limit_seconds: float
    teacher: Path | None = None
    read: tuple[tuple[Path, str], ...] = ()
    resume: bool = False
    overwrite: bool = False

    @property
    def folder(self) -> Path:
        """State, tables and curves."""
        return self.output.with_name(self.output.stem + ".run")

    @property
    def state(self) -> Path:
        """What an interrupted training goes on from."""
        return self.folder / "state.safetensors"

    @property
    def series(self) -> Path:
        """Folder of the series; kept for other trainings."""
        return self.output.with_name(self.output.stem + ".series")


def check_job(job: GeneralJob) -> None:
    """Refuse names that are taken.

    Raises:
        OutputError: says which one and what to do.
    """
    if not job.output.parent.is_dir():
        raise OutputError(f"the output folder {job.output.parent} does not exist; make it first or choose another -o")
    for path, what in ((job.output, "exists"), (job.state, "holds an earlier training")):
        if path.exists() and not (job.overwrite or job.resume):
            raise OutputError(f"{path} {what}; give --resume to go on, --overwrite to start anew, or another -o")
    if not job.resume:
        inputs = dict(job.read) | ({job.teacher: "the teacher of this training"} if job.teacher else {})
        refuse_replaced(inputs, job.output, job.folder, LEFTOVERS)


def run_general(job: GeneralJob, place: Place, watcher: Watcher) -> GeneralState:
    """Make the series that are not there, train, write the weights.

    Raises:
        KeyboardInterrupt: if the user asked to stop; series and state are kept.
        CryoLitheError: if a file cannot be written, the state is not of this job, or another run is at work.
    """
    with alone_in(job.folder, place, lambda: check_job(job)) as note:
        if note:
            watcher.note(note)
        return _run(job, place, watcher)


def _run(job: GeneralJob, place: Place, watcher: Watcher) -> GeneralState:
    config = job.config
    held, series = _series(job, watcher)
    teacher = None if job.teacher is None else load_denoiser(job.teacher)
    files = {"what the series are drawn from": series_sha256(config.data() | job.maker.facts)}
    if teacher is not None:
        files["the teacher"] = teacher.sha256
        watcher.stage("Asking the teacher", len(series))
        series = [_advanced(watcher, taught(one, teacher, place)) for one in series]
    patches = SeriesPatches(config, series, config.network.multiple)
    state = new_state(config, place)
    if job.resume and job.state.exists():
        load_state(job.state, state, config, files)
        watcher.note(f"Going on at step {state.step}, {state.seconds / 60:.1f} min.")
    if state.step < config.steps and (doubt := went_on(state, means_of(place, job.limit_seconds))):
        watcher.note(f"{WARNING}{doubt}")
    limit = f", or {job.limit_seconds / 60:g} min if those end first" if math.isfinite(job.limit_seconds) else ""
    watcher.note(f"Plan: {config.steps} steps of training{limit}, on {place.device}")
    watcher.stage("Training", 1.0)
    with recording(place, partial(_Recorder, job, files, state, watcher)) as record:
        hooks = Hooks(
            on_step=record.told("on_step"),
            on_validation=record.told("on_validation"),
            stop_wanted=record.interrupted.is_set,
            limit_seconds=job.limit_seconds,
        )
        train(config, patches, held, place, hooks, state)
    assert record.recorder is not None
    record.recorder.save(state)
    if record.interrupted.is_set():
        watcher.note(f"State of step {state.step} saved in {job.folder}; --resume goes on.")
        raise KeyboardInterrupt
    found = validated(state.averaged, held, place)
    save_denoiser(
        job.output,
        state.averaged,
        config.network,
        found.gain,
        card(job, place, state, found) | _taught_by(job, teacher),
    )
    watcher.note(f"Trained {state.step} steps in {state.seconds / 60:.1f} min; {told(found)}; weights: {job.output}")
    return state


def _advanced(watcher: Watcher, one: Stored) -> Stored:
    watcher.advance(1)
    return one


def _series(job: GeneralJob, watcher: Watcher) -> tuple[list[Stored], list[Stored]]:
    """Held series and those to learn from."""
    config = job.config
    store: Store = open_store(job.series, job.maker, config.data() | job.maker.facts)
    count = config.held_series + config.series
    watcher.stage("Simulating series", count)
    for number in range(1, count + 1):
        store.ensure(number)
        watcher.advance(1)
    loaded = [store.load(number) for number in range(1, count + 1)]
    return loaded[: config.held_series], loaded[config.held_series :]


def told(found: Found) -> str:
    """Scores in a line."""
    parts = [f"{dose} dose {found.before[dose]:.3f} -> {found.correlation[dose]:.3f}" for dose in found.correlation]
    return "correlation with the clean volume, held series: " + ", ".join(parts)


def card(job: GeneralJob, place: Place, state: GeneralState, found: Found) -> dict[str, Any]:
    """What the weights' file tells of its making."""
    return {
        "cryolithe": __version__,
        "method": "n2n",
        "general": True,
        "content": "images" if job.config.of_images else "volumes",
        "voxel_size_angstrom": list(job.config.voxel_size_angstrom),
        "recipe": job.config.model_dump(mode="json"),
        "molecules": sorted(molecule.name for molecule in job.maker.library),
        "steps": state.step,
        "seconds": round(state.seconds),
        "held_series": {
            "correlation_before": found.before,
            "correlation_after": found.correlation,
            "by_kind": {kind: list(values) for kind, values in found.by_kind.items()},
        },
        "device": str(place.device),
        "precision": precision_name(place.precision),
        "licence": "MIT",
        **means_told(state),
    }


def _taught_by(job: GeneralJob, teacher: Denoiser | None) -> dict[str, Any]:
    """What the weights' file tells of the teacher."""
    if job.teacher is None or teacher is None:
        return {}
    return {"teacher": {"name": job.teacher.name, "sha256": teacher.sha256}}


class _Recorder(Recorder):
    """What is done beside training."""

    def __init__(self, job: GeneralJob, files: dict[str, str], state: GeneralState, watcher: Watcher) -> None:
        self._job, self._files, self._watcher = job, files, watcher
        super().__init__(job.folder, (STEP_FIELDS, VALIDATION_FIELDS), state.step if job.resume else None, LEFTOVERS)
        self._saved = state.seconds
        # What a run before has done counts as done, and tells nothing of the speed of this one.
        self._done = min(1.0, max(state.seconds / job.limit_seconds, state.step / job.config.steps))
        watcher.advance(self._done)

    def on_step(self, state: GeneralState, progress: Progress) -> None:
        """Log, and save now and then."""
        self.log(state, progress, state.step % LOG_EVERY == 0)
        done = min(1.0, progress.done)
        self._watcher.advance(max(0.0, done - self._done))
        self._done = max(self._done, done)
        if state.seconds - self._saved > SAVE_EVERY_S:
            self.save(state)

    def on_validation(self, state: GeneralState, found: Found) -> None:
        """Log, save, keep the weights."""
        whole, half = found.correlation["whole"], found.correlation["half"]
        self.validations.add((state.step, state.seconds, 1 - whole, whole, half))
        self._watcher.note(f"step {state.step}, {state.seconds / 60:.1f} min: {told(found)}")
        last = self.folder / "last.safetensors"
        values = {"steps": state.step, "general": True, "method": "n2n"}
        save_denoiser(last, state.averaged, self._job.config.network, found.gain, values)
        self.save(state)

    def save(self, state: GeneralState) -> None:
        """State and curve."""
        self._saved = state.seconds
        save_state(self._job.state, state, self._job.config, self._files)
        plot_learning(self.folder / "learning.png", self.steps, self.validations)
