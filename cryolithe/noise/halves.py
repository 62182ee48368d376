"""Whether two stacks are halves of one series: what they must share, and what they must not.

``E = a S + noise``, ``O = b S + noise'``. All checks are of sums over the images of a series, by rings of frequency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import shell_of
from cryolithe.errors import InputError
from cryolithe.noise.rings import FloatArray, frequencies, independent, ring_means

LOW_PER_PX, HIGH_PER_PX = 0.12, 0.45
CERTAIN = 4.0  # standard errors
MOST_SHARED = 0.5  # correlation at the highest frequencies, where images of a usual dose hold noise
WORTH_A_NOTE = 0.2
WORTH_A_PATTERN = 0.02  # of the power at the highest frequencies
UNLIKE = math.log(1.1)  # contrast of one half over that of the other
CLEANEST = 1e-3  # noise over all power: no image that counts electrons is as clean
DENOISED_DB = -25.0  # noise at the highest frequencies over that at middle ones, in the image where it falls least
_TOP = (0.42, 0.5)
_MIDDLE = (0.05, 0.4)
_CERTAIN_PEAK = 8.0
_FAR_PX = 1.5


@dataclass(frozen=True)
class HalfSums:
    """What the checks need, of a series of T images in patches of P pixels.

    Attributes:
        even: power of the even half, shape ``(T, K)``.
        odd: of the odd half.
        cross: real part of the cross-spectrum.
        product: sum of the complex products of both, shape ``(P, P // 2 + 1)``.
        between: real part of the cross-spectrum of the even half of one image with the odd half of another, shape
            ``(K,)``: of what all images hold in the same place.
        patches: number of patches of each image, shape ``(T,)``.
        means: mean grey value of each half, over all images.
        deviation: standard deviation of a half's grey values.
    """

    even: FloatArray
    odd: FloatArray
    cross: FloatArray
    product: NDArray[np.complex128]
    between: FloatArray
    patches: NDArray[np.int64]
    means: tuple[float, float]
    deviation: float

    @property
    def size(self) -> int:
        """Edge of the patches."""
        return self.product.shape[0]


def check_halves(sums: HalfSums, names: tuple[str, str]) -> tuple[str, ...]:
    """Refuse what are no two halves of one series.

    Args:
        sums: of the series.
        names: of the even and the odd stack, for messages.

    Returns:
        notes.

    Raises:
        InputError: says what is wrong, in one line.
    """
    even, odd = names
    count = independent(sums.size, int(sums.patches.sum()))
    frequency = frequencies(sums.size)
    weight = sums.patches / sums.patches.sum()
    ee, oo, cross = weight @ sums.even, weight @ sums.odd, weight @ sums.cross
    noise = (sums.even + sums.odd - 2 * sums.cross) / 4
    if (weight @ noise).sum() <= CLEANEST * (ee + oo).sum() / 4:
        raise InputError(
            f"{even} and {odd} differ by next to nothing (noise is {_percent((weight @ noise).sum(), ee.sum())} of the "
            "power): they are the same images, or denoised; give the even and the odd frames as recorded"
        )
    _check_common(ee, oo, cross, count, frequency, names)
    _check_contrast(sums, names)
    _check_shift(sums, names)
    _check_not_denoised(noise, frequency, names)
    return _check_high(ee, oo, cross, sums.between, names)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2g} %" if whole > 0 else "0 %"


def _check_common(
    ee: FloatArray, oo: FloatArray, cross: FloatArray, count: FloatArray, frequency: FloatArray, names: tuple[str, str]
) -> None:
    low = frequency <= LOW_PER_PX
    r = cross[low] / np.sqrt(ee[low] * oo[low])
    share = count[low] / count[low].sum()
    mean, error = float(share @ r), math.sqrt(1 / (2 * count[low].sum()))
    if mean < -CERTAIN * error:
        raise InputError(
            f"{names[0]} and {names[1]} have opposite contrast (correlation {mean:.2f} at low frequencies); "
            "give both halves with the same sign"
        )
    if mean < CERTAIN * error:
        raise InputError(
            f"{names[0]} and {names[1]} have nothing in common (correlation {mean:.3f} at low frequencies, "
            f"{CERTAIN * error:.3f} by chance); give the two halves of one series, both aligned alike"
        )


def _check_high(
    ee: FloatArray, oo: FloatArray, cross: FloatArray, between: FloatArray, names: tuple[str, str]
) -> tuple[str, ...]:
    high = frequencies(2 * len(ee)) >= HIGH_PER_PX
    power = math.sqrt(ee[high].sum() * oo[high].sum())
    r, fixed = float(cross[high].sum() / power), float(between[high].sum() / power)
    # Other tilts show the specimen from elsewhere: what their finest details share is no specimen.
    pattern = f"all images hold the same pattern, which makes up {fixed:.0%} of the power at the highest frequencies"
    if r > MOST_SHARED and fixed > r / 2:
        raise InputError(
            f"{names[0]} and {names[1]}: {pattern}, as a gain reference that was not applied does; correct the frames "
            "with it before they are summed"
        )
    if r > MOST_SHARED:
        raise InputError(
            f"{names[0]} and {names[1]} correlate by {r:.2f} at their highest frequencies, where halves hold noise of "
            "their own: they share frames, or were denoised together; give the even and the odd frames as recorded"
        )
    notes = []
    if r > WORTH_A_NOTE:
        notes.append(f"halves correlate by {r:.2f} at their highest frequencies: noise that they share is not measured")
    if fixed > WORTH_A_PATTERN:
        notes.append(f"{pattern}, as a gain reference that was not applied does: it counts as signal")
    return tuple(notes)


def _check_contrast(sums: HalfSums, names: tuple[str, str]) -> None:
    """The ratio g of the halves' signals, from ``even - ρ odd = b² (g² - ρ) S`` and ``cross = g b² S``.

    ρ is the ratio of their noise, from the highest frequencies.
    """
    frequency = frequencies(sums.size)
    ee, oo, cross = (sums.patches @ values / sums.patches.sum() for values in (sums.even, sums.odd, sums.cross))
    count = independent(sums.size, int(sums.patches.sum()))
    high = frequency >= HIGH_PER_PX
    noises = (ee - cross)[high].sum(), (oo - cross)[high].sum()
    if min(noises) > 0:
        rho = float(noises[0] / noises[1])
        band = (cross > 0.3 * np.sqrt(ee * oo)) & (frequency <= 2 * LOW_PER_PX)
        if band.any():
            total = float((count * cross)[band].sum())
            h = float((count * (ee - rho * oo))[band].sum()) / total
            error = math.sqrt(float((count * (ee**2 + (rho * oo) ** 2))[band].sum())) / total
            ratio = (h + math.sqrt(h * h + 4 * rho)) / 2
            if abs(math.log(ratio)) > max(UNLIKE, CERTAIN * error / 2):
                _refuse_unlike(ratio, names)
    means = sums.means
    if min(means) > 3 * sums.deviation and abs(math.log(means[0] / means[1])) > UNLIKE:
        _refuse_unlike(means[0] / means[1], names)


def _refuse_unlike(ratio: float, names: tuple[str, str]) -> None:
    raise InputError(
        f"{names[0]} has {ratio:.2f} times the contrast of {names[1]}, so that their difference holds the specimen; "
        "give halves of equally many frames, or averages instead of sums, scaled alike"
    )


def _check_shift(sums: HalfSums, names: tuple[str, str]) -> None:
    size = sums.size
    ky, kx = scipy.fft.fftfreq(size)[:, None], scipy.fft.rfftfreq(size)[None]
    weight = np.exp(-((np.hypot(ky, kx) / LOW_PER_PX) ** 2))
    ring = np.minimum(shell_of(np.hypot(ky, kx), size), size // 2)
    scale = np.sqrt(ring_means(np.abs(sums.product) ** 2))
    whitened = sums.product / np.maximum(np.concatenate([scale[:1], scale]), 1e-300)[ring] * weight
    whitened[0, 0] = 0
    values = scipy.fft.irfft2(whitened, s=(size, size))
    peak = np.unravel_index(int(np.argmax(values)), values.shape)
    shift = [int((at + size // 2) % size - size // 2) for at in peak]
    if math.hypot(*shift) > _FAR_PX and values[peak] > max(_CERTAIN_PEAK * values.std(), 1.5 * values[0, 0]):
        raise InputError(
            f"{names[0]} and {names[1]} are shifted against each other by {abs(shift[1])} px along x and "
            f"{abs(shift[0])} px along y; align both halves with the same transforms"
        )


def _check_not_denoised(noise: FloatArray, frequency: FloatArray, names: tuple[str, str]) -> None:
    top = noise[:, (frequency >= _TOP[0]) & (frequency <= _TOP[1])].mean(axis=1)
    middle = np.median(noise[:, (frequency >= _MIDDLE[0]) & (frequency <= _MIDDLE[1])], axis=1)
    falls = 10 * np.log10(np.maximum(top, 1e-300) / np.maximum(middle, 1e-300))
    if falls.max() < DENOISED_DB:
        raise InputError(
            f"the noise of {names[0]} and {names[1]} falls by {-falls.max():.0f} dB towards Nyquist in every image: "
            "they were denoised or low-passed; give the images as recorded"
        )
