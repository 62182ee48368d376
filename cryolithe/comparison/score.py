"""From volumes to a `Comparison`: arrays in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.spectra import half_spectrum
from cryolithe.comparison.value import (
    Candidate,
    Comparison,
    FloatArray,
    Gain,
    Scores,
    Setting,
    Target,
    Truth,
    TruthScore,
)
from cryolithe.denoising.ceiling import HalfScore
from cryolithe.errors import InputError
from cryolithe.evaluation.matching import MatchingScore, match_template
from cryolithe.evaluation.pair_doubts import OPPOSITE_CONTRAST, opposite_correlation
from cryolithe.evaluation.wedge import wedge_energy
from cryolithe.fidelity import class_fidelity
from cryolithe.metrics import check_volume, mean_correlation, shell_correlation, shell_sums

Array = NDArray[Any]

LEAST_CHANGE = 0.02  # of an FSC, that counts
GAIN_RUN = 3  # shells side by side
LEAST_LEAK = 0.03  # of an FSC above its ceiling
LEAK_RUN = 3  # shells side by side
SIGNIFICANT = 0.143  # FSC of raw halves from which on they agree
FAINTEST = 1e-5  # of a spectrum: what is damped more says nothing of the filter
_NOTHING = 1e-9


@dataclass(frozen=True)
class _Raw:
    """The raw halves, transformed once: which shells count, their correlation by shell and over all of these."""

    spectra: tuple[Array, Array]
    valid: NDArray[np.bool_]
    fsc: FloatArray
    correlation: float
    power: FloatArray
    counts: FloatArray


def compare(
    candidates: Iterable[Candidate], setting: Setting, on_step: Callable[[str], object] = lambda text: None
) -> Comparison:
    """Score methods.

    Args:
        candidates: the first is the raw one, with whose halves all are compared. Each is let go before the next is
            taken.
        setting: what all are compared under.
        on_step: told the title of each before it is scored.

    Raises:
        InputError: if there is none, or shapes differ, or a volume is not usable.
    """
    raw: _Raw | None = None
    found: list[Scores] = []
    shape = (0, 0, 0)
    for candidate in candidates:
        on_step(candidate.title)
        if raw is None:
            shape = _shape(candidate)
            raw = _transformed(candidate, setting)
        _check(candidate, shape)
        found.append(_scores(candidate, raw, setting))
    if raw is None:
        raise InputError("there is nothing to compare: expected the raw halves and one method or more")
    low, high = setting.tilt_range_deg
    return Comparison(
        shape_zyx=shape,
        voxel_size_angstrom=setting.voxel_size_angstrom,
        tilt_range_deg=setting.tilt_range_deg,
        split=setting.split,
        shared_per_px=setting.shared_per_px,
        frequency_per_px=np.arange(len(raw.fsc)) / min(shape),
        methods=tuple(found),
        isotropic_wedge_share=1 - (high - low) / 180,
    )


def shared_frequency_per_px(increment_deg: float, thickness_px: float) -> float:
    """Frequency up to which even and odd tilts hold the same information, cycles/pixel.

    A specimen of thickness D is known from an image in a sheet of Fourier space about 1/D thick. Sheets of neighbouring
    tilts, Δθ apart, are ``k Δθ`` from each other at frequency k, so that they part at ``k = 1 / (D Δθ)`` (Crowther,
    DeRosier & Klug, Proc. R. Soc. A 317, 319, 1970).

    Args:
        increment_deg: between neighbouring tilts of the whole series.
        thickness_px: of the specimen, or of the volume where nobody knows it.
    """
    return min(0.5, 1 / (thickness_px * math.radians(increment_deg)))


def _shape(candidate: Candidate) -> tuple[int, int, int]:
    check_volume(candidate.first, f"the first half of {candidate.title}")
    z, y, x = candidate.first.shape
    return z, y, x


def _check(candidate: Candidate, shape: tuple[int, int, int]) -> None:
    """Raise InputError unless all three volumes have the shape and hold something."""
    parts = {"first half": candidate.first, "second half": candidate.second, "volume": candidate.whole}
    for what, values in parts.items():
        if values.shape != shape:
            raise InputError(
                f"{candidate.title}: the {what} has the shape (z, y, x) {values.shape}, the raw halves have {shape}; "
                "compare volumes of one series"
            )
        check_volume(values, f"{candidate.title}, {what}")


def _transformed(candidate: Candidate, setting: Setting) -> _Raw:
    first, second = candidate.first, candidate.second
    _check(candidate, _shape(candidate))
    spectra = half_spectrum(first), half_spectrum(second)
    sums, _ = shell_sums(*spectra, first.shape, setting.tilt_range_deg)
    valid = np.isfinite(sums.fsc)
    valid[0] = False
    if (low := opposite_correlation(sums.fsc, sums.counts)) is not None:
        raise InputError(f"the raw halves are of {OPPOSITE_CONTRAST.format(low)}")
    if setting.shared_per_px is not None:
        valid &= np.arange(len(valid)) / min(first.shape) <= setting.shared_per_px
    if not valid.any():
        raise InputError(
            "the halves share no shell of frequency that could be compared; halves of frames (--even, --odd) share all"
        )
    return _Raw(spectra, valid, _only(sums.fsc, valid), sums.correlation(valid), sums.aa, sums.counts)


def _only(values: FloatArray, valid: NDArray[np.bool_]) -> FloatArray:
    """NaN in shells that do not count."""
    return np.where(valid, values, np.nan)


def _scores(candidate: Candidate, raw: _Raw, setting: Setting) -> Scores:
    shape, tilts = candidate.first.shape, setting.tilt_range_deg
    # One after the other: a spectrum is as large as its volume.
    one, _ = shell_sums(half_spectrum(candidate.first), raw.spectra[1], shape, tilts)
    two, _ = shell_sums(half_spectrum(candidate.second), raw.spectra[0], shape, tilts)
    fsc = _only((one.fsc + two.fsc) / 2, raw.valid)
    # A wedge that a network fills correlates with nothing: only what was measured counts.
    half = HalfScore(
        raw.correlation, (one.correlation(raw.valid), two.correlation(raw.valid)), int(raw.counts[raw.valid].sum())
    )
    frequency = np.arange(len(fsc)) / min(shape)
    worst_change, worst = worst_shell(fsc, raw.fsc)
    wedge = wedge_energy(candidate.whole, tilts)
    return Scores(
        sure=None if candidate.sure is None else candidate.sure.means,
        name=candidate.name,
        title=candidate.title,
        kind=candidate.kind,
        fsc=fsc,
        fsc_mean=mean_correlation(fsc),
        half=half,
        leak_shells=leak_shells(fsc, raw.fsc, raw.counts),
        # Of halves of opposite contrast nearly all that a filter takes away is a gain.
        gain=None if raw.correlation <= 0 else confirmed_gain(fsc, raw.fsc, raw.counts, frequency),
        worst_change=worst_change,
        worst_per_px=None if worst is None else float(frequency[worst]),
        smoothing_px=gaussian_alike_px(one.aa, raw.power, frequency),
        wedge_share=wedge.share,
        wedge_fill=wedge.fill_by_shell,
        truth=None if setting.truth is None else _truth(candidate, setting.truth, tilts),
        matching=None if setting.target is None else _matching(candidate, setting.target, setting),
        seconds=candidate.seconds,
        warnings=candidate.warnings,
    )


def _chance(counts: FloatArray) -> FloatArray:
    """Standard deviation of the correlation of noise in each shell."""
    return 1 / np.sqrt(np.maximum(counts, 1.0))


def confirmed_gain(fsc: FloatArray, raw: FloatArray, counts: FloatArray, frequency_per_px: FloatArray) -> Gain | None:
    """Where a method is most clearly more like the raw other half than the raw half is; None where nowhere.

    The difference has to exceed 0.02, and the deviation of a correlation of noise, in three shells side by side or
    more; of several such runs, the one with the largest sum counts. Both correlations are with the same raw half, the
    noise of which they share: their difference varies less than either.

    Args:
        fsc: of the method, shape ``(S,)``.
        raw: of the raw halves, the same shape.
        counts: measured coefficients, the same shape.
        frequency_per_px: of the shells, the same shape.
    """
    gain = np.nan_to_num(fsc - raw, nan=-1.0)
    runs = _runs(gain > np.maximum(LEAST_CHANGE, _chance(counts)), GAIN_RUN)
    if not runs:
        return None
    best = max(runs, key=lambda run: float(gain[run].sum()))
    first, last = float(frequency_per_px[best[0]]), float(frequency_per_px[best[-1]])
    return Gain(first, last, float(gain[best].max()))


def _runs(marked: NDArray[np.bool_], fewest: int) -> list[list[int]]:
    """Numbers of the shells that are marked, in groups of neighbours, without groups that are too small."""
    groups: list[list[int]] = []
    for shell in np.flatnonzero(marked):
        if groups and groups[-1][-1] == shell - 1:
            groups[-1].append(int(shell))
        else:
            groups.append([int(shell)])
    return [group for group in groups if len(group) >= fewest]


def worst_shell(fsc: FloatArray, raw: FloatArray) -> tuple[float, int | None]:
    """The lowest change over the shells in which the raw halves agree, and which shell it is."""
    change = np.where(np.nan_to_num(raw, nan=-1.0) > SIGNIFICANT, fsc - raw, np.nan)
    if not np.isfinite(change).any():
        return math.nan, None
    worst = int(np.nanargmin(change))
    return float(change[worst]), worst


def leak_shells(fsc: FloatArray, raw: FloatArray, counts: FloatArray) -> tuple[int, ...]:
    """Shells, three or more side by side, above what the signal itself could reach: ``sqrt(FSC of the raw halves)``."""
    # The raw correlation may be too low by chance.
    most = np.sqrt(np.maximum(raw, 0.0) + 3 * _chance(counts)) + LEAST_LEAK
    over = np.nan_to_num(fsc, nan=-1.0) > np.nan_to_num(most, nan=2.0)
    return tuple(shell for run in _runs(over, LEAK_RUN) for shell in run)


def gaussian_alike_px(power: FloatArray, raw: FloatArray, frequency_per_px: FloatArray) -> float:
    """Deviation in voxels of the Gaussian filter that dampens the raw spectrum most nearly as a method does.

    ``P / P_raw = c exp(-4 π² σ² k²)``, by least squares of the logarithm over shells that are not damped to nothing;
    0 where the method sharpens.

    Args:
        power: of the method by shell, shape ``(S,)``.
        raw: of the raw half, the same shape.
        frequency_per_px: of the shells, the same shape.
    """
    good = (frequency_per_px > 0) & np.isfinite(power) & np.isfinite(raw) & (power > 0) & (raw > 0)
    ratio = np.divide(power, raw, out=np.zeros_like(power), where=good)
    good &= ratio > FAINTEST * ratio.max(initial=0.0)
    if np.count_nonzero(good) < 2:
        return math.nan
    square = frequency_per_px[good] ** 2
    slope = np.polyfit(square, np.log(ratio[good]), 1)[0]
    variance = -float(slope) / (4 * math.pi**2)
    return math.sqrt(variance) if variance > _NOTHING else 0.0


def _mean(values: FloatArray) -> float:
    """Mean of the numbers among values; NaN without any."""
    good = values[np.isfinite(values)]
    return float(good.mean()) if good.size else math.nan


def _truth(candidate: Candidate, truth: Truth, tilts: tuple[float, float]) -> TruthScore:
    if truth.volume.shape != candidate.whole.shape:
        raise InputError(
            f"the truth has the shape (z, y, x) {truth.volume.shape}, the volumes have {candidate.whole.shape}"
        )
    spectra = half_spectrum(candidate.whole), half_spectrum(truth.volume)
    curve = shell_correlation(*spectra, candidate.whole.shape, tilts)
    assert curve.measured is not None
    assert curve.missing is not None
    sign = 1.0
    inner = slice(1, max(3, len(curve.total) // 4))
    if _mean(curve.measured[inner]) < 0:  # dense matter is dark in the one and bright in the other
        sign = -1.0
    measured, missing = sign * curve.measured, sign * curve.missing
    fidelity: dict[str, float] = {}
    if truth.labels is not None:
        found = class_fidelity(truth.volume, {"": candidate.whole}, truth.labels, truth.regions)[""]
        fidelity = {name: sign * _mean(np.array(list(bands.values()))) for name, bands in found.items()}
    return TruthScore(measured, missing, mean_correlation(measured), mean_correlation(missing), fidelity, sign)


def _matching(candidate: Candidate, target: Target, setting: Setting) -> MatchingScore:
    voxel = setting.voxel_size_angstrom or 1.0
    bright = -np.asarray(candidate.whole, np.float32) if target.dark else np.asarray(candidate.whole, np.float32)
    return match_template(
        bright, target.template, target.positions_px, target.diameter_angstrom, voxel, target.template_scale,
        setting.tilt_range_deg,
    )  # fmt: skip
