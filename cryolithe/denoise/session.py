"""The training of a denoiser with its records: state, tables, curve, weights; resumable at any time.

NAME.safetensors            the weights of the lowest loss on the blocks held back
NAME.run/state.safetensors  everything a resumed training needs
NAME.run/train.csv, validation.csv, learning.png, tensorboard/
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from cryolithe import __version__
from cryolithe.denoise.blocks import Blocks
from cryolithe.denoise.figures import plot_learning
from cryolithe.denoise.job import Resolved
from cryolithe.denoise.model import Weights, load_weights, save_weights
from cryolithe.denoise.recipe import Recipe
from cryolithe.denoise.training import FORMAT, Hooks, SambaState, load_state, new_state, save_state, train
from cryolithe.device import precision_name
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Progress
from cryolithe.optimise.recorder import Recorder, recording
from cryolithe.optimise.tensors import read_tensors
from cryolithe.work.watcher import Watcher

STEP_FIELDS = ("step", "seconds", "loss", "learning_rate")
VALIDATION_FIELDS = ("step", "seconds", "loss")
LOG_EVERY = 5
SAVE_EVERY_S = 120.0
# What a training leaves in its folder.
LEFTOVERS = ("state.safetensors*", "train.csv", "validation.csv", "learning.png", "tensorboard/events.*")


class _Recorder(Recorder):
    """What the first process does beside training."""

    def __init__(self, run: Resolved, recipe: Recipe, state: SambaState, watcher: Watcher, fingerprint: str) -> None:
        self._recipe, self._fingerprint, self._watcher = recipe, fingerprint, watcher
        resumed = state.step if run.job.resume else None
        super().__init__(run.job.folder, (STEP_FIELDS, VALIDATION_FIELDS), resumed, LEFTOVERS)
        self._share = 0.0
        self._saved = state.seconds

    def on_step(self, state: SambaState, progress: Progress) -> None:
        """Log, and save now and then."""
        self.log(state, progress, state.step % LOG_EVERY == 0 or state.step == 1)
        self._watcher.advance(max(0.0, progress.done - self._share))
        self._share = max(self._share, progress.done)
        if state.seconds - self._saved > SAVE_EVERY_S:
            self.save(state)

    def on_validation(self, state: SambaState, loss: float) -> None:
        """Log and save."""
        self.validations.add((state.step, state.seconds, loss))
        self.board.step(state.step, {"loss held back": loss})
        self._watcher.note(f"step {state.step}, {state.seconds / 60:.1f} min: loss held back {loss:.5f}")
        self.save(state)

    def save(self, state: SambaState) -> None:
        """State and curve."""
        self._saved = state.seconds
        save_state(self.folder / "state.safetensors", state, self._recipe, self._fingerprint)
        plot_learning(self.folder / "learning.png", self.steps, self.validations)


def train_weights(run: Resolved, recipe: Recipe, place: Place, watcher: Watcher) -> Weights:
    """Train as a job says, or go on; the weights are written beside the output.

    Raises:
        KeyboardInterrupt: if the user asked to stop; the state is saved.
        CryoLitheError: if a file cannot be written, or the state is not of this job.
    """
    job, fingerprint = run.job, run.source.fingerprint()
    limit = job.limit_seconds(place.device)
    start = load_weights(job.model).network if job.model is not None else None
    blocks = Blocks(run.source, recipe)
    state = new_state(recipe, place, start)
    if job.resume and job.state.exists():
        load_state(job.state, state, recipe, fingerprint)
        watcher.note(f"Going on with the training at step {state.step}, {state.seconds / 60:.1f} min.")
        state.finished = state.finished and (state.seconds >= limit or state.step >= recipe.most_steps)
    watcher.stage("Training", 1.0)
    with recording(place, partial(_Recorder, run, recipe, state, watcher, fingerprint)) as record:
        hooks = Hooks(
            on_step=record.told("on_step"),
            on_validation=record.told("on_validation"),
            stop_wanted=record.interrupted.is_set,
            limit_seconds=limit,
        )
        train(recipe, blocks, place, hooks, state)
    recorder, interrupted = record.recorder, state.interrupted or record.interrupted.is_set()
    if recorder is not None:
        recorder.save(state)
        if interrupted:
            watcher.note(f"State of step {state.step} saved in {job.folder}.")
            raise KeyboardInterrupt
        save_weights(job.weights, state.best, _card(run, recipe, place, state, fingerprint))
        watcher.note(f"Trained {state.step} steps in {state.seconds / 60:.1f} min; weights: {job.weights}")
        return load_weights(job.weights)
    if interrupted:
        raise KeyboardInterrupt
    return Weights(state.best.cpu(), {}, "")


def finished_weights(job_weights: Path, state: Path, fingerprint: str) -> Weights | None:
    """Weights of a training on this volume that came to its end before the run was interrupted."""
    if not (job_weights.is_file() and state.is_file()):
        return None
    _, values = read_tensors(state, FORMAT, "a saved training state")
    if not values["finished"] or values["volume"] != fingerprint:
        return None
    return load_weights(job_weights)


def _card(run: Resolved, recipe: Recipe, place: Place, state: SambaState, fingerprint: str) -> dict[str, Any]:
    """What the weights' file tells of its making."""
    volume, scale = run.source.volume, run.source.survey.scale
    return {
        "cryolithe": __version__,
        "method": "samba",
        "volume": {
            "name": volume.path.name,
            "shape_zyx": list(volume.shape),
            "voxel_size_angstrom": volume.voxel_size_angstrom,
            "fingerprint": fingerprint,
            "centre": scale.centre,
            "unit": scale.unit,
        },
        "recipe": recipe.plain(),
        "steps": state.step,
        "seconds": round(state.seconds),
        "loss_held_back": state.best_loss,
        "device": str(place.device),
        "precision": precision_name(place.precision),
        "processes": place.world,
    }
