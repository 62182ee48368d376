"""How much of a volume to hold at a time, from the memory that may be used."""

from __future__ import annotations

import math
from dataclasses import dataclass

import psutil
import torch

from cryolithe.errors import ResourceError
from cryolithe.filters import padded_length
from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.machine.limits import group_limits

# Taller slabs save little (a halo of 22 rows is repeated per slab) and make progress and resuming coarse.
MOST_SLAB_ROWS = 128
SHARE_OF_FREE_MEMORY = 0.6
# A GPU has no page cache and no swap, but perhaps a display; what is left is for that and for the allocator's gaps.
SHARE_OF_FREE_GPU_MEMORY = 0.8
_FLOAT = 4
# torch, numpy and their thread pools: a run on a tiny series takes 0.31 GB with a torch for CPUs (FBP), and builds for
# GPUs load more.
BASE_BYTES = 450_000_000 if torch.version.cuda is None and torch.version.hip is None else 600_000_000
# Workspaces of the libraries for products and Fourier transforms on a GPU; its context is not free memory.
GPU_BASE_BYTES = 150_000_000


@dataclass(frozen=True)
class Demand:
    """Memory that a method needs.

    Attributes:
        fixed_bytes: whatever the slab's height.
        volume_copies: float32 copies of the slab's voxels that exist at once.
        row_copies: float32 copies of the slab's padded detector rows.
        halo_px: detector rows on each side of a slab.
        row_multiple: slab heights are multiples of this.
        base_bytes: of the program itself.
        apart_bytes: beside the program, of what is compared before the first slab, or checked after the last one.
    """

    fixed_bytes: int
    volume_copies: float
    row_copies: float
    halo_px: int = 0
    row_multiple: int = 1
    base_bytes: int = BASE_BYTES
    apart_bytes: int = 0


def memory_budget_bytes(max_memory_gb: float | None, device: torch.device) -> int:
    """Bytes of a device's memory that may be used: what the user allows, else a share of what is free now.

    More than is free of a GPU's memory cannot be allowed.
    """
    free = free_bytes(device)
    if device.type == "cuda":
        return int(SHARE_OF_FREE_GPU_MEMORY * free if max_memory_gb is None else min(max_memory_gb * 1e9, free))
    return int(max_memory_gb * 1e9) if max_memory_gb is not None else int(SHARE_OF_FREE_MEMORY * free) + BASE_BYTES


def free_bytes(device: torch.device) -> int:
    """Bytes of a GPU's memory, or of the machine's, that this process can still get."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    # In a container or a batch job the group's limit counts, not the machine's memory.
    in_group, free = group_limits().free_bytes, int(psutil.virtual_memory().available)
    return free if in_group is None else min(free, in_group)


def slab_rows(demand: Demand, geometry: TiltGeometry, grid: VolumeGrid, budget_bytes: int) -> int:
    """Height of a slab that fits into the budget.

    Raises:
        ResourceError: if not even the smallest slab fits; says how much it needs.
    """
    depth, height, width = grid.shape
    rows = rows_within(demand, geometry, grid, budget_bytes)
    if not rows:
        needed = run_bytes(demand, geometry, grid, demand.row_multiple)
        raise ResourceError(
            f"{budget_bytes / 1e9:.2f} GB of memory do not suffice for {depth} x {height} x {width} voxels: "
            f"at least {told_gb(needed)} GB are needed; raise --max-memory, or use --bin or a smaller --thickness"
        )
    return rows


def told_gb(needed_bytes: int) -> str:
    """Memory in GB that is not less: what an error says is enough has to be enough."""
    return f"{math.ceil(needed_bytes / 1e7) / 100:.2f}"


def rows_within(demand: Demand, geometry: TiltGeometry, grid: VolumeGrid, budget_bytes: int) -> int:
    """Height of a slab that fits into the budget; 0 where not even the smallest does."""
    constant, per_row = _bytes(demand, geometry, grid)
    height, multiple = grid.shape[1], demand.row_multiple
    rows = min(int((budget_bytes - constant) // per_row), MOST_SLAB_ROWS, height + (-height % multiple))
    return max(0, rows - rows % multiple) if budget_bytes >= run_bytes(demand, geometry, grid, multiple) else 0


def run_bytes(demand: Demand, geometry: TiltGeometry, grid: VolumeGrid, rows: int) -> int:
    """Memory that a run with slabs of ``rows`` rows uses at most, about."""
    constant, per_row = _bytes(demand, geometry, grid)
    return max(int(constant + rows * per_row), _apart(demand))


def _apart(demand: Demand) -> int:
    """Memory while there is no slab."""
    return demand.base_bytes + demand.apart_bytes


def _bytes(demand: Demand, geometry: TiltGeometry, grid: VolumeGrid) -> tuple[float, float]:
    """Memory whatever the slab, and for each of its rows."""
    depth, _, width = grid.shape
    volume_row = demand.volume_copies * depth * width * _FLOAT
    detector_row = demand.row_copies * geometry.tilts * padded_length(geometry.image_shape[1]) * _FLOAT
    return demand.base_bytes + demand.fixed_bytes + 2 * demand.halo_px * detector_row, volume_row + detector_row
