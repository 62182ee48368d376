"""Simulated images that look as if recorded where a profile was measured: its signal's spectrum, its noise.

The gain that brings the spectrum of clean images to the measured one is smooth in frequency and tilt, and stops at
1/4 and 4: beyond that it is not the microscope but the specimen that differs, and the words say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.noise.bank import Image, laid_out, shaped, synthesised
from cryolithe.noise.contrast import drawn_background, without_background
from cryolithe.noise.profile import Profile
from cryolithe.noise.rings import FloatArray, frequencies, independent, on_rings, patch_size, powers
from cryolithe.noise.surface import fit_surface

MOST_GAIN = 4.0
_HEARD = 0.03  # signal over noise, above which the measured signal's power is known well enough to judge a specimen
_HEARD_SHARE = 0.25  # of the tilts: where fewer know it, it is a fitted curve's end that speaks, not the specimen
_NEAR_DEG = 0.75  # images of a series this close in angle are alike
_FAR_DEG = 6.0  # beyond the measured angles by more than this is worth a word
_MISFIT = 0.1
_LEAST_BRIGHTNESS = 0.05
_BRIGHTNESS_PX = 4.0  # blur of what the noise's amplitude follows


@dataclass(frozen=True)
class Imitation:
    """A series in the units of a profile, dense = dark.

    Attributes:
        clean: the signal with the measured spectrum, shape ``(tilts, y, x)``.
        even: with background and noise of half of the frames.
        odd: the same.
        words: what a user should know.
        drawn: plain values that tell what was done.
    """

    clean: Image
    even: Image
    odd: Image
    words: tuple[str, ...]
    drawn: dict[str, Any]


def imitate(
    clean: Image,
    angles_deg: tuple[float, ...],
    pixel_size_angstrom: float,
    profile: Profile,
    rng: np.random.Generator,
) -> Imitation:
    """Give clean images the spectrum, the background and the noise of a profile.

    Args:
        clean: noiseless, each with a mean near 0, shape ``(tilts, y, x)``.
        angles_deg: their angles.
        pixel_size_angstrom: edge of a pixel.
        profile: what was measured.
        rng: source of all randomness.

    Raises:
        InputError: if the pixel sizes differ by more than spectra can be rescaled.
    """
    ratio = profile.pixel_ratio(pixel_size_angstrom)
    gains = signal_gain(clean, angles_deg, ratio, profile)
    angles = np.asarray(angles_deg, dtype=np.float64)
    shape = (clean.shape[1], clean.shape[2])
    series = int(rng.choice(np.unique(profile.series)))
    mirror = 1 - 2 * rng.integers(2, size=2)
    signal, even, odd = (np.empty(clean.shape, dtype=np.float32) for _ in range(3))
    for tilt, angle in enumerate(angles):
        gain = on_rings(gains.gain[tilt], gains.frequency_per_px, shape)
        signal[tilt] = scipy.fft.irfft2(scipy.fft.rfft2(clean[tilt].astype(np.float64)) * gain, s=shape)
        images = nearest_images(profile, series, float(angle))
        light = _light(profile, images[0], shape, pixel_size_angstrom, mirror)
        first, second = (noise_image(profile, images, shape, ratio, rng, half) for half in (1, 2))
        if profile.follows_brightness:
            level = np.float32(profile.levels[images[0]])
            blurred = scipy.ndimage.gaussian_filter(signal[tilt] + light, _BRIGHTNESS_PX) / level
            amplitude = np.sqrt(np.maximum(1 + profile.variance_slope[0] * blurred, _LEAST_BRIGHTNESS))
            first, second = first * amplitude, second * amplitude
        seen = signal[tilt] + light
        even[tilt], odd[tilt] = seen + first + second, seen + first - second
    return Imitation(signal, even, odd, _words(gains, angles, pixel_size_angstrom, profile), _drawn(gains, series))


@dataclass(frozen=True)
class Gains:
    """Factors of the amplitudes of clean images.

    Attributes:
        frequency_per_px: of the rings, shape ``(K,)``.
        gain: of each image, limited, shape ``(tilts, K)``.
        unit: what a gain of 1 is, of each image, shape ``(tilts,)``: the brightness that contrast is relative to
            where it is known, else the mean gain.
        wanted_db: by how many dB of power the measured signal exceeds the simulated one, ``(tilts, K)``.
        heard: where the measured signal is known well enough, the same shape.
    """

    frequency_per_px: FloatArray
    gain: FloatArray
    unit: FloatArray
    wanted_db: FloatArray
    heard: NDArray[np.bool_]


def signal_gain(clean: Image, angles_deg: tuple[float, ...], ratio: float, profile: Profile) -> Gains:
    """The smooth gain that brings the spectra of clean images to a profile's.

    Args:
        clean: shape ``(tilts, y, x)``.
        angles_deg: their angles.
        ratio: the profile's pixel over that of the images.
        profile: what was measured.
    """
    size = patch_size((clean.shape[1], clean.shape[2]))
    frequency, angles = frequencies(size), np.asarray(angles_deg, dtype=np.float64)
    measured = powers([without_background(image) for image in clean], size)
    seen = measured.sum(axis=1) > 0  # an image may be blank
    target = profile.signal.power(frequency * ratio, angles) * ratio**2
    noise = profile.noise.power(frequency * ratio, angles) * ratio**2
    if not seen.any():
        ones = np.ones_like(measured)
        return Gains(frequency, ones, np.ones(angles.size), 0 * ones, np.zeros(ones.shape, dtype=bool))
    counts = independent(size, max(1, clean[0].size // size**2))
    smooth = fit_surface(frequency, angles[seen], measured[seen], counts, _MISFIT)
    gain = np.sqrt(target / smooth.power(frequency, angles))
    heard = target > _HEARD * noise
    if not heard.any():
        heard = target / noise >= np.quantile(target / noise, 0.9)
    if profile.has_levels:
        unit = np.array([profile.levels[nearest_images(profile, None, float(angle))].mean() for angle in angles])
    else:
        share = heard / frequency  # equal parts of the logarithm of frequency count alike
        unit = np.full(angles.size, np.exp((share * np.log(gain)).sum() / share.sum()))
    relative = gain / unit[:, None]
    limited = np.clip(relative, 1 / MOST_GAIN, MOST_GAIN) * unit[:, None]
    return Gains(frequency, limited, unit, 20 * np.log10(relative), heard)


def nearest_images(profile: Profile, series: int | None, angle_deg: float) -> NDArray[np.int64]:
    """Numbers of the images nearest to an angle, of one series of a profile or of all, the nearest first."""
    own = np.arange(profile.angles_deg.size) if series is None else np.flatnonzero(profile.series == series)
    if profile.kind == "halves" and series is not None:
        own = own[np.isin(own, profile.tile_image)] if np.isin(own, profile.tile_image).any() else profile.tile_image
    away = np.abs(profile.angles_deg[own] - angle_deg)
    order = np.argsort(away, kind="stable")
    near = order[away[order] <= away.min() + _NEAR_DEG]
    return np.asarray(own[near], dtype=np.int64)


def noise_image(
    profile: Profile,
    images: NDArray[np.int64],
    shape: tuple[int, int],
    ratio: float,
    rng: np.random.Generator,
    variants: int = 0,
) -> Image:
    """An image of a profile's noise, with the power of that of an average of both halves.

    Args:
        profile: with or without tiles.
        images: numbers of those that the noise is taken of, the first of them most wanted.
        shape: of the image, ``(y, x)``.
        ratio: the profile's pixel over that of the image.
        rng: source of randomness.
        variants: see `cryolithe.noise.bank.laid_out`.
    """
    first = int(images[0])
    scaled = profile.frequency_per_px / ratio
    if profile.kind == "neighbours":
        return synthesised(profile.noise_curve(first) * ratio**2, scaled, shape, rng)
    chosen = np.flatnonzero(np.isin(profile.tile_image, images))
    tiles = tuple(profile.tiles[n].astype(np.float32) * np.float32(profile.tile_scale[n]) for n in chosen)
    if abs(ratio - 1) > 1e-6:
        curve = profile.noise_curve(first)
        wanted = np.interp(profile.frequency_per_px, scaled, curve) * ratio**2
        factor = np.sqrt(wanted / curve)
        tiles = tuple(shaped(tile, factor, profile.frequency_per_px) for tile in tiles)
    return laid_out(tiles, shape, rng, variants)


def _light(
    profile: Profile, image: np.int64, shape: tuple[int, int], pixel_size_angstrom: float, mirror: NDArray[Any]
) -> Image:
    """The slow background of a profile's image, of as much of its field as is seen; mirrored alike for all tilts."""
    y, x = (
        min(1.0, pixel_size_angstrom * n / (profile.pixel_size_angstrom * whole))
        for n, whole in zip(shape, profile.image_shape, strict=True)
    )
    sy, sx = (float(sign) for sign in mirror)
    scale = np.array([sx * x, sy * y, x * x, sx * sy * x * y, y * y])
    return drawn_background(profile.backgrounds[image] * scale, shape)


def _words(gains: Gains, angles: FloatArray, pixel_size_angstrom: float, profile: Profile) -> tuple[str, ...]:
    words = [*profile.notes]
    limit = 20 * np.log10(MOST_GAIN)
    judged = np.where(gains.heard, gains.wanted_db, 0.0)
    # A ring is judged over the tilts, lest a single one's chance decide.
    tilts = gains.heard.sum(axis=0)
    mean = np.where(tilts >= _HEARD_SHARE * len(angles), judged.sum(axis=0) / np.maximum(tilts, 1), 0.0)
    worst = int(np.abs(mean).argmax())
    if abs(mean[worst]) > limit:
        more = "more" if mean[worst] > 0 else "less"
        words.append(
            f"the specimen recipe is wrong for these data: at {pixel_size_angstrom / gains.frequency_per_px[worst]:.0f}"
            f" Å they have {abs(mean[worst]):.1f} dB {more} power than what is simulated, and a gain stops at "
            f"{limit:.0f} dB"
        )
    if abs(profile.pixel_size_angstrom / pixel_size_angstrom - 1) > 1e-3:
        words.append(
            f"spectra measured at {profile.pixel_size_angstrom:g} Å were rescaled to pixels of "
            f"{pixel_size_angstrom:.4g} Å"
        )
    low, high = profile.angles_deg.min(), profile.angles_deg.max()
    beyond = max(float(low - angles.min()), float(angles.max() - high), 0.0)
    if beyond > _FAR_DEG:
        words.append(
            f"tilts reach {beyond:.0f}° beyond the measured {low:.0f}° to {high:.0f}°: their noise is that at the ends"
        )
    return tuple(words)


def _drawn(gains: Gains, series: int) -> dict[str, Any]:
    middle = int(np.abs(gains.unit - np.median(gains.unit)).argmin())
    shown = np.unique(np.linspace(0, gains.frequency_per_px.size - 1, 9).astype(int))
    relative = gains.gain[middle] / gains.unit[middle]
    return {
        "series_of_profile": series,
        "gain_unit": float(gains.unit[middle]),
        "gain_per_px": [[round(float(gains.frequency_per_px[n]), 4), round(float(relative[n]), 4)] for n in shown],
    }
