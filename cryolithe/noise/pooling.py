"""One profile of what was measured of one or more series."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from cryolithe.noise.bank import shaped
from cryolithe.noise.contrast import thickness_paths, variance_slope
from cryolithe.noise.measure import Measured
from cryolithe.noise.profile import Kind, Profile
from cryolithe.noise.rings import FloatArray, frequencies, independent, ring_means
from cryolithe.noise.scales import scaled, scales_of, told_scales
from cryolithe.noise.surface import fit_surface

BANK_BYTES = 36_000_000
MOST_TILES = 4  # of an image
_SMALLEST_TILE_PX = 32
_MISFIT_SIGNAL, _MISFIT_NOISE = 0.1, 0.02
_TILE_GAIN = 2.0  # a tile's amplitudes are corrected by this at most
_FEW = 3.0  # standard errors of a correlation by chance


def bank_size(images: int, tile_px: int) -> tuple[int, int]:
    """Edge of tiles and tiles of each image that a profile of so many images has room for."""
    while images * tile_px**2 * 2 > BANK_BYTES and tile_px > _SMALLEST_TILE_PX:
        tile_px = 2 * (tile_px // 4)
    return tile_px, max(1, min(MOST_TILES, BANK_BYTES // (images * tile_px**2 * 2)))


def pool(parts: list[Measured], kind: Kind, about: dict[str, Any], facts: dict[str, Any]) -> Profile:
    """Make a profile.

    Args:
        parts: measured of each series, by one plan; brought to the grey scale of the first.
        kind: how.
        about: pixel_size_angstrom, polarity, image_shape and exposure of the profile.
        facts: plain values to keep with it.
    """
    scales = scales_of(parts)
    parts = [scaled(part, factor) for part, factor in zip(parts, scales, strict=True)]
    facts = facts | {"scales": scales, "notes": [*facts.get("notes", ()), *told_scales(scales)]}
    angles = np.concatenate([part.angles_deg for part in parts])
    noise, signal = (np.concatenate([getattr(part, key) for part in parts]) for key in ("noise_power", "signal_power"))
    size = 2 * noise.shape[1]
    frequency = frequencies(size)
    counts = np.concatenate([part.patches for part in parts])[:, None] * independent(size, 1)
    fitted_noise = fit_surface(frequency, angles, noise, counts, _MISFIT_NOISE)
    smooth = fitted_noise.power(frequency, angles)
    fitted_signal = fit_surface(frequency, angles, signal, counts, _MISFIT_SIGNAL, smooth)
    levels = np.concatenate([part.levels for part in parts])
    if not np.isfinite(levels).all():
        levels = np.full(levels.size, math.nan)
    profile = Profile(
        kind=kind,
        frequency_per_px=frequency,
        angles_deg=angles,
        series=np.repeat(np.arange(len(parts)), [part.angles_deg.size for part in parts]),
        noise_power=noise,
        signal_power=signal,
        noise=fitted_noise,
        signal=fitted_signal,
        levels=levels,
        backgrounds=np.concatenate([part.backgrounds for part in parts]),
        histogram=np.sum([part.histogram for part in parts], axis=0),
        variance_slope=variance_slope(np.sum([part.slope for part in parts], axis=0)),
        thickness_paths=_thickness(parts),
        tiles=np.zeros((0, 0, 0), dtype=np.float16),
        tile_scale=np.zeros(0),
        tile_image=np.zeros(0, dtype=np.int64),
        facts=facts,
        **about,
    )
    return _with_tiles(profile, parts)


def _thickness(parts: list[Measured]) -> float:
    found = np.array([thickness_paths(part.levels, part.angles_deg) for part in parts])
    return float(np.nanmean(found)) if np.isfinite(found).any() else math.nan


def _with_tiles(profile: Profile, parts: list[Measured]) -> Profile:
    """The profile with its bank: each tile brought to the smooth spectrum of its image, and scaled to fit float16."""
    first = np.cumsum([0, *(part.angles_deg.size for part in parts)])
    tiles: list[NDArray[np.float16]] = []
    scales: list[float] = []
    images: list[int] = []
    curves: dict[int, FloatArray] = {}
    for start, part in zip(first, parts, strict=False):
        for tile, own in zip(part.tiles, part.tile_image, strict=False):
            image = int(start + own)
            target = curves.setdefault(image, profile.noise_curve(image))
            values = _corrected(tile, target, profile.frequency_per_px)
            scale = float(np.std(values)) or 1.0
            tiles.append((values / np.float32(scale)).astype(np.float16))
            scales.append(scale)
            images.append(image)
    edge = parts[0].tiles.shape[-1]
    bank = np.stack(tiles) if tiles else np.zeros((0, edge, edge), dtype=np.float16)
    return dataclasses.replace(
        profile,
        tiles=bank,
        tile_scale=np.array(scales),
        tile_image=np.array(images, dtype=np.int64),
        facts=profile.facts | {"checks": _checks(profile, parts, bank)},
    )


def _corrected(tile: NDArray[np.float32], target: FloatArray, frequency: FloatArray) -> NDArray[np.float32]:
    """A tile whose smooth spectrum is the target: what a single patch has by chance is not repeated for ever."""
    size = tile.shape[0]
    own = ring_means(np.abs(scipy.fft.rfft2(tile.astype(np.float64))) ** 2 / size**2)
    rings = frequencies(size)
    smooth = fit_surface(rings, np.zeros(1), own[None], independent(size, 2), _MISFIT_NOISE)
    wanted = np.interp(rings, frequency, target)
    gain = np.sqrt(wanted / smooth.power(rings, (0.0,))[0])
    return shaped(tile, np.clip(gain, 1 / _TILE_GAIN, _TILE_GAIN), rings)


def _checks(profile: Profile, parts: list[Measured], bank: NDArray[np.float16]) -> dict[str, float]:
    """What shows whether the bank holds anything but noise."""
    if not len(bank):
        return {}
    pixels = sum(float(part.patches.sum()) for part in parts) * profile.patch_px**2
    return {
        "signal_in_noise": float(np.mean([part.checks["signal_in_noise"] for part in parts])),
        "signal_in_noise_by_chance": _FEW / math.sqrt(pixels),
        "ssnr_of_mean_tile": ssnr_of_mean(bank),
        "outliers": float(sum(part.checks["outliers"] for part in parts)),
    }


def ssnr_of_mean(tiles: NDArray[Any]) -> float:
    """Power of what all tiles have in common over that of each one's own; near 0, of either sign, if there is none.

    Args:
        tiles: of equal variance, shape ``(B, S, S)``.
    """
    count = len(tiles)
    if count < 2:
        return 0.0
    total = np.zeros(tiles.shape[1:])
    each = 0.0
    for tile in tiles:
        values = tile.astype(np.float64)
        values -= values.mean()
        total += values
        each += float(np.mean(values**2)) / count
    common = float(np.mean((total / count) ** 2))
    return (common - each / count) / (each * (1 - 1 / count)) if each > 0 else 0.0
