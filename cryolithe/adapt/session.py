"""An adaptation with its folder: state, best weights, tables, checks; resumable at any time.

NAME.safetensors            the model: the best of those checked; not written if all are worse than before
NAME.run/config.json        the configuration with its defaults
NAME.run/checks.json        what each check found, from before the first step on
NAME.run/state.safetensors  everything a resumed run needs
NAME.run/best.safetensors, train.csv, validation.csv, fsc.png, tensorboard/
"""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryolithe.adapt.checking import (
    Check,
    best_of,
    check_network,
    cube_volume,
    read_checks,
    why_not,
)
from cryolithe.adapt.config import AdaptConfig
from cryolithe.adapt.cubes import Cube, Draw, draw_cube
from cryolithe.adapt.figure import draw_checks
from cryolithe.adapt.material import Adaptation, Material, prepare, with_white_noise
from cryolithe.adapt.spectrum import cube_loss
from cryolithe.adapt.turned import Turned, turned_series
from cryolithe.errors import ModelError, SettingsError
from cryolithe.formats.files import replacing
from cryolithe.network import Network
from cryolithe.optimise.loop import Hooks, Progress, Task, optimise
from cryolithe.optimise.recorder import Recorder, recording
from cryolithe.optimise.state import (
    check_same,
    check_same_files,
    means_in,
    means_told,
    read_state,
    restore,
    went_on,
    write_state,
)
from cryolithe.optimise.step import follow, gradient, update
from cryolithe.report.json_files import write_json
from cryolithe.training.class_scoring import SUMMARY
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import Run, draw_run
from cryolithe.training.loop import TrainState, band_weights, batch_loss, gather_for, learning_rate_factor, new_state
from cryolithe.training.records import STEP_FIELDS
from cryolithe.training.state import save_model
from cryolithe.work.watcher import WARNING

FORMAT = "cryolithe-adapt-state"
LOG_EVERY = 10
# Part of the time that checks may take, about.
CHECKING_SHARE = 0.25
# Of the way from the weights before, where the whole way forgets too much; then more or less of it.
FIRST_SHARE, SHARE_STEP = 0.5, 0.25
LEFTOVERS = ("*.safetensors", "*.safetensors.partial", "train.csv", "validation.csv", "checks.json", "config.json",
             "fsc.png", "tensorboard/events.*")  # fmt: skip
# What a step learns from: a cube of the lab's, a simulated run, a place whose volume is turned.
Lesson = Cube | Run | Turned
CHECK_FIELDS = ("step", "fsc_half", "fsc_left_out", "anchor_db", *SUMMARY)
_CUBE_STREAM, _ANCHOR_STREAM, _TURN_STREAM = 61, 67, 79


@dataclass(frozen=True)
class Outcome:
    """What came of an adaptation.

    Attributes:
        before: the check before the first step.
        written: the check of the weights that were written; None if it was interrupted.
        steps: done.
        interrupted: whether it was asked to stop; its state is saved.
    """

    before: Check
    written: Check | None
    steps: int
    interrupted: bool


def adapt(work: Adaptation) -> Outcome:
    """Adapt a model as told, and write it if it is better.

    Raises:
        InputError: if a series is too small, or its halves have nothing in common.
        ModelError: if no checked weights are better than those before: nothing is written.
        CryoLitheError: if the loss is not finite or a file cannot be written.
    """
    work, before = with_white_noise(work)
    made = prepare(work, before)
    state = new_state(made.training, work.place, work.model.network)
    decides = {"config": work.config.model_dump(mode="json"), "inputs": dict(work.inputs)}
    path = work.folder / "state.safetensors"
    if work.resume:
        tensors, values = read_state(path, FORMAT)
        for name, now in decides.items():
            check_same(path, values[name], now)
        check_same_files(values.get("library"), work.library_files)
        _check_same_noise(path, values, work)
        restore(path, state, tensors, values)
    means = means_in(work.card)
    if state.step < work.config.most_steps and (doubt := went_on(state, means)):
        work.watcher.note(f"{WARNING}{doubt}")
    told = {**decides, "library": dict(work.library_files), "noise_gain": work.card.get("noise_gain")}
    with recording(work.place, partial(_Recorder, work, made, state, told)) as record:
        recorder = record.recorder
        assert recorder is not None
        recorder.begin(state)
        # The last checks, and what follows them, take their time too.
        left = work.deadline - work.clock() - 2.5 * recorder.check_seconds
        recorder.plan(left)
        if work.config.most_steps and left > 0:
            limit = state.seconds + left
            hooks = Hooks(record.told("after_step"), stop_wanted=record.interrupted.is_set, limit_seconds=limit)
            optimise(_task(work, made, state), work.place, hooks, state)
        elif work.config.most_steps and not state.step and (minutes := work.card.get("minutes")):
            work.watcher.note(f"{WARNING}{_no_time_told(minutes, minutes - left / 60)}")
    return recorder.finish(state)


def _no_time_told(minutes: float, taken: float) -> str:
    """What to tell of a run whose minutes, which were given, are fewer than all but its steps takes."""
    return (
        f"nothing was learned: {minutes:g} minutes left no time for a step, for what comes before the first and after "
        f"the last takes {taken:.1f} minutes here; give --minutes {math.ceil(2 * taken)} or more"
    )


def _check_same_noise(path: Path, values: Mapping[str, Any], work: Adaptation) -> None:
    """Refuse to go on with images, or by checks, that are not those of the steps before."""
    now = work.card.get("noise_gain")
    # Earlier versions told nothing, and judged filtered images by another yardstick.
    if values.get("noise_gain") != now:
        raise SettingsError(
            f"{path} was saved by a run whose images were filtered otherwise, or judged as earlier versions did; give "
            "--overwrite to start anew"
        )


def _task(work: Adaptation, made: Material, state: TrainState) -> Task[TrainState, list[Lesson]]:
    weights = band_weights(made.training).to(work.place.device)
    timed = work.config.steps is None
    return Task(
        steps=work.config.most_steps,
        batches=_batches(work, made, state.step),
        learning_rate=lambda step, share: (
            work.config.learning_rate * learning_rate_factor(step, made.training, share if timed else 0.0)
        ),
        gradient=lambda state, batch: _gradient(state, batch, work, made, weights),
        update=lambda state, rate: _update(state, work.config, made.training, rate),
        remedy="lower --learning-rate or check the data",
    )


def _batches(work: Adaptation, made: Material, first_step: int) -> Generator[list[Lesson], None, None]:
    """What each step learns from: cubes of the lab's series and runs of simulated ones, by the step's own numbers."""
    config, network = work.config, work.model.network.config
    for step in range(first_step, config.most_steps):
        batch: list[Lesson] = []
        for number in range(config.own_runs):
            rng = np.random.default_rng([config.seed, _CUBE_STREAM, step, number])
            chosen = made.learned[int(rng.integers(len(made.learned)))]
            layout = made.layouts[chosen]
            how = Draw(layout.training, cut=config.wedge_chance, flip=config.flip_chance)
            batch.append(draw_cube(work.series[chosen], layout, how, rng))
        for number in range(config.anchor_runs):
            rng = np.random.default_rng([config.seed, _ANCHOR_STREAM, step, number])
            series = made.anchors[int(rng.integers(len(made.anchors)))]
            batch.append(draw_run(series, made.training, network, rng))
        seed = (config.seed, _TURN_STREAM, step)
        rng = np.random.default_rng(seed)
        if config.turned_weight and rng.random() < config.turned_chance:
            chosen = made.learned[int(rng.integers(len(made.learned)))]
            layout = made.turned_layouts[chosen]
            cube = draw_cube(work.series[chosen], layout, Draw(layout.training), rng)
            batch.append(Turned(cube, chosen, (*seed, 1)))
        yield batch


def _gradient(
    state: TrainState, batch: Sequence[Lesson], work: Adaptation, made: Material, weights: torch.Tensor
) -> float:
    """Gradient of the loss of a batch: of the lab's cubes, simulated runs and a turned volume, by their weights."""
    config, place = work.config, work.place
    simulated_weight = (1 - config.own_weight - config.turned_weight) / config.anchor_runs
    window = work.model.network.config.input.ramp_window

    def losses() -> Iterator[torch.Tensor]:
        for one in batch:
            if isinstance(one, Cube):
                volume = cube_volume(state.network, one, place).cpu()
                loss = cube_loss(volume, one, made.balance, window, config.wedge_weight)
                yield config.own_weight / config.own_runs * loss
            else:
                run = _turned_run(one, state, work, made) if isinstance(one, Turned) else one
                weight = config.turned_weight if isinstance(one, Turned) else simulated_weight
                simulated = gather_for(run, state.network, place)
                loss = batch_loss(state.network, simulated, weights, place.precision, made.training.loss)
                yield weight * loss

    return gradient(state, losses())


def _turned_run(one: Turned, state: TrainState, work: Adaptation, made: Material) -> Run:
    """A run of the series that a place's volume, as the averaged weights make it, gives when it is turned."""
    network = work.model.network.config
    with torch.no_grad():
        volume = cube_volume(state.averaged, one.cube, work.place).cpu()
    rng = np.random.default_rng(one.seed)
    lab = (work.series[one.series], made.noise_rows[one.series])
    return draw_run(turned_series(volume, lab, network.head, rng), made.training, network, rng)


def _update(state: TrainState, config: AdaptConfig, training: TrainConfig, rate: float) -> float:
    """One step of the optimiser and of the average; returns the norm of the gradient."""
    norm = update(state, rate, training.clip_norm)
    follow(state.averaged, state.network, config.ema_decay, state.step)
    return norm


def _which(check: Check, steps: int) -> str:
    """Which weights were checked, of a run of so many steps."""
    way = "" if check.share == 1.0 else f"{100 * check.share:g} % of the way to "
    return f"{way}those after step {check.step} of {steps}"


def _what_ended(steps: int, most: int | None) -> str:
    """Which option ended a run after so many steps.

    Args:
        steps: done.
        most: that were asked for, or None.
    """
    return f"--steps {most} ended the run" if most is not None and steps >= most else "--minutes ended the run"


class _Recorder(Recorder):
    """What is done after a step: logs, checks, states, the best weights."""

    def __init__(self, work: Adaptation, made: Material, state: TrainState, decides: dict[str, Any]) -> None:
        self.work, self.made, self.decides = work, made, decides
        super().__init__(work.folder, (STEP_FIELDS, CHECK_FIELDS), state.step if work.resume else None, LEFTOVERS)
        self.checks = read_checks(work.folder / "checks.json", state.step) if work.resume else []
        self.check_seconds, self._share, self._shown, self._count = 0.0, 0.0, 0.0, work.config.checks
        write_json(work.folder / "config.json", decides)

    def begin(self, state: TrainState) -> None:
        """The check of the weights before the first step."""
        self.work.watcher.stage("Checking the model", 1)
        started = self.work.clock()
        if not self.checks:
            self._check(state, cubes=self.made.held_before)
            self.check_seconds = self.work.clock() - started
            if self.made.held_before is not None:
                self._check(state)
        self.check_seconds = self.check_seconds or self.work.clock() - started
        self._share = state.step / max(1, self.work.config.most_steps)
        self.work.watcher.stage("Learning", 1.0)
        self.work.watcher.advance(self._share)
        self._shown = self._share

    def plan(self, seconds: float) -> None:
        """Make fewer checks where they would take much of the time that is left."""
        if self.work.config.steps is None and self.check_seconds and math.isfinite(seconds):
            affordable = int(CHECKING_SHARE * seconds / self.check_seconds)
            self._count = max(1, min(self._count, affordable))

    def after_step(self, state: TrainState, progress: Progress) -> bool:
        """Log; check when a part of the whole is done."""
        self.work.watcher.advance(max(0.0, progress.done - self._shown))
        self._shown = max(self._shown, progress.done)
        self.log(state, progress, state.step % LOG_EVERY == 0 or state.step == self.work.config.most_steps)
        done = progress.done if self.work.config.steps is None else state.step / self.work.config.steps
        due = int(done * self._count) > int(self._share * self._count)
        self._share = done
        if due and done < 1:
            self._check(state)
            self._save(state)
        return False

    def finish(self, state: TrainState) -> Outcome:
        """The last check, and the model; an interrupted run only saves its state."""
        before = self.checks[0]
        if state.interrupted:
            self._save(state)
            return Outcome(before, None, state.step, True)
        self.work.watcher.stage("Checking the result", 1)
        share, limit = FIRST_SHARE, self.work.config.most_loss_db
        last = self._checked(state)
        if state.step and why_not(last, before, limit):
            # Weights on the way keep most of what is gained, and forget much less (Wortsman et al. 2022).
            half = self._checked(state, share)
            self._checked(state, share - SHARE_STEP if why_not(half, before, limit) else share + SHARE_STEP)
        self._save(state)
        draw_checks(self.folder / "fsc.png", self.checks)
        best = best_of(self.checks, limit) or (None if state.step else before)
        if best is None:
            last = max(self.checks[1:], key=lambda check: check.score)
            raise ModelError(
                f"no model is written, for none is better than {self.work.model.name}: the best of the checked "
                f"weights are {_which(last, state.step)}: {why_not(last, before, limit)} ({last.words}; before: "
                f"{before.words}); {_what_ended(state.step, self.work.config.steps)}: give more, a lower "
                f"--learning-rate or more series, or keep {self.work.model.name}; all checks are in {self.folder}"
            )
        with replacing(self.work.output, overwrite=True) as temporary:
            shutil.copyfile(self.folder / "best.safetensors", temporary)
        return Outcome(before, best, state.step, False)

    def _on_the_way(self, state: TrainState, share: float) -> Network:
        """The averaged weights, or weights on the straight way to them from those before the first step."""
        if share == 1.0:
            return state.averaged
        network = copy.deepcopy(self.work.model.network).to(self.work.place.device)
        with torch.no_grad():
            for weight, moved in zip(network.parameters(), state.averaged.parameters(), strict=True):
                weight.lerp_(moved, share)
        return network

    def _checked(self, state: TrainState, share: float = 1.0) -> Check:
        """The check of weights; a finished run that is resumed has made it before."""
        for check in reversed(self.checks):
            if (check.step, check.share) == (state.step, share):
                return check
        self._check(state, share)
        return self.checks[-1]

    def _check(self, state: TrainState, share: float = 1.0, cubes: Sequence[Cube] | None = None) -> None:
        """Check weights on the cubes held back; with other cubes, those of images as they were."""
        made, as_they_were = self.made, cubes is not None
        network = self._on_the_way(state, share)
        found = check_network(network, cubes or made.held, (made.examples, made.training), self.work.place)
        white = made.held_before is not None and not as_they_were
        check = replace(found, step=state.step, share=share, white=white)
        self.checks.append(check)
        fidelity = [check.fidelity.get(name, float("nan")) for name in SUMMARY]
        self.validations.add((check.step, check.fsc_half, check.fsc_left_out, check.anchor_db, *fidelity))
        write_json(self.folder / "checks.json", [one.record() for one in self.checks])
        how = ("" if share == 1.0 else f", {share:g} of the way") + (", noise made white" if white else "")
        self.work.watcher.note(f"step {check.step}{how}: {check.words}")
        best = best_of(self.checks, self.work.config.most_loss_db)
        if check is (best or self.checks[0]):
            card = {**self.work.card, "adapted": self._story(check, state), **means_told(state)}
            if as_they_were:
                card["noise_gain"] = self.work.model.card.get("noise_gain")
            save_model(self.folder / "best.safetensors", network, card)

    def _story(self, check: Check, state: TrainState) -> dict[str, Any]:
        """What the model's card tells of the adaptation."""
        return {
            "from": {"model": self.work.model.name, "sha256": self.work.model.sha256},
            "config": self.decides["config"],
            "series": [one.name for one in self.work.series],
            "steps": state.step,
            "training_seconds": round(state.seconds),
            "before": self.checks[0].record(),
            "after": check.record(),
        }

    def _save(self, state: TrainState) -> None:
        write_state(self.folder / "state.safetensors", state, FORMAT, self.decides)
