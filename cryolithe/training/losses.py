"""Losses: squared and absolute error of weighted outputs, and the correlation of shells of sub-volumes."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from cryolithe.arrays.spectra import shell_of, times_counted
from cryolithe.network import BlockHead
from cryolithe.training.sections import LossSettings


def cube_voxels(values: torch.Tensor, cube: tuple[int, int, int], head: BlockHead) -> torch.Tensor:
    """Voxels of a contiguous cube of blocks.

    Args:
        values: outputs of the blocks, shape ``(bz * bx, by, outputs)``, columns with x fastest.
        cube: blocks ``(bz, by, bx)``.
        head: what the outputs mean.

    Returns:
        shape ``stride * (blocks - 2 margin)`` along z, y, x: the voxels that have all of their coefficients.
    """
    bz, by, bx = cube
    blocks = values.reshape(bz, bx, by, head.outputs).transpose(1, 2)
    z, y, x = (head.stride * (count - 2 * head.margin) for count in cube)
    return head.volume(blocks, (z, y, x))


def fsc_loss(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """``1 - mean_q FSC(q)`` over the shells between the mean and Nyquist.

    Shells are as wide as in `cryolithe.metrics.fourier_shell_correlation`. The box's edges are faded first: an edge
    is the same in both volumes, and its spectrum would correlate by itself. The scale of the estimate has no
    influence, so this loss alone does not teach a network amplitudes.

    Args:
        estimate: shape ``(z, y, x)``, float32.
        target: the same shape.
    """
    shape = (estimate.shape[0], estimate.shape[1], estimate.shape[2])
    shells = shell_numbers(shape).to(estimate.device)
    times = _box(shape).times.to(estimate.device)
    a, b = faded_spectrum(estimate), faded_spectrum(target)
    count = min(shape) // 2 + 2
    sums = [
        torch.zeros(count, device=a.device).index_add(0, shells, times * term)
        for term in ((a * b.conj()).real, a.abs().square(), b.abs().square())
    ]
    ab, aa, bb = (part[1:-2] for part in sums)  # without the mean, Nyquist and the corners beyond
    tiny = torch.finfo(torch.float32).tiny
    return 1 - (ab / (aa * bb).clamp_min(tiny).sqrt()).mean()


def faded_spectrum(volume: torch.Tensor) -> torch.Tensor:
    """Flat Fourier coefficients (`torch.fft.rfftn`) of a volume ``(z, y, x)`` whose edges are faded, mean removed."""
    fade = _box((volume.shape[0], volume.shape[1], volume.shape[2])).fade.to(volume.device)
    return torch.fft.rfftn(_centred(volume, fade)).flatten()


def shell_numbers(shape: tuple[int, int, int]) -> torch.Tensor:
    """The shell of each of these coefficients, ``min(shape) // 2 + 1`` for all beyond Nyquist."""
    return _box(shape).shells


def run_loss(
    output: torch.Tensor,
    target: torch.Tensor,
    weights: torch.Tensor,
    settings: LossSettings,
    cube: tuple[tuple[int, int, int], BlockHead] | None = None,
) -> torch.Tensor:
    """The loss of one run of rows.

    Args:
        output: shape ``(columns, blocks, outputs)``, float32, in the target's units.
        target: the same shape; unit variance in voxels.
        weights: of the outputs, shape ``(outputs,)``.
        settings: weights and limits of the parts.
        cube: blocks of a contiguous cube and the head, where the run is one.
    """
    error = output - target
    total = error.new_zeros(())
    if settings.strong:
        weights = weights * _faintness(target, settings.strong)
    if settings.l2:
        total = total + settings.l2 * (error.square() * weights).sum(-1).mean()
    if settings.l1:
        # An absolute error scales as the root of a squared one, and so does its weight.
        total = total + settings.l1 * (error.abs() * (weights / weights.shape[-1]).sqrt()).sum(-1).mean()
    if settings.fsc and cube is not None:
        total = total + settings.fsc * fsc_loss(cube_voxels(output, *cube), cube_voxels(target, *cube))
    return total


def _faintness(target: torch.Tensor, strong: float) -> torch.Tensor:
    """Weight of each block, shape ``(..., 1)``: 1 where its largest value is small, 1/2 at ``strong``, then falling."""
    return 1 / (1 + (target.abs().amax(-1, keepdim=True) / strong).square())


def _centred(volume: torch.Tensor, fade: torch.Tensor) -> torch.Tensor:
    """Faded edges and no mean within the fade."""
    return (volume - (volume * fade).sum() / fade.sum()) * fade


class _Box(NamedTuple):
    """What the spectra of volumes of one shape are made and summed by.

    Attributes:
        fade: weights ``(z, y, x)`` that fall to zero over an eighth at each end.
        shells: of each flat frequency.
        times: how often it stands in the full spectrum.
    """

    fade: torch.Tensor
    shells: torch.Tensor
    times: torch.Tensor


@lru_cache(maxsize=8)
def _box(shape: tuple[int, int, int]) -> _Box:
    fade = torch.ones(shape)
    for axis, size in enumerate(shape):
        edge = max(1, size // 8)
        place = torch.arange(size)
        near = (torch.minimum(place, size - 1 - place) + 0.5) / edge
        ramp = 0.5 - 0.5 * torch.cos(torch.pi * near.clamp(max=1))
        fade = fade * ramp.reshape([-1 if a == axis else 1 for a in range(3)])
    fz, fy = (np.fft.fftfreq(n) for n in shape[:2])
    radius = np.sqrt(fz[:, None, None] ** 2 + fy[:, None] ** 2 + np.fft.rfftfreq(shape[2]) ** 2)
    shells = np.minimum(shell_of(radius, min(shape)), min(shape) // 2 + 1)
    times = np.broadcast_to(times_counted(shape[2]).astype(np.float32), radius.shape)
    return _Box(fade, torch.from_numpy(shells.ravel()), torch.from_numpy(times.ravel()))
