"""What a run holds at a time on each of its devices, and on the host beside them: blocks and slabs that fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from cryolithe.errors import ResourceError
from cryolithe.filters import VALUES_AT_ONCE, padded_length
from cryolithe.geometry import VolumeGrid
from cryolithe.machine.limits import usable_cores
from cryolithe.projector.classical import sirt_margin_px
from cryolithe.projector.footprint import PIXELS_PER_VOXEL
from cryolithe.projector.torch_engine import CACHE_ENTRIES, ENTRIES_PER_CHUNK
from cryolithe.reconstruction.confidence.doubt import MAP_COPIES, SHARE_SIGMA_PX, window_of
from cryolithe.reconstruction.evidence.selfcheck import checking_bytes
from cryolithe.reconstruction.images.preparation import bytes_at_work, image_workers
from cryolithe.reconstruction.jobs.job import ResolvedJob
from cryolithe.reconstruction.slabwise.fusion import REACH_PX
from cryolithe.reconstruction.slabwise.methods import (
    BATCHES,
    FEWEST_POINTS,
    VOXELS_AT_ONCE,
    Compute,
    network_halo_px,
)
from cryolithe.reconstruction.slabwise.mixing import comparing_bytes
from cryolithe.reconstruction.slabwise.network_memory import network_bytes, trunk_row_bytes, trunk_tile_bytes
from cryolithe.reconstruction.slabwise.networks import fbp_share, published_demand, wedge_trust
from cryolithe.reconstruction.slabwise.plan import (
    BASE_BYTES,
    GPU_BASE_BYTES,
    MOST_SLAB_ROWS,
    Demand,
    free_bytes,
    memory_budget_bytes,
    rows_within,
    run_bytes,
    slab_rows,
    told_gb,
)
from cryolithe.reconstruction.slabwise.planes import plane_filter_bytes

# Lower slabs spend more on the rows beyond their ends than smaller blocks cost.
ENOUGH_ROWS = 32
# Arrays as large as the rows that are filtered at a time, or the voxels put together, that exist at once.
_FILTER_ARRAYS, _SYNTHESIS_ARRAYS = 6, 5
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Fit:
    """What fits into memory.

    Attributes:
        batch: points that a network works on at a time; 1 for other methods, which have no batches.
        slab_rows: rows of the volume made at a time.
        device_bytes: of the device's memory that is used at most, about.
        host_bytes: likewise of the host's memory, where the device is a GPU.
    """

    batch: int
    slab_rows: int
    device_bytes: int
    host_bytes: int = 0


def fit(run: ResolvedJob) -> Fit:
    """The largest blocks that leave room for slabs of some height, and for the maps of ``--confidence``.

    Raises:
        ResourceError: where not even the smallest slab fits, or not one row of the maps.
    """
    if run.job.settings.confidence and _fits_without_maps(run):
        map_rows(run)  # refuses with the remedy to leave them out
    return _largest(run)


def _fits_without_maps(run: ResolvedJob) -> bool:
    settings = run.job.settings.model_copy(update={"confidence": False})
    try:
        _largest(replace(run, job=replace(run.job, settings=settings)))
    except ResourceError:
        return False
    return True


def _largest(run: ResolvedJob) -> Fit:
    """The largest blocks, see `fit`."""
    if run.model is None:
        return fit_slabs(run, 1)
    points = BATCHES[run.device.type].points
    best: Fit | None = None
    while True:
        last = points // 2 < FEWEST_POINTS[run.device.type]
        try:
            found = fit_slabs(run, points)
        except ResourceError:
            if last and best is None:
                raise
        else:
            best = found if best is None or found.slab_rows > best.slab_rows else best
            if found.slab_rows >= min(ENOUGH_ROWS, run.grid.shape[1]):
                return found
        if last:
            assert best is not None
            return best
        points //= 2


def fit_slabs(run: ResolvedJob, batch: int) -> Fit:
    """Slabs that fit beside blocks of ``batch`` points; the smallest device decides.

    Raises:
        ResourceError: where not even the smallest slab fits.
    """
    geometry, grid = run.series.geometry, run.grid
    wanted = demand(run, batch)
    if run.job.settings.confidence:  # else a run that is given what it asks for asks for more
        wanted = replace(wanted, apart_bytes=max(wanted.apart_bytes, _map_bytes(run, 1) - wanted.base_bytes))
    budget = min(memory_budget_bytes(run.job.settings.max_memory, device) for device in run.devices)
    rows = slab_rows(wanted, geometry, grid, budget)
    if run.device.type != "cpu":
        rows = min(rows, slab_rows(host_demand(run, wanted), geometry, grid, memory_budget_bytes(None, _CPU)))
    return predicted(run, batch, rows)


def predicted(run: ResolvedJob, batch: int, rows: int) -> Fit:
    """What a run with these blocks and slabs uses at most, about, whatever is free."""
    geometry, grid, wanted = run.series.geometry, run.grid, demand(run, batch)
    used = run_bytes(wanted, geometry, grid, rows)
    if run.job.settings.confidence:
        used = max(used, _map_bytes(run, map_rows(run)))
    if run.device.type == "cpu":
        return Fit(batch, rows, max(used, BASE_BYTES + image_workers_of(run) * image_bytes(run)))
    return Fit(batch, rows, used, run_bytes(host_demand(run, wanted), geometry, grid, rows))


def part_rows(run: ResolvedJob, batch: int, rows: int, grid: VolumeGrid) -> int:
    """Rows of a part of the volume, see `mixing.choose_parts`, that fit where so many of the whole do; at least these.

    Args:
        run: of a network.
        batch: points of its blocks.
        rows: of the whole volume that are made at a time.
        grid: of a part: all of the depth, less of the width.
    """
    assert run.model is not None
    geometry, beside = run.series.geometry, comparing_bytes(run.grid, run.model.network.config.head.stride)
    budget = run_bytes(demand(run, batch), geometry, run.grid, rows) - beside
    wanted = replace(demand(replace(run, grid=grid), batch), apart_bytes=0)
    return max(rows, rows_within(wanted, geometry, grid, budget))


def map_rows(run: ResolvedJob) -> int:
    """Rows of the maps of ``--confidence`` that are made at a time.

    Raises:
        ResourceError: where not even one row with its surroundings fits.
    """
    budget = min(memory_budget_bytes(run.job.settings.max_memory, device) for device in run.devices)
    least, one_more = _map_bytes(run, 1), _map_bytes(run, 2)
    if least > budget:
        raise ResourceError(
            f"--confidence: {budget / 1e9:.2f} GB of memory do not suffice, at least {told_gb(least)} GB are needed; "
            "raise --max-memory, or leave --confidence out"
        )
    return min(1 + int((budget - least) // (one_more - least)), MOST_SLAB_ROWS, run.grid.shape[1])


def _map_bytes(run: ResolvedJob, rows: int) -> int:
    """Memory for so many rows of the maps."""
    beside = 2 * window_of(run.grid.shape, SHARE_SIGMA_PX).reach_px
    return run_bytes(_map_demand(run), run.series.geometry, run.grid, beside + rows)


def _map_demand(run: ResolvedJob) -> Demand:
    """Memory for comparing the runs of ``--confidence``, by counting arrays of rows and of what surrounds them."""
    depth, _, width = run.grid.shape
    tilts = run.series.geometry.tilts
    fixed = _index_bytes(tilts * depth * width, run.device, directions=2) + plane_filter_bytes(run.grid, run.device)
    return Demand(fixed, MAP_COPIES, 6.0, base_bytes=BASE_BYTES if run.device.type == "cpu" else GPU_BASE_BYTES)


def memory_table(run: ResolvedJob, planned: Fit) -> str:
    """What is free on each device and what is planned there, one line each, with a heading."""
    rows = [("device", "free GB", "may use GB", "slab rows", "block size", "predicted peak GB")]
    allowed, points = run.job.settings.max_memory, str(planned.batch) if run.model is not None else "-"

    def add(device: torch.device, name: str, limit: float | None, used: int) -> None:
        sizes = free_bytes(device), memory_budget_bytes(limit, device), used
        free, budget, peak = (f"{size / 1e9:.1f}" for size in sizes)
        rows.append((name, free, budget, str(min(planned.slab_rows, run.grid.shape[1])), points, peak))

    for device in run.devices:
        add(device, str(device), allowed, planned.device_bytes)
    if run.device.type != "cpu":
        add(_CPU, "beside it, the host", None, planned.host_bytes)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
    return "\n".join(lines)


def demand(run: ResolvedJob, batch: int) -> Demand:
    """Memory that the chosen method needs on its device, by counting its arrays; benchmarks/memory.py measures it."""
    found = _method_demand(run, batch)
    if run.device.type == "cpu":
        depth, _, width = run.grid.shape
        indices = _index_bytes(run.series.geometry.tilts * depth * width, run.device)
        return replace(found, apart_bytes=max(found.apart_bytes, checking_bytes(run.grid) + indices))
    # Beside the slab at work there are the rows of the next one and the voxels of the last one. (If a GPU is too small
    # for the check of the volume, the host makes it.)
    volumes, rows = found.volume_copies + 1, found.row_copies + 1
    return replace(found, base_bytes=GPU_BASE_BYTES, volume_copies=volumes, row_copies=rows)


def host_demand(run: ResolvedJob, on_device: Demand) -> Demand:
    """Memory of the host that slabs on GPUs need: rows being read and waiting, voxels waiting and being written."""
    devices = len(run.devices)
    return replace(on_device, fixed_bytes=0, apart_bytes=0, volume_copies=2.0 + 2.0 * devices, row_copies=4.0 * devices)


def _method_demand(run: ResolvedJob, batch: int) -> Demand:
    depth, _, width = run.grid.shape
    tilts = run.series.geometry.tilts
    if run.model is not None:
        config = run.model.network.config
        compute = Compute(run.device, run.precision, points=batch)
        if run.model.convention.published:
            return published_demand(run.model, run.series.geometry, run.grid, compute)
        halo = network_halo_px(config)
        fixed = network_bytes(config, run.series.geometry, run.grid, compute)
        of_row, tile = trunk_row_bytes(config, run.grid, compute.precision), compute.batch().trunk_bytes
        beyond = 2 * config.head.stride * config.trunk_reach
        usual, more = (trunk_tile_bytes(config, run.grid, n, compute.precision) for n in (tile, 2 * tile))
        if run.device.type == "cpu" and (more == usual or (MOST_SLAB_ROWS + beyond) * of_row <= usual):
            of_row = 0.0  # the plane is one tile, or the smallest tiles are within those of the usual size
        fixed += round(beyond * of_row)
        fixed += _parts_bytes(run, config.input.oversampling)
        copies = 3.2 + of_row / (4.0 * depth * width)
        # The rows as read, clipped and scaled; or these and what each window reads; or these on their way back.
        rows = 0.5 + 0.5 * max(4, config.input.oversampling * len(config.input.windows))
        mixed = bool(fbp_share(run.model, run.job.settings.fbp_share))
        trust = wedge_trust(run.model, run.job.settings.wedge_trust)
        if not mixed and trust == "full":
            return Demand(fixed, copies, rows, halo, config.head.stride)
        fixed += _index_bytes(tilts * depth * width, run.device) + plane_filter_bytes(run.grid, run.device)
        apart = fixed + comparing_bytes(run.grid, config.head.stride) if mixed or trust == "auto" else 0
        halo = max(halo, REACH_PX) if mixed else halo
        return Demand(fixed, copies, rows, halo, config.head.stride, apart_bytes=apart)
    iterative = run.job.settings.method == "sirt"
    wide = width + 2 * sirt_margin_px(depth) if iterative else width
    indices = _index_bytes(tilts * depth * wide, run.device, directions=2 if iterative else 1)
    return Demand(indices, 5.0 * wide / width if iterative else 2.5, 4.0 * run.preparation.copies)


def _parts_bytes(run: ResolvedJob, per_px: int) -> int:
    """Of rows that are filtered at a time, and of voxels that are put together from blocks at a time."""
    depth, height, width = run.grid.shape
    rows, geometry = min(height, MOST_SLAB_ROWS), run.series.geometry
    values = min(VALUES_AT_ONCE, geometry.tilts * 2 * rows * padded_length(geometry.image_shape[1]))
    return 4 * (_FILTER_ARRAYS * per_px * values + _SYNTHESIS_ARRAYS * min(VOXELS_AT_ONCE, depth * rows * width))


def _index_bytes(points: int, device: torch.device, directions: int = 1) -> int:
    """Of a projector for slices of so many voxels times tilts: what it keeps, if it does, and what it makes at a time.

    A CPU that projects back alone makes a table of 12 bytes an entry piece by piece, while the last one is still there.
    """
    entries = PIXELS_PER_VOXEL * points
    at_a_time = 36 if device.type == "cpu" and directions == 1 else 60
    return directions * 12 * (entries if entries <= CACHE_ENTRIES else 0) + at_a_time * min(entries, ENTRIES_PER_CHUNK)


def image_bytes(run: ResolvedJob) -> int:
    """Memory for an image that is prepared."""
    return bytes_at_work(run.series.geometry.image_shape, run.preparation.copies)


def image_workers_of(run: ResolvedJob) -> int:
    """Images to prepare at a time, with the host's cores in its memory."""
    budget = memory_budget_bytes(run.job.settings.max_memory if run.device.type == "cpu" else None, _CPU)
    threads = min(torch.get_num_threads(), usable_cores())
    return image_workers(run.series.geometry.image_shape, threads, budget - BASE_BYTES, run.preparation.copies)
