"""The steps of the training of a general denoiser, and what it makes of series that it does not learn from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from cryolithe.denoise_training.config import GeneralConfig
from cryolithe.denoise_training.patches import Examples, SeriesPatches, noisy
from cryolithe.denoise_training.store import Stored
from cryolithe.denoising.ceiling import correlation
from cryolithe.denoising.n2n.gains import ShellGain, fit_gain
from cryolithe.denoising.n2n.losses import fsc_loss
from cryolithe.denoising.n2n.network import build
from cryolithe.denoising.n2n.planar import Planar
from cryolithe.denoising.n2n.recipe import learning_rate
from cryolithe.denoising.n2n.tiles import as_batch, prepared
from cryolithe.denoising.n2n.train import output_of
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks as AnyHooks
from cryolithe.optimise.loop import Progress, Task, optimise
from cryolithe.optimise.state import State, check_same, check_same_files, new_scaler, read_state, restore, write_state
from cryolithe.optimise.step import follow, gradient, update

FORMAT = "cryolithe-n2n-general-training"
CLIP_NORM = 1.0
HELD_EDGE = 96  # voxels of a held series along an axis
DOSES = {"whole": 0.0, "half": 1.0}  # amounts of noise that are scored


@dataclass(kw_only=True)
class GeneralState(State[nn.Module]):
    """All that changes; ``averaged`` is the exponential mean of the weights, which is what is kept."""

    averaged: nn.Module


@dataclass(frozen=True)
class Found:
    """Scores of held series.

    Attributes:
        correlation: with the clean volume, mean over the series: dose -> after denoising.
        before: the same of what was denoised.
        by_kind: correlation at the whole dose, before and after, by recipe.
        gain: that makes outputs most alike to clean volumes.
    """

    correlation: dict[str, float]
    before: dict[str, float]
    by_kind: dict[str, tuple[float, float]]
    gain: ShellGain


@dataclass(frozen=True)
class Hooks(AnyHooks):
    """What a training tells and asks; ``on_validation`` is told the state and what was found."""

    on_validation: Callable[[GeneralState, Found], object] = lambda state, found: None


def new_state(config: GeneralConfig, place: Place) -> GeneralState:
    """The state before the first step."""
    torch.manual_seed(config.seed)
    network = prepared(build(config.network), config.network, place.device).train()
    averaged = copy.deepcopy(network).requires_grad_(False).eval()
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    return GeneralState(network=network, averaged=averaged, optimiser=optimiser, scaler=new_scaler(place))


def train(
    config: GeneralConfig,
    patches: SeriesPatches,
    held: Sequence[Stored],
    place: Place,
    hooks: Hooks,
    state: GeneralState,
) -> GeneralState:
    """Train from a state on, until steps or time are up or somebody asks to stop.

    Raises:
        CryoLitheError: if the loss is not finite.
    """

    def on_step(state: GeneralState, progress: Progress) -> bool:
        stop = bool(hooks.on_step(state, progress))
        if state.step % config.validate_every == 0 or progress.done >= 1:
            stop = bool(hooks.on_validation(state, validated(state.averaged, held, place))) or stop
        return stop

    task: Task[GeneralState, Examples] = Task(
        steps=config.steps,
        batches=_until(config.steps, patches, state.step),
        learning_rate=lambda step, share: learning_rate(config, step, max(share, step / config.steps)),
        gradient=lambda state, batch: gradient(state, [loss(config, state.network, batch, place)]),
        update=lambda state, value: _update(config, state, value),
        remedy="try --precision fp32",
    )
    return optimise(task, place, replace(hooks, on_step=on_step), state)


def _until(steps: int, patches: SeriesPatches, step: int):  # type: ignore[no-untyped-def]
    for number in range(step, steps):
        yield patches.batch(number)


def _update(config: GeneralConfig, state: GeneralState, value: float) -> float:
    norm = update(state, value, CLIP_NORM)
    follow(state.averaged, state.network, config.ema_decay, state.step)
    return norm


def loss(config: GeneralConfig, network: nn.Module, batch: Examples, place: Place) -> torch.Tensor:
    """Squared difference by what there is to be found, and the correlation of shells."""
    wanted, weight = batch.wanted.to(place.device), batch.weight.to(place.device)
    made = output_of(network, as_batch(batch.given, place.device), place).float()
    total = (weight * (made - wanted).square().mean(dim=(1, 2, 3, 4))).mean()
    if config.loss_fsc:
        scale = weight.sqrt()[:, None, None, None, None]
        total = total + config.loss_fsc * fsc_loss(made * scale, wanted * scale)
    return total


@torch.no_grad()
def validated(network: nn.Module, held: Sequence[Stored], place: Place) -> Found:
    """What a network makes of the middle of held series."""
    after: dict[str, list[float]] = {dose: [] for dose in DOSES}
    before: dict[str, list[float]] = {dose: [] for dose in DOSES}
    kinds: dict[str, list[tuple[float, float]]] = {}
    pairs = []
    planar = isinstance(network, Planar)  # shells of a volume mean nothing in a stack
    for series in held:
        box = _middle(series.shape)
        clean = series.clean[box].astype(np.float32)
        for dose, amount in DOSES.items():
            given, sigma = noisy(series, box, amount)
            made = output_of(network, as_batch(torch.from_numpy(given)[None, None], place.device), place)
            values = made[0, 0].float().cpu().numpy()
            before[dose].append(correlation(given, clean))
            after[dose].append(correlation(values, clean))
            if not amount:
                pairs.append((values, clean / sigma))
                kinds.setdefault(str(series.told.get("kind")), []).append((before[dose][-1], after[dose][-1]))
    return Found(
        correlation={dose: float(np.mean(values)) for dose, values in after.items()},
        before={dose: float(np.mean(values)) for dose, values in before.items()},
        by_kind={kind: (float(np.mean(v, axis=0)[0]), float(np.mean(v, axis=0)[1])) for kind, v in kinds.items()},
        gain=ShellGain() if planar else fit_gain(pairs),
    )


def _middle(shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    starts = [max(0, (size - HELD_EDGE) // 2) for size in shape]
    z, y, x = (slice(start, min(size, start + HELD_EDGE)) for start, size in zip(starts, shape, strict=True))
    return z, y, x


def save_state(
    path: Path, state: GeneralState, config: GeneralConfig, files: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write all that a training needs to go on exactly.

    Args:
        path: of the file.
        state: of the training.
        config: that decides it.
        files: SHA-256 of what decides it beside the configuration, by what to call it.

    Raises:
        OutputError: if it cannot be written (an earlier file is kept).
    """
    write_state(path, state, FORMAT, {"config": config.model_dump(mode="json"), "files": dict(files)})


def load_state(
    path: Path, state: GeneralState, config: GeneralConfig, files: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Go back to a saved state; ``state`` is changed.

    Raises:
        ModelError: if the file is missing, corrupt, or of another network.
        SettingsError: if it is of another configuration or of other files.
    """
    tensors, values = read_state(path, FORMAT)
    check_same(path, values["config"], config.model_dump(mode="json"))
    check_same_files(values.get("files"), files)
    restore(path, state, tensors, values)
