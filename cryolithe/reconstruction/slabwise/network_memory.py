"""What a network holds at a time beside the rows and voxels of its slab, see `cryolithe.inference`."""

from __future__ import annotations

import math

import torch

from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.inference.engine import lifting_share
from cryolithe.inference.pooling import pools_in_registers
from cryolithe.network import NetworkConfig, SliceSetConfig
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.reconstruction.slabwise.plan import MOST_SLAB_ROWS

# Arrays as large as its input that a trunk needs at once, and what its convolutions need beside them: the input, the
# same without what is negative, what one of a unit's convolutions makes, and what the other does (4.5 at most of three
# widths and two precisions).
TRUNK_ARRAYS = 4.5
# A GPU's convolutions may take more.
GPU_TRUNK_ARRAYS = 6.0


def network_bytes(config: NetworkConfig, geometry: TiltGeometry, grid: VolumeGrid, compute: Compute) -> int:
    """Memory that a network needs beside the rows and voxels of its slab: lifted rows, kept features, blocks.

    A CPU works on one block for each thread, in float32; a GPU on a single one, in the network's precision.

    Args:
        config: of the network.
        geometry: of the series.
        grid: voxels of the volume.
        compute: where and how, with what is worked on at a time.
    """
    batch, stride, head = compute.batch(), config.head.stride, config.head
    width = geometry.image_shape[1] * config.input.oversampling
    points = (grid.shape[0] // stride + 2 * head.margin + 1) * (grid.shape[2] // stride + 2 * head.margin + 1)
    kept_points, rows = min(points, batch.points_in_memory), config.rows - 1 + stride * batch.patches
    channels, at_once, patches = config.channels, stride * batch.patches, batch.patches
    if isinstance(config, SliceSetConfig):
        channels, at_once, patches = config.set_hidden, 1, 1
    of_rows, item = 4 * geometry.tilts * (width + 4) * at_once, compute.precision.itemsize
    if compute.device.type == "cpu":
        widest = max(channels, config.row_hidden, config.combiner_width)
        threads = max(2, compute.threads or torch.get_num_threads())
        # Some tilts are lifted at a time, by each thread.
        lifted = round(
            of_rows * (channels + (channels + config.input.samples) * lifting_share(geometry.tilts, threads))
        )
        block = 4 * threads * batch.points * rows * (3 * widest + 2 * config.row_features * batch.patches)
        trunk = trunk_tile_bytes(config, grid, batch.trunk_bytes, compute.precision)
        return lifted + kept_points * (item * rows * config.row_features + 12 * geometry.tilts) + block + trunk
    lifted = 3 * of_rows * (channels + config.input.samples)
    kept = kept_points * item * rows * config.row_features
    kept += min(points, max(kept_points, batch.points_kept)) * (8 * geometry.tilts + 32)
    # Without a kernel of its own the pooling holds two columns, their mixture and the sum, in float32.
    pooled = channels * (item if pools_in_registers(compute.device) and at_once > 1 else 16 + item)
    encoded = at_once * (pooled + item * (config.row_hidden + config.row_features))
    moved = item * config.row_features * (rows - at_once)
    joined = patches * (item * (config.rows * config.row_features + 3 * config.combiner_width) + 4 * head.outputs)
    trunk = round(GPU_TRUNK_ARRAYS * batch.trunk_bytes) if config.trunk_reach else 0
    # Rows are lifted when no block is at work; those of the batch before may still be there.
    at_work = max(lifted, min(batch.points, points) * (encoded + moved + joined))
    return kept + at_work + 2 * item * geometry.tilts * (width + 4) * channels * at_once + trunk


def trunk_tile_bytes(config: NetworkConfig, grid: VolumeGrid, trunk_bytes: int, precision: torch.dtype) -> int:
    """Memory of a CPU that a trunk takes for a tile: of its usual size, or of the whole plane where that is smaller.

    Args:
        config: of the network.
        grid: voxels of the volume.
        trunk_bytes: of the values that a trunk takes at once.
        precision: of its layers.
    """
    if not config.trunk_reach:
        return 0
    head = config.head
    plane = math.prod(grid.shape[axis] // head.stride + 2 * head.margin + 1 for axis in (0, 2))
    patches = -(-min(MOST_SLAB_ROWS, grid.shape[1]) // head.stride) + 2 * config.trunk_reach
    return round(TRUNK_ARRAYS * min(trunk_bytes, plane * patches * config.combiner_width * precision.itemsize))


def trunk_row_bytes(config: NetworkConfig, grid: VolumeGrid, precision: torch.dtype) -> float:
    """Memory for each row of a slab that a trunk needs even in its smallest tiles."""
    if not config.trunk_reach:
        return 0.0
    sides = (min(4 * config.trunk_reach, grid.shape[axis] // config.head.stride + 2) for axis in (0, 2))
    return precision.itemsize * TRUNK_ARRAYS * math.prod(sides) * config.combiner_width / config.head.stride
