"""How strong filtered back-projection is to be mixed into a network's volume: found from parts of the volume itself."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.geometry import TiltGeometry, VolumeGrid
from cryolithe.machine.device import made_there_or_on_cpu
from cryolithe.projector import by_bands, make_projector
from cryolithe.projector.classical import WINDOW
from cryolithe.reconstruction.images.prepared_stack import ReadRows
from cryolithe.reconstruction.slabwise.fusion import (
    Fusion,
    FusionCurve,
    curve_of_record,
    match_amplitudes,
    part_starts,
)
from cryolithe.reconstruction.slabwise.methods import FbpMethod, NetworkMethod, SlabMethod
from cryolithe.reconstruction.slabwise.orders import lost_orders
from cryolithe.reconstruction.slabwise.slabs import compute_slab
from cryolithe.reconstruction.slabwise.trust import (
    Seen,
    Trial,
    WedgeTrust,
    confirmed_trust,
    trust_of_record,
    wedge_filter,
)

# Parts are a twentieth of the volume, or as many voxels as say enough; each of so many rows and columns at most, and of
# so many voxels, for the memory that comparing takes.
_SHARE_OF_VOLUME, _ENOUGH_VOXELS = 0.05, 1 << 19
_ROWS, _COLUMNS, _PARTS = 64, 256, 3
_MOST_VOXELS = 1 << 22
# For a voxel of a part: its spectra, in float64, and what they are compared by (55 measured).
_BYTES_PER_VOXEL = 60
# Fewer columns and rows than these tell little of low frequencies.
_FEWEST = 48


@dataclass(frozen=True)
class Parts:
    """Parts of a volume in which the network and filtered back-projection are compared; all of its depth.

    Attributes:
        grid: voxels of one.
        starts: first row of each.
    """

    grid: VolumeGrid
    starts: tuple[int, ...]


def choose_parts(grid: VolumeGrid, row_multiple: int) -> Parts:
    """Parts about the middle of x that lie evenly along y.

    Args:
        grid: of the whole volume.
        row_multiple: parts begin at multiples of this and are that high, where the volume is higher than one.
    """
    depth, height, width = grid.shape
    voxels = max(_ENOUGH_VOXELS, int(_SHARE_OF_VOLUME * depth * height * width))
    rows = min(height, _ROWS)
    columns = min(width, max(_FEWEST, min(_COLUMNS, min(voxels, _MOST_VOXELS) // (depth * rows))))
    rows = min(rows, max(_FEWEST, voxels // (depth * columns)))
    rows = max(rows - rows % row_multiple, 1)
    starts = part_starts(height, rows, min(_PARTS, voxels // (depth * rows * columns)))
    return Parts(VolumeGrid((depth, rows, columns)), tuple(start - start % row_multiple for start in starts))


def comparing_bytes(grid: VolumeGrid, row_multiple: int) -> int:
    """Memory that comparing parts of a volume takes, see `choose_parts`: volumes of all, spectra of one."""
    parts = choose_parts(grid, row_multiple)
    # Two of each part, or what both trials make of one, and the last two while their slabs are joined.
    volumes = 2 * max(len(parts.starts), 3) + 2
    return math.prod(parts.grid.shape) * (4 * volumes + _BYTES_PER_VOXEL)


@dataclass(frozen=True)
class Reader:
    """The rows of a series.

    Attributes:
        rows: those of the detector from one to before another, as the network gets them; what lies beyond is mirrored.
        rows_at_a_time: rows of the volume for which there is memory.
    """

    rows: Callable[[int, int], torch.Tensor]
    rows_at_a_time: int


@torch.inference_mode()
def measure_curve(
    make: Callable[[VolumeGrid], NetworkMethod],
    share: float,
    geometry: TiltGeometry,
    parts: Parts,
    read: Reader,
    note: Callable[[str], object] = lambda text: None,
) -> FusionCurve:
    """The curve by which a network's volume is mixed with filtered back-projection.

    Args:
        make: the network's method for a volume.
        share: of filtered back-projection.
        geometry: of the series.
        parts: of the volume that are compared.
        read: the rows, at a time as many as memory was planned for.
        note: told when batches had to become smaller.

    Raises:
        ResourceError: if memory runs out or a GPU fails.
    """
    depth, _, width = parts.grid.shape
    method = make(parts.grid)
    back = FbpMethod(make_projector(geometry, (depth, width), method.device), WINDOW)
    every = np.arange(geometry.tilts)
    pairs = list(_make_parts(method, every, (back, every), parts, read, note))
    return FusionCurve(share, _matched(pairs, geometry.angles_deg), lost_orders(pairs, geometry.angles_deg))


@torch.inference_mode()
def measure_trust(
    make: Callable[[NDArray[np.int64], VolumeGrid], NetworkMethod],
    trials: tuple[Trial, ...],
    geometry: TiltGeometry,
    parts: Parts,
    read: Reader,
    note: Callable[[str], object] = lambda text: None,
) -> WedgeTrust | None:
    """How much of what a network puts into the missing wedge is confirmed, see `slabwise.trust`.

    Args:
        make: the network's method of some of the tilts, for a volume.
        trials: which these are; parts take turns in them, and a single part goes through all.
        geometry: of the whole series.
        parts: of the volume that are compared.
        read: the rows, at a time as many as memory was planned for.
        note: told when batches had to become smaller.

    Raises:
        ResourceError: if memory runs out or a GPU fails.
    """
    turns = [parts.starts[number :: len(trials)] or parts.starts for number in range(len(trials))]
    tried = (
        seen
        for trial, starts in zip(trials, turns, strict=True)
        for seen in _tried(make, trial, geometry, Parts(parts.grid, starts), read, note)
    )
    return confirmed_trust(tried, geometry)


def _tried(
    make: Callable[[NDArray[np.int64], VolumeGrid], NetworkMethod],
    trial: Trial,
    geometry: TiltGeometry,
    parts: Parts,
    read: Reader,
    note: Callable[[str], object],
) -> Iterator[tuple[Trial, Seen, Seen]]:
    """A trial on parts, one after the other, so that no more than one is held."""
    depth, _, width = parts.grid.shape
    methods = make(trial.inner, parts.grid), make(trial.others, parts.grid)
    projector = make_projector(geometry, (depth, width), methods[0].device)
    back = FbpMethod(projector, "ramp")

    def seen(method: NetworkMethod, kept: NDArray[np.int64], left_out: NDArray[np.int64]) -> Iterator[Seen]:
        made = _make_parts(method, kept, (back, left_out), parts, read, note)
        for start, (ours, theirs) in zip(parts.starts, made, strict=True):
            again = by_bands(projector, start, ours.to(projector.device), lambda band, part: band.forward(part))
            again = compute_slab(back.at(start), _only(again, left_out), note).values
            yield Seen(ours, theirs.to(ours), again.to(ours))

    first = seen(methods[0], trial.inner, trial.ends)
    second = seen(methods[1], trial.others, trial.between)
    yield from ((trial, *both) for both in zip(first, second, strict=True))


def _make_parts(
    network: NetworkMethod,
    kept: NDArray[np.int64],
    back: tuple[FbpMethod, NDArray[np.int64]],
    parts: Parts,
    read: Reader,
    note: Callable[[str], object],
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Of each part the network's voxels of the tilts ``kept``, and the back-projection of some tilts."""
    method: SlabMethod = network
    note = functools.cache(note)  # the same words once, not for every part
    height = parts.grid.shape[1]
    slab = max(method.row_multiple, min(read.rows_at_a_time, height) // method.row_multiple * method.row_multiple)
    for part in parts.starts:
        ours, theirs = [], []
        for start in range(part, part + height, slab):
            high = min(slab, part + height - start)
            whole = high + -high % method.row_multiple
            rows = read.rows(start - method.halo_px, start + whole + method.halo_px)
            seen = rows if len(kept) == rows.shape[0] else rows[torch.from_numpy(kept)]
            method, made, _ = compute_slab(method.at(start), seen, note)
            ours.append(made[:, :high])
            inner = rows[:, method.halo_px : method.halo_px + high]
            theirs.append(compute_slab(back[0].at(start), _only(inner, back[1]), note).values)
        yield _joined(ours), _joined(theirs)
    if isinstance(method, NetworkMethod):
        method.engine.forget()


def _only(rows: torch.Tensor, tilts: NDArray[np.int64]) -> torch.Tensor:
    """Rows of some tilts, 0 for the others, so that each has the weight that it has in the whole series."""
    if len(tilts) == rows.shape[0]:
        return rows
    chosen = torch.zeros(rows.shape[0], dtype=torch.bool, device=rows.device)
    chosen[torch.from_numpy(tilts)] = True
    return rows * chosen[:, None, None]


def _joined(slabs: list[torch.Tensor]) -> torch.Tensor:
    """Slabs as one part, on the CPU if one of them had to be made in pieces there."""
    scattered = len({slab.device for slab in slabs}) > 1
    return torch.cat([slab.cpu() if scattered else slab for slab in slabs], dim=1)


def _matched(pairs: list[tuple[torch.Tensor, torch.Tensor]], angles_deg: tuple[float, ...]) -> tuple[float, ...]:
    """`match_amplitudes` on a device that has the memory for it."""

    def on_cpu() -> tuple[float, ...]:
        return match_amplitudes([(ours.cpu(), theirs.cpu()) for ours, theirs in pairs], angles_deg)

    if len({part.device for pair in pairs for part in pair}) > 1:
        return on_cpu()
    return made_there_or_on_cpu(pairs[0][0].device, lambda: match_amplitudes(pairs, angles_deg), on_cpu)


def curve_of_volumes(
    ours: torch.Tensor, back: torch.Tensor, share: float, geometry: TiltGeometry, parts: Parts
) -> FusionCurve:
    """`measure_curve` where whole volumes are there already, so that the network need not make its parts again.

    Args:
        ours: the network's, shape ``(z, y, x)``.
        back: that of filtered back-projection, the same shape.
        share: of filtered back-projection.
        geometry: of the series.
        parts: of the volume that are compared.
    """
    _, rows, columns = parts.grid.shape
    left = (ours.shape[2] - columns) // 2
    cut = [(slice(None), slice(y, y + rows), slice(left, left + columns)) for y in parts.starts]
    return FusionCurve(share, _matched([(ours[part], back[part]) for part in cut], geometry.angles_deg))


def finished_method(
    method: NetworkMethod,
    curve: FusionCurve | None,
    geometry: TiltGeometry,
    grid: VolumeGrid,
    trust: WedgeTrust | None = None,
    slow: ReadRows | None = None,
) -> NetworkMethod:
    """A network's method with its missing wedge as far as it is trusted and filtered back-projection mixed in.

    Args:
        method: the network.
        curve: how filtered back-projection is mixed in; None for not at all.
        geometry: of the series.
        grid: of the volume.
        trust: how much of the missing wedge stays; None for all of it.
        slow: what goes around the network, see `Fusion`.
    """
    depth, _, width = grid.shape
    if trust is not None and min(trust.kept) < 1:
        method = method.believed(wedge_filter(trust, geometry.angles_deg, (depth, width), method.device))
    if curve is not None and curve.share > 0:
        method = method.fused(Fusion(curve, make_projector(geometry, (depth, width), method.device), slow))
    return method


def planned_curve(plan: dict[str, Any]) -> FusionCurve | None:
    """What the journal's first line says of it; None where it does not yet, or for methods without."""
    record = plan.get("fusion")
    return None if record is None else curve_of_record(record)


def planned_trust(plan: dict[str, Any]) -> WedgeTrust | None:
    """What the journal's first line says of the missing wedge; None where all of it stays."""
    record = plan.get("wedge_trust")
    return None if record is None else trust_of_record(record)
