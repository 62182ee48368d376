"""Networks from windows of detector rows to voxels: `RowSet` (default) and `SliceSet` (published)."""

from __future__ import annotations

import torch

from cryolithe.network.config import InputWindow, NetworkConfig, RowSetConfig, SliceSetConfig
from cryolithe.network.heads import BlockHead, Head
from cryolithe.network.rowset import RowSet
from cryolithe.network.sliceset import SliceSet

Network = RowSet | SliceSet

__all__ = [
    "BlockHead",
    "Head",
    "InputWindow",
    "Network",
    "NetworkConfig",
    "RowSet",
    "RowSetConfig",
    "SliceSet",
    "SliceSetConfig",
    "build_network",
    "plane_values",
]


def plane_values(
    network: Network,
    windows: torch.Tensor,
    visible: torch.Tensor,
    context: torch.Tensor,
    grid: tuple[int, int],
    facts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Values of all blocks of a plane of points by the plain definition.

    Args:
        network: any.
        windows: of the points, x fastest, shape ``(tilts, z * x, rows, samples)``.
        visible: shape ``(tilts, z * x)``.
        context: result of the network's ``tilt_context``.
        grid: points along z and x.
        facts: what ``context`` was made with.

    Returns:
        shape ``(z * x, blocks, outputs)``; blocks within a trunk's reach of either end are left out.
    """
    joined: torch.Tensor = network(windows, visible, context, *(() if facts is None else (facts,)))
    reach = network.config.trunk_reach
    if not reach or not isinstance(network, RowSet):
        return joined
    return network.refine(joined, grid)[:, reach : joined.shape[1] - reach]


def build_network(config: NetworkConfig) -> Network:
    """Make a network with fresh weights."""
    return RowSet(config) if isinstance(config, RowSetConfig) else SliceSet(config)
