"""What two half volumes have in common: the signal they should, and the noise, shift or sign that they should not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import central, fade, shell_of, times_counted
from cryolithe.artefacts.mirrored import LOW_PER_PX, mirrored

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

# Standard deviations that chance does not reach; correlation of noise that halves with noise of their own have not.
SIGMAS, SHARED_NOISE = 5.0, 0.05
MOST_SHIFT_PX = 0.3
# Of a reference, along an axis: programs put middles half a voxel apart on each, and methods move what they sharpen by
# less.
MOST_REFERENCE_SHIFT_PX = 0.6
LONGEST = 192  # voxels along an axis that are compared
_TOP_SHARE = 0.9  # shells above this share of the highest one that has power are the noise's
_LEAST_POWER = 1e-2  # of the median shell: below that a volume was low-passed
_LEAST_GAIN = 8.0  # logarithm of the likelihood, that of four standard deviations
_CERTAIN_PEAK = 8.0  # standard deviations of a correlation map
_MOST_COHERENT = 0.95  # a shell is not believed more
_NEWTON_STEPS, _CONVERGED_PX = 16, 1e-3
_SHARES_OF_STEP = (1.0, 0.5, 0.25, 0.1, 0.03)  # of Newton's, until one leads uphill
_FEWEST = 16  # voxels along an axis
_UNLIKE = 0.2  # correlation of low frequencies below which volumes do not look alike


@dataclass(frozen=True)
class Agreement:
    """Correlations and shift of two volumes.

    Attributes:
        low: correlation at the low frequencies.
        low_sigma: standard deviation that it would have by chance.
        high: correlation at the highest frequencies that have power.
        high_sigma: likewise by chance.
        high_from_per_px: where these begin, cycles per voxel.
        shift_px: of the second volume against the first along ``(z, y, x)``, voxels; None if nothing correlates.
        shift_sigma_px: standard deviation of the length of the shift.
    """

    low: float
    low_sigma: float
    high: float
    high_sigma: float
    high_from_per_px: float
    shift_px: tuple[float, float, float] | None
    shift_sigma_px: float

    @property
    def distance_px(self) -> float:
        """Length of the shift, 0 if it is unknown."""
        return math.hypot(*self.shift_px) if self.shift_px else 0.0


@dataclass(frozen=True)
class _Whitened:
    """Products ``B A*`` of two half spectra, each shell divided by its power.

    Attributes:
        product: flat.
        power: ``|A|²|B|²``, divided alike.
        shell: of each coefficient; the corners beyond Nyquist have shells, too.
        times: how often each coefficient stands in the full spectrum.
        frequency_per_px: along ``(z, y, x)`` of each coefficient.
        shells: of these up to Nyquist.
        tied: by how much the window makes chance larger (variance).
        highest: shell with power.
    """

    product: Array
    power: Array
    shell: NDArray[np.intp]
    times: FloatArray
    frequency_per_px: tuple[FloatArray, FloatArray, FloatArray]
    shells: int
    tied: float
    highest: int

    @property
    def radius_per_px(self) -> FloatArray:
        """Frequency of the shell of each coefficient."""
        return self.shell / (2 * self.shells)

    def correlation(self, weight: FloatArray) -> tuple[float, float]:
        """Weighted mean correlation of all coefficients, and its deviation by chance."""
        total = float((self.times * weight).sum())
        if not total > 0:
            return 0.0, 1.0
        value = float((self.times * weight * self.product.real).sum()) / total
        chance = self.tied * float(((self.times * weight) ** 2 * self.power).sum()) / 2
        return value, math.sqrt(chance) / total


def shares_noise(found: Agreement) -> bool:
    """Whether the finest details correlate, which is signal up to the highest frequencies, or noise in common."""
    return found.high > max(SHARED_NOISE, SIGMAS * found.high_sigma)


def is_shifted(found: Agreement, reference: bool = False) -> bool:
    """Whether two halves, or a volume and a reference, clearly lie apart."""
    if found.shift_px is None or not found.distance_px > 3 * found.shift_sigma_px:
        return False
    if reference:
        return max(map(abs, found.shift_px)) > MOST_REFERENCE_SHIFT_PX
    return found.distance_px > MOST_SHIFT_PX


@dataclass(frozen=True)
class Expected:
    """What two volumes are to each other.

    Attributes:
        own_noise: whether they should have noise of their own, as halves.
        reference: whether the second is the reference of the first, perhaps of another program.
        opposite_z: whether their records tell opposite senses of z.
    """

    own_noise: bool = False
    reference: bool = False
    opposite_z: bool = False


def doubts_about_places(first: Array, second: Array, names: tuple[str, str], expected: Expected) -> tuple[str, ...]:
    """What speaks against two volumes that are compared voxel by voxel, as their middles show it.

    Args:
        first: shape ``(z, y, x)``, finite.
        second: the same shape.
        names: for messages.
        expected: what they are to each other.
    """
    middle = central((first.shape[0], first.shape[1], first.shape[2]), LONGEST)
    a, b = (np.asarray(volume[middle], dtype=np.float32) for volume in (first, second))
    if min(a.shape) < _FEWEST or not (a.std() > 0 and b.std() > 0):
        return ()
    if doubt := doubt_about_mirrors(a, b, names, expected.opposite_z):
        return (doubt,)
    found, doubts = agreement(a, b), list[str]()
    if found.shift_px is not None and is_shifted(found, expected.reference):
        z, y, x = (round(one, 1) + 0.0 for one in found.shift_px)  # no -0.0
        doubts.append(
            f"{names[1]} is shifted against {names[0]} by {z:.1f}, {y:.1f}, {x:.1f} voxels along z, y, x: finer "
            "details than about twice that cannot agree; reconstruct both with one alignment, or shift one back"
        )
    if expected.own_noise and shares_noise(found):
        doubts.append(
            f"{names[0]} and {names[1]} correlate by {found.high:.2f} in their finest details, where chance allows "
            f"{SIGMAS * found.high_sigma:.2g}: either there is signal up to the highest frequencies, or they share "
            "noise (images in common, denoised or filtered before), and neither FSC nor SNR tells what the data hold"
        )
    return tuple(doubts)


def doubt_about_mirrors(a: Array, b: Array, names: tuple[str, str], opposite_z: bool = False) -> str:
    """What tells that one of two volumes is mirrored or turned over; empty for none."""
    found = mirrored(a, b)
    if found.axes:
        told = ", as their records tell" if opposite_z and found.axes == "z" else ""
        return (
            f"{names[1]} shows what {names[0]} shows, but {found.words}{told}: low frequencies correlate by "
            f"{found.plain:.2f} at most as they are, by {found.flipped:.2f} then; {found.remedy}"
        )
    if opposite_z and found.plain < _UNLIKE:
        return (
            f"the records of {names[0]} and {names[1]} tell opposite senses of z (--handedness, --flip-z), and they do "
            "not look alike as they are: reconstruct both with one sense of z"
        )
    return ""


def agreement(first: Array, second: Array) -> Agreement:
    """Compare two half volumes.

    Every shell of frequencies is divided by its own power. The spread by chance is that of independent phases: the
    mean of n products has the variance ``Σ |A|²|B|² / (2 n²)``, times what the window ties together.

    Args:
        first: shape ``(z, y, x)``, finite.
        second: the same shape.
    """
    found = _whitened(first, second)
    radius = found.radius_per_px
    low = found.correlation(np.exp(-((radius / LOW_PER_PX) ** 2)))
    start = _TOP_SHARE * found.highest
    is_top = (
        found.shell >= start
        if found.highest == found.shells
        else (found.shell >= start) & (found.shell <= found.highest)
    )
    high = found.correlation(is_top.astype(float))
    shift, sigma = measured_shift(first, second)
    return Agreement(*low, *high, start / (2 * found.shells), shift, sigma)


def _whitened(first: Array, second: Array) -> _Whitened:
    windows = [fade(size, size // 4) for size in first.shape]
    window = windows[0][:, None, None] * windows[1][:, None] * windows[2]
    tied = math.prod(w.size * float((w**4).sum()) / float((w**2).sum()) ** 2 for w in windows)
    a, b = (
        scipy.fft.rfftn((v - v.mean(dtype=np.float64)).astype(np.float32) * window).ravel() for v in (first, second)
    )
    z, y, x = first.shape
    axes = np.meshgrid(scipy.fft.fftfreq(z), scipy.fft.fftfreq(y), scipy.fft.rfftfreq(x), indexing="ij")
    frequency = (axes[0].ravel(), axes[1].ravel(), axes[2].ravel())
    shells = min(first.shape) // 2
    shell = shell_of(np.sqrt(sum(k**2 for k in frequency)), 2 * shells)
    times = np.broadcast_to(times_counted(x), (z, y, x // 2 + 1)).ravel().copy()
    times[0] = 0
    count = np.maximum(np.bincount(shell, times), 1)
    powers = [np.bincount(shell, times * np.abs(values) ** 2) / count for values in (a, b)]
    level = np.sqrt(powers[0] * powers[1])
    highest = np.flatnonzero(level[: shells + 1] > _LEAST_POWER * np.median(level[1 : shells + 1]))
    scale = np.maximum(level, max(float(level.max()) * 1e-12, 1e-300))[shell]
    product = b * a.conj() / scale
    return _Whitened(
        product,
        np.abs(product) ** 2,
        shell,
        times,
        frequency,
        shells,
        tied,
        int(highest[-1]) if highest.size else shells,
    )


def measured_shift(first: Array, second: Array) -> tuple[tuple[float, float, float] | None, float]:
    """Shift of the second volume against the first along ``(z, y, x)``, and the standard deviation of its length.

    The whole voxels come from the peak of a low-passed correlation. What is left over is fitted to the phases of what
    both volumes then have in common, each shell weighing by its correlation ρ as ``ρ / (1 - ρ²)``, the maximum
    likelihood for equal signals in independent noise.

    Args:
        first: shape ``(z, y, x)``.
        second: the same shape.

    Returns:
        None and 0 if the volumes have nothing in common.
    """
    found = _whitened(first, second)
    spectrum = (found.product * np.exp(-((found.radius_per_px / LOW_PER_PX) ** 2))).astype(np.complex64)
    spectrum[0] = 0
    half = (*first.shape[:2], first.shape[2] // 2 + 1)
    values = scipy.fft.irfftn(spectrum.reshape(half), first.shape)
    peak = np.unravel_index(int(np.argmax(values)), values.shape)
    # Where the opposite fits better the polarity differs, and side lobes lie at shifts that nothing has.
    if not values[peak] > max(_CERTAIN_PEAK * values.std(), -float(values.min())):
        return None, 0.0
    unmoved = found
    whole = [int((at + size // 2) % size - size // 2) for at, size in zip(peak, first.shape, strict=True)]
    if any(whole):
        one = tuple(slice(max(0, -d), size - max(0, d)) for d, size in zip(whole, first.shape, strict=True))
        other = tuple(slice(max(0, d), size - max(0, -d)) for d, size in zip(whole, first.shape, strict=True))
        found = _whitened(first[one], second[other])
    fine, sigma = _fitted_phases(found)
    z, y, x = (float(a + b) for a, b in zip(whole, fine, strict=True))
    # Along what is the same all along an axis, as a fibre, noise alone finds a shift: it explains nothing more.
    searched = math.log(values.size) if any(whole) else 0.0
    if _gain(unmoved, found, (z, y, x)) < _LEAST_GAIN + searched:
        sigma = max(sigma, math.hypot(z, y, x))
    return (z, y, x), sigma


def _gain(unmoved: _Whitened, moved: _Whitened, shift_px: tuple[float, float, float]) -> float:
    """By how much a shift makes two volumes likelier than none does (logarithm)."""
    coherence = _coherence(moved)
    weight = unmoved.times * (coherence / (1 - coherence**2))[np.minimum(unmoved.shell, len(coherence) - 1)]
    phase = 2 * np.pi * sum(k * d for k, d in zip(unmoved.frequency_per_px, shift_px, strict=True))
    gained = (unmoved.product * (np.exp(1j * phase) - 1)).real
    return float((weight * gained)[unmoved.shell <= unmoved.shells].sum()) / unmoved.tied


def _coherence(found: _Whitened) -> FloatArray:
    """Correlation by shell of what lies almost in one place, 0 where chance explains it."""
    inner = found.shell <= found.shells
    shell, times = found.shell[inner], found.times[inner]
    count = np.maximum(np.bincount(shell, times), 1)
    parts = [np.bincount(shell, times * part[inner]) / count for part in (found.product.real, found.product.imag)]
    # The modulus: the phases of a shell are not yet aligned along the axis of the shift, but they are across it.
    coherence = np.clip(np.hypot(*parts), 0, _MOST_COHERENT)
    coherence[coherence < 3 * np.sqrt(found.tied / count)] = 0
    # What is left of a shift turns no shell around, as zeros of a CTF do, whose phases tell of no shift.
    coherence[parts[0] < 0] = 0
    return coherence


def _fitted_phases(found: _Whitened) -> tuple[FloatArray, float]:
    """Shift d that makes ``Σ w Re(B A* exp(2πi k d))`` largest, found uphill from 0, and its deviation."""
    inner = found.shell <= found.shells
    shell, times, coherence = found.shell[inner], found.times[inner], _coherence(found)
    weight = (coherence / (1 - coherence**2))[shell] * times
    chosen = weight > 0
    if not chosen.any():
        return np.zeros(3), 0.0
    k = 2 * np.pi * np.stack([axis[inner][chosen] for axis in found.frequency_per_px])
    product, weight = found.product[inner][chosen], weight[chosen]
    shift, turned = np.zeros(3), weight * product
    for _ in range(_NEWTON_STEPS):
        bends, along = np.linalg.eigh((k * turned.real) @ k.T)
        # Uphill also where the sum bends the other way, as between the maxima of what is sharp along an axis.
        step = -along @ ((along.T @ (k @ turned.imag)) / np.maximum(np.abs(bends), 1e-6 * np.abs(bends).max()))
        for share in _SHARES_OF_STEP:
            tried = np.clip(shift + share * step, -1, 1)
            moved = weight * product * np.exp(1j * (tried @ k))
            if moved.real.sum() > turned.real.sum():
                break
        else:
            break
        converged = float(np.abs(tried - shift).max()) < _CONVERGED_PX
        shift, turned = tried, moved
        if converged:
            break
    rho = coherence[shell][chosen]
    information = (k * (times[chosen] * rho**2 / (1 - rho**2))) @ k.T / found.tied
    return shift, math.sqrt(float(np.trace(np.linalg.pinv(information))))
