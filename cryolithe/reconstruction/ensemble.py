"""The runs of `--confidence` and the maps that are made of them, slab by slab, in the working folder of the volume.

OUT.partial/
    even, odd, mirror_x, mirror_y    each a working folder of its own: a run that was cut off goes on in it
    confidence.mrc, error.mrc, unsupported.mrc
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.arrays.folding import symmetric
from cryolithe.errors import SettingsError
from cryolithe.formats import RunningStatistics, VolumeStatistics, VolumeWriter, read_mrc
from cryolithe.machine.device import free_cached_memory
from cryolithe.projector import Projector, by_bands, make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.confidence.doubt import (
    LAW,
    LEVEL_QUANTILE,
    LEVEL_SHARE,
    SHARE_SIGMA_PX,
    Chance,
    Ensemble,
    Law,
    Size,
    correlation_size,
    covariances,
    error_size,
    expected_correlation,
    expected_error,
    moments_of,
    noise_moments,
    noise_of,
    noise_variance,
    rounded,
    unsupported,
    window_of,
    without_noise,
)
from cryolithe.reconstruction.confidence.explained import Explained, Seen, explained, sums_of
from cryolithe.reconstruction.confidence.members import (
    Member,
    MemberStack,
    choose_members,
    known_of,
    stack_of,
    turned_back,
)
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.jobs.job import MAP_KINDS, ResolvedJob
from cryolithe.reconstruction.jobs.untilted import planes_kept
from cryolithe.reconstruction.output.map_files import MadeMaps
from cryolithe.reconstruction.output.outputs import working_dtype
from cryolithe.reconstruction.setup.fitting import map_rows
from cryolithe.reconstruction.slabwise.fusion import part_starts
from cryolithe.reconstruction.slabwise.planes import PlaneFilter, measured_region
from cryolithe.reconstruction.slabwise.slab_folder import SlabFolder
from cryolithe.work.label import file_label
from cryolithe.work.watcher import Watcher

Plan = dict[str, Any]
# Rows about the middle from which it is told what chance gives.
CHANCE_ROWS = 16
# Rows of a part, and parts along the tilt axis, from which it is told how much of the volume is right.
PART_ROWS, MOST_PARTS = 32, 4
# Thinner volumes are all but planes, in which no window is left to compare anything in.
FEWEST_PLANES = 8
LABELS = {
    "confidence": "expected correlation with the specimen",
    "error": "expected error, deviations",
    "unsupported": "share not held by the images",
}
# (run, its folder, the journal's first line, its images, who is told, what the stage is called) -> all slabs are made.
MakeSlabs = Callable[[ResolvedJob, SlabFolder, Plan, PreparedStack, Watcher, str], object]
# Settled before the slabs of the volume; those of the members are made with the same.
_SETTLED = ("work", "polarity", "fusion", "wedge_trust")


def check_confidence(run: ResolvedJob) -> None:
    """Refuse maps of what has none.

    Raises:
        SettingsError: for other methods than networks, and for volumes that are too thin.
        InputError: for too few tilts.
    """
    if run.job.settings.confidence:
        if run.model is None:
            raise SettingsError(
                f"--confidence asks a network how sure it is; --method {run.job.settings.method} has none: leave it "
                "out, or compare halves of the frames with --even and --odd"
            )
        if run.depth < FEWEST_PLANES:
            raise SettingsError(
                f"--confidence needs a volume of at least {FEWEST_PLANES} voxels along z, this one has {run.depth}: "
                "what its images hold of fewer cannot be told from what lies above and below; give a larger "
                "--thickness, or leave it out"
            )
        choose_members(run.series.geometry.angles_deg)


def reserve_members(run: ResolvedJob, folder: SlabFolder) -> None:
    """Make sure that there is room for the volumes of all members and for the maps, if they are asked for.

    Raises:
        OutputError: if there is not.
    """
    if not run.job.settings.confidence:
        return
    wanted = [(folder.path / f"{kind}.mrc", "float32") for kind in MAP_KINDS]
    for member in choose_members(run.series.geometry.angles_deg):
        place = folder.path / member.name
        place.mkdir(exist_ok=True)
        wanted.append((place / "volume.mrc", working_dtype(run.job.settings)))
    for path, kind in wanted:
        if not path.is_file():
            VolumeWriter.create(path, run.grid.shape, run.voxel_size_angstrom, kind, target=run.job.output).close()


@dataclass(frozen=True)
class Made:
    """Volumes that lie in files, as the series' own lies.

    Attributes:
        whole: of the series.
        members: by name.
        mean: of the whole.
        deviation: of the whole; 1 where it is constant.
    """

    whole: NDArray[Any]
    members: dict[str, NDArray[Any]]
    mean: float
    deviation: float


def make_maps(
    run: ResolvedJob, folder: SlabFolder, plan: Plan, stack: PreparedStack, watcher: Watcher, make: MakeSlabs
) -> MadeMaps | None:
    """Run the members and write the maps into the working folder, if they are asked for.

    Args:
        run: whose slabs are all made.
        folder: of the volume.
        plan: the journal's first line, with all that was settled.
        stack: the images.
        watcher: told how far it is.
        make: makes the slabs of a run.

    Returns:
        what they are; None if they are not asked for.

    Raises:
        CryoLitheError: as for the volume itself.
    """
    if not run.job.settings.confidence:
        return None
    members = choose_members(stack.geometry.angles_deg)
    for member in members:
        _run_member(run, folder, plan, (member, stack_of(stack, member)), watcher, make)
    free_cached_memory()
    statistics = _merged(folder)
    made = Made(
        read_mrc(folder.volume).data,
        {m.name: turned_back(read_mrc(folder.path / m.name / "volume.mrc").data, m) for m in members},
        statistics.mean,
        statistics.rms or 1.0,
    )
    maps = Maps(run, stack, made, members)
    found = maps.write(folder.path, watcher)
    told = {
        "members": [{"name": m.name, "tilts": len(m.tilts), "mirror": m.mirror or None} for m in members],
        "deviation": made.deviation,  # until that of what is handed out is known
        "law": asdict(LAW),
        "explained": asdict(maps.explained),
        "size": asdict(maps.size),
    }
    return MadeMaps(statistics.rms, found, told)


def _run_member(
    run: ResolvedJob,
    folder: SlabFolder,
    plan: Plan,
    part: tuple[Member, MemberStack],
    watcher: Watcher,
    make: MakeSlabs,
) -> None:
    """Make what is missing of a member's volume."""
    member, stack = part
    run = known_of(run, member)
    shape, dtype = run.grid.shape, working_dtype(run.job.settings)
    own = SlabFolder(folder.path / member.name)
    try:
        if own.plan is None or _settled(own.plan) != _settled(plan) or not own.volume.is_file():
            own.forget()
            VolumeWriter.create(own.volume, shape, run.voxel_size_angstrom, dtype, target=run.job.output).close()
            own.begin(plan)
        else:
            own.keep_intact(shape, dtype)
        make(run, own, plan, stack, watcher, member.name.replace("_", " "))
    finally:
        own.release()


def _settled(plan: Plan) -> str:
    """What a member's voxels depend on."""
    return json.dumps({name: plan.get(name) for name in _SETTLED}, sort_keys=True)


def _merged(folder: SlabFolder) -> VolumeStatistics:
    """Statistics of a finished volume."""
    merged = RunningStatistics()
    for slab in sorted(folder.slabs, key=lambda slab: slab.start):
        merged.merge(slab.voxels, slab.statistics)
    return merged.result()


class Maps:
    """What makes the maps of some rows.

    Args:
        run: what was done.
        stack: its images.
        made: the volumes.
        members: the even and the odd tilts first.
        law: of the expected error.

    Attributes:
        explained: how much of the volume is right in all.
        size: of the maps, which follows from it.
    """

    def __init__(
        self, run: ResolvedJob, stack: PreparedStack, made: Made, members: tuple[Member, ...], law: Law = LAW
    ) -> None:
        self._run, self._stack, self._made, self._law = run, stack, made, law
        (depth, _, width), angles = run.grid.shape, stack.geometry.angles_deg
        self._window, self._share = window_of(run.grid.shape), window_of(run.grid.shape, SHARE_SIGMA_PX)
        self._measured = PlaneFilter(
            lambda z, x: measured_region(angles, z, x, depth), (depth, width), torch.device(run.device)
        )
        self._tilts = [torch.tensor(member.tilts) for member in members[:2]]
        self._projectors: list[Projector] = [
            make_projector(stack.geometry.select(tilts.numpy()), (depth, width), run.device) for tilts in self._tilts
        ]
        with torch.inference_mode():
            self._chance = self._measured_chance()
            self.explained, self.size = self._measured_size()

    @torch.inference_mode()
    def write(self, folder: Path, watcher: Watcher) -> dict[str, VolumeStatistics]:
        """Write all maps; return the statistics of each by kind."""
        shape, size = self._run.grid.shape, self._run.voxel_size_angstrom
        height, rows = shape[1], map_rows(self._run)
        watcher.stage("Comparing the runs", height)
        paths = {kind: folder / f"{kind}.mrc" for kind in MAP_KINDS}
        running = {kind: RunningStatistics() for kind in MAP_KINDS}
        writers = {
            kind: VolumeWriter.create(path, shape, size, np.float32, target=self._run.job.maps[kind])
            for kind, path in paths.items()
        }
        try:
            for start in range(0, height, rows):
                stop = min(start + rows, height)
                for kind, values in self.rows(start, stop).items():
                    array = values.cpu().numpy()
                    running[kind].add(array)
                    writers[kind].write_rows(start, array)
                watcher.advance(stop - start)
            for kind, writer in writers.items():
                writer.finish(running[kind].result(), map_label(kind), size)
        finally:
            for writer in writers.values():
                writer.close()
        return {kind: values.result() for kind, values in running.items()}

    def moments(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        """Of the expected error, see `cryolithe.reconstruction.confidence.doubt`, for rows of the volume."""
        reach = self._window.reach_px
        return moments_of(self._ensemble(start - reach, stop + reach), self._window)

    def rows(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        """The maps by kind for rows of the volume, shape ``(z, stop - start, x)``."""
        reach, window, share = self._share.reach_px, self._window, self._share
        rows = self._ensemble(start - reach, stop + reach)
        measured = self._measured(rows.whole.clone())
        halves = self._of_halves(rows)
        spare = reach - window.reach_px
        near, wide = moments_of(_within(rows, spare), window), moments_of(rows, share)
        law = self._law.times(self.size.error)
        return {
            "confidence": expected_correlation(without_noise(rows, share), wide, law, self.size.correlation),
            "error": expected_error(near, law),
            "unsupported": unsupported(halves, rows, measured, share, self._chance),
        }

    def _measured_chance(self) -> Chance:
        """What chance gives, from rows about the middle."""
        height = self._run.grid.shape[1]
        first = max(0, (height - CHANCE_ROWS) // 2)
        reach, last = self._share.reach_px, min(height, first + CHANCE_ROWS)
        rows = self._ensemble(first - reach, last + reach)
        halves = self._of_halves(rows)
        kept = self._kept(first, last)
        noise, sums = noise_of(rows), np.zeros(3)
        for quarters in (1, 2, 3):
            told = noise_moments(halves, noise, self._share, max(1, quarters * noise.shape[2] // 4))
            sums += [float(values[kept].sum(dtype=torch.float64)) for values in told]
        variance = noise_variance(*sums.tolist())
        local = np.quantile(self._share.mean(rows.whole.square())[kept].cpu().numpy(), LEVEL_QUANTILE)
        found = variance, LEVEL_SHARE * float(local), self._slope(halves, rows, kept)
        return Chance(*map(rounded, found))

    def _measured_size(self) -> tuple[Explained, Size]:
        """How much of the volume is right, and what brings the maps to that size, from parts along the tilt axis."""
        height, share = self._run.grid.shape[1], self._share
        part, angles = min(height, PART_ROWS), self._stack.geometry.angles_deg
        sums, near, wide = [], [], []
        for start in part_starts(height, part, MOST_PARTS):
            kept = self._kept(start, start + part)
            rows = self._ensemble(start - share.reach_px, start + part + share.reach_px)
            local = moments_of(_within(rows, share.reach_px - self._window.reach_px), self._window)
            near.append({name: values[kept].sum(dtype=torch.float64) for name, values in local.items()})
            found = {**moments_of(rows, share), "kept": without_noise(rows, share)}
            # Wide windows change little from one voxel to the next.
            wide.append({name: values[kept][::2, ::2, ::2].flatten() for name, values in found.items()})
            seen = Seen.of(_within(rows, share.reach_px), kept)
            del rows, local, found  # memory for their spectra
            sums.append(sums_of(seen, angles))
        told = explained(sums)
        error = rounded(error_size(told.share, _joined(near), self._law))
        windows = _joined(wide)
        expected = expected_correlation(windows.pop("kept"), windows, self._law.times(error))
        return told, Size(error, rounded(correlation_size(told.share, expected, windows["total"])))

    def _slope(self, halves: tuple[torch.Tensor, torch.Tensor], rows: Ensemble, kept: slice) -> float:
        """Models of other programs have units of their own: what is held on average counts as held there."""
        if self._run.model is None or not self._run.model.convention.published:
            return 1.0
        common, own = covariances(halves, rows, self._share)
        sums = float(common[kept].sum(dtype=torch.float64)), float(own[kept].sum(dtype=torch.float64))
        return sums[0] / sums[1] if min(sums) > 0 else 1.0

    def _kept(self, start: int, stop: int) -> slice:
        """Planes about some rows that are handed out: what lies beyond them tells nothing of what is."""
        return planes_kept(self._run.grid.shape, self._run.depth, self._run.x_tilt_deg, (start + stop - 1) / 2)

    def _of_halves(self, rows: Ensemble) -> tuple[torch.Tensor, torch.Tensor]:
        even, odd = (self._measured(half.clone()) for half in rows.halves)
        return even, odd

    def _ensemble(self, start: int, stop: int) -> Ensemble:
        """Rows ``start ... stop - 1`` of everything; what lies beyond the volume mirrors it."""
        members = self._made.members
        even, odd = (self._read(members[name], start, stop) for name in ("even", "odd"))
        seen = self._stack.seen_rows(start, stop - start).div_(self._made.deviation)
        images = [
            by_bands(projector, start, seen[tilts].to(self._run.device), fbp)
            for projector, tilts in zip(self._projectors, self._tilts, strict=True)
        ]
        again = [
            by_bands(projector, start, half, lambda band, part: fbp(band, band.forward(part)))
            for projector, half in zip(reversed(self._projectors), (even, odd), strict=True)
        ]
        return Ensemble(
            self._read(self._made.whole, start, stop),
            (even, odd),
            (self._read(members["mirror_x"], start, stop), self._read(members["mirror_y"], start, stop)),
            (images[0], images[1]),
            (again[0], again[1]),
        )

    def _read(self, volume: NDArray[Any], start: int, stop: int) -> torch.Tensor:
        indices = symmetric(np.arange(start, stop), volume.shape[1])
        first, last = int(indices.min()), int(indices.max())
        block = np.asarray(volume[:, first : last + 1], dtype=np.float32)[:, indices - first]
        values = torch.from_numpy(np.ascontiguousarray(block)).to(self._run.device)
        return values.sub_(self._made.mean).div_(self._made.deviation)


def _within(rows: Ensemble, spare: int) -> Ensemble:
    """Volumes without so many rows at either end."""

    def cut(pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = (values[:, spare : values.shape[1] - spare] for values in pair)
        return first, second

    whole, _ = cut((rows.whole, rows.whole))
    return Ensemble(whole, cut(rows.halves), cut(rows.mirrors), cut(rows.images), cut(rows.again))


def _joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Values of all parts, side by side."""
    return {name: torch.cat([part[name].flatten() for part in parts]) for name in parts[0]}


def map_label(kind: str) -> str:
    """The label of a map's header."""
    return file_label(LABELS[kind])
