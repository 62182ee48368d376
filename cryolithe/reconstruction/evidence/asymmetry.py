"""What tilt images say about their polarity: is dense matter bright or dark in them?

Two signs that know nothing of each other. Both are odd: those of the negative images are exactly opposite.

The asymmetry of the back-projection. Dense matter is compact and lies in a solvent that fills the space between, so
densities within a band of sizes have a longer tail towards dense. The third moment is taken over two halves of the
tilts, with each of which noise is independent of the other's, so that noise, counting noise too, has no part in it.
What a Gaussian field of the same spectrum would show by chance is known exactly: the variance of its third moment is
6 ∫ρ³ / V with its correlation function ρ (Isserlis 1918).

What a network explains. It learnt to reconstruct dense matter that is positive. A block is made of every other tilt,
of the images and of their negative, and projected onto the tilts in between: the right polarity explains more of them.
Not so of layers and lattices: of a wave the negative is the wave itself, moved by half its length. So it is counted of
how many waves that consists which the halves have in common, (Σ|s|²)² / Σ|s|⁴ over its Fourier coefficients s; with z,
the product of both halves', Σ Re z and Σ Re z² are these sums without noise, whose phases have no preference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.network import Network
from cryolithe.projector import Projector, make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.evidence.polarity import Evidence, average
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.slabwise.methods import NetworkMethod
from cryolithe.sampling import reflected_rows

# What is looked at: images no wider than this (by averaging pixels), and blocks of so many rows and planes.
WIDEST_PX, BLOCK_ROWS, MOST_PLANES, MOST_BLOCKS = 256, 64, 96, 2
FEWEST_TILTS, FEWEST_PX = 4, 24
# With fewer tilts than these a network has no say: half of them are nothing like what it learnt from.
FEWEST_TRIAL_TILTS = 16
# Sizes of matter, as the finer sigma of a difference of Gaussians, each twice the one before.
OCTAVES = 3
# What the halves have in common must be more than so many times chance, for anything to be divided by it.
SURE_DEVIATIONS = 3.0
# Block that a network is tried on, (z, y, x).
TRIAL_SHAPE = (64, 16, 96)
# Band of the projections that are compared, as sigmas in pixels.
COMPARED_PX = (1.5, 8.0)
_READ_ROWS = 4


class _Chance(NamedTuple):
    """Standard deviations, as shares of the power: of the mean product of two Gaussian fields that have nothing to do
    with each other, and of the third moment of one."""

    common: float
    third: float


class _Bands(NamedTuple):
    """Of a block: third moments and their deviations by octave, of how many waves it consists, and where matter is."""

    asymmetry: float
    deviations: float
    waves: tuple[int | None, int]  # of the specimen, and as many as there could be
    matter: torch.Tensor  # (z, y, x), every second voxel


class _Richest(NamedTuple):
    """The block on which a network is tried."""

    matter: float
    images: torch.Tensor  # (tilts, y, x)
    place: tuple[float, int, float]
    waves: tuple[int | None, int]


def measure_evidence(stack: PreparedStack, depth: int, network: Network | None) -> Evidence:
    """Look at a prepared stack; the same values on every machine, up to rounding, whatever its slabs and threads.

    Args:
        stack: the images.
        depth: voxels of the volume along z.
        network: any that learnt dense = positive; None for none.
    """
    height, width = stack.geometry.image_shape
    factor = -(-width // WIDEST_PX)
    rows, columns, planes = height // factor, width // factor, min(MOST_PLANES, max(1, depth // factor))
    if stack.geometry.tilts < FEWEST_TILTS or min(rows, columns) < FEWEST_PX:
        return Evidence()
    order = np.argsort(stack.geometry.angles_deg, kind="stable")
    angles = tuple(float(a) for a in np.asarray(stack.geometry.angles_deg)[order])
    count = min(MOST_BLOCKS, max(1, rows // BLOCK_ROWS))
    block = min(rows, BLOCK_ROWS)
    projectors = [make_projector(TiltGeometry(angles[half::2], (block, columns)), (planes, columns)) for half in (0, 1)]
    found, best = [], _Richest(-1.0, torch.empty(0), (0.0, 0, 0.0), (None, 0))
    for number in range(count):
        first = (rows * (2 * number + 1) // count - block) // 2
        images = averaged(stack, first, block, factor)[torch.from_numpy(order)]
        bands = _bands(images, projectors)
        found.append(bands)
        richest, place = _richest(bands.matter, (planes, block, columns))
        if richest > best.matter:
            best = _Richest(richest, images, place, bands.waves)
    seen = average([Evidence(bands.asymmetry, bands.deviations) for bands in found])
    seen = replace(seen, deviations=round(seen.deviations * math.sqrt(count), 2))  # of different parts, so surer
    seen = replace(seen, waves=best.waves[0], most_waves=best.waves[1])
    if network is None or not seen.fair or len(angles) < FEWEST_TRIAL_TILTS:
        return seen
    bright, dark = _explained(best.images, angles, best.place, network)
    return replace(seen, explained_bright=round(bright, 4), explained_dark=round(dark, 4))


def averaged(stack: PreparedStack, first: int, rows: int, factor: int, columns: int | None = None) -> torch.Tensor:
    """Rows of all images, averaged over squares of ``factor`` pixels, each image's mean removed, of unit variance.

    Args:
        stack: the images.
        first: row of squares.
        rows: of squares.
        factor: see above.
        columns: of squares, those in the middle; None for all.
    """
    width = stack.geometry.image_shape[1]
    columns = width // factor if columns is None else columns
    start = (width - columns * factor) // 2
    parts = []
    for row in range(first, first + rows, _READ_ROWS):
        some = min(_READ_ROWS, first + rows - row)
        seen = stack.read_rows(row * factor, some * factor).clamp(-stack.clip_level, stack.clip_level)
        seen = seen[..., start : start + columns * factor]
        parts.append(seen.reshape(seen.shape[0], some, factor, columns, factor).mean(dim=(2, 4)))
    images = torch.cat(parts, dim=1)
    images = images - images.mean(dim=(1, 2), keepdim=True)
    return images / images.square().mean().sqrt().clamp_min(1e-30)


def _bands(images: torch.Tensor, projectors: list[Projector]) -> _Bands:
    """Third moments of a block's back-projection."""
    halves = [fbp(projector, images[half::2], "hamming") for half, projector in enumerate(projectors)]
    spectra = [torch.fft.rfftn(volume - volume.mean()) for volume in halves]
    moments, matter = [], torch.zeros((1, 1, 1))
    for octave, (one, two, chance) in enumerate(_octaves(spectra, tuple(halves[0].shape))):
        mean = (one + two) / 2
        power = float(mean.square().mean(dtype=torch.float64))
        common = float((one * two).mean(dtype=torch.float64))
        if octave == 1:
            matter = one * two
        if common <= 0 or power <= 0:
            continue
        third = float((one * two * mean).mean(dtype=torch.float64))
        own = float(one.square().mean(dtype=torch.float64)) * float(two.square().mean(dtype=torch.float64))
        # Of what the halves have in common: noise makes it less sure, not smaller. Where that may be chance, any number
        # would come of it: then of all their power, which is too small a number rather than too large a one.
        sure = common > SURE_DEVIATIONS * chance.common * math.sqrt(own)
        of = common if sure else power
        moments.append((common / power, third / of**1.5, third / power**1.5 / chance.third))
    if not moments:
        return _Bands(0.0, 0.0, (None, 0), matter)
    signal, asymmetries, deviations = (np.array(column) for column in zip(*moments, strict=True))
    # Octaves are all but independent of each other.
    return _Bands(
        float((signal * asymmetries).sum() / signal.sum()),
        float((signal * deviations).sum() / math.sqrt(np.square(signal).sum())),
        _waves(spectra, tuple(halves[0].shape)),
        matter,
    )


def _waves(spectra: list[torch.Tensor], shape: tuple[int, ...]) -> tuple[int | None, int]:
    """Of how many waves that consists which both halves hold within the band that is compared, None of noise alone; and
    of how many white noise does."""
    band = _band(shape, COMPARED_PX) ** 2
    both = spectra[0] * spectra[1].conj() * band
    columns = torch.stack((both.real, both.square().real, band, band.square())).sum(dim=(1, 2), dtype=torch.float64)
    # All but the ends of the last axis stand for two frequencies.
    ends = columns[:, 0] + (columns[:, -1] if shape[2] % 2 == 0 else 0.0)
    power, squares, whole, whole_squares = (2 * columns.sum(dim=1) - ends).tolist()
    waves = round(power**2 / squares) if power > 0 and squares > 0 else None
    return waves, round(whole**2 / whole_squares)


def _octaves(
    spectra: list[torch.Tensor], shape: tuple[int, ...]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, _Chance]]:
    """Both halves within each band, borders cut off, and what chance gives.

    Coarse bands are computed on every second, fourth, ... voxel, which is all they need.
    """
    for octave in range(OCTAVES):
        if octave:
            shape = tuple(max(1, n // 2) for n in shape)
            spectra = [_cropped(spectrum, shape) for spectrum in spectra]
        band = _band(shape)
        inner = tuple(slice(n // 8, n - n // 8) for n in shape)
        one, two = (torch.fft.irfftn(spectrum * band, s=shape)[inner] for spectrum in spectra)
        correlation = torch.fft.irfftn(((spectra[0] + spectra[1]) * band).abs().square(), s=shape)
        correlation = correlation / correlation[0, 0, 0].clamp_min(1e-30)
        squares, cubes = (float(correlation.pow(n).sum(dtype=torch.float64)) for n in (2, 3))
        yield one, two, _Chance(*(math.sqrt(max(n, 1.0) / one.numel()) for n in (squares, 6 * max(cubes, 1.0))))


def _band(shape: tuple[int, ...], sigmas_px: tuple[float, float] = (1.0, 2.0)) -> torch.Tensor:
    """Difference of two Gaussians, for ``rfftn``."""
    z, y = (torch.fft.fftfreq(n) for n in shape[:2])
    square = z[:, None, None] ** 2 + y[None, :, None] ** 2 + torch.fft.rfftfreq(shape[2])[None, None, :] ** 2
    fine, coarse = (torch.exp(-2 * math.pi**2 * square * sigma**2) for sigma in sigmas_px)
    return fine - coarse


def _cropped(spectrum: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The frequencies of a real volume that a grid of fewer voxels holds, for ``rfftn``."""
    for axis, size in enumerate(shape[:2]):
        low = spectrum.narrow(axis, 0, (size + 1) // 2)
        high = spectrum.narrow(axis, spectrum.shape[axis] - size // 2, size // 2)
        spectrum = torch.cat((low, high), dim=axis)
    return spectrum[..., : shape[2] // 2 + 1]


def _richest(matter: torch.Tensor, shape: tuple[int, int, int]) -> tuple[float, tuple[float, int, float]]:
    """How much matter the richest block of `TRIAL_SHAPE` holds, and where: z and x of its middle, its first row.

    Args:
        matter: what the halves have in common at every second voxel, borders cut off.
        shape: voxels of the whole.
    """
    size = [min(n, max(1, wanted // 2)) for n, wanted in zip(matter.shape, TRIAL_SHAPE, strict=True)]
    sums = matter.double()
    for axis, length in enumerate(size):
        total = torch.cat((torch.zeros_like(sums.narrow(axis, 0, 1)), sums.cumsum(axis)), dim=axis)
        kept = total.shape[axis] - length
        sums = total.narrow(axis, length, kept) - total.narrow(axis, 0, kept)
    corner = np.unravel_index(int(sums.argmax()), tuple(sums.shape))
    middle = [
        2 * (int(at) + cut // 2 // 8) + length - (whole - 1) / 2
        for at, cut, length, whole in zip(corner, shape, size, shape, strict=True)
    ]
    row = round(middle[1] + (shape[1] - 1) / 2 - TRIAL_SHAPE[1] / 2)
    return float(sums.max()), (middle[0], max(0, min(row, shape[1] - TRIAL_SHAPE[1])), middle[2])


def _explained(
    images: torch.Tensor, angles_deg: tuple[float, ...], place: tuple[float, int, float], network: Network
) -> tuple[float, float]:
    """Correlations of left-out tilts with the projections of a block that takes bright, and one that takes dark, for
    dense.

    Args:
        images: rows of all tilts, shape ``(tilts, y, x)``.
        angles_deg: of the tilts, ascending.
        place: z and x of the block's middle from that of the volume, and its first row between them.
        network: as for `measure_evidence`.
    """
    height, width = images.shape[1:]
    depth, rows, across = min(TRIAL_SHAPE[0], width), min(TRIAL_SHAPE[1], height), min(TRIAL_SHAPE[2], width)
    rows -= rows % network.config.head.stride
    used, left_out = (TiltGeometry(angles_deg[half::2], (rows, across)) for half in (0, 1))
    method = NetworkMethod(network, used, VolumeGrid((depth, rows, across)))
    wanted = reflected_rows(place[1] - method.halo_px, rows + 2 * method.halo_px, height)
    cut = _cut(images[:, torch.from_numpy(wanted)], angles_deg, (place[0], place[2]), across)
    target = _compared(cut[1::2, method.halo_px : method.halo_px + rows])
    projector = make_projector(left_out, (depth, across))
    found = []
    for sign in (1.0, -1.0):
        made = _compared(projector.forward(sign * method(sign * cut[0::2])))
        norm = made.square().sum(dtype=torch.float64) * target.square().sum(dtype=torch.float64)
        found.append(float((made * target).sum(dtype=torch.float64) / norm.sqrt().clamp_min(1e-30)))
    return found[0], found[1]


def _cut(
    images: torch.Tensor, angles_deg: tuple[float, ...], middle_zx_px: tuple[float, float], across: int
) -> torch.Tensor:
    """Images of a part of the volume, as if its middle were the volume's; beyond the border the last pixel goes on."""
    width = images.shape[2]
    z, x = middle_zx_px
    cut = []
    for image, angle in zip(images, np.deg2rad(angles_deg), strict=True):
        start = (width - across) / 2 + x * math.cos(angle) + z * math.sin(angle)
        whole = math.floor(start)
        read = image[:, torch.arange(whole, whole + across + 1).clamp(0, width - 1)]
        cut.append(torch.lerp(read[:, :-1], read[:, 1:], start - whole))
    return torch.stack(cut)


def _compared(images: torch.Tensor) -> torch.Tensor:
    """Images within the band that is compared, sides cut off where a tilted block sees what is not in it."""
    height, width = images.shape[1:]
    square = torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width)[None, :] ** 2
    fine, coarse = (torch.exp(-2 * math.pi**2 * square * sigma**2) for sigma in COMPARED_PX)
    kept = torch.fft.irfft2(torch.fft.rfft2(images) * (fine - coarse), s=(height, width))
    return kept[..., width // 10 : width - width // 10]
