"""The training: AdamW on patches of half volumes, averaged weights, an end when what is held back stays."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from cryolithe.denoise.model import load_leaves
from cryolithe.denoise.n2n.losses import half_loss
from cryolithe.denoise.n2n.network import build
from cryolithe.denoise.n2n.pairs import Patches
from cryolithe.denoise.n2n.recipe import Recipe, learning_rate
from cryolithe.denoise.n2n.tiles import as_batch, prepared
from cryolithe.denoise.n2n.validation import Held, validate
from cryolithe.errors import CryoLitheError, ModelError, SettingsError
from cryolithe.training.distributed import Place
from cryolithe.training.tensors import read_tensors, write_tensors

FORMAT = "cryolithe-n2n-training"
CLIP_NORM = 1.0
BETTER = 1e-3  # relative: what counts as a better score


@dataclass
class State:
    """All that changes during a training.

    Attributes:
        network: the weights that the optimiser moves.
        averaged: their exponential mean, which is what is validated.
        best: the averaged weights of the best score on what is held back.
        optimiser: AdamW.
        step: steps done.
        seconds: spent on them.
        best_loss: ``1 - correlation`` of ``best``.
        smooths: whether ``best`` smooths signal away.
        stale: validations since.
        validated: part of the training that was done at the last validation.
        finished: whether it came to its end.
    """

    network: nn.Module
    averaged: nn.Module
    best: nn.Module
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    smooths: bool = True
    stale: int = 0
    validated: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class Hooks:
    """What a training tells and asks its surroundings.

    Attributes:
        on_step: told state, loss, learning rate, and the part of the whole that is done.
        on_validation: told the state and what was found; saves the state.
        stop_wanted: asked after every step.
        limit_seconds: for all steps together.
        clock: seconds.
    """

    on_step: Callable[[State, float, float, float], object] = lambda state, loss, rate, done: None
    on_validation: Callable[[State, Held], object] = lambda state, held: None
    stop_wanted: Callable[[], bool] = lambda: False
    limit_seconds: float = math.inf
    clock: Callable[[], float] = field(default=time.monotonic)


def new_state(recipe: Recipe, place: Place, start: nn.Module | None = None) -> State:
    """The state before the first step: weights from the seed, or from a network to go on from."""
    torch.manual_seed(recipe.seed)
    network = build(recipe.config)
    if start is not None:
        network.load_state_dict(start.state_dict())
    network = prepared(network, recipe.config, place.device).train()
    averaged, best = (copy.deepcopy(network).requires_grad_(False).eval() for _ in range(2))
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    return State(network, averaged, best, optimiser)


def train(recipe: Recipe, patches: Patches, place: Place, hooks: Hooks, state: State) -> State:
    """Train from a state on, until time or steps are up, what is held back stays, or somebody asks to stop.

    Raises:
        CryoLitheError: if the loss is not finite.
    """
    before, started = state.seconds, hooks.clock()
    while not state.finished:
        done = max(state.seconds / hooks.limit_seconds, state.step / recipe.most_steps)
        rate = learning_rate(recipe, state.step, done)
        loss = _step(recipe, patches, place, state, (rate, done))
        state.seconds = before + hooks.clock() - started
        if not math.isfinite(loss):
            raise CryoLitheError(
                f"the loss became {loss} at step {state.step}; try --precision fp32, or look at the volumes"
            )
        done = max(state.seconds / hooks.limit_seconds, state.step / recipe.most_steps)
        hooks.on_step(state, loss, rate, done)
        if done >= 1 or done - state.validated >= 1 / recipe.validations:
            held = validated(recipe, patches, place, state.averaged)
            _note(state, held, done)
            state.seconds = before + hooks.clock() - started
            state.finished = done >= 1 or state.stale >= recipe.patience
            hooks.on_validation(state, held)
        if hooks.stop_wanted():
            break
    return state


def _step(recipe: Recipe, patches: Patches, place: Place, state: State, now: tuple[float, float]) -> float:
    """One step at a learning rate and a part of the training that is done; returns its loss."""
    rate, done = now
    given, target = (as_batch(values, place.device) for values in patches.batch(state.step, recipe.batch))
    state.optimiser.zero_grad(set_to_none=True)
    loss = half_loss(recipe.loss, _output(state.network, given, place), target, done)
    loss.backward()
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), CLIP_NORM)
    state.optimiser.step()
    state.step += 1
    # Early weights are forgotten quickly, late ones slowly.
    decay = min(recipe.ema_decay, state.step / (9 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(state.averaged.parameters()), list(state.network.parameters()), 1 - decay)
    return float(loss.detach())


def _output(network: nn.Module, given: torch.Tensor, place: Place) -> torch.Tensor:
    mixed = place.precision != torch.float32
    with torch.autocast(place.device.type, dtype=place.precision if mixed else None, enabled=mixed):
        out: torch.Tensor = network(given)
    return out


@torch.no_grad()
def validated(recipe: Recipe, patches: Patches, place: Place, network: nn.Module) -> Held:
    """What a network makes of the patches held back."""
    return validate(
        lambda given: _output(network, as_batch(given, place.device), place),
        patches.held_back(recipe.validation_patches),
    )


def _note(state: State, held: Held, done: float) -> None:
    """Keep the averaged weights if they are better: first those that smooth no signal away, then by correlation."""
    loss = 1 - held.correlation
    if (held.too_smooth, loss) < (state.smooths, state.best_loss * (1 - BETTER)):
        state.best_loss, state.smooths, state.stale = loss, held.too_smooth, 0
        state.best.load_state_dict(state.averaged.state_dict())
    else:
        state.stale += 1
    state.validated = done


_MODULES = ("network", "averaged", "best")
_NUMBERS = ("step", "seconds", "best_loss", "smooths", "stale", "validated", "finished")


def save_state(path: Path, state: State, recipe: Recipe, fingerprint: str) -> None:
    """Write all that a training needs to go on exactly.

    Raises:
        OutputError: if it cannot be written (an earlier file is kept).
    """
    tensors = {f"{part}.{k}": v for part in _MODULES for k, v in getattr(state, part).state_dict().items()}
    for number, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in moments.items()}
    numbers = {name: getattr(state, name) for name in _NUMBERS}
    if math.isinf(state.best_loss):
        numbers["best_loss"] = None
    write_tensors(path, tensors, FORMAT, {**numbers, "recipe": recipe.plain(), "pairs": fingerprint})


def load_state(path: Path, state: State, recipe: Recipe, fingerprint: str) -> None:
    """Go back to a saved state; ``state`` is changed.

    Raises:
        ModelError: if the file is missing, corrupt, or of another network.
        SettingsError: if it is of another recipe or of other volumes.
    """
    if not path.is_file():
        raise ModelError(f"there is no saved state {path} to resume from; leave --resume away to start anew")
    tensors, values = read_tensors(path, FORMAT, "a saved training state")
    if values["pairs"] != fingerprint:
        raise SettingsError(f"{path} was saved by a training on other volumes; give --overwrite to start anew")
    for key, value in recipe.plain().items():
        if values["recipe"].get(key) != value:
            raise SettingsError(
                f"{path} was saved by a training with other settings: '{key}' was {values['recipe'].get(key)}, now "
                f"{value}; repeat the command with the earlier options and --resume, or --overwrite to start anew"
            )
    for part in _MODULES:
        own = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
        load_leaves(getattr(state, part), own, str(path))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".", 2)
            moments.setdefault(int(number), {})[name] = tensor
    groups = state.optimiser.state_dict()["param_groups"]
    state.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    for name in _NUMBERS:
        setattr(state, name, math.inf if values[name] is None else values[name])
