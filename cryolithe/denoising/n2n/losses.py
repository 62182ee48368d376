"""What Noise2Noise minimises: powers of the difference, or the correlation of Fourier shells.

With L2 the best answer is the mean of what the other half may hold, with L1 the median, with the annealed L0 the mode
(Lehtinen et al., ICML 2018). The shells' correlation (Jones, Deshmukh and Pande 2026) weighs all frequencies alike
and does not see amplitudes: see `cryolithe.denoising.n2n.gains`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from cryolithe.arrays.spectra import fade, shell_of, times_counted
from cryolithe.denoising.n2n.gains import TAPER_PX

LossName = Literal["l2", "l1", "l0", "fsc", "mixed"]
LOSSES: tuple[LossName, ...] = ("l2", "l1", "l0", "fsc", "mixed")
MIXED_FSC = 0.5  # weight of the correlation beside L2 over the target's variance
_L0_FLOOR = 1e-8
_TINY_POWER = 1e-12  # relative: a shell with less power than that holds rounding alone


def half_loss(name: LossName, estimate: torch.Tensor, target: torch.Tensor, progress: float = 0.0) -> torch.Tensor:
    """Loss of a batch of estimates of the other half.

    Args:
        name: l2, l1, l0, fsc or mixed.
        estimate: shape ``(n, 1, z, y, x)``, any floating type; computed in float32.
        target: the same shape.
        progress: share of the training that is done, which l0 is annealed by.

    Returns:
        a number.
    """
    estimate, target = estimate.float(), target.float()
    if name == "fsc":
        return fsc_loss(estimate, target)
    difference = estimate - target
    if name == "l1":
        return difference.abs().mean()
    if name == "l0":
        return annealed_l0(difference, 2 * (1 - progress))
    square = difference.square().mean()
    if name == "l2":
        return square
    variance = target.var(correction=0).clamp_min(torch.finfo(torch.float32).tiny)
    return square / variance + MIXED_FSC * fsc_loss(estimate, target)


def annealed_l0(difference: torch.Tensor, gamma: float) -> torch.Tensor:
    """``mean((|d| + 1e-8)^gamma)``: L2 at gamma 2, and the share of differences from 0 towards gamma 0."""
    return (difference.abs() + _L0_FLOOR).pow(gamma).mean()


def fsc_loss(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``1 - mean_q FSC(q)`` over the shells between the mean and Nyquist, each over the whole batch.

    Products and powers are summed over the batch before they are divided: the inner shells of one patch hold few
    coefficients. Borders are faded first, as an edge is the same in both halves. Shells in which either side has no
    power tell nothing and are left out.

    Args:
        estimate: shape ``(n, 1, z, y, x)``, float32.
        target: the same shape.

    Returns:
        a number from 0 to 2.
    """
    shape = (estimate.shape[2], estimate.shape[3], estimate.shape[4])
    window, shells, times = (tensor.to(estimate.device) for tensor in _shells(shape))
    with torch.autocast(estimate.device.type, enabled=False):
        a, b = (_spectra(values, window) for values in (estimate, target))
        count = min(shape) // 2 + 2
        terms = ((a * b.conj()).real, a.real**2 + a.imag**2, b.real**2 + b.imag**2)
        ab, aa, bb = (
            torch.zeros(count, device=a.device).index_add(0, shells, times * t.sum(dim=0))[1:-2] for t in terms
        )
        known = (aa > _TINY_POWER * aa.detach().max()) & (bb > _TINY_POWER * bb.max())
        if not known.any():
            return 1 - 0 * ab.sum()
        return 1 - (ab[known] / (aa[known] * bb[known]).sqrt()).mean()


def _spectra(values: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """Half spectra of the patches, flat, shape ``(n, coefficients)``."""
    values = values[:, 0]
    faded = (values - values.mean(dim=(1, 2, 3), keepdim=True)) * window
    return torch.fft.rfftn(faded, dim=(1, 2, 3)).flatten(1)


@lru_cache(maxsize=8)
def _shells(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The fading of the borders; the shell of each coefficient, the last one beyond Nyquist; how often it counts."""
    parts = [torch.from_numpy(fade(size, TAPER_PX)) for size in shape]
    window = parts[0][:, None, None] * parts[1][:, None] * parts[2]
    z, y, x = shape
    axes = np.meshgrid(np.fft.fftfreq(z), np.fft.fftfreq(y), np.fft.rfftfreq(x), indexing="ij", sparse=True)
    shortest = min(shape)
    radius = np.sqrt(axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2)
    shells = np.minimum(shell_of(radius, shortest), shortest // 2 + 1)
    times = np.broadcast_to(times_counted(x).astype(np.float32), shells.shape)
    return window, torch.from_numpy(shells.ravel()), torch.from_numpy(times.ravel())
