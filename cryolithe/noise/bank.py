"""Tiles of measured noise, and images of noise made of them.

A tile is periodic: a patch is larger than its tile by a margin, in which its two ends are blended with weights whose
squares add up to 1, so that neither the variance nor the spectrum of the noise changes there. An image no larger
than the tile is a part of it: shifted, turned, mirrored, and with either sign at random, none of which changes the
spectrum. A larger one is laid out of such tiles, blended alike.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.noise.rings import FloatArray, on_rings

Image = NDArray[np.float32]

TILE_PX = 256
VARIANTS = 4  # as it is, mirrored along y, along x, along both (half a turn)
_SHARE = 8  # a margin is this part of a tile


def margin_px(tile_px: int) -> int:
    """Width of the blend of a tile."""
    return max(4, tile_px // _SHARE)


def largest_tile_px(shape: tuple[int, int]) -> int:
    """Edge of the tiles that an image has room for, even."""
    tile = min(TILE_PX, 2 * (min(shape) * _SHARE // (2 * (_SHARE + 1))))
    while tile + margin_px(tile) > min(shape):
        tile -= 2
    return tile


@functools.lru_cache(maxsize=8)
def _rise(width: int) -> FloatArray:
    """Weights from 0 to 1 whose squares add up to 1 with those of the reverse."""
    return np.sin(0.5 * math.pi * (np.arange(width) + 0.5) / width)


def seamless(patch: NDArray[np.floating], tile_px: int) -> Image:
    """A periodic tile of a patch of ``tile_px + margin_px(tile_px)`` pixels along both axes."""
    margin = margin_px(tile_px)
    rise = _rise(margin)
    values = np.asarray(patch, dtype=np.float64)
    for axis in (0, 1):
        values = np.moveaxis(values, axis, 0)
        shape = (margin,) + (1,) * (values.ndim - 1)
        begin = rise.reshape(shape) * values[:margin] + rise[::-1].reshape(shape) * values[tile_px:]
        values = np.moveaxis(np.concatenate([begin, values[margin:tile_px]]), 0, axis)
    return values.astype(np.float32)


def shaped(tile: Image, factor: FloatArray, frequency_per_px: FloatArray) -> Image:
    """A tile whose amplitudes are multiplied by a factor by rings of frequency; it stays periodic."""
    shape = (tile.shape[0], tile.shape[1])
    gain = on_rings(factor, frequency_per_px, shape)
    return scipy.fft.irfft2(scipy.fft.rfft2(tile.astype(np.float64)) * gain, s=shape).astype(np.float32)


def turned(tile: Image, variant: int, rng: np.random.Generator) -> Image:
    """A tile in one of its variants, moved around and with a sign, both at random."""
    if variant & 1:
        tile = tile[::-1]
    if variant & 2:
        tile = tile[:, ::-1]
    shift = tuple(int(rng.integers(n)) for n in tile.shape)
    sign = np.float32(1 - 2 * int(rng.integers(2)))
    return sign * np.roll(tile, shift, axis=(0, 1))


def laid_out(tiles: tuple[Image, ...], shape: tuple[int, int], rng: np.random.Generator, variants: int = 0) -> Image:
    """An image of noise of any shape.

    Args:
        tiles: periodic, of one edge and one kind of noise.
        shape: of the image, ``(y, x)``.
        rng: of tile, shift, turn and sign.
        variants: 1 for the unturned and half-turned tiles alone, 2 for the mirrored ones alone: images of the two
            kinds have no common piece; 0 for all.
    """
    allowed = {0: (0, 1, 2, 3), 1: (0, 3), 2: (1, 2)}[variants]

    def draw() -> Image:
        tile = tiles[int(rng.integers(len(tiles)))]
        return turned(tile, allowed[int(rng.integers(len(allowed)))], rng)

    edge = tiles[0].shape[0]
    if max(shape) <= edge:
        return np.ascontiguousarray(draw()[: shape[0], : shape[1]])
    margin = margin_px(edge)
    counts = [1 if length <= edge else math.ceil((length - margin) / (edge - margin)) for length in shape]
    sizes = [count * (edge - margin) + margin for count in counts]
    total = np.zeros(sizes, dtype=np.float32)
    for row in range(counts[0]):
        for column in range(counts[1]):
            weight = _fade(edge, margin, row, counts[0])[:, None] * _fade(edge, margin, column, counts[1])
            y, x = row * (edge - margin), column * (edge - margin)
            total[y : y + edge, x : x + edge] += draw() * weight
    return np.ascontiguousarray(total[: shape[0], : shape[1]])


def _fade(edge: int, margin: int, number: int, count: int) -> Image:
    """Weights of a tile along one axis: blended where it has a neighbour."""
    weight = np.ones(edge, dtype=np.float32)
    if number > 0:
        weight[:margin] = _rise(margin)
    if number < count - 1:
        weight[-margin:] = _rise(margin)[::-1]
    return weight


def synthesised(
    power: FloatArray, frequency_per_px: FloatArray, shape: tuple[int, int], rng: np.random.Generator
) -> Image:
    """Gaussian noise of a power spectrum, for where no tile is known, shape ``shape``."""
    padded = tuple(scipy.fft.next_fast_len(n + 16, real=True) for n in shape)
    gain = np.sqrt(on_rings(power, frequency_per_px, (padded[0], padded[1])))
    white = rng.standard_normal(padded)
    return scipy.fft.irfft2(scipy.fft.rfft2(white) * gain, s=padded)[: shape[0], : shape[1]].astype(np.float32)
