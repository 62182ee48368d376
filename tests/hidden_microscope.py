"""A microscope that the simulator knows nothing of: another MTF, coloured noise, a gain pattern, weaker contrast."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
from plain_mrc import new_mrc

from cryolithe.noise.rings import radius
from cryolithe.simulation.detector import Detector
from cryolithe.simulation.imaging import image_series
from cryolithe.simulation.imaging_recipe import ImagingRecipe, OpticsRecipe, SchemeRecipe

PIXEL = 10.0
SIDE = 128
SCHEME = SchemeRecipe(reach_deg=(56.0, 56.0), step_deg=(8.0, 8.0))
PLAIN = ImagingRecipe(scheme=SCHEME, total_exposure=(100.0, 100.0))


class Hidden(NamedTuple):
    """A series, and what nobody knows who has only the halves."""

    clean: np.ndarray
    even: np.ndarray
    odd: np.ndarray
    angles: tuple[float, ...]


def density(seed: int, depth: int = 24, side: int = SIDE) -> np.ndarray:
    """Grains of several sizes."""
    rng = np.random.default_rng([seed, 3])
    total = np.zeros((depth, side, side), dtype=np.float32)
    for size, count in ((1.5, 500), (3.0, 120), (6.0, 20)):
        seeds = np.zeros(total.shape, dtype=np.float32)
        np.add.at(seeds, tuple(rng.integers(0, n, count) for n in seeds.shape), 1)
        grains = scipy.ndimage.gaussian_filter(seeds, size, mode="wrap") * (2 * np.pi) ** 1.5 * size**3
        total += np.clip(grains, 0, 1)
    return total


def _colour(frequency_per_px: np.ndarray) -> np.ndarray:
    return 0.25 + 0.75 / (1 + (frequency_per_px / 0.2) ** 4)


def spread(angles: np.ndarray) -> np.ndarray:
    """Of the noise of an average of both halves, before it is coloured."""
    return 12.0 / np.cos(np.deg2rad(angles)) ** 0.4


def noise_power(frequency_per_px: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """What a profile should find, shape (angles, frequencies)."""
    return spread(angles)[:, None] ** 2 * _colour(frequency_per_px)


def coloured(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Noise whose power falls to about a quarter, in neither of the simulator's ways."""
    gain = np.sqrt(_colour(radius(shape)))
    return scipy.fft.irfft2(scipy.fft.rfft2(rng.standard_normal(shape)) * gain, s=shape)


def hidden_series(seed: int, contrast: float = 0.5, side: int = SIDE) -> Hidden:
    """Record a series with the hidden microscope, in grey values of its own."""
    rng = np.random.default_rng([seed, 5])
    recipe = ImagingRecipe(
        scheme=SCHEME,
        total_exposure=(100.0, 100.0),
        specimen_contrast=(contrast, contrast),
        optics=OpticsRecipe(defocus_um=(4.5, 4.5)),
        detector=Detector(mtf_nyquist=0.3, binning=2.0),
    )
    made = image_series(density(seed, side=side), slice(0, side), PIXEL, recipe, rng)
    pattern = 1 + 0.1 * scipy.ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.0)
    clean = 400.0 * made.clean * pattern.astype(np.float32)
    angles = made.plan.angles_deg
    halves = [
        clean + np.stack([np.sqrt(2) * s * coloured(rng, clean.shape[1:]) for s in spread(np.array(angles))])
        for _ in range(2)
    ]
    return Hidden(clean, *(half.astype(np.float32) for half in halves), angles)


def write_series(folder, name: str, made: Hidden, pixel: float = PIXEL) -> list[str]:
    """EVEN, ODD and ANGLES on disk."""
    paths = [folder / f"{name}_{end}" for end in ("EVN.mrc", "ODD.mrc")]
    for path, images in zip(paths, (made.even, made.odd), strict=True):
        with new_mrc(path, np.ascontiguousarray(images, dtype=np.float32)) as file:
            file.set_image_stack()
            file.voxel_size = pixel
    angles = folder / f"{name}.tlt"
    angles.write_text("".join(f"{a!r}\n" for a in made.angles))
    return [str(path) for path in (*paths, angles)]
