"""One denoising by Noise2Noise from file to file: halves, training, tiles, the result, its guard and record."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.denoise.figures import plot_report
from cryolithe.denoise.guard import Verdict, central, examine
from cryolithe.denoise.n2n.ceiling import HalfScore, score_halves
from cryolithe.denoise.n2n.halves import Half, HalfPair, open_half, open_pair
from cryolithe.denoise.n2n.job import N2nJob, check_job, volume_bytes
from cryolithe.denoise.n2n.network import Denoiser, kind_of, load_denoiser
from cryolithe.denoise.n2n.session import trained
from cryolithe.denoise.n2n.tiles import Runner, Tiling, apply_gain, denoise_volume, plan_tiles, prepared
from cryolithe.denoise.output import Target, choose_target, write_result
from cryolithe.device import precision_name
from cryolithe.errors import InputError, ResourceError
from cryolithe.formats import VolumeStatistics
from cryolithe.formats.record import hashed, read_record_beside
from cryolithe.limits import group_limits
from cryolithe.optimise.distributed import Place
from cryolithe.report import write_json
from cryolithe.work.label import file_label
from cryolithe.work.watcher import Watcher

Array = NDArray[np.float32]
Halves = tuple[Array, Array, Array, Array]  # first and second before, first and second after
_SHARE_OF_FREE = {"cpu": 0.4, "cuda": 0.7}
_ADVICE = "train longer (--train-minutes), or try --loss fsc"
SCORED = 128  # voxels along an axis in which the halves are compared


@dataclass(frozen=True)
class Denoised:
    """What a run made.

    Attributes:
        output: the volume.
        weights: file of the weights that were used.
        verdict: of the guard.
        score: by the halves, where there are two.
        seconds: for training and denoising.
    """

    output: Path
    weights: Path
    verdict: Verdict
    score: HalfScore | None
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Input:
    """What is denoised: two halves, or one whole volume.

    Attributes:
        halves: one or two.
        pair: the two, or None.
    """

    halves: tuple[Half, ...]
    pair: HalfPair | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels ``(z, y, x)``."""
        return self.halves[0].volume.shape

    def mean_box(self, place: tuple[slice, slice, slice]) -> Array:
        """Mean of the standardised halves in a box."""
        total = sum(half.box(place) for half in self.halves)
        return np.asarray(total / np.float32(len(self.halves)), np.float32)

    def undone(self, values: Array) -> Array:
        """Standardised values in grey levels: mean centre and mean unit of the halves."""
        unit = sum(half.unit for half in self.halves) / len(self.halves)
        centre = sum(half.survey.scale.centre for half in self.halves) / len(self.halves)
        return np.asarray(values * np.float32(unit) + np.float32(centre), np.float32)


def denoise_halves(job: N2nJob, place: Place, watcher: Watcher) -> Denoised:
    """Denoise a volume given by its halves with a network trained on them, or with earlier weights.

    An interrupted training goes on where it stopped with ``resume``.

    Raises:
        CryoLitheError: for everything that the user can mend.
        KeyboardInterrupt: after Ctrl-C; what is done of the training is kept.
    """
    check_job(job)
    before = hashed(job.inputs)
    given = _looked_at(job, watcher)
    target = choose_target(given.halves[0].volume, job.output)
    if target.note:
        watcher.note(target.note)
    _check_disk(job, given.shape, target)
    started = time.monotonic()
    denoiser = _weights(job, given, place, watcher)
    times = {"training": float(denoiser.card.get("seconds", 0.0)) if job.trains else 0.0}
    times["training and waiting"] = time.monotonic() - started
    started = time.monotonic()
    network = prepared(denoiser.network, denoiser.config, place.device)
    run = Runner(network, place.device, place.precision)
    with _scratch(job.output, given.shape) as values:
        tiling = plan_tiles(given.shape, denoiser.config, _budget_bytes(place.device), _itemsize(place))
        watcher.stage("Denoising", tiling.count * len(given.halves))
        sources = [half.box for half in given.halves]
        denoise_volume(run, sources, tiling, values, lambda: watcher.advance(1))
        if not denoiser.gain.is_one:
            with _scratch(job.output, given.shape) as amplified:
                apply_gain(denoiser.gain, values, amplified)
                values[...] = amplified
        statistics = _write(job, given, denoiser, (target, values), watcher)
        times["denoising"] = time.monotonic() - started
        watcher.stage("Comparing before and after", 1)
        compared = _compared(run, given, denoiser, place) if given.pair else None
        score = score_halves(compared[:2], compared[2:]) if compared else None
        verdict = _guard(job, given, values, (compared, score), watcher)
        watcher.advance(1)
    if hashed(job.inputs) != before:
        raise InputError(
            f"{' or '.join(map(str, job.halves))} changed while it was denoised: {job.output} is of both states; run "
            "again with --overwrite when the volumes are complete"
        )
    done = Denoised(job.output, job.weights if job.trains else job.model or job.weights, verdict, score, times)
    _write_record(job, given, denoiser, (place, tiling, before, (target, statistics)), done)
    return done


def _looked_at(job: N2nJob, watcher: Watcher) -> _Input:
    """Open the volumes, look at all of them, say what was found."""
    warnings: tuple[str, ...] = ()
    watcher.stage("Looking at the halves" if len(job.halves) > 1 else f"Looking at {job.halves[0].name}", 1)
    if len(job.halves) == 1:
        half = open_half(job.halves[0], job.is_volume, job.fix_nonfinite)
        given = _Input((half,), None)
    else:
        pair = open_pair(job.halves[0], job.halves[1], job.is_volume, job.fix_nonfinite)
        given, warnings = _Input((pair.first, pair.second), pair), pair.warnings
    watcher.advance(1)
    for half in given.halves:
        for text in half.volume.notes:
            watcher.note(f"Note on {half.volume.path.name}: {text}")
        if half.survey.repaired:
            watcher.note(f"{half.volume.path.name}: {half.survey.repaired} voxels that are not finite are taken for 0.")
        if half.volume.of_network:
            watcher.note(
                f"Warning: {half.volume.path.name} was made by a network, which leaves hardly any independent noise: "
                "Noise2Noise is meant for halves of --method fbp or sirt"
            )
    for text in warnings:
        watcher.note(f"Warning: {text}")
    return given


def _weights(job: N2nJob, given: _Input, place: Place, watcher: Watcher) -> Denoiser:
    """Weights, trained now or before."""
    if job.trains:
        assert given.pair is not None
        return trained(job, given.pair, place, watcher)
    assert job.model is not None
    denoiser = load_denoiser(job.model)
    learned = denoiser.card.get("halves", {})
    if given.pair is None:
        watcher.note(
            "Note: the weights were trained on halves, which have twice the noise of this whole volume; with --half1 "
            "and --half2 the result has less noise, and its score is known"
        )
    elif learned.get("fingerprint") != given.pair.fingerprint():
        names = " and ".join(learned.get("names", ["other volumes"]))
        watcher.note(f"Warning: {job.model} was trained on other volumes ({names}): look at the result with care")
    return denoiser


def _budget_bytes(device: torch.device) -> int:
    """Memory for one tile."""
    if device.type == "cuda":
        return int(_SHARE_OF_FREE["cuda"] * torch.cuda.mem_get_info(device)[0])
    free, group = int(psutil.virtual_memory().available), group_limits().free_bytes
    return int(_SHARE_OF_FREE["cpu"] * min(free, free if group is None else group))


def _itemsize(place: Place) -> int:
    """Bytes of a value inside a network, as far as memory goes: a CPU computes bf16 in float32 buffers."""
    return 2 if place.device.type == "cuda" and place.precision != torch.float32 else 4


def _check_disk(job: N2nJob, shape: tuple[int, int, int], target: Target) -> None:
    """Raise ResourceError early if the disk has too little room."""
    needed, free = volume_bytes(shape, target.dtype.itemsize), shutil.disk_usage(job.output.parent).free
    if free < needed:
        raise ResourceError(
            f"{job.output.parent} has {free / 1e9:.2f} GB free, scratch and result need {needed / 1e9:.2f} GB; "
            "make room or choose another -o"
        )


@contextmanager
def _scratch(output: Path, shape: tuple[int, int, int]) -> Iterator[Array]:
    """Voxels on the disk of the output, gone afterwards."""
    size = 4 * math.prod(shape)
    with tempfile.TemporaryFile(dir=output.parent) as file:
        try:
            file.truncate(size)
            for start in range(
                0, size, 1 << 24
            ):  # a disk that is full must say so here, not while the memory is written
                file.write(bytes(min(1 << 24, size - start)))
            file.flush()
        except OSError as error:
            raise ResourceError(f"{output.parent}: cannot write {size / 1e9:.2f} GB of scratch: {error}") from error
        yield np.memmap(file, np.float32, "r+", shape=shape)


def _write(
    job: N2nJob, given: _Input, denoiser: Denoiser, made: tuple[Target, Array], watcher: Watcher
) -> VolumeStatistics:
    """The result in the form of the first half."""
    target, values = made
    watcher.stage("Writing", given.shape[0])

    def plane(z: int) -> Array:
        watcher.advance(1)
        if not np.isfinite(values[z]).all():
            raise InputError(f"plane {z + 1} of the result is not finite; try --precision fp32")
        return given.undone(values[z])

    label = file_label(f"n2n {kind_of(denoiser.config)} weights {denoiser.sha256[:12]}")
    return write_result(target, given.halves[0].volume, plane, label, job.overwrite)


def _compared(run: Runner, given: _Input, denoiser: Denoiser, place: Place) -> Halves:
    """The middle of both halves before, and after each was denoised alone."""
    middle = central(given.shape, SCORED)
    raw = [half.box(middle) for half in given.halves]
    z, y, x = raw[0].shape
    tiling = plan_tiles((z, y, x), denoiser.config, _budget_bytes(place.device), _itemsize(place))
    new = [np.empty_like(values) for values in raw]
    for values, out in zip(raw, new, strict=True):
        denoise_volume(run, [lambda box, v=values: v[box]], tiling, out)  # type: ignore[misc]
        out[...] = denoiser.gain.apply(out)
    return raw[0], raw[1], new[0], new[1]


def _guard(
    job: N2nJob, given: _Input, values: Array, halves: tuple[Halves | None, HalfScore | None], watcher: Watcher
) -> Verdict:
    """Compare before and after in the middle of the volume; say what was found; draw the report."""
    compared, score = halves
    part = central(given.shape)
    before, after = given.mean_box(part), np.array(values[part])
    verdict = examine(before, after, compared, _ADVICE)
    if score is not None:
        watcher.note(score.told())
        if warning := score.warning():
            verdict = replace(verdict, warnings=(warning, *verdict.warnings))
    for text in verdict.warnings:
        watcher.note(f"Warning: {text}")
    if job.report is not None:
        size = given.halves[0].volume.voxel_size_angstrom
        plot_report(job.report, before, after, verdict, size, score.told() if score else None)
    return verdict


def _write_record(
    job: N2nJob,
    given: _Input,
    denoiser: Denoiser,
    context: tuple[Place, Tiling, dict[str, Any], tuple[Target, VolumeStatistics]],
    done: Denoised,
) -> None:
    """The sidecar: what was made of what, and what the guard says."""
    place, tiling, hashes, (target, statistics) = context
    volume = given.halves[0].volume
    source = read_record_beside(volume.path)
    found = given.pair.found if given.pair else None
    write_json(
        job.sidecar,
        {
            "program": {"name": "CryoLithe", "version": __version__, "torch": torch.__version__},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "inputs": hashes,
            "halves": None
            if found is None
            else {**asdict(found), "warnings": given.pair.warnings if given.pair else ()},
            "geometry": source.get("geometry"),
            "choices": job.choices,
            "volume": {
                "path": job.output.name,
                "shape_zyx": given.shape,
                "voxel_size_angstrom": volume.voxel_size_angstrom,
                "dtype": target.dtype.name,
                "contrast": source.get("volume", {}).get("contrast"),
                "statistics": asdict(statistics),
            },
            "method": {
                "name": "n2n",
                "tiles": {"edges_zyx": tiling.edges, "count": tiling.count},
                "gain": denoiser.gain.plain(),
                "weights": {"path": done.weights, "sha256": denoiser.sha256},
                "card": denoiser.card,
            },
            "compute": {
                "device": str(place.device),
                "precision": precision_name(place.precision),
                "threads": torch.get_num_threads(),
            },
            "seconds": {name: round(value, 1) for name, value in done.seconds.items()},
            "score": done.score.plain() if done.score else None,
            "guard": done.verdict,
        },
    )
