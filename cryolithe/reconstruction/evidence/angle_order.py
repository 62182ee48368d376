"""Whether images are in the order of their angles: the nearer two tilts are, the more alike their images must be.

How alike all pairs of coarse images are is ranked against how far apart their angles lie (Spearman). The same angles in
the orders in which series are taken and stored are tried beside the given one: sorted, from the middle to both ends,
dose-symmetric (Hagen et al. 2017) in groups of one to four. An order that suits the images clearly better is told if
its neighbours are the more alike, too, or if they alone are by far.

A thin specimen is alike at θ and -θ, since either only stretches its image by cos θ: in the right dose-symmetric order
it looks sorted, with neighbours θ, -θ as alike as θ, θ + 3°. But -θ, θ + 3° are less so, by what the thickness does.
Every other pair of neighbours is therefore asked on its own.

Where no common order suits, images may still be more like one at a far angle than like those at the angles next to
their own: by at most 0.10 in the right order, by 0.4 and more for real series whose images are in another one.

Images whose neighbours are alike but for the sign are of opposite contrast.

A stack in reversed order, or angles of the wrong sign, cannot be told by this, nor a specimen that is all but the same
at all tilts.

Over 20 simulated series at -10 and 0 dB, angles in the right order, whatever it is, are at most 0.03 behind another;
a sorted stack beside dose-symmetric angles, and shuffled ones, by 0.3 or more (benchmarks/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import rankdata

from cryolithe.reconstruction.evidence.asymmetry import averaged
from cryolithe.reconstruction.images.prepared_stack import PreparedStack

# Pixels across a coarse image, and the band that is compared, as sigmas of these pixels.
WIDEST_PX, FINE_PX, COARSE_PX = 32, 1.0, 6.0
FEWEST_TILTS, FEWEST_PX = 7, 16
# What the better order must reach, and by how much it must be ahead; both also in deviations of what chance gives.
LEAST_FALL, MARGIN = 0.4, 0.15
SURE, SURE_AHEAD = 4.0, 3.0
# By which each half of its neighbours must be more alike than those of the given order. Thin specimens in the right
# dose-symmetric order have 0.002 at most there, a sorted stack beside such angles 0.006 and more at 0 dB.
NEIGHBOURS_MARGIN = 0.004
# ... or, where all images are much alike, what they lack of likeness must be at most this share of that of the given.
UNLIKE_SHARE = 0.75
# Neighbours that are so much more alike, and at least so alike, tell alone.
NEIGHBOURS_AHEAD, LEAST_ALIKE = 0.1, 0.3
# By how much another image must be more alike than the neighbours, also in deviations of a correlation by chance: D of
# noise is 1.5. A deviation is that of so many pixels a degree of freedom, which the band leaves.
LEAST_CLOSER, LEAST_DEVIATIONS, PIXELS_A_DEGREE = 0.04, 3.0, 5.3
# Images that are not aligned are moved by up to this part of their size before they are compared.
# Those in the right order then lack 0.01 of the likeness of the closest (0.05 where they were moved by a tenth of their
# size), those in another one 0.04 to 0.4.
MOST_MOVED, MOVED_CLOSER = 6, 0.03
_GROUPS = (1, 2, 3, 4)
# Neighbours that correlate by less than minus this are of opposite contrast; and by more than it most must; moved,
# they correlate by less than this part of it.
OPPOSITE, MOST_MOVED_ALIKE = 0.4, 0.8
_MOST_LISTED = 8


class _Suits(NamedTuple):
    """How an order suits the images: see `fall_with_angle` and `alike_neighbours`."""

    fall: float
    neighbours: tuple[float, float]

    @classmethod
    def of(cls, alike: NDArray[np.float64], angles_deg: NDArray[np.float64]) -> _Suits:
        return cls(fall_with_angle(alike, angles_deg), alike_neighbours(alike, angles_deg))


def order_warnings(stack: PreparedStack, numbers: Sequence[int]) -> tuple[str, ...]:
    """A warning where images are of opposite contrast, or another order of the angles clearly suits them better.

    Args:
        stack: the images.
        numbers: of each image in its file, from 1, for messages.
    """
    angles = np.asarray(stack.geometry.angles_deg)
    height, width = stack.geometry.image_shape
    factor = max(1, min(height, width) // WIDEST_PX)
    rows = min(height // factor, 2 * WIDEST_PX)
    if len(angles) < FEWEST_TILTS or min(rows, width // factor) < FEWEST_PX:
        return ()
    images = averaged(stack, (height // factor - rows) // 2, rows, factor).numpy()
    alike = likeness(images)
    turned = opposite_images(images, alike, angles)
    if turned:
        which = f"image{'s' if turned[1:] else ''} {_listed([numbers[place] for place in turned])}"
        return (
            f"{which} {'are' if turned[1:] else 'is'} of opposite contrast to those at neighbouring angles, which "
            "takes away what these add; invert the values, or leave them out (--exclude)",
        )
    told = _common_order(alike, angles)
    if not told:
        told = _no_neighbours(alike, angles, images[0].size)
        # Images that are not aligned have no neighbours, either, before they are moved.
        if told and not _no_neighbours(moved_likeness(images), angles, images[0].size, MOVED_CLOSER):
            told = ""
    advice = "give the angles in the order of the stack, which may be that of acquisition"
    return (f"the images are in another order than the angles: {told}; {advice}",) if told else ()


def opposite_images(
    images: NDArray[np.float32], alike: NDArray[np.float64], angles_deg: NDArray[np.float64]
) -> tuple[int, ...]:
    """Images, from 0, of the contrast that fewer have, where neighbours are alike but for their sign; else none.

    A grating that is not aligned may be so, too, but then its images are as alike once they are moved.

    Args:
        images: coarse, shape ``(tilts, y, x)``.
        alike: see `likeness`.
        angles_deg: of the images.
    """
    order = np.argsort(angles_deg, kind="stable")
    next_ones = alike[order[:-1], order[1:]]
    changed = next_ones <= -OPPOSITE
    if not changed.any() or np.median(np.abs(next_ones)) < OPPOSITE:
        return ()
    moved = moved_likeness(images)[order[:-1], order[1:]]
    if (moved[changed] > MOST_MOVED_ALIKE * np.abs(next_ones[changed])).any():
        return ()
    signs = np.cumprod(np.r_[1, np.where(changed, -1, 1)])
    fewer = -1 if signs.sum() > 0 else 1
    return tuple(sorted(int(order[place]) for place in np.flatnonzero(signs == fewer)))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_MOST_LISTED])) + (", ..." if len(numbers) > _MOST_LISTED else "")


def _common_order(alike: NDArray[np.float64], angles_deg: NDArray[np.float64]) -> str:
    """Of which common order the images look, if it suits them clearly better than the given one."""
    given = _Suits.of(alike, angles_deg)
    found = [(name, _Suits.of(alike, order)) for name, order in common_orders(angles_deg)]
    best, suits = max(found, key=lambda one: one[1].fall)
    chance = 1 / np.sqrt(len(angles_deg) * (len(angles_deg) - 1) / 2)
    if not _better(given, suits, float(chance)):
        return ""
    return (
        f"they are as alike as those of a stack {best} (rank correlation of likeness and nearness in angle "
        f"{suits.fall:.2f}, with the given angles {given.fall:.2f})"
    )


def _no_neighbours(
    alike: NDArray[np.float64], angles_deg: NDArray[np.float64], pixels: int, least: float = LEAST_CLOSER
) -> str:
    """Whether each image is clearly more like one at a far angle than like those at the angles next to its own."""
    order = np.argsort(angles_deg, kind="stable")
    ordered = alike[np.ix_(order, order)]
    np.fill_diagonal(ordered, -1.0)
    next_ones = np.diagonal(ordered, 1)
    neighbours = float(np.maximum(np.r_[-1.0, next_ones], np.r_[next_ones, -1.0]).mean())
    closest = float(ordered.max(axis=1).mean())
    chance = LEAST_DEVIATIONS * float(np.sqrt(PIXELS_A_DEGREE / pixels))
    if closest < LEAST_ALIKE or closest - neighbours < max(least, chance * (1 - closest**2)):
        return ""
    return (
        f"each is less like those at neighbouring angles (mean correlation {neighbours:.2f}) than like one at another "
        f"angle ({closest:.2f})"
    )


def _better(given: _Suits, other: _Suits, chance: float) -> bool:
    """Whether another order suits the images clearly better; chance: deviation of what chance gives the fall."""
    ahead, neighbours = other.fall - given.fall, float(np.mean(given.neighbours))
    nearer = min(other.neighbours) - neighbours
    if ahead < 0 or other.fall < max(LEAST_FALL, SURE * chance):
        return False
    alike = nearer >= min(NEIGHBOURS_MARGIN, (1 - UNLIKE_SHARE) * (1 - neighbours))
    falls = ahead >= max(MARGIN, SURE_AHEAD * chance) and alike
    return falls or (nearer >= NEIGHBOURS_AHEAD and min(other.neighbours) >= LEAST_ALIKE)


def likeness(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Correlation of each image with each, within a band; images ``(tilts, y, x)``."""
    bands = np.stack([_band(image).ravel() for image in images])
    return np.asarray(bands @ bands.T)


def _band(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """What is compared of an image: a band of it, of mean 0 and length 1."""
    exact = image.astype(np.float64)
    band = gaussian_filter(exact - gaussian_filter(exact, COARSE_PX), FINE_PX)
    band -= band.mean()
    return np.asarray(band / max(float(np.linalg.norm(band)), 1e-30))


def moved_likeness(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """As `likeness`, of images that are each moved to where they are most alike, round their edges."""
    spectra = np.fft.rfft2(np.stack([_band(image) for image in images]))
    made = np.eye(len(images))
    near = [np.minimum(np.arange(size), size - np.arange(size)) <= size // MOST_MOVED for size in images.shape[1:]]
    for one, spectrum in enumerate(spectra[:-1]):
        rest = np.fft.irfft2(np.conj(spectrum) * spectra[one + 1 :], images.shape[1:])
        made[one, one + 1 :] = made[one + 1 :, one] = rest[:, near[0]][:, :, near[1]].max(axis=(1, 2))
    return made


def fall_with_angle(alike: NDArray[np.float64], angles_deg: NDArray[np.float64]) -> float:
    """Rank correlation, over all pairs of images, of how alike they are with how near their angles are; -1 to 1."""
    one, other = np.triu_indices(len(angles_deg), 1)
    values, near = alike[one, other], -np.abs(angles_deg[one] - angles_deg[other])
    if np.ptp(values) == 0 or np.ptp(near) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(values), rankdata(near))[0, 1])


def alike_neighbours(alike: NDArray[np.float64], angles_deg: NDArray[np.float64]) -> tuple[float, float]:
    """Mean correlation of images that follow each other in the order of angles: first, third, ..., and the others."""
    order = np.argsort(angles_deg, kind="stable")
    made = alike[order[:-1], order[1:]]
    return float(made[::2].mean()), float(made[1::2].mean())


def common_orders(angles_deg: NDArray[np.float64]) -> list[tuple[str, NDArray[np.float64]]]:
    """The angles in the orders of common schemes of acquisition, each with what a stack of it is said to be.

    Which sign comes first is not said: of the same series mirrored, all images are as alike.
    """
    sorted_deg = np.sort(angles_deg)
    middle = int(np.argmin(np.abs(sorted_deg)))
    start, up, down = sorted_deg[middle : middle + 1], sorted_deg[middle + 1 :], sorted_deg[:middle][::-1]
    found = [("sorted by angle", sorted_deg)]
    for parts in ((up, down), (down, up)):
        found.append(("from the middle to one end, then to the other", np.concatenate([start, *parts])))
        for group in _GROUPS:
            # The first group may count the middle one.
            for begin in {group, max(1, group - 1)}:
                groups = f" of {group}" + (f", the first of {begin}" if begin != group else "")
                order = np.concatenate([start, _alternating(parts, begin, group)])
                found.append((f"in dose-symmetric order, in groups{groups}", order))
    return found


def _alternating(parts: tuple[NDArray[np.float64], NDArray[np.float64]], begin: int, group: int) -> NDArray[np.float64]:
    """Some of the first part, then groups of the other and of it in turn, until both are used up."""
    left = [list(parts[0]), list(parts[1])]
    made, turn, take = [], 0, begin
    while left[0] or left[1]:
        made += left[turn][:take]
        del left[turn][:take]
        turn, take = 1 - turn, group
    return np.array(made)
