"""What a run will take, told before it starts: slabs, memory, files, time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from cryolithe.formats.sizes import size_told
from cryolithe.geometry import VolumeGrid
from cryolithe.inference.tiles import BlocksMade, blocks_made, tiles_of
from cryolithe.machine.device import precision_name
from cryolithe.network import NetworkConfig, RowSetConfig
from cryolithe.reconstruction.confidence.members import MEMBERS
from cryolithe.reconstruction.evidence.selfcheck import blocks_of
from cryolithe.reconstruction.jobs.job import ResolvedJob
from cryolithe.reconstruction.setup.fitting import Fit, part_rows
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.reconstruction.slabwise.mixing import choose_parts
from cryolithe.reconstruction.slabwise.networks import fbp_share, wedge_trust
from cryolithe.reconstruction.slabwise.trust import choose_trials
from cryolithe.work.clock import clock

_FLOAT = 4
# Of one core: a pixel of an image that is read, checked, filtered and written; of one whose contrast is looked at; a
# voxel of the rows that the self-check compares with their back-projection (41 images and volumes of 256 pixels).
_PIXEL_SECONDS, _CONTRAST_SECONDS, _CHECKED_SECONDS = 1.5e-7, 2.5e-7, 6e-7
# Of a voxel of the maps of --confidence, by one core.
_MAP_SECONDS = 2e-6
# Written, and read again where a volume is converted.
_BYTES_PER_SECOND = 3e8
# Entries (voxel x tilt x pixel) of a projection per second and core: 512 x 512 x 256 voxels, 41 tilts in 1.0 s on 2.
_ENTRIES_PER_SECOND = 4e9
# Pooling, lifting and synthesis beside the matrix products (benchmarks/LOG.md).
_BESIDE_PRODUCTS = 1.5
# Share of its peak that a GPU reaches with all that is read and written between products (measured on an H100), and
# the size of the products that measure the peak.
_GPU_SHARE, _PROBE = 0.1, (1024, 1408, 256)


def estimate(run: ResolvedJob, planned: Fit, started_seconds: float = 0.0) -> str:
    """One line on a run whose slabs are planned.

    Args:
        run: what is to be done.
        planned: what it holds at a time.
        started_seconds: that the program took until now, where the time of the whole command is wanted.
    """
    (depth, height, width), settings = run.grid.shape, run.job.settings
    slab_rows = min(planned.slab_rows, height)  # networks' slabs are whole blocks, of which the last may end beyond
    tilts = run.series.geometry.tilts
    output = output_bytes(run)
    temporary = run.preparation.copies * tilts * height * width * _FLOAT
    more = ""
    if settings.confidence:
        temporary += MEMBERS * math.prod(run.grid.shape) * (2 if settings.dtype == "float16" else _FLOAT)
        more = f" ({1 + MEMBERS} runs of the network, for --confidence)"
    slabs = -(-height // slab_rows)
    seconds = started_seconds + expected_seconds(run, planned)
    what = f"model {run.model.name}, {precision_name(run.precision)}" if run.model else settings.method
    where, threads = ", ".join(str(device) for device in run.devices), torch.get_num_threads()
    where += f" ({threads} thread{'s' if threads > 1 else ''})" if run.device.type == "cpu" else ""
    memory = size_told(planned.device_bytes)
    if planned.host_bytes:
        memory += f" of the GPU's and {size_told(planned.host_bytes)} of the host's"
    return (
        f"Plan: {tilts} x {' x '.join(map(str, run.series.geometry.image_shape))} (tilts, y, x) -> "
        f"{depth} x {height} x {width} (z, y, x)"
        f"; {what} on {where}; in {slabs} slab{'s' if slabs > 1 else ''} of {slab_rows} rows along y; "
        f"about {memory} of memory, "
        f"{size_told(output)} of output, {size_told(temporary)} of temporary files; about {clock(max(1.0, seconds))} "
        f"with everything{more}"
    )


def expected_seconds(run: ResolvedJob, planned: Fit) -> float:
    """About how long a run takes on its devices, but for the start of the program.

    Args:
        run: what is to be done.
        planned: what it holds at a time: blocks at the ends of low slabs are computed again for the next ones.
    """
    return _seconds(run, planned) / len(run.devices) + _beside_seconds(run)


def output_bytes(run: ResolvedJob) -> int:
    """Bytes of the volume and of the maps beside it."""
    each = {"float32": 4, "float16": 2, "int8": 1}[run.job.settings.dtype]
    return math.prod(run.grid.shape) * (each + _FLOAT * len(run.job.maps))


def _beside_seconds(run: ResolvedJob) -> float:
    """Preparing images, looking at their contrast, writing, and the check of the result against its images."""
    tilts, settings = run.series.geometry.tilts, run.job.settings
    depth, height, width = run.grid.shape
    pixels = tilts * math.prod(run.series.geometry.image_shape)
    images = pixels * (_PIXEL_SECONDS + (_CONTRAST_SECONDS if run.model is not None else 0.0))
    rows, starts = blocks_of(height)
    checked = len(starts) * rows * depth * width
    cores = torch.get_num_threads() if run.device.type == "cpu" else 100
    check = checked * (_CHECKED_SECONDS + 3.0 * tilts / (_ENTRIES_PER_SECOND * cores))
    copies = 1 + (settings.format != "mrc" or settings.orientation != "xyz" or settings.dtype == "int8")
    return images + check + copies * (output_bytes(run) + pixels * _FLOAT) / _BYTES_PER_SECOND


def _seconds(run: ResolvedJob, planned: Fit) -> float:
    tilts, settings = run.series.geometry.tilts, run.job.settings
    cores = torch.get_num_threads() if run.device.type == "cpu" else 100
    projection = 3.0 * tilts * math.prod(run.grid.shape) / (_ENTRIES_PER_SECOND * cores)
    if run.model is None:
        return projection * (2 * settings.iterations if settings.method == "sirt" else 1)
    config, voxels = run.model.network.config, math.prod(run.grid.shape)
    before_trunk = (products_per_voxel(config) - trunk_products_per_voxel(config)) / _products_per_second(
        run.device, run.precision
    )
    of_trunk = 0.0
    if trunk_products_per_voxel(config):
        rate = _convolution_products_per_second(run.device, run.precision, config.combiner_width)
        of_trunk = trunk_products_per_voxel(config) / rate

    def made(grid: VolumeGrid) -> float:
        rows = planned.slab_rows
        if grid != run.grid:
            rows = part_rows(run, planned.batch, rows, grid)
        voxels_made = _voxels_made(run, replace(planned, slab_rows=rows), grid)
        return voxels_made.joined * before_trunk + voxels_made.trunk * of_trunk

    mixed = bool(fbp_share(run.model, settings.fbp_share))
    tried = wedge_trust(run.model, settings.wedge_trust) == "auto" and choose_trials(run.series.geometry.angles_deg)
    parts = choose_parts(run.grid, config.head.stride)
    tries = len(parts.starts) * mixed + 2 * max(2, len(parts.starts)) * bool(tried)
    volumes = 1 + MEMBERS * settings.confidence
    seconds = volumes * made(run.grid) + tries * made(parts.grid)
    maps = _MAP_SECONDS * voxels / cores if settings.confidence else 0.0
    projections = (volumes + tries * math.prod(parts.grid.shape) / voxels) * projection if mixed or tried else 0.0
    return maps + _BESIDE_PRODUCTS * seconds + projections


def _voxels_made(run: ResolvedJob, planned: Fit, grid: VolumeGrid) -> BlocksMade:
    """Voxels that a network computes for a volume, or for a part of it, slab by slab."""
    assert run.model is not None
    config, voxels = run.model.network.config, math.prod(grid.shape)
    if not (isinstance(config, RowSetConfig) and config.trunk_units):
        return BlocksMade(voxels, voxels)
    head, compute = config.head, Compute(run.device, run.precision, points=planned.batch)
    rows = min(planned.slab_rows, grid.shape[1])
    depth, patches, width = (size // head.stride + 2 * head.margin for size in (grid.shape[0], rows, grid.shape[2]))
    point = (patches + 2 * config.trunk_reach) * config.combiner_width * run.precision.itemsize
    tiles = tiles_of((depth, width), point, compute.batch().trunk_bytes, config.trunk_reach)
    of_slab = blocks_made((depth, width), patches, config.trunk_spacings, tiles)
    slabs = grid.shape[1] / rows
    return BlocksMade(*(slabs * head.stride**3 * blocks for blocks in of_slab))


def products_per_voxel(config: NetworkConfig) -> float:
    """Multiply-adds of a network's layers for a voxel, without what is done for each tilt: lifting and pooling."""
    stride, rows = config.head.stride, config.rows + config.head.stride - 1
    width, outputs = config.combiner_width, config.head.outputs
    if isinstance(config, RowSetConfig):  # a block of voxels needs as many new rows as it is high
        encode = stride * config.row_hidden * (config.channels + config.row_features)
        if config.trunk_units:
            encode += stride * config.channels * config.row_features
    else:
        hidden = max(0, config.row_layers - 1) * config.row_hidden**2
        encode = rows * (config.set_hidden * config.row_hidden + hidden + config.row_hidden * config.row_features)
    join = rows * config.row_features * width + width * outputs
    if not (isinstance(config, RowSetConfig) and config.trunk_units):
        join += (config.combiner_layers - 1) * width**2
    return (encode + join) / stride**3 + trunk_products_per_voxel(config)


def trunk_products_per_voxel(config: NetworkConfig) -> float:
    """Multiply-adds of a trunk's convolutions for a voxel; 0 without one."""
    if not (isinstance(config, RowSetConfig) and config.trunk_units):
        return 0.0
    return (2 * 27 * len(config.trunk_spacings) + 4) * config.combiner_width**2 / config.head.stride**3


def _convolution_products_per_second(device: torch.device, precision: torch.dtype, width: int) -> float:
    """Multiply-adds per second of a convolution like those of a trunk, as `_products_per_second`."""
    side = 24 if device.type == "cpu" else 96
    block = torch.ones((1, width, side, side, side), dtype=precision, device=device)
    block = block.to(memory_format=torch.channels_last_3d)
    weights = torch.ones((width, width, 3, 3, 3), dtype=precision, device=device)
    seconds = _best_seconds(lambda: torch.nn.functional.conv3d(block, weights, padding=1), device)
    return 27 * width**2 * side**3 / seconds * (_GPU_SHARE if device.type == "cuda" else 1.0)


def _products_per_second(device: torch.device, precision: torch.dtype) -> float:
    """Multiply-adds per second of a product like those of a network, on all cores that torch uses or the GPU."""
    rows, inner, outer = _PROBE
    if device.type == "cuda":
        rows *= 64
    a = torch.ones((rows, inner), dtype=precision, device=device)
    b = torch.ones((inner, outer), dtype=precision, device=device)
    seconds = _best_seconds(lambda: a @ b, device)
    return rows * inner * outer / seconds * (_GPU_SHARE if device.type == "cuda" else 1.0)


@torch.inference_mode()
def _best_seconds(call: Callable[[], torch.Tensor], device: torch.device) -> float:
    """The shortest of a few runs; the first one may prepare things."""
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        made = call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
        del made
    return best
