"""The training with its records: state, tables, curve, weights; resumable at any time.

NAME.safetensors            the averaged weights of the best score on the rows held back, and their gain by shell
NAME.run/state.safetensors  everything a resumed training needs
NAME.run/train.csv, validation.csv, learning.png, tensorboard/
"""

from __future__ import annotations

from functools import partial
from typing import Any

from cryolithe import __version__
from cryolithe.denoise.figures import plot_learning
from cryolithe.denoise.n2n.halves import HalfPair
from cryolithe.denoise.n2n.job import N2nJob
from cryolithe.denoise.n2n.network import BACKBONES, Denoiser, load_denoiser, save_denoiser
from cryolithe.denoise.n2n.pairs import Patches
from cryolithe.denoise.n2n.recipe import Recipe, make_recipe
from cryolithe.denoise.n2n.train import FORMAT, Hooks, N2nState, load_state, new_state, save_state, train, validated
from cryolithe.denoise.n2n.validation import Held
from cryolithe.device import precision_name
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Progress
from cryolithe.optimise.recorder import Recorder, recording
from cryolithe.optimise.tensors import read_tensors
from cryolithe.work.watcher import Watcher

STEP_FIELDS = ("step", "seconds", "loss", "learning_rate")
VALIDATION_FIELDS = ("step", "seconds", "loss", "correlation", "lost")
LOG_EVERY = 5
SAVE_EVERY_S = 120.0
# What a training leaves in its folder.
LEFTOVERS = ("state.safetensors*", "train.csv", "validation.csv", "learning.png", "tensorboard/events.*")


def trained(job: N2nJob, pair: HalfPair, place: Place, watcher: Watcher) -> Denoiser:
    """Train as a job says, or go on; the weights are written beside the output.

    Raises:
        KeyboardInterrupt: if the user asked to stop; the state is saved.
        CryoLitheError: if a file cannot be written, or the state is not of this job.
    """
    fingerprint = pair.fingerprint()
    start = load_denoiser(job.model) if job.model is not None else None
    config = start.config if start else BACKBONES[job.backbone_on(place.device)]
    recipe = make_recipe(config, place.device, loss=job.loss, batch=job.batch, seed=job.seed)
    if job.resume and (done := _finished(job, fingerprint)):
        watcher.note(f"The training is done: {job.weights}")
        return done
    patches = Patches([pair], recipe.edge, config.multiple, recipe.seed)
    state = new_state(recipe, place, start.network if start else None)
    if job.resume and job.state.exists():
        load_state(job.state, state, recipe, fingerprint)
        watcher.note(f"Going on with the training at step {state.step}, {state.seconds / 60:.1f} min.")
        state.finished = False
    limit = job.limit_seconds(place.device)
    watcher.note(_plan(job, recipe, patches, place))
    watcher.stage("Training", 1.0)
    with recording(place, partial(_Recorder, job, recipe, state, watcher, fingerprint)) as record:
        hooks = Hooks(
            on_step=record.told("on_step"),
            on_validation=record.told("on_validation"),
            stop_wanted=record.interrupted.is_set,
            limit_seconds=limit,
        )
        train(recipe, patches, place, hooks, state)
    assert record.recorder is not None
    record.recorder.save(state)
    if record.interrupted.is_set() and not state.finished:
        watcher.note(f"State of step {state.step} saved in {job.folder}; --resume goes on.")
        raise KeyboardInterrupt
    held = validated(recipe, patches, place, state.best)
    if held.too_smooth:
        watcher.note(
            f"Warning: the network smooths signal away: of the rows held back, at {held.lost_at_per_px:.2f} cycles per "
            f"voxel the denoised halves correlate with the other half by {held.lost:.2f} less than the raw ones; train "
            "longer (--train-minutes), or try --loss fsc"
        )
    save_denoiser(job.weights, state.best, config, held.gain, _card(recipe, pair, place, state, held))
    watcher.note(f"Trained {state.step} steps in {state.seconds / 60:.1f} min; weights: {job.weights}")
    return load_denoiser(job.weights)


def _finished(job: N2nJob, fingerprint: str) -> Denoiser | None:
    """Weights of a training on these halves that came to its end before the run was interrupted."""
    if not (job.weights.is_file() and job.state.is_file()):
        return None
    _, values = read_tensors(job.state, FORMAT, "a saved training state")
    if not values["finished"] or values["pairs"] != fingerprint:
        return None
    return load_denoiser(job.weights)


def _plan(job: N2nJob, recipe: Recipe, patches: Patches, place: Place) -> str:
    edges = " x ".join(map(str, patches.shape))
    name = "weights of --model" if job.model else job.backbone_on(place.device)
    return (
        f"Plan: {name}, loss {recipe.loss}, {recipe.batch} patches of {edges} voxels (z, y, x) a step, at most "
        f"{job.limit_seconds(place.device) / 60:g} min, {place.device} ({precision_name(place.precision)}); the last "
        f"{patches.held_count} rows along y are held back"
    )


class _Recorder(Recorder):
    """What is done beside training."""

    def __init__(self, job: N2nJob, recipe: Recipe, state: N2nState, watcher: Watcher, fingerprint: str) -> None:
        self._path, self._recipe, self._fingerprint, self._watcher = job.state, recipe, fingerprint, watcher
        super().__init__(job.folder, (STEP_FIELDS, VALIDATION_FIELDS), state.step if job.resume else None, LEFTOVERS)
        self._done, self._saved = 0.0, state.seconds

    def on_step(self, state: N2nState, progress: Progress) -> None:
        """Log, and save now and then."""
        self.log(state, progress, state.step % LOG_EVERY == 0 or state.step == 1)
        done = min(1.0, progress.done)
        self._watcher.advance(max(0.0, done - self._done))
        self._done = max(self._done, done)
        if state.seconds - self._saved > SAVE_EVERY_S:
            self.save(state)

    def on_validation(self, state: N2nState, held: Held) -> None:
        """Log and save."""
        self.validations.add((state.step, state.seconds, 1 - held.correlation, held.correlation, held.lost))
        self.board.step(state.step, {"correlation held back": held.correlation})
        self._watcher.note(
            f"step {state.step}, {state.seconds / 60:.1f} min: correlation with the other half, held back, "
            f"{held.correlation:.4f}"
        )
        self.save(state)

    def save(self, state: N2nState) -> None:
        """State and curve."""
        self._saved = state.seconds
        save_state(self._path, state, self._recipe, self._fingerprint)
        plot_learning(self.folder / "learning.png", self.steps, self.validations)


def _card(recipe: Recipe, pair: HalfPair, place: Place, state: N2nState, held: Held) -> dict[str, Any]:
    """What the weights' file tells of its making."""
    return {
        "cryolithe": __version__,
        "method": "n2n",
        "halves": {
            "names": [half.volume.path.name for half in (pair.first, pair.second)],
            "shape_zyx": list(pair.shape),
            "voxel_size_angstrom": pair.voxel_size_angstrom,
            "fingerprint": pair.fingerprint(),
        },
        "recipe": recipe.plain(),
        "steps": state.step,
        "seconds": round(state.seconds),
        "held_back": {
            "correlation": held.correlation,
            "most_lost": held.lost,
            "most_lost_at_per_px": held.lost_at_per_px,
        },
        "device": str(place.device),
        "precision": precision_name(place.precision),
    }
