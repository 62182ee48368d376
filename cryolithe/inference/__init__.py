"""Networks applied fast: the functions that `cryolithe.network` defines, with the sums in another order."""

from __future__ import annotations

from cryolithe.inference.algebra import LiftedNetwork, lift_network, shows_overflow
from cryolithe.inference.columns import PointGrid
from cryolithe.inference.engine import BatchSize, Engine, RowRun
from cryolithe.inference.tiles import TrunkEngine

__all__ = [
    "BatchSize",
    "Engine",
    "LiftedNetwork",
    "PointGrid",
    "RowRun",
    "TrunkEngine",
    "lift_network",
    "shows_overflow",
]
