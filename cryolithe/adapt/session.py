"""An adaptation with its folder: state, best weights, tables, checks; resumable at any time.

NAME.safetensors            the model: the best of those checked; not written if all are worse than before
NAME.run/config.json        the configuration with its defaults
NAME.run/checks.json        what each check found, from before the first step on
NAME.run/state.safetensors  everything a resumed run needs
NAME.run/best.safetensors, train.csv, validation.csv, fsc.png, tensorboard/
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryolithe.adapt.anchor import anchor_series
from cryolithe.adapt.checking import Check, best_of, check_network, check_of_record, cube_volume, why_not
from cryolithe.adapt.config import AdaptConfig, anchor_config
from cryolithe.adapt.cubes import Cube, Draw, Layout, draw_cube, layout_of
from cryolithe.adapt.figure import draw_checks
from cryolithe.adapt.halves import HalfSeries, image_snr_db
from cryolithe.adapt.spectrum import Balance, cube_loss, fit_balance
from cryolithe.errors import InputError, ModelError, OutputError
from cryolithe.formats.files import replacing
from cryolithe.network import Network
from cryolithe.network.checkpoint import Model
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks, Progress, Task, optimise
from cryolithe.optimise.recorder import Recorder, recording
from cryolithe.optimise.state import check_same, read_state, restore, write_state
from cryolithe.optimise.step import follow, gradient, update
from cryolithe.report import write_json
from cryolithe.simulation import Molecule
from cryolithe.training.class_scoring import SUMMARY
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import Run, draw_run
from cryolithe.training.loop import TrainState, band_weights, batch_loss, gather_for, learning_rate_factor, new_state
from cryolithe.training.records import STEP_FIELDS
from cryolithe.training.series import TrainingSeries
from cryolithe.training.session import run_folder
from cryolithe.training.state import save_model
from cryolithe.training.validation import Example, validation_set
from cryolithe.work.watcher import Watcher

FORMAT = "cryolithe-adapt-state"
LOG_EVERY = 10
# Cubes by which the scale of shells is fitted, and tilts that checks leave out at either end, as a part of all.
FIT_CUBES, ENDS = 6, 1 / 7
# Part of the time that checks may take, about.
CHECKING_SHARE = 0.25
HALFWAY = 0.5
# Rows of a series, at most, whose noise is put into simulated images: memory must not grow with images.
NOISE_ROWS = 128
# By which halves have to agree.
LEAST_DEVIATIONS = 4.0
LEFTOVERS = ("*.safetensors", "*.safetensors.partial", "train.csv", "validation.csv", "checks.json", "config.json",
             "fsc.png", "tensorboard/events.*")  # fmt: skip
CHECK_FIELDS = ("step", "fsc_half", "fsc_left_out", "anchor_db", *SUMMARY)
_CUBE_STREAM, _ANCHOR_STREAM, _FIT_STREAM, _HELD_STREAM = 61, 67, 71, 73


@dataclass(frozen=True)
class Adaptation:
    """What an adaptation is made of.

    Attributes:
        config: what decides it.
        model: to begin with.
        series: of the lab.
        inputs: SHA-256 of the files that decide the series, by name; a resumed run needs the same.
        place: device and precision.
        output: model to write.
        watcher: is told.
        card: what the model file tells beside what was found.
        library: molecules of the simulated specimens; procedural ones without any.
        resume: go on from the state in the run's folder.
        deadline: when all is to be done, by ``clock``.
        clock: seconds.
    """

    config: AdaptConfig
    model: Model
    series: Sequence[HalfSeries]
    inputs: Mapping[str, str]
    place: Place
    output: Path
    watcher: Watcher
    card: dict[str, Any] = field(default_factory=dict)
    library: tuple[Molecule, ...] = ()
    resume: bool = False
    deadline: float = float("inf")
    clock: Callable[[], float] = time.monotonic

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return run_folder(self.output)


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


@dataclass(frozen=True)
class _Material:
    """All that steps and checks need, made before the first one."""

    layouts: Sequence[Layout]
    balance: Balance
    anchors: Sequence[TrainingSeries]
    training: TrainConfig
    held: Sequence[Cube]
    examples: Sequence[Example]


def adapt(work: Adaptation) -> Outcome:
    """Adapt a model as told, and write it if it is better.

    Raises:
        InputError: if a series is too small, or its halves have nothing in common.
        ModelError: if no checked weights are better than those before: nothing is written.
        CryoLitheError: if the loss is not finite or a file cannot be written.
    """
    made = _prepare(work)
    state = new_state(made.training, work.place, work.model.network)
    decides = {"config": work.config.model_dump(mode="json"), "inputs": dict(work.inputs)}
    path = work.folder / "state.safetensors"
    if work.resume:
        tensors, values = read_state(path, FORMAT)
        for name, now in decides.items():
            check_same(path, values[name], now)
        restore(path, state, tensors, values)
    with recording(work.place, partial(_Recorder, work, made, state, decides)) as record:
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
    return recorder.finish(state)


def _task(work: Adaptation, made: _Material, state: TrainState) -> Task[TrainState, list[Cube | Run]]:
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


def _prepare(work: Adaptation) -> _Material:
    """Divide the series, fit the scale, simulate."""
    config, network, place = work.config, work.model.network, work.place
    layouts = [layout_of(one, network.config, config.cube_px, config.held_share) for one in work.series]
    shape = tuple(min(layout.blocks[axis] for layout in layouts) for axis in range(3))
    edges = [count * network.config.head.stride for count in shape]
    # Sums over shells need cubes of one shape.
    layouts = [layout_of(one, network.config, edges, config.held_share) for one in work.series]
    window = network.config.input.ramp_window
    work.watcher.stage("Looking at the series", FIT_CUBES)
    fit = []
    with torch.no_grad():
        on_device = copy.deepcopy(network).to(place.device)
        for number in range(max(FIT_CUBES, len(layouts))):
            chosen = number % len(layouts)
            rng = np.random.default_rng([config.seed, _FIT_STREAM, number])
            how = Draw(layouts[chosen].training, half=number // len(layouts) % 2, own=True)
            cube = draw_cube(work.series[chosen], layouts[chosen], how, rng)
            fit.append((cube, cube_volume(on_device, cube, place).cpu()))
            work.watcher.advance(1)
    balance = fit_balance(fit, window)
    if balance.deviations < LEAST_DEVIATIONS:
        raise InputError(
            f"{work.series[0].name}: the back-projections of the two halves have nothing in common that is not chance "
            f"({balance.deviations:.1f} sigma where it is clearest, expected {LEAST_DEVIATIONS:g} or more), so that "
            "one cannot teach the other; check that they are halves of one series, and the angles, axis and alignment"
        )
    some = layouts[0].training
    some = range(max(some.start, (len(some) - NOISE_ROWS) // 2), some.stop)[:NOISE_ROWS]
    lab = (work.series[0], some, image_snr_db(work.series[0], some))
    training = anchor_config(config, network.config, work.series[0].halves[0].angles_deg, lab[2])
    work.watcher.stage("Simulating specimens", config.anchors + 1)
    anchors = []
    for number in range(config.anchors):
        anchors.append(anchor_series(number, config, training, work.library, lab))
        work.watcher.advance(1)
    examples = validation_set(training, Path(), work.library)
    return _Material(layouts, balance, anchors, training, _held_cubes(work, layouts), examples)


def _held_cubes(work: Adaptation, layouts: Sequence[Layout]) -> list[Cube]:
    """Cubes of the rows held back: one half with all of its tilts, the other without those at the ends, in turn."""
    cubes = []
    for number in range(max(work.config.held_cubes, 2 * len(layouts))):
        chosen = number // 2 % len(layouts)
        series = work.series[chosen]
        ends = max(1, round(ENDS * len(series.halves[0].tilts))) if number % 2 else 0
        rng = np.random.default_rng([work.config.seed, _HELD_STREAM, number])
        # With all tilts as often of the one half as of the other.
        how = Draw(layouts[chosen].held, both_ends=ends, half=(number + number // 2) % 2)
        cubes.append(draw_cube(series, layouts[chosen], how, rng))
    return cubes


def _batches(work: Adaptation, made: _Material, first_step: int) -> Generator[list[Cube | Run], None, None]:
    """What each step learns from: cubes of the lab's series and runs of simulated ones, by the step's own numbers."""
    config, network = work.config, work.model.network.config
    for step in range(first_step, config.most_steps):
        batch: list[Cube | Run] = []
        for number in range(config.own_runs):
            rng = np.random.default_rng([config.seed, _CUBE_STREAM, step, number])
            chosen = int(rng.integers(len(work.series)))
            layout = made.layouts[chosen]
            how = Draw(layout.training, cut=config.wedge_chance, flip=config.flip_chance)
            batch.append(draw_cube(work.series[chosen], layout, how, rng))
        for number in range(config.anchor_runs):
            rng = np.random.default_rng([config.seed, _ANCHOR_STREAM, step, number])
            series = made.anchors[int(rng.integers(len(made.anchors)))]
            batch.append(draw_run(series, made.training, network, rng))
        yield batch


def _gradient(
    state: TrainState, batch: Sequence[Cube | Run], work: Adaptation, made: _Material, weights: torch.Tensor
) -> float:
    """Gradient of the loss of a batch: the mean of the lab's cubes and that of simulated runs, by their weights."""
    config, place = work.config, work.place
    window = work.model.network.config.input.ramp_window

    def losses() -> Iterator[torch.Tensor]:
        for one in batch:
            if isinstance(one, Cube):
                volume = cube_volume(state.network, one, place).cpu()
                loss = cube_loss(volume, one, made.balance, window, config.wedge_weight)
                yield config.own_weight / config.own_runs * loss
            else:
                simulated = gather_for(one, state.network, place)
                loss = batch_loss(state.network, simulated, weights, place.precision, made.training.loss)
                yield (1 - config.own_weight) / config.anchor_runs * loss

    return gradient(state, losses())


def _update(state: TrainState, config: AdaptConfig, training: TrainConfig, rate: float) -> float:
    """One step of the optimiser and of the average; returns the norm of the gradient."""
    norm = update(state, rate, training.clip_norm)
    follow(state.averaged, state.network, config.ema_decay, state.step)
    return norm


class _Recorder(Recorder):
    """What is done after a step: logs, checks, states, the best weights."""

    def __init__(self, work: Adaptation, made: _Material, state: TrainState, decides: dict[str, Any]) -> None:
        self.work, self.made, self.decides = work, made, decides
        super().__init__(work.folder, (STEP_FIELDS, CHECK_FIELDS), state.step if work.resume else None, LEFTOVERS)
        self.checks = _read_checks(work.folder / "checks.json", state.step) if work.resume else []
        self.check_seconds, self._share, self._shown, self._count = 0.0, 0.0, 0.0, work.config.checks
        write_json(work.folder / "config.json", decides)

    def begin(self, state: TrainState) -> None:
        """The check of the weights before the first step."""
        self.work.watcher.stage("Checking the model", 1)
        started = self.work.clock()
        if not self.checks:
            self._check(state)
        self.check_seconds = self.work.clock() - started
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
        if self.checks[-1].step != state.step:
            self._check(state)
        if state.step and why_not(self.checks[-1], before, self.work.config.most_loss_db):
            # Weights half-way keep most of what is gained, and forget much less (Wortsman et al. 2022).
            self._check(state, HALFWAY)
        self._save(state)
        draw_checks(self.folder / "fsc.png", self.checks)
        limit = self.work.config.most_loss_db
        best = before if not state.step else best_of(self.checks, limit)
        if best is None:
            last = max(self.checks[1:], key=lambda check: check.score)
            raise ModelError(
                f"no model is written, for none is better than {self.work.model.name}: after {last.step} steps "
                f"{why_not(last, before, limit)} ({last.words}; before: {before.words}); give more --minutes, a lower "
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

    def _check(self, state: TrainState, share: float = 1.0) -> None:
        made = self.made
        place = self.work.place
        network = self._on_the_way(state, share)
        check = check_network(network, (state.step, share), made.held, (made.examples, made.training), place)
        self.checks.append(check)
        fidelity = [check.fidelity.get(name, float("nan")) for name in SUMMARY]
        self.validations.add((check.step, check.fsc_half, check.fsc_left_out, check.anchor_db, *fidelity))
        write_json(self.folder / "checks.json", [one.record() for one in self.checks])
        halfway = "" if share == 1.0 else f", {share:g} of the way"
        self.work.watcher.note(f"step {check.step}{halfway}: {check.words}")
        best = best_of(self.checks, self.work.config.most_loss_db)
        if check is (best or self.checks[0]):
            card = {**self.work.card, "adapted": self._story(check, state)}
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


def _read_checks(path: Path, last_step: int) -> list[Check]:
    """Checks of the run that goes on, up to a step.

    Raises:
        OutputError: if they are not there or damaged.
    """
    try:
        found = [check_of_record(values) for values in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise OutputError(f"{path} cannot be read: {error}; give --overwrite to start anew") from error
    return [check for check in found if check.step <= last_step]
