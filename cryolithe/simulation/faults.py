"""What goes wrong with tilt images: residual misalignment, hot pixels, uneven light, blank and dark images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from cryolithe.errors import SettingsError
from cryolithe.geometry import centre_px

Image = NDArray[np.float32]
Range = tuple[float, float]


def check_range(name: str, bounds: tuple[float, float], least: float = -math.inf, most: float = math.inf) -> None:
    """Raise SettingsError unless ``bounds`` are (least, most), finite and within the limits."""
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high) and least <= low <= high <= most):
        raise SettingsError(f"{name} must be (least, most) within {least:g} ... {most:g}, got {bounds}")


@dataclass(frozen=True)
class FaultRecipe:
    """Ranges, (least, most), of a series' faults; the default is a series without any.

    Attributes:
        shift_px: standard deviation of the shifts of the images of a series along each axis.
        rotation_deg: standard deviation of their rotations.
        magnification: standard deviation of their relative magnifications.
        hot_pixels: number of hot pixels per image.
        gradient: brightness at one edge over that at the opposite one, minus 1, half of it.
        blank_chance: chance of an image without specimen.
        dark_chance: chance of an image that is mostly shadowed.
        dark_brightness: what a shadow leaves of the brightness.

    Raises:
        SettingsError: if a range is upside down or out of bounds.
    """

    shift_px: Range = (0.0, 0.0)
    rotation_deg: Range = (0.0, 0.0)
    magnification: Range = (0.0, 0.0)
    hot_pixels: tuple[int, int] = (0, 0)
    gradient: Range = (0.0, 0.0)
    blank_chance: float = 0.0
    dark_chance: float = 0.0
    dark_brightness: Range = (0.03, 0.2)

    def __post_init__(self) -> None:
        check_range("shift_px", self.shift_px, 0, 100)
        check_range("rotation_deg", self.rotation_deg, 0, 45)
        check_range("magnification", self.magnification, 0, 0.2)
        check_range("hot_pixels", self.hot_pixels, 0, 10_000)
        check_range("gradient", self.gradient, 0, 0.9)
        check_range("dark_brightness", self.dark_brightness, 0.001, 1)
        if not (self.blank_chance >= 0 and self.dark_chance >= 0 and self.blank_chance + self.dark_chance <= 1):
            raise SettingsError("blank_chance and dark_chance must not be negative and add up to 1 at most")


@dataclass(frozen=True)
class Faults:
    """The faults of one image, as plain numbers.

    Attributes:
        shift_px: how far the image's content is moved along ``(y, x)``.
        rotation_deg: how far it is turned, from x towards y.
        magnification: by how much it is enlarged; 1 is not at all.
        hot_pixels: ``(y, x)`` of each hot pixel.
        hot_factors: their brightness over the image's mean.
        gradient: relative change of brightness from the middle to the edge along ``(y, x)``.
        brightness: 1, or what a shadow leaves.
        blank: whether the specimen is absent.
    """

    shift_px: tuple[float, float] = (0.0, 0.0)
    rotation_deg: float = 0.0
    magnification: float = 1.0
    hot_pixels: tuple[tuple[int, int], ...] = ()
    hot_factors: tuple[float, ...] = ()
    gradient: tuple[float, float] = (0.0, 0.0)
    brightness: float = 1.0
    blank: bool = False

    def as_plain(self) -> dict[str, Any]:
        """Return the numbers as a dictionary of lists, numbers and booleans."""
        plain = asdict(self)
        plain["hot_pixels"] = [list(place) for place in self.hot_pixels]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def draw_faults(
    recipe: FaultRecipe, tilts: int, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[Faults, ...]:
    """Draw the faults of every image of a series.

    Args:
        recipe: what may go wrong.
        tilts: number of images.
        shape: of an image, ``(y, x)``.
        rng: source of randomness.
    """
    shift, turn, enlarge = (
        float(rng.uniform(*pair)) for pair in (recipe.shift_px, recipe.rotation_deg, recipe.magnification)
    )
    drawn = []
    for _ in range(tilts):
        moves = rng.standard_normal(4)
        hot = int(rng.integers(recipe.hot_pixels[0], recipe.hot_pixels[1] + 1))
        places = rng.integers((0, 0), shape, size=(hot, 2))
        slope, direction = rng.uniform(*recipe.gradient), rng.uniform(0, 2 * math.pi)
        fate, shadow = rng.random(), float(rng.uniform(*recipe.dark_brightness))
        blank = bool(fate < recipe.blank_chance)
        dark = not blank and fate < recipe.blank_chance + recipe.dark_chance
        drawn.append(
            Faults(
                shift_px=(float(shift * moves[0]), float(shift * moves[1])),
                rotation_deg=float(turn * moves[2]),
                magnification=float(max(1 + enlarge * moves[3], 0.5)),
                hot_pixels=tuple((int(y), int(x)) for y, x in places),
                hot_factors=tuple(float(f) for f in rng.uniform(5, 50, size=hot)),
                gradient=(float(slope * math.sin(direction)), float(slope * math.cos(direction))),
                brightness=shadow if dark else 1.0,
                blank=blank,
            )
        )
    return tuple(drawn)


def misalign(image: Image, faults: Faults) -> Image:
    """Turn and enlarge an image about its middle, then shift it, in one cubic-spline interpolation.

    Args:
        image: shape ``(y, x)``; what comes in from outside mirrors the inside.
        faults: of this image.

    Returns:
        shape ``(y, x)``, float32.
    """
    if faults.shift_px == (0.0, 0.0) and faults.rotation_deg == 0 and faults.magnification == 1:
        return image
    angle = math.radians(faults.rotation_deg)
    # Output point p shows input point R(-angle) (p - c - shift) / magnification + c, in (y, x).
    back = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]) / faults.magnification
    centre = np.array([centre_px(n) for n in image.shape])
    offset = centre - back @ (centre + np.asarray(faults.shift_px))
    return scipy.ndimage.affine_transform(image, back, offset, order=3, mode="mirror", output=np.float32)


def illumination(shape: tuple[int, int], faults: Faults) -> Image:
    """Relative brightness of the light on an image: linear across it, dimmed by a shadow; ``(y, x)``, float32."""
    y, x = (np.linspace(-1, 1, n)[:, None] if axis == 0 else np.linspace(-1, 1, n) for axis, n in enumerate(shape))
    return (faults.brightness * np.maximum(1 + faults.gradient[0] * y + faults.gradient[1] * x, 0)).astype(np.float32)


def heat(counts: Image, faults: Faults) -> Image:
    """Counts with the hot pixels set to their multiples of the mean; shape ``(y, x)``, the input if there are none."""
    if not faults.hot_pixels:
        return counts
    heated = counts.copy()
    rows, columns = np.asarray(faults.hot_pixels).T
    heated[rows, columns] = np.asarray(faults.hot_factors, dtype=np.float32) * np.float32(counts.mean())
    return heated
