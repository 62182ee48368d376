"""Warp's grids of local movements and of the specimen's warping, in the .xml of a tilt series.

``GetPositionInAllTilts`` (WarpLib/TiltSeries/TiltSeries.cs) sees a point, in Å, in three steps:

- the specimen is warped: ``GridVolumeWarpX, Y, Z`` are added to the point. Four linear dimensions: x, y and z as parts
  of VolumeDimensionsAngstrom, the dose as a part of its range, nodes at 0 and 1 (``LinearGrid4D``; constant beyond);
- it is turned (about x by LevelAngleX first), projected and shifted (`cryolithe.formats.alignment.warp`);
- ``GridMovementX, Y`` are taken off: cubic splines with natural ends in the place as a part of ImageDimensionsAngstrom,
  and in the number of the image as a part of the last one's, nodes from the margins to 1 less these (``CubicGrid``).

What turns parts of the specimen alone (``GridAngleX, Y, Z``) is not applied.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from cryolithe.alignment import Matrix
from cryolithe.bending import Floats, cell, specimen_x_px
from cryolithe.errors import FileFormatError
from cryolithe.formats.files import finite_numbers, printable

MOVEMENT = ("GridMovementX", "GridMovementY")
WARPING = ("GridVolumeWarpX", "GridVolumeWarpY", "GridVolumeWarpZ")
_SIZES, _NODE = ("Width", "Height", "Depth", "Duration"), ("X", "Y", "Z", "W")
MOST_VALUES, MOST_ANGSTROM = 50_000_000, 1e9
Movement = Callable[[Floats, Floats], Floats]
Warping = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True)
class Grid:
    """A grid's nodes.

    Attributes:
        values: Å, shape ``(w, z, y, x)``.
        margins: of x, y and z, as parts of the whole.
    """

    values: NDArray[np.float64]
    margins: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class WarpBend:
    """The field of an image; see `cryolithe.bending.Bend`.

    Attributes:
        matrix: A of the image's transform, q = A p + d.
        shift_px: d.
        angle_deg: by which the specimen is tilted.
        warping: of the specimen, pixels, shape ``(3, *S)``, or None.
        movement: to be taken off in the raw image, pixels, shape ``(2, *S)``, or None.
        x_tilt_deg: α of the specimen (`cryolithe.alignment.Alignment`), which is warped before it is turned by that.
    """

    matrix: Matrix
    shift_px: tuple[float, float]
    angle_deg: float
    warping: Warping | None
    movement: Movement | None
    x_tilt_deg: float = 0.0

    @property
    def deep(self) -> bool:
        """Whether the specimen is warped, not the image."""
        return self.warping is not None

    def at(self, x_px: Floats, y_px: Floats, z_px: Floats | float) -> Floats:
        """See `cryolithe.bending.Bend`."""
        x, y, z = np.broadcast_arrays(x_px, y_px, z_px)
        moved: Floats = np.zeros((2, *x.shape))
        if self.warping is not None:
            theta = math.radians(self.angle_deg)
            c, s = math.cos(math.radians(self.x_tilt_deg)), math.sin(math.radians(self.x_tilt_deg))
            across, along, deep = self.warping(specimen_x_px(x, z, self.angle_deg), y * c + z * s, z * c - y * s)
            depth = along * s + deep * c
            moved = np.stack([across * math.cos(theta) + depth * math.sin(theta), along * c - deep * s])
        if self.movement is None:
            return moved
        matrix = np.array(self.matrix)
        seen = np.stack([x + moved[0] - self.shift_px[0], y + moved[1] - self.shift_px[1]])
        place = np.einsum("ij,j...->i...", np.linalg.inv(matrix), seen)
        return moved - np.einsum("ij,j...->i...", matrix, self.movement(place[0], place[1]))


@dataclass(frozen=True)
class Grids:
    """The grids of a series that move anything.

    Attributes:
        movement: of x and y; None where nothing moves.
        warping: of x, y and z; None where nothing is warped.
        image_angstrom: extent ``(x, y)`` of an image, or None.
        volume_angstrom: extent ``(x, y, z)`` of the specimen, or None.
        doses: of all images, e/Å².
    """

    movement: tuple[Grid, ...] | None
    warping: tuple[Grid, ...] | None
    image_angstrom: tuple[float, ...] | None
    volume_angstrom: tuple[float, ...] | None
    doses: tuple[float, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing moves."""
        return self.movement is None and self.warping is None


NO_GRIDS = Grids(None, None, None, None, ())


def read_grids(root: ElementTree.Element, images: int) -> Grids:
    """The grids of a series.

    Args:
        root: of its .xml.
        images: how many it holds.

    Raises:
        FileFormatError: if a grid is damaged, or what it needs is not there.
    """
    movement, warping = (_moving([_read_grid(root, name) for name in names]) for names in (MOVEMENT, WARPING))
    volume = _extent(root, "VolumeDimensionsAngstrom", 3)
    if warping and volume is None and any(grid.values[0].size > 1 for grid in warping):
        raise FileFormatError("GridVolumeWarp needs VolumeDimensionsAngstrom, which is not told")
    doses = [_number(word, "Dose") for word in (root.findtext("Dose") or "").split()]
    if warping and len(doses) != images and any(len(grid.values) > 1 for grid in warping):
        raise FileFormatError(f"GridVolumeWarp needs {images} values in <Dose>, found {len(doses)}")
    return Grids(movement, warping, _extent(root, "ImageDimensionsAngstrom", 2), volume, tuple(doses))


def movement_of(
    grids: Grids, number: int, images: int, image_angstrom: Sequence[float], pixel: float
) -> Movement | None:
    """GridMovement in one image, pixels, at places from its middle.

    Args:
        grids: of the series.
        number: of the image, from 0.
        images: how many there are.
        image_angstrom: extent of the stack's images, where the file does not tell it.
        pixel: size in Å.
    """
    if grids.movement is None:
        return None
    width, height = grids.image_angstrom or image_angstrom
    planes = [_plane(grid, number / max(1, images - 1)) for grid in grids.movement]

    def moved(x_px: Floats, y_px: Floats) -> Floats:
        x, y = (np.clip(n * pixel / size + 0.5, 0.0, 1.0) for n, size in ((x_px, width), (y_px, height)))
        return np.stack([plane(x, y) for plane in planes]) / pixel

    return moved


def warping_of(grids: Grids, number: int, pixel: float) -> Warping | None:
    """GridVolumeWarp when one image was taken, pixels, at points from the middle of the volume."""
    if grids.warping is None:
        return None
    extent = grids.volume_angstrom or (1.0, 1.0, 1.0)
    least, most = min(grids.doses, default=0.0), max(grids.doses, default=0.0)
    dose = (grids.doses[number] - least) / (most - least) if most > least else 0.0
    blocks = [_at_dose(grid.values, dose)[None] for grid in grids.warping]
    together = [np.concatenate(blocks)] if len({block.shape for block in blocks}) == 1 else blocks

    def warped(x_px: Floats, y_px: Floats, z_px: Floats) -> Floats:
        parts = [n * pixel / size + 0.5 for n, size in zip((x_px, y_px, z_px), extent, strict=True)]
        return np.concatenate([_linear(values, parts) for values in together]) / pixel

    return warped


def _moving(grids: list[Grid]) -> tuple[Grid, ...] | None:
    return tuple(grids) if any(grid.values.any() for grid in grids) else None


def _read_grid(root: ElementTree.Element, name: str) -> Grid:
    """A grid of an .xml; one zero where there is none."""
    element = root.find(name)
    if element is None:
        return Grid(np.zeros((1, 1, 1, 1)), (0.0, 0.0, 0.0))
    sizes = [_whole(element.get(size, "1"), f"{size} of {name}") for size in _SIZES]
    if min(sizes) < 1 or math.prod(sizes) > MOST_VALUES:
        raise FileFormatError(f"{name} has {' x '.join(map(str, sizes))} nodes")
    margins = [_number(element.get(f"Margin{axis}", "0"), f"Margin{axis} of {name}") for axis in "XYZ"]
    if not all(0 <= margin < 0.5 for margin in margins):
        raise FileFormatError(f"{name} has margins of {', '.join(f'{margin:g}' for margin in margins)}")
    values = np.zeros(sizes[::-1])
    nodes = set()
    for node in element.iter("Node"):
        place = tuple(_whole(node.get(axis, "0"), f"a node of {name}") for axis in _NODE)[::-1]
        if not all(0 <= index < size for index, size in zip(place, values.shape, strict=True)):
            raise FileFormatError(f"{name} has a node outside of its {' x '.join(map(str, sizes))}")
        values[place] = _number(node.get("Value", ""), name)
        if abs(values[place]) > MOST_ANGSTROM:
            raise FileFormatError(f"{name} moves by {values[place]:g} Å")
        nodes.add(place)
    if nodes and len(nodes) != values.size:
        raise FileFormatError(f"{name} has {len(nodes)} of its {values.size} nodes")
    return Grid(values, (margins[0], margins[1], margins[2]))


def _plane(grid: Grid, image: float) -> Movement:
    """A cubic grid at an image's place among all: a function of x and y, as parts of the whole."""
    (block,) = grid.values  # no fourth dimension
    plane = _natural(_axis(block.shape[0], grid.margins[2]), block, image) if len(block) > 1 else block[0]
    height, width = plane.shape
    rows, columns = _axis(height, grid.margins[1]), _axis(width, grid.margins[0])

    def value(x: Floats, y: Floats) -> Floats:
        # A tensor product: along x for each row of nodes, then along y with these values.
        along = _weights(columns, x)
        down = _weights(rows, y)
        return np.asarray(np.einsum("...j,ji,...i->...", down, plane, along))

    return value


def _axis(count: int, margin: float) -> Floats:
    return np.linspace(margin, 1 - margin, count)


def _natural(nodes: Floats, values: Floats, places: Floats | float) -> Floats:
    """Cubic splines with natural ends through ``values`` at ``nodes``, along the first axis."""
    from scipy.interpolate import CubicSpline  # slow to import, and few files have grids

    return np.asarray(CubicSpline(nodes, values, bc_type="natural")(places))


def _weights(nodes: Floats, places: Floats) -> Floats:
    """What each node counts at places, by cubic splines with natural ends: shape ``(*places, nodes)``."""
    if len(nodes) == 1:
        return np.ones((*places.shape, 1))
    return _natural(nodes, np.eye(len(nodes)), places)


def _at_dose(values: Floats, dose: float) -> Floats:
    first, part = cell(np.array(dose * (len(values) - 1)), len(values))
    return np.asarray(values[first] * (1 - part) + values[min(int(first) + 1, len(values) - 1)] * part)


def _linear(values: Floats, parts: Sequence[Floats]) -> Floats:
    """Grids ``(n, z, y, x)`` between their nodes, at parts ``(x, y, z)`` of their axes, which have one shape S or less.

    Returns:
        shape ``(n, *S)``.
    """
    counts = values.shape[:0:-1]
    cells = [cell(part * (count - 1), count) for part, count in zip(parts, counts, strict=True)]
    total: Floats = np.zeros((len(values), *np.broadcast_shapes(*(part.shape for part in parts))))
    for step in itertools.product((0, 1), repeat=3):
        index: list[NDArray[np.int64]] = []
        weight: Floats | float = 1.0
        for (first, part), count, after in zip(cells, counts, step, strict=True):
            index.append(np.minimum(first + after, count - 1))
            weight = weight * (part if after else 1 - part)
        total += weight * values[:, index[2], index[1], index[0]]
    return total


def _extent(root: ElementTree.Element, name: str, count: int) -> tuple[float, ...] | None:
    """Lengths in Å; None where they are not told, or 0."""
    words = root.get(name, "").replace(",", " ").split()
    values = tuple(_number(word, name) for word in words)
    if not any(values):
        return None
    if len(values) != count or min(values) <= 0:
        raise FileFormatError(f"expected {count} lengths in {name}, found '{printable(' '.join(words))[:60]}'")
    return values


def _number(word: str, what: str) -> float:
    values = finite_numbers((word,))
    if values is None:
        raise FileFormatError(f"expected numbers for {what}, found '{printable(word)[:40]}'")
    return values[0]


def _whole(word: str, what: str) -> int:
    if not (word.isdecimal() and len(word) < 10):
        raise FileFormatError(f"expected a whole number for {what}, found '{printable(word)[:40]}'")
    return int(word)
