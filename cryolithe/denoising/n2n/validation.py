"""Halves held back from a training: how well they are denoised, and whether more was smoothed away than noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cryolithe.denoising.n2n.gains import ONE, ShellGain, fit_gain, shell_sums

SHELLS = 16
_SIGNAL = 0.3  # correlation of raw halves from which on a shell is said to hold signal
MOST_LOST = 0.05


@dataclass(frozen=True)
class Held:
    """What a validation found.

    Attributes:
        correlation: of denoised halves with the raw others, over all patches and both directions.
        lost: the most by which a shell with signal correlates less with the raw other half after denoising than
            before. A denoiser that keeps signal never loses; one that smooths loses in the outer shells first.
        lost_at_per_px: frequency of that shell.
        gain: that makes the denoised halves most alike to the others.
    """

    correlation: float
    lost: float
    lost_at_per_px: float
    gain: ShellGain

    @property
    def too_smooth(self) -> bool:
        """Whether signal was smoothed away."""
        return self.lost > MOST_LOST


def validate(
    denoised: Callable[[torch.Tensor], torch.Tensor],
    patches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    prior: ShellGain = ONE,
) -> Held:
    """Denoise both halves of all patches held back.

    Args:
        denoised: the network, ``(1, 1, z, y, x)`` to the same.
        patches: first and second halves.
        prior: gain of the weights that a training began with.
    """
    sums = np.zeros(3)  # products and squares of outputs and targets, without their means
    raw, new = np.zeros((3, SHELLS)), np.zeros((3, SHELLS))
    pairs: list[tuple[Any, Any]] = []
    for first, second in patches:
        for given, other in ((first, second), (second, first)):
            output, target = denoised(given)[0, 0].float().cpu().numpy(), other[0, 0].numpy()
            o, t = output - output.mean(), target - target.mean()
            sums += [float((o * t).sum()), float((o * o).sum()), float((t * t).sum())]
            new += shell_sums(output, target, SHELLS)
            raw += shell_sums(given[0, 0].numpy(), target, SHELLS)
            pairs.append((output, target))
    scale = np.sqrt(sums[1] * sums[2])
    before, after = (s[0] / np.sqrt(np.maximum(s[1] * s[2], 1e-30)) for s in (raw, new))
    has_signal = before > _SIGNAL
    has_signal[0] = False
    loss = np.where(has_signal, before - after, 0.0)
    worst = int(np.argmax(loss))
    return Held(
        correlation=float(sums[0] / scale) if scale > 0 else 0.0,
        lost=float(max(0.0, loss[worst])),
        lost_at_per_px=worst / (2 * (SHELLS - 1)),
        gain=fit_gain(pairs, prior=prior),
    )
