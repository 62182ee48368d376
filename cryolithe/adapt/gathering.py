"""The series of a laboratory, read and prepared as a reconstruction would, under names that tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryolithe.adapt.halves import HalfSeries, prepare_halves
from cryolithe.errors import InputError
from cryolithe.files.names import distinct_names
from cryolithe.reconstruction.jobs.job import Job, ResolvedJob
from cryolithe.reconstruction.jobs.made_before import FREE_SETTINGS
from cryolithe.reconstruction.jobs.remedies import checked
from cryolithe.reconstruction.setup.asked_optics import optics_of_parts, settled_optics
from cryolithe.work.watcher import Watcher

# Voxels that differ by less are of one size.
SAME_SIZE = 0.01
# Settings that a run which goes on may have otherwise; files count by their content.
_FREE = {*FREE_SETTINGS, "model", "device", "precision"}
# Of a record, values of single images, which the card of a model has no room for.
_OF_IMAGES = ("images", "exposures")


@dataclass(frozen=True)
class Gathered:
    """What is learned from.

    Attributes:
        series: prepared.
        inputs: what decides them: SHA-256 of files, and settings, by name.
        told: of each series its name, the size of its voxels, and what was corrected; for the model's card.
    """

    series: tuple[HalfSeries, ...]
    inputs: dict[str, str]
    told: list[dict[str, Any]]


def gather(jobs: Sequence[tuple[Job, ...]], scratch: Path, watcher: Watcher) -> Gathered:
    """Check all series, then prepare them one by one.

    Args:
        jobs: of each series: two for halves of the frames, else one.
        scratch: folder for the prepared stacks.
        watcher: is told.

    Raises:
        CryoLitheError: for everything that the user can mend.
    """
    names = distinct_names([parts[0].tilts for parts in jobs])
    watcher.stage("Preparing images", sum(len(parts) for parts in jobs))
    found, inputs, stacks = [], dict[str, str](), dict[str, Path]()
    for number, (parts, name) in enumerate(zip(jobs, names, strict=True)):
        # No volume is written: what lies beside the stacks is in nobody's way.
        runs = tuple(checked(replace(job, output=scratch / "none.mrc")) for job in parts)
        for note in dict.fromkeys(note for run in runs for note in run.series.notes):
            watcher.note(f"Note on {name}: {note}")
        for part, run in enumerate(runs):
            hashes = run.files.hashes()
            inputs |= {f"{number}.{part}.{what}": digest for what, digest in hashes.items()}
            _refuse_twice(stacks, run.job.tilts, hashes["tilts"])
        settings = runs[0].job.settings.model_dump(mode="json", exclude=_FREE)
        inputs |= {f"{number}.{setting}": str(value) for setting, value in settings.items()}
        found.append(runs)
    sizes = {name: runs[0].voxel_size_angstrom for name, runs in zip(names, found, strict=True)}
    if note := sizes_note(sizes):
        watcher.note(note)
    series, told = [], []
    for number, (runs, name) in enumerate(zip(found, names, strict=True)):
        handed = _handed(runs, name, watcher.note)
        place = scratch / str(number)
        place.mkdir()
        series.append(prepare_halves(handed, name, place, watcher))
        for run in runs:  # what was prepared is what is learned from, and what `inputs` tells of
            run.files.refuse_changed()
        told.append({"name": name, "voxel_size_angstrom": sizes[name], "corrections": _corrections(handed[0])})
    return Gathered(tuple(series), inputs, told)


def sizes_note(sizes: dict[str, float | None]) -> str:
    """A line on voxels of different sizes, by the names of series; empty where they are alike, as far as is known."""
    groups: dict[float, list[str]] = {}
    for name, size in sizes.items():
        if size is not None:
            same = next((other for other in groups if abs(size / other - 1) <= SAME_SIZE), size)
            groups.setdefault(same, []).append(name)
    if len(groups) < 2:
        return ""
    told = "; ".join(f"{size:.4g} Å: {', '.join(names)}" for size, names in sorted(groups.items()))
    return (
        f"Note: the series have voxels of different sizes ({told}), and the model learns from all of them alike; bin "
        "them to one size, or adapt a model to each, if only one size is to be reconstructed"
    )


def _handed(runs: tuple[ResolvedJob, ...], name: str, note: Callable[[str], object]) -> tuple[ResolvedJob, ...]:
    """Both halves with one hand of the defocus gradient, which is told once."""
    optics, said = optics_of_parts(runs), list[str]()
    handed = tuple(settled_optics(replace(run, job=replace(run.job, optics=optics)), said.append) for run in runs)
    for text in dict.fromkeys(said):
        kind, _, rest = text.partition(": ")
        note(f"{kind} on {name}: {rest}" if kind in ("Note", "Warning") else f"{name}: {text}")
    return handed


def _corrections(run: ResolvedJob) -> dict[str, Any] | None:
    """What a record tells of the corrections, without what single images have; None for none."""
    if run.corrections.record is None:
        return None
    return {
        what: {key: value for key, value in told.items() if key not in _OF_IMAGES}
        for what, told in run.corrections.record.items()
    }


def _refuse_twice(stacks: dict[str, Path], tilts: Path, digest: str) -> None:
    """Raise InputError for images that were given already: what judges a model must be nothing that it learned from."""
    if digest in stacks:
        raise InputError(f"{tilts} holds the very images of {stacks[digest]}; give each series, and each half, once")
    stacks[digest] = tilts
