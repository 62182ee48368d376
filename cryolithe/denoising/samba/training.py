"""The optimisation: Adam on triplets of one volume, until the loss on those held back no longer falls."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch

from cryolithe.denoising.method import LearningState
from cryolithe.denoising.samba.blocks import Blocks
from cryolithe.denoising.samba.losses import interpolation_loss
from cryolithe.denoising.samba.model import SambaNet
from cryolithe.denoising.samba.recipe import Recipe
from cryolithe.errors import SettingsError
from cryolithe.optimise.distributed import Place, average
from cryolithe.optimise.loop import Hooks as AnyHooks
from cryolithe.optimise.loop import Progress, Task, loader_threads, optimise
from cryolithe.optimise.state import check_same, check_same_files, new_scaler, read_state, restore, write_state
from cryolithe.optimise.step import gradient, update

FORMAT = "cryolithe-samba-training"
CLIP_NORM = 10.0  # far above the usual; a step on a gold bead must not undo the others
BETTER = 1e-4  # relative: what counts as a better loss


SambaState = LearningState[SambaNet]


@dataclass(frozen=True)
class Hooks(AnyHooks):
    """What a training tells and asks its surroundings.

    Attributes:
        on_validation: told the state and its loss; True asks to stop.
    """

    on_validation: Callable[[SambaState, float], object] = lambda state, loss: None


def new_state(recipe: Recipe, place: Place, start: SambaNet | None = None) -> SambaState:
    """The state before the first step: weights from the seed, or from a network to go on from."""
    torch.manual_seed(recipe.seed)
    network = SambaNet(recipe.network)
    if start is not None:
        network.load_state_dict(start.state_dict())
    network = network.to(place.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    best = copy.deepcopy(network).requires_grad_(False).eval()
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    return SambaState(network=network, best=best, optimiser=optimiser, scaler=new_scaler(place))


def learning_rate(recipe: Recipe, step: int, time_share: float, limited: bool) -> float:
    """Warm-up, slow decay, and a fall to zero at the end of a limited time.

    Args:
        recipe: rates and lengths.
        step: from 0.
        time_share: part of the limit that is spent.
        limited: whether there is a limit.
    """
    warm = (step + 1) / max(1, recipe.warmup_steps)
    cool = 1.0
    if limited:
        warm = max(warm, time_share / recipe.warmup_share)
        cool = min(1.0, (1 - time_share) / recipe.cooldown_share)
    return recipe.learning_rate * min(1.0, warm) * recipe.decay**step * max(0.0, cool)


def train(recipe: Recipe, blocks: Blocks, place: Place, hooks: Hooks, state: SambaState) -> SambaState:
    """Train from a state on, until the time is up, the loss held back stays, or somebody asks to stop.

    Raises:
        CryoLitheError: if the loss is not finite.
    """
    if state.finished:
        return state
    limited = not math.isinf(hooks.limit_seconds)

    def on_step(state: SambaState, progress: Progress) -> bool:
        stop = bool(hooks.on_step(state, progress))
        due = limited and progress.time_share - state.validated >= 1 / recipe.validations
        if due or progress.done >= 1 or (not limited and state.step % recipe.validate_every == 0):
            held_back = _validate(state, blocks, place)
            state.validated = progress.time_share
            state.finished = progress.done >= 1 or (not limited and state.stale >= recipe.patience)
            stop = bool(hooks.on_validation(state, held_back)) or stop
        return stop or state.finished

    task: Task[SambaState, torch.Tensor] = Task(
        steps=recipe.most_steps,
        batches=blocks.batches(state.step, *place.stream, loader_threads(place.device)),
        learning_rate=lambda step, share: learning_rate(recipe, step, share, limited),
        gradient=lambda state, batch: gradient(state, [batch_loss(state.network, batch, place)]),
        update=_update,
        remedy="try --precision fp32, or look at the volume",
    )
    return optimise(task, place, replace(hooks, on_step=on_step), state)


def batch_loss(network: SambaNet, batch: torch.Tensor, place: Place) -> torch.Tensor:
    """How badly the outer planes predict the middle ones.

    Args:
        network: on the place's device.
        batch: shape ``(3, n, 1, y, x)``.
        place: device and precision.
    """
    before, middle, after = batch.to(place.device, non_blocking=True)
    with place.autocast():
        found = network(before, after)
    return interpolation_loss(found, middle)


def _update(state: SambaState, rate: float) -> float:
    return update(state, rate, CLIP_NORM)


@torch.no_grad()
def loss_held_back(state: SambaState, blocks: Blocks, place: Place) -> float:
    """Mean loss of the blocks held back. The first process computes, all know."""
    loss = 0.0
    if place.rank == 0:
        state.network.eval()
        sizes, losses = [], []
        for batch in blocks.validation_batches():
            losses.append(float(batch_loss(state.network, batch, place)))
            sizes.append(batch.shape[1])
        state.network.train()
        loss = sum(a * b for a, b in zip(losses, sizes, strict=True)) / sum(sizes)
    return average([], [loss], place)[0] * place.world


def _validate(state: SambaState, blocks: Blocks, place: Place) -> float:
    """Mean loss of the blocks held back; the best weights are kept."""
    loss = loss_held_back(state, blocks, place)
    if loss < state.best_loss * (1 - BETTER):
        state.best_loss, state.stale = loss, 0
        state.best.load_state_dict(state.network.state_dict())
    else:
        state.stale += 1
    return loss


def save_state(
    path: Path,
    state: SambaState,
    recipe: Recipe,
    fingerprint: str,
    began_with: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write all that a training needs to go on exactly.

    Raises:
        OutputError: if it cannot be written (an earlier file is kept).
    """
    decides = {"recipe": recipe.plain(), "learned_from": fingerprint, "began_with": dict(began_with)}
    write_state(path, state, FORMAT, decides)


def saved_batch(path: Path) -> int | None:
    """The batch of a saved training, which one that goes on has to keep; None if there is no such file.

    Raises:
        ModelError: if the file is corrupt.
    """
    return int(read_state(path, FORMAT)[1]["recipe"]["batch"]) if path.is_file() else None


def load_state(
    path: Path,
    state: SambaState,
    recipe: Recipe,
    fingerprint: str,
    began_with: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Go back to a saved state; ``state`` is changed.

    Raises:
        ModelError: if the file is missing, corrupt, or of another network.
        SettingsError: if it is of another recipe, volume or start.
    """
    tensors, values = read_state(path, FORMAT)
    if values.get("learned_from") != fingerprint:
        raise SettingsError(f"{path} was saved by a training on another volume; give --overwrite to start anew")
    check_same_files(values.get("began_with"), began_with)
    check_same(path, values["recipe"], recipe.plain())
    restore(path, state, tensors, values)
