"""Learning R: hinge loss and R1 (Mescheder et al. 2018) with two judges, and the distance of the radial spectra.

A step sees one tilt: patches of the laboratory's image there, and of clean images of the tilts nearest to it. What a
step draws is seeded by its number. In the end the averaged weights are held against no R at all: if they bring the
spectra less near, R is left out, which is said.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cryolithe.errors import CryoLitheError
from cryolithe.style.judges import Judges
from cryolithe.style.measure import Curves, at_nodes, measure, on_curves
from cryolithe.style.network import Styler, draw_noise
from cryolithe.style.rings import Rings
from cryolithe.style.target import Stack

RATE, BETAS = 2e-4, (0.0, 0.99)
R1, R1_EVERY = 10.0, 8
LONGEST_AVERAGE = 0.999
PATCH_PX = 64
WORSE_DB = 0.1
_PLACES_TRIED = 16
_EVALUATED = 12  # patches of each tilt
_TILTS_EVALUATED = 9


@dataclass(frozen=True)
class Learning:
    """How long and how large.

    Attributes:
        seconds: for the steps.
        steps: at most so many; the same number gives the same network.
        filters: of the U-Net and the judges.
        batch: patches of a step.
        seed: of weights, patches and noise.
    """

    seconds: float
    steps: int | None = None
    filters: int = 8
    batch: int = 4
    seed: int = 0


class Learned(NamedTuple):
    """A style.

    Attributes:
        styler: evaluated, not trained any more.
        curves: what was measured.
        steps: taken.
        apart_db: rms distance of the radial spectra from the laboratory's, over tilts and rings.
        white_db: the same of clean images with white noise of the missing variance.
        notes: what a user should know.
    """

    styler: Styler
    curves: Curves
    steps: int
    apart_db: float
    white_db: float
    notes: tuple[str, ...]


class _Patches:
    """Random patches of stacks, those of images near a tilt."""

    def __init__(self, stacks: tuple[Stack, ...], size: int, factor: float = 1.0) -> None:
        self.stacks, self.size, self.factor = stacks, size, np.float32(factor)

    def batch(self, angle_deg: float, count: int, rng: np.random.Generator) -> torch.Tensor:
        """Shape ``(count, 1, size, size)``; turned over at random, which neither tilt nor axis minds."""
        found = []
        for _ in range(count):
            stack = self.stacks[int(rng.integers(len(self.stacks)))]
            tilt = int(np.abs(stack.angles_deg - angle_deg).argmin())
            y, x = self._place(stack, tilt, rng)
            patch = stack.images[tilt, y : y + self.size, x : x + self.size]
            found.append(patch[:: -1 if rng.random() < 0.5 else 1, :: -1 if rng.random() < 0.5 else 1])
        return torch.from_numpy(self.factor * np.stack(found))[:, None]

    def _place(self, stack: Stack, tilt: int, rng: np.random.Generator) -> tuple[int, int]:
        """First row and column of a patch, of several where images have borders: that with the least of them."""

        def drawn() -> tuple[int, int]:
            y, x = (int(rng.integers(n - self.size + 1)) for n in stack.images.shape[1:])
            return y, x

        data, place, best = stack.data, drawn(), 0.0
        if data is None:
            return place
        for number in range(_PLACES_TRIED):
            other = drawn() if number else place
            held = float(data[tilt, other[0] : other[0] + self.size, other[1] : other[1] + self.size].mean())
            if held > best:
                best, place = held, other
            if held == 1:
                break
        return place


class _Setting(NamedTuple):
    """What all steps share."""

    real: _Patches
    clean: _Patches
    rings: Rings
    weights: torch.Tensor
    target: NDArray[np.float64]
    curves: Curves

    def wanted(self, angle_deg: float) -> torch.Tensor:
        """Logarithm of the laboratory's power at a tilt, by rings of a patch."""
        return torch.from_numpy(on_curves(self.target, self.curves.angles_deg, angle_deg)).float()

    def noisy(self, angle_deg: float) -> torch.Tensor:
        """Share of noise in the laboratory's power at a tilt, by rings of a patch."""
        share = on_curves(self.curves.noise / self.curves.power, self.curves.angles_deg, angle_deg)
        found = np.interp(self.rings.frequency_per_px, self.curves.frequency_per_px, share)
        return torch.from_numpy(found).float()


def learn(
    real: tuple[Stack, ...],
    clean: tuple[Stack, ...],
    how: Learning,
    on_step: Callable[[float], object] = lambda done: None,
    clock: Callable[[], float] = time.monotonic,
) -> Learned:
    """Learn the style of stacks for clean simulated images.

    Args:
        real: standardised stacks of the laboratory.
        clean: noiseless images of simulated series, in their own units, with the same pixels.
        how: how long and how large.
        on_step: told after each step what part of the whole is done.
        clock: seconds.

    Raises:
        InputError: see `measure`.
        CryoLitheError: if a loss is not finite.
    """
    curves = measure(real, clean)
    smallest = min(min(stack.images.shape[1:]) for stack in (*real, *clean))
    rings = Rings(min(PATCH_PX, smallest // 8 * 8))
    # The curves belong to larger patches: the same stacks once more in the size that the network sees.
    small = np.log(np.maximum(at_nodes(real, rings, curves.angles_deg), np.finfo(np.float32).tiny))
    weights = torch.from_numpy(np.minimum(rings.counts / 16, 1.0)).float()
    setting = _Setting(
        _Patches(real, rings.size), _Patches(clean, rings.size, curves.contrast), rings, weights / weights.sum(),
        small, curves,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        styler = Styler(how.filters, (len(curves.angles_deg), len(curves.frequency_per_px))).measured(curves)
        judges = Judges(how.filters)
    averaged = copy.deepcopy(styler).requires_grad_(False).eval()
    before = _apart_db(setting, averaged, how.seed)
    steps = _steps(setting, (styler, averaged, judges), how, on_step, clock)
    apart, notes = _apart_db(setting, averaged, how.seed), list(curves.notes)
    if apart > before + WORSE_DB:
        notes.append(
            f"{steps} steps left the spectra {apart:.2f} dB from the stacks', stationary noise alone {before:.2f} dB: "
            "what was learned is left out; give more --style-minutes"
        )
        nn.init.zeros_(averaged.network.last.weight)
        apart = before
    return Learned(averaged, curves, steps, apart, _apart_db(setting, None, how.seed), tuple(notes))


def _steps(
    setting: _Setting,
    networks: tuple[Styler, Styler, Judges],
    how: Learning,
    on_step: Callable[[float], object],
    clock: Callable[[], float],
) -> int:
    """Take steps until time or number are reached; returns how many."""
    styler, averaged, judges = networks
    makers, tellers = (torch.optim.Adam(module.parameters(), RATE, BETAS) for module in (styler, judges))
    angles = np.concatenate([stack.angles_deg for stack in setting.real.stacks])
    start, step = clock(), 0
    while (how.steps is None or step < how.steps) and clock() - start < how.seconds:
        rng = np.random.default_rng([how.seed, step, 5])
        draw = torch.Generator().manual_seed(how.seed * 1_000_003 + step)
        angle = float(angles[int(rng.integers(len(angles)))])
        real = setting.real.batch(angle, how.batch, rng)
        clean = setting.clean.batch(angle, how.batch, rng)
        noise = draw_noise(how.batch, (setting.rings.size,) * 2, draw)
        made = torch.cat([styler(clean, angle, one) for one in (noise, noise.mirrored)])
        losses = [_tell(judges, tellers, real, made.detach(), angle, step % R1_EVERY == 0)]
        scores = judges(made, angle)
        apart = setting.rings.powers(made[:, 0]).mean(0).log() - setting.wanted(angle)
        # Where signal is most of the power, the difference is one of specimens, which noise must not mend.
        loss = (setting.weights * setting.noisy(angle) * apart**2).sum() - 0.5 * (scores[0].mean() + scores[1].mean())
        makers.zero_grad(set_to_none=True)
        loss.backward()
        makers.step()
        losses.append(float(loss.detach()))
        if not all(map(math.isfinite, losses)):
            raise CryoLitheError(f"step {step} of the style has a loss that is not finite; look at the stacks")
        keep = min(LONGEST_AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, now in zip(averaged.parameters(), styler.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        step += 1
        on_step(max((clock() - start) / how.seconds, step / how.steps if how.steps else 0.0))
    return step


def _tell(
    judges: Judges,
    optimiser: torch.optim.Optimizer,
    real: torch.Tensor,
    made: torch.Tensor,
    angle_deg: float,
    penalised: bool,
) -> float:
    """A step of the judges."""
    given = real.requires_grad_(penalised)
    truth, lies = judges(given, angle_deg), judges(made, angle_deg)
    hinge = [torch.relu(1 - a).mean() + torch.relu(1 + b).mean() for a, b in zip(truth, lies, strict=True)]
    loss = 0.5 * (hinge[0] + hinge[1])
    if penalised:
        (slope,) = torch.autograd.grad(truth[0].mean() + truth[1].mean(), given, create_graph=True)
        loss = loss + R1_EVERY * R1 / 2 * slope.pow(2).sum(dim=(1, 2, 3)).mean()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return float(loss.detach())


@torch.no_grad()
def _apart_db(setting: _Setting, styler: Styler | None, seed: int) -> float:
    """Rms of 10 log10 of styled over recorded power; without a styler, of clean images in white noise."""
    rng, draw = np.random.default_rng([seed, 6]), torch.Generator().manual_seed(seed + 6)
    angles = setting.curves.angles_deg
    found = []
    for angle in angles[np.linspace(0, len(angles) - 1, min(_TILTS_EVALUATED, len(angles))).round().astype(int)]:
        clean = setting.clean.batch(float(angle), _EVALUATED, rng)
        noise = draw_noise(_EVALUATED, (setting.rings.size,) * 2, draw)
        if styler is None:
            counts = np.arange(1, len(setting.curves.frequency_per_px) + 1)
            level = on_curves(setting.curves.noise, angles, float(angle)) @ counts / counts.sum()
            made = [clean + sign * math.sqrt(level) * noise.white for sign in (1, -1)]
        else:
            made = [styler(clean, float(angle), one) for one in (noise, noise.mirrored)]
        apart = setting.rings.powers(torch.cat(made)[:, 0]).mean(0).log() - setting.wanted(float(angle))
        found.append(float((setting.weights * apart**2).sum()))
    return 10 / math.log(10) * math.sqrt(np.mean(found))
