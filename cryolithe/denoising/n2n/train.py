"""The training: AdamW on patches of half volumes, averaged weights, an end when what is held back stays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from cryolithe.denoising.method import LearningState
from cryolithe.denoising.n2n.gains import ONE, ShellGain
from cryolithe.denoising.n2n.losses import half_loss
from cryolithe.denoising.n2n.network import build
from cryolithe.denoising.n2n.pairs import Patches
from cryolithe.denoising.n2n.recipe import Recipe, learning_rate
from cryolithe.denoising.n2n.tiles import as_batch, prepared
from cryolithe.denoising.n2n.validation import Held, validate
from cryolithe.errors import SettingsError
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks as AnyHooks
from cryolithe.optimise.loop import Progress, Task, optimise
from cryolithe.optimise.state import check_same, check_same_files, new_scaler, read_state, restore, write_state
from cryolithe.optimise.step import follow, gradient, update

FORMAT = "cryolithe-n2n-training"
CLIP_NORM = 1.0
BETTER = 1e-3  # relative: what counts as a better score
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(kw_only=True)
class N2nState(LearningState[nn.Module]):
    """All that changes during a training; ``best_loss`` is ``1 - correlation`` of ``best``, which holds averages.

    Attributes:
        averaged: exponential mean of the weights, which is what is validated.
        smooths: whether ``best`` smooths signal away.
    """

    averaged: nn.Module
    smooths: bool = True


@dataclass(frozen=True)
class Hooks(AnyHooks):
    """What a training tells and asks its surroundings.

    Attributes:
        on_validation: told the state and what was found; True asks to stop.
    """

    on_validation: Callable[[N2nState, Held], object] = lambda state, held: None


def new_state(recipe: Recipe, place: Place, start: nn.Module | None = None) -> N2nState:
    """The state before the first step: weights from the seed, or from a network to go on from."""
    torch.manual_seed(recipe.seed)
    network = build(recipe.config)
    if start is not None:
        network.load_state_dict(start.state_dict())
    network = prepared(network, recipe.config, place.device).train()
    averaged, best = (copy.deepcopy(network).requires_grad_(False).eval() for _ in range(2))
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    return N2nState(network=network, averaged=averaged, best=best, optimiser=optimiser, scaler=new_scaler(place))


def train(recipe: Recipe, patches: Patches, place: Place, hooks: Hooks, state: N2nState) -> N2nState:
    """Train from a state on, until time or steps are up, what is held back stays, or somebody asks to stop.

    Raises:
        CryoLitheError: if the loss is not finite.
    """
    if state.finished:
        return state

    def done(state: N2nState) -> float:
        return max(state.seconds / hooks.limit_seconds, state.step / recipe.most_steps)

    def on_step(state: N2nState, progress: Progress) -> bool:
        stop = bool(hooks.on_step(state, progress))
        if progress.done >= 1 or progress.done - state.validated >= 1 / recipe.validations:
            held = validated(recipe, patches, place, state.averaged)
            _note(state, held, progress.done)
            state.finished = progress.done >= 1 or state.stale >= recipe.patience
            stop = bool(hooks.on_validation(state, held)) or stop
        return stop or state.finished

    task: Task[N2nState, Batch] = Task(
        steps=recipe.most_steps,
        batches=_batches(patches, recipe.batch, state.step),
        learning_rate=lambda step, share: learning_rate(recipe, step, max(share, step / recipe.most_steps)),
        gradient=lambda state, batch: _gradient(recipe, place, state, batch, done(state)),
        update=lambda state, rate: _update(recipe, state, rate),
        remedy="try --precision fp32, or look at the volumes",
    )
    return optimise(task, place, replace(hooks, on_step=on_step), state)


def _batches(patches: Patches, size: int, step: int) -> Generator[Batch, None, None]:
    """Inputs and targets of the steps from ``step`` on, without end."""
    while True:
        yield patches.batch(step, size)
        step += 1


def _gradient(recipe: Recipe, place: Place, state: N2nState, batch: Batch, done: float) -> float:
    """Gradient of a batch in a part of the training that is done; returns its loss."""
    given, target = (as_batch(values, place.device) for values in batch)
    return gradient(state, [half_loss(recipe.loss, output_of(state.network, given, place), target, done)])


def _update(recipe: Recipe, state: N2nState, rate: float) -> float:
    norm = update(state, rate, CLIP_NORM)
    follow(state.averaged, state.network, recipe.ema_decay, state.step)
    return norm


def output_of(network: nn.Module, given: torch.Tensor, place: Place) -> torch.Tensor:
    """What a network makes of a batch, in the precision of a place."""
    with place.autocast():
        out: torch.Tensor = network(given)
    return out


@torch.no_grad()
def validated(recipe: Recipe, patches: Patches, place: Place, network: nn.Module, prior: ShellGain = ONE) -> Held:
    """What a network makes of the patches held back; ``prior`` is the gain of the weights that it began with."""
    return validate(
        lambda given: output_of(network, as_batch(given, place.device), place),
        patches.held_back(recipe.validation_patches),
        prior,
    )


def _note(state: N2nState, held: Held, done: float) -> None:
    """Keep the averaged weights if they are better: first those that smooth no signal away, then by correlation."""
    loss = 1 - held.correlation
    if (held.too_smooth, loss) < (state.smooths, state.best_loss * (1 - BETTER)):
        state.best_loss, state.smooths, state.stale = loss, held.too_smooth, 0
        state.best.load_state_dict(state.averaged.state_dict())
    else:
        state.stale += 1
    state.validated = done


def save_state(
    path: Path, state: N2nState, recipe: Recipe, fingerprint: str, began_with: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write all that a training needs to go on exactly.

    Raises:
        OutputError: if it cannot be written (an earlier file is kept).
    """
    decides = {"recipe": recipe.plain(), "learned_from": fingerprint, "began_with": dict(began_with)}
    write_state(path, state, FORMAT, decides)


def load_state(
    path: Path, state: N2nState, recipe: Recipe, fingerprint: str, began_with: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Go back to a saved state; ``state`` is changed.

    Raises:
        ModelError: if the file is missing, corrupt, or of another network.
        SettingsError: if it is of another recipe, of other volumes or of another start.
    """
    tensors, values = read_state(path, FORMAT)
    if values.get("learned_from") != fingerprint:
        raise SettingsError(f"{path} was saved by a training on other volumes; give --overwrite to start anew")
    check_same_files(values.get("began_with"), began_with)
    check_same(path, values["recipe"], recipe.plain())
    restore(path, state, tensors, values)
