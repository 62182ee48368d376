"""The optimisation: AdamW, warm-up and cosine, averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cryolithe.errors import ModelError
from cryolithe.network import Network, RowSet, build_network
from cryolithe.network.config import config_to_dict
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks, Task, loader_threads, optimise
from cryolithe.optimise.state import State, new_scaler
from cryolithe.optimise.step import follow, gradient, update
from cryolithe.training.columns import AnyBatch, ColumnBatch, columns_pay, gather_columns, values_of_blocks
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import Run, gather
from cryolithe.training.loader import runs_of_steps
from cryolithe.training.losses import run_loss
from cryolithe.training.sections import LossSettings
from cryolithe.training.sources import Source

# Blocks at the faces of a cube that a loss leaves out, and cubes that go through a trunk together.
FACE, TOGETHER = 2, 8


@dataclass(kw_only=True)
class TrainState(State[Network]):
    """All that changes during a run.

    Attributes:
        averaged: moving average of the network's weights.
    """

    averaged: Network


def band_weights(config: TrainConfig) -> torch.Tensor:
    """Weight of each output in the loss, see `cryolithe.network.heads`."""
    return config.network_config().head.weights(config.band_exponent)


def batch_loss(
    network: Network,
    batch: AnyBatch,
    weights: torch.Tensor,
    precision: torch.dtype,
    settings: LossSettings | None = None,
    apply: Callable[..., torch.Tensor] | None = None,
) -> torch.Tensor:
    """Loss of a batch; targets have unit variance in voxels.

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
    losses = []
    for values, batch in zip(batches_values(network, batches, weights.device, precision, apply), batches, strict=True):
        target, cube = batch.targets.to(weights.device), batch.cube
        if network.config.trunk_reach and cube is not None:
            target, cube = inside_cube(target, cube), smaller_cube(cube)
        place = None if cube is None else (cube, network.config.head)
        losses.append(run_loss(values, target, weights, settings or LossSettings(), place))
    return torch.stack(losses).mean()


def batches_values(
    network: Network,
    batches: Sequence[AnyBatch],
    device: torch.device,
    precision: torch.dtype,
    apply: Callable[..., torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """Outputs for the blocks of each batch, in the units of targets; a trunk's without the blocks at a cube's faces.

    Args:
        network: the network, on the device.
        batches: as for `batches_loss`.
        device: where to compute.
        precision: of the matrix products.
        apply: what is called instead of the network (its compiled form).

    Returns:
        for each batch shape ``(columns, blocks, outputs)``, float32.
    """
    enabled = precision != torch.float32
    trunk = isinstance(network, RowSet) and network.trunk is not None
    with torch.autocast(device.type, dtype=precision if enabled else torch.bfloat16, enabled=enabled):
        called = network if apply is None else apply
        outputs = [_joined(network, batch, device, precision, called) for batch in batches]
        if trunk:
            outputs = _refined(network, outputs, batches)
    found = []
    for output, batch in zip(outputs, batches, strict=True):
        values = output.float() * batch.output_gain
        found.append(inside_cube(values, batch.cube) if trunk and batch.cube is not None else values)
    return found


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
    # Networks that take no facts are not given any: not all kinds know the argument.
    facts = () if batch.facts is None else (batch.facts.to(device),)
    context = network.tilt_context(batch.angles_rad.to(device), *facts)
    return apply(batch.windows.to(device, precision), batch.visible.to(device), context.to(precision), *facts)


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


def inside_cube(values: torch.Tensor, cube: tuple[int, int, int]) -> torch.Tensor:
    """Values ``(z * x, y, outputs)`` of a cube without the blocks at its faces, whose neighbours the trunk lacks."""
    z, y, x = (slice(FACE, size - FACE) if size > 2 * FACE else slice(None) for size in cube)
    return values.unflatten(0, (cube[0], cube[2]))[z, x, y].flatten(0, 1)


def smaller_cube(cube: tuple[int, int, int]) -> tuple[int, int, int]:
    """What `inside_cube` leaves of the blocks ``(z, y, x)`` of a cube."""
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
    return TrainState(network=network, averaged=averaged, optimiser=optimiser, scaler=new_scaler(place))


def train(
    config: TrainConfig, source: Source, place: Place, hooks: Hooks | None = None, state: TrainState | None = None
) -> TrainState:
    """Train a network from a state on, up to the last step or until asked to stop.

    Args:
        config: the recipe.
        source: of the series.
        place: device, precision, process.
        hooks: what is told and asked; a step's batch are its runs.
        state: to go on from; fresh weights by default. It is changed.

    Raises:
        CryoLitheError: if the loss is not finite.
    """
    state = state or new_state(config, place)
    weights = band_weights(config).to(place.device)
    apply: Callable[..., Any] = torch.compile(state.network, dynamic=True) if config.compile else state.network
    threads = loader_threads(place.device)
    task: Task[TrainState, list[Run]] = Task(
        steps=config.steps,
        batches=runs_of_steps(config, state.network.config, source, state.step, place.stream, threads),
        learning_rate=lambda step, share: config.learning_rate * learning_rate_factor(step, config, share),
        gradient=lambda state, runs: _gradient(state, runs, weights, place, config, apply),
        update=lambda state, rate: _update(state, config, rate),
        remedy="lower learning_rate or check the data",
    )
    return optimise(task, place, hooks or Hooks(), state)


def _gradient(
    state: TrainState,
    runs: list[Run],
    weights: torch.Tensor,
    place: Place,
    config: TrainConfig,
    apply: Callable[..., torch.Tensor],
) -> float:
    """Accumulate the gradient of the runs of a step; returns their mean loss."""

    def losses() -> Iterator[torch.Tensor]:
        together = TOGETHER if state.network.config.trunk_reach else 1
        for first in range(0, len(runs), together):
            some = runs[first : first + together]
            batches = [gather_for(run, state.network, place, config.compile) for run in some]
            loss = batches_loss(state.network, batches, weights, place.precision, config.loss, apply)
            yield loss * (len(some) / len(runs))

    return gradient(state, losses())


def gather_for(run: Run, network: Network, place: Place, compiled: bool = False) -> AnyBatch:
    """What the network takes of a run; a compiled network takes windows."""
    if place.device.type != "cpu":
        # Windows are read and written several times: on a GPU that is most of a step's time.
        return gather(run, network.config, place.device, place.precision)
    if isinstance(network, RowSet) and not compiled and columns_pay(run, network.config):
        return gather_columns(run, network.config)
    return gather(run, network.config, place.device)


def _update(state: TrainState, config: TrainConfig, rate: float) -> float:
    """One step of the optimiser and of the average; returns the norm of the gradient."""
    norm = update(state, rate, config.clip_norm)
    follow(state.averaged, state.network, config.ema_decay, state.step)
    return norm
