"""A guard on denoised volumes: was signal lost, did energy appear where there was none?

Spectra are taken over (|k_xy|, |k_z|), so that the missing wedge and modulations along z show, and over shells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.metrics import FloatArray, fourier_shell_correlation

BINS = 24  # of the regions along each axis, at most
# By halves and by neighbouring planes: a shell with more signal than the first, of which less than the second is kept
# of what a Wiener filter would keep, is said to have lost signal. Neighbouring planes share much noise of a tomogram,
# too (all of it at low k_xy, where the tilt range leaves little room along k_z): what they tell is used where they
# hardly differ.
LEAST_COHERENT, LEAST_KEPT = 0.5, 0.5
LEAST_COHERENT_BY_PLANES, LEAST_KEPT_BY_PLANES = 0.98, 0.35
# Power after over power before: a region above is said to have got energy that was not there.
MOST_GAIN = 1.5
LEAST_SHARE = 1e-3  # of the output's power: less is chance in regions of a few coefficients
LONGEST = 256  # voxels along an axis that the guard looks at
# Bins with less power than this share of the median one are compared with that share.
_FLOOR = 1e-3


@dataclass(frozen=True)
class Spectra:
    """Spectra of a volume before and after; regions are rings of k_xy (rows) and slabs of k_z (columns).

    Attributes:
        frequency_per_px: centres of the bins, cycles per voxel, from 0 to 0.5, shape ``(B,)``.
        before: mean power of the input, shape ``(B, B)``; NaN where a region holds no coefficient.
        after: of the output.
        transfer: real part of after times the conjugate of before, over the power before.
        shell_per_px: frequencies of the shells, cycles per voxel, shape ``(S,)``.
        shell_ratio: power after over power before, by shell.
        shell_transfer: as ``transfer``, by shell.
    """

    frequency_per_px: FloatArray
    before: FloatArray
    after: FloatArray
    transfer: FloatArray
    shell_per_px: FloatArray
    shell_ratio: FloatArray
    shell_transfer: FloatArray


@dataclass(frozen=True)
class Verdict:
    """What the guard found.

    Attributes:
        spectra: before and after.
        fsc_input: of input and output.
        coherence: estimated share of signal in the power of the input, by shell.
        coherence_from: what that was estimated from.
        fsc_halves: of the halves before and after, or None.
        warnings: in words.
    """

    spectra: Spectra
    fsc_input: FloatArray
    coherence: FloatArray
    coherence_from: str
    fsc_halves: tuple[FloatArray, FloatArray] | None
    warnings: tuple[str, ...]


def central(shape: tuple[int, int, int], longest: int = LONGEST) -> tuple[slice, slice, slice]:
    """The middle of a volume, no longer than ``longest`` along any axis."""
    z, y, x = (slice((n - min(n, longest)) // 2, (n - min(n, longest)) // 2 + min(n, longest)) for n in shape)
    return z, y, x


def spectra(before: NDArray[Any], after: NDArray[Any]) -> Spectra:
    """Power and transfer over (|k_xy|, |k_z|) and over shells, tapered at the borders.

    Args:
        before: volume ``(z, y, x)``.
        after: the same shape.
    """
    bins = max(1, min(BINS, min(before.shape) // 2))  # each of them then holds coefficients
    taper = _taper(before.shape)
    a, b = (scipy.fft.rfftn((v - v.mean(dtype=np.float64)).astype(np.float32) * taper) for v in (before, after))
    fz, fy, fx = scipy.fft.fftfreq(a.shape[0]), scipy.fft.fftfreq(a.shape[1]), scipy.fft.rfftfreq(before.shape[2])
    across = np.sqrt(fy[:, None] ** 2 + fx**2)
    ring = np.minimum((across * 2 * bins).astype(int), bins).ravel()  # the last one collects the corners
    slab = np.minimum((np.abs(fz) * 2 * bins).astype(int), bins - 1)
    shortest = min(before.shape)
    shells = shortest // 2 + 1
    regions, rounds = np.zeros((4, bins + 1, bins)), np.zeros((4, shells + 1))
    for z in range(a.shape[0]):
        shell = np.minimum(np.rint(np.hypot(fz[z], across) * shortest).astype(int), shells).ravel()
        terms = (np.ones(across.shape), np.abs(a[z]) ** 2, np.abs(b[z]) ** 2, (b[z] * a[z].conj()).real)
        for row, term in enumerate(terms):
            regions[row, :, slab[z]] += np.bincount(ring, term.ravel(), minlength=bins + 1)
            rounds[row] += np.bincount(shell, term.ravel(), minlength=shells + 1)
    count, power, new, cross = regions[:, :bins]
    _, shell_power, shell_new, shell_cross = rounds[:, :shells]
    with np.errstate(invalid="ignore", divide="ignore"):
        return Spectra(
            frequency_per_px=(np.arange(bins) + 0.5) / (2 * bins),
            before=power / count,
            after=new / count,
            transfer=cross / power,
            shell_per_px=np.arange(shells) / shortest,
            shell_ratio=shell_new / shell_power,
            shell_transfer=shell_cross / shell_power,
        )


def examine(
    before: NDArray[Any],
    after: NDArray[Any],
    halves: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]] | None = None,
    advice: str = "try a smaller --lmax, or train longer",
) -> Verdict:
    """Compare a volume before and after.

    Args:
        before: input, shape ``(z, y, x)``.
        after: output, the same shape.
        halves: volumes of even and odd images before, and the same after; of one shape.
        advice: what to do where signal was lost.
    """
    found = spectra(before, after)
    curve = fourier_shell_correlation(before, after)
    pair = None
    if halves is not None:
        raw, new = (fourier_shell_correlation(*halves[i : i + 2]).total for i in (0, 2))
        coherence, origin = np.clip(2 * raw / (1 + raw), 0, 1), "even and odd halves"
        frequency = fourier_shell_correlation(*halves[:2]).frequency_per_px
        coherence = np.interp(curve.frequency_per_px, frequency, coherence)
        pair = (raw, new)
    else:
        # Neighbouring planes share signal and only part of the noise: an upper bound on the signal across z.
        even = before.shape[0] // 2 * 2
        adjacent = fourier_shell_correlation(before[0:even:2], before[1:even:2]) if even >= 8 else curve
        coherence = np.interp(curve.frequency_per_px, adjacent.frequency_per_px, np.clip(adjacent.total, 0, 1))
        origin = "neighbouring planes"
    limits = (LEAST_COHERENT, LEAST_KEPT) if halves else (LEAST_COHERENT_BY_PLANES, LEAST_KEPT_BY_PLANES)
    warnings = _warnings(found, coherence, limits, advice)
    return Verdict(found, curve.total, coherence, origin, pair, tuple(warnings))


def _taper(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A Hann window along z, y and x: what ends at a border leaks into all frequencies."""
    windows = [np.hanning(n + 2)[1:-1].astype(np.float32) for n in shape]
    product: NDArray[np.float32] = windows[0][:, None, None] * windows[1][:, None] * windows[2]
    return product


def _warnings(found: Spectra, coherence: FloatArray, limits: tuple[float, float], advice: str) -> list[str]:
    """In words, what a user should look at."""
    least_coherent, least_kept = limits
    frequency, transfer = found.shell_per_px, found.shell_transfer
    warnings = []
    inner = (frequency > 0) & (frequency < 0.5) & (coherence > least_coherent)
    lost = inner & (transfer < least_kept * coherence)
    if lost.any():
        at = frequency[lost]
        warnings.append(
            f"signal may have been lost: at {at[0]:.3g} to {at[-1]:.3g} cycles per voxel the output keeps "
            f"{np.min(transfer[lost] / coherence[lost]):.0%} of what looks like signal in the input; {advice}"
        )
    known = np.isfinite(found.before) & np.isfinite(found.after)
    floor = _FLOOR * np.median(found.before[known])
    gained = known & (found.after > MOST_GAIN * np.maximum(found.before, floor))
    share = float(found.after[gained].sum() / found.after[known].sum())
    if share > LEAST_SHARE:
        rows, columns = np.nonzero(gained)
        across, along = found.frequency_per_px[rows], found.frequency_per_px[columns]
        warnings.append(
            f"energy appeared where the input had little: {share:.2%} of the output's power lies in {gained.sum()} of "
            f"{known.sum()} regions (k_xy {across.min():.2f} to {across.max():.2f}, k_z {along.min():.2f} to "
            f"{along.max():.2f} cycles per voxel) with more than {MOST_GAIN:g} times their power before: details there "
            "are the network's invention"
        )
    return warnings
