"""Networks applied fast: the same functions as their definitions in `cryolithe.network`, with the sums in another order."""

from __future__ import annotations

from cryolithe.inference.algebra import LiftedNetwork, lift_network
from cryolithe.inference.columns import PointTable, point_table
from cryolithe.inference.engine import BatchSize, Engine, RowRun

__all__ = ["BatchSize", "Engine", "LiftedNetwork", "PointTable", "RowRun", "lift_network", "point_table"]
