"""By how much the images of two halves of the frames lie apart, of which a part of a pixel is enough to tell.

Images E of the even and O of the odd frames show one specimen S and noise of their own. Where O lies d from E, their
cross-spectrum is ``E O* = |S|² exp(2πi k·d) + noise``. With ``L(d) = Σ 2 |S|² Re(E O* exp(-2πi k·d)) / (|E|² |O|²)``
over independent frequencies k, a correlation in which each counts by what it knows, and V, which is what L is at the
true shift and its variance, the logarithm of how likely d is, whatever the contrast, is L² / 2 V but for a constant. A
shift is told where that is clearly above its value for none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.arrays.spectra import shell_of, times_counted

_WIDEST_PX = 192  # along the shorter side, by averaging pixels
# A Hann window along both axes leaves about so many of the coefficients independent.
_INDEPENDENT = (2 / 3) ** 2
_BAND = (0.02, 0.4)  # cycles per coarse pixel; below are gradients, and what a window makes of them
_LEAKED = 1e-4  # of the highest power of a ring is in all rings, which is not independent
_SHARED = 4.0  # standard deviations of what chance gives a ring
_SURE = 20.0  # by which the logarithm must be above that of no shift; the most of some 10 000 shifts by chance is 10
_EXPLAINED = 0.5
_NOTHING = 1e-30
# Less is what interpolation and motion within a tilt leave; of single images whatever could be a fault of alignment.
LEAST_PX, LEAST_OF_ONE_PX = 0.3, 1.0
_FARTHEST = 4  # a shift is looked for to this part of the image's size
_FINER = 8  # to which part of a coarse pixel

_Spectra = NDArray[np.complex128]
_Rings = NDArray[np.float64]


class Coarse(NamedTuple):
    """Images of which pixels are averaged.

    Attributes:
        factor: edge of the blocks of pixels.
        size: blocks along y and x.
    """

    factor: int
    size: tuple[int, int]


class Apart(NamedTuple):
    """Shifts of the odd half from the even one, pixels along y and x; None where none can be told.

    Attributes:
        all: of all images together.
        single: of images that lie elsewhere than all do, by their numbers from 0.
    """

    all: tuple[float, float] | None
    single: dict[int, tuple[float, float]]


def coarse_of(shape: tuple[int, ...]) -> Coarse:
    """How images of a stack ``(tilt, y, x)`` are averaged before they are compared."""
    factor = max(1, min(shape[1:]) // _WIDEST_PX)
    return Coarse(factor, (shape[1] // factor, shape[2] // factor))


def shifts_of_halves(even: NDArray[Any], odd: NDArray[Any], places: Sequence[int]) -> Apart:
    """How far the images of the halves lie apart.

    Args:
        even: stack ``(tilt, y, x)`` of even frames.
        odd: that of odd frames, of the same shape.
        places: images that are asked.
    """
    coarse = coarse_of(even.shape)
    pairs = ((spectrum_of(even[place], coarse), spectrum_of(odd[place], coarse)) for place in places)
    return shifts_of_spectra(pairs, coarse, places)


def spectrum_of(image: NDArray[Any], coarse: Coarse) -> _Spectra:
    """Half transform of an image ``(y, x)`` that is averaged and windowed."""
    return np.asarray(scipy.fft.rfft2(_averaged(image, coarse) * window_of(coarse.size)))


def shifts_of_spectra(pairs: Iterable[tuple[_Spectra, _Spectra]], coarse: Coarse, places: Sequence[int]) -> Apart:
    """See `shifts_of_halves`.

    Args:
        pairs: of the even and the odd half, see `spectrum_of`, for each of the images that are asked.
        coarse: of both halves.
        places: of these images.
    """
    factor, size = coarse
    if min(size) < 2 * _FARTHEST or not places:
        return Apart(None, {})
    ring = ring_of(size)
    rings = int(ring.max()) + 1
    products: list[_Spectra] = []
    powers: list[_Rings] = []
    for first, second in pairs:
        products.append(first * second.conj())
        powers.append(np.stack([ring_means(np.abs(half) ** 2, ring) for half in (first, second)]))
    floor = _LEAKED * np.max(powers, axis=2, keepdims=True)
    noise = np.prod(np.maximum(powers, floor), axis=1)
    total, variance = np.sum(products, axis=0), noise.sum(axis=0)
    noise[noise <= _NOTHING * noise.max()] = np.inf  # blank images know nothing
    # Of the power that the halves share, wherever they lie.
    seen = ring_means(np.abs(total) ** 2, ring) - variance
    shared = np.sqrt(np.maximum(seen, 0.0)) / len(products)
    by_chance = variance / np.sqrt(np.maximum(np.bincount(ring.ravel(), minlength=rings), 1))
    shared[seen < _SHARED * by_chance] = 0.0
    shared[: max(2, round(_BAND[0] * min(size)))] = shared[round(_BAND[1] * min(size)) :] = 0.0
    weights = [2 * _INDEPENDENT * (shared / one)[ring] for one in noise]
    expected = [float((weight * shared[ring] * times_counted(size[1])).sum() / 2) for weight in weights]
    summed = np.sum([weight * product for weight, product in zip(weights, products, strict=True)], axis=0)
    together = _farthest(summed, sum(expected), size)
    middle = together if together is not None and np.hypot(*together) * factor >= LEAST_PX else (0.0, 0.0)
    back = moved_back(size, middle)
    single = {}
    for place, weight, product, most in zip(places, weights, products, expected, strict=True):
        found = _farthest(weight * product * back, most, size)
        if found is not None and np.hypot(*found) * factor >= LEAST_OF_ONE_PX:
            single[place] = ((found[0] + middle[0]) * factor, (found[1] + middle[1]) * factor)
    return Apart((middle[0] * factor, middle[1] * factor) if any(middle) else None, single)


def _averaged(image: NDArray[Any], coarse: Coarse) -> _Rings:
    """Means of square blocks of pixels, less their mean, and without what is far from all others."""
    factor, size = coarse
    part = np.asarray(image[: size[0] * factor, : size[1] * factor], np.float64)
    means = np.nan_to_num(part, posinf=0.0, neginf=0.0).reshape(size[0], factor, size[1], factor).mean(axis=(1, 3))
    middle = float(np.median(means))
    most = 6 * float(np.median(np.abs(means - middle)))
    clipped: _Rings = np.clip(means - middle, -most, most)
    return clipped - clipped.mean()


def window_of(size: tuple[int, ...]) -> _Rings:
    """What images ``(y, x)`` are multiplied by before they are transformed: a Hann window along both axes."""
    return np.asarray(np.hanning(size[0] + 2)[1:-1, None] * np.hanning(size[1] + 2)[1:-1])


def ring_of(size: tuple[int, ...]) -> NDArray[np.intp]:
    """Ring of each coefficient of the half transform of an image ``(y, x)``, by its frequency."""
    return shell_of(np.hypot(scipy.fft.fftfreq(size[0])[:, None], scipy.fft.rfftfreq(size[1])[None]), min(size))


def ring_means(values: NDArray[Any], ring: NDArray[np.intp]) -> _Rings:
    """Mean of the values of each ring, 0 for those without any; both of the same shape."""
    return np.asarray(np.bincount(ring.ravel(), values.ravel()) / np.maximum(np.bincount(ring.ravel()), 1))


def moved_back(size: tuple[int, ...], shift: tuple[float, float]) -> _Spectra:
    """By what a cross-spectrum is multiplied so that halves that lie so far apart lie nowhere apart."""
    y, x = scipy.fft.fftfreq(size[0])[:, None], scipy.fft.rfftfreq(size[1])[None]
    return np.asarray(np.exp(-2j * np.pi * (shift[0] * y + shift[1] * x)))


def _farthest(weighted: _Spectra, expected: float, size: tuple[int, int]) -> tuple[float, float] | None:
    """The likeliest shift, pixels along y and x, if it is surely not none."""
    pixels, weighted = size[0] * size[1], weighted.conj()  # of which the inverse transform is that sum, by shifts
    # Of a real image, each coefficient of the half transform stands for two that know the same.
    likely = scipy.fft.irfft2(weighted, s=size) * pixels / 2
    likely[size[0] // _FARTHEST : -(size[0] // _FARTHEST)] = -np.inf
    likely[:, size[1] // _FARTHEST : -(size[1] // _FARTHEST)] = -np.inf
    y, x = np.unravel_index(int(likely.argmax()), size)
    start = [float((at + whole // 2) % whole - whole // 2) for at, whole in zip((y, x), size, strict=True)]
    steps = np.arange(-_FINER, _FINER + 1) / _FINER
    ys, xs = (at + steps for at in start)
    fine = (
        np.real(
            np.exp(2j * np.pi * np.outer(ys, scipy.fft.fftfreq(size[0])))
            @ (weighted * times_counted(size[1]))
            @ np.exp(2j * np.pi * np.outer(scipy.fft.rfftfreq(size[1]), xs))
        )
        / 2
    )
    best = np.unravel_index(int(fine.argmax()), fine.shape)
    most, none = float(fine[best]), max(float(likely[0, 0]), 0.0)
    # Of two specimens that have nothing to do with each other, the likeliest shift explains little of what it should.
    if expected <= 0 or most < _EXPLAINED * expected or most**2 - none**2 < 2 * _SURE * expected:
        return None
    return float(ys[best[0]]), float(xs[best[1]])
