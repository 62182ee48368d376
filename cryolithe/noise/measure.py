"""From a series' half frames, or from its images alone, to what a profile keeps of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.images import clipped_sigma
from cryolithe.noise.bank import largest_tile_px, margin_px, seamless, turned
from cryolithe.noise.between import FixedPattern, Leak
from cryolithe.noise.contrast import (
    HAS_LEVEL,
    HISTOGRAM_BINS,
    background,
    histogram,
    remove_background,
    slope_sums,
)
from cryolithe.noise.halves import HalfSums, check_halves
from cryolithe.noise.places import clear_square, holds_anything, usable
from cryolithe.noise.rings import FloatArray, patch_size, ring_means, transform
from cryolithe.noise.rings import power as image_power
from cryolithe.tilts import TiltSeries

Image = NDArray[np.float32]

FEWEST_TILTS = 5
SMALLEST_PX = 48
_MOST_LEFT_OUT = 0.1  # of the images, because their borders leave no room for a patch
OUTLIER_SIGMAS = 8.0  # of a half difference: a pixel that was hit, not counted
WORTH_A_LEAK = 0.01  # correlation of noise with the specimen
_LEAK_BY_CHANCE = 9.0  # by the root of the pixels; noise whose pixels are not independent has less than nine deviations
_TILE_STREAM = 71  # keeps the tiles' random numbers apart from all others


@dataclass(frozen=True)
class Plan:
    """What all series of a profile share.

    Attributes:
        patch_px: edge of the patches that spectra are of.
        tile_px: edge of the tiles.
        tiles: tiles kept of each image, at most.
        seed: of where tiles are cut and how they are turned.
    """

    patch_px: int
    tile_px: int
    tiles: int
    seed: int


@dataclass(frozen=True)
class Measured:
    """What was measured of one series; arrays over its usable images, see `cryolithe.noise.profile.Profile`."""

    angles_deg: FloatArray
    noise_power: FloatArray
    signal_power: FloatArray
    patches: NDArray[np.int64]
    levels: FloatArray
    backgrounds: FloatArray
    histogram: FloatArray
    slope: FloatArray
    tiles: NDArray[np.float32]
    tile_image: NDArray[np.int64]
    notes: tuple[str, ...]
    checks: dict[str, float]


def usable_shape(series: TiltSeries, name: str) -> tuple[int, int]:
    """Shape of a series' images.

    Raises:
        InputError: if there are too few images, or too small ones.
    """
    shape = series.geometry.image_shape
    if series.geometry.tilts < FEWEST_TILTS:
        raise InputError(
            f"{name} holds {series.geometry.tilts} images; spectra against tilt need {FEWEST_TILTS} or more"
        )
    if min(shape) < SMALLEST_PX:
        raise InputError(
            f"{name} holds images of {shape[1]} x {shape[0]} pixels; spectra need {SMALLEST_PX} or more along each "
            "axis: bin less"
        )
    return shape


def largest_plan(shapes: list[tuple[int, int]]) -> tuple[int, int]:
    """Edges of the patches and the tiles that images of all shapes have room for."""
    smallest = (min(shape[0] for shape in shapes), min(shape[1] for shape in shapes))
    return patch_size(smallest), largest_tile_px(smallest)


def room(series: tuple[TiltSeries, ...], shape: tuple[int, int]) -> tuple[int, int]:
    """What of a series' images patches have room in: all of them, or what most hold without empty borders.

    Args:
        series: of two halves, or of one stack.
        shape: of their images.
    """
    tile = largest_tile_px(shape)
    whole = max(patch_size(shape), tile + margin_px(tile))
    edges = []
    for tilt in range(series[0].geometry.tilts):
        images = [np.asarray(one.image(tilt), dtype=np.float32) for one in series]
        valid = holds_anything(images[0], images[-1])
        edges.append(min(shape) if valid.all() else clear_square(valid)[1])
    some = [edge for edge in edges if edge]
    edge = int(np.quantile(some, _MOST_LEFT_OUT, method="lower")) if some else 0
    if edge >= whole:
        return shape
    edge = max(edge, SMALLEST_PX, whole // 2)
    return edge, edge


def _finite(series: TiltSeries, number: int, name: str) -> Image:
    image = np.asarray(series.image(number), dtype=np.float32)
    if not np.isfinite(image).all():
        raise InputError(
            f"image {series.section(number) + 1} of {name} holds values that are not finite; mend the stack"
        )
    return image


@dataclass(frozen=True)
class _Split:
    """Half difference and average of an image, repaired, and where they hold anything."""

    noise: Image
    mean: Image
    valid: NDArray[np.bool_]
    hits: int


def _split(even: Image, odd: Image) -> _Split:
    valid = holds_anything(even, odd)
    half = np.float32(0.5)
    noise: Image = half * (even - odd)
    mean: Image = half * (even + odd)
    if valid.any():
        noise = np.asarray(noise - np.float32(noise[valid].mean(dtype=np.float64)), dtype=np.float32)
        limit = np.float32(OUTLIER_SIGMAS * clipped_sigma(noise[valid]))
        if limit > 0:
            # What hit one half only is in the average, too, with half its brightness.
            beyond = noise - np.clip(noise, -limit, limit)
            middle = np.float32(np.median(mean[valid][:: max(1, valid.sum() // 100_000)]))
            mean = np.asarray(mean - np.abs(beyond) * np.sign(mean - middle), dtype=np.float32)
            noise = np.asarray(noise - beyond, dtype=np.float32)
            return _Split(noise, mean, valid, int((beyond != 0).sum()))
    return _Split(noise, mean, valid, 0)


def _level(image: Image, valid: NDArray[np.bool_], spread: float) -> float:
    """Mean brightness, NaN where means were removed."""
    level = float(image[valid].mean(dtype=np.float64))
    return level if level > HAS_LEVEL * spread else math.nan


@dataclass(frozen=True)
class _Image:
    """What is kept of one image."""

    number: int
    spectra: dict[str, FloatArray]
    product: NDArray[np.complex128]
    patches: int
    level: float
    background: FloatArray
    histogram: FloatArray
    slope: FloatArray
    tiles: list[Image]
    sums: tuple[float, float, float, float]  # pixels, even, odd, squares
    hits: int


class _Between(NamedTuple):
    """Sums over pairs of images."""

    fixed: FixedPattern
    leak: Leak


def measure_halves(
    halves: tuple[TiltSeries, TiltSeries],
    names: tuple[str, str],
    plan: Plan,
    number: int = 0,
    on_image: Callable[[], object] = lambda: None,
) -> Measured:
    """Measure noise and signal of a series by its even and odd halves.

    Args:
        halves: of one series, of one shape.
        names: of the two stacks, for messages.
        plan: what the series of a profile share.
        number: of the series in the profile.
        on_image: called after each image.

    Raises:
        InputError: if they are no two halves of one series, see `cryolithe.noise.halves`, or hold values that are not
            finite, or too few images.
    """
    even, odd = halves
    found: list[_Image] = []
    same = 0
    between = _Between(FixedPattern(), Leak())
    for tilt in range(even.geometry.tilts):
        first_half, second_half = _finite(even, tilt, names[0]), _finite(odd, tilt, names[1])
        same += int(np.ptp(first_half) > 0 and np.array_equal(first_half, second_half))
        split = _split(first_half, second_half)
        rng = np.random.default_rng([plan.seed, number, tilt, _TILE_STREAM])
        image = _measure_image(split, plan, tilt, rng, between)
        if image is not None:
            found.append(image)
        on_image()
    left_out = even.geometry.tilts - len(found)
    if same > left_out / 2 and same:
        raise InputError(
            f"{same} images of {names[0]} are the same in {names[1]}; give the even and the odd frames of the series"
        )
    _check_enough(len(found), left_out, names[0], plan)
    pixels, first, second, squares = np.sum([image.sums for image in found], axis=0)
    spectra = {key: np.stack([image.spectra[key] for image in found]) for key in found[0].spectra}
    sums = HalfSums(
        even=spectra["even"],
        odd=spectra["odd"],
        cross=spectra["cross"],
        product=np.sum([image.product for image in found], axis=0),
        between=between.fixed.power(plan.patch_px),
        patches=np.array([image.patches for image in found]),
        means=(first / pixels, second / pixels),
        deviation=math.sqrt(max(squares / pixels, 0.0)),
    )
    notes = [*check_halves(sums, names)]
    tiles = [tile for image in found for tile in image.tiles]
    if not tiles:
        raise InputError(
            f"no image of {names[0]} holds a piece of {plan.tile_px + margin_px(plan.tile_px)} x "
            f"{plan.tile_px + margin_px(plan.tile_px)} pixels without empty borders; crop the stacks"
        )
    if left_out:
        notes.append(_told_left_out(left_out, number, plan))
    hits = sum(image.hits for image in found)
    leaked = between.leak.correlation
    if abs(leaked) > max(WORTH_A_LEAK, _LEAK_BY_CHANCE / math.sqrt(pixels)):
        notes.append(
            f"half differences hold the specimen (correlation with neighbouring images {leaked:.3f}): halves differ "
            "in contrast or place, and pieces of noise show it faintly"
        )
    checks = {
        "signal_in_noise": leaked,
        "outliers": float(hits),
    }
    return Measured(
        angles_deg=np.array([even.geometry.angles_deg[image.number] for image in found]),
        noise_power=spectra["noise"],
        signal_power=sums.cross,
        patches=sums.patches,
        levels=_levels([image.level for image in found]),
        backgrounds=np.stack([image.background for image in found]),
        histogram=np.sum([image.histogram for image in found], axis=0),
        slope=np.sum([image.slope for image in found], axis=0),
        tiles=np.stack(tiles),
        tile_image=np.array([n for n, image in enumerate(found) for _ in image.tiles], dtype=np.int64),
        notes=tuple(notes),
        checks=checks,
    )


def _check_enough(left: int, left_out: int, name: str, plan: Plan) -> None:
    if left < FEWEST_TILTS:
        raise InputError(
            f"{name}: only {left} of {left + left_out} images hold a piece of {plan.patch_px} x {plan.patch_px} pixels "
            f"without even borders; {FEWEST_TILTS} are needed: crop the stacks"
        )


def _told_left_out(count: int, number: int, plan: Plan) -> str:
    return (
        f"{count} images of series {number + 1} hold no piece of {plan.patch_px} x {plan.patch_px} pixels without even "
        "borders and were left out"
    )


def _levels(levels: list[float]) -> FloatArray:
    """Mean brightness of each image; NaN for all if any has none."""
    values = np.array(levels)
    return values if np.isfinite(values).all() else np.full(values.size, math.nan)


def _measure_image(
    split: _Split, plan: Plan, number: int, rng: np.random.Generator, between: _Between
) -> _Image | None:
    """None for an image without any whole patch."""
    size, valid = plan.patch_px, split.valid
    places = usable(valid, size)
    if not places or not split.noise[valid].any():
        return None
    found = background(split.mean, valid)
    mean = remove_background(split.mean, found)
    spectra = {key: np.zeros(size // 2) for key in ("even", "odd", "cross", "noise")}
    product = np.zeros((size, size // 2 + 1), dtype=np.complex128)
    for place in places:
        m, n = transform(mean, place, size), transform(split.noise, place, size)
        even, odd = m + n, m - n
        pair = even * odd.conj()
        product += pair
        between.fixed.add(place, even, odd)
        for key, values in (
            ("even", np.abs(even) ** 2),
            ("odd", np.abs(odd) ** 2),
            ("cross", pair.real),
            ("noise", np.abs(n) ** 2),
        ):
            spectra[key] += ring_means(values) / len(places)
    between.leak.add(mean, split.noise, valid)
    spread = float(np.std(mean[valid]))
    level = _level(split.mean, valid, spread)
    relative = mean / np.float32(level) if math.isfinite(level) else np.zeros_like(mean)
    pixels = float(valid.sum())
    total, half = float(split.mean[valid].sum(dtype=np.float64)), float(split.noise[valid].sum(dtype=np.float64))
    return _Image(
        number,
        spectra,
        product,
        len(places),
        level,
        found[1:],
        histogram(mean, valid),
        slope_sums(split.noise, relative, valid),
        _tiles(split.noise, valid, plan, rng),
        (pixels, total + half, total - half, pixels * spread**2),
        split.hits,
    )


def _tiles(noise: Image, valid: NDArray[np.bool_], plan: Plan, rng: np.random.Generator) -> list[Image]:
    """Tiles of an image's noise, moved, turned and with either sign at random: none lies where it was."""
    patch = plan.tile_px + margin_px(plan.tile_px)
    places = list(usable(valid, patch, apart=True))
    rng.shuffle(places)
    return [
        turned(seamless(noise[y : y + patch, x : x + patch], plan.tile_px), int(rng.integers(4)), rng)
        for y, x in places[: plan.tiles]
    ]


def measure_neighbours(
    series: TiltSeries, name: str, plan: Plan, number: int = 0, on_image: Callable[[], object] = lambda: None
) -> Measured:
    """Bounds of noise and signal from what neighbouring images share; for series without halves.

    The cross-spectrum of neighbours misses what of the specimen only one of them sees, so it is at most the signal's
    power; what is left of an image's power is at least the noise's. No tiles are kept: differences of neighbours hold
    the specimen.

    Args:
        series: the images.
        name: of the stack, for messages.
        plan: what the series of a profile share.
        number: of the series in the profile.
        on_image: called after each image.

    Raises:
        InputError: as `measure_halves`.
    """
    size, images = plan.patch_px, series.geometry.tilts
    order = np.argsort(series.geometry.angles_deg, kind="stable")
    kept: list[int] = []
    patches: list[int] = []
    before: tuple[Image, NDArray[np.bool_]] | None = None
    parts: list[tuple[float, FloatArray, FloatArray]] = []
    power: list[FloatArray] = []
    cross: list[FloatArray] = []
    for tilt in order:
        image = _finite(series, int(tilt), name)
        valid = holds_anything(image, image)
        places = usable(valid, size)
        on_image()
        if not places:
            continue
        found = background(image, valid)
        mean = remove_background(image, found)
        if before is not None:
            both = usable(valid & before[1], size)
            shared = [
                ring_means((transform(mean, place, size) * transform(before[0], place, size).conj()).real)
                for place in both
            ]
            cross.append(np.mean(shared, axis=0) if shared else np.full(size // 2, np.nan))
        before = mean, valid
        patches.append(len(places))
        kept.append(int(tilt))
        power.append(image_power(mean, size, places))
        parts.append((_level(image, valid, float(np.std(mean[valid]))), found[1:], histogram(mean, valid)))
    left_out = images - len(kept)
    _check_enough(len(kept), left_out, name, plan)
    between = np.array(cross)
    sides = np.stack([np.concatenate([between[:1], between]), np.concatenate([between, between[-1:]])])
    signal = np.nanmean(sides, axis=0)
    noise = np.maximum(np.array(power) - signal, 1e-3 * np.array(power))
    if signal[:, : size // 8].sum() <= 0:
        raise InputError(f"{name}: neighbouring images have nothing in common; give an aligned series in its order")
    return Measured(
        angles_deg=np.array([series.geometry.angles_deg[tilt] for tilt in kept]),
        noise_power=noise,
        signal_power=signal,
        patches=np.array(patches),
        levels=_levels([part[0] for part in parts]),
        backgrounds=np.stack([part[1] for part in parts]),
        histogram=np.sum([part[2] for part in parts], axis=0) if parts else np.zeros(HISTOGRAM_BINS),
        slope=np.zeros(4),
        tiles=np.zeros((0, plan.tile_px, plan.tile_px), dtype=np.float32),
        tile_image=np.zeros(0, dtype=np.int64),
        notes=(_told_left_out(left_out, number, plan),) if left_out else (),
        checks={},
    )
