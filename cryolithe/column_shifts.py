"""`ColumnShifts`: what is left of a local alignment away from the depth for which the images were bent back.

Where a bend changes along a beam (`cryolithe.bending`), points above and below the middle of the volume are seen in
other columns than ``u = x cos θ + z sin θ``, by a few pixels at most, smoothly. Every method looks its columns up with
them, band by band of rows: rows of a band have the shifts of its middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import torch

# Rows of a band: as many as the shifts allow, of these. Bands begin at multiples of their height, wherever slabs do, so
# that the voxels are the same in slabs of any height.
BANDS = (8, 16, 32, 64, 128)
# By how many pixels a row's shifts may differ from those of the middle of its band.
_TOLERATED_PX = 0.2


@dataclass(frozen=True, eq=False)
class ColumnShifts:
    """Shifts at the nodes of a coarse grid over the volume.

    Attributes:
        y_px: nodes, voxels from the middle of the volume, evenly spaced; likewise z_px and x_px.
        z_px: see there.
        x_px: see there.
        values: pixels to add to u, shape ``(tilts, y, z, x)``, float32.
        band_rows: rows that have the shifts of their middle.
    """

    y_px: NDArray[np.float64]
    z_px: NDArray[np.float64]
    x_px: NDArray[np.float64]
    values: NDArray[np.float32]
    band_rows: int = BANDS[0]

    def __eq__(self, other: object) -> bool:
        """Whether the numbers are the same: those of two halves are found one by one."""
        if not isinstance(other, ColumnShifts):
            return NotImplemented
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("y_px", "z_px", "x_px", "values"))
        return self.band_rows == other.band_rows and all(np.array_equal(one, two) for one, two in pairs)

    def __hash__(self) -> int:
        return hash((self.values.shape, self.band_rows))

    def at(self, y_px: float) -> ColumnShifts:
        """Those of one row, by linear interpolation; the outermost beyond the nodes."""
        place = float(np.interp(y_px, self.y_px, np.arange(len(self.y_px))))
        first = min(int(place), max(0, len(self.y_px) - 2))
        last, part = min(first + 1, len(self.y_px) - 1), np.float32(place - first)
        values = self.values[:, first] * (1 - part) + self.values[:, last] * part
        return replace(self, y_px=np.array([y_px]), values=values[:, None])

    def of_row(self) -> ColumnShifts:
        """Those of the one row that it holds, or of the middle one of several."""
        return self if len(self.y_px) == 1 else self.at(0.0)

    def band_middle(self, row: int) -> float:
        """The middle row of the band that holds a row of the images."""
        return row // self.band_rows * self.band_rows + (self.band_rows - 1) / 2

    def select(self, keep: ArrayLike) -> ColumnShifts:
        """Those of the tilts at the indices ``keep``."""
        return replace(self, values=self.values[np.asarray(keep)])

    def mirrored(self, axis: str) -> ColumnShifts:
        """Those of a specimen mirrored along "x", where the signs of shifts turn, too, along "y", or along "z"."""
        if axis == "x":
            return replace(self, x_px=-self.x_px[::-1], values=-self.values[..., ::-1])
        if axis == "z":
            return replace(self, z_px=-self.z_px[::-1], values=self.values[:, :, ::-1])
        return replace(self, y_px=-self.y_px[::-1], values=self.values[:, ::-1])

    def of_points(self, z_px: torch.Tensor, x_px: torch.Tensor) -> torch.Tensor:
        """Shifts of points in the row (of several, the middle one): linear between nodes, constant beyond.

        Args:
            z_px: from the middle of the volume, shape ``(points,)``, on any device.
            x_px: likewise.

        Returns:
            shape ``(tilts, points)``, float32.
        """
        import torch  # slow to import, and geometry is wanted without it

        plane = self.of_row().values[:, 0]
        places = [_scaled(points, nodes) for points, nodes in ((x_px, self.x_px), (z_px, self.z_px))]
        found = torch.nn.functional.grid_sample(
            torch.from_numpy(np.ascontiguousarray(plane))[None].to(z_px.device),
            torch.stack(places, dim=-1)[None, None],
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
        return found[0, :, 0]


def _scaled(points: torch.Tensor, nodes: NDArray[np.float64]) -> torch.Tensor:
    """-1 at the first node, 1 at the last."""
    middle, half = (nodes[0] + nodes[-1]) / 2, (nodes[-1] - nodes[0]) / 2
    return ((points - middle) / (half or 1.0)).float()


def bands_for(values: NDArray[np.float32], step_px: float) -> int:
    """Rows of a band for shifts ``(tilts, y, z, x)`` at nodes that lie ``step_px`` rows apart."""
    steepest = float(np.abs(np.diff(values, axis=1)).max()) / step_px if values.shape[1] > 1 else 0.0
    return max((rows for rows in BANDS if steepest * rows / 2 <= _TOLERATED_PX), default=BANDS[0])


def row_bands(shifts: ColumnShifts, first_row: int, rows: int) -> Iterator[tuple[int, int]]:
    """The bands of a slab: first row and the one after the last, counted from the slab's first."""
    start = 0
    while start < rows:
        stop = min(rows, start + shifts.band_rows - (first_row + start) % shifts.band_rows)
        yield start, stop
        start = stop
