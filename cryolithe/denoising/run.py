"""One denoising from file to file, by any method: training, tiles, the results, their guard and records."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from cryolithe import __version__
from cryolithe.denoising.ceiling import HalfScore, score_halves
from cryolithe.denoising.figures import plot_report
from cryolithe.denoising.guard import Verdict, examine
from cryolithe.denoising.job import Item, Job, check_job, made_before, made_with
from cryolithe.denoising.method import Applied, Method, View, Weights
from cryolithe.denoising.output import remove_result
from cryolithe.denoising.session import trained
from cryolithe.errors import ResourceError
from cryolithe.formats.reading import changed_error
from cryolithe.formats.record import changed_input, hashed, read_record_beside
from cryolithe.formats.sizes import size_told
from cryolithe.machine.device import precision_name
from cryolithe.optimise.distributed import Place
from cryolithe.report.json_files import write_json
from cryolithe.work.alone import alone_in
from cryolithe.work.watcher import WARNING, Listening, Watcher

UNTRAINED_ADVICE = "train on this volume (--train-minutes)"
FEWEST_VOXELS = 8  # along each axis, for the guard
AnyMethod = Method[Any, Any, Any]


@dataclass(frozen=True)
class Denoised:
    """What a run made, or found to be made already.

    Attributes:
        output: the volume, or what a method makes instead.
        weights: file of the weights that were used.
        verdict: of the guard, or None.
        score: by the halves, where they tell one.
        seconds: for training and denoising; empty if it was made before.
        warnings: all that were told of it: those of the guard, of its files and of the weights.
    """

    output: Path
    weights: Path
    verdict: Verdict | None = None
    score: HalfScore | None = None
    seconds: dict[str, float] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Judged:
    """What the guard says of an item."""

    verdict: Verdict | None
    score: HalfScore | None


def denoise(method: AnyMethod, job: Job, place: Place, watcher: Watcher) -> list[Denoised]:
    """Denoise volumes with one network that is trained on them, or with the weights of an earlier training.

    An interrupted run goes on where it stopped with ``resume``: in the training exactly, then at the first volume that
    is not there.

    Returns:
        one entry for each volume; none in a process that only helped to train.

    Raises:
        CryoLitheError: for everything that the user can mend.
        KeyboardInterrupt: after Ctrl-C; what is done is kept.
    """
    if not job.trains:
        check_job(job)
        return _run(method, job, place, watcher)
    with alone_in(job.folder, place, lambda: check_job(job)) as note:
        if note:
            watcher.note(note)
        return _run(method, job, place, watcher)


def _run(method: AnyMethod, job: Job, place: Place, watcher: Watcher) -> list[Denoised]:
    heard = Listening(watcher)
    for text in job.notes:
        heard.note(text)
    before = [hashed(item.inputs) for item in job.items]
    views: list[View] = method.look(job, heard)
    _check_disk(method, job, views)
    started = time.monotonic()
    weights = _weights(method, job, views, place, heard)
    if place.rank != 0 or weights is None:
        return []
    times = {"training": float(weights.card.get("seconds", 0.0)) if job.trains else 0.0}
    times["training and waiting"] = time.monotonic() - started
    if (other := method.instead(job, views[0], weights, place, heard)) is not None:
        if untrained := weights.card.get("hardly_trained"):
            heard.note(f"{WARNING}{untrained}")
        return [Denoised(other, job.used_weights, seconds=times, warnings=tuple(heard.warnings))]
    made, of_items = [], {text for view in views for text in view.warnings}
    for view, hashes in zip(views, before, strict=True):
        if job.resume and _is_done(job, view, weights):
            watcher.note(f"{view.item.output}: already denoised")
            made.append(Denoised(view.item.output, job.used_weights))
            continue
        # What was told of another volume is nothing to this one.
        own = Listening(watcher, [text for text in heard.warnings if text in view.warnings or text not in of_items])
        made.append(_denoise_one(method, job, view, (weights, hashes, times), (place, own)))
    return made


def _weights(method: AnyMethod, job: Job, views: Sequence[View], place: Place, watcher: Watcher) -> Weights | None:
    """Weights, trained now, before, or for something else."""
    if job.trains:
        weights: Weights | None = trained(method, job, views, place, watcher)
        return weights
    assert job.model is not None
    weights = method.load(job.model)
    for text in method.doubts(job, views, weights):
        watcher.note(text)
    return weights


def _is_done(job: Job, view: View, weights: Weights) -> bool:
    """Whether an item was made of the same inputs, with the same choices and the same weights."""
    item = view.item
    return item.output.exists() and made_before(job, item) is None and made_with(item) == weights.sha256


def _check_disk(method: AnyMethod, job: Job, views: Sequence[View]) -> None:
    """Raise ResourceError early if the disk has too little room for the largest item."""
    needed, item = max(((method.disk_bytes(job, view), view.item) for view in views), key=lambda pair: pair[0])
    free = shutil.disk_usage(item.output.parent).free
    if free < needed:
        raise ResourceError(
            f"{item.output.parent} has {size_told(free)} free, scratch and result need {size_told(needed)}; "
            "make room or choose another -o"
        )


def _denoise_one(
    method: AnyMethod,
    job: Job,
    view: View,
    known: tuple[Weights, dict[str, Any], dict[str, float]],
    context: tuple[Place, Listening],
) -> Denoised:
    """Denoise an item, look at what became of it, write its record."""
    weights, before, times = known
    place, watcher = context
    item, started = view.item, time.monotonic()
    applied = method.apply(job, view, weights, place, watcher)
    if coarse := view.target.coarse(applied.statistics):
        watcher.note(coarse)
    seconds = {**times, "denoising": time.monotonic() - started}
    watcher.stage("Comparing before and after", 1)
    with _with_its_record(item, view.volume.names):
        judged = _judged(method, job, view, (weights, applied), context)
    watcher.advance(1)
    if changed := changed_input({"inputs": before}, item.inputs):
        what = f"{item.output} is of both states: run again with --overwrite when the input is complete"
        raise changed_error(item.inputs[changed], "it was denoised", what)
    warnings = tuple(watcher.warnings)
    done = Denoised(item.output, job.used_weights, judged.verdict, judged.score, seconds, warnings)
    with _with_its_record(item, view.volume.names):
        _write_record(method, job, view, (weights, applied, before, place), done)
    return done


@contextmanager
def _with_its_record(item: Item, names: Sequence[str]) -> Iterator[None]:
    """Remove an output where the rest fails: without its record nobody could tell what it was made of.

    Args:
        item: what is denoised.
        names: of the planes of an output that is a folder of them.
    """
    try:
        yield
    except BaseException:  # also Ctrl-C
        remove_result(item.output, names)
        if item.report is not None and item.report.is_file():
            item.report.unlink()
        raise


def _judged(
    method: AnyMethod, job: Job, view: View, made: tuple[Weights, Applied], context: tuple[Place, Watcher]
) -> _Judged:
    """Compare before and after in the middle of the volume; say what was found; draw the report."""
    weights, applied = made
    watcher, item = context[1], view.item
    if applied.middle is None:
        watcher.note(f"The guard needs {FEWEST_VOXELS} voxels along each axis: nothing was compared.")
        if untrained := weights.card.get("hardly_trained"):
            watcher.note(f"{WARNING}{untrained}")
        return _Judged(None, None)
    halves = method.halves(job, view, weights, *context)
    score = score_halves(halves[:2], halves[2:]) if halves and method.scored else None
    advice = method.advice if job.trains else UNTRAINED_ADVICE
    verdict = examine(*applied.middle, halves, advice, view.voxel_size_angstrom)
    if score is not None:
        watcher.note(score.told())
        if warning := score.warning():
            verdict = replace(verdict, warnings=(warning, *verdict.warnings))
    untrained = weights.card.get("hardly_trained")
    if untrained and job.trains:
        verdict = replace(verdict, warnings=(str(untrained), *verdict.warnings))
    elif untrained:
        watcher.note(f"Note: the weights are {untrained}")
    for text in verdict.warnings:
        watcher.note(f"{WARNING}{text}")
    if item.report is not None:
        told = score.told() if score else None
        contrast = read_record_beside(view.volume.path).get("volume", {}).get("contrast")
        plot_report(item.report, *applied.middle, verdict, view.voxel_size_angstrom, told, contrast)
    return _Judged(verdict, score)


def _write_record(
    method: AnyMethod,
    job: Job,
    view: View,
    made: tuple[Weights, Applied, dict[str, Any], Place],
    done: Denoised,
) -> None:
    """The sidecar: what was made of what, and what the guard says."""
    weights, applied, inputs, place = made
    volume = view.volume
    source = read_record_beside(volume.path)  # geometry and images used are those of what was denoised
    score = {"score": done.score.plain() if done.score else None} if method.scored else {}
    write_json(
        view.item.sidecar,
        {
            "program": {"name": "CryoLithe", "version": __version__, "torch": torch.__version__},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "inputs": inputs,
            **view.record(),
            "geometry": source.get("geometry"),
            "choices": job.choices,
            "volume": {
                "path": view.item.output.name,
                "shape_zyx": volume.shape,
                "voxel_size_angstrom": volume.voxel_size_angstrom,
                "dtype": view.target.dtype.name,
                "contrast": source.get("volume", {}).get("contrast"),
                "statistics": asdict(applied.statistics),
                **view.target.scaling,
            },
            "method": {
                "name": method.name,
                **applied.record,
                "weights": {"path": done.weights, "sha256": weights.sha256},
                "card": weights.card,
            },
            "compute": {
                "device": str(place.device),
                "precision": precision_name(place.precision),
                "threads": torch.get_num_threads(),
            },
            "seconds": {name: round(value, 1) for name, value in (done.seconds or {}).items()},
            **score,
            "guard": done.verdict,
            "warnings": done.warnings,
        },
    )
