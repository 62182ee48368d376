"""Runs of rows: random columns, or cubes of blocks, of a series, changed at random, with what they should become.

A run is small and is drawn where its series lies; its rows are filtered and its windows gathered where the network is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch

from cryolithe.artefacts.noise_colour import draw_colour
from cryolithe.geometry import TiltGeometry
from cryolithe.network import NetworkConfig
from cryolithe.reconstruction.slabwise.methods import network_rows
from cryolithe.sampling import all_windows, block_positions_px, point_columns, reflected_rows, visible
from cryolithe.simulation import Molecule, make_specimen
from cryolithe.training import augment
from cryolithe.training.config import TrainConfig
from cryolithe.training.knowing import draw_facts
from cryolithe.training.series import Images, TrainingSeries, make_series

__all__ = ["Batch", "Run", "TrainingSeries", "draw_batch", "draw_run", "gather", "make_series",
           "plain_series", "simulate_training_set"]  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run of rows as drawn from a series.

    Attributes:
        rows: images as the network sees them, shape ``(tilts, rows, X)``.
        columns: where its points are seen, shape ``(tilts, points)``, pixels.
        angles_rad: shape ``(tilts,)``.
        targets: shape ``(points, blocks, outputs)``, scaled to unit variance of the volume's voxels.
        output_gain: what the network's output is to be multiplied by to be comparable with ``targets``.
        cube: blocks ``(z, y, x)`` if the points are a contiguous cube.
        name: of the series.
        facts: what a network that takes facts is told of the series, shape ``(tilts, facts)``; None for others.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    angles_rad: torch.Tensor
    targets: torch.Tensor
    output_gain: float
    cube: tuple[int, int, int] | None = None
    name: str = ""
    facts: torch.Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Input and target of one run of rows.

    Attributes:
        windows: shape ``(tilts, points, rows, samples)``.
        visible: shape ``(tilts, points)``.
        angles_rad: shape ``(tilts,)``.
        targets: shape ``(points, blocks, outputs)``.
        output_gain: see `Run`.
        cube: see `Run`.
        facts: see `Run`.
    """

    windows: torch.Tensor
    visible: torch.Tensor
    angles_rad: torch.Tensor
    targets: torch.Tensor
    output_gain: float
    cube: tuple[int, int, int] | None = None
    facts: torch.Tensor | None = None


@dataclass(frozen=True)
class _Place:
    """Which blocks a run is of, in the frame of the (flipped) volume."""

    z_blocks: np.ndarray
    x_blocks: np.ndarray
    first: int
    blocks: int
    cube: tuple[int, int, int] | None


def simulate_training_set(
    config: TrainConfig, library: tuple[Molecule, ...], on_series: Callable[[], object] = lambda: None
) -> list[TrainingSeries]:
    """Draw the plain series of a training run; the same configuration and library give the same series."""
    series = []
    for number in range(config.series):
        series.append(plain_series(config, library, np.random.default_rng([config.seed, number])))
        on_series()
    return series


def plain_series(config: TrainConfig, library: tuple[Molecule, ...], rng: np.random.Generator) -> TrainingSeries:
    """Draw a plain specimen and its tilts."""
    specimen = make_specimen(config.specimens.recipe(), library, rng)
    angles = config.tilts.draw(rng)
    return make_series(specimen, angles, config.network_config().head)


def draw_run(series: TrainingSeries, config: TrainConfig, network: NetworkConfig, rng: np.random.Generator) -> Run:
    """Draw tilts, blocks, changes and noise.

    Images are scaled as `reconstruct` scales them, to unit variance with their noise; the target keeps its relation
    to them (see `cryolithe.training.scaling`), so the network learns calibrated densities.
    """
    head, change = network.head, config.augment
    keep = _draw_tilts(series.geometry, config, rng)
    # Only whole blocks are blocks of the flipped volume too.
    flips = [bool(rng.random() < change.flip_chance) and size % head.stride == 0 for size in series.shape]
    flip_z, flip_y, flip_x = flips
    angles = augment.flipped_angles_deg(np.asarray(series.geometry.angles_deg)[keep].tolist(), flip_z, flip_x)
    geometry = TiltGeometry(angles, series.geometry.image_shape)
    place = _draw_place(series, config, rng)
    shifts = augment.draw_shifts(len(keep), change.shift_px, rng) if change.shift_px else None
    blur_px = rng.uniform(0, change.blur_px) if change.blur_px and rng.random() < change.blur_chance else 0.0
    halo = 0 if shifts is None else 1 + ceil(3 * change.shift_px)
    blur_halo = augment.BLUR_HALO if blur_px and not series.noiseless else 0

    row_count = network.rows + head.stride - 1 + head.stride * (place.blocks - 1) + 2 * (halo + blur_halo)
    first_row = head.stride * (place.first - head.margin) - (network.rows - 1) // 2 - halo - blur_halo
    indices = reflected_rows(first_row, row_count, series.shape[1])
    if flip_y:
        indices = series.shape[1] - 1 - indices
    rows = _read(series, config, torch.from_numpy(keep), indices, rng)
    rows = rows.flip(-1) if flip_x else rows
    rows = augment.shift_rows(rows, shifts[0], halo) if shifts is not None else rows
    if change.gain_std or change.shading_std:
        rows = augment.jitter_gain(rows, change.gain_std, change.shading_std, rng)
    rows, scale = _with_noise(rows, series, config, blur_px, rng)

    z = block_positions_px(series.shape[0], -head.margin, series.targets.shape[0], head.stride)[place.z_blocks]
    x = block_positions_px(series.shape[2], -head.margin, series.targets.shape[2], head.stride)[place.x_blocks]
    columns = point_columns(geometry, z, x)
    if shifts is not None:
        columns = columns + torch.from_numpy(shifts[1])[:, None]
    targets = _targets(series, place, (flip_z, flip_y, flip_x))
    if any(flips):
        targets = head.flip(targets, (flip_z, flip_y, flip_x))
    angles_rad = torch.from_numpy(geometry.angles_rad.astype(np.float32))
    told = series.known.of_images(keep.tolist())
    return Run(
        rows=rows,
        columns=columns,
        angles_rad=angles_rad,
        targets=targets / series.target_std,
        output_gain=scale / (series.amplitude * series.target_std),
        cube=place.cube,
        name=series.name,
        facts=draw_facts(told, network.input.known, angles_rad, rng) if network.input.known else None,
    )


def gather(run: Run, network: NetworkConfig, device: torch.device, precision: torch.dtype = torch.float32) -> Batch:
    """Filter the rows of a run and gather its windows, on the device; windows come in a precision."""
    rows, columns = (tensor.to(device, non_blocking=True) for tensor in (run.rows, run.columns))
    filtered = [row.to(precision) for row in network_rows(rows, network.input)]
    return Batch(
        windows=all_windows(filtered, columns, network.input.windows),
        visible=visible(columns, rows.shape[-1]),
        angles_rad=run.angles_rad.to(device, non_blocking=True),
        targets=run.targets.to(device, non_blocking=True),
        output_gain=run.output_gain,
        cube=run.cube,
        facts=None if run.facts is None else run.facts.to(device, non_blocking=True),
    )


def draw_batch(series: TrainingSeries, config: TrainConfig, network: NetworkConfig, rng: np.random.Generator) -> Batch:
    """Draw a run and gather it on the CPU."""
    return gather(draw_run(series, config, network, rng), network, torch.device("cpu"))


def _draw_tilts(geometry: TiltGeometry, config: TrainConfig, rng: np.random.Generator) -> np.ndarray:
    """Indices of the tilts to keep."""
    change, fewest = config.augment, config.fewest_tilts
    keep = np.arange(geometry.tilts)
    if change.range_cut_chance and rng.random() < change.range_cut_chance:
        keep = augment.cut_range(np.asarray(geometry.angles_deg), fewest, rng)
    return np.asarray(keep[augment.drop_tilts(len(keep), fewest, change.most_dropped, change.drop_chance, rng)])


def _draw_place(series: TrainingSeries, config: TrainConfig, rng: np.random.Generator) -> _Place:
    """Random columns of a run of blocks, or a cube of blocks."""
    depth, height, width, _ = series.targets.shape
    loss = config.loss
    if config.network_config().trunk_reach or (loss.fsc and rng.random() < loss.cube_share):
        cube = tuple(min(wanted, found) for wanted, found in zip(loss.cube, (depth, height, width), strict=True))
        first = [int(rng.integers(found - n + 1)) for n, found in zip(cube, (depth, height, width), strict=True)]
        z = np.repeat(np.arange(first[0], first[0] + cube[0]), cube[2])
        x = np.tile(np.arange(first[2], first[2] + cube[2]), cube[0])
        return _Place(z, x, first[1], cube[1], (cube[0], cube[1], cube[2]))
    blocks = min(config.blocks, height)
    start = int(rng.integers(height - blocks + 1))
    z = rng.integers(depth, size=config.columns)
    x = rng.integers(width, size=config.columns)
    return _Place(z, x, start, blocks, None)


def _read(
    series: TrainingSeries, config: TrainConfig, keep: torch.Tensor, indices: np.ndarray, rng: np.random.Generator
) -> torch.Tensor:
    """Rows ``indices`` of the tilts ``keep`` of the images, or of a half of them."""
    lowest, highest = int(indices.min()), int(indices.max())

    def rows(images: Images) -> torch.Tensor:
        device = images.device if isinstance(images, torch.Tensor) else torch.device("cpu")
        inside = torch.from_numpy(indices - lowest).to(device)
        return images[keep.to(device), lowest : highest + 1][:, inside]

    change = config.augment
    if series.halves is None or not change.half_chance or rng.random() >= change.half_chance:
        return rows(series.images)
    even, odd = (rows(half) for half in series.halves)
    return augment.mix_halves(even, odd, bool(rng.random() < change.swap_chance), rng)


def _with_noise(
    rows: torch.Tensor, series: TrainingSeries, config: TrainConfig, blur_px: float, rng: np.random.Generator
) -> tuple[torch.Tensor, float]:
    """Rows with noise, of unit variance over the series, and what they were divided by.

    With a blur, the noise that is drawn is smoothed, or all that a noisy image holds.
    """
    change = config.augment
    rows, divisor = (rows, 1.0) if series.noiseless else _blurred(rows, blur_px)
    decibels = config.snr_db if series.noiseless else change.extra_noise_db
    if decibels is None:
        return rows, divisor
    noise_std = series.image_std / 10 ** (rng.uniform(*decibels) / 20)
    if change.colour_db and rng.random() < change.colour_chance:
        noise = _coloured_noise(rows, change.colour_db, rng)
    else:
        noise = _noise(rows, blur_px if series.noiseless else 0.0, rng)
    scale = float(np.hypot(series.image_std, noise_std))
    return (rows + noise_std * noise) / scale, divisor * scale


def _blurred(rows: torch.Tensor, blur_px: float) -> tuple[torch.Tensor, float]:
    """Smoothed rows of the variance that they had, and what they were divided by."""
    if not blur_px:
        return rows, 1.0
    smooth = augment.blurred_rows(rows, blur_px)
    inner = rows[:, augment.BLUR_HALO : rows.shape[1] - augment.BLUR_HALO]
    ratio = float(smooth.std() / inner.std().clamp_min(torch.finfo(torch.float32).tiny))
    return (smooth / ratio, ratio) if ratio > 0 else (smooth, 1.0)


def _noise(rows: torch.Tensor, blur_px: float, rng: np.random.Generator) -> torch.Tensor:
    """Noise of unit variance like ``rows``, white or smoothed."""
    if not blur_px:
        return _white_noise(rows, rng)
    tilts, height, width = rows.shape
    more = _white_noise(rows.new_empty((tilts, height + 2 * augment.BLUR_HALO, width)), rng)
    return augment.blurred_rows(more, blur_px) / float(augment.blur_kernel(blur_px).square().sum())


def _coloured_noise(rows: torch.Tensor, deviation_db: float, rng: np.random.Generator) -> torch.Tensor:
    """Noise of unit variance like ``rows``, with a power spectrum drawn for them."""
    power = draw_colour(deviation_db, rng)
    tilts, height, width = rows.shape
    more = _white_noise(rows.new_empty((tilts, height + 2 * augment.COLOUR_HALO, width)), rng)
    return augment.coloured(more, power)


def _white_noise(rows: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Normal deviates like ``rows``, drawn where these are."""
    if rows.device.type == "cpu":
        return torch.from_numpy(rng.standard_normal(tuple(rows.shape), dtype=np.float32))
    generator = torch.Generator(rows.device).manual_seed(int(rng.integers(1 << 62)))
    return torch.randn(rows.shape, generator=generator, device=rows.device)


def _targets(series: TrainingSeries, place: _Place, flips: tuple[bool, bool, bool]) -> torch.Tensor:
    """Targets of the blocks, which are numbered in the flipped volume; outputs are not flipped yet."""
    depth, height, width, _ = series.targets.shape
    z = depth - 1 - place.z_blocks if flips[0] else place.z_blocks
    x = width - 1 - place.x_blocks if flips[2] else place.x_blocks
    first = height - place.first - place.blocks if flips[1] else place.first
    device = series.targets.device if isinstance(series.targets, torch.Tensor) else torch.device("cpu")
    columns = (torch.from_numpy(np.ascontiguousarray(places)).to(device) for places in (z, x))
    values = series.targets[next(columns), first : first + place.blocks, next(columns)]
    return values.flip(1) if flips[1] else values
