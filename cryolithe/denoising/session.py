"""The training of any denoiser with its records: state, tables, curve, weights; resumable at any time.

NAME.safetensors            the best weights by what is held back
NAME.run/state.safetensors  everything a resumed training needs
NAME.run/train.csv, validation.csv, learning.png, tensorboard/
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cryolithe.denoising.figures import plot_learning
from cryolithe.denoising.job import Job
from cryolithe.denoising.method import LearningState, Method, Training, means_of
from cryolithe.errors import SettingsError
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks, Progress
from cryolithe.optimise.recorder import Recorder, recording
from cryolithe.optimise.state import STARTS_FROM, check_same, is_other_device, means_before, went_on
from cryolithe.optimise.tensors import read_tensors
from cryolithe.work.watcher import WARNING, Watcher

STEP_FIELDS = ("step", "seconds", "loss", "learning_rate")
LOG_EVERY = 5
SAVE_EVERY_S = 120.0
# What a training leaves in its folder.
LEFTOVERS = ("state.safetensors*", "train.csv", "validation.csv", "learning.png", "tensorboard/events.*")


def trained(
    method: Method[Any, Any, Any], job: Job, views: Sequence[Any], place: Place, watcher: Watcher
) -> Any | None:
    """Weights that are trained as a job says, or go on being; they are written beside the output.

    Returns:
        the weights; None in processes that only help.

    Raises:
        KeyboardInterrupt: if the user asked to stop; the state is saved.
        CryoLitheError: if a file cannot be written, or the state is not of this job.
    """
    training: Training[Any, Any] = method.training(job, views, place)
    limit = job.limit_seconds(place.device)
    means = means_of(place, limit)
    if job.resume and _is_finished(method, job, training, means):
        watcher.note(f"The training is done: {job.weights}")
        return method.load(job.weights)
    watcher.note(training.plan())
    state = training.begin()
    if job.resume and job.state.exists():
        training.load_state(job.state)
        watcher.note(f"Going on with the training at step {state.step}, {state.seconds / 60:.1f} min.")
        done = max(state.seconds / limit, state.step / training.most_steps)
        state.finished = state.finished and done >= 1
        # Of a longer training less is done: what is held back is due again sooner than at the end of the shorter one.
        state.validated = min(state.validated, done)
    if not state.finished and (doubt := went_on(state, means)):
        watcher.note(f"{WARNING}{doubt}")
    if not state.step:
        watcher.stage("Looking at what is held back", 1)
        state.first_loss = training.first_look()
    watcher.stage("Training", 1.0)
    with recording(place, partial(_Recorder, job, training, place, watcher)) as record:
        hooks = Hooks(on_step=record.told("on_step"), stop_wanted=record.interrupted.is_set, limit_seconds=limit)
        training.run(hooks, record.told("on_validation"))
    interrupted = state.interrupted or record.interrupted.is_set()
    if record.recorder is not None:
        record.recorder.save(state)
    if interrupted:
        if record.recorder is not None:
            watcher.note(f"State of step {state.step} saved in {job.folder}; --resume goes on.")
        raise KeyboardInterrupt
    if record.recorder is None:
        return None
    if warning := training.save_weights(job.weights):
        watcher.note(f"Warning: {warning}")
    if state.finished and state.seconds < limit and state.step < training.most_steps:
        watcher.note("The training ended early: what is held back no longer got better.")
    gained = training.gained()[0]
    told = f"Trained {state.step} step{'s' if state.step != 1 else ''} in {state.seconds / 60:.1f} min"
    watcher.note(f"{told}{f'; {gained}' if gained else ''}; weights: {job.weights}")
    return method.load(job.weights)


def _is_finished(
    method: Method[Any, Any, Any], job: Job, training: Training[Any, Any], means: Mapping[str, Any]
) -> bool:
    """Whether a training on the same inputs, with the same start and settings, had come to its end.

    A training that is done stays so where the general weights became others meanwhile: nothing goes on with them. It
    is not done where more time is asked for than it had.

    Raises:
        SettingsError: if its weights were made with other settings, or in more time, than those that are asked for.
    """
    if not (job.weights.is_file() and job.state.is_file()):
        return False
    _, values = read_tensors(job.state, method.state_format, "a saved training state")
    if not values["finished"] or values.get("learned_from") != training.fingerprint:
        return False
    before, now = values.get("began_with"), training.began_with
    # A version before did not tell.
    if isinstance(before, dict) and (before.keys() != now.keys() or before.get(STARTS_FROM) != now.get(STARTS_FROM)):
        return False
    recipe, told = values.get("recipe", {}), means_before(values.get("means") or ())
    # Where it was trained on another device, what was left to the device is as it was there.
    moved = "device" in told and is_other_device(told["device"], means["device"])
    known = {name: value for name, value in training.settings.items() if name in recipe}
    check_same(job.state, recipe, known, {*training.asked_anew, *(training.left_open if moved else ())})
    ended = values["step"] >= recipe.get("most_steps", training.most_steps)  # more time would change nothing
    if ended or "train_minutes" not in told or (moved and job.train_minutes is None):
        return True
    had, asked = (math.inf if one["train_minutes"] is None else one["train_minutes"] for one in (told, means))
    if asked < had:
        raise SettingsError(
            f"{job.state} is that of a training which is done, with {_time_told(had)}, now {_time_told(asked)}; repeat "
            "the command with the earlier time and --resume, or --overwrite to start anew"
        )
    return bool(asked == had)


def _time_told(minutes: float) -> str:
    return f"--train-minutes {minutes:g}" if math.isfinite(minutes) else "no limit of time"


class _Recorder(Recorder):
    """What the first process does beside training."""

    def __init__(self, job: Job, training: Training[Any, Any], place: Place, watcher: Watcher) -> None:
        self._path, self._training, self._watcher = job.state, training, watcher
        columns = (STEP_FIELDS, ("step", "seconds", *training.columns))
        super().__init__(job.folder, columns, training.state.step if job.resume else None, LEFTOVERS)
        self._saved = training.state.seconds
        # What a run before has done counts as done, and tells nothing of the speed of this one.
        limit = job.limit_seconds(place.device)
        self._done = min(1.0, max(self._saved / limit, training.state.step / training.most_steps))
        watcher.advance(self._done)

    def on_step(self, state: LearningState[Any], progress: Progress) -> None:
        """Log, and save now and then."""
        self.log(state, progress, state.step % LOG_EVERY == 0 or state.step == 1)
        done = min(1.0, progress.done)
        self._watcher.advance(max(0.0, done - self._done))
        self._done = max(self._done, done)
        if state.seconds - self._saved > SAVE_EVERY_S:
            self.save(state)

    def on_validation(self, state: LearningState[Any], found: Any) -> None:
        """Log and save."""
        self.validations.add((state.step, state.seconds, *self._training.row(found)))
        name, value, digits = self._training.told(found)
        self.board.step(state.step, {name: value})
        self._watcher.note(f"step {state.step}, {state.seconds / 60:.1f} min: {name} {value:.{digits}f}")
        self.save(state)

    def save(self, state: LearningState[Any]) -> None:
        """State and curve."""
        self._saved = state.seconds
        self._training.save_state(self._path)
        plot_learning(self.folder / "learning.png", self.steps, self.validations)
