"""How faithful an estimate is to the truth within each class of structure: arrays in, numbers out.

A mean over a whole volume says little about what is faint beside proteins. Here the correlation with the truth is taken
within the voxels of one class and those next to them, in bands of frequency that leave out what any blob has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.errors import InputError

Array = NDArray[Any]
Band = tuple[float, float]

# Differences of Gaussians, sigmas in voxels: fine, and coarse enough to be told from noise by eye.
BANDS: dict[str, Band] = {"0.8-6": (0.8, 6.0), "1.5-8": (1.5, 8.0)}
DILATION_PX = 2
SURROUNDINGS_PX = 8
FEWEST_VOXELS = 200  # of a class: below this its correlation is chance


@dataclass(frozen=True)
class Region:
    """Which voxels a class is judged in.

    Attributes:
        labels: values in the volume of labels that belong to the class.
        around: whether its surroundings are judged and not the class itself, which may outshine them.
    """

    labels: tuple[int, ...]
    around: bool = False


def band_passed(volume: Array, band: Band, sigma_px: float = 0.0) -> NDArray[np.float32]:
    """A volume between two Gaussians, mirrored at its faces.

    Args:
        volume: shape ``(z, y, x)``.
        band: their sigmas in voxels, the smaller one first.
        sigma_px: of a Gaussian filter that the volume is given first.
    """
    return _filtered(_waves(volume), band, sigma_px)


def _waves(volume: Array) -> NDArray[np.float32]:
    """The cosine transform of a volume: Gaussians with mirrored faces are products there."""
    return np.asarray(scipy.fft.dctn(np.asarray(volume, dtype=np.float32), norm="ortho"), dtype=np.float32)


def _filtered(waves: NDArray[np.float32], band: Band, sigma_px: float) -> NDArray[np.float32]:
    """The volume of a cosine transform between two Gaussians, after a Gaussian filter."""
    gains = []
    for sigma in band:
        along = [_gain(float(np.hypot(sigma, sigma_px)), n) for n in waves.shape]
        gains.append(along[0][:, None, None] * along[1][:, None] * along[2])
    return np.asarray(scipy.fft.idctn(waves * (gains[0] - gains[1]), norm="ortho"), dtype=np.float32)


def _gain(sigma_px: float, length: int) -> NDArray[np.float32]:
    """What a sampled Gaussian, cut at four sigmas, leaves of each cosine wave along an axis."""
    places = np.arange(1, int(4 * sigma_px + 0.5) + 1)
    weights = np.exp(-0.5 * (places / max(sigma_px, 1e-6)) ** 2)
    waves = np.cos(np.outer(np.pi * np.arange(length) / length, places))
    return np.asarray((1 + 2 * waves @ weights) / (1 + 2 * weights.sum()), dtype=np.float32)


def region_mask(labels: Array, region: Region) -> NDArray[np.bool_]:
    """The voxels of a class and those within 2 voxels, or the shell of 2 to 8 voxels about it; none where it is rare.

    Args:
        labels: of voxels, shape ``(z, y, x)``.
        region: the class.
    """
    inside = np.isin(labels, region.labels)
    if np.count_nonzero(inside) < (1 if region.around else FEWEST_VOXELS):
        return np.zeros(labels.shape, dtype=bool)
    away = scipy.ndimage.distance_transform_edt(~inside)
    if region.around:
        return np.asarray((away > DILATION_PX) & (away <= SURROUNDINGS_PX))
    return np.asarray(away <= DILATION_PX)


def correlation(a: Array, b: Array) -> float:
    """Pearson's correlation of two arrays of values; NaN where one of them is constant."""
    one, other = (np.asarray(values, dtype=np.float64) - np.mean(values, dtype=np.float64) for values in (a, b))
    power = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / power if power > 0 else float("nan")


def class_fidelity(
    truth: Array,
    estimates: Mapping[str, Array],
    labels: Array,
    regions: Mapping[str, Region],
    bands: Mapping[str, Band] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Correlate estimates with the truth, both band-passed, within each class.

    Args:
        truth: shape ``(z, y, x)``.
        estimates: volumes of the same shape, by method; scale and offset do not matter.
        labels: classes of voxels, the same shape.
        regions: the classes, by name.
        bands: differences of Gaussians by name; None for ``BANDS``.

    Returns:
        method -> class -> band -> correlation, without the classes that have fewer than ``FEWEST_VOXELS``.

    Raises:
        InputError: if shapes differ.
    """
    _check_shapes(truth, {**estimates, "labels": labels})
    return mask_fidelity(truth, estimates, region_masks(labels, regions), bands)


def mask_fidelity(
    truth: Array, estimates: Mapping[str, Array], masks: Mapping[str, Array], bands: Mapping[str, Band] | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """As `class_fidelity`, within masks by name, as `region_masks` gives them; each volume is filtered once."""
    found: dict[str, dict[str, dict[str, float]]] = {name: {label: {} for label in masks} for name in estimates}
    for title, band in (BANDS if bands is None else bands).items():
        wanted = band_passed(truth, band)
        for name, estimate in estimates.items():
            seen = band_passed(estimate, band)
            for label, mask in masks.items():
                found[name][label][title] = correlation(wanted[mask], seen[mask])
    return found


def best_gaussian(
    truth: Array, volume: Array, masks: Mapping[str, NDArray[np.bool_]], sigmas_px: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Correlations of a volume after the Gaussian filter that suits each class and band best: no user knows it.

    Args:
        truth: shape ``(z, y, x)``.
        volume: the same shape.
        masks: see ``region_masks``.
        sigmas_px: of the filters to try.

    Returns:
        class -> band -> correlation.
    """
    waves = _waves(volume)
    found: dict[str, dict[str, float]] = {label: {} for label in masks}
    for title, band in BANDS.items():
        wanted = band_passed(truth, band)
        inside = {label: wanted[mask] for label, mask in masks.items()}
        for sigma in sigmas_px:
            seen = _filtered(waves, band, sigma)
            for label, mask in masks.items():
                found[label][title] = max(found[label].get(title, -1.0), correlation(inside[label], seen[mask]))
    return found


def region_masks(labels: Array, regions: Mapping[str, Region]) -> dict[str, NDArray[np.bool_]]:
    """Masks by class, without the classes that are too rare."""
    masks = {name: region_mask(labels, region) for name, region in regions.items()}
    return {name: mask for name, mask in masks.items() if np.count_nonzero(mask) >= FEWEST_VOXELS}


def sheet_normals(inside: NDArray[np.bool_], sigma_px: float = 2.5) -> NDArray[np.float32]:
    """Normals of sheets at their voxels: the direction in which a softened mask changes most.

    Args:
        inside: which voxels belong to a sheet, shape ``(z, y, x)``.
        sigma_px: of the neighbourhood that decides.

    Returns:
        unit vectors in z, y, x up to their sign, ``(n, 3)``, in the order of ``np.argwhere(inside)``.
    """
    soft = scipy.ndimage.gaussian_filter(inside.astype(np.float32), 1.0)
    slopes = np.gradient(soft)
    tensor = np.empty((int(np.count_nonzero(inside)), 3, 3), dtype=np.float32)
    for i in range(3):
        for j in range(i, 3):
            tensor[:, i, j] = scipy.ndimage.gaussian_filter(slopes[i] * slopes[j], sigma_px)[inside]
            tensor[:, j, i] = tensor[:, i, j]
    return np.asarray(np.linalg.eigh(tensor)[1][..., -1], dtype=np.float32)


def _check_shapes(truth: Array, others: Mapping[str, Array]) -> None:
    for name, other in others.items():
        if other.shape != truth.shape:
            raise InputError(f"the truth has the shape {truth.shape} but '{name}' has {other.shape}")
