"""A series to train on, in memory or on disk, from a specimen, a simulation recipe or a stored pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.artefacts.borders import without_border
from cryolithe.errors import InputError, OutputError
from cryolithe.formats.pairs import Pair
from cryolithe.geometry import TiltGeometry
from cryolithe.known import NOTHING, Known
from cryolithe.network import BlockHead
from cryolithe.simulation import SimulatedSeries, Specimen, project
from cryolithe.training.augment import rescaled
from cryolithe.training.knowing import known_of_pair, known_of_plain
from cryolithe.training.scaling import FIT_ROWS, ImageScale, fitted_amplitude, measure_scale

# Blocks analysed at a time for a side file, and blocks that the ends of a part may not be trusted in.
_PART, _ENDS = 32, 4
# Density beyond that of proteins (about 1) in plain specimens.
STRONG_DENSITY = 2.5


@dataclass(frozen=True)
class StoredImages:
    """Images in an HDF5 file; only the rows that are asked for are read.

    Attributes:
        dataset: shape ``(tilts, y, x)``, dense = dark.
        scale: what turns them into what a network sees.
        tilts: numbers of the images that are used.
    """

    dataset: Any
    scale: ImageScale
    tilts: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(tilts, y, x)``."""
        return len(self.tilts), self.dataset.shape[1], self.dataset.shape[2]

    def __getitem__(self, place: tuple[torch.Tensor, slice]) -> torch.Tensor:
        """Rows of some tilts as a network sees them, shape ``(tilts, rows, X)``."""
        chosen = self.tilts[place[0].numpy()]
        return self.scale.apply(self.dataset[:, place[1]][chosen], chosen)


@dataclass(frozen=True)
class StoredTargets:
    """Targets in a side file, memory-mapped; stored ``(z', x', y', outputs)`` so that a column is one read.

    Attributes:
        values: the map.
    """

    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(z', y', x', outputs)``."""
        z, x, y, outputs = self.values.shape
        return z, y, x, outputs

    def __getitem__(self, place: tuple[torch.Tensor, slice, torch.Tensor]) -> torch.Tensor:
        """Columns of blocks, shape ``(columns, blocks, outputs)``."""
        return torch.from_numpy(self.values[place[0].numpy(), place[2].numpy(), place[1]].copy())


Images = torch.Tensor | StoredImages
Targets = torch.Tensor | StoredTargets


@dataclass(frozen=True)
class TrainingSeries:
    """A series and what the network should return for it.

    Attributes:
        images: shape ``(tilts, y, x)``, float32, mean removed, dense = positive.
        geometry: their geometry.
        shape: voxels ``(z, y, x)``.
        targets: values of all blocks, shape ``(z', y', x', outputs)``, float32.
        target_std: standard deviation of the volume.
        image_std: standard deviation of the images.
        amplitude: image units of a density of 1, see `cryolithe.training.scaling`.
        noiseless: whether noise is still to be drawn.
        halves: even and odd images like ``images``, or None.
        name: for messages.
        known: of the series, with a dose for each of its images where doses are known.
    """

    images: Images
    geometry: TiltGeometry
    shape: tuple[int, int, int]
    targets: Targets
    target_std: float
    image_std: float
    amplitude: float = 1.0
    noiseless: bool = True
    halves: tuple[Images, Images] | None = None
    name: str = "plain"
    known: Known = NOTHING


def make_series(specimen: Specimen, angles_deg: tuple[float, ...], head: BlockHead) -> TrainingSeries:
    """Project a specimen and compute its targets; noise is drawn later, anew for each run of rows."""
    images = torch.from_numpy(project(specimen, angles_deg))
    volume = torch.from_numpy(specimen.density)
    shape = (volume.shape[0], volume.shape[1], volume.shape[2])
    geometry = TiltGeometry(angles_deg, (shape[1], shape[2]))
    # Beside gold, all else would count for little.
    target_std = max(float(volume.clamp(max=STRONG_DENSITY).std()), 1e-6)
    image_std = max(float(images.std()), 1e-6)
    known = known_of_plain(specimen.voxel_size_angstrom)
    return TrainingSeries(images, geometry, shape, head.targets(volume), target_std, image_std, known=known)


def simulated_pair(made: SimulatedSeries, factor: float = 1.0) -> Pair:
    """A simulated series as a pair, perhaps as if recorded with other pixels (``factor`` above 1: smaller ones)."""
    series, voxel = made.series, made.cell.voxel_size_angstrom
    extras: dict[str, NDArray[Any]] = {"even": series.even, "odd": series.odd, "clean": series.clean}
    pair = Pair(series.images, made.truth, series.plan.angles_deg, voxel, extras, {"drawn": series.drawn})
    return rescaled_pair(pair, factor)


def rescaled_pair(pair: Pair, factor: float) -> Pair:
    """A pair, read into memory, as if recorded with other pixels."""
    images, truth = np.asarray(pair.images, dtype=np.float32), np.asarray(pair.truth, dtype=np.float32)
    extras = {n: np.asarray(v, dtype=np.float32) for n, v in pair.extras.items() if n in ("even", "odd", "clean")}
    if factor != 1.0:
        images, resampled_truth = rescaled(images, truth, factor)
        extras = {name: rescaled(values, truth[:4, :4, :4], factor)[0] for name, values in extras.items()}
        truth = resampled_truth
    return Pair(images, truth, pair.angles_deg, pair.voxel_size_angstrom / factor, extras, pair.origin)


def pair_without_borders(pair: Pair) -> Pair:
    """A pair, read into memory, without borders of one value in its images: a network is shown none, either."""

    def filled(images: Any) -> NDArray[np.float32]:
        return np.stack([without_border(np.asarray(image, dtype=np.float32)) for image in np.asarray(images)])

    stacks = {name: filled(values) for name, values in pair.extras.items() if name in ("even", "odd")}
    return replace(pair, images=filled(pair.images), extras={**pair.extras, **stacks})


def series_of_pair(pair: Pair, head: BlockHead, name: str, side_file: Path | None = None) -> TrainingSeries:
    """A series of a pair: in memory, or read from its open file with targets in a side file.

    Args:
        pair: dense = dark, with noise; arrays or open HDF5 datasets.
        head: of the network.
        name: for messages.
        side_file: where targets are written; None keeps images and targets in memory.

    Raises:
        InputError: if images or target are constant or not finite, or do not go together.
        OutputError: if the side file cannot be written.
    """
    angles = tuple(map(float, pair.angles_deg))
    scale = measure_scale(pair.images, name, angles)
    tilts = np.flatnonzero(scale.usable)
    depth, height, width = pair.truth.shape
    geometry = TiltGeometry(tuple(np.asarray(pair.angles_deg)[tilts]), (height, width))
    mean, std = _moments(pair.truth, name)
    stored = StoredImages(pair.images, scale, tilts)
    halves = (pair.extras[half] for half in ("even", "odd")) if {"even", "odd"} <= set(pair.extras) else ()
    # A half is scaled with its own mean and deviation, as it would be if it were reconstructed by itself.
    stored_halves = [StoredImages(half, measure_scale(half, f"{name} (half)", angles), tilts) for half in halves]
    amplitude = _amplitude(pair, stored, geometry, mean, name)
    targets: Targets
    if side_file is None:
        volume = torch.from_numpy(mean - np.asarray(pair.truth, dtype=np.float32))
        everything = (torch.arange(len(tilts)), slice(0, height))
        images: list[Images] = [one[everything] for one in (stored, *stored_halves)]
        targets = head.targets(volume)
    else:
        images = [stored, *stored_halves]
        targets = _side_targets(pair.truth, mean, head, side_file)
    both = (images[1], images[2]) if len(images) == 3 else None
    shape, known = (depth, height, width), known_of_pair(pair).of_images(tilts.tolist())
    return TrainingSeries(images[0], geometry, shape, targets, std, 1.0, amplitude, False, both, name, known)


def _amplitude(pair: Pair, stored: StoredImages, geometry: TiltGeometry, mean: np.float32, name: str) -> float:
    """See `fitted_amplitude`; from rows in the middle, without noise where that is known."""
    height = pair.truth.shape[1]
    first = max(0, (height - FIT_ROWS) // 2)
    rows = slice(first, min(height, first + FIT_ROWS))
    truth = torch.from_numpy(mean - np.asarray(pair.truth[:, rows], dtype=np.float32))
    if "clean" not in pair.extras:
        return fitted_amplitude(stored[torch.arange(len(stored.tilts)), rows], truth, geometry, name)
    clean = np.asarray(pair.extras["clean"][:, rows], dtype=np.float32)[stored.tilts]
    clean = clean - clean.mean(axis=(1, 2), keepdims=True)
    seen = torch.from_numpy(clean / np.float32(-stored.scale.sigma))
    return fitted_amplitude(seen, truth, geometry, name, noiseless=True)


def _moments(truth: Any, name: str) -> tuple[np.float32, float]:
    """Mean and standard deviation of a volume, read in parts along y."""
    total, squares = 0.0, 0.0
    for first in range(0, truth.shape[1], 64):
        part = np.asarray(truth[:, first : first + 64], dtype=np.float64)
        if not np.isfinite(part).all():
            raise InputError(f"{name}: the target holds values that are not finite")
        total, squares = total + part.sum(), squares + (part**2).sum()
    count = float(np.prod(truth.shape))
    variance = squares / count - (total / count) ** 2
    if variance <= 0:
        raise InputError(f"{name}: the target is constant")
    return np.float32(total / count), float(np.sqrt(variance))


def _target_parts(truth: Any, mean: np.float32, head: BlockHead) -> Iterator[tuple[int, torch.Tensor]]:
    """Targets of a volume part by part along y, each with its first block (from 0, margins included)."""
    height, stride, margin = truth.shape[1], head.stride, head.margin
    total = -(-height // stride) + 2 * margin
    for first in range(0, total, _PART):
        last = min(first + _PART, total)
        # Voxels of these blocks and of some more, cut at the ends of the volume, where analysis reflects.
        start = max(0, stride * (first - margin - _ENDS))
        stop = min(height, stride * (last - margin + _ENDS))
        volume = torch.from_numpy(mean - np.asarray(truth[:, start:stop], dtype=np.float32))
        part = head.targets(volume)
        skip = first - start // stride
        yield first, part[:, skip : skip + last - first]


def _side_targets(truth: Any, mean: np.float32, head: BlockHead, path: Path) -> StoredTargets:
    """Write the targets of a volume into a side file, part by part, and map it."""
    z, y, x = (-(-n // head.stride) + 2 * head.margin for n in truth.shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.lib.format.open_memmap(path, "w+", np.float32, (z, x, y, head.outputs))
        for first, part in _target_parts(truth, mean, head):
            values[:, :, first : first + part.shape[1]] = part.transpose(1, 2).numpy()
        values.flush()
        return StoredTargets(np.lib.format.open_memmap(path, "r"))
    except OSError as error:
        raise OutputError(f"cannot write the targets {path}: {error.strerror or error}") from error


def as_arrays(series: TrainingSeries) -> TrainingSeries:
    """A series whose tensors are arrays, which pass between processes without shared memory."""
    return _converted(series, lambda values: values.numpy())


def as_tensors(series: TrainingSeries, device: torch.device) -> TrainingSeries:
    """The reverse of `as_arrays`, on a device."""
    return _converted(series, lambda values: torch.as_tensor(values, device=device))


def _converted(series: TrainingSeries, convert: Callable[[Any], Any]) -> TrainingSeries:
    halves = None if series.halves is None else (convert(series.halves[0]), convert(series.halves[1]))
    return replace(series, images=convert(series.images), targets=convert(series.targets), halves=halves)
