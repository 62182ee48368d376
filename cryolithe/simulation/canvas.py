"""The volume on which a cell is drawn: densities, what is taken, labels and placements."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cryolithe.simulation.cell import Array, Pair, Placement, relion_euler_deg

INSIDE = 0.15  # density above which a voxel belongs to a molecule
FREE, MEMBRANE, TAKEN = 0, 1, 2


@dataclass
class Canvas:
    """A cell while it is drawn."""

    shape: tuple[int, int, int]
    voxel: float
    field: slice
    slab: NDArray[np.float32]
    rng: np.random.Generator
    classes: list[str] = dataclasses.field(default_factory=list)
    placements: list[Placement] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.density = np.zeros(self.shape, dtype=np.float32)
        self.kind = np.zeros(self.shape, dtype=np.uint8)
        width = self.field.stop - self.field.start
        self.labels = np.zeros((*self.shape[:2], width), dtype=np.uint16)

    @property
    def area_um2(self) -> float:
        """Area of the specimen across the beam, µm²."""
        return self.shape[1] * self.shape[2] * (self.voxel * 1e-4) ** 2

    def block_outside(self, reach_px: float) -> None:
        """Call everything further than a reach outside the slab taken."""
        outside = self.slab < reach_px
        for z in range(self.shape[0]):
            self.kind[z, :, outside[z]] = TAKEN

    def label(self, name: str) -> int:
        """The number of a class, new or known."""
        if name not in self.classes:
            self.classes.append(name)
        return self.classes.index(name) + 1

    def mark(self, index: NDArray[np.int64], name: str, kind: int) -> None:
        """Take voxels, given as flat indices, for a class."""
        flat = self.kind.reshape(-1)
        flat[index] = np.maximum(flat[index], kind)
        z, y, x = np.unravel_index(index, self.shape)
        seen = (x >= self.field.start) & (x < self.field.stop)
        self.labels[z[seen], y[seen], x[seen] - self.field.start] = self.label(name)

    def mark_box(self, box: tuple[slice, ...], body: NDArray[np.bool_], name: str) -> None:
        """Take the voxels of a body in a box for a class."""
        self.kind[box][body] = TAKEN
        first, last = max(box[2].start, self.field.start), min(box[2].stop, self.field.stop)
        label = self.label(name)
        if first < last:
            part = self.labels[box[0], box[1], first - self.field.start : last - self.field.start]
            part[body[:, :, first - box[2].start : last - box[2].start]] = label

    def record(self, name: str, position: Array, rotation: Array) -> None:
        """Write down a placement, if its centre is in the field and in the slab."""
        z, y, x = (float(v) for v in position)
        x -= self.field.start
        inside = 0 <= z <= self.shape[0] - 1 and 0 <= y <= self.shape[1] - 1 and 0 <= x <= self.labels.shape[2] - 1
        if inside and self.slab[round(z), round(x) + self.field.start] > 0:
            euler = relion_euler_deg(rotation)
            self.placements.append(Placement(name, self.label(name), (z, y, x), rotation, euler))

    def count(self, per_um2: Pair) -> int:
        """Draw a number of things from a range per µm²."""
        return int(self.rng.poisson(self.rng.uniform(*per_um2) * self.area_um2))

    def place_angstrom(self, outside: float = 0.0) -> Array:
        """A random place in the slab, Å; up to ``outside`` Å beyond the grid across the beam."""
        y, x = (self.rng.uniform(-outside / self.voxel, n + outside / self.voxel) for n in self.shape[1:])
        column = np.flatnonzero(self.slab[:, int(np.clip(x, 0, self.shape[2] - 1))] > 0)
        low, high = (column[0], column[-1]) if column.size else (0, self.shape[0] - 1)
        return np.array([self.rng.uniform(low, high), y, x]) * self.voxel


def overlap(corner: Sequence[int], size: int, shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of a grid and of a cubic box whose first voxel lies at ``corner``; empty where they do not meet."""
    target = tuple(slice(max(c, 0), min(c + size, n)) for c, n in zip(corner, shape, strict=True))
    return target, tuple(slice(t.start - c, t.stop - c) for t, c in zip(target, corner, strict=True))


Posed = tuple[str, NDArray[np.float32], NDArray[np.bool_], Array]


def try_place(build: Canvas, posed: Posed, centre: NDArray[np.int64], blocking: int) -> int:
    """Draw a posed molecule centred on a voxel if nothing of a blocking kind is in the way; the voxels it fills."""
    name, box, body, rotation = posed
    target, source = overlap((centre - box.shape[0] // 2).tolist(), box.shape[0], build.shape)
    if any(part.start >= part.stop for part in target):
        return 0
    inner = body[source]
    taken = build.kind[target] >= blocking
    middle = tuple(n // 2 for n in taken.shape)
    if (taken[middle] and inner[middle]) or (taken & inner).any():
        return 0
    there, posed_density = build.density[target], box[source]
    # Between leaflets it may be thinner than ice: the empty corners of a molecule's box must not fill that.
    there[...] = np.where(there < 0, there + posed_density, np.maximum(there, posed_density))
    build.mark_box(target, inner, name)
    build.record(name, centre.astype(np.float64), rotation)
    return int(inner.sum())
