"""Operations on single tilt images: Fourier cropping, rotation of the tilt axis, resampling, robust spread."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.errors import SettingsError
from cryolithe.geometry import centre_px

_PIECE = 1 << 15  # values
# A displacement is asked for at this many places along an axis at most, this many pixels apart at least.
_MOST_NODES, _NODE_STEP_PX = 129, 6.0
# Displaced pixels whose coordinates are held at a time.
_PIXELS = 1 << 18
# Displacements ``(2, *S)`` of pixels at ``(x, y)`` about an image's middle, both of shape S.
Displacement = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
FEWEST_PX = 8  # an image narrower than this after binning is a mistake


def binned_size(size_px: int, factor: int) -> int:
    """Pixels along an axis after binning: the whole bins that fit.

    Raises:
        SettingsError: if less than ``FEWEST_PX`` would be left.
    """
    left = size_px // factor
    if factor > 1 and left < FEWEST_PX:
        raise SettingsError(f"binning {size_px} pixels by {factor} leaves {left}; use a smaller --bin")
    return left


def fourier_crop(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Bin an image by cropping its Fourier transform; the middle of the field stays in the middle.

    Cropping alone would put the new pixel 0 onto the old pixel 0, half a bin off the middle of the block that it
    stands for; a phase ramp moves the sampling points so that ``centre_px`` before and after is the same point. The
    tilt axis therefore stays at the centre. Means are kept.

    Args:
        image: shape ``(y, x)``; trailing pixels that fill no whole bin are cut off, equally at both ends.
        factor: binning factor, at least 1.

    Returns:
        shape ``(y // factor, x // factor)``, float32.
    """
    if factor == 1:
        return image
    for axis in (0, 1):
        image = _crop_axis(image, axis, factor)
    return image


def _crop_axis(image: NDArray[np.float32], axis: int, factor: int) -> NDArray[np.float32]:
    old = image.shape[axis]
    new = binned_size(old, factor)
    start = (old - new * factor) // 2
    kept = np.take(image, np.arange(start, start + new * factor), axis=axis)
    # Where the new centre must lie, counted in old pixels from the first one kept.
    shift = centre_px(old) - start - factor * centre_px(new)
    spectrum = scipy.fft.rfft(kept, axis=axis)
    spectrum = np.take(spectrum, np.arange(new // 2 + 1), axis=axis)
    frequency = np.arange(new // 2 + 1) / (new * factor)
    phase = np.exp(2j * math.pi * frequency * shift).astype(np.complex64)
    spectrum *= phase[:, None] if axis == 0 else phase
    return scipy.fft.irfft(spectrum, n=new, axis=axis).astype(np.float32) / np.float32(factor)


def rotated_shape(shape: tuple[int, int], axis_deg: float) -> tuple[int, int]:
    """Shape ``(y, x)`` after `rotate_axis`: swapped where the axis lies nearer to the horizontal."""
    nearer_horizontal = abs(math.sin(math.radians(axis_deg))) > math.sqrt(0.5)
    return (shape[1], shape[0]) if nearer_horizontal else shape


def rotate_axis(image: NDArray[np.float32], axis_deg: float) -> NDArray[np.float32]:
    """Rotate an image about its centre so that its tilt axis comes to lie along y.

    Args:
        image: shape ``(y, x)``, mean removed: what comes in from outside the field is zero.
        axis_deg: angle of the tilt axis from y, counter-clockwise positive when y is drawn upwards (IMOD's rotation
            angle). Multiples of 90° only move pixels; other angles use cubic splines.

    Returns:
        shape ``rotated_shape(image.shape, axis_deg)``, float32.
    """
    turns, remainder = divmod(axis_deg, 90.0)
    if remainder == 0:
        return np.ascontiguousarray(np.rot90(image, k=int(turns) % 4, axes=(0, 1)))
    angle = math.radians(axis_deg)
    shape = rotated_shape((image.shape[0], image.shape[1]), axis_deg)
    # Output (y, x) is read at input R (y, x): the new y axis runs along (x, y) = (-sin, cos), the tilt axis.
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    new_centre = np.array([centre_px(n) for n in shape])
    old_centre = np.array([centre_px(n) for n in image.shape])
    offset = old_centre - matrix @ new_centre
    rotated = scipy.ndimage.affine_transform(image, matrix, offset, shape, order=3, mode="constant")
    return rotated.astype(np.float32, copy=False)


def resample(
    image: NDArray[np.float32],
    matrix: NDArray[np.float64],
    offset_px: tuple[float, float],
    shape: tuple[int, int],
    factor: int = 1,
    displacement: Displacement | None = None,
) -> NDArray[np.float32]:
    """Move, turn, stretch, bend and bin an image with a single interpolation.

    Before the image is read on a coarser grid, its Fourier transform is cut to the frequencies that this grid can hold,
    as `fourier_crop` does. Splines are of order 5, or 3 where the cut image is twice finer than the grid: such an image
    has nothing near its own Nyquist frequency, where splines are weak.

    Args:
        image: shape ``(y, x)``, mean removed: what comes in from outside the field is zero.
        matrix: from a pixel ``(x, y)`` about the middle of the result, before binning, to one about the image's middle.
        offset_px: ``(x, y)`` to add, pixels of the image.
        shape: ``(y, x)`` of the result.
        factor: pixels of the image along the edge of a pixel of the result.
        displacement: ``(x, y)`` to add to a pixel about the middle of the result, before binning: smooth, for it is
            interpolated from a coarse grid.

    Returns:
        shape ``shape``, float32.
    """
    if factor > 1:
        image = _band_limited(image, matrix, factor)
    nodes = None if displacement is None else _Nodes.of(displacement, shape, factor)
    if nodes is not None and nodes.constant:
        x, y = np.array(offset_px) + matrix @ nodes.values[:, 0, 0]
        offset_px = float(x), float(y)
        nodes = None
    step = factor * matrix[::-1, ::-1]
    middle = np.array([centre_px(n) for n in image.shape]) + np.array(offset_px[::-1])
    start = middle - step @ np.array([centre_px(n) for n in shape])
    order = 5 if factor == 1 else 3
    if nodes is not None:
        return _bent(image, matrix[::-1, ::-1], start, nodes, order)
    moved = scipy.ndimage.affine_transform(image, step, start, shape, order=order, mode="constant")
    return moved.astype(np.float32, copy=False)


@dataclass(frozen=True)
class _Nodes:
    """A displacement at the nodes of a coarse grid over the pixels of a result.

    Attributes:
        y_px: rows of the nodes, pixels of the result from its first one.
        x_px: columns.
        values: ``(x, y)`` in pixels before binning, shape ``(2, rows, columns)``.
        shape: of the result.
        factor: its binning.
    """

    y_px: NDArray[np.float64]
    x_px: NDArray[np.float64]
    values: NDArray[np.float64]
    shape: tuple[int, int]
    factor: int

    @classmethod
    def of(cls, displacement: Displacement, shape: tuple[int, int], factor: int) -> _Nodes:
        """Ask for it at enough places."""
        axes = [
            np.linspace(0, max(1, n - 1), int(min(_MOST_NODES, max(4.0, math.ceil(n * factor / _NODE_STEP_PX) + 1))))
            for n in shape
        ]
        y, x = ((axis - centre_px(n)) * factor for axis, n in zip(axes, shape, strict=True))
        return cls(axes[0], axes[1], displacement(*np.meshgrid(x, y)), shape, factor)

    @property
    def constant(self) -> bool:
        """Whether it is the same everywhere."""
        return bool((self.values == self.values[:, :1, :1]).all())


def _bent(
    image: NDArray[np.float32], matrix_yx: NDArray[np.float64], start: NDArray[np.float64], nodes: _Nodes, order: int
) -> NDArray[np.float32]:
    """Read an image at displaced places; ``start`` is that of the first pixel without its displacement."""
    from scipy.interpolate import RectBivariateSpline  # slow to import, and few images are bent

    height, width = nodes.shape
    fields = [RectBivariateSpline(nodes.y_px, nodes.x_px, part) for part in nodes.values[::-1]]
    coefficients = scipy.ndimage.spline_filter(image, order, output=np.float64, mode="constant")
    made = np.empty(nodes.shape, dtype=np.float32)
    columns = np.arange(width, dtype=np.float64)
    rows = max(1, _PIXELS // width)
    for first in range(0, height, rows):
        lines = np.arange(first, min(first + rows, height), dtype=np.float64)
        y, x = (field(lines, columns) for field in fields)
        y += nodes.factor * lines[:, None]
        x += nodes.factor * columns
        places = [start[i] + matrix_yx[i, 0] * y + matrix_yx[i, 1] * x for i in (0, 1)]
        scipy.ndimage.map_coordinates(
            coefficients, places, made[first : first + rows], order=order, mode="constant", prefilter=False
        )
    return made


def _band_limited(image: NDArray[np.float32], matrix: NDArray[np.float64], factor: int) -> NDArray[np.float32]:
    """Remove the frequencies that a grid with the axes ``matrix`` and steps of ``factor`` pixels cannot hold."""
    height, width = image.shape
    fy = scipy.fft.fftfreq(height)[:, None]
    fx = scipy.fft.rfftfreq(width)[None, :]
    highest = 0.5 / factor
    along_x = np.abs(matrix[0, 0] * fx + matrix[1, 0] * fy) <= highest
    along_y = np.abs(matrix[0, 1] * fx + matrix[1, 1] * fy) <= highest
    spectrum = scipy.fft.rfft2(image)
    spectrum *= along_x & along_y
    return scipy.fft.irfft2(spectrum, s=image.shape).astype(np.float32, copy=False)


def clipped_sigma(values: NDArray[np.float32], sigmas: float = 5.0, passes: int = 3) -> float:
    """Standard deviation without outliers: values beyond ``sigmas`` deviations are left out, ``passes`` times.

    Args:
        values: any shape, mean near zero.
        sigmas: where outliers begin.
        passes: how often they are left out anew.
    """
    sigma = _deviation(values, math.inf)
    for _ in range(passes):
        narrower = _deviation(values, sigmas * sigma)
        if narrower == 0.0:  # a few bright objects on an empty background
            break
        sigma = narrower
    return sigma


def _deviation(values: NDArray[np.float32], most: float) -> float:
    """Standard deviation of the values of at most a size, in float64; piece by piece, which stay in a core's cache."""
    count, total, squares = 0, 0.0, 0.0
    flat = values.reshape(-1)
    for first in range(0, flat.size, _PIECE):
        piece = flat[first : first + _PIECE]
        exact = (piece if math.isinf(most) else piece[np.abs(piece) <= most]).astype(np.float64)
        count += exact.size
        total += float(exact.sum())
        squares += float(np.square(exact, out=exact).sum())
    return math.sqrt(max(0.0, squares / count - (total / count) ** 2)) if count else 0.0
