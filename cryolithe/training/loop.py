"""The optimisation: AdamW, warm-up and cosine, averaged weights."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cryolithe.errors import CryoLitheError, ModelError
from cryolithe.network import Network, RowSet, build_network
from cryolithe.network.config import config_to_dict
from cryolithe.optimise.distributed import Place, average
from cryolithe.training.columns import AnyBatch, ColumnBatch, columns_pay, gather_columns, values_of_blocks
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import Run, gather
from cryolithe.training.loader import runs_of_steps
from cryolithe.training.losses import output_weights, run_loss
from cryolithe.training.sections import LossSettings
from cryolithe.training.sources import Source

THREADS_BESIDE_GPU = 4
# Blocks at the faces of a cube that a loss leaves out, and cubes that go through a trunk together.
FACE, TOGETHER = 2, 8


@dataclass(frozen=True)
class Progress:
    """What a step tells its watcher.

    Attributes:
        step: its number, from 1.
        loss: mean over the runs of all processes.
        averaged: the averaged weights so far.
        learning_rate: that it was taken with.
        gradient_norm: before clipping.
    """

    step: int
    loss: float
    averaged: Network
    learning_rate: float = 0.0
    gradient_norm: float = 0.0


@dataclass
class TrainState:
    """All that changes during a run.

    Attributes:
        network: the weights that the optimiser moves.
        averaged: their moving average.
        optimiser: AdamW.
        scaler: of gradients, for float16.
        step: steps done.
        seconds: spent on them.
        best_loss: on the validation set.
        stale: validations since.
        interrupted: whether any process was asked from outside to stop.
    """

    network: Network
    averaged: Network
    optimiser: torch.optim.AdamW
    scaler: torch.amp.GradScaler
    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    stale: int = 0
    interrupted: bool = False


@dataclass(frozen=True)
class Hooks:
    """What a run tells and asks its surroundings.

    Attributes:
        on_step: called after every step; True asks to stop (all processes stop together).
        on_bad_loss: called with the runs of a step whose loss is not finite.
        stop_wanted: asked before every step.
        limit_seconds: time for all steps together; the learning rate then falls to zero at its end.
    """

    on_step: Callable[[TrainState, Progress], bool | None] = lambda state, progress: None
    on_bad_loss: Callable[[list[Run], int], object] = lambda runs, step: None
    stop_wanted: Callable[[], bool] = lambda: False
    limit_seconds: float = math.inf
    clock: Callable[[], float] = field(default=time.monotonic)


def band_weights(config: TrainConfig) -> torch.Tensor:
    """Weight of each output in the loss, see `output_weights`."""
    return output_weights(config.network_config(), config.band_exponent)


def batch_loss(
    network: Network,
    batch: AnyBatch,
    weights: torch.Tensor,
    precision: torch.dtype,
    settings: LossSettings | None = None,
    apply: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """Loss of a batch; targets have unit variance in voxels (see `output_weights`).

    Args:
        network: the network.
        batch: on any device.
        weights: of the outputs, on the network's device.
        precision: of the matrix products.
        settings: parts of the loss; the squared error by default.
        apply: what is called instead of the network (its compiled form).
    """
    return batches_loss(network, [batch], weights, precision, settings, apply)


def batches_loss(
    network: Network,
    batches: Sequence[AnyBatch],
    weights: torch.Tensor,
    precision: torch.dtype,
    settings: LossSettings | None = None,
    apply: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """Mean loss of batches; a trunk takes all of them at once, which must then be cubes of one shape.

    Arguments as for `batch_loss`.
    """
    device = weights.device
    enabled = precision != torch.float32
    trunk = isinstance(network, RowSet) and network.trunk is not None
    with torch.autocast(device.type, dtype=precision if enabled else torch.bfloat16, enabled=enabled):
        called = network if apply is None else apply
        outputs = [_joined(network, batch, device, precision, called) for batch in batches]
        if trunk:
            outputs = _refined(network, outputs, batches)
    losses = []
    for output, batch in zip(outputs, batches, strict=True):
        values, target, cube = output.float() * batch.output_gain, batch.targets.to(device), batch.cube
        if trunk and cube is not None:
            values, target, cube = (*(_inside(v, cube) for v in (values, target)), _smaller(cube))
        place = None if cube is None else (cube, network.config.head)
        losses.append(run_loss(values, target, weights, settings or LossSettings(), place))
    return torch.stack(losses).mean()


def _joined(
    network: Network,
    batch: AnyBatch,
    device: torch.device,
    precision: torch.dtype,
    apply: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """The network's values for the blocks of a batch; with a trunk, what that takes."""
    if isinstance(batch, ColumnBatch):
        assert isinstance(network, RowSet)
        return values_of_blocks(network, batch)
    context = network.tilt_context(batch.angles_rad.to(device))
    return apply(batch.windows.to(device, precision), batch.visible.to(device), context.to(precision))


def _refined(network: Network, joined: list[torch.Tensor], batches: Sequence[AnyBatch]) -> list[torch.Tensor]:
    """The trunk's outputs for cubes; those of one shape go through it together."""
    assert isinstance(network, RowSet)
    cubes = [batch.cube for batch in batches]
    outputs: list[torch.Tensor] = [torch.empty(0)] * len(joined)
    for cube in set(cubes):
        assert cube is not None
        members = [number for number, other in enumerate(cubes) if other == cube]
        refined = network.refine(torch.stack([joined[number] for number in members]), (cube[0], cube[2]))
        for number, output in zip(members, refined, strict=True):
            outputs[number] = output
    return outputs


def _inside(values: torch.Tensor, cube: tuple[int, int, int]) -> torch.Tensor:
    """Values ``(z * x, y, outputs)`` of a cube without the blocks at its faces, whose neighbours the trunk lacks."""
    z, y, x = (slice(FACE, size - FACE) if size > 2 * FACE else slice(None) for size in cube)
    return values.unflatten(0, (cube[0], cube[2]))[z, x, y].flatten(0, 1)


def _smaller(cube: tuple[int, int, int]) -> tuple[int, int, int]:
    z, y, x = (size - 2 * FACE if size > 2 * FACE else size for size in cube)
    return z, y, x


def learning_rate_factor(step: int, config: TrainConfig, time_share: float = 0.0) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step, or when the time is up.

    Args:
        step: from 0.
        config: of the run.
        time_share: part of the time that is spent; 0 without a limit.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, max(progress, time_share))))


def new_state(config: TrainConfig, place: Place, start: Network | None = None) -> TrainState:
    """The state before the first step: weights from the seed, or from another network.

    Raises:
        ModelError: if that network is of another architecture.
    """
    torch.manual_seed(config.seed)
    network = build_network(config.network_config())
    if start is not None:
        wanted, found = (config_to_dict(one.config) for one in (network, start))
        if wanted != found:
            key = next(k for k in {**wanted, **found} if wanted.get(k) != found.get(k))
            raise ModelError(
                f"the model to start from is of another architecture: '{key}' is {found.get(key)}, the configuration "
                f"has {wanted.get(key)}"
            )
        network.load_state_dict(start.state_dict())
    network = network.to(place.device).train().requires_grad_(True)
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    scaler = torch.amp.GradScaler(place.device.type, enabled=place.precision == torch.float16)
    return TrainState(network, averaged, optimiser, scaler)


def train(
    config: TrainConfig, source: Source, place: Place, hooks: Hooks | None = None, state: TrainState | None = None
) -> TrainState:
    """Train a network from a state on, up to the last step or until asked to stop.

    Args:
        config: the recipe.
        source: of the series.
        place: device, precision, process.
        hooks: what is told and asked.
        state: to go on from; fresh weights by default. It is changed.

    Raises:
        CryoLitheError: if the loss is not finite.
    """
    hooks, state = hooks or Hooks(), state or new_state(config, place)
    weights = band_weights(config).to(place.device)
    apply: Callable[..., Any] = torch.compile(state.network, dynamic=True) if config.compile else state.network
    threads = 0 if place.device.type == "cpu" else THREADS_BESIDE_GPU
    steps = runs_of_steps(config, state.network.config, source, state.step, place.stream, threads)
    spent_before, started = state.seconds, hooks.clock()
    share = 0.0 if math.isinf(hooks.limit_seconds) else state.seconds / hooks.limit_seconds
    try:
        for runs in steps:
            rate = config.learning_rate * learning_rate_factor(state.step, config, share)
            loss = _gradient(state, runs, weights, place, config, apply)
            state.seconds = spent_before + hooks.clock() - started
            asked, late = float(hooks.stop_wanted()), float(state.seconds >= hooks.limit_seconds)
            numbers = [loss, asked, late, state.seconds]
            loss, asked, late, seconds = average(state.network.parameters(), numbers, place)
            if not math.isfinite(loss):
                hooks.on_bad_loss(runs, state.step)
                raise CryoLitheError(
                    f"the loss became {loss} at step {state.step + 1}; lower learning_rate or check the data"
                )
            norm = _update(state, config, rate)
            share = 0.0 if math.isinf(hooks.limit_seconds) else seconds / hooks.limit_seconds
            enough = hooks.on_step(state, Progress(state.step, loss, state.averaged, rate, norm))
            state.interrupted = asked > 0
            if asked > 0 or late > 0 or _any(bool(enough), place):
                break
    finally:
        steps.close()
    return state


def _gradient(
    state: TrainState,
    runs: list[Run],
    weights: torch.Tensor,
    place: Place,
    config: TrainConfig,
    apply: Callable[..., torch.Tensor],
) -> float:
    """Accumulate the gradient of the runs of a step, scaled in float16; returns their mean loss."""
    state.optimiser.zero_grad(set_to_none=True)
    total = torch.zeros((), device=place.device)
    together = TOGETHER if state.network.config.trunk_reach else 1
    for first in range(0, len(runs), together):
        some = runs[first : first + together]
        batches = [_gather(run, state.network, place, config.compile) for run in some]
        loss = batches_loss(state.network, batches, weights, place.precision, config.loss, apply)
        loss = loss * (len(some) / len(runs))
        state.scaler.scale(loss).backward()
        total += loss.detach()
    return float(total)  # waits for the device, once a step


def _gather(run: Run, network: Network, place: Place, compiled: bool) -> AnyBatch:
    """What the network takes of a run; a compiled network takes windows."""
    if place.device.type != "cpu":
        # Windows are read and written several times: on a GPU that is most of a step's time.
        return gather(run, network.config, place.device, place.precision)
    if isinstance(network, RowSet) and not compiled and columns_pay(run, network.config):
        return gather_columns(run, network.config)
    return gather(run, network.config, place.device)


def _update(state: TrainState, config: TrainConfig, rate: float) -> float:
    """One step of the optimiser and of the average; returns the norm of the gradient."""
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.scaler.unscale_(state.optimiser)  # after the average over the processes: see there
    norm = torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    # Early weights are forgotten quickly, late ones slowly.
    decay = min(config.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        slow: list[torch.Tensor] = list(state.averaged.parameters())
        fast: list[torch.Tensor] = list(state.network.parameters())
        torch._foreach_lerp_(slow, fast, 1 - decay)
    state.step += 1
    return float(norm)


def _any(wish: bool, place: Place) -> bool:
    """Whether any process wishes to stop; a single one need not ask."""
    return wish if place.world == 1 else average([], [float(wish)], place)[0] > 0
