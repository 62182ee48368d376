"""The optimisation: AdamW, warm-up and cosine, averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cryolithe.errors import CryoLitheError
from cryolithe.network import Network, build_network
from cryolithe.training.config import TrainConfig
from cryolithe.training.dataset import Batch, TrainingSeries, draw_batch
from cryolithe.wavelets import Wavelet, basis_norms


@dataclass(frozen=True)
class Progress:
    """What a step tells its watcher: its number (from 1), its loss, and the averaged weights so far."""

    step: int
    loss: float
    averaged: Network


def band_weights(config: TrainConfig) -> torch.Tensor:
    """Weight of each output in the loss, shape ``(outputs,)``.

    With exponent 1 each coefficient's squared error weighs as the squared voxel error that it alone would make.
    Neighbouring synthesis functions overlap (except Haar's), so this is not the voxel error itself: errors that
    vary slowly in space weigh less than in voxels, and quickly varying ones more. Smaller exponents stress low
    frequencies.
    """
    head = config.network_config().head
    if head.levels == 0:
        return torch.ones(1)
    norms = basis_norms(Wavelet(head.wavelet), head.levels)
    return norms**config.band_exponent / head.outputs


def batch_loss(network: Network, batch: Batch, weights: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    """Weighted squared error of a batch; targets have unit variance in voxels (see `band_weights`)."""
    device = weights.device
    enabled = precision != torch.float32
    with torch.autocast(device.type, dtype=precision if enabled else torch.bfloat16, enabled=enabled):
        context = network.tilt_context(batch.angles_rad.to(device))
        windows = batch.windows.to(device, precision)
        output = network(windows, batch.visible.to(device), context.to(precision))
    error = output.float() * batch.output_gain - batch.targets.to(device)
    return (error.square() * weights).sum(-1).mean()


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def train(
    config: TrainConfig,
    series: list[TrainingSeries],
    precision: torch.dtype,
    device: torch.device,
    on_step: Callable[[Progress], object] = lambda progress: None,
) -> Network:
    """Train a network and return its averaged weights.

    Args:
        config: the recipe.
        series: training series; each step draws ``runs_per_step`` of them.
        precision: of the matrix products: float32, bfloat16 or float16.
        device: where to train.
        on_step: called after every step.

    Raises:
        CryoLitheError: if the loss is not finite.
    """
    torch.manual_seed(config.seed)
    network = build_network(config.network_config()).to(device)
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    weights = band_weights(config).to(device)
    rng = np.random.default_rng([config.seed, 1_000_003])
    for step in range(config.steps):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config)
        optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for _ in range(config.runs_per_step):
            batch = draw_batch(series[rng.integers(len(series))], config, network.config, rng)
            loss = batch_loss(network, batch, weights, precision) / config.runs_per_step
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise CryoLitheError(f"the loss became {total} at step {step + 1}; lower learning_rate or check the data")
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        # Early weights are forgotten quickly, late ones slowly.
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), network.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        on_step(Progress(step + 1, total, averaged))
    return averaged
