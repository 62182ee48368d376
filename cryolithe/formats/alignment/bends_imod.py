"""IMOD's local alignments: the file that tiltalign writes and ``tilt`` reads as LOCALFILE.

Layout (manual page and source of tiltalign): ``nx ny x0 y0 dx dy if_xtilts pixel if_zfactors``; then for each of
nx x ny areas, x fastest: changes of the tilt angle, one for each view of the aligned stack; changes of the X-axis tilt
likewise, with if_xtilts; pairs of Z factors, with if_zfactors; one transform ``A11 A12 A21 A22 DX DY`` a view. Areas
are dx and dy apart, the first at (x0, y0), in pixels of ``pixel`` Å of the aligned images.

``tilt`` (``localProjFactors``, ``local_factors``) projects a point of the specimen with an area's own angles, applies
its transform about the middle of the aligned image, and takes the mean of the four areas around the point, weighed
linearly and constant beyond the outermost. It is the place in the specimen, not in the image, that counts. Lengths are
scaled by LOCALSCALE, else by the ratio of pixel sizes. Z factors are applied with a ZFACTORFILE alone, which is refused
here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolithe.bending import Floats, cell, specimen_x_px
from cryolithe.errors import FileFormatError
from cryolithe.formats.facts import Fact
from cryolithe.formats.files import PathLike, printable, read_text

LIMIT_BYTES = 200_000_000
MOST_AREAS = 100_000
_HEAD, _HEAD_OLD = 9, 6


@dataclass(frozen=True, eq=False)
class LocalAreas:
    """What the file says.

    Attributes:
        first_px: ``(x, y)`` of the middle of the first area in the aligned image, from its edge.
        step_px: from area to area.
        pixel_size_angstrom: of these lengths; None where it is not told.
        tilts_deg: changes of the tilt angle, shape ``(y, x, views)``.
        x_tilts_deg: changes of the X-axis tilt, likewise.
        matrices: shape ``(y, x, views, 2, 2)``.
        shifts_px: shape ``(y, x, views, 2)``.
    """

    first_px: tuple[float, float]
    step_px: tuple[float, float]
    pixel_size_angstrom: float | None
    tilts_deg: NDArray[np.float64]
    x_tilts_deg: NDArray[np.float64]
    matrices: NDArray[np.float64]
    shifts_px: NDArray[np.float64]

    @property
    def views(self) -> int:
        """Views of the aligned stack."""
        return int(self.tilts_deg.shape[2])

    def scaled(self, factor: float) -> LocalAreas:
        """With lengths in other pixels, of which ``factor`` make one of the file's."""
        return replace(
            self,
            first_px=(self.first_px[0] * factor, self.first_px[1] * factor),
            step_px=(self.step_px[0] * factor, self.step_px[1] * factor),
            pixel_size_angstrom=None,
            shifts_px=self.shifts_px * factor,
        )


def read_local(path: PathLike, views: int | None = None) -> LocalAreas:
    """Read local alignments.

    Args:
        path: the file.
        views: that it must hold; None for any number.

    Raises:
        InputError: if it cannot be read.
        FileFormatError: if it holds no local alignments of so many views.
    """
    path = Path(path)
    lines = [line for line in read_text(path, "local alignments of IMOD", LIMIT_BYTES).splitlines() if line.strip()]
    head = _numbers(lines[0] if lines else "")
    if not _HEAD_OLD <= len(head) <= _HEAD or not all(n == int(n) for n in head[:7]) or min(head[:2]) < 2:
        raise FileFormatError(
            f"expected counts of 2 or more areas, their places and distances first, found "
            f"'{printable(lines[0] if lines else '')[:60]}'"
        )
    across, down, x, y, dx, dy, *more = head
    has_x_tilts, pixel, has_z = (*more, *(0.0, 0.0, 0.0)[len(more) :])
    if across * down > MOST_AREAS or min(dx, dy) <= 0:
        raise FileFormatError(f"expected areas that are apart, found {across:g} x {down:g}, {dx:g} and {dy:g} pixels")
    areas, values = int(across * down), np.array(_numbers(" ".join(lines[1:])))
    each = 1 + (has_x_tilts > 0) + 2 * (has_z > 0) + 6
    found = len(values) // (areas * each)
    if not found or len(values) != areas * each * found or found != (views or found):
        wanted = f"for each of {views} views" if views else "a whole number of views"
        raise FileFormatError(f"expected {each} numbers in each of {areas} areas {wanted}, found {len(values)}")
    table = values.reshape(int(down), int(across), each * found)
    transforms = table[..., -6 * found :].reshape(int(down), int(across), found, 6)
    return LocalAreas(
        (x, y),
        (dx, dy),
        pixel if pixel > 0 else None,
        table[..., :found],
        table[..., found : 2 * found] if has_x_tilts > 0 else np.zeros((int(down), int(across), found)),
        transforms[..., :4].reshape(int(down), int(across), found, 2, 2),
        transforms[..., 4:],
    )


def local_facts(path: Path) -> list[Fact]:
    """What ``cryolithe info`` says of local alignments."""
    areas = read_local(path)
    down, across, views = areas.tilts_deg.shape
    largest = float(np.hypot(areas.shifts_px[..., 0], areas.shifts_px[..., 1]).max())
    pixel = areas.pixel_size_angstrom
    return [
        Fact("kind", "local alignments of IMOD (LOCALFILE)"),
        Fact("areas", [across, down], f"{across} x {down} (x, y)"),
        Fact("images", views),
        Fact("pixel_size_angstrom", pixel, "not told" if pixel is None else f"{pixel:g} Å"),
        Fact("largest_shift_px", largest, f"{largest:.2f} pixels, angles and distortion apart"),
    ]


def check_field(areas: LocalAreas, size_px: tuple[float, float]) -> None:
    """Raise FileFormatError where the areas lie beside an image of a size ``(x, y)``."""
    counts = areas.tilts_deg.shape[1::-1]
    for axis, first, step, count, size in zip("XY", areas.first_px, areas.step_px, counts, size_px, strict=True):
        last = first + step * (count - 1)
        if not (-size / 2 <= first < size and 0 < last <= 1.5 * size):
            raise FileFormatError(
                f"its areas lie at {first:g} to {last:g} along {axis}, in images of {size:g} pixels; expected pixel "
                "sizes of both that fit, or LOCALSCALE"
            )


def _numbers(text: str) -> list[float]:
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise FileFormatError(f"it holds what is no number: {printable(str(error))[:80]}") from None
    if not all(map(math.isfinite, values)):
        raise FileFormatError("it holds a number that is not finite")
    return values


@dataclass(frozen=True, eq=False)
class LocalBend:
    """The field of a view; see `cryolithe.bending.Bend`.

    Attributes:
        areas: in pixels of the stack.
        view: from 0.
        angle_deg: its tilt.
        x_tilt_deg: α of the specimen (`cryolithe.alignment.Alignment`).
        middle_px: ``(x, y)`` of the middle of the aligned image, from its edge, as the areas are counted.
    """

    areas: LocalAreas
    view: int
    angle_deg: float
    x_tilt_deg: float
    middle_px: tuple[float, float]

    @property
    def deep(self) -> bool:
        """Always: it is the place in the specimen that counts."""
        return True

    def at(self, x_px: Floats, y_px: Floats, z_px: Floats | float) -> Floats:
        """See `cryolithe.bending.Bend`."""
        x, y, z = np.broadcast_arrays(specimen_x_px(x_px, z_px, self.angle_deg), y_px, z_px)
        # Areas are counted in the volume, which is turned about x when it is projected.
        alpha = math.radians(self.x_tilt_deg)
        row = y * math.cos(alpha) + z * math.sin(alpha)
        depth = z * math.cos(alpha) - y * math.sin(alpha)
        (left, across), (top, down) = (
            cell((place + middle - first) / step, count)
            for place, middle, first, step, count in zip(
                (x, row),
                self.middle_px,
                self.areas.first_px,
                self.areas.step_px,
                self.areas.tilts_deg.shape[1::-1],
                strict=True,
            )
        )
        total: Floats = np.zeros((2, *x.shape))
        for j, weight_y in enumerate((1 - down, down)):
            for i, weight_x in enumerate((1 - across, across)):
                total += weight_x * weight_y * self._of_area(top + j, left + i, np.stack([x, row, depth]))
        return total

    def _of_area(self, j: NDArray[np.int64], i: NDArray[np.int64], point: Floats) -> Floats:
        """How far points of the volume are displaced by the areas with the indices ``j``, ``i``."""
        areas, view = self.areas, self.view
        theta = math.radians(self.angle_deg)
        alpha = math.radians(self.x_tilt_deg)
        local_theta = theta + np.deg2rad(areas.tilts_deg[j, i, view])
        local_alpha = alpha + np.deg2rad(areas.x_tilts_deg[j, i, view])
        seen = _projected(point, theta, alpha)
        turned = _projected(point, local_theta, local_alpha)
        matrix = areas.matrices[j, i, view] - np.eye(2)
        moved = np.einsum("...ij,j...->i...", matrix, turned) + np.moveaxis(areas.shifts_px[j, i, view], -1, 0)
        return np.asarray(turned - seen + moved)


def _projected(point: Floats, theta: Floats | float, alpha: Floats | float) -> Floats:
    """``(u, v)`` of points ``(x, y, z)`` of the volume, turned about x, then about y; angles in radians."""
    x, y, z = point
    depth = y * np.sin(alpha) + z * np.cos(alpha)
    return np.stack([x * np.cos(theta) + depth * np.sin(theta), y * np.cos(alpha) - z * np.sin(alpha)])
