"""All that changes during a training, and that on disk: safetensors with JSON in the header, complete or not there.

    state.safetensors    network.*, other modules, optimiser.*; values: the numbers of the state, what decides the rest

Random numbers need no state: what a step draws is seeded by its number.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from cryolithe.errors import ModelError, SettingsError
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.tensors import load_leaves, read_tensors, write_tensors

WHAT = "a saved training state"
# What to call the model whose weights a training begins with, among the files that it goes on with.
STARTS_FROM = "the model that the training starts from"
# What a training is computed with, by the names that a card has for it: how a command is told.
MEANS = {"device": "--device {}", "precision": "--precision {}", "processes": "{} processes of torchrun",
         "train_minutes": "--train-minutes {}"}  # fmt: skip
N = TypeVar("N", bound=torch.nn.Module)


@dataclass(kw_only=True)
class State(Generic[N]):
    """What every training changes. Others add modules of the network's shape, and numbers.

    Attributes:
        network: the weights that the optimiser moves.
        optimiser: of the network.
        scaler: of gradients, for float16.
        step: steps done.
        seconds: spent on them.
        best_loss: of the validations.
        stale: validations since.
        interrupted: whether any process was asked from outside to stop.
        recent: losses of the steps since the table of steps was written to.
        means: what the training began with, and from which step on it went on with what else, see `went_on`.
    """

    network: N
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    stale: int = 0
    interrupted: bool = False
    recent: list[float] = field(default_factory=list)
    means: list[dict[str, Any]] = field(default_factory=list)


def new_scaler(place: Place) -> torch.amp.GradScaler:
    """A scaler of gradients, which does nothing but in float16."""
    return torch.amp.GradScaler(place.device.type, enabled=place.precision == torch.float16)


def write_state(path: Path, state: State[Any], kind: str, decides: Mapping[str, Any]) -> None:
    """Write everything that a training needs to go on; an earlier file stays until the new one is complete.

    Args:
        path: of the file.
        state: with all modules and numbers that its class adds.
        kind: what the file is, see `write_tensors`.
        decides: plain values that must be the same when it goes on.

    Raises:
        OutputError: if it cannot be written (the earlier file is kept).
    """
    tensors: dict[str, torch.Tensor] = {}
    for part, module in _modules(state).items():
        tensors |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    for number, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in moments.items()}
    numbers = {name: value if math.isfinite(value) else None for name, value in _numbers(state).items()}
    told = {"scaler": state.scaler.state_dict(), "recent": state.recent, "means": state.means}
    write_tensors(path, tensors, kind, {**numbers, **told, **decides})


class SavedValues(dict[str, Any]):
    """Plain values of a saved state; one that a damaged file lacks is an error of the file."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._path = path

    def __missing__(self, key: str) -> Any:
        raise ModelError(f"{self._path} is damaged: its {key} is missing; leave --resume away to start anew")


def read_state(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], SavedValues]:
    """Tensors and plain values of a saved state, for `restore`.

    Raises:
        ModelError: if the file is missing, corrupt, or of another kind.
    """
    if not path.is_file():
        raise ModelError(f"there is no saved state {path} to resume from; leave --resume away to start anew")
    tensors, values = read_tensors(path, kind, WHAT)
    return tensors, SavedValues(path, values)


def restore(path: Path, state: State[Any], tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
    """Go back to a saved state; ``state`` is changed.

    Raises:
        ModelError: if it is of another architecture (the leaf is named).
    """
    for part, module in _modules(state).items():
        load_leaves(module, _under(part, tensors), f"{path} is of another architecture")
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in _under("optimiser", tensors).items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = tensor
    groups = state.optimiser.state_dict()["param_groups"]
    state.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    if values["scaler"]:
        state.scaler.load_state_dict(values["scaler"])
    for name, value in _numbers(state).items():
        found = values.get(name)  # a state of an earlier version may lack a number
        setattr(state, name, math.inf if found is None else type(value)(found))
    state.recent, state.means = list(values.get("recent") or ()), list(values.get("means") or ())


def means_in(card: Mapping[str, Any]) -> dict[str, Any]:
    """What a training is computed with, of what its card tells."""
    return {name: card[name] for name in MEANS if name in card}


def went_on(state: State[Any], now: Mapping[str, Any]) -> str:
    """Note what a training begins or goes on with: where that is something else, its numbers become others.

    A cluster may give other machines than before, so that this is told and not refused.

    Args:
        state: as it was saved, or new; its ``means`` are changed.
        now: of `MEANS` those that a training has.

    Returns:
        a line on what is not as it was before; empty if all is, or where nobody told.
    """
    if not state.means:
        # A state of an earlier version does not tell what the steps so far were made with.
        state.means = [{"step": state.step, **now}]
        return ""
    before = means_before(state.means)
    changed = {name: value for name, value in now.items() if name in before and _differ(name, before[name], value)}
    if not changed:
        return ""
    state.means = [*state.means, {"step": state.step, **changed}]
    told = ", ".join(f"{_told(name, value)} in place of {_told(name, before[name])}" for name, value in changed.items())
    return (
        f"the training goes on from step {state.step} with {told}; its numbers are not those of a training in one go, "
        "as the card tells"
    )


def means_before(means: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The last means of a training of those that its state tells."""
    return {name: value for one in means for name, value in one.items()}


def means_told(state: State[Any]) -> dict[str, Any]:
    """What a card tells of `went_on`: what the training began with, and in ``went_on`` what it had from a step on."""
    if not state.means:
        return {}
    first = {name: value for name, value in state.means[0].items() if name != "step"}
    return {**first, "went_on": state.means[1:]} if state.means[1:] else first


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str] = ()) -> None:
    """Refuse to go on with other settings.

    Args:
        path: of the state.
        before: settings that are saved there.
        now: those of the run that goes on.
        free: names of those that may differ; of those in a table with that table's, as in ``data.workers``.

    Raises:
        SettingsError: names the first one that differs.
    """
    for key, value in now.items():
        for name, was, is_now in _unlike(key, before.get(key), value, free):
            raise SettingsError(
                f"{path} was saved by a training with other settings: '{name}' was {was}, now {is_now}; "
                "repeat the command with the earlier settings and --resume, or --overwrite to start anew"
            )


def _unlike(name: str, before: Any, now: Any, free: Collection[str]) -> Iterator[tuple[str, Any, Any]]:
    """Names of the settings that differ, with both values; of tables those of what is in them."""
    if name in free or before == now:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**now, **before}:
            yield from _unlike(f"{name}.{key}", before.get(key), now.get(key), free)
        return
    yield name, before, now


def check_same_files(before: object, now: Mapping[str, str], kind: str = "") -> None:
    """Refuse to go on with other files than before.

    Args:
        before: SHA-256 of what the run before had, by what to call it; no table where it did not tell.
        now: of what the run that goes on has.
        kind: of what these names are.

    Raises:
        SettingsError: names the first that differs.
    """
    for name in {**now, **before} if isinstance(before, Mapping) else {}:
        assert isinstance(before, Mapping)
        if before.get(name) == now.get(name):
            continue
        if name not in before:
            what, way = "is new to this run", "leave it out"
        elif name not in now:
            what, way = "is not given, which this run was trained on before", "give it"
        else:
            what, way = "is not the one that this run was trained on before", "put it back"
        raise SettingsError(f"{kind}{name} {what}; {way} to go on with --resume, or give --overwrite to start anew")


def _differ(name: str, before: Any, now: Any) -> bool:
    """Whether means are others."""
    return is_other_device(before, now) if name == "device" else bool(before != now)


def is_other_device(before: object, now: object) -> bool:
    """Whether a device is of another kind; GPUs do not differ by their number."""
    return str(before).partition(":")[0] != str(now).partition(":")[0]


def _told(name: str, value: Any) -> str:
    if name == "processes" and value == 1:
        return "one process"
    if value is None:
        return "none"
    return MEANS[name].format(f"{value:g}" if isinstance(value, float) else value)


def _modules(state: State[Any]) -> dict[str, torch.nn.Module]:
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    return {name: value for name, value in values.items() if isinstance(value, torch.nn.Module)}


def _numbers(state: State[Any]) -> dict[str, float]:
    values = {field.name: getattr(state, field.name) for field in fields(state) if field.name != "interrupted"}
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _under(part: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{part}."): value for key, value in tensors.items() if key.startswith(f"{part}.")}
