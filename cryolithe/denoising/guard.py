"""A guard on denoised volumes: was signal lost, did energy appear where there was none?

Spectra are taken over (|k_xy|, |k_z|), so that the missing wedge and modulations along z show, and over shells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import shell_of, times_counted
from cryolithe.denoising.periods import told
from cryolithe.metrics import FloatArray, fourier_shell_correlation

BINS = 24  # of the regions along each axis, at most
# By halves and by neighbouring planes: a shell with more signal than the first, of which less than the second is kept
# of what a Wiener filter would keep, is said to have lost signal. Neighbouring planes share much noise of a tomogram,
# too (all of it at low k_xy, where the tilt range leaves little room along k_z): what they tell is used where they
# hardly differ.
LEAST_COHERENT, LEAST_KEPT = 0.5, 0.5
LEAST_COHERENT_BY_PLANES, LEAST_KEPT_BY_PLANES = 0.98, 0.35
# All shells together of which neighbouring planes have at least half in common: less than this share of that kept on
# average is worth a word, though it may be noise. Of FBP of simulated specimens at 0, -5 and -10 dB in the images the
# noiseless FBP keeps 0.46, 0.35 and 0.27, Gaussians of 1, 1.5 and 2 voxels 0.42, 0.26 and 0.19.
LEAST_KEPT_OF_PLANES = 1 / 3
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
        warned_below: transfers below are warned of, by shell; NaN where none is.
        kept: share of the coherence that the output keeps, mean over the shells that are coherent by half or more.
    """

    spectra: Spectra
    fsc_input: FloatArray
    coherence: FloatArray
    coherence_from: str
    fsc_halves: tuple[FloatArray, FloatArray] | None
    warnings: tuple[str, ...]
    warned_below: FloatArray
    kept: float


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
    times = times_counted(before.shape[2])
    regions, rounds = np.zeros((4, bins + 1, bins)), np.zeros((4, shells + 1))
    for z in range(a.shape[0]):
        shell = np.minimum(shell_of(np.hypot(fz[z], across), shortest), shells).ravel()
        terms = (np.ones(across.shape), np.abs(a[z]) ** 2, np.abs(b[z]) ** 2, (b[z] * a[z].conj()).real)
        for row, term in enumerate(times * term for term in terms):
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
    voxel_size_angstrom: float | None = None,
) -> Verdict:
    """Compare a volume before and after.

    Args:
        before: input, shape ``(z, y, x)``.
        after: output, the same shape.
        halves: volumes of even and odd images before, and the same after; of one shape.
        advice: what to do where signal was lost.
        voxel_size_angstrom: edge of a voxel: warnings then tell of Å.
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
    least_coherent, least_kept = (
        (LEAST_COHERENT, LEAST_KEPT) if halves else (LEAST_COHERENT_BY_PLANES, LEAST_KEPT_BY_PLANES)
    )
    inner = (found.shell_per_px > 0) & (found.shell_per_px < 0.5)
    limit = np.where(inner & (coherence > least_coherent), least_kept * coherence, np.nan)
    supported = inner & (coherence >= LEAST_COHERENT)
    kept = float(np.mean(found.shell_transfer[supported] / coherence[supported])) if supported.any() else 1.0
    warnings = [*_lost(found, coherence, limit, (advice, voxel_size_angstrom)), *_gained(found, voxel_size_angstrom)]
    if halves is None and not warnings and kept < LEAST_KEPT_OF_PLANES:
        warnings.append(_little_kept(found.shell_per_px[supported][-1], kept, voxel_size_angstrom))
    return Verdict(found, curve.total, coherence, origin, pair, tuple(warnings), limit, kept)


def _taper(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A Hann window along z, y and x: what ends at a border leaks into all frequencies."""
    windows = [np.hanning(n + 2)[1:-1].astype(np.float32) for n in shape]
    product: NDArray[np.float32] = windows[0][:, None, None] * windows[1][:, None] * windows[2]
    return product


def _lost(found: Spectra, coherence: FloatArray, limit: FloatArray, words: tuple[str, float | None]) -> list[str]:
    """Shells that kept less than the limit, in words: advice and voxel size."""
    advice, size = words
    lost = found.shell_transfer < limit
    if not lost.any():
        return []
    at, kept = found.shell_per_px[lost], float(np.min(found.shell_transfer[lost] / coherence[lost]))
    return [
        f"signal may have been lost: at {told(at[0], at[-1], size)} the output keeps {kept:.0%} of what looks like "
        f"signal in the input; {advice}"
    ]


def _little_kept(highest_per_px: float, kept: float, size: float | None) -> str:
    """All shells together."""
    return (
        f"much was taken away: up to {told(highest_per_px, None, size)} the output keeps {kept:.0%} of what "
        "neighbouring planes have in common (mean over shells); that is signal, or noise that these planes share, and "
        "only halves can tell them apart: give --half1 and --half2"
    )


def _gained(found: Spectra, size: float | None) -> list[str]:
    """Energy that appeared, in words."""
    known = np.isfinite(found.before) & np.isfinite(found.after)
    floor = _FLOOR * np.median(found.before[known])
    gained = known & (found.after > MOST_GAIN * np.maximum(found.before, floor))
    share = float(found.after[gained].sum() / found.after[known].sum())
    if not share > LEAST_SHARE:
        return []
    rows, columns = np.nonzero(gained)
    across, along = found.frequency_per_px[rows], found.frequency_per_px[columns]
    places = [told(float(one.min()), float(one.max()), size) for one in (across, along)]
    return [
        f"energy appeared where the input had little: {share:.2%} of the output's power lies where it now is more than "
        f"{MOST_GAIN:g} times that before (details of {places[0]} across and {places[1]} along z): these details are "
        "the network's invention"
    ]
