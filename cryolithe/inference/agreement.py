"""Whether the fast engine and a network's plain definition give the same values: a check of one model."""

from __future__ import annotations

import copy

import numpy as np
import torch

from cryolithe.geometry import TiltGeometry
from cryolithe.inference.algebra import lift_network
from cryolithe.inference.columns import PointGrid
from cryolithe.inference.engine import BatchSize, Engine, RowRun
from cryolithe.inference.tiles import TrunkEngine
from cryolithe.network import Network, RowSet, plane_values
from cryolithe.sampling import all_windows, point_columns, visible

# Sums in another order, in float64.
LARGEST_DIFFERENCE = 1e-9
_ANGLES_DEG = tuple(np.linspace(-60.0, 57.0, 7))
_WIDTH_PX, _PATCHES = 48, 2


@torch.inference_mode()
def definition_and_engine_difference(network: Network) -> float:
    """Largest difference of values of a small fixed input in float64, relative to the largest value.

    Args:
        network: any; it is copied.
    """
    exact = copy.deepcopy(network).double()
    windows, stride = exact.config.input.windows, exact.config.head.stride
    per_px = exact.config.input.oversampling
    geometry = TiltGeometry(_ANGLES_DEG, (_WIDTH_PX, _WIDTH_PX))
    grid = PointGrid(geometry, np.array([-7.5, 3.0]), np.array([-20.0, -3.5, 11.25]), per_px=per_px)
    generator = torch.Generator().manual_seed(20261)
    reach = exact.config.trunk_reach
    patches = _PATCHES + 2 * reach
    count = exact.rows_per_point + stride * (patches - 1)
    shape = (len(_ANGLES_DEG), count, _WIDTH_PX * per_px)
    rows = [torch.randn(shape, generator=generator).double() for _ in windows]
    columns = point_columns(geometry, np.repeat(grid.z_px, len(grid.x_px)), np.tile(grid.x_px, len(grid.z_px)))
    read = all_windows(rows, columns.double(), windows)
    angles = torch.from_numpy(geometry.angles_rad)
    plane = (len(grid.z_px), len(grid.x_px))
    expected = plane_values(exact, read, visible(columns, _WIDTH_PX), exact.tilt_context(angles), plane)
    rows_engine = Engine(lift_network(exact, angles), windows, grid, BatchSize())
    trunk = exact.trunk if isinstance(exact, RowSet) else None
    engine = rows_engine if trunk is None else TrunkEngine(rows_engine, trunk, reach)
    found = engine(RowRun(rows, stride * np.arange(patches, dtype=np.float64)))
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) / largest if largest else float(found.abs().max())
