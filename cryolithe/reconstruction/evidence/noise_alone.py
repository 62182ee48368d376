"""Whether images have anything in common that is told from noise: of noise alone networks draw what looks like matter.

Three statistics, each with the law of a normal deviate where the noise of one image has nothing to do with that of
another, whatever its spectrum, that along rows or columns, too: a correlation of two images at no shift is as often
above 0 as below, and its variance is the mean square of the correlation at all shifts (Parseval), somewhat larger as
images are tapered. Sums over images or pairs that are independent of each other are divided by their deviation:

- even tilts and back-projected odd ones, projected to the angle of each;
- each tilt and the next, in which a specimen is nearly the same whatever the tilt axis is;
- the same, where images may be moved: the highest correlation at any shift, less that with the next image turned by
  180°, which has the same spectrum.

Images are noise where none of these stands out, neither of the whole field in coarse pixels nor of its middle in finer
ones. Simulated cells, proteins and filaments of -20 dB have 9 or more of the first, real ribosomes 15 or more
(benchmarks/LOG.md). A pattern that all images hold (a gain reference) stands out, too: that is not called noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from cryolithe.reconstruction.evidence.asymmetry import averaged
from cryolithe.reconstruction.evidence.strayed_images import (
    FEWEST_PX,
    FEWEST_TILTS,
    WIDEST_PX,
    Series,
    correlated,
    one_thread,
    projected,
    taper,
)
from cryolithe.reconstruction.images.prepared_stack import PreparedStack

# Deviations that are no noise: one of the three is that large in one of 80 series of noise, at each size of pixels.
LEAST_DEVIATIONS = 3.0


def noise_warnings(stack: PreparedStack, images: torch.Tensor, binning: int, depth: int) -> tuple[str, ...]:
    """A warning where images have nothing in common that is told from noise.

    Args:
        stack: of which the images are.
        images: all of the stack, averaged over squares of ``binning`` pixels, shape ``(tilts, y, x)``.
        binning: see above.
        depth: voxels along z of the volume, of the pixels of the stack.
    """
    if stack.geometry.tilts < FEWEST_TILTS or min(images.shape[1:]) < FEWEST_PX:
        return ()
    with one_thread():
        for series in _scales(stack, images, binning, depth):
            if any(abs(deviation) >= LEAST_DEVIATIONS for deviation in deviations(series)):
                return ()
    return (
        "the images have nothing in common that is told from noise: specks and shapes in a network's volume are then "
        "of the network, not of the specimen, and the volume of other methods is noise; look at the images (cryolithe "
        "info) and at their alignment before you believe any of it",
    )


def _scales(stack: PreparedStack, images: torch.Tensor, binning: int, depth: int) -> Iterator[Series]:
    """The whole field in coarse pixels, then its middle in ever finer ones."""
    angles_deg = np.asarray(stack.geometry.angles_deg)
    order = np.argsort(angles_deg, kind="stable")
    whole = Series(images[torch.from_numpy(order)], angles_deg[order], max(4, depth // binning))
    series, pooled = whole.pooled(WIDEST_PX)
    yield series
    height, width = stack.geometry.image_shape
    factor = binning * pooled // 2
    while factor:
        rows, columns = (min(WIDEST_PX, size // factor) for size in (height, width))
        fine = averaged(stack, (height // factor - rows) // 2, rows, factor, columns)
        yield Series(fine[torch.from_numpy(order)], angles_deg[order], min(max(4, depth // factor), columns))
        factor //= 2


def deviations(series: Series) -> Iterator[float]:
    """Three normal deviates where images are noise, see the module; that which takes longest comes last."""
    images, angles_deg, depth = series
    before, after = images[:-1], images[1:]
    near, turned = correlated(before, after), correlated(before, after.flip(1, 2))
    yield _at_rest(near)
    rises = (_highest(near) - _highest(turned)).double()
    yield float(rises.mean() * math.sqrt(len(rises)) / rises.std().clamp_min(1e-12))
    even, odd = np.arange(0, len(images), 2), np.arange(1, len(images), 2)
    yield _at_rest(correlated(images[even], projected(images, angles_deg, odd, angles_deg[even], depth)))


def _at_rest(surfaces: torch.Tensor) -> float:
    """How far correlations by lag ``(n, y, x)``, lag 0 first, are from 0 at lag 0, all together."""
    sizes = [(taper(size).double(), size) for size in surfaces.shape[1:]]
    # What tapers leave of noise at lag 0, over its mean for all lags.
    more = math.prod(float(window.pow(4).sum() * size / window.square().sum() ** 2) for window, size in sizes)
    found = surfaces[:, 0, 0] / _spread(surfaces)
    return float(found.sum(dtype=torch.float64)) / math.sqrt(len(surfaces) * more)


def _highest(surfaces: torch.Tensor) -> torch.Tensor:
    """The highest correlation at any lag, over its spread, shape ``(n,)``."""
    return surfaces.amax(dim=(1, 2)) / _spread(surfaces)


def _spread(surfaces: torch.Tensor) -> torch.Tensor:
    return surfaces.square().mean(dim=(1, 2)).sqrt().clamp_min(1e-30)
