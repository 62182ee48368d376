"""Networks from windows of detector rows to voxels: `RowSet` (default) and `SliceSet` (published)."""

from __future__ import annotations

from cryolithe.network.config import Head, InputWindow, NetworkConfig, RowSetConfig, SliceSetConfig
from cryolithe.network.rowset import RowSet
from cryolithe.network.sliceset import SliceSet

Network = RowSet | SliceSet

__all__ = [
    "Head",
    "InputWindow",
    "Network",
    "NetworkConfig",
    "RowSet",
    "RowSetConfig",
    "SliceSet",
    "SliceSetConfig",
    "build_network",
]


def build_network(config: NetworkConfig) -> Network:
    """Make a network with fresh weights."""
    return RowSet(config) if isinstance(config, RowSetConfig) else SliceSet(config)
