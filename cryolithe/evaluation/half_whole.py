"""Whether a stack is that of all frames of which two others are the halves: they share noise, frame by frame.

Each frame of a half is in the whole too. So their images correlate in every ring of frequency, by √½ where there is
nothing but noise, whatever was done to the whole ring by ring (a weight by dose, a filter, another scale), and with
either sign where a contrast transfer function was corrected. That of other images correlates in none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.artefacts.borders import EVEN_PX, even_share, without_border
from cryolithe.evaluation.half_images import MIRRORS, apart_told, block_means
from cryolithe.evaluation.half_shifts import (
    Apart,
    Coarse,
    coarse_of,
    moved_back,
    ring_means,
    ring_of,
    shifts_of_spectra,
    spectrum_of,
    window_of,
)
from cryolithe.evaluation.half_singles import named

_Coefficients = NDArray[np.complex128]
_Numbers = NDArray[np.float64]

_LOWEST_RING, _BANDS = 3, 4  # below is what a window makes of gradients; ranges of rings in which one is enough
# Correlation in the best band: less is chance, or what any two images have in common; and less than halves should have.
CHANCE, LITTLE = 0.2, 0.4
_ALIKE = 0.5  # as a part of what most images have, below which one is told
_GAINED = 0.05  # of correlation, mean over rings, by a shift that is told
_FAR = 10.0  # median deviations, beyond which a mean is an X-ray, a hot pixel or a bead that one stack lost
# What is less is rounding: of the largest value of an image, and of the strongest ring's mean square.
_ROUNDING = 1e-6
_SURE = 6.0  # standard deviations, of which a window makes more than of independent coefficients
_SMALL_PX = 128  # images whose rings are so wide that a transfer function turns its sign within one
_EVEN = 0.01  # of an image in even blocks, by which it may have a border
_MEND = "give the stack of all its frames"


@dataclass(frozen=True)
class WholeDoubts:
    """What speaks against a stack being that of all frames, as ends of sentences on it and a half; empty for nothing.

    Attributes:
        other: it shows something else, or the same otherwise; this is certain.
        doubtful: a part of it may, or all of it where the images are too small to be sure.
    """

    other: str = ""
    doubtful: str = ""


@dataclass(frozen=True)
class AllFrames:
    """A stack of all frames, looked at once for both halves; see `all_frames`.

    Attributes:
        coarse: means of blocks of pixels are compared.
        rings: of the coefficients, see `_rings`.
        whitened: coefficients of the images that are compared, by their numbers from 0.
        spectra: of the same images as they are, which tell where these lie (`spectrum_of`).
    """

    coarse: Coarse
    rings: NDArray[np.intp]
    whitened: dict[int, _Coefficients]
    spectra: dict[int, _Coefficients]


def all_frames(whole: NDArray[Any], left_out: Collection[int] = ()) -> AllFrames:
    """Look at a stack ``(tilt, y, x)`` that should be that of all frames.

    Args:
        whole: the stack.
        left_out: numbers, from 1, of images that nobody will use.
    """
    coarse = coarse_of(whole.shape)
    rings, whitened, spectra = _rings(coarse.size), dict[int, _Coefficients](), dict[int, _Coefficients]()
    enough = min(coarse.size) // 2 >= _LOWEST_RING + _BANDS
    for place in (place for place in range(len(whole)) if enough and place + 1 not in left_out):
        image = whole[place]
        if (means := _coarse(image, coarse.factor)).any():  # blank images tell nothing here
            whitened[place], spectra[place] = _whitened(means, rings), spectrum_of(image, coarse)
    return AllFrames(coarse, rings, whitened, spectra)


def doubts_of_whole(half: NDArray[Any], whole: AllFrames) -> WholeDoubts:
    """Compare the images of a half with those of all frames.

    Args:
        half: stack ``(tilt, y, x)`` of even or of odd frames.
        whole: that of all frames, of the same shape.
    """
    images = {place: _coarse(half[place], whole.coarse.factor) for place in whole.whitened}
    images = {place: image for place, image in images.items() if image.any()}
    if not images:
        return WholeDoubts()
    first = np.stack([_whitened(image, whole.rings) for image in images.values()])
    second = np.stack([whole.whitened[place] for place in images])
    rings = _told(first, second, whole.rings)
    if int(rings.max()) < _BANDS:
        return WholeDoubts()
    products, places = first * second.conj(), list(images)
    by_ring = _by_ring(products.real, rings)
    bands = [(float(band.mean()), float(np.abs(band).mean())) for band in _banded(by_ring.mean(axis=0))]
    most = max(size for _, size in bands)
    told = f"their images correlate by {max((mean for mean, _ in bands), key=abs):.2f}, expected is about 0.7 or more"
    # The transfer function turns no contrast of low frequencies.
    clear = [mean for mean, _ in bands if abs(mean) >= LITTLE]
    overall = float(np.mean([mean for mean, _ in bands]))
    small = min(half.shape[1:]) < _SMALL_PX
    if clear and clear[0] < 0 and overall < 0:
        opposite = f"are of opposite contrast: {told}; invert one of them"
        return WholeDoubts(doubtful=opposite) if small and overall > -LITTLE else WholeDoubts(opposite)
    order, certain = _order(first, second, rings, places)
    if order:
        return WholeDoubts(order) if certain else WholeDoubts(doubtful=order)
    if most >= LITTLE:
        return WholeDoubts(doubtful=_singles(by_ring, places) or _apart(half, whole, (first, second), rings, places))
    if apart := _apart(half, whole, (first, second), rings, places):
        return WholeDoubts(doubtful=apart)
    either = _of_either_sign(products[:, rings > 0])
    if max(most, either) >= CHANCE:
        return WholeDoubts(doubtful="" if either >= LITTLE else f"have little in common: {told}; {_MEND}")
    turned = _turned(list(images.values()), second, rings)
    different = f"do not show the same{turned}: {told}; {_MEND}"
    return WholeDoubts(doubtful=different) if small and not turned else WholeDoubts(different)


def _coarse(image: NDArray[Any], block: int) -> _Numbers:
    """Means of blocks of pixels, without what may be in one of the stacks alone, or in any: X-rays, filled borders."""
    if even_share(image, EVEN_PX) > _EVEN:
        image = without_border(np.nan_to_num(np.asarray(image, np.float32), posinf=0.0, neginf=0.0))
    means = block_means(image, block)
    rounding = _ROUNDING * float(np.abs(np.nan_to_num([image.min(), image.max()], posinf=0.0, neginf=0.0)).max())
    middle = float(np.median(means))
    away = np.abs(means - middle)
    most = float(np.median(away))
    if most <= rounding:  # half of the image has one value: of sparse counts, and of much that was filled in
        most = float(np.median(away[away > rounding])) if (away > rounding).any() else 0.0
    clipped: _Numbers = np.clip(means, middle - _FAR * most, middle + _FAR * most)
    clipped -= clipped.mean()
    return clipped if clipped.std() > rounding else np.zeros_like(clipped)


def _told(first: _Coefficients, second: _Coefficients, rings: NDArray[np.intp]) -> NDArray[np.intp]:
    """Rings in which most images of both stacks have power, numbered from 1; 0 for the others.

    What a filter took away tells nothing.
    """
    both = np.stack([(first[n] != 0) & (second[n] != 0) for n in range(len(first))]).mean(axis=0)
    kept = ring_means(both, rings) > 0.5
    kept[0] = False
    told: NDArray[np.intp] = np.where(kept, np.cumsum(kept), 0)[rings]
    return told


def _of_either_sign(products: _Coefficients) -> float:
    """Correlation of coefficients that a transfer function turned one by one, of either sign; 0 where it may be chance.

    Of coefficients a and b that correlate by ±r, ``(a b*)²`` is ``2 r²`` on average, and ``|a b|²`` is ``1 + r²``.
    """
    share = float((products**2).real.mean() / max(float((np.abs(products) ** 2).mean()), 1e-30))
    return float(np.sqrt(share / (2 - share))) if share > _SURE / np.sqrt(products.size) else 0.0


def _singles(by_ring: _Numbers, places: list[int]) -> str:
    """Images that are less alike than the others."""
    signs = np.sign(by_ring.mean(axis=0))
    best = np.max([band.mean(axis=1) for band in _banded(by_ring * signs)], axis=0)
    usual = float(np.median(best))
    unlike = [places[n] + 1 for n in np.flatnonzero(best < _ALIKE * min(usual, 2 * LITTLE))]
    if not unlike:
        return ""
    return (
        f"do not show the same in {named(unlike)}: there they correlate by {float(best.min()):.2f}, elsewhere by "
        f"{usual:.2f}; {_MEND}, or leave such images out"
    )


def _order(first: _Coefficients, second: _Coefficients, rings: NDArray[np.intp], places: list[int]) -> tuple[str, bool]:
    """Images that are like others of the other stack, not like their own; and whether most are."""
    alike = np.real(first.reshape(len(first), -1) @ second.reshape(len(second), -1).conj().T) / (rings > 0).sum()
    best = alike.argmax(axis=1)
    moved = np.flatnonzero((alike.max(axis=1) > LITTLE) & (alike.max(axis=1) > np.diagonal(alike) + CHANCE))
    if not len(moved):
        return "", False
    one = int(moved[0])
    return (
        f"have their images in different orders: image {places[one] + 1} of the first is like image "
        f"{places[int(best[one])] + 1} of the second, not like its own (so in {len(moved)} of {len(places)}); give "
        "both in one order",
        2 * len(moved) > len(places),
    )


def _apart(
    half: NDArray[Any],
    whole: AllFrames,
    whitened: tuple[_Coefficients, _Coefficients],
    rings: NDArray[np.intp],
    places: list[int],
) -> str:
    """Whether all images, or some, lie in another place, where they are more alike.

    Of stacks that share noise and are filtered otherwise, the likeliest shift alone says less than of halves.
    """
    coarse = whole.coarse
    found = shifts_of_spectra(
        ((spectrum_of(half[place], coarse), whole.spectra[place]) for place in places), coarse, places
    )

    def moved(shift: tuple[float, float], part: list[int]) -> _Numbers:
        one, other = (images[part] for images in whitened)
        back = moved_back(coarse.size, (shift[0] / coarse.factor, shift[1] / coarse.factor))
        return _by_ring((one * other.conj() * back).real, rings)

    everything, shift, single = list(range(len(places))), found.all, dict[int, tuple[float, float]]()
    usual = moved((0.0, 0.0), everything)
    if shift is not None and _size(moved(shift, everything)) - _size(usual) <= _GAINED:
        shift = None
    signs = np.sign((usual if shift is None else moved(shift, everything)).mean(axis=0))
    for place, by in found.single.items():
        part = places.index(place)
        if float((signs * (moved(by, [part])[0] - usual[part])).mean()) > _GAINED:
            single[place] = by
    return apart_told(Apart(shift, single))


def _size(by_ring: _Numbers) -> float:
    """How much all images together correlate, of whichever sign."""
    return float(np.abs(by_ring.mean(axis=0)).mean())


def _turned(half: list[_Numbers], whole: _Coefficients, rings: NDArray[np.intp]) -> str:
    """How the images of the half have to be turned to be like those of the whole; empty where nothing helps."""
    for name, (y, x) in MIRRORS.items():
        turned = np.stack([_whitened(image[::y, ::x], rings) for image in half])
        if max(float(band.mean()) for band in _banded(_by_ring((turned * whole.conj()).real, rings))) > LITTLE:
            return f" (one {name} would)"
    return ""


def _banded(by_ring: _Numbers) -> list[_Numbers]:
    """Rings in ranges, along the last axis."""
    return np.array_split(by_ring, _BANDS, axis=-1)


def _rings(shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Ring of each coefficient of a half transform; 0 for those that are not asked."""
    ring = ring_of(shape)
    ring[(ring < _LOWEST_RING) | (ring > min(shape) // 2)] = 0
    return ring


def _whitened(image: _Numbers, rings: NDArray[np.intp]) -> _Coefficients:
    """Coefficients of an image of which each ring has a mean square of 1, or next to no power and here none."""
    found = np.where(rings > 0, scipy.fft.rfft2(image * window_of(image.shape)), 0)
    power = ring_means(np.abs(found) ** 2, rings)
    some = power > _ROUNDING * power.max()
    scale = np.where(some, 1 / np.sqrt(np.where(some, power, 1)), 0)
    whitened: _Coefficients = found * scale[rings]
    return whitened


def _by_ring(products: _Numbers, rings: NDArray[np.intp]) -> _Numbers:
    """Means over the rings that are asked, which are numbered from 1, shape ``(image, ring)``."""
    return np.stack([ring_means(image, rings)[1:] for image in products])
