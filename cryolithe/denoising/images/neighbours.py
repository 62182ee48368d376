"""Images at neighbouring tilts: what a single stack tells of its specimen apart from its noise.

Noise is independent between images, the specimen all but the same at neighbouring tilts once these are registered.
Angles need not be known: an image's two neighbours are those most alike to it, and less alike to each other. Images
that are not aligned are moved; of each triple the three moves must close, which those that noise makes do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Image = NDArray[np.float32]
Move = tuple[int, int]
# Pixels across coarse images, the band that is compared as sigmas of them, and how far neighbours may be moved.
COARSE_PX, FINE, COARSE, REACH = 64, 1.0, 8.0, 0.25
# Deviations of a correlation by chance that neighbours must reach: noise does not even where it fits best of all moves.
LEAST_DEVIATIONS = 3.5
# Pixels a degree of freedom: those that the Gaussian of the band joins, over the share that fading the borders leaves.
PIXELS_A_DEGREE = 4 * np.pi * FINE**2 / 0.4
OPEN_PX = 1  # by which the moves of a triple may fail to close, in coarse pixels
# Of the images' middle, in which they are registered and compared, the most pixels; and the fewest.
MOST_PX, FEWEST_PX = 1024, 48


@dataclass(frozen=True)
class Triple:
    """An image between two that are most alike to it.

    Attributes:
        numbers: of the image in the middle and of those beside it, from 0.
        moves_px: ``(y, x)`` by which each of the three is moved against the first.
    """

    numbers: tuple[int, int, int]
    moves_px: tuple[Move, Move, Move]

    def boxes(self, shape: tuple[int, int]) -> tuple[tuple[slice, slice], ...]:
        """The same part of the specimen in each of the three, about the middle of images of a shape."""
        spans = []
        for axis, size in enumerate(shape):
            moves = [move[axis] for move in self.moves_px]
            start, stop = max(0, -min(moves)), size - max(0, *moves)
            cut = max(0, (stop - start - MOST_PX) // 2)
            spans.append([slice(start + cut + move, stop - cut + move) for move in moves])
        return tuple(zip(*spans, strict=True))


def find_triples(count: int, image: Callable[[int], Image], most: int) -> list[Triple]:
    """Images of a stack with their neighbours, spread over those that have any.

    Args:
        count: images of the stack.
        image: one of them, shape ``(y, x)``; all of the same.
        most: triples to be found.
    """
    if count < 3:
        return []
    first = image(0)
    shape = (first.shape[0], first.shape[1])
    if min(shape) < FEWEST_PX:
        return []
    factor = max(1, min(shape) // COARSE_PX)
    coarse = [_band(_pooled(image(number), factor)) for number in range(count)]
    spectra = [scipy.fft.rfft2(band) for band in coarse]
    near = [found for number in range(count) if (found := _neighbours(coarse, spectra, number))]
    chosen = np.unique(np.linspace(0, len(near) - 1, min(most, len(near))).round().astype(int)).tolist()
    triples = []
    for number, sides, moves in (near[place] for place in chosen):
        middle = image(number)
        fine = [_registered(middle, image(side), at, factor) for side, at in zip(sides, moves, strict=True)]
        triple = Triple((number, *sides), ((0, 0), fine[0], fine[1]))
        if all(box.stop - box.start >= FEWEST_PX for box in triple.boxes(shape)[0]):
            triples.append(triple)
    return triples


def _neighbours(
    coarse: list[NDArray[np.float64]], spectra: list[NDArray[np.complex128]], number: int
) -> tuple[int, tuple[int, int], tuple[Move, Move]] | None:
    """An image, the two that it lies between, and their moves; None where it does not clearly lie between any."""
    shape = coarse[0].shape
    alike = [_peak(scipy.fft.irfft2(other * np.conj(spectra[number]), shape)) for other in spectra]
    for which, other in enumerate(coarse):
        if np.array_equal(other, coarse[number]):  # itself, or the same image again, which has the same noise
            alike[which] = (-1.0, (0, 0))
    first, second = np.argsort([height for height, _ in alike])[::-1][:2].tolist()
    between, move = _peak(scipy.fft.irfft2(spectra[second] * np.conj(spectra[first]), shape))
    moves = alike[first][1], alike[second][1]
    open_px = max(abs(moves[0][axis] + move[axis] - moves[1][axis]) for axis in (0, 1))
    chance = LEAST_DEVIATIONS * float(np.sqrt(PIXELS_A_DEGREE / coarse[0].size))
    if alike[second][0] < max(chance, between) or open_px > OPEN_PX:
        return None
    return number, (first, second), moves


def _pooled(image: Image, factor: int) -> Image:
    """Means over squares of pixels."""
    rows, columns = (size // factor for size in image.shape)
    whole = image[: rows * factor, : columns * factor]
    return np.asarray(whole.reshape(rows, factor, columns, factor).mean(axis=(1, 3)), np.float32)


def _band(image: Image) -> NDArray[np.float64]:
    """A band of an image, faded at its borders, of mean 0 and length 1."""
    exact = image.astype(np.float64)
    band = gaussian_filter(exact, FINE) - gaussian_filter(exact, COARSE)
    band *= np.hanning(image.shape[0] + 2)[1:-1, None] ** 0.5 * np.hanning(image.shape[1] + 2)[1:-1] ** 0.5
    band -= band.mean()
    return np.asarray(band / max(float(np.linalg.norm(band)), 1e-30))


def _peak(surface: NDArray[np.float64]) -> tuple[float, Move]:
    """The largest value within reach, and the move at which it is; move 0 comes first."""
    reach = [int(REACH * size) for size in surface.shape]
    near = np.roll(surface, reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    return float(near[y, x]), (int(y) - reach[0], int(x) - reach[1])


def _registered(one: Image, other: Image, coarse: Move, factor: int) -> Move:
    """The move of an image against another in pixels, near that of the coarse images."""
    if factor == 1:
        return coarse
    rough = Triple((0, 0, 0), ((0, 0), (coarse[0] * factor, coarse[1] * factor), (0, 0)))
    first, second, _ = rough.boxes((one.shape[0], one.shape[1]))
    spectra = [
        scipy.fft.rfft2(_band(np.ascontiguousarray(image[box]))) for image, box in ((one, first), (other, second))
    ]
    size = (first[0].stop - first[0].start, first[1].stop - first[1].start)
    surface = scipy.fft.irfft2(spectra[1] * np.conj(spectra[0]), size)
    near = np.roll(surface, (factor, factor), (0, 1))[: 2 * factor + 1, : 2 * factor + 1]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    return coarse[0] * factor + int(y) - factor, coarse[1] * factor + int(x) - factor
