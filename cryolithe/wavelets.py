"""Separable 3-D wavelet analysis and synthesis with PyWavelets' taps, without boundary effects.

One level along one axis, filters of even length L:

    low[k]  = Σ_j dec_lo[j] x[2k + L/2 - j]          high[k] likewise with dec_hi
    x[n]    = Σ_k low[k] rec_lo[n - 2k + L/2 - 1] + high[k] rec_hi[n - 2k + L/2 - 1]

so for the symmetric filters of even length (Haar, bior1.3, bior3.1, ...) coefficient k is centred at voxel 2k + 1/2.
Coefficients are kept for ``Wavelet.margin(levels)`` blocks beyond both ends of an axis; synthesis then needs no
boundary rule, and a volume synthesised in pieces is the same as one synthesised at once.

Band order (the last axis of a coefficient array), named here once: one level has 8 bands, numbered by the bits
zyx: 0 = low in z, y and x; 1 = high in x only; 2 = high in y only; ... 7 = high in all. Two levels have 64: the 8
bands of level 2, then for each band 1...7 of level 1 its 8 coefficients at the sub-positions (dz, dy, dx) in
{0, 1}³, x fastest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pywt
import torch

from cryolithe.arrays.folding import symmetric
from cryolithe.errors import SettingsError


@dataclass(frozen=True)
class Wavelet:
    """The four filters of a two-channel perfect-reconstruction bank.

    Raises:
        SettingsError: for a name that PyWavelets does not know or whose synthesis low-pass is not centred between
            two voxels: its coefficients would sit off the centre of the block that they stand for.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in pywt.wavelist(kind="discrete"):
            raise SettingsError(f"unknown wavelet '{self.name}'; use a symmetric one of even length, such as bior3.1")
        low = np.asarray(pywt.Wavelet(self.name).rec_lo)
        if not np.allclose(low, low[::-1]):
            raise SettingsError(
                f"wavelet '{self.name}' is not centred between two voxels; use haar, bior1.3, bior1.5, bior3.1, bior3.3"
            )

    @property
    def length(self) -> int:
        """Number of taps of each filter."""
        return int(pywt.Wavelet(self.name).dec_len)

    def margin(self, levels: int) -> int:
        """Blocks of ``2**levels`` voxels kept beyond each end of an axis, so that every voxel has its coefficients."""
        half = self.length // 2
        margin = 0
        for _ in range(levels):
            margin = (margin + half) // 2
        return margin

    def analysis_taps(self, like: torch.Tensor) -> torch.Tensor:
        """Low and high analysis filters reversed for correlation, shape ``(2, L)``."""
        bank = pywt.Wavelet(self.name)
        return torch.tensor([bank.dec_lo[::-1], bank.dec_hi[::-1]], dtype=like.dtype, device=like.device)

    def synthesis_taps(self, like: torch.Tensor) -> torch.Tensor:
        """Low and high synthesis filters, shape ``(2, L)``."""
        bank = pywt.Wavelet(self.name)
        return torch.tensor([bank.rec_lo, bank.rec_hi], dtype=like.dtype, device=like.device)


def block_count(voxels: int, wavelet: Wavelet, levels: int) -> int:
    """Blocks along an axis of ``voxels`` voxels, margins included."""
    return -(-voxels // 2**levels) + 2 * wavelet.margin(levels)


def analyse(volume: torch.Tensor, wavelet: Wavelet, levels: int) -> torch.Tensor:
    """Wavelet coefficients of a volume, gathered by block.

    Beyond its ends the volume is continued by half-sample symmetric reflection.

    Args:
        volume: shape ``(z, y, x)``.
        wavelet: the filter bank.
        levels: 1 or 2; 0 for the voxels as they are.

    Returns:
        shape ``(z', y', x', 8**levels)`` with ``block_count`` blocks along each axis, bands ordered as the module
        says. Index 0 along an axis is block ``-margin``; block k holds the voxels from ``2**levels * k`` on.
    """
    if levels == 0:
        return volume[..., None]
    counts = tuple(block_count(n, wavelet, levels) for n in volume.shape)
    margin, half = wavelet.margin(levels), wavelet.length // 2
    # Along each axis: the voxels that the wanted coefficients are made of.
    firsts = [-margin] * levels
    numbers = [list(counts) for _ in range(levels)]
    for level in range(levels - 1, 0, -1):
        firsts[level - 1] = 2 * firsts[level] - half + 1
        numbers[level - 1] = [2 * (count - 1) + wavelet.length for count in numbers[level]]
    bands = volume
    for axis in range(3):
        first_voxel = 2 * firsts[0] - half + 1
        wanted = np.arange(first_voxel, first_voxel + 2 * (numbers[0][axis] - 1) + wavelet.length)
        bands = bands.index_select(axis, torch.from_numpy(symmetric(wanted, volume.shape[axis])).to(volume.device))
    bands = _analyse_level(bands, wavelet)
    if levels == 1:
        return bands
    deep = _analyse_level(bands[..., 0], wavelet)
    # Level-1 details of block k: its positions 2k and 2k + 1, which start at this index of `bands`.
    start = -2 * margin - firsts[0]
    inside = tuple(slice(start, start + 2 * count) for count in counts)
    z, y, x = counts
    details = bands[inside][..., 1:].reshape(z, 2, y, 2, x, 2, 7).permute(0, 2, 4, 6, 1, 3, 5)
    return torch.cat([deep, details.reshape(z, y, x, 56)], dim=-1)


def synthesise(coefficients: torch.Tensor, shape: tuple[int, int, int], wavelet: Wavelet) -> torch.Tensor:
    """Volume from coefficients gathered by block: the inverse of `analyse`.

    Args:
        coefficients: shape ``(z', y', x', 1, 8 or 64)``, margins included.
        shape: voxels ``(z, y, x)`` of the result.
        wavelet: the filter bank.

    Returns:
        shape ``shape``.
    """
    levels = {1: 0, 8: 1, 64: 2}[coefficients.shape[-1]]
    if levels == 0:
        return coefficients[..., 0]
    margin = wavelet.margin(levels)
    if levels == 1:
        return _synthesise_level(coefficients, wavelet, -margin, [(0, n) for n in shape])
    inner = wavelet.margin(1)
    spans = [(-inner, 2 * (count - 2 * margin) + inner) for count in coefficients.shape[:3]]
    low = _synthesise_level(coefficients[..., :8], wavelet, -margin, spans)
    z, y, x = coefficients.shape[:3]
    details = coefficients[..., 8:].reshape(z, y, x, 7, 2, 2, 2).permute(0, 4, 1, 5, 2, 6, 3)
    start = 2 * margin - inner
    inside = tuple(slice(start, start + size) for size in low.shape)
    bands = torch.cat([low[..., None], details.reshape(2 * z, 2 * y, 2 * x, 7)[inside]], dim=-1)
    return _synthesise_level(bands, wavelet, -inner, [(0, n) for n in shape])


def padded_count(voxels: int, wavelet: Wavelet) -> int:
    """Coefficients along an axis in the numbering of PyWavelets' padded transforms: floor((N + L - 1) / 2)."""
    return (voxels + wavelet.length - 1) // 2


def padded_range(start: int, stop: int, wavelet: Wavelet) -> tuple[int, int]:
    """Coefficients, (first, last + 1) in that numbering, that the voxels ``start ... stop - 1`` are made of."""
    return start // 2, (stop + wavelet.length - 3) // 2 + 1


def synthesise_padded(coefficients: torch.Tensor, spans: list[tuple[int, int]], wavelet: Wavelet) -> torch.Tensor:
    """Voxels from one level of coefficients in the numbering of PyWavelets' padded transforms.

    There x[n] = Σ_k low[k] rec_lo[n - 2k + L - 2] + ..., which for filters of 4 taps puts coefficient k at voxel
    2k - 1/2: one voxel before its place in `synthesise`.

    Args:
        coefficients: those of ``padded_range`` along each axis, shape ``(z', y', x', 8)``, bands in our order.
        spans: (first voxel, last + 1) along z, y and x.
        wavelet: the filter bank.

    Returns:
        the voxels of ``spans``.
    """
    shift = wavelet.length // 2 - 1
    voxels, blocks = shift % 2, -(shift // 2)  # x'[n + voxels] with coefficients k + blocks is our own numbering
    split = coefficients.unflatten(-1, (2, 2, 2))
    for axis in (2, 1, 0):
        start, stop = spans[axis]
        first = padded_range(start, stop, wavelet)[0] + blocks
        span = (first, start + voxels, stop + voxels)
        split = _synthesise_axis(split[..., 0], split[..., 1], axis, wavelet, span)
    return split


def basis_norms(wavelet: Wavelet, levels: int) -> torch.Tensor:
    """Squared voxel norm of each band's synthesis function, shape ``(8**levels,)``, float32.

    An error in a single coefficient of band b adds this many times its square to the squared error of the volume.
    Errors of neighbouring coefficients add up where their synthesis functions overlap.
    """
    margin = wavelet.margin(levels)
    size = 4 * margin + 1
    voxels = 2**levels * (size - 2 * margin)
    norms = []
    for band in range(8**levels):
        unit = torch.zeros((size, size, size, 8**levels), dtype=torch.float64)
        unit[2 * margin, 2 * margin, 2 * margin, band] = 1.0
        norms.append((synthesise(unit, (voxels, voxels, voxels), wavelet) ** 2).sum())
    return torch.stack(norms).float()


def _analyse_level(volume: torch.Tensor, wavelet: Wavelet) -> torch.Tensor:
    """One level along z, y and x without continuing the ends: shape ``(z', y', x', 8)``."""
    bands = volume
    for axis in range(3):
        windows = bands.movedim(axis, -1).unfold(-1, wavelet.length, 2) @ wavelet.analysis_taps(volume).T
        bands = windows.movedim(-2, axis)  # the low/high axes pile up last, in the order z, y, x
    return bands.flatten(-3)


def _synthesise_level(bands: torch.Tensor, wavelet: Wavelet, first: int, spans: list[tuple[int, int]]) -> torch.Tensor:
    """Inverse of `_analyse_level` for positions ``spans`` along z, y, x; index 0 of ``bands`` is block ``first``."""
    split = bands.unflatten(-1, (2, 2, 2))
    for axis in (2, 1, 0):
        split = _synthesise_axis(split[..., 0], split[..., 1], axis, wavelet, (first, *spans[axis]))
    return split


def _synthesise_axis(
    low: torch.Tensor, high: torch.Tensor, axis: int, wavelet: Wavelet, span: tuple[int, int, int]
) -> torch.Tensor:
    """Positions ``start ... stop - 1`` along ``axis``; ``span`` is (block of index 0, start, stop)."""
    first, start, stop = span
    low, high = low.movedim(axis, -1), high.movedim(axis, -1)
    half = wavelet.length // 2
    taps = wavelet.synthesis_taps(low).tolist()
    joined = low.new_zeros((*low.shape[:-1], stop - start))
    for phase in (0, 1):
        # positions n = 2 q + phase inside the span
        block, end = -(-(start - phase) // 2), -(-(stop - phase) // 2)
        total = joined[..., 2 * block + phase - start :: 2]
        for shift in range(-half, half + 1):
            tap = phase - 2 * shift + half - 1
            if 0 <= tap < wavelet.length:
                at = slice(block + shift - first, end + shift - first)
                total.add_(low[..., at], alpha=taps[0][tap]).add_(high[..., at], alpha=taps[1][tap])
    return joined.movedim(-1, axis)
