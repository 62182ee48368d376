"""Fourier transforms of real volumes, made and read plane by plane: a half spectrum is the only large array.

Volumes are ``(z, y, x)``; frequencies are in cycles per pixel, 0.5 being Nyquist along every axis. Shells are
``1 / min(shape)`` wide: the finest width at which every shell holds coefficients along all axes.

Who has a device that transforms faster than the host lends it with `transforming`; nothing here knows of it.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

BLOCK_VALUES = 4_000_000  # complex numbers that are transformed along z at a time: 32 MB beside the spectrum


class Transforms(Protocol):
    """Fourier transforms of arrays of the host, in the precision of the arrays."""

    def rfft2(self, planes: Array) -> Array:
        """Of the last two axes of a real array."""
        ...

    def along_z(self, block: Array) -> Array:
        """Of the first axis of a complex array."""
        ...

    def rfftn(self, values: Array, shape: Sequence[int]) -> Array:
        """Of all axes of a real array, with zeros after its ends up to ``shape``."""
        ...

    def irfftn(self, spectrum: Array, shape: Sequence[int]) -> Array:
        """Back to a real array of a shape."""
        ...


class HostTransforms:
    """Those of scipy."""

    def rfft2(self, planes: Array) -> Array:
        """See `Transforms`."""
        return np.asarray(scipy.fft.rfft2(planes))

    def along_z(self, block: Array) -> Array:
        """See `Transforms`."""
        return np.asarray(scipy.fft.fft(block, axis=0))

    def rfftn(self, values: Array, shape: Sequence[int]) -> Array:
        """See `Transforms`."""
        return np.asarray(scipy.fft.rfftn(values, s=tuple(shape)))

    def irfftn(self, spectrum: Array, shape: Sequence[int]) -> Array:
        """See `Transforms`."""
        return np.asarray(scipy.fft.irfftn(spectrum, s=tuple(shape)))


_HOST = HostTransforms()
_LENT: contextvars.ContextVar[Transforms | None] = contextvars.ContextVar("transforms", default=None)


def transforms() -> Transforms:
    """Those in use."""
    return _LENT.get() or _HOST


@contextlib.contextmanager
def transforming(by: Transforms) -> Iterator[None]:
    """Use other transforms while the context lasts, in this thread."""
    token = _LENT.set(by)
    try:
        yield
    finally:
        _LENT.reset(token)


@dataclass(frozen=True)
class SpectrumPlane:
    """The coefficients of a half spectrum at one kz.

    Attributes:
        index: of the plane.
        kz: its frequency.
        ky: frequencies along y, shape ``(Y, 1)``.
        kx: frequencies along x, 0 to Nyquist, shape ``(X,)``.
        radius: |k|, shape ``(Y, X)``.
        shell: number of the shell, the last one collecting what lies beyond Nyquist, shape ``(Y, X)``.
        times: how often a coefficient counts in the full spectrum: 2, or 1 where its conjugate is in this half too;
            0 for the mean. Shape ``(Y, X)``.
    """

    index: int
    kz: float
    ky: FloatArray
    kx: FloatArray
    radius: FloatArray
    shell: NDArray[np.intp]
    times: FloatArray


def spectrum_planes(shape: tuple[int, ...]) -> Iterator[SpectrumPlane]:
    """Go through the half spectrum of a real volume ``(z, y, x)`` plane by plane: no array of the volume's size."""
    shortest = min(shape)
    beyond = shortest // 2 + 1
    ky, kx = scipy.fft.fftfreq(shape[1])[:, None], scipy.fft.rfftfreq(shape[2])
    twice = times_counted(shape[2])
    for index, kz in enumerate(scipy.fft.fftfreq(shape[0])):
        radius = np.sqrt(kz**2 + ky**2 + kx**2)
        shell = np.minimum(shell_of(radius, shortest), beyond)
        times = np.broadcast_to(twice, radius.shape).copy()
        if index == 0:
            times[0, 0] = 0.0
        yield SpectrumPlane(index, float(kz), ky, kx, radius, shell, times)


def half_spectrum(
    volume: Array,
    weights: Array | None = None,
    tapers: Sequence[Array] | None = None,
    scratch: Path | None = None,
) -> Array:
    """Fourier transform of a volume with mean 0 and unit power, shape ``(z, y, x // 2 + 1)``.

    Planes are standardised one by one, transformed, and then transformed along z in place: beside the result there is
    no copy of the volume, which may be a file that is mapped into memory.

    Args:
        volume: real, shape ``(z, y, x)``. float64 gives complex128, all other types complex64.
        weights: 0 or more, the same shape; the mean within them is removed before they are applied.
        tapers: factors along z, y and x, applied after the mean is removed.
        scratch: folder for a file without a name that holds the result in place of memory; it goes with the result.
    """
    depth, height, width = volume.shape
    kind = np.result_type(volume.dtype, np.float32)
    total, inside = 0.0, 0.0
    for z in range(depth):
        plane = volume[z].astype(np.float64)
        total += float((plane if weights is None else plane * weights[z]).sum())
        inside += float(plane.size if weights is None else weights[z].sum(dtype=np.float64))
    mean = total / inside
    across = None if tapers is None else np.asarray(tapers[1])[:, None] * np.asarray(tapers[2])

    def values(z: int) -> FloatArray:
        plane = volume[z].astype(np.float64) - mean
        if weights is not None:
            plane *= weights[z]
        if tapers is not None and across is not None:
            plane *= across * tapers[0][z]
        return plane

    # In float64, and before the transform: squares of large numbers would leave float32.
    power = sum(float(np.vdot(plane, plane)) for plane in map(values, range(depth))) / volume.size
    scale = 1 / math.sqrt(power) if power > 0 else 1.0
    out = _room((depth, height, width // 2 + 1), np.result_type(kind, np.complex64), scratch)
    for z in range(depth):
        out[z] = transforms().rfft2((values(z) * scale).astype(kind))
    rows = max(1, BLOCK_VALUES // (depth * out.shape[2]))
    for start in range(0, height, rows):
        block = slice(start, start + rows)
        out[:, block] = transforms().along_z(out[:, block])
    return out


def _room(shape: tuple[int, int, int], dtype: np.dtype[Any], scratch: Path | None) -> Array:
    """An array in memory, or in a file that no name leads to."""
    if scratch is None:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=scratch) as file:
        return np.memmap(file, dtype, mode="w+", shape=shape)


def times_counted(size: int) -> FloatArray:
    """How often the coefficients of a half spectrum stand in the full one, shape ``(size // 2 + 1,)``.

    A half spectrum leaves out the conjugates at -kx; those at kx of 0, and at Nyquist, are in it.

    Args:
        size: of the last axis of the real array.
    """
    kx = scipy.fft.rfftfreq(size)
    return np.where((kx > 0) & (kx < 0.5), 2.0, 1.0)


def shell_of(frequency_per_px: Array | float, size: int) -> NDArray[np.intp]:
    """Number of the shell (or ring) of frequencies, in their shape; half-way between two it is the outer one.

    Args:
        frequency_per_px: not negative.
        size: shells are ``1 / size`` wide and lie about multiples of that.
    """
    return np.floor(np.multiply(frequency_per_px, size) + 0.5).astype(np.intp)


def fade(size: int, width: int) -> NDArray[np.float32]:
    """Half a Hann window at both ends of an axis, at most ``width`` and a quarter of the axis long."""
    width = min(width, size // 4)
    rise = np.sin(np.pi / 2 * (np.arange(width) + 0.5) / max(1, width)) ** 2
    return np.concatenate([rise, np.ones(size - 2 * width), rise[::-1]]).astype(np.float32)


def middle(size: int, longest: int) -> slice:
    """The middle of an axis, no longer than ``longest``."""
    kept = min(size, longest)
    return slice((size - kept) // 2, (size - kept) // 2 + kept)


def central(shape: tuple[int, int, int], longest: int) -> tuple[slice, slice, slice]:
    """The middle of a volume, no longer than ``longest`` along any axis."""
    z, y, x = (middle(size, longest) for size in shape)
    return z, y, x
