"""Forward projection and its exact adjoint in torch: no CUDA toolkit, CPU and GPU alike.

Both directions are weighted sums over table rows that hold one line along y (`torch.nn.functional.embedding_bag`), so
no array of contributions is ever written to memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import embedding_bag

from cryolithe.geometry import TiltGeometry
from cryolithe.projector import shifted
from cryolithe.projector.footprint import PIXELS_PER_VOXEL, footprint, slice_points

ENTRIES_PER_CHUNK = 3_000_000
_ROWS_PER_CHUNK = 64
_POINTS = 2048
CACHE_ENTRIES = 30_000_000  # 12 bytes each, per direction
# A GPU sums a bag in one chain of loads. Those of a pixel are a thousand and pixels few: it wants more, smaller ones.
GPU_BAG = 32


class TorchProjector:
    """The projection of ``(z, y, x)`` volumes, single-axis geometry.

    Args:
        geometry: angles and detector width.
        slice_shape: voxels along ``(z, x)``.
        device: where to compute.
        planes: of the slice that are back-projected; all without it. Those alone cannot be projected.

    Attributes:
        geometry: as given.
        slice_shape: as given.
        device: as given.
    """

    def __init__(
        self,
        geometry: TiltGeometry,
        slice_shape: tuple[int, int],
        device: torch.device | str = "cpu",
        planes: range | None = None,
    ) -> None:
        self._planes = planes or range(slice_shape[0])
        self.geometry = geometry
        self.slice_shape = slice_shape
        self.device = torch.device(device)
        entries = len(self._planes) * slice_shape[1] * geometry.tilts * PIXELS_PER_VOXEL
        self._keep = entries <= CACHE_ENTRIES
        self._by_loop = geometry.shifts is not None and self.device.type == "cpu" and shifted.available()
        self._adjoint_chunks: list[tuple[range, torch.Tensor, torch.Tensor]] = []
        self._forward_bags: dict[int, _Bags] = {}
        self._most_in_bag = None if self.device.type == "cpu" else GPU_BAG
        self._band: tuple[float, TorchProjector] | None = None

    def at_row(self, row: int) -> TorchProjector:
        """See `Projector`; the last one is kept."""
        if self.geometry.shifts is None:
            return self
        middle = self.geometry.shifts.band_middle(row)
        if self._band is None or self._band[0] != middle:
            self._band = None  # free it before another is made
            self._band = middle, TorchProjector(self.geometry.at_row(row), self.slice_shape, self.device, self._planes)
        return self._band[1]

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        """Project: ``(z, rows, x)`` -> ``(tilts, rows, X)``."""
        depth, rows, width = volume.shape
        table = volume.to(self.device).permute(0, 2, 1).reshape(depth * width, rows).contiguous()
        out = table.new_empty((self.geometry.tilts, rows, self.geometry.image_shape[1]))
        for tilt in range(self.geometry.tilts):
            bags = self._bags(tilt)
            for y in range(0, rows, _ROWS_PER_CHUNK):
                part = table[:, y : y + _ROWS_PER_CHUNK].contiguous()
                out[tilt, y : y + _ROWS_PER_CHUNK] = bags.sums(part).T
        return out

    def adjoint(self, projections: torch.Tensor) -> torch.Tensor:
        """Back-project: ``(tilts, rows, X)`` -> ``(z, rows, x)``, the transpose of `forward`."""
        tilts, rows, columns = projections.shape
        width = self.slice_shape[1]
        lines = projections.to(self.device).permute(0, 2, 1)
        if self._by_loop:
            return shifted.back_project(self.geometry, self.slice_shape, self._planes, lines).transpose(1, 2)
        table = lines.reshape(tilts * columns, rows)
        parts = [table[:, y : y + _ROWS_PER_CHUNK].contiguous() for y in range(0, rows, _ROWS_PER_CHUNK)]
        out = table.new_empty((len(self._planes), rows, width))
        first = self._planes.start
        for planes, entry, weight in self._chunks():
            for number, part in enumerate(parts):
                bag = embedding_bag(entry, part, mode="sum", per_sample_weights=weight.to(part.dtype))
                y = number * _ROWS_PER_CHUNK
                values = bag.view(len(planes), width, part.shape[1]).transpose(1, 2)
                out[planes.start - first : planes.stop - first, y : y + part.shape[1]] = values
        return out

    def _chunks(self) -> Iterator[tuple[range, torch.Tensor, torch.Tensor]]:
        """Planes with their table entries and weights, each of shape ``(points, tilts * 3)``."""
        if self._adjoint_chunks:
            yield from self._adjoint_chunks
            return
        width = self.slice_shape[1]
        columns = self.geometry.image_shape[1]
        first = torch.arange(self.geometry.tilts, device=self.device)[:, None, None] * columns
        per_plane = width * self.geometry.tilts * PIXELS_PER_VOXEL
        step = max(1, ENTRIES_PER_CHUNK // per_plane)
        made: list[tuple[range, torch.Tensor, torch.Tensor]] = []
        for start in range(self._planes.start, self._planes.stop, step):
            planes = range(start, min(start + step, self._planes.stop))
            z, x = slice_points(planes, self.slice_shape, self.device)
            entry = torch.empty((len(z), self.geometry.tilts * PIXELS_PER_VOXEL), dtype=torch.int64, device=self.device)
            weight = torch.empty(entry.shape, dtype=torch.float32, device=self.device)
            # Piece by piece: what a core works on stays in its cache.
            at_a_time = _POINTS if self.device.type == "cpu" else len(z)
            for piece in (slice(n, n + at_a_time) for n in range(0, len(z), at_a_time)):
                seen = footprint(self.geometry, z[piece], x[piece])
                shape = (-1, self.geometry.tilts, PIXELS_PER_VOXEL)
                entry[piece].view(shape)[:] = (seen.pixel + first).transpose(0, 1)
                weight[piece].view(shape)[:] = seen.weight.transpose(0, 1)
            chunk = (planes, entry, weight)
            if self._keep:
                made.append(chunk)
            yield chunk
        self._adjoint_chunks = made  # all of them, or none where whoever takes them gave up

    def _bags(self, tilt: int) -> _Bags:
        """Voxels seen by each pixel of one tilt."""
        if tilt in self._forward_bags:
            return self._forward_bags[tilt]
        depth = self.slice_shape[0]
        points = slice_points(range(depth), self.slice_shape, self.device)
        seen = footprint(self.geometry.select([tilt]), *points)
        pixel, order = seen.pixel.flatten().sort(stable=True)
        voxel = torch.div(order, PIXELS_PER_VOXEL, rounding_mode="floor")
        starts = torch.searchsorted(pixel, torch.arange(self.geometry.image_shape[1], device=self.device))
        weight = seen.weight.flatten()[order].float()
        bags = _Bags(voxel, weight, starts)
        if self._most_in_bag is not None:
            bags = bags.divided(self._most_in_bag)
        if self._keep:
            self._forward_bags[tilt] = bags
        return bags


@dataclass(frozen=True)
class _Bags:
    """Which voxels a pixel sees.

    Attributes:
        voxel: numbers of voxels, those of one pixel together.
        weight: of each.
        starts: where a bag begins.
        firsts: number of the first bag of each pixel; None where each has one.
    """

    voxel: torch.Tensor
    weight: torch.Tensor
    starts: torch.Tensor
    firsts: torch.Tensor | None = None

    def divided(self, most: int) -> _Bags:
        """The same in bags of at most so many voxels."""
        end = self.starts.new_tensor([len(self.voxel)])
        counts = torch.diff(self.starts, append=end)
        parts = torch.div(counts + most - 1, most, rounding_mode="floor")
        firsts = parts.cumsum(0) - parts
        place = torch.arange(int(parts.sum()), device=self.starts.device) - firsts.repeat_interleave(parts)
        return _Bags(self.voxel, self.weight, self.starts.repeat_interleave(parts) + most * place, firsts)

    def sums(self, table: torch.Tensor) -> torch.Tensor:
        """Weighted sums, ``(pixels, rows)``, of lines ``(voxels, rows)``; always in the same order."""
        weight = self.weight.to(table.dtype)
        made = embedding_bag(self.voxel, table, self.starts, mode="sum", per_sample_weights=weight)
        if self.firsts is None:
            return made
        return embedding_bag(torch.arange(len(made), device=made.device), made, self.firsts, mode="sum")
