"""Does the volume predict images that it was not made from? The test that needs no truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray

from cryolithe.arrays.spectra import FloatArray
from cryolithe.artefacts.borders import without_border
from cryolithe.errors import InputError
from cryolithe.evaluation.heldout import Choice, Use
from cryolithe.evaluation.spectral import edge_taper, ring_correlation
from cryolithe.geometry import TiltGeometry
from cryolithe.images import fourier_crop
from cryolithe.projector import by_bands, make_projector
from cryolithe.tilts import TiltSeries

Image = NDArray[np.float32]

COVERED = 0.5  # of the thickness: columns of rays that cross less of the volume are left out
FEWEST_COLUMNS = 16


@dataclass(frozen=True)
class Reprojection:
    """Projections of a volume against K images, R rings.

    Attributes:
        held_out: whether the volume was made without these images; None where nobody knows.
        use: the same in words: held out, seen, other frames, unknown.
        reason: how that is known, or why not.
        binning: by which the images were cropped in Fourier space to the volume's pixels.
        angles_deg: of the images, shape ``(K,)``.
        columns: image columns compared, whose rays cross half of the volume's thickness or more, shape ``(K,)``.
        correlation: Pearson's, shape ``(K,)``.
        frequency_per_px: of the rings, shape ``(R,)``.
        ring_correlation: mean over the images, shape ``(R,)``.
        ring_correlation_each: shape ``(K, R)``.
    """

    held_out: bool | None
    use: Use
    reason: str
    binning: int
    angles_deg: FloatArray
    columns: NDArray[np.int64]
    correlation: FloatArray
    frequency_per_px: FloatArray
    ring_correlation: FloatArray
    ring_correlation_each: FloatArray

    @property
    def mean_correlation(self) -> float:
        """Mean over the images."""
        return float(np.nanmean(self.correlation))


@dataclass(frozen=True)
class Pictured:
    """One image beside its prediction, both ``(y, columns)``, mean removed."""

    angle_deg: float
    image: Image
    projection: Image


def binning_of(image_shape: tuple[int, int], volume_shape: tuple[int, int, int]) -> int:
    """Whole factor by which images are larger than the volume along y.

    Raises:
        InputError: if there is none.
    """
    factor = max(1, image_shape[0] // volume_shape[1])
    if image_shape[0] // factor != volume_shape[1]:
        raise InputError(
            f"the images have {image_shape[0]} rows (y) but the volume has {volume_shape[1]}: expected the same "
            "number, or a whole multiple for a volume made with --bin; give the stack that the volume was made from"
        )
    return factor


def reproject(
    volume: NDArray[Any], series: TiltSeries, choice: Choice, x_tilt_deg: float = 0.0
) -> tuple[Reprojection, tuple[Pictured, ...]]:
    """Project a volume to the tilts of some images and compare.

    A volume is finite: at a high tilt only the columns near the axis look through its whole thickness. Columns whose
    rays cross less than half of it are left out. Images and projections lose their means, and their ends are tapered
    for the ring correlation.

    Args:
        volume: shape ``(z, y, x)``, the polarity of the images.
        series: the aligned images.
        choice: the images to compare, finite and not constant.
        x_tilt_deg: by which the volume was turned about x when it was made: it is turned back.

    Returns:
        the scores, and the images with the lowest and the highest tilt of those compared.

    Raises:
        InputError: if no image has enough columns whose rays cross half of the volume, or one is constant there.
    """
    chosen = choice.numbers
    depth, height, width = volume.shape
    shape = (series.geometry.image_shape[0], series.geometry.image_shape[1])
    factor = binning_of(shape, (depth, height, width))
    angles = np.asarray(series.geometry.angles_deg)[list(chosen)]
    # What a local alignment leaves by depth is in pixels of images that are as large as the volume already.
    shifts = series.geometry.select(list(chosen)).shifts if factor == 1 else None
    geometry = TiltGeometry(tuple(angles), (height, shape[1] // factor), shifts)
    projector = make_projector(geometry, (depth, width))
    seen = projector.forward(torch.ones((depth, 1, width)))[:, 0].numpy()
    voxels = torch.from_numpy(_upright(np.array(volume, dtype=np.float32), x_tilt_deg))
    projections = by_bands(projector, 0, voxels, lambda band, rows: band.forward(rows)).numpy()
    wide = seen >= COVERED * np.minimum(depth / np.cos(np.deg2rad(angles)), width)[:, None]

    correlation = np.full(len(chosen), np.nan)
    columns = np.count_nonzero(wide, axis=1)
    rings: list[tuple[FloatArray, FloatArray]] = []
    grid = np.arange(min(height, geometry.image_shape[1]) // 2 + 1) / min(height, geometry.image_shape[1])
    each = np.full((len(chosen), grid.size), np.nan)
    pictures: dict[int, Pictured] = {}
    wanted = {int(np.abs(angles).argmin()), int(np.abs(angles).argmax())}
    for number, tilt in enumerate(chosen):
        if columns[number] < FEWEST_COLUMNS:
            continue
        # What an alignment filled in is no part of the specimen: nothing predicts the step at its edge.
        image = without_border(np.array(series.images[tilt], dtype=np.float32))
        image = fourier_crop(image - image.mean(dtype=np.float64).astype(np.float32), factor)
        real, made = (_centred(values[:, wide[number]]) for values in (image, projections[number]))
        power = math.sqrt(float((real**2).sum(dtype=np.float64)) * float((made**2).sum(dtype=np.float64)))
        if power == 0:
            raise InputError(f"tilt {tilt + 1} of the stack, or the volume's projection, is constant where compared")
        correlation[number] = float((real * made).sum(dtype=np.float64)) / power
        taper_y, taper_x = edge_taper(real.shape)
        taper = taper_y[:, None] * taper_x
        rings.append(ring_correlation(real * taper, made * taper))
        frequency, values = rings[-1]
        good = np.isfinite(values)
        # Narrow strips have coarser rings: all curves on the grid of the whole image.
        each[number] = np.interp(grid, frequency[good], values[good], left=np.nan)
        if number in wanted:
            pictures[number] = Pictured(float(angles[number]), real, made)
    if not rings:
        raise InputError(
            f"no image to compare has {FEWEST_COLUMNS} columns whose rays cross half of the volume's thickness of "
            f"{depth} voxels; the volume is too thick for its width of {width}"
        )
    held = np.isfinite(each).any(axis=0)
    mean = np.full(grid.size, np.nan)
    mean[held] = np.nanmean(each[:, held], axis=0)
    held_out = None if choice.use == "unknown" else choice.use == "held out"
    scores = Reprojection(
        held_out, choice.use, choice.reason, factor, angles, columns.astype(np.int64), correlation, grid, mean, each
    )
    return scores, tuple(pictures[number] for number in sorted(pictures, key=lambda n: abs(angles[n])))


def _upright(volume: Image, x_tilt_deg: float) -> Image:
    """A volume ``(z, y, x)`` of which voxel V came from Rx(α) V, turned back without its mean; 0 where nothing is."""
    if not x_tilt_deg:
        return volume
    c, s = math.cos(math.radians(x_tilt_deg)), math.sin(math.radians(x_tilt_deg))
    back = np.array([[c, -s], [s, c]])  # of (z, y), as z' = z c - y s is Rx(-α)
    middle = (np.array(volume.shape[:2]) - 1) / 2
    made, centred = np.empty_like(volume), volume - volume.mean(dtype=np.float64).astype(np.float32)
    for x in range(volume.shape[2]):
        scipy.ndimage.affine_transform(centred[..., x], back, middle - back @ middle, output=made[..., x], order=3)
    return made


def _centred(image: NDArray[Any]) -> Image:
    """Contiguous copy with mean 0."""
    values = np.ascontiguousarray(image, dtype=np.float32)
    return values - np.float32(values.mean(dtype=np.float64))
