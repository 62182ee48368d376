"""What the trunk of a network holds at a time, see `cryolithe.inference.tiles`."""

from __future__ import annotations

import math

import torch

from cryolithe.geometry import VolumeGrid
from cryolithe.network import NetworkConfig
from cryolithe.reconstruction.plan import MOST_SLAB_ROWS

# Arrays as large as its input that a trunk needs at once: input, one converted, a unit's three, what widens it.
TRUNK_ARRAYS = 6


def trunk_tile_bytes(config: NetworkConfig, grid: VolumeGrid, trunk_values: int, precision: torch.dtype) -> int:
    """Memory of a CPU that a trunk takes for a tile: of its usual size, or of the whole plane where that is smaller.

    One array is in float32, the others are in the network's precision.

    Args:
        config: of the network.
        grid: voxels of the volume.
        trunk_values: that a trunk takes at once.
        precision: of its layers.
    """
    if not config.trunk_reach:
        return 0
    head = config.head
    plane = math.prod(grid.shape[axis] // head.stride + 2 * head.margin + 1 for axis in (0, 2))
    patches = -(-min(MOST_SLAB_ROWS, grid.shape[1]) // head.stride) + 2 * config.trunk_reach
    values = min(trunk_values, plane * patches * config.combiner_width)
    return (4 + (TRUNK_ARRAYS - 1) * precision.itemsize) * values


def trunk_row_bytes(config: NetworkConfig, grid: VolumeGrid) -> float:
    """Memory for each row of a slab that a trunk needs even in its smallest tiles."""
    if not config.trunk_reach:
        return 0.0
    sides = (min(4 * config.trunk_reach, grid.shape[axis] // config.head.stride + 2) for axis in (0, 2))
    return 4.0 * TRUNK_ARRAYS * math.prod(sides) * config.combiner_width / config.head.stride
