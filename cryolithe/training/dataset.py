"""Training batches from simulated series held in memory, with fresh noise in every batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cryolithe.geometry import TiltGeometry
from cryolithe.network import Head, NetworkConfig
from cryolithe.reconstruct.methods import network_rows
from cryolithe.sampling import block_positions_px, pad_rows, point_columns, reflected_rows, row_windows, visible
from cryolithe.simulation import Molecule, Specimen, draw_angles_deg, make_specimen, project
from cryolithe.training.config import TrainConfig
from cryolithe.wavelets import Wavelet, analyse


@dataclass(frozen=True)
class TrainingSeries:
    """A noiseless series and what the network should return for it.

    Attributes:
        images: noiseless images, shape ``(tilts, y, x)``, float32.
        geometry: their geometry.
        shape: voxels ``(z, y, x)``.
        targets: values of all blocks, shape ``(z', y', x', outputs)``, float32.
        target_std: standard deviation of the volume.
    """

    images: torch.Tensor
    geometry: TiltGeometry
    shape: tuple[int, int, int]
    targets: torch.Tensor
    target_std: float


@dataclass(frozen=True)
class Batch:
    """Input and target of one run of rows.

    Attributes:
        windows: shape ``(tilts, points, rows, samples)``.
        visible: shape ``(tilts, points)``.
        angles_rad: shape ``(tilts,)``.
        targets: shape ``(points, blocks, outputs)``, scaled to unit variance of the volume's voxels.
        output_gain: what the network's output is to be multiplied by to be comparable with ``targets``.
    """

    windows: torch.Tensor
    visible: torch.Tensor
    angles_rad: torch.Tensor
    targets: torch.Tensor
    output_gain: float


def head_targets(volume: torch.Tensor, head: Head) -> torch.Tensor:
    """What a head should return for every block of a volume, shape ``(z', y', x', outputs)``."""
    return analyse(volume, Wavelet(head.wavelet), head.levels) if head.levels else volume[..., None]


def make_series(specimen: Specimen, angles_deg: tuple[float, ...], head: Head) -> TrainingSeries:
    """Project a specimen and compute its targets."""
    images = project(specimen, angles_deg)
    volume = torch.from_numpy(specimen.density)
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    geometry = TiltGeometry(angles_deg, (shape[1], shape[2]))
    return TrainingSeries(torch.from_numpy(images), geometry, shape, head_targets(volume, head), float(volume.std()))


def simulate_training_set(
    config: TrainConfig, library: tuple[Molecule, ...], on_series: Callable[[], object] = lambda: None
) -> list[TrainingSeries]:
    """Draw the series of a training run; the same configuration and library give the same series."""
    series = []
    for number in range(config.series):
        rng = np.random.default_rng([config.seed, number])
        specimen = make_specimen(config.specimens.recipe(), library, rng)
        angles = draw_angles_deg(config.tilts.scheme(), rng)
        series.append(make_series(specimen, angles, config.network_config().head))
        on_series()
    return series


def draw_batch(series: TrainingSeries, config: TrainConfig, network: NetworkConfig, rng: np.random.Generator) -> Batch:
    """Draw a run of rows, columns, tilts and noise from a series.

    Images are scaled as `reconstruct` scales them, to unit variance with their noise; the target keeps the physical
    relation to them (the volume's sum along the beam is the image), so the network learns calibrated densities.
    """
    head = network.head
    keep = _draw_tilts(series.geometry.tilts, config.fewest_tilts, rng)
    geometry = series.geometry.select(keep)
    run_blocks = min(config.blocks, series.targets.shape[1])
    first = int(rng.integers(series.targets.shape[1] - run_blocks + 1))
    row_count = network.rows + head.stride - 1 + head.stride * (run_blocks - 1)
    first_row = head.stride * (first - head.margin) - (network.rows - 1) // 2
    indices = torch.from_numpy(reflected_rows(first_row, row_count, series.shape[1]))
    lowest, highest = int(indices.min()), int(indices.max())
    rows = series.images[torch.from_numpy(keep), lowest : highest + 1]
    signal_std = float(series.images.std())
    noise_std = signal_std / 10 ** (rng.uniform(*config.snr_db) / 20)
    scale = float(np.hypot(signal_std, noise_std))
    noise = torch.from_numpy(rng.standard_normal(rows.shape, dtype=np.float32))
    noisy = ((rows + noise_std * noise) / scale)[:, indices - lowest]

    z_blocks = rng.integers(series.targets.shape[0], size=config.columns)
    x_blocks = rng.integers(series.targets.shape[2], size=config.columns)
    z = block_positions_px(series.shape[0], -head.margin, series.targets.shape[0], head.stride)[z_blocks]
    x = block_positions_px(series.shape[2], -head.margin, series.targets.shape[2], head.stride)[x_blocks]
    columns = point_columns(geometry, z, x)
    sampled = [
        row_windows(pad_rows(filtered, window), columns, window)
        for filtered, window in zip(network_rows(noisy, network.input), network.input.windows, strict=True)
    ]
    targets = series.targets[torch.from_numpy(z_blocks), first : first + run_blocks, torch.from_numpy(x_blocks)]
    return Batch(
        windows=torch.cat(sampled, dim=-1),
        visible=visible(columns, series.shape[2]),
        angles_rad=torch.from_numpy(geometry.angles_rad.astype(np.float32)),
        targets=targets / series.target_std,
        output_gain=scale / series.target_std,
    )


def _draw_tilts(tilts: int, fewest: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of the tilts to keep: with probability 1/2 drop k of them, k uniform in 0...30 (paper, section 4.2)."""
    most_dropped = min(30, tilts - fewest)
    if most_dropped <= 0 or rng.random() < 0.5:
        return np.arange(tilts)
    dropped = rng.choice(tilts, size=rng.integers(most_dropped + 1), replace=False)
    return np.setdiff1d(np.arange(tilts), dropped)
