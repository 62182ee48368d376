"""Template matching: where in the volume does a known map fit, in whatever orientation?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from cryolithe.arrays.spectra import transforms
from cryolithe.evaluation.picking import (
    MOST_PICKS,
    SPACING,
    TOLERANCE,
    binned,
    match,
    precision_recall,
    spaced_maxima,
    unbinned,
)
from cryolithe.geometry import is_measured

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

ROTATIONS = 256  # some 37° apart: enough to find, not to orient
DIAMETER_PX = 14.0  # of the particle in the binned volume
PEAKS_PER_PARTICLE = 10
FLATTEST = 1e-3  # standard deviation under the mask, of the volume's: flatter places score 0


@dataclass(frozen=True)
class MatchingScore:
    """Template matching against known positions (Jones, Deshmukh & Pande 2026, section 2.2.2).

    Attributes:
        pr_auc: area under the curve of precision over recall.
        best_f1: best F1 along the curve.
        known: positions in the volume.
        rotations: orientations tried.
        voxel_size_angstrom: at which the search was made.
        tolerance_angstrom: within which a peak counts as found.
        precision: along the falling threshold.
        recall: likewise.
    """

    pr_auc: float
    best_f1: float
    known: int
    rotations: int
    voxel_size_angstrom: float
    tolerance_angstrom: float
    precision: FloatArray
    recall: FloatArray


def even_rotations(number: int) -> Rotation:
    """Rotations spread evenly (super-Fibonacci spirals; Alexa, CVPR 2022)."""
    s = np.arange(number) + 0.5
    inner, outer = np.sqrt(s / number), np.sqrt(1 - s / number)
    alpha, beta = 2 * np.pi * s / math.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    return Rotation.from_quat(
        np.stack([inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)], axis=1)
    )


def rotated_templates(
    template: Array, scale: float, diameter_px: float, tilt_range_deg: tuple[float, float] | None, number: int
) -> Iterator[NDArray[np.float32]]:
    """Turn a template about the middle of its box, on a grid of its own.

    Args:
        template: shape ``(z, y, x)``, dense = bright.
        scale: template voxels per voxel of the result.
        diameter_px: of the particle; the result is a little larger, and odd.
        tilt_range_deg: what lies outside is removed, as from the volume; None keeps all.
        number: of orientations.

    Yields:
        shape ``(n, n, n)``.
    """
    size = 2 * math.ceil(diameter_px / 2) + 3
    source = np.asarray(template, dtype=np.float32)
    if scale > 1:
        source = gaussian_filter(source, 0.4 * scale)
    centre, middle = (np.array(source.shape) - 1) / 2, np.full(3, (size - 1) / 2)
    kz, kx = scipy.fft.fftfreq(size)[:, None, None], scipy.fft.rfftfreq(size)
    for matrix in even_rotations(number).as_matrix():
        turned = affine_transform(source, scale * matrix, centre - scale * matrix @ middle, (size,) * 3, order=1)
        if tilt_range_deg is not None:
            spectrum = scipy.fft.rfftn(turned) * is_measured(kx, kz, tilt_range_deg)
            turned = scipy.fft.irfftn(spectrum, s=turned.shape)
        yield turned.astype(np.float32)


def ball_mask(size: int, diameter_px: float) -> NDArray[np.float32]:
    """Ones within a ball in a box of ``size``³."""
    axis = np.arange(size) - (size - 1) / 2
    away = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    return (away <= (diameter_px / 2 + 1) ** 2).astype(np.float32)


def correlate(volume: Array, templates: Iterator[NDArray[np.float32]], mask: NDArray[np.float32]) -> Array:
    """Highest locally normalised correlation of any template at each voxel (Roseman, Ultramicroscopy 94, 225, 2003).

    ``cc(r) = Σ t (V - mean) / sqrt(Σ (V - mean)²)`` with sums over the mask about r, and t the template with mean 0
    and norm 1 under the mask; -1 to 1.

    Args:
        volume: shape ``(z, y, x)``.
        templates: of the mask's shape, odd.
        mask: 1 where the template counts, 0 elsewhere.

    Returns:
        shape ``(z, y, x)``, float32.
    """
    shape = tuple(scipy.fft.next_fast_len(n + m - 1, real=True) for n, m in zip(volume.shape, mask.shape, strict=True))
    values = np.array(volume, dtype=np.float32)
    values -= np.float32(values.mean(dtype=np.float64))
    values /= np.float32(values.std(dtype=np.float64))
    spectrum = transforms().rfftn(values, shape)
    rim = [m // 2 for m in mask.shape]
    core = tuple(slice(0, n) for n in volume.shape)

    def under(small: Array, of: Array) -> Array:
        """Sums of ``small`` times the volume about each voxel."""
        full = transforms().irfftn(of * transforms().rfftn(small, shape).conj(), shape)
        return np.roll(full, rim, axis=(0, 1, 2))[core]

    count = float(mask.sum())
    spread = under(mask, transforms().rfftn(values**2, shape)) - under(mask, spectrum) ** 2 / count
    good = spread > count * FLATTEST**2
    norm = np.sqrt(np.where(good, spread, 1.0))
    best = np.full(volume.shape, -1.0, dtype=np.float32)
    inside = mask > 0
    for template in templates:
        small = np.where(inside, template - template[inside].mean(), 0).astype(np.float32)
        length = math.sqrt(float((small**2).sum(dtype=np.float64)))
        if length > 0:
            np.maximum(best, under(small / np.float32(length), spectrum) / norm, out=best)
    best[~good] = 0
    return best


def search_binning(diameter_px: float, shape: tuple[int, ...]) -> int:
    """Voxels along each axis that are averaged before the search, so that the particle is some 14 wide."""
    return max(1, min(math.floor(diameter_px / DIAMETER_PX), min(shape) // 8))


def find_template(
    volume: Array,
    template: Array,
    diameter_px: float,
    template_scale: float,
    tilt_range_deg: tuple[float, float] | None,
    most: int,
) -> tuple[FloatArray, FloatArray, int, int]:
    """Find the places where a template fits best.

    Args:
        volume: shape ``(z, y, x)``, particles bright.
        template: shape ``(z, y, x)``, dense = bright.
        diameter_px: of the particle, voxels of the volume.
        template_scale: voxels of the template per voxel of the volume.
        tilt_range_deg: of the volume, applied to the template; None for none.
        most: as many places.

    Returns:
        positions in voxels of the volume, the best first, scores, the binning of the search and the orientations tried.
    """
    factor = search_binning(diameter_px, volume.shape)
    diameter = diameter_px / factor
    templates = rotated_templates(template, template_scale * factor, diameter, tilt_range_deg, ROTATIONS)
    score = correlate(binned(volume, factor), templates, ball_mask(2 * math.ceil(diameter / 2) + 3, diameter))
    peaks, scores = spaced_maxima(score, SPACING * diameter, most)
    return unbinned(peaks, factor), scores, factor, ROTATIONS


def match_template(
    volume: Array,
    template: Array,
    known: FloatArray,
    diameter_angstrom: float,
    voxel_size_angstrom: float,
    template_scale: float,
    tilt_range_deg: tuple[float, float] | None,
) -> MatchingScore:
    """Score the places where a template fits best against known ones.

    Args:
        volume: shape ``(z, y, x)``, particles bright.
        template: shape ``(z, y, x)``, dense = bright.
        known: positions in voxels, shape ``(N, 3)``, N at least 1.
        diameter_angstrom: of the particle.
        voxel_size_angstrom: of the volume.
        template_scale: voxels of the template per voxel of the volume.
        tilt_range_deg: of the volume; None for no missing wedge.
    """
    diameter_px = diameter_angstrom / voxel_size_angstrom
    most = max(MOST_PICKS, PEAKS_PER_PARTICLE * len(known))
    peaks, _, factor, rotations = find_template(volume, template, diameter_px, template_scale, tilt_range_deg, most)
    precision, recall, area = precision_recall(match(peaks, known, TOLERANCE * diameter_px), len(known))
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)
    return MatchingScore(
        area, float(f1.max(initial=0.0)), len(known), rotations, voxel_size_angstrom * factor,
        TOLERANCE * diameter_angstrom, precision, recall,
    )  # fmt: skip
