"""A training run with its folder: states, best and last model, tables, summary; resumable at any time.

NAME.safetensors            the model: the best on the validation set, or the last without one; not written where
                            the weights that the training began with were better
NAME.run/config.yaml        the configuration with its defaults
NAME.run/state.safetensors  everything a resumed run needs
NAME.run/last.safetensors, best.safetensors, train.csv, validation.csv, summary.png, tensorboard/
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryolithe.errors import ModelError, OutputError, ResourceError
from cryolithe.files.yaml_table import yaml_text
from cryolithe.formats.files import nearest_folder, refuse_existing, replacing
from cryolithe.formats.sizes import size_told
from cryolithe.network import Network, build_network
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks, Progress
from cryolithe.optimise.recorder import Recorder, recording
from cryolithe.optimise.state import STARTS_FROM, check_same_files, means_in, means_told, went_on
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.report.json_files import write_json
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import Run
from cryolithe.training.gain import Gain, doubt_about, why_not
from cryolithe.training.loop import TrainState, new_state, train
from cryolithe.training.recipe_maker import RECIPE
from cryolithe.training.records import STEP_FIELDS, log_validation, plot_summary, validation_fields
from cryolithe.training.sources import Source
from cryolithe.training.state import load_state, save_model, save_runs, save_state
from cryolithe.training.validation import Example, Verdict, judge, mean_loss
from cryolithe.work.alone import is_begun

LOG_EVERY = 50
PAIRS_NAME, SIMULATED_NAME, BEGAN_NAME = "pairs.json", "simulated_from.json", "began_with.json"
# What a run leaves in its folder.
LEFTOVERS = (
    "*.safetensors", "*.safetensors.partial", "train.csv", "validation.csv", "summary.png", "config.yaml", PAIRS_NAME,
    SIMULATED_NAME, BEGAN_NAME, "targets_*.npy", "tensorboard/events.*",
)  # fmt: skip


@dataclass(frozen=True)
class Session:
    """What a run is made of.

    Attributes:
        config: the recipe.
        source: of the series.
        place: device, precision, process; process 0 writes.
        output: model to write.
        examples: the validation set.
        card: what the model file tells beside steps, loss and time; its ``began_with`` tells of the model that
            ``start`` is of, and a resumed run needs the same.
        resume: go on from the state in the run's folder.
        limit_seconds: for all steps together.
        start: weights to start from; with a validation set they are judged before the first step.
        began_with: name of the model that these are, where what is trained must be better than it.
        pairs: SHA-256 of the pairs that are trained and validated on, and of noise profiles, by name; a resumed run
            needs the same.
        simulated_from: likewise of recipes and molecules, see `cryolithe.training.recipe_maker.simulated_from`.
        on_step: called with each step.
        on_validation: called with each validation.
        on_doubt: called with what a user should know of how the training goes on.
        on_result: called with what became of the model that is fine-tuned.
    """

    config: TrainConfig
    source: Source
    place: Place
    output: Path
    examples: list[Example] = field(default_factory=list)
    card: dict[str, Any] = field(default_factory=dict)
    resume: bool = False
    limit_seconds: float = float("inf")
    start: Network | None = None
    began_with: str | None = None
    pairs: dict[str, str] = field(default_factory=dict)
    simulated_from: dict[str, str] = field(default_factory=dict)
    on_step: Callable[[Progress], object] = lambda progress: None
    on_validation: Callable[[int, list[Verdict]], object] = lambda step, verdicts: None
    on_doubt: Callable[[str], object] = lambda line: None
    on_result: Callable[[str], object] = lambda line: None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return run_folder(self.output)

    @property
    def start_files(self) -> dict[str, str]:
        """SHA-256 of the model that ``start`` is of, by what to call it; none for random weights."""
        return {STARTS_FROM: self.card["began_with"]["sha256"]} if "began_with" in self.card else {}


def run_folder(output: Path) -> Path:
    """``NAME.run`` beside ``NAME.safetensors``."""
    return output.with_suffix(".run")


def check_output(output: Path, overwrite: bool, resume: bool) -> None:
    """Refuse names that are taken, before any work.

    Raises:
        OutputError: if the model or its folder exist and are neither to be replaced nor to be gone on with.
    """
    taken = [output, *([run_folder(output)] if is_begun(run_folder(output)) else [])]
    for path in taken:
        hint = ", --resume to go on," if (run_folder(output) / "state.safetensors").exists() else ""
        refuse_existing(path, overwrite or resume, hint=hint)


def check_room(output: Path, config: TrainConfig, resume: bool) -> None:
    """Refuse a disk with too little room for a run's state and models, before any work.

    Args:
        output: the model.
        config: of the run.
        resume: the files of the run are there; each is replaced when the new one is complete.

    Raises:
        ResourceError: tells what is free and what is needed.
    """
    with torch.device("meta"):  # shapes alone
        network = build_network(config.network_config())
    weights = 4 * sum(leaf.numel() for leaf in network.state_dict().values())
    state = 4 * weights  # network, averages, two moments of the optimiser
    needed = (state if resume else 2 * state + 3 * weights) + weights
    free = shutil.disk_usage(nearest_folder(output.parent)).free
    if free < needed:
        raise ResourceError(
            f"{output.parent} has {size_told(free)} free, the state and the models of this training need "
            f"{size_told(needed)}; make room or choose another -o"
        )


def run_session(session: Session) -> tuple[TrainState, bool]:
    """Train as a session says.

    Returns:
        the last state, and whether it was interrupted by Ctrl-C or SIGTERM, in this or another of its processes (its
        state is saved).

    Raises:
        ModelError: if no weights are better on the validation set than those that the training began with: no model is
            written.
        CryoLitheError: if the loss is not finite (the runs of that step are saved), or a file cannot be written.
    """
    state = new_state(session.config, session.place, session.start)
    if session.resume:
        load_state(session.folder / "state.safetensors", state, session.config)
        _check_seen(session.folder / PAIRS_NAME, session.pairs, "the file ", by_name)
        _check_seen(session.folder / SIMULATED_NAME, session.simulated_from, called=by_name)
        _check_seen(session.folder / BEGAN_NAME, session.start_files)
    means = means_in(session.card)
    if state.step < session.config.steps and (doubt := went_on(state, means)) and session.place.rank == 0:
        session.on_doubt(doubt)
    begin = partial(_Recorder, session, state.step)
    with recording(session.place, begin) as record:
        record.told("begin")(state)

        def on_bad_loss(runs: list[Run], step: int) -> None:
            save_runs(session.folder / f"bad_batch_{session.place.rank}.safetensors", runs, step)

        hooks = Hooks(record.told("after_step"), on_bad_loss, record.interrupted.is_set, session.limit_seconds)
        train(session.config, session.source, session.place, hooks, state)
    if record.recorder is not None:
        record.recorder.finish(state, state.interrupted)
    return state, state.interrupted


def _check_seen(
    path: Path,
    now: dict[str, str],
    kind: str = "",
    called: Callable[[dict[str, str]], dict[str, str]] = dict,
) -> None:
    """Refuse to go on with other data than before.

    Args:
        path: where the run before told what it saw; older runs did not.
        now: SHA-256 of what this one would see, by name.
        kind: of what these names are.
        called: gives hashes by the names that are compared.

    Raises:
        SettingsError: names the first that differs.
    """
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(before, dict):
        check_same_files(called(before), called(now), kind)


def by_name(files: Mapping[str, str]) -> dict[str, str]:
    """Hashes of files by their names alone: where they lie, and from where that is told, does not matter.

    Their order does, as what is drawn depends on it: files of one name are told apart by it. What stands before a
    recipe's path (`cryolithe.training.recipe_maker.simulated_from`) stays.
    """
    found: dict[str, str] = {}
    for path, digest in files.items():
        before, said, last = path.rpartition(RECIPE)
        name, number = f"{before}{said}{Path(last).name}", 1
        while (label := name if number == 1 else f"{name} ({number})") in found:
            number += 1
        found[label] = digest
    return found


class _Recorder(Recorder):
    """What process 0 does after a step: logs, validations, states, models."""

    def __init__(self, session: Session, step: int) -> None:
        self.session, self.config = session, session.config
        self.head = self.config.network_config().head
        columns = STEP_FIELDS, validation_fields(self.head)
        super().__init__(session.folder, columns, step if session.resume else None, LEFTOVERS)
        try:
            with replacing(self.folder / "config.yaml", overwrite=True) as temporary:
                values = self.config.model_dump(mode="json")
                temporary.write_text(yaml_text(values), encoding="utf-8")
            write_json(self.folder / PAIRS_NAME, session.pairs)
            write_json(self.folder / SIMULATED_NAME, session.simulated_from)
            write_json(self.folder / BEGAN_NAME, session.start_files)
        except OSError as error:
            raise OutputError(f"cannot write into {self.folder}: {error.strerror or error}") from error
        self.validated_at, self.volumes = -1, []  # type: tuple[int, list[Any]]

    def begin(self, state: TrainState) -> bool:
        """Judge the weights that the training begins with, where they are another model's."""
        return self.session.start is not None and state.step == 0 and self._validate(state)

    def after_step(self, state: TrainState, progress: Progress) -> bool:
        """Returns whether training is to stop: no better loss for long."""
        self.session.on_step(progress)
        self.log(state, progress, state.step % LOG_EVERY == 0 or state.step == self.config.steps)
        every = self.config.validation.every
        stop = bool(every) and state.step % every == 0 and self._validate(state)
        if state.step % self.config.save_every == 0:
            self._save(state)
        return stop

    def finish(self, state: TrainState, interrupted: bool) -> None:
        """Last validation, state, models and summary; an interrupted run only saves its state."""
        if interrupted:
            self._save(state)
            return
        if self.validated_at != state.step:
            self._validate(state)
        self._save(state)
        best, last = self.folder / "best.safetensors", self.folder / "last.safetensors"
        gain, output = self._gain() if self.session.began_with else None, self.session.output
        why = why_not(gain) if gain else ""
        if not why:
            with replacing(output, overwrite=True) as temporary:
                shutil.copyfile(best if best.exists() else last, temporary)
        plot_summary(self.folder / "summary.png", self.steps, self.validations, self.session.examples, self.volumes)
        if why:
            kept = f"; {output} is as it was" if output.exists() else ""
            raise ModelError(
                f"no model is written, for none is better than {self.session.began_with}: {why}; train on more pairs, "
                f"for longer or with another learning_rate, or keep {self.session.began_with}; the last weights are "
                f"{last}{kept}"
            )
        if gain:
            self.session.on_result(gain.told)
            if doubt := doubt_about(gain):
                self.session.on_doubt(doubt)

    def _gain(self) -> Gain | None:
        """What the best weights gain over those before the first step; None where nothing tells."""
        found: dict[int, list[tuple[float, float]]] = {}
        for row in self.validations.rows():
            found.setdefault(int(row["step"]), []).append((float(row["loss"]), float(row["snr_db"])))
        means = {step: np.mean(rows, axis=0).tolist() for step, rows in found.items()}
        if len(means) < 2 or 0 not in means:
            return None
        error, snr_db = means.pop(0)
        best = min(means, key=lambda step: (math.isnan(means[step][0]), means[step][0]))
        return Gain(best, (error, means[best][0]), (snr_db, means[best][1]))

    def _validate(self, state: TrainState) -> bool:
        if not self.session.examples:
            return False
        place = self.session.place
        network = copy.deepcopy(state.averaged).cpu().eval()
        verdicts, self.volumes = judge(
            network, self.session.examples, self.config, Compute(place.device, place.precision)
        )
        self.validated_at = state.step
        if any(int(row["step"]) == state.step for row in self.validations.rows()):
            return False  # a finished run that is resumed: only the volumes are made anew, to be drawn
        for v in verdicts:
            row = (state.step, v.name, v.loss, v.snr_db, v.fsc_measured, v.fsc_missing, *v.bands, *v.fidelity)
            self.validations.add(row)
        log_validation(self.board, state.step, verdicts, self.head, self.volumes)
        self.session.on_validation(state.step, verdicts)
        loss = mean_loss(verdicts)
        if state.step == 0:
            return False  # what the weights after it are compared with
        if loss < state.best_loss:
            state.best_loss, state.stale = loss, 0
            self._save_model("best.safetensors", state)
        else:
            state.stale += 1
        patience = self.config.validation.patience
        return patience is not None and state.stale >= patience

    def _save(self, state: TrainState) -> None:
        save_state(self.folder / "state.safetensors", state, self.config)
        self._save_model("last.safetensors", state)

    def _save_model(self, name: str, state: TrainState) -> None:
        rows = self.steps.rows()
        numbers = {
            "steps": state.step,
            "loss": round(float(rows[-1]["loss"]), 5) if rows else None,
            "training_seconds": round(state.seconds),
        }
        save_model(self.folder / name, state.averaged, {**self.session.card, **numbers, **means_told(state)})
