"""The optimisation: Adam on triplets of one volume, until the loss on those held back no longer falls."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from cryolithe.denoise.blocks import Blocks
from cryolithe.denoise.losses import interpolation_loss
from cryolithe.denoise.model import SambaNet, load_leaves
from cryolithe.denoise.recipe import Recipe
from cryolithe.errors import CryoLitheError, ModelError, SettingsError
from cryolithe.optimise.distributed import Place, average
from cryolithe.optimise.tensors import read_tensors, write_tensors

FORMAT = "cryolithe-samba-training"
THREADS_BESIDE_GPU = 4
CLIP_NORM = 10.0  # far above the usual; a step on a gold bead must not undo the others
BETTER = 1e-4  # relative: what counts as a better loss


@dataclass
class State:
    """All that changes during a training.

    Attributes:
        network: the weights that the optimiser moves.
        best: those of the lowest loss on the blocks held back.
        optimiser: Adam.
        scaler: of gradients, for float16.
        step: steps done.
        seconds: spent on them.
        best_loss: of ``best``.
        stale: validations since.
        validated: share of the time limit at the last validation.
        finished: whether it came to its end.
    """

    network: SambaNet
    best: SambaNet
    optimiser: torch.optim.Adam
    scaler: torch.amp.GradScaler
    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    stale: int = 0
    validated: float = 0.0
    finished: bool = False


@dataclass(frozen=True)
class Hooks:
    """What a training tells and asks its surroundings.

    Attributes:
        on_step: told step, seconds, loss, learning rate, share of the whole that is done.
        on_validation: told the state and its loss; saves it.
        stop_wanted: asked after every step.
        limit_seconds: for all steps together.
        clock: seconds.
    """

    on_step: Callable[[State, float, float, float], object] = lambda state, loss, rate, share: None
    on_validation: Callable[[State, float], object] = lambda state, loss: None
    stop_wanted: Callable[[], bool] = lambda: False
    limit_seconds: float = math.inf
    clock: Callable[[], float] = field(default=time.monotonic)


def new_state(recipe: Recipe, place: Place, start: SambaNet | None = None) -> State:
    """The state before the first step: weights from the seed, or from a network to go on from."""
    torch.manual_seed(recipe.seed)
    network = SambaNet(recipe.network)
    if start is not None:
        network.load_state_dict(start.state_dict())
    network = network.to(place.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    best = copy.deepcopy(network).requires_grad_(False).eval()
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    scaler = torch.amp.GradScaler(place.device.type, enabled=place.precision == torch.float16)
    return State(network, best, optimiser, scaler)


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


def train(recipe: Recipe, blocks: Blocks, place: Place, hooks: Hooks, state: State) -> State:
    """Train from a state on, until the time is up, the loss held back stays, or somebody asks to stop.

    Raises:
        CryoLitheError: if the loss is not finite.
    """
    limited = not math.isinf(hooks.limit_seconds)
    before, started = state.seconds, hooks.clock()
    threads = 0 if place.device.type == "cpu" else THREADS_BESIDE_GPU
    batches = blocks.batches(state.step, *place.stream, threads)
    share = state.seconds / hooks.limit_seconds
    try:
        while not state.finished:
            rate = learning_rate(recipe, state.step, share, limited)
            loss = _gradient(state, next(batches), place)
            state.seconds = before + hooks.clock() - started
            wish = float(hooks.stop_wanted())
            loss, wish, seconds = average(state.network.parameters(), [loss, wish, state.seconds], place)
            if not math.isfinite(loss):
                raise CryoLitheError(
                    f"the loss became {loss} at step {state.step + 1}; try --precision fp32, or look at the volume"
                )
            _update(state, rate)
            share = seconds / hooks.limit_seconds
            done = max(share, state.step / recipe.most_steps)
            if place.rank == 0:
                hooks.on_step(state, loss, rate, done)
            due = limited and share - state.validated >= 1 / recipe.validations
            if due or done >= 1 or (not limited and state.step % recipe.validate_every == 0):
                held_back = _validate(state, blocks, place)
                state.validated = share
                state.finished = done >= 1 or (not limited and state.stale >= recipe.patience)
                if place.rank == 0:
                    hooks.on_validation(state, held_back)
            if wish > 0:
                break
    finally:
        batches.close()
    return state


def _gradient(state: State, batch: torch.Tensor, place: Place) -> float:
    """Gradient of a batch, scaled in float16; returns its loss."""
    state.optimiser.zero_grad(set_to_none=True)
    loss = batch_loss(state.network, batch, place)
    state.scaler.scale(loss).backward()
    return float(loss.detach())


def batch_loss(network: SambaNet, batch: torch.Tensor, place: Place) -> torch.Tensor:
    """How badly the outer planes predict the middle ones.

    Args:
        network: on the place's device.
        batch: shape ``(3, n, 1, y, x)``.
        place: device and precision.
    """
    before, middle, after = batch.to(place.device, non_blocking=True)
    mixed = place.precision != torch.float32
    with torch.autocast(place.device.type, dtype=place.precision if mixed else None, enabled=mixed):
        found = network(before, after)
    return interpolation_loss(found, middle)


def _update(state: State, rate: float) -> None:
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.scaler.unscale_(state.optimiser)  # after the average over the processes: see there
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), CLIP_NORM)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.step += 1


@torch.no_grad()
def _validate(state: State, blocks: Blocks, place: Place) -> float:
    """Mean loss of the blocks held back; the best weights are kept. The first process computes, all know."""
    loss = 0.0
    if place.rank == 0:
        state.network.eval()
        sizes, losses = [], []
        for batch in blocks.validation_batches():
            losses.append(float(batch_loss(state.network, batch, place)))
            sizes.append(batch.shape[1])
        state.network.train()
        loss = sum(a * b for a, b in zip(losses, sizes, strict=True)) / sum(sizes)
    loss = average([], [loss], place)[0] * place.world
    if loss < state.best_loss * (1 - BETTER):
        state.best_loss, state.stale = loss, 0
        state.best.load_state_dict(state.network.state_dict())
    else:
        state.stale += 1
    return loss


def save_state(path: Path, state: State, recipe: Recipe, fingerprint: str) -> None:
    """Write all that a training needs to go on exactly.

    Raises:
        OutputError: if it cannot be written (an earlier file is kept).
    """
    tensors = {f"network.{name}": tensor for name, tensor in state.network.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.state_dict().items()}
    for number, moments in state.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in moments.items()}
    values = {
        "recipe": recipe.plain(),
        "volume": fingerprint,
        "step": state.step,
        "seconds": state.seconds,
        "best_loss": state.best_loss if math.isfinite(state.best_loss) else None,
        "stale": state.stale,
        "validated": state.validated,
        "finished": state.finished,
        "scaler": state.scaler.state_dict(),
    }
    write_tensors(path, tensors, FORMAT, values)


def saved_batch(path: Path) -> int | None:
    """The batch of a saved training, which one that goes on has to keep; None if there is no such file.

    Raises:
        ModelError: if the file is corrupt.
    """
    if not path.is_file():
        return None
    _, values = read_tensors(path, FORMAT, "a saved training state")
    return int(values["recipe"]["batch"])


def load_state(path: Path, state: State, recipe: Recipe, fingerprint: str) -> None:
    """Go back to a saved state; ``state`` is changed.

    Raises:
        ModelError: if the file is missing, corrupt, or of another network.
        SettingsError: if it is of another recipe or volume.
    """
    if not path.is_file():
        raise ModelError(f"there is no saved state {path} to resume from; leave --resume away to start anew")
    tensors, values = read_tensors(path, FORMAT, "a saved training state")
    if values["volume"] != fingerprint:
        raise SettingsError(f"{path} was saved by a training on another volume; give --overwrite to start anew")
    for key, value in recipe.plain().items():
        if values["recipe"].get(key) != value:
            raise SettingsError(
                f"{path} was saved by a training with other settings: '{key}' was {values['recipe'].get(key)}, now "
                f"{value}; repeat the command with the earlier options and --resume, or --overwrite to start anew"
            )
    for part, module in (("network", state.network), ("best", state.best)):
        own = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
        load_leaves(module, own, str(path))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser."):
            _, number, name = key.split(".", 2)
            moments.setdefault(int(number), {})[name] = tensor
    groups = state.optimiser.state_dict()["param_groups"]
    state.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    if values["scaler"]:
        state.scaler.load_state_dict(values["scaler"])
    state.step, state.seconds, state.stale = int(values["step"]), float(values["seconds"]), int(values["stale"])
    state.best_loss = math.inf if values["best_loss"] is None else float(values["best_loss"])
    state.validated, state.finished = float(values["validated"]), bool(values["finished"])
