"""How images and targets are scaled: images as reconstruction scales them, targets in the images' units.

Images: defects are clipped, each image loses its mean and is divided by it where it is one of counts, dense becomes
positive, and the series is divided by the standard deviation of its pixels
(`cryolithe.reconstruction.images.preparation`; a test holds the two together).

Targets: a network without biases returns a volume in the units of its images. Where images are sums of the density
along the beam, that volume is the density itself, and the relation is known exactly. Real images and those of recipes
have contrast transfer, exposure weighting and arbitrary units in between, so a single factor per series is fitted:
the one that brings the projections of the target closest to the images at low frequencies, in the ramp-filtered
rows. By the Fourier-slice theorem that is where the filtered back-projection of the images agrees with the target
within the measured region, and noise has no part in it on average. Losses are then taken in units of the target's
standard deviation, so that every series counts alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.artefacts.borders import find_border
from cryolithe.errors import InputError
from cryolithe.filters import filter_rows, gaussian_response, padded_length, ramp_response
from cryolithe.geometry import TiltGeometry
from cryolithe.projector import make_projector
from cryolithe.reconstruction.images.brightness import brightness_factors, brightness_of
from cryolithe.reconstruction.images.defects import defect_level, defect_limits, spread_of

# Fits read what a blur of this many pixels leaves, from at most this many rows.
FIT_SIGMA_PX, FIT_ROWS = 2.0, 48
# Values of a series in memory at once while it is measured: 0.5 GB in float32.
_READ_VALUES = 1 << 27


@dataclass(frozen=True)
class ImageScale:
    """What turns recorded images into what a network sees.

    Attributes:
        low: pixels of an image are not below this, shape ``(tilts,)``.
        high: nor above this.
        mean: of the clipped image.
        factor: by which it is multiplied, without its mean (see `cryolithe.reconstruction.images.brightness`).
        sigma: standard deviation of all pixels, outliers left out.
        clip_level: largest deviation from the mean that is passed on.
        usable: images that are not constant.
        bordered: whether the middle image has a border of one value.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    mean: NDArray[np.float32]
    factor: NDArray[np.float32]
    sigma: float
    clip_level: float
    usable: NDArray[np.bool_]
    bordered: bool

    def apply(self, rows: NDArray[Any], tilts: NDArray[np.int64]) -> torch.Tensor:
        """Rows of some tilts as a network sees them: standardised, dense = positive.

        Args:
            rows: shape ``(tilts, rows, X)``, dense = dark.
            tilts: numbers of the images.
        """
        each = (self.low, self.high, self.mean, self.factor)
        low, high, mean, factor = (values[tilts][:, None, None] for values in each)
        level = np.float32(self.clip_level)
        centred = np.clip((np.clip(rows.astype(np.float32), low, high) - mean) * factor, -level, level)
        return torch.from_numpy(centred / np.float32(-self.sigma))


def measure_scale(images: Any, name: str, angles_deg: Sequence[float] = ()) -> ImageScale:
    """Measure a series, image by image.

    Args:
        images: array or HDF5 dataset, shape ``(tilts, y, x)``.
        name: of the series, for messages.
        angles_deg: of the images; none where they are relative brightness already, as simulated ones are.

    Raises:
        InputError: if a pixel is not finite or all images are constant.
    """
    table, spreads, brightness, bordered = [], [], [], False
    for number, image in enumerate(_one_by_one(images)):
        if not np.isfinite(image).all():
            raise InputError(f"{name}: image {number + 1} holds values that are not finite")
        if number == images.shape[0] // 2:
            bordered = find_border(image) is not None
        limits = defect_limits(image)
        clipped = np.clip(image, *limits)
        mean = clipped.mean(dtype=np.float64).astype(np.float32)
        clipped = clipped - mean
        varies = bool(image.max() > image.min())
        table.append((*limits, mean, varies))
        spreads.append(spread_of(clipped) if varies else None)
        brightness.append(brightness_of(image))
    low, high, means, usable = (np.array(column) for column in zip(*table, strict=True))
    factors = brightness_factors(brightness, angles_deg) if len(angles_deg) else None
    factors = np.ones(len(table), np.float32) if factors is None else factors
    seen = [one.times(factor) for one, factor in zip(spreads, factors.tolist(), strict=True) if one is not None]
    if not seen:
        raise InputError(f"{name}: all images are constant")
    sigma = float(np.sqrt(np.mean([one.variance for one in seen])))
    level = defect_level(sigma, [one.tail for one in seen])
    return ImageScale(low, high, means, factors, sigma, level, usable.astype(bool), bordered)


def _one_by_one(images: Any) -> Iterator[NDArray[np.float32]]:
    """Images ``(y, x)``, read several at once: a file keeps rows of all of them together, so that one costs as much."""
    at_once = max(1, _READ_VALUES // (images.shape[1] * images.shape[2]))
    for first in range(0, images.shape[0], at_once):
        for image in np.asarray(images[first : first + at_once]):
            yield np.asarray(image, dtype=np.float32)


def fitted_amplitude(
    rows: torch.Tensor, truth: torch.Tensor, geometry: TiltGeometry, name: str, noiseless: bool = False
) -> float:
    """The factor that makes projections of a target agree with images at low frequencies.

    Args:
        rows: images as a network sees them, shape ``(tilts, rows, X)``.
        truth: the same rows of the target, dense = positive, mean removed, shape ``(z, rows, x)``.
        geometry: of the images.
        name: of the series, for messages.
        noiseless: whether the images have no noise, so that a poor fit cannot be due to it.

    Raises:
        InputError: if images and target do not go together: the factor is not positive.
    """
    projections = make_projector(geometry, (truth.shape[0], truth.shape[2])).forward(truth)
    length = padded_length(rows.shape[-1])
    response = ramp_response(length, "cosine") * gaussian_response(length, FIT_SIGMA_PX)
    (seen,), (wanted,) = filter_rows(rows, response), filter_rows(projections, response)
    power = float((wanted * wanted).sum())
    factor = float((seen * wanted).sum()) / power if power > 0 else 0.0
    if factor <= 0 and not noiseless:
        raise InputError(
            f"{name}: images and target do not go together: projections of the target anticorrelate with the images "
            "(is the contrast of one of them inverted, or are the angles those of another series?)"
        )
    # With strong phase contrast low frequencies can all but vanish: the energies then set the factor.
    fallback = (float((seen * seen).sum()) / power) ** 0.5 if power > 0 else 1.0
    return factor if factor > 0.02 * fallback else max(0.02 * fallback, 1e-12)
