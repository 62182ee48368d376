"""RELION-5's deformations of the images of a tilt series.

The table of tomograms holds ``rlnTomoDeformationType``, ``rlnTomoDeformationGridSizeX`` and ``...Y``, the table of
images ``rlnTomoDeformationCoefficients``, a vector for each. RELION sees a point at ``p + s(p)``, p being where the
projection matrix puts it, in pixels of the tilt series from the image's first (``Tomogram::projectPoint``). With W x H
the image and w x h the grid (``src/jaz/tomography/motion/modular_alignment``):

- linear, ``a b c``: ``s = (a rx, b rx + c ry)``, ``r = p - (W, H) / 2``;
- spline: nodes from pixel 0 to W and H, each with value, slopes along x and y (per step of the grid) and twist, x
  fastest, all of s_x before all of s_y; cubic Hermite between them, constant beyond;
- Fourier: ``Σ Re cos(k p) + Im sin(k p)`` over the frequencies ``π (i / W, j / H)``: i from 0 to w // 2 for j from 0 to
  h // 2 - 1, then i from 1 for j - h, without (0, 0); pairs (Re, Im), all of s_x before all of s_y.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cryolithe.bending import Field, Floats, cell
from cryolithe.errors import FileFormatError
from cryolithe.formats.files import finite_numbers, printable

Kind = Literal["linear", "spline", "Fourier"]
KIND, WIDTH, HEIGHT = "rlnTomoDeformationType", "rlnTomoDeformationGridSizeX", "rlnTomoDeformationGridSizeY"
COEFFICIENTS = "rlnTomoDeformationCoefficients"
MOST_NODES = 1000


@dataclass(frozen=True)
class Deformation:
    """The kind of deformation that the images of a series have.

    Attributes:
        kind: of the three.
        grid: ``(w, h)``.
        image_px: ``(W, H)`` in pixels of the tilt series that RELION aligned.
    """

    kind: Kind
    grid: tuple[int, int]
    image_px: tuple[float, float]


def read_deformation(series: Mapping[str, str], image_px: tuple[float, float]) -> Deformation:
    """What the table of tomograms says of a series.

    Raises:
        FileFormatError: if that is no deformation of RELION.
    """
    missing = [column for column in (KIND, WIDTH, HEIGHT) if column not in series]
    if missing:
        raise FileFormatError(f"{', '.join(missing)} missing; give the table that lists the series (tomograms.star)")
    kinds: dict[str, Kind] = {"linear": "linear", "spline": "spline", "Fourier": "Fourier"}
    kind = kinds.get(series[KIND])
    if kind is None:
        raise FileFormatError(f"expected {KIND} linear, spline or Fourier, found '{printable(series[KIND])[:40]}'")
    sizes = []
    for column in (WIDTH, HEIGHT):
        word = series[column]
        least = 2 if kind == "spline" else 1
        if not (word.isdecimal() and len(word) < 10 and least <= int(word) <= MOST_NODES):
            raise FileFormatError(f"expected a {column} of {least} to {MOST_NODES}, found '{printable(word)[:40]}'")
        sizes.append(int(word))
    return Deformation(kind, (sizes[0], sizes[1]), image_px)


def deformation_field(deformation: Deformation, text: str) -> Field:
    """s of an image, as a function of p.

    Args:
        deformation: of its series.
        text: its coefficients, ``[a,b,...]``.

    Raises:
        FileFormatError: if these are no such numbers.
    """
    width, height = deformation.grid
    frequencies = _frequencies(deformation)
    wanted = {"linear": 3, "spline": 8 * width * height, "Fourier": 4 * len(frequencies)}[deformation.kind]
    values = finite_numbers(text.strip("[] \t\"'").replace(",", " ").split())
    if values is None or len(values) != wanted:
        raise FileFormatError(
            f"expected {wanted} numbers in {COEFFICIENTS} for {deformation.kind} {width} x {height}, "
            f"found '{printable(text)[:60]}'"
        )
    numbers = np.array(values)
    if deformation.kind == "linear":
        return partial(_linear, deformation, numbers)
    if deformation.kind == "spline":
        return partial(_spline, deformation, numbers.reshape(2, height, width, 4))
    return partial(_fourier, frequencies, numbers.reshape(2, -1, 2))


def _linear(deformation: Deformation, numbers: Floats, x: Floats, y: Floats) -> Floats:
    rx, ry = x - deformation.image_px[0] / 2, y - deformation.image_px[1] / 2
    return np.stack(np.broadcast_arrays(numbers[0] * rx, numbers[1] * rx + numbers[2] * ry))


def _spline(deformation: Deformation, nodes: Floats, x: Floats, y: Floats) -> Floats:
    (columns, u), (rows, v) = (
        cell(place * (count - 1) / size, count)
        for place, count, size in zip((x, y), deformation.grid, deformation.image_px, strict=True)
    )
    total: Floats = np.zeros((2, *np.broadcast_shapes(x.shape, y.shape)))
    for j, (value_y, slope_y) in enumerate(_hermite(v)):
        for i, (value_x, slope_x) in enumerate(_hermite(u)):
            node = nodes[:, rows + j, columns + i]
            weights = (value_x * value_y, slope_x * value_y, value_x * slope_y, slope_x * slope_y)
            total += sum(weight * node[..., part] for part, weight in enumerate(weights))
    return total


def _hermite(t: Floats) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Weights of value and slope, for the node before and the one after."""
    t2, t3 = t**2, t**3
    return (1 - 3 * t2 + 2 * t3, t - 2 * t2 + t3), (3 * t2 - 2 * t3, t3 - t2)


def _frequencies(deformation: Deformation) -> NDArray[np.float64]:
    """k of each pair of coefficients, radians a pixel, shape ``(pairs, 2)``."""
    (width, height), (x_px, y_px) = deformation.grid, deformation.image_px
    found = [
        (i / x_px, (j if j < height // 2 else j - height) / y_px)
        for j in range(height)
        for i in range(0 if 0 < j < height // 2 else 1, width // 2 + 1)
    ]
    return np.pi * np.array(found).reshape(-1, 2)


def _fourier(frequencies: NDArray[np.float64], numbers: Floats, x: Floats, y: Floats) -> Floats:
    total: Floats = np.zeros((2, *np.broadcast_shapes(x.shape, y.shape)))
    for (kx, ky), parts in zip(frequencies, numbers.transpose(1, 0, 2), strict=True):
        phase = kx * x + ky * y
        total += np.multiply.outer(parts[:, 0], np.cos(phase)) + np.multiply.outer(parts[:, 1], np.sin(phase))
    return total


def image_fields(
    series: Mapping[str, str], vectors: Sequence[str], image_shape: tuple[int, int], binned: int
) -> tuple[Field, ...]:
    """The displacement in each image of a stack, at places from its pixel N // 2, all in the stack's pixels.

    Args:
        series: what the table of tomograms says.
        vectors: coefficients of the images.
        image_shape: pixels ``(y, x)`` of an image of the stack.
        binned: RELION's pixels along the edge of one of the stack.

    Raises:
        FileFormatError: if the tables hold no deformation of RELION.
    """
    size = (image_shape[1] * binned, image_shape[0] * binned)
    deformation = read_deformation(series, size)

    def scaled(field: Field) -> Field:
        return lambda x, y: field(x * binned + size[0] // 2, y * binned + size[1] // 2) / binned

    return tuple(scaled(deformation_field(deformation, text)) for text in vectors)
