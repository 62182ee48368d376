"""The reconstruction methods, each as a map from a slab of detector rows to the same slab of the volume.

Rows are independent of each other up to a method's halo, so a volume of any height is made slab by slab.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from cryolithe.filters import (
    filter_rows,
    gaussian_response,
    octave_response,
    padded_length,
    ramp_response,
    unit_noise_gain,
)
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.inference import BatchSize, Engine, PointGrid, RowRun, TrunkEngine, lift_network
from cryolithe.known import NOTHING, Known
from cryolithe.machine.device import use_exact_float32
from cryolithe.network import InputWindow, Network, NetworkConfig, RowSet
from cryolithe.network.knowing import encode_known
from cryolithe.projector import Projector, bands_of, by_bands
from cryolithe.projector.classical import fbp, sirt
from cryolithe.reconstruction.slabwise.fusion import Fusion
from cryolithe.reconstruction.slabwise.planes import PlaneFilter
from cryolithe.sampling import block_positions_px

# On a CPU a block's features stay in the cache of its core (benchmarks/LOG.md); a GPU wants much to do at a time.
BATCHES = {
    "cpu": BatchSize(points=1024, patches=1, points_in_memory=1 << 17),
    "cuda": BatchSize(1 << 15, patches=8, points_in_memory=1 << 20, points_kept=1 << 21, trunk_bytes=1 << 30),
}
FEWEST_POINTS = {"cpu": 128, "cuda": 32}
# All rows are lifted again for each of these parts of the points, which fewer would not be worth.
_FEWEST_IN_MEMORY = 1 << 15
# Of a volume that are put together from blocks at a time.
VOXELS_AT_ONCE = 1 << 22


class SlabMethod(Protocol):
    """Detector rows -> volume rows."""

    @property
    def row_multiple(self) -> int:
        """Slabs start at multiples of this."""
        ...

    @property
    def halo_px(self) -> int:
        """Detector rows needed before and after a slab."""
        ...

    @property
    def first_row(self) -> int:
        """Row of the volume at which the slab begins."""
        ...

    @property
    def device(self) -> torch.device:
        """Where results are."""
        ...

    def at(self, first_row: int) -> SlabMethod:
        """The same for the slab that begins at a row of the volume."""
        ...

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the volume from rows of the detector.

        Args:
            rows: shape ``(tilts, slab + 2 halo_px, X)`` where the slab is a multiple of ``row_multiple`` high; what is
                wanted beyond the image mirrors it.

        Returns:
            shape ``(z, slab, x)``, float32, on the method's device.
        """
        ...


@dataclass(frozen=True)
class FbpMethod:
    """Filtered back-projection of a slab."""

    projector: Projector
    window: str
    row_multiple: int = 1
    halo_px: int = 0
    first_row: int = 0

    @property
    def device(self) -> torch.device:
        """See `SlabMethod`."""
        return self.projector.device

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """See `SlabMethod`."""
        return by_bands(self.projector, self.first_row, rows.to(self.device), lambda p, r: fbp(p, r, self.window))

    def at(self, first_row: int) -> FbpMethod:
        """See `SlabMethod`."""
        return replace(self, first_row=first_row)


@dataclass(frozen=True)
class SirtMethod:
    """SIRT of a slab.

    Attributes:
        projector: of a volume that is wider than wanted by a margin at either end.
        iterations: number of passes.
        on_iteration: called after each.
        margin_px: the margin, see `cryolithe.projector.classical.sirt_margin_px`.
    """

    projector: Projector
    iterations: int
    on_iteration: Callable[[], object] = lambda: None
    margin_px: int = 0
    row_multiple: int = 1
    halo_px: int = 0
    first_row: int = 0

    @property
    def device(self) -> torch.device:
        """See `SlabMethod`."""
        return self.projector.device

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """See `SlabMethod`."""
        bands, count = len(bands_of(self.projector, self.first_row, rows.shape[1])), itertools.count(1)

        def of_band(projector: Projector, part: torch.Tensor) -> torch.Tensor:
            return sirt(projector, part, self.iterations, lambda: next(count) % bands or self.on_iteration())

        volume = by_bands(self.projector, self.first_row, rows.to(self.device), of_band)
        return volume[..., self.margin_px : volume.shape[-1] - self.margin_px]

    def at(self, first_row: int) -> SirtMethod:
        """See `SlabMethod`."""
        return replace(self, first_row=first_row)


def network_rows(rows: torch.Tensor, config: InputWindow) -> list[torch.Tensor]:
    """The filtered rows that a network's windows read.

    Args:
        rows: shape ``(..., X)``, float32, mean removed, of about unit variance.
        config: the network's windows.

    Returns:
        for each window one tensor like ``rows``, but with ``config.oversampling`` values for each pixel.
    """
    length = padded_length(rows.shape[-1])
    responses = [ramp_response(length, config.ramp_window)]
    if config.context_taps:
        responses.append(gaussian_response(length, config.context_sigma_px))
    responses += [octave_response(length, band) for band in range(config.bands)]
    if config.unit_noise:
        responses = [unit_noise_gain(response, length) for response in responses]
    return filter_rows(rows, *(response.to(rows) for response in responses), per_px=config.oversampling)


@dataclass(frozen=True)
class Compute:
    """Where and how a network is computed.

    Attributes:
        device: CPU or GPU.
        precision: of the layers; coordinates and sums over tilts are float32.
        threads: cores to use on a CPU; None for as many as torch uses.
        points: points of a block; None for what suits the device.
        fallback: precision of slabs in which values leave the range of `precision`; None where that is not looked at.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: torch.dtype = torch.float32
    threads: int | None = None
    points: int | None = None
    fallback: torch.dtype | None = None

    def batch(self) -> BatchSize:
        """Sizes for the engine: smaller blocks come with fewer rows and features that are kept at a time."""
        usual = BATCHES[self.device.type]
        if self.points is None or self.points >= usual.points:
            return usual if self.points is None else replace(usual, points=self.points)
        points = self.points

        def less(number: int) -> int:
            return max(1, number * points // usual.points)

        in_memory, kept = max(_FEWEST_IN_MEMORY, less(usual.points_in_memory)), less(usual.points_kept)
        return BatchSize(points, less(usual.patches), in_memory, kept, less(usual.trunk_bytes))


ON_CPU = Compute()


class Sampling(Protocol):
    """Where a network is applied, what it reads there, and what its values stand for."""

    @property
    def row_multiple(self) -> int:
        """See `SlabMethod`."""
        ...

    @property
    def halo_px(self) -> int:
        """See `SlabMethod`."""
        ...

    @property
    def points(self) -> PointGrid:
        """Points of a slice of the volume."""
        ...

    def inputs(self, rows: torch.Tensor, first_row: int) -> RowRun:
        """Filtered rows, and where patches begin, for a slab with its halo; ``first_row`` is the slab's first."""
        ...

    def volume(self, values: torch.Tensor, first_row: int, slab: int) -> torch.Tensor:
        """Voxels ``(z, slab, x)`` from the values of all points, ``(z, patches, x, outputs)``."""
        ...


def network_halo_px(config: NetworkConfig) -> int:
    """Detector rows that a network reads before and after a slab."""
    return (config.rows - 1) // 2 + config.head.stride * (config.head.margin + config.trunk_reach)


class BlockSampling:
    """Points in the middle of blocks of voxels: this program's own way.

    Args:
        config: of the network.
        geometry: tilt geometry of the rows.
        grid: voxels of the whole volume.
    """

    def __init__(self, config: NetworkConfig, geometry: TiltGeometry, grid: VolumeGrid) -> None:
        self.config, self.grid, self.head = config, grid, config.head
        self.row_multiple = self.head.stride
        self.halo_px = network_halo_px(config)
        z, x = (
            block_positions_px(voxels, -self.head.margin, self._blocks(voxels), self.head.stride)
            for voxels in (grid.shape[0], grid.shape[2])
        )
        self.points = PointGrid(geometry, z, x, per_px=config.input.oversampling)

    def _blocks(self, voxels: int) -> int:
        """Points along an axis of ``voxels`` voxels."""
        return -(-voxels // self.head.stride) + 2 * self.head.margin

    def inputs(self, rows: torch.Tensor, first_row: int) -> RowRun:
        """See `Sampling`; slabs are alike wherever they lie."""
        blocks = self._blocks(rows.shape[1] - 2 * self.halo_px) + 2 * self.config.trunk_reach
        firsts = self.head.stride * np.arange(blocks, dtype=np.float64)
        return RowRun(network_rows(rows, self.config.input), firsts, first_row - self.halo_px)

    def volume(self, values: torch.Tensor, first_row: int, slab: int) -> torch.Tensor:
        """See `Sampling`; some planes at a time, as what lies between is many times as large."""
        depth, _, width = self.grid.shape
        blocks = max(1, VOXELS_AT_ONCE // (slab * width * self.head.stride))
        if blocks * self.head.stride >= depth:
            return self.head.volume(values, (depth, slab, width))
        volume = values.new_empty((depth, slab, width))
        for first in range(0, -(-depth // self.head.stride), blocks):
            part = volume[first * self.head.stride : (first + blocks) * self.head.stride]
            some = values[first : first + blocks + 2 * self.head.margin]
            part[:] = self.head.volume(some, (part.shape[0], slab, width))
        return volume


class NetworkMethod:
    """A network applied to a slab: filter, lift, pool, encode, combine, synthesise.

    Args:
        network: weights in float32 or float64, on the CPU.
        geometry: tilt geometry of the rows.
        grid: voxels of the whole volume.
        compute: where and how.
        on_points: called with the share (0...1) of a slab that was just done.
        sampling: where the network is applied; by default this program's own way.
        known: what is known of the series; what the network does not take is left alone.
    """

    def __init__(
        self,
        network: Network,
        geometry: TiltGeometry,
        grid: VolumeGrid,
        compute: Compute = ON_CPU,
        on_points: Callable[[float], object] = lambda share: None,
        sampling: Sampling | None = None,
        known: Known = NOTHING,
    ) -> None:
        self.config = network.config
        self.compute = compute
        self.on_points = on_points
        self.sampling = sampling or BlockSampling(network.config, geometry, grid)
        self.row_multiple, self.halo_px = self.sampling.row_multiple, self.sampling.halo_px
        self.points = self.sampling.points
        self.first_row = 0
        angles = torch.from_numpy(geometry.angles_rad)
        facts = encode_known(known, self.config.input.known, angles) if self.config.input.known else None
        self._lifted = lift_network(network, angles, facts)
        self._trunk = network.trunk if isinstance(network, RowSet) else None
        self.fusion: Fusion | None = None
        self.wedge: PlaneFilter | None = None
        self._settle()

    def _settle(self) -> None:
        """Bring the layers to their device, in their precision."""
        compute = self.compute
        if compute.precision == torch.float32:
            use_exact_float32()
        self.lifted = self._lifted.to(compute.device, compute.precision)
        trunk = self._trunk
        self.trunk = None if trunk is None else copy.deepcopy(trunk).to(compute.device, compute.precision)
        self.engine = self._new_engine()

    def _new_engine(self) -> Engine | TrunkEngine:
        threads = self.compute.threads or torch.get_num_threads()
        # The trunk takes what the combiner gives as it is.
        values = None if self.trunk is None else self.compute.precision
        whole = self.config.input.windows, self.points, self.compute.batch(), threads
        engine = Engine(self.lifted, *whole, values=values)
        return engine if self.trunk is None else TrunkEngine(engine, self.trunk, self.config.trunk_reach)

    @property
    def device(self) -> torch.device:
        """See `SlabMethod`."""
        return self.compute.device

    def at(self, first_row: int) -> NetworkMethod:
        """See `SlabMethod`."""
        moved = copy.copy(self)
        moved.first_row = first_row
        return moved

    def fused(self, fusion: Fusion) -> NetworkMethod:
        """The same with a share of filtered back-projection mixed in."""
        mixed = copy.copy(self)
        mixed.fusion, mixed.halo_px = fusion, max(self.sampling.halo_px, fusion.halo_px)
        return mixed

    def believed(self, wedge: PlaneFilter) -> NetworkMethod:
        """The same with what it puts into the missing wedge filtered."""
        filtered = copy.copy(self)
        filtered.wedge = wedge
        return filtered

    def with_smaller_blocks(self) -> NetworkMethod | None:
        """The same with half the points at a time, for when memory ran out; None if that would be too few."""
        points = self.compute.batch().points // 2
        if points < FEWEST_POINTS[self.device.type]:
            return None
        smaller = copy.copy(self)
        smaller.compute = replace(self.compute, points=points)
        self.engine.forget()  # whoever still holds this method need not hold its blocks
        smaller.engine = smaller._new_engine()
        return smaller

    def in_wider_range(self) -> NetworkMethod | None:
        """The same in the precision for slabs in which values leave the range of the usual one; None without any."""
        if self.compute.fallback is None:
            return None
        self.engine.forget()
        wider = copy.copy(self)
        wider.compute = replace(self.compute, precision=self.compute.fallback, fallback=None)
        wider._settle()
        return wider

    @torch.inference_mode()
    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """See `SlabMethod`; rows are standardised and dense = positive."""
        slab, points = rows.shape[1] - 2 * self.halo_px, self.points
        rows = rows.to(self.compute.device)
        run = self.sampling.inputs(self._rows_within(rows, self.sampling.halo_px), self.first_row)
        values = self.engine(run, self.on_points)
        del run  # it is as large as a few slabs' rows, and the values are as large as the volume
        values = values.view(len(points.z_px), len(points.x_px), *values.shape[1:]).transpose(1, 2)
        volume = self.sampling.volume(values, self.first_row, slab)
        del values
        if self.wedge is not None:
            volume = self.wedge(volume.float())
        if self.fusion is None:
            return volume
        return self.fusion(volume.float(), self._rows_within(rows, self.fusion.halo_px), self.first_row)

    def _rows_within(self, rows: torch.Tensor, halo_px: int) -> torch.Tensor:
        """The rows of a slab with a smaller halo."""
        spare = self.halo_px - halo_px
        return rows[:, spare : rows.shape[1] - spare]
