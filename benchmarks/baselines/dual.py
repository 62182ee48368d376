"""DUAL: unpaired denoising and simulation of tomograms (Zeng, Ding, Zhang, Uddin, Dabouei & Xu, 2024), made small.

Noisy tomograms t and clean density maps v, of which no two belong together. Six networks: Dn takes a tomogram to a
density, G_s a density and a noise mask to a tomogram, E a tomogram to a noise code, G_n a code to a mask, D_t and D_v
tell real from made. Two cycles:

    clean -> noisy -> clean    t_f = G_s(v + P(G_n(z))), z ~ N(0, I); v' = Dn(t_f)
    noisy -> clean -> noisy    v_f = Dn(t); t' = G_s(v_f + G_n(E(t)))

P shuffles the voxels of the mask, which keeps noise before G_s without structure; only where noise is drawn. Losses and
weights are the paper's; its code is not public and its tables of layers were not at hand, so these are choices:

    Dn, G_s     3-D U-Nets, three levels, instance norm, LeakyReLU 0.2, added to their input
    E, G_n      four convolutions of stride 2, a mean and a linear map; a linear map and four transposed convolutions
    D_t, D_v    patch discriminators, one on voxels and one on log |Fourier transform|; the mean of both losses
    clamps      both arguments of the logarithms of the reconstruction loss at 1e-6: gradients go as 1 / loss
    covariance  of the codes of a batch plus 0.1 I: a batch is smaller than a code

The tomogram's loss compares t' with t, and E sees t, where the paper prints v in both places.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import pad, softplus

from cryolithe.optimise.distributed import Place
from cryolithe.optimise.state import State, check_same, new_scaler, read_state, restore, write_state

Volume = NDArray[np.float32]

EDGE = 32
LEVELS = 3
FORMAT = "cryolithe-benchmark-dual"
SMALLEST = 1e-6
WEIGHTS = (1.0, 1.0, 0.1)  # reconstruction, adversarial, code
SHRINKAGE = 0.1
RATE, BETAS, DECAY = 1e-4, (0.9, 0.999), 1e-6
SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class DualSettings:
    """Size and training.

    Attributes:
        filters: of the U-Nets at full resolution.
        code: numbers of a noise code.
        batch: patches from each of the two sets in a step.
        seed: of weights, patches and noise.
    """

    filters: int = 16
    code: int = 64
    batch: int = 4
    seed: int = 0


class UNet(nn.Module):
    """x + U(x), with shape ``(batch, 1, z, y, x)``, each a multiple of 4."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([1, *widths[:-1]], widths, strict=True))
        self.up = nn.ModuleList(_block(widths[n] + widths[n + 1], widths[n]) for n in reversed(range(LEVELS - 1)))
        self.last = nn.Conv3d(filters, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape."""
        given, kept = x, []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.avg_pool3d(x, 2))
            kept.append(x)
        for block, beside in zip(self.up, reversed(kept[:-1]), strict=True):
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2.0), beside], 1))
        made: torch.Tensor = given + self.last(x)
        return made


class Encoder(nn.Module):
    """A tomogram's noise code, shape ``(batch, code)``."""

    def __init__(self, filters: int, code: int) -> None:
        super().__init__()
        self.layers = _shrinking(1, filters, 4)
        self.last = nn.Linear(8 * filters, code)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From shape ``(batch, 1, z, y, x)``."""
        made: torch.Tensor = self.last(self.layers(x).mean(dim=(2, 3, 4)))
        return made


class Decoder(nn.Module):
    """A noise mask of a patch's size from a code."""

    def __init__(self, filters: int, code: int) -> None:
        super().__init__()
        self.side = EDGE // 16
        widths = [4 * filters, 4 * filters, 2 * filters, filters]
        self.width = widths[0]
        self.first = nn.Linear(code, self.width * self.side**3)
        layers: list[nn.Module] = []
        for before, after in zip(widths, [*widths[1:], 1], strict=True):
            layers += [nn.LeakyReLU(0.2), nn.ConvTranspose3d(before, after, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        """To shape ``(batch, 1, EDGE, EDGE, EDGE)``."""
        made: torch.Tensor = self.layers(self.first(code).view(-1, self.width, *(self.side,) * 3))
        return made


class Discriminator(nn.Module):
    """Tells real from made, by voxels and by the logarithm of the spectrum."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.spatial, self.spectral = (
            nn.Sequential(_shrinking(1, filters, 3), nn.Conv3d(4 * filters, 1, 1)) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of patches, and of regions of frequency."""
        spectrum = torch.fft.rfftn(x, dim=(2, 3, 4), norm="ortho").abs()
        return self.spatial(x), self.spectral((spectrum + 1e-3).log())


class Dual(nn.Module):
    """The six networks, with orthogonal initial weights."""

    def __init__(self, settings: DualSettings) -> None:
        super().__init__()
        filters, code = settings.filters, settings.code
        self.denoiser, self.structural = UNet(filters), UNet(filters)
        self.encoder, self.mask = Encoder(filters, code), Decoder(filters, code)
        self.tomogram_judge, self.density_judge = Discriminator(filters), Discriminator(filters)
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d | nn.Linear):
                nn.init.orthogonal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def judges(self) -> tuple[nn.Module, nn.Module]:
        """What the others play against."""
        return self.tomogram_judge, self.density_judge


@dataclass(kw_only=True)
class DualState(State[Dual]):
    """All that a training changes.

    Attributes:
        last: sums of the losses by name since the last save, for the record.
    """

    last: dict[str, float] = field(default_factory=dict)


def new_state(settings: DualSettings, place: Place) -> DualState:
    """The state before the first step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Dual(settings).to(place.device)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, BETAS, eps=1e-8, weight_decay=DECAY)
    return DualState(network=network, optimiser=optimiser, scaler=new_scaler(place))


def reconstruction_loss(made: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Mean over patches of ``log |a - b|² + log(1 - corr(a, b))``, the square as a mean over voxels."""
    a, b = made.flatten(1), given.flatten(1)
    error = ((a - b) ** 2).mean(1)
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    apart = 1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(SMALLEST)
    return (error.clamp_min(SMALLEST).log() + apart.clamp_min(SMALLEST).log()).mean()


def code_loss(codes: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of the codes' normal distribution from N(0, I), shape ``(batch, code)``."""
    mean, size = codes.mean(0), codes.shape[1]
    away = codes - mean
    unit = torch.eye(size, device=codes.device)
    factor = torch.linalg.cholesky(away.T @ away / max(1, len(codes) - 1) + SHRINKAGE * unit)
    inverse = torch.cholesky_inverse(factor)
    return 0.5 * (inverse.trace() + mean @ inverse @ mean - size + 2 * factor.diagonal().log().sum())


def adversarial_loss(logits: tuple[torch.Tensor, torch.Tensor], real: bool) -> torch.Tensor:
    """``-log D`` or ``-log(1 - D)``, the mean of both domains."""
    sign = -1.0 if real else 1.0
    return 0.5 * (softplus(sign * logits[0]).mean() + softplus(sign * logits[1]).mean())


def shuffled(mask: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """P: the voxels of each mask in an order of their own."""
    flat = mask.flatten(1)
    order = torch.stack([torch.randperm(flat.shape[1], generator=draw) for _ in flat]).to(mask.device)
    return flat.gather(1, order).view_as(mask)


def train(
    state: DualState,
    sets: tuple[torch.Tensor, torch.Tensor],
    settings: DualSettings,
    seconds: float,
    on_save: Callable[[DualState], object] = lambda state: None,
) -> None:
    """Train until ``state.seconds`` have been spent; a training that goes on draws what an unbroken one would.

    Args:
        state: changed.
        sets: noisy and clean patches, shapes ``(N, EDGE, EDGE, EDGE)`` and ``(M, ...)``, standardised.
        settings: size and batch.
        seconds: in all, those spent before included.
        on_save: called every minute and at the end.
    """
    saved = state.seconds
    while state.seconds < seconds:
        start = time.perf_counter()
        draw = torch.Generator().manual_seed(settings.seed * 1_000_003 + state.step)
        noisy, clean = (_batch(patches, settings.batch, draw) for patches in sets)
        device = next(state.network.parameters()).device
        state.last = _step(state, noisy.to(device), clean.to(device), settings, draw)
        state.step += 1
        state.seconds += time.perf_counter() - start
        if state.seconds - saved >= SAVE_SECONDS:
            on_save(state)
            saved = state.seconds
    on_save(state)


def _step(
    state: DualState, noisy: torch.Tensor, clean: torch.Tensor, settings: DualSettings, draw: torch.Generator
) -> dict[str, float]:
    """One step of the makers, then one of the judges, on what was made."""
    net, judges = state.network, state.network.judges
    code = torch.randn(len(clean), settings.code, generator=draw).to(clean.device)
    _learn(judges, False)
    simulated = net.structural(clean + shuffled(net.mask(code), draw))
    denoised = net.denoiser(noisy)
    codes = net.encoder(noisy)
    back = net.denoiser(simulated), net.structural(denoised + net.mask(codes))
    losses = {
        "density": reconstruction_loss(back[0], clean),
        "tomogram": reconstruction_loss(back[1], noisy),
        "adversarial": adversarial_loss(judges[0](simulated), True) + adversarial_loss(judges[1](denoised), True),
        "code": code_loss(codes),
    }
    total = WEIGHTS[0] * (losses["density"] + losses["tomogram"])
    total = total + WEIGHTS[1] * losses["adversarial"] + WEIGHTS[2] * losses["code"]
    _move(state.optimiser, total)
    _learn(judges, True)
    pairs = (judges[0], noisy, simulated.detach()), (judges[1], clean, denoised.detach())
    told = [adversarial_loss(judge(x), True) + adversarial_loss(judge(y), False) for judge, x, y in pairs]
    losses["judges"] = told[0] + told[1]
    _move(state.optimiser, losses["judges"])
    found = {name: float(value.detach()) for name, value in losses.items()}
    if not np.isfinite(list(found.values())).all():
        raise RuntimeError(f"step {state.step}: a loss is not finite: {found}")
    return found


def _learn(modules: tuple[nn.Module, nn.Module], wanted: bool) -> None:
    for module in modules:
        module.requires_grad_(wanted)


def _move(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """A step of what has a gradient; the optimiser leaves alone what has none."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()


def _batch(patches: torch.Tensor, size: int, draw: torch.Generator) -> torch.Tensor:
    return patches[torch.randint(len(patches), (size,), generator=draw)][:, None]


def patches_of(volumes: list[Volume]) -> torch.Tensor:
    """Non-overlapping patches of standardised volumes, shape ``(N, EDGE, EDGE, EDGE)``.

    Raises:
        ValueError: if a volume is thinner than a patch.
    """
    found = []
    for volume in map(standardised, volumes):
        if min(volume.shape) < EDGE:
            raise ValueError(f"a volume of {volume.shape} voxels has no patch of {EDGE}³; expected at least that")
        whole = torch.from_numpy(volume)[tuple(slice(0, n - n % EDGE) for n in volume.shape)]
        cut = whole.unfold(0, EDGE, EDGE).unfold(1, EDGE, EDGE).unfold(2, EDGE, EDGE)
        found.append(cut.reshape(-1, EDGE, EDGE, EDGE))
    return torch.cat(found)


def standardised(volume: Volume) -> Volume:
    """Mean 0, standard deviation 1."""
    return np.asarray((volume - volume.mean(dtype=np.float64)) / volume.std(dtype=np.float64), dtype=np.float32)


@torch.no_grad()
def denoise(network: Dual, volume: Volume) -> Volume:
    """Dn on a standardised volume by tiles that overlap by half, faded into each other."""
    device, half = next(network.parameters()).device, EDGE // 2
    padding = [size for n in reversed(volume.shape) for size in (half, half + -n % half)]
    given = pad(torch.from_numpy(standardised(volume))[None, None], padding, mode="reflect")[0, 0]
    ramp = torch.sin(torch.pi * (torch.arange(EDGE) + 0.5) / EDGE) ** 2
    weight = ramp[:, None, None] * ramp[:, None] * ramp
    out = torch.zeros_like(given)
    for z in range(0, given.shape[0] - half, half):
        for y in range(0, given.shape[1] - half, half):
            row = range(0, given.shape[2] - half, half)
            tiles = torch.stack([given[z : z + EDGE, y : y + EDGE, x : x + EDGE] for x in row])
            made = network.denoiser(tiles[:, None].to(device))[:, 0].cpu()
            for x, tile in zip(row, made, strict=True):
                out[z : z + EDGE, y : y + EDGE, x : x + EDGE] += weight * tile
    # sin² windows that overlap by half add up to one along each axis.
    inside: Volume = out[tuple(slice(half, half + n) for n in volume.shape)].numpy()
    return np.ascontiguousarray(inside)


def save(path: Path, state: DualState, settings: DualSettings, data: str) -> None:
    """Write everything that a training needs to go on."""
    write_state(path, state, FORMAT, {"settings": asdict(settings), "data": data})


def resume(path: Path, state: DualState, settings: DualSettings, data: str) -> None:
    """Go on from a saved state of the same settings and data; ``state`` is changed.

    Raises:
        CryoLitheError: if the file is of another training.
    """
    tensors, values = read_state(path, FORMAT)
    now: dict[str, Any] = {"settings": asdict(settings), "data": data}
    check_same(path, values, now)
    restore(path, state, tensors, values)


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels_in, channels_out):
        layers += [nn.Conv3d(before, channels_out, 3, padding=1), nn.InstanceNorm3d(channels_out), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


def _shrinking(channels: int, filters: int, layers: int) -> nn.Sequential:
    """Convolutions of stride 2, each with twice the filters of the one before."""
    made: list[nn.Module] = []
    for layer in range(layers):
        made += [nn.Conv3d(channels, filters * 2**layer, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = filters * 2**layer
    return nn.Sequential(*made)
