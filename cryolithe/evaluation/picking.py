"""Finding particles without a template, and counting how many of those found are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.spatial import cKDTree
from skimage.measure import block_reduce

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

# Zeng et al. (DUAL, 2024, "Template-free particle picking") picked ribosomes of 28 nm in voxels of 1 nm with
# Gaussians of 8.0 and 8.8 (times 1.1), 24 nm between picks, 8 nm of tolerance, the 500 best.
DIAMETER_ANGSTROM = 280.0
SIGMA, SIGMA_RATIO, SPACING, TOLERANCE = 8.0 / 28, 1.1, 24.0 / 28, 8.0 / 28  # of the diameter
MOST_PICKS = 500
FEWEST_SIGMA_PX = 3.0  # of the smaller Gaussian after binning


@dataclass(frozen=True)
class PickingScore:
    """Found positions against known ones.

    Attributes:
        precision: share of the found that are known.
        recall: share of the known that were found.
        f1: harmonic mean of both.
        found: how many were found.
        known: how many there are in the volume.
        true: found and known.
        diameter_angstrom: to which the settings were scaled.
        tolerance_angstrom: within which a position counts as found.
    """

    precision: float
    recall: float
    f1: float
    found: int
    known: int
    true: int
    diameter_angstrom: float
    tolerance_angstrom: float


def binned(volume: Array, factor: int) -> NDArray[np.float32]:
    """Means of blocks of ``factor``³ voxels; what fills no block at the far ends is cut off."""
    if factor == 1:
        return np.array(volume, dtype=np.float32)
    whole = tuple(slice(0, n - n % factor) for n in volume.shape)
    reduced: NDArray[np.float32] = block_reduce(volume[whole], (factor,) * 3, np.mean).astype(np.float32)
    return reduced


def unbinned(positions: FloatArray, factor: int) -> FloatArray:
    """Positions in the voxels of the volume before `binned`: centres of blocks."""
    return positions * factor + (factor - 1) / 2


def spaced_maxima(score: Array, spacing_px: float, most: int) -> tuple[FloatArray, FloatArray]:
    """Local maxima above 0, the best first, none closer than ``spacing_px`` to a better one.

    Returns:
        positions ``(z, y, x)``, shape ``(N, 3)``, and scores, shape ``(N,)``.
    """
    peaks = np.argwhere((score == maximum_filter(score, 3)) & (score > 0))
    values = score[tuple(peaks.T)]
    order = np.argsort(-values, kind="stable")
    peaks, values = peaks[order].astype(np.float64), values[order].astype(np.float64)
    kept: list[int] = []
    free = np.ones(len(peaks), dtype=bool)
    near = cKDTree(peaks) if len(peaks) else None
    for number in range(len(peaks)):
        if len(kept) == most:
            break
        if free[number] and near is not None:
            kept.append(number)
            free[near.query_ball_point(peaks[number], spacing_px)] = False
    return np.asarray(peaks[kept], dtype=np.float64), np.asarray(values[kept], dtype=np.float64)


def pick_blobs(volume: Array, diameter_px: float, most: int = MOST_PICKS) -> tuple[FloatArray, FloatArray]:
    """Pick bright blobs by a difference of Gaussians (Voss et al., J. Struct. Biol. 166, 205, 2009).

    The settings are those of Zeng et al. (DUAL), scaled to the diameter. Large Gaussians are applied to a binned
    volume; the binning's own blur is subtracted from their variance.

    Args:
        volume: shape ``(z, y, x)``; particles are brighter than what surrounds them.
        diameter_px: of the particles.
        most: the best so many are returned.

    Returns:
        positions ``(z, y, x)`` in voxels, the best first, and scores.
    """
    sigma = SIGMA * diameter_px
    factor = max(1, min(math.floor(sigma / FEWEST_SIGMA_PX), min(volume.shape) // 8))
    small = binned(volume, factor)
    small -= np.float32(small.mean(dtype=np.float64))
    blur = (factor**2 - 1) / 12  # variance of the mean over a block, in voxels²
    narrow = gaussian_filter(small, math.sqrt(max(sigma**2 - blur, 0.0)) / factor)
    # A Gaussian of a Gaussian: the wide one comes from the narrow one.
    wide = gaussian_filter(narrow, sigma / factor * math.sqrt(SIGMA_RATIO**2 - 1))
    peaks, scores = spaced_maxima(narrow - wide, SPACING * diameter_px / factor, most)
    return unbinned(peaks, factor), scores


def match(found: FloatArray, known: FloatArray, tolerance_px: float) -> NDArray[np.bool_]:
    """Tell which found positions, the best first, are known ones; each known position is found at most once.

    Args:
        found: shape ``(N, 3)``.
        known: shape ``(M, 3)``.
        tolerance_px: largest distance.

    Returns:
        shape ``(N,)``.
    """
    hit = np.zeros(len(found), dtype=bool)
    if len(found) == 0 or len(known) == 0:
        return hit
    tree, taken = cKDTree(known), set[int]()
    for number, position in enumerate(found):
        near = [i for i in tree.query_ball_point(position, tolerance_px) if i not in taken]
        if near:
            taken.add(min(near, key=lambda i: float(((known[i] - position) ** 2).sum())))
            hit[number] = True
    return hit


def picking_score(hit: NDArray[np.bool_], known: int, diameter_angstrom: float) -> PickingScore:
    """Precision, recall and F1 (Jones, Deshmukh & Pande 2026, eq. 7)."""
    true = int(hit.sum())
    precision, recall = true / max(len(hit), 1), true / max(known, 1)
    f1 = 2 * precision * recall / (precision + recall) if true else 0.0
    return PickingScore(precision, recall, f1, len(hit), known, true, diameter_angstrom, TOLERANCE * diameter_angstrom)


def precision_recall(hit: NDArray[np.bool_], known: int) -> tuple[FloatArray, FloatArray, float]:
    """Precision and recall as the threshold falls from the best score, and the area under the curve.

    The area is ``Σ (R_i - R_{i-1}) P_i``; what is never found adds nothing.

    Args:
        hit: of each found position, the best first, shape ``(N,)``.
        known: number of known positions, at least 1.

    Returns:
        precision and recall, shape ``(N,)``, and the area.
    """
    true = np.cumsum(hit)
    precision = true / np.arange(1, len(hit) + 1)
    recall = true / known
    return precision, recall, float((np.diff(recall, prepend=0.0) * precision).sum())
