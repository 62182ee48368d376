"""Numbers for the likeness of two volumes in real space, and signal-to-noise ratios.

All sums are taken plane by plane in float64, so that volumes of half a gigabyte need no double-precision copies.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.metrics import structural_similarity

from cryolithe.errors import InputError

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

SSIM_WINDOW_PX = 7  # the library's own
SSIM_SLAB_PX = 32
MOST_REGIONS = 300  # as many as Jones, Deshmukh & Pande (2026, section 2.2.4) took
# Of particles, whose contrast is told: standard errors of their mean, and the share that has its sign.
FEWEST_FOR_SIGN, CERTAIN, MOST_AGREE = 5, 5.0, 0.75
# What is compared with the background, in radii: the middle, shells about it, and the background around the particle.
SHELLS, BACKGROUND = (0.0, 0.5, 0.65, 0.8, 0.95, 1.1), (1.2, 1.7)
# Of an opposite sign elsewhere: standard errors, and the share of the stronger one from which neither is the density's.
CLEAR, BOTH = 3.0, 0.4
STEPS_PER_RADIUS, LEAST_SEEN = 10, 0.1


@dataclass(frozen=True)
class PairMoments:
    """First and second moments of two volumes over the same voxels."""

    voxels: int
    mean_a: float
    mean_b: float
    variance_a: float
    variance_b: float
    covariance: float

    @property
    def correlation(self) -> float:
        """Pearson's correlation coefficient ρ."""
        return self.covariance / math.sqrt(self.variance_a * self.variance_b)


@dataclass(frozen=True)
class Similarity:
    """An estimate against its reference.

    Attributes:
        correlation: Pearson's ρ.
        snr_db: reconstruction SNR after the best scale and offset, ``-10 log10(1 - ρ²)``.
        psnr_db: peak SNR of the standardised volumes.
        ssim: mean structural similarity of the standardised volumes.
    """

    correlation: float
    snr_db: float
    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class HalfSnr:
    """SNR from two halves with independent noise.

    Attributes:
        correlation: ρ of the halves.
        half_db: SNR of one half, ``10 log10(ρ / (1 - ρ))``; NaN where ρ ≤ 0.
        whole_db: SNR of their mean, 3 dB more.
    """

    correlation: float
    half_db: float
    whole_db: float


@dataclass(frozen=True)
class RegionSnr:
    """SNR from pairs of signal and background regions.

    Attributes:
        snr_db: mean over the pairs.
        pairs: how many.
        diameter_px: of the balls that are the regions.
    """

    snr_db: float
    pairs: int
    diameter_px: float


def pair_moments(a: Array, b: Array, inside: NDArray[np.bool_] | None = None) -> PairMoments:
    """Moments of two volumes of one shape ``(z, y, x)``, where ``inside`` is true.

    Raises:
        InputError: if the shapes differ, or one volume is constant there.
    """
    if a.shape != b.shape:
        raise InputError(f"the first volume has the shape {a.shape} but the second volume has {b.shape}")
    count, sums = 0, np.zeros(2)
    for plane in range(len(a)):
        chosen = slice(None) if inside is None else inside[plane]
        count += int(a[plane][chosen].size)
        sums += [a[plane][chosen].sum(dtype=np.float64), b[plane][chosen].sum(dtype=np.float64)]
    mean = sums / max(count, 1)
    squares = np.zeros(3)
    for plane in range(len(a)):
        chosen = slice(None) if inside is None else inside[plane]
        x = a[plane][chosen].astype(np.float64).ravel() - mean[0]
        y = b[plane][chosen].astype(np.float64).ravel() - mean[1]
        squares += [x @ x, y @ y, x @ y]
    for name, value in zip(("first", "second"), squares[:2], strict=True):
        if not value > 0:
            raise InputError(
                f"the {name} volume is constant in the {count} voxels compared; a correlation needs contrast"
            )
    squares /= count
    return PairMoments(count, float(mean[0]), float(mean[1]), *(float(s) for s in squares))


def similarity(reference: Array, estimate: Array, inside: NDArray[np.bool_] | None = None) -> Similarity:
    """Compare an estimate with its reference.

    Both are standardised (mean 0, variance 1) for PSNR and SSIM, as Zeng et al. (DUAL, 2024, "Datasets and training
    preparation") standardise theirs; then the mean squared error is ``2 - 2 ρ``. The peak is the range
    (maximum - minimum) of the standardised reference: their eq. 10 has 2^B - 1, which floating-point volumes lack.

    Args:
        reference: real, shape ``(z, y, x)``.
        estimate: the same shape; its scale and offset do not matter.
        inside: voxels to look at, all without.
    """
    moments = pair_moments(reference, estimate, inside)
    rho = moments.correlation
    shown = reference if inside is None else reference[inside]
    peak = (float(shown.max()) - float(shown.min())) / math.sqrt(moments.variance_a)
    unexplained, error = 1 - rho**2, 2 - 2 * rho
    return Similarity(
        correlation=rho,
        snr_db=-10 * math.log10(unexplained) if unexplained > 0 else math.inf,
        psnr_db=10 * math.log10(peak**2 / error) if error > 0 else math.inf,
        ssim=_mean_ssim(reference, estimate, moments, peak, inside),
    )


def _mean_ssim(a: Array, b: Array, moments: PairMoments, data_range: float, inside: NDArray[np.bool_] | None) -> float:
    """Mean SSIM (Wang et al., IEEE TIP 13, 600, 2004; Zeng et al., eq. 11) of the standardised volumes.

    scikit-image's with its cubic window, called slab by slab: it holds a dozen arrays of the size it is given. The
    border of half a window, where the window sticks out, is left out, as the library does for the mean.
    """
    window = min(SSIM_WINDOW_PX, min(a.shape) - 1 + min(a.shape) % 2)
    rim = window // 2
    total, count = 0.0, 0
    for start in range(rim, len(a) - rim, SSIM_SLAB_PX):
        stop = min(start + SSIM_SLAB_PX, len(a) - rim)
        seen = slice(start - rim, stop + rim)
        x = ((a[seen] - np.float32(moments.mean_a)) / np.float32(math.sqrt(moments.variance_a))).astype(np.float32)
        y = ((b[seen] - np.float32(moments.mean_b)) / np.float32(math.sqrt(moments.variance_b))).astype(np.float32)
        _, values = structural_similarity(x, y, win_size=window, data_range=data_range, full=True)
        core = (slice(rim, len(x) - rim), slice(rim, x.shape[1] - rim), slice(rim, x.shape[2] - rim))
        kept = values[core] if inside is None else values[core][inside[start:stop, core[1], core[2]]]
        total += float(kept.sum(dtype=np.float64))
        count += kept.size
    return total / count if count else math.nan


def half_snr(a: Array, b: Array, inside: NDArray[np.bool_] | None = None) -> HalfSnr:
    """Estimate the SNR from two halves (Frank & Al-Ali, Nature 256, 376, 1975): ``SNR = ρ / (1 - ρ)``.

    Bepler et al. (Topaz-Denoise, 2020, "Signal-to-noise quantification") use it for tomograms. It holds for halves
    whose noise is independent; what a network invents alike in both counts as signal.
    """
    rho = pair_moments(a, b, inside).correlation
    if not 0 < rho < 1:
        return HalfSnr(rho, math.inf if rho >= 1 else math.nan, math.inf if rho >= 1 else math.nan)
    half = 10 * math.log10(rho / (1 - rho))
    return HalfSnr(rho, half, half + 10 * math.log10(2))


def region_snr(volume: Array, positions_px: FloatArray, diameter_px: float) -> RegionSnr | None:
    """Estimate the SNR from regions of signal, each with the nearest region of background.

    ``SNR = (10 / N) Σ log10(s_i) - log10(v_i)`` with ``s_i = (μ_signal - μ_background)²`` and v_i the variance in the
    background (Bepler et al. 2020, "Signal-to-noise quantification"; Jones, Deshmukh & Pande 2026, eq. 8, whose text
    prints s without the square that an SNR of powers needs). Regions are balls: around particles, and around points
    that are one diameter or more away from every particle.

    Args:
        volume: shape ``(z, y, x)``.
        positions_px: particles ``(z, y, x)``, shape ``(N, 3)``.
        diameter_px: of the balls.

    Returns:
        None where no ball fits, or no background is left.
    """
    ratios = [
        10 * math.log10(difference**2 / noise)
        for difference, noise in region_contrasts(volume, positions_px, diameter_px)
        if difference != 0 and noise > 0
    ]
    return RegionSnr(float(np.mean(ratios)), len(ratios), diameter_px) if ratios else None


def region_contrasts(volume: Array, positions_px: FloatArray, diameter_px: float) -> list[tuple[float, float]]:
    """By how much particles are brighter than the nearest background, and the variance in that; see `region_snr`."""
    radius = diameter_px / 2
    size = np.array(volume.shape)
    fits = ((positions_px >= radius) & (positions_px <= size - 1 - radius)).all(axis=1)
    signal = positions_px[fits]
    axes = [np.arange(math.ceil(radius), math.floor(n - 1 - radius) + 1, max(1, math.floor(radius))) for n in size]
    free = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float64)
    if len(signal) and len(free):
        free = free[cKDTree(positions_px).query(free)[0] >= diameter_px]
    if not len(signal) or not len(free):
        return []
    signal = signal[np.linspace(0, len(signal) - 1, min(MOST_REGIONS, len(signal))).round().astype(int)]
    found = []
    for position, background in zip(signal, free[cKDTree(free).query(signal)[1]], strict=True):
        lit, dark = (_ball(volume, centre, radius) for centre in (position, background))
        found.append((float(lit.mean() - dark.mean()), float(dark.var())))
    return found


def density_sign(volume: Array, positions_px: FloatArray, diameter_px: float) -> int:
    """1 where particles are clearly brighter than what surrounds them, -1 where they are darker, 0 where none is clear.

    A missing wedge, a filter or the CTF draws rings of the other sign around a particle, weaker than itself; the middle
    of a vesicle or an empty capsid may be of the other sign than its shell. So the sign is that of the strongest part
    of the radial profile, and none where another part is of the other sign and nearly as strong.
    """
    profiles = _profiles(volume, positions_px, diameter_px / 2)
    means, errors, certain = [], [], []
    for values in profiles.T:
        seen = values[np.isfinite(values)]
        if seen.size < FEWEST_FOR_SIGN:
            continue
        mean, error = float(seen.mean()), float(seen.std(ddof=1)) / math.sqrt(seen.size)
        agree = float((np.sign(seen) == np.sign(mean)).mean())
        means.append(mean)
        errors.append(error)
        certain.append(abs(mean) > CERTAIN * error and agree >= MOST_AGREE)
    strongest = max((mean for mean, sure in zip(means, certain, strict=True) if sure), key=abs, default=0.0)
    for mean, error in zip(means, errors, strict=True):
        opposite = -math.copysign(mean, mean * strongest)
        if opposite > max(BOTH * abs(strongest), CLEAR * error):
            return 0
    return int(np.sign(strongest))


def _profiles(volume: Array, positions_px: FloatArray, radius: float) -> FloatArray:
    """By how much shells of particles are brighter than the background right around each, shape ``(N, shells)``.

    What lies in other particles is no background. NaN where less than half of a shell lies in the volume.
    """
    size, tree = np.array(volume.shape), cKDTree(positions_px)
    fits = ((positions_px >= radius / 2) & (positions_px <= size - 1 - radius / 2)).all(axis=1)
    chosen = positions_px[fits]
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(MOST_REGIONS, len(chosen))).round().astype(int)]
    reach, step = math.ceil(BACKGROUND[1] * radius) + 1, max(1, math.floor(radius / STEPS_PER_RADIUS))
    axis = np.arange(-(reach // step) * step, reach + 1, step)
    offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    found = []
    for centre in chosen:
        places = np.rint(centre).astype(int) + offsets
        away = np.sqrt(((places - centre) ** 2).sum(axis=1)) / radius
        inside = ((places >= 0) & (places < size)).all(axis=1)
        around = (away >= BACKGROUND[0]) & (away <= BACKGROUND[1])
        free = around & inside
        for number in tree.query_ball_point(centre, (BACKGROUND[0] + BACKGROUND[1]) * radius):
            other = positions_px[number]
            free &= ((places - other) ** 2).sum(axis=1) >= (BACKGROUND[0] * radius) ** 2
        if not free.sum() > LEAST_SEEN * around.sum():
            continue
        values = np.zeros(len(places))
        values[inside] = volume[tuple(places[inside].T)]
        level, row = float(values[free].mean()), []
        for low, high in itertools.pairwise(SHELLS):
            shell = (away >= low) & (away < high)
            seen = values[shell & inside]
            row.append(float(seen.mean()) - level if seen.size > shell.sum() / 2 else math.nan)
        found.append(row)
    return np.array(found).reshape(-1, len(SHELLS) - 1)


def _ball(volume: Array, centre: FloatArray, radius: float) -> FloatArray:
    """Voxels within ``radius`` of a point."""
    low = np.maximum(np.ceil(centre - radius), 0).astype(int)
    high = np.minimum(np.floor(centre + radius), np.array(volume.shape) - 1).astype(int) + 1
    box = np.asarray(volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]], dtype=np.float64)
    grids = np.ogrid[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    away = sum((grid - c) ** 2 for grid, c in zip(grids, centre, strict=True))
    return np.asarray(box[away <= radius**2])
