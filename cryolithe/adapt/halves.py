"""A series in two halves whose noise is independent: of the frames, or of the tilts where there are no others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.known import Known
from cryolithe.reconstruction.evidence.aligned_before import moved_series
from cryolithe.reconstruction.evidence.polarity import Polarity, settle
from cryolithe.reconstruction.evidence.stack_notes import stack_notes
from cryolithe.reconstruction.images.preparation import check_images
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.jobs.job import ResolvedJob
from cryolithe.reconstruction.setup.looking import evidence_of_parts
from cryolithe.reconstruction.setup.whitening import prepare_run
from cryolithe.work.watcher import Watcher

# Images of either half of the tilts: fewer make no volume that says anything.
FEWEST_TILTS = 6


@dataclass(frozen=True)
class Half:
    """One half of a series.

    Attributes:
        stack: prepared, on disk.
        divisor: of its values: the standard deviation, negative where dense matter is dark.
        tilts: numbers of its images.
        known: what a network that takes facts is told of these images.
        ctf_state: what --ctf left of their CTF, whatever the network is told; None where it was not corrected here.
    """

    stack: PreparedStack
    divisor: float
    tilts: NDArray[np.int64]
    known: Known
    ctf_state: str | None = None

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """Of its images."""
        return tuple(self.stack.geometry.angles_deg[number] for number in self.tilts)

    def rows(self, first_row: int, count: int) -> torch.Tensor:
        """Rows as a network sees them, standardised and dense = positive, shape ``(tilts, count, X)``."""
        stack = self.stack
        read = stack.read_rows(first_row, count)[torch.from_numpy(self.tilts)]
        return read.clamp(-stack.clip_level, stack.clip_level) / self.divisor


@dataclass(frozen=True)
class HalfSeries:
    """A series to learn from.

    Attributes:
        name: for messages.
        halves: both of them.
        depth: voxels along z.
        of_frames: whether each half has all tilts.
    """

    name: str
    halves: tuple[Half, Half]
    depth: int
    of_frames: bool

    @property
    def image_shape(self) -> tuple[int, int]:
        """Pixels ``(y, x)`` of an image."""
        return self.halves[0].stack.geometry.image_shape


def prepare_halves(runs: tuple[ResolvedJob, ...], name: str, scratch: Path, watcher: Watcher) -> HalfSeries:
    """Prepare the images of a series as a reconstruction would.

    Args:
        runs: of the two halves of the frames, or of the one stack, whose odd and even tilts are then taken.
        name: of the series, for messages.
        scratch: folder for the prepared stacks of this series alone.
        watcher: is told.

    Raises:
        InputError: if images cannot be used, or there are too few.
    """
    checked = [check_images(run.series, run.preparation, str(run.job.tilts)) for run in runs]
    for note in dict.fromkeys(note for notes in checked for note in notes):
        watcher.note(f"Note on {name}: {note}")
    stacks = []
    for number, run in enumerate(runs):
        stacks.append(prepare_run(run, scratch / f"{number}.f32"))
        watcher.advance(1)
    divided = [stack.multiplied is not None for stack in stacks]
    if len(set(divided)) > 1:  # at the limit, as below
        runs = tuple(replace(run, preparation=replace(run.preparation, relative=False)) for run in runs)
        number = divided.index(True)
        stacks[number] = prepare_run(runs[number], scratch / f"{number}.f32")
    uneven = [stack.slow is not None for stack in stacks]
    if len(set(uneven)) > 1:  # at the limit: what is done to one half is done to the other
        number = uneven.index(False)
        forced = replace(runs[number], preparation=replace(runs[number].preparation, slow_from=0.0))
        stacks[number] = prepare_run(forced, scratch / f"{number}.f32")
    moved = moved_series(runs[0].series, runs[0].preparation)
    for note in stack_notes(stacks[0], runs[0].series.numbers, runs[0].grid.shape[0], moved):
        watcher.note(f"Note on {name}: {note}")
    first = stacks[0].geometry
    if stacks[-1].geometry != first:
        raise InputError(f"{name}: the halves differ in their angles or image sizes; give the halves of one series")
    tilts = np.argsort(np.asarray(first.angles_deg), kind="stable")
    if len(tilts) < FEWEST_TILTS * (1 if len(runs) == 2 else 2):
        least = FEWEST_TILTS * (1 if len(runs) == 2 else 2)
        raise InputError(f"{name} has {len(tilts)} usable tilts, learning from it needs {least} or more")
    polarity = _polarity(runs, scratch)
    watcher.note(f"{name}: {polarity.line}")
    for warning in polarity.warnings:
        watcher.note(f"Warning on {name}: {warning}")
    # One standard deviation for both halves: what differs between them is then their noise alone.
    sigma = float(np.sqrt(np.mean([stack.sigma**2 for stack in stacks])))
    divisor = runs[0].dense_sign(polarity.contrast) * sigma
    chosen = (np.sort(tilts), np.sort(tilts)) if len(runs) == 2 else (np.sort(tilts[::2]), np.sort(tilts[1::2]))
    halves = [
        Half(stack, divisor, numbers, run.facts.known.of_images(numbers.tolist()), run.corrections.ctf_state)
        for stack, run, numbers in zip((stacks[0], stacks[-1]), (runs[0], runs[-1]), chosen, strict=True)
    ]
    return HalfSeries(name, (halves[0], halves[1]), runs[0].grid.shape[0], len(runs) == 2)


def _polarity(runs: tuple[ResolvedJob, ...], scratch: Path) -> Polarity:
    """What dense matter is taken to be, by all frames together."""
    return settle(runs[0].job.settings.contrast, runs[0].series.labels, evidence_of_parts(runs, scratch))


def image_snr_db(series: HalfSeries, rows: range) -> float | None:
    """SNR of the images of all frames by the correlation of their halves (Frank and Al-Ali 1975).

    Args:
        series: whose halves are of frames; for others, and where halves do not correlate, there is no answer.
        rows: to look at.
    """
    if not series.of_frames:
        return None
    even, odd = (half.rows(rows.start, len(rows)).double() for half in series.halves)
    even, odd = (images - images.mean((1, 2), keepdim=True) for images in (even, odd))
    correlation = float((even * odd).sum() / (even.square().sum() * odd.square().sum()).sqrt())
    if not 0 < correlation < 1:
        return None
    return float(10 * np.log10(2 * correlation / (1 - correlation)))
