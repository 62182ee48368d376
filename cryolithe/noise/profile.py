"""A noise profile: what was measured of a laboratory's noise and signal, without any image of its specimens."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.noise.rings import FloatArray, weights
from cryolithe.noise.surface import Surface

Kind = Literal["halves", "neighbours"]
KINDS: tuple[str, ...] = get_args(Kind)
UPPER_BOUND = (
    "measured from neighbouring tilts, without frame halves: what neighbours do not share counts as noise, "
    "so the noise is an upper bound and the signal a lower one"
)
MEAN_FREE_PATH_NM = 330.0  # of 300 kV electrons in a crowded cell, see cryolithe.simulation.detector
PIXEL_TOLERANCE = 0.25  # relative difference of pixel sizes up to which spectra are rescaled
_LEAST_SLOPE, _CERTAIN = 0.3, 4.0  # variance follows brightness if the slope is above this, and so many errors from 0
BACKGROUND_TERMS = 5  # x, y, x², xy, y²


@dataclass(frozen=True)
class Profile:
    """Noise and signal of T images of one or more series, at K rings of frequency.

    Powers are those of the average of both halves, in squared units of its grey values; a tile is in these units once
    it is multiplied by its scale.

    Attributes:
        kind: "halves" for half differences, "neighbours" for differences of neighbouring tilts.
        pixel_size_angstrom: edge of a pixel.
        polarity: of the images, "dark" where dense is dark.
        image_shape: of the first series' images, ``(y, x)``.
        frequency_per_px: of the rings, shape ``(K,)``.
        angles_deg: shape ``(T,)``.
        series: number of the series of each image, from 0, shape ``(T,)``.
        noise_power: shape ``(T, K)``.
        signal_power: cross-spectrum, may be negative where there is no signal, shape ``(T, K)``.
        noise: smooth power of the noise.
        signal: smooth power of the signal.
        levels: mean brightness of each image, NaN where images have none (means removed), shape ``(T,)``.
        backgrounds: slowly varying brightness: factors of x, y, x², xy, y², each axis from -1 to 1, ``(T, 5)``.
        histogram: counts of low-passed brightness, in 48 bins from -6 to 6 standard deviations.
        variance_slope: relative change of the noise's variance with that of brightness (1 for counting), its error.
        thickness_paths: thickness in mean free paths, by Beer-Lambert; NaN where it is not known.
        tiles: shape ``(B, S, S)``, float16; none for "neighbours".
        tile_scale: shape ``(B,)``.
        tile_image: which image each tile is of, shape ``(B,)``.
        exposure: of a series, e/Å², NaN where it was not told.
        facts: plain values: program, hashes of the files, checks, notes.
    """

    kind: Kind
    pixel_size_angstrom: float
    polarity: str
    image_shape: tuple[int, int]
    frequency_per_px: FloatArray
    angles_deg: FloatArray
    series: NDArray[np.int64]
    noise_power: FloatArray
    signal_power: FloatArray
    noise: Surface
    signal: Surface
    levels: FloatArray
    backgrounds: FloatArray
    histogram: FloatArray
    variance_slope: tuple[float, float]
    thickness_paths: float
    tiles: NDArray[np.float16]
    tile_scale: FloatArray
    tile_image: NDArray[np.int64]
    exposure: float = math.nan
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def patch_px(self) -> int:
        """Edge of the patches that the spectra are of."""
        return 2 * self.frequency_per_px.size

    @property
    def has_levels(self) -> bool:
        """Whether grey values stand for brightness, with a mean."""
        return bool(np.isfinite(self.levels).all())

    @property
    def follows_brightness(self) -> bool:
        """Whether the noise's variance was seen to rise with brightness."""
        slope, error = self.variance_slope
        return self.has_levels and slope > max(_LEAST_SLOPE, _CERTAIN * error)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of it."""
        found = [UPPER_BOUND] if self.kind == "neighbours" else []
        return tuple(found + [str(note) for note in self.facts.get("notes", [])])

    def noise_variance(self) -> FloatArray:
        """Of each image up to Nyquist, shape ``(T,)``."""
        return np.asarray(self.noise_power @ _shares(self.patch_px))

    def signal_variance(self) -> FloatArray:
        """Of each image up to Nyquist, as measured, shape ``(T,)``; may be negative where there is hardly any."""
        return np.asarray(self.signal_power @ _shares(self.patch_px))

    def snr_db(self) -> FloatArray:
        """Signal-to-noise ratio of each image, NaN where no signal was found, shape ``(T,)``."""
        ratio = self.signal_variance() / self.noise_variance()
        return 10 * np.log10(np.where(ratio > 0, ratio, np.nan))

    def level_of_noise(self) -> FloatArray:
        """Noise of each image over that of the smooth curves, shape ``(T,)``."""
        share = _shares(self.patch_px)
        smooth = self.noise.power(self.frequency_per_px, self.angles_deg)
        return np.asarray((self.noise_power @ share) / (smooth @ share))

    def noise_curve(self, image: int) -> FloatArray:
        """Power of an image's noise: the smooth curve, at the image's own level, shape ``(K,)``."""
        smooth = self.noise.power(self.frequency_per_px, self.angles_deg[image : image + 1])[0]
        return np.asarray(smooth * self.level_of_noise()[image])

    def pixel_ratio(self, pixel_size_angstrom: float) -> float:
        """This profile's pixel over another one.

        Raises:
            InputError: if they differ by more than spectra can be rescaled.
        """
        ratio = self.pixel_size_angstrom / pixel_size_angstrom
        if not abs(pixel_size_angstrom / self.pixel_size_angstrom - 1) <= PIXEL_TOLERANCE + 1e-9:
            low, high = self.pixel_range
            raise InputError(
                f"the noise profile is of pixels of {self.pixel_size_angstrom:g} Å, which serves "
                f"{low:.3g}-{high:.3g} Å, but the images have {pixel_size_angstrom:g} Å; measure a profile of stacks "
                "binned alike, or set the recipe's cell.voxel_size_angstrom"
            )
        return ratio

    @property
    def pixel_range(self) -> tuple[float, float]:
        """Pixel sizes that it serves, Å."""
        return (1 - PIXEL_TOLERANCE) * self.pixel_size_angstrom, (1 + PIXEL_TOLERANCE) * self.pixel_size_angstrom


def _shares(patch_px: int) -> FloatArray:
    """What part of the variance up to Nyquist a ring of power 1 makes, shape ``(K,)``."""
    counts = weights(patch_px)
    return counts / counts.sum()
