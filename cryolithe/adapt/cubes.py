"""Cubes of a lab's volume: what a network sees of one half, and the back-projection of the other half there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.adapt.halves import Half, HalfSeries
from cryolithe.errors import InputError
from cryolithe.filters import filter_rows, padded_length, ramp_response
from cryolithe.geometry import TiltGeometry, centre_px
from cryolithe.network import NetworkConfig
from cryolithe.network.knowing import encode_known
from cryolithe.sampling import Window, block_positions_px, pad_rows, point_columns, row_windows
from cryolithe.training.augment import cut_range, flipped_angles_deg
from cryolithe.training.dataset import Run
from cryolithe.training.loop import FACE, smaller_cube

# Voxels along each edge of what is compared, at least: fewer have no shells.
FEWEST_VOXELS = 8
_POINT = Window(1)


@dataclass(frozen=True)
class Layout:
    """How cubes of a network lie in a volume.

    Attributes:
        network: of the network.
        blocks: of a cube along z, y, x.
        shape: voxels of the volume, ``(z, y, x)``.
        training: rows that are learned from; none of a series that is held back whole.
        held: rows that checks look at; none where other series are held back.
    """

    network: NetworkConfig
    blocks: tuple[int, int, int]
    shape: tuple[int, int, int]
    training: range
    held: range

    @property
    def rows(self) -> int:
        """Detector rows that a cube is made from."""
        return self.network.rows - 1 + self.network.head.stride * self.blocks[1]

    @property
    def rows_of_all(self) -> range:
        """All rows of the volume."""
        return range(self.shape[1])

    @property
    def holds_shells(self) -> bool:
        """Whether there is room for a cube, and enough of it is compared."""
        return min(self.blocks) >= 1 and min(self.voxels) >= FEWEST_VOXELS

    @property
    def inner(self) -> tuple[int, int, int]:
        """Blocks whose values are compared; a trunk knows too little of the others."""
        return smaller_cube(self.blocks) if self.network.trunk_reach else self.blocks

    @property
    def voxels(self) -> tuple[int, int, int]:
        """Voxels that are compared along z, y, x."""
        head = self.network.head
        z, y, x = (head.stride * (count - 2 * head.margin) for count in self.inner)
        return z, y, x

    def first_voxel(self, axis: int, first_block: int) -> int:
        """Number of the first of these voxels, of a cube that begins with a block (0: that of the first voxel)."""
        skipped = (self.blocks[axis] - self.inner[axis]) // 2
        return self.network.head.stride * (first_block + skipped + self.network.head.margin)


def layouts_of(
    series: Sequence[HalfSeries], network: NetworkConfig, cube_px: Sequence[int], held_share: float
) -> list[Layout]:
    """Divide volumes into rows to learn from and rows held back.

    Where one has no room for two parts, all of it is learned from, for the others have their rows held back. Where none
    has, some of several are held back whole, evenly among them.

    Args:
        series: the images of each.
        network: its head and rows.
        cube_px: largest edges of a cube, voxels.
        held_share: part of the rows that is held back, at the end of y, or of the series.

    Raises:
        InputError: if a series is too small, or the only one has no room for two parts.
    """
    divided = [_layout(one, network, cube_px, 2) for one in series]
    whole = [_layout(one, network, cube_px, 1) for one in series]
    for one, layout in zip(series, divided if len(series) == 1 else whole, strict=True):
        if not layout.holds_shells:
            raise _too_small(one, network)
    if any(layout.holds_shells for layout in divided):
        return [
            _divided(layout, held_share) if layout.holds_shells else replace(all_of_it, training=all_of_it.rows_of_all)
            for layout, all_of_it in zip(divided, whole, strict=True)
        ]
    count = min(len(series) - 1, max(1, round(held_share * len(series))))
    held = {int((number + 0.5) * len(series) / count) for number in range(count)}
    return [
        replace(layout, held=layout.rows_of_all) if number in held else replace(layout, training=layout.rows_of_all)
        for number, layout in enumerate(whole)
    ]


def _layout(series: HalfSeries, network: NetworkConfig, cube_px: Sequence[int], parts: int) -> Layout:
    """The largest cubes of which each of so many parts of the rows holds one, with the rows around it.

    All rows of a cube are seen in the columns of its middle: where a local alignment shifts columns by depth, it is no
    taller than a band of rows whose shifts are alike, if that is tall enough.
    """
    height, width = series.image_shape
    stride, margin = network.head.stride, network.head.margin
    z, x = (-(-size // stride) + 2 * margin for size in (series.depth, width))
    y = (height // parts - (network.rows - 1) - (stride - 1)) // stride
    shifts = series.halves[0].stack.geometry.shifts
    if shifts is not None:
        y = min(y, max(shifts.band_rows // stride, _fewest_blocks(network)))
    z, y, x = (min(max(1, edge // stride), most) for edge, most in zip(cube_px, (z, y, x), strict=True))
    return Layout(network, (z, y, x), (series.depth, height, width), range(0), range(0))


def _fewest_blocks(network: NetworkConfig) -> int:
    """Blocks along an axis of the smallest cube of which enough is compared."""
    faces = 2 * FACE if network.trunk_reach else 0
    return -(-FEWEST_VOXELS // network.head.stride) + 2 * network.head.margin + faces


def _divided(layout: Layout, held_share: float) -> Layout:
    """The end of y is held back."""
    height = layout.shape[1]
    needed = layout.rows + layout.network.head.stride - 1  # wherever blocks begin
    held = min(height - needed, max(needed, round(held_share * height)))
    return replace(layout, training=range(height - held), held=range(height - held, height))


def _too_small(series: HalfSeries, network: NetworkConfig) -> InputError:
    head, shape = network.head, (series.depth, *series.image_shape)
    faces = head.stride * (2 * FACE if network.trunk_reach else 0)
    across, along = FEWEST_VOXELS + faces, FEWEST_VOXELS + network.rows + faces + 2 * head.stride * head.margin
    return InputError(
        f"{series.name}: a volume of {' x '.join(map(str, shape))} voxels (z, y, x) is too small to learn from: give "
        f"{across} or more along z and x, and about {2 * along} along y, or {along} with several series, of which "
        "some are then held back whole; or bin less"
    )


@dataclass(frozen=True)
class Cube:
    """What is compared in one place.

    Attributes:
        run: what the network sees of one half; its targets are the other half's back-projection, ``(z, y, x)``.
        own: the back-projection of the first half with all of its tilts, likewise; None where nobody asked.
        seen_deg: range of the tilts that the network sees.
        all_deg: range of all tilts of the other half.
    """

    run: Run
    own: torch.Tensor | None
    seen_deg: tuple[float, float]
    all_deg: tuple[float, float]


@dataclass(frozen=True)
class Draw:
    """What is left to chance when a cube is drawn.

    Attributes:
        rows: to draw from.
        cut: chance that tilts at the ends are left out of what the network sees, as many as chance will have it.
        both_ends: tilts that are left out at either end in any case.
        flip: chance of a flip, for each axis.
        half: number of the half that the network sees; None for either.
        own: whether the first half's own back-projection is wanted.
    """

    rows: range
    cut: float = 0.0
    both_ends: int = 0
    flip: float = 0.0
    half: int | None = None
    own: bool = False


def draw_cube(series: HalfSeries, layout: Layout, how: Draw, rng: np.random.Generator) -> Cube:
    """Draw a place, a half, tilts and flips."""
    network, stride = layout.network, layout.network.head.stride
    first = [_first_block(layout, axis, rng) for axis in (0, 2)]
    reach = (network.rows - 1) // 2
    low, high = -(-(how.rows.start + reach) // stride), (how.rows.stop - layout.rows + reach) // stride
    row = int(rng.integers(low, max(low, high) + 1))
    number = int(rng.integers(2)) if how.half is None else how.half
    seen, other = series.halves[number], series.halves[1 - number]
    angles = np.asarray(seen.angles_deg)
    order = np.argsort(angles, kind="stable")
    keep = np.sort(order[how.both_ends : len(order) - how.both_ends])
    if rng.random() < how.cut:
        keep = cut_range(angles, max(4, len(angles) // 2), rng)
    flips = tuple(bool(rng.random() < how.flip) for _ in range(3))
    z, x = (
        block_positions_px(layout.shape[axis], begin, layout.blocks[axis], stride)
        for axis, begin in zip((0, 2), first, strict=True)
    )
    z, x = np.repeat(z, len(x)), np.tile(x, len(z))
    rows = _flipped(seen.rows(stride * row - reach, layout.rows), flips)
    geometry = _geometry(seen, keep, layout, row, flips)
    place = (first[0], row, first[1])
    angles_rad = torch.from_numpy(geometry.angles_rad.astype(np.float32))
    facts = network.input.known
    run = Run(
        rows=rows[torch.from_numpy(keep)],
        columns=point_columns(geometry, z, x),
        angles_rad=angles_rad,
        targets=_back_projection(other, layout, place, flips),
        output_gain=1.0,
        cube=layout.blocks,
        name=series.name,
        facts=encode_known(seen.known.of_images(keep.tolist()), facts, angles_rad) if facts else None,
    )
    own = _back_projection(seen, layout, place, flips) if how.own else None
    whole = flipped_angles_deg(other.angles_deg, flips[0], flips[2])
    return Cube(run, own, _range(geometry.angles_deg), _range(whole))


def _first_block(layout: Layout, axis: int, rng: np.random.Generator) -> int:
    """First block of a cube along z, where the middle is likelier (ice is thinner than volumes), or x."""
    head = layout.network.head
    spare = -(-layout.shape[axis] // head.stride) + 2 * head.margin - layout.blocks[axis]
    share = rng.random(2).mean() if axis == 0 else rng.random()
    return int(share * (spare + 1)) - head.margin


def _flipped(rows: torch.Tensor, flips: tuple[bool, ...]) -> torch.Tensor:
    """Rows of the volume flipped along (z, y, x)."""
    rows = rows.flip(1) if flips[1] else rows
    return rows.flip(2) if flips[2] else rows


def _geometry(
    half: Half, keep: NDArray[np.int64], layout: Layout, first_block: int, flips: tuple[bool, ...]
) -> TiltGeometry:
    """How some tilts of a half see a cube; where a local alignment shifts columns, as its middle row has them."""
    geometry = half.stack.geometry.select(half.tilts[keep])
    if geometry.shifts is not None:
        stride = layout.network.head.stride
        middle = stride * first_block + (stride * layout.blocks[1] - 1) / 2
        geometry = replace(geometry, shifts=geometry.shifts.at(middle - geometry.centre[0]))
    for axis, flipped in zip("zx", (flips[0], flips[2]), strict=True):
        geometry = geometry.mirrored(axis) if flipped else geometry
    return geometry


def _range(angles_deg: Sequence[float]) -> tuple[float, float]:
    return min(angles_deg), max(angles_deg)


def _back_projection(half: Half, layout: Layout, place: tuple[int, int, int], flips: tuple[bool, ...]) -> torch.Tensor:
    """Filtered back-projection of a half, with all of its tilts, at the voxels that are compared."""
    count_z, count_y, count_x = layout.voxels
    first_z, first_y, first_x = (layout.first_voxel(axis, place[axis]) for axis in range(3))
    stride, reach = layout.network.head.stride, (layout.network.rows - 1) // 2
    begin = stride * place[1] - reach
    # The rows of the whole cube are flipped as the network's are; what is compared lies in their middle.
    rows = _flipped(half.rows(begin, layout.rows), flips)[:, first_y - begin : first_y - begin + count_y]
    z = np.arange(first_z, first_z + count_z, dtype=np.float64) - centre_px(layout.shape[0])
    x = np.arange(first_x, first_x + count_x, dtype=np.float64) - centre_px(layout.shape[2])
    geometry = _geometry(half, np.arange(len(half.tilts)), layout, place[1], flips)
    points = np.repeat(z, count_x), np.tile(x, count_z)
    values = back_projected(rows, geometry, points, layout.network.input.ramp_window)
    return values.view(count_z, count_x, count_y).transpose(1, 2).contiguous()


def back_projected(
    rows: torch.Tensor, geometry: TiltGeometry, points_px: tuple[NDArray[np.float64], NDArray[np.float64]], window: str
) -> torch.Tensor:
    """Filtered back-projection (`cryolithe.projector.classical.fbp`) at some points alone.

    Args:
        rows: shape ``(tilts, rows, X)``.
        geometry: of them.
        points_px: z and x relative to the volume's centre, shape ``(points,)`` each.
        window: of the ramp filter.

    Returns:
        shape ``(points, rows)``.
    """
    response = ramp_response(padded_length(rows.shape[-1]), window)
    (filtered,) = filter_rows(rows, response)
    columns = point_columns(geometry, *points_px)
    total = torch.zeros(columns.shape[1], rows.shape[1])
    for number, weight in enumerate(geometry.angular_weights_rad()):
        one = slice(number, number + 1)
        total += float(weight) * row_windows(pad_rows(filtered[one], _POINT), columns[one], _POINT)[0, :, :, 0]
    return total
