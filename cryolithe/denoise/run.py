"""One denoising from file to file: training, tiles with a journal, the result, its guard and record."""

from __future__ import annotations

import math
import shutil
import time
import zlib
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.denoise.figures import plot_report
from cryolithe.denoise.guard import Verdict, central, examine
from cryolithe.denoise.inference import Inference
from cryolithe.denoise.job import DenoiseJob, Resolved, check_paths, look, resolve
from cryolithe.denoise.low import KeptLow, Plane, crossover_per_px, sigma_px
from cryolithe.denoise.model import SIZES, SambaConfig, Weights, load_weights
from cryolithe.denoise.output import write_result
from cryolithe.denoise.recipe import Recipe, make_recipe
from cryolithe.denoise.session import finished_weights, train_weights
from cryolithe.denoise.sweep import central_tile, sweep
from cryolithe.denoise.tiles import Blend, Tile, tiles
from cryolithe.denoise.training import saved_batch
from cryolithe.device import precision_name
from cryolithe.errors import InputError, ResourceError
from cryolithe.formats import VolumeStatistics, VolumeWriter
from cryolithe.formats.mrc import read_mrc
from cryolithe.formats.record import hashed, read_record_beside
from cryolithe.formats.volume_file import open_volume_file
from cryolithe.formats.volume_kind import stack_refusal
from cryolithe.optimise.distributed import Place, least
from cryolithe.report import write_json
from cryolithe.work.folder import WorkFolder, checksum
from cryolithe.work.label import file_label
from cryolithe.work.watcher import Watcher

CROP, OVERLAP = 256, 32
PLANES_PER_ENTRY = 4  # of the journal
# Evaluations at a time: on a CPU the channels of one have to stay in the cache.
BATCH = {"cpu": 1, "cuda": 8}
GUARD_PLANES, FEWEST_VOXELS = 48, 8


@dataclass(frozen=True)
class Denoised:
    """What a run made.

    Attributes:
        output: the volume, or the panel of a sweep; None for a process that only helped to train.
        weights: file of the weights that were used.
        verdict: of the guard, or None.
        seconds: for training and denoising.
    """

    output: Path | None
    weights: Path
    verdict: Verdict | None
    seconds: dict[str, float]


@dataclass(frozen=True)
class Planes:
    """Finished planes of a tile: number of the tile, first plane, plane after the last, checksum of their values."""

    tile: int
    start: int
    stop: int
    crc32: int


def denoise(job: DenoiseJob, place: Place, watcher: Watcher) -> Denoised:
    """Denoise a volume with a network trained on it, or with the weights of an earlier training.

    An interrupted run goes on where it stopped with ``resume``: in the training exactly, in the denoising at the next
    planes.

    Raises:
        CryoLitheError: for everything that the user can mend.
        KeyboardInterrupt: after Ctrl-C; what is done is kept.
    """
    check_paths(job)
    before = hashed({"volume": job.volume})
    run = resolve(job, watcher)
    _check_disk(run)
    started = time.monotonic()
    weights, trained = _weights(run, place, watcher)
    times = {"training": trained, "training and waiting": time.monotonic() - started}
    path = job.weights if job.trains else job.model
    assert path is not None
    if place.rank != 0:
        return Denoised(None, path, None, times)
    network = weights.network.to(place.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    inference = Inference(
        network, place, run.source.survey.usable, run.gaps[1], job.augment, BATCH.get(place.device.type, 1)
    )
    if job.sweep is not None:
        sweep(run, inference, job.sweep, watcher)
        return Denoised(job.sweep, path, None, times)
    started = time.monotonic()
    made = _make_output(run, inference, weights, watcher)
    times["denoising"] = time.monotonic() - started
    watcher.stage("Comparing before and after", 1)
    verdict = _guard(run, inference, watcher)
    watcher.advance(1)
    if hashed({"volume": job.volume}) != before:
        raise InputError(
            f"{job.volume} changed while it was denoised: {job.output} is of both; run again with --overwrite when the "
            "volume is complete"
        )
    _write_record(run, weights, verdict, made, (place, times, before))
    return Denoised(job.output, path, verdict, times)


def _weights(run: Resolved, place: Place, watcher: Watcher) -> tuple[Weights, float]:
    """Weights, trained now, before, or for something else; and the seconds that their training took."""
    job = run.job
    if not job.trains:
        assert job.model is not None
        weights = load_weights(job.model)
        origin = weights.card.get("volume", {})
        if origin.get("fingerprint") != run.source.fingerprint():
            watcher.note(
                f"Warning: {job.model} was trained on another volume ({origin.get('name', 'unknown')}); results are "
                "more reliable with weights trained on the volume itself"
            )
        return weights, 0.0
    sizes = SIZES[job.size] if job.model is None else load_weights(job.model).network.config
    recipe = _recipe(run, sizes, place)
    done = None
    if job.resume:
        done = finished_weights(job.weights, job.state, run.source.fingerprint())
    if done is not None:
        watcher.note(f"The training is done: {job.weights}")
        return done, float(done.card.get("seconds", 0.0))
    watcher.note(_plan(run, recipe, place))
    weights = train_weights(run, recipe, place, watcher)
    return weights, float(weights.card.get("seconds", 0.0))


def _recipe(run: Resolved, sizes: SambaConfig, place: Place) -> Recipe:
    """How to train: a batch that was left open follows the memory that is free, but for a training that goes on."""
    job, batch = run.job, run.job.batch
    if batch is None and job.resume:
        batch = saved_batch(job.state)
    recipe = make_recipe(run.gaps[0], place.device, sizes, crop=job.crop, batch=batch, seed=job.seed)
    return replace(recipe, batch=least(recipe.batch, place))


def _plan(run: Resolved, recipe: Recipe, place: Place) -> str:
    limit = run.job.limit_seconds(place.device)
    end = f"at most {limit / 60:g} min" if math.isfinite(limit) else "until the loss held back stays"
    threads = f", {torch.get_num_threads()} threads" if place.device.type == "cpu" else ""
    shape = " x ".join(map(str, run.source.volume.shape))
    return (
        f"Plan: {shape} (z, y, x), Lmax {run.gaps[0]} in training and {run.gaps[1]} in inference; training on "
        f"{recipe.crop} x {recipe.crop} crops, {recipe.batch} at a time, {end}, {place.device}"
        f" ({precision_name(place.precision)}{threads})"
    )


def inference_tiles(run: Resolved, inference: Inference) -> tuple[list[Tile], int]:
    """Tiles of the planes, and their overlap."""
    crop = run.job.crop or CROP
    overlap = min(OVERLAP, crop // 4)
    _, height, width = run.source.volume.shape
    return tiles((height, width), crop, overlap, inference.network.config.multiple), overlap


def _check_disk(run: Resolved) -> None:
    """Raise ResourceError early if the disk has too little room."""
    if run.job.sweep is not None:
        return
    voxels = math.prod(run.source.volume.shape)
    needed = round(voxels * (1.3 * 4 + run.target.dtype.itemsize))
    free = shutil.disk_usage(run.job.output.parent).free
    if free < needed and not run.job.resume:
        raise ResourceError(
            f"{run.job.output.parent} has {free / 1e9:.2f} GB free, tiles and result need {needed / 1e9:.2f} GB; "
            "make room or choose another -o"
        )


def _make_output(
    run: Resolved, inference: Inference, weights: Weights, watcher: Watcher
) -> tuple[VolumeStatistics, float | None]:
    """Denoise all tiles, put them together, write the result; returns what `_assemble` does."""
    folder = WorkFolder(run.job.output.with_name(run.job.output.name + ".partial"), Planes)
    try:
        if folder.note:
            watcher.note(folder.note)
        parts, overlap = inference_tiles(run, inference)
        plan = {
            "cryolithe": __version__,
            "weights": weights.sha256,
            "volume": run.source.fingerprint(),
            "largest_gap": inference.largest_gap,
            "augment": inference.augment,
            "tiles": len(parts),
            "crop": parts[0][0].length,
        }
        if folder.plan == plan:
            watcher.note(f"Going on with an unfinished run: {len(folder.entries)} parts are done.")
        else:
            _begin(folder, plan, parts, run)
        _denoise_tiles(run, inference, parts, folder, watcher)
        watcher.stage("Writing", run.source.volume.shape[0])
        made = _assemble(run, parts, overlap, folder, weights, watcher)
    except BaseException:  # also Ctrl-C: what is done is kept
        folder.release()
        raise
    folder.remove()
    return made


def _tile_file(folder: WorkFolder[Planes], number: int) -> Path:
    return folder.path / f"tile_{number:04d}.mrc"


def _begin(folder: WorkFolder[Planes], plan: dict[str, Any], parts: list[Tile], run: Resolved) -> None:
    """Make the tiles' files, so that a disk that is too full is found at once."""
    folder.forget()
    depth = run.source.volume.shape[0]
    for number, (y, x) in enumerate(parts):
        shape, path = (depth, y.length, x.length), _tile_file(folder, number)
        with VolumeWriter.create(path, shape, None, np.float32, target=run.job.output):
            pass
    folder.begin(plan)


def _denoise_tiles(
    run: Resolved, inference: Inference, parts: list[Tile], folder: WorkFolder[Planes], watcher: Watcher
) -> None:
    """Denoise what the journal does not have yet."""
    depth = run.source.volume.shape[0]
    done = _intact_planes(folder)
    watcher.stage("Denoising", len(parts) * depth)
    watcher.advance(len(done))
    for number, tile in enumerate(parts):
        missing = [z for z in range(depth) if (number, z) not in done]
        if not missing:
            continue
        first, shape = missing[0], (depth, tile[0].length, tile[1].length)
        path = _tile_file(folder, number)
        with VolumeWriter.open(path, shape, np.float32, target=run.job.output) as writer:
            start, crc = first, 0
            planes = inference.planes(lambda z, tile=tile: run.source.window(z, tile), first, depth)  # type: ignore[misc]
            for z, plane in enumerate(planes, start=first):
                values = np.zeros(shape[1:], np.float32) if plane is None else plane
                if not np.isfinite(values).all():
                    raise InputError(f"plane {z + 1} of the result is not finite; try --precision fp32")
                writer.write_sections(z, values[None])
                crc = zlib.crc32(np.ascontiguousarray(values).data, crc)
                watcher.advance(1)
                if z + 1 == depth or (z + 1 - start) == PLANES_PER_ENTRY:
                    writer.sync()
                    folder.done(Planes(number, start, z + 1, crc))
                    start, crc = z + 1, 0


def _intact_planes(folder: WorkFolder[Planes]) -> set[tuple[int, int]]:
    """Tile and plane of everything whose values on the disk are still what was written."""
    intact: set[tuple[int, int]] = set()
    for one in folder.entries:
        if checksum(read_mrc(_tile_file(folder, one.tile)).data[one.start : one.stop]) == one.crc32:
            intact |= {(one.tile, z) for z in range(one.start, one.stop)}
    return intact


def _assemble(
    run: Resolved, parts: list[Tile], overlap: int, folder: WorkFolder[Planes], weights: Weights, watcher: Watcher
) -> tuple[VolumeStatistics, float | None]:
    """Blend the tiles into the output; planes without content are copied.

    Returns:
        statistics of the output, and the standard deviation in voxels of the low pass below which the input is kept.
    """
    survey, volume = run.source.survey, run.source.volume
    blend = Blend(parts, overlap)
    files = [read_mrc(_tile_file(folder, number)).data for number in range(len(parts))]

    def before(z: int) -> NDArray[np.float32]:
        return survey.scale.apply(volume.read(z))

    def after(z: int) -> NDArray[np.float32]:
        return blend(np.asarray(file[z]) for file in files)

    low = _kept_low(run, before, after)
    kept = low.plane if low else after

    def plane(z: int) -> NDArray[np.float32]:
        watcher.advance(1)
        if not survey.usable[z]:
            original = np.asarray(volume.read(z), dtype=np.float32)
            return np.where(np.isfinite(original), original, np.float32(survey.scale.centre))
        return survey.scale.undo(kept(z))

    label = file_label(f"samba Lmax {run.gaps[1]} weights {weights.sha256[:12]}")
    statistics = write_result(run.target, volume, plane, label, run.job.overwrite)
    return statistics, low.sigma if low else None


def _kept_low(run: Resolved, before: Plane, after: Plane) -> KeptLow | None:
    """What puts the input's low frequencies back, if that is wanted and the volume large enough to tell which."""
    volume, usable = run.source.volume, run.source.survey.usable
    if not run.job.keep_low or min(volume.shape) < FEWEST_VOXELS:
        return None
    z, y, x = central(volume.shape)
    planes = [n for n in range(z.start, z.stop) if usable[n]]
    if len(planes) < FEWEST_VOXELS:
        return None
    pair = [np.stack([read(n)[y, x] for n in planes]) for read in (before, after)]
    sigma = sigma_px(crossover_per_px(*pair))
    return KeptLow(before, after, usable, sigma) if sigma else None


def _guard(run: Resolved, inference: Inference, watcher: Watcher) -> Verdict | None:
    """Compare before and after in the middle of the volume; say what was found; draw the report."""
    job, volume = run.job, run.source.volume
    part = central(volume.shape)
    if min(volume.shape) < FEWEST_VOXELS:
        watcher.note(f"The guard needs {FEWEST_VOXELS} voxels along each axis: nothing was compared.")
        return None
    result = open_volume_file(job.output)
    scale = run.source.survey.scale

    def middle(file: Any) -> NDArray[np.float32]:
        return np.stack([scale.apply(file.read(z)[part[1], part[2]]) for z in range(part[0].start, part[0].stop)])

    before, after = middle(volume), middle(result)
    halves = _denoised_halves(job, inference, watcher) if job.halves else None
    verdict = examine(before, after, halves)
    for text in verdict.warnings:
        watcher.note(f"Warning: {text}")
    if job.report is not None:
        plot_report(job.report, before, after, verdict, job.voxel_size or volume.voxel_size_angstrom)
    return verdict


def _denoised_halves(
    job: DenoiseJob, inference: Inference, watcher: Watcher
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The middle of both halves, before and after."""
    assert job.halves is not None
    found: list[NDArray[Any]] = []
    for path in job.halves:
        opened = open_volume_file(path)
        if opened.told.content == "stack" and not job.is_volume:
            raise stack_refusal(path, opened.told)
        source = look(opened, job.fix_nonfinite, watcher)
        tile = central_tile(source, CROP, inference.network.config.multiple)
        z = central(source.volume.shape, GUARD_PLANES)[0]
        own = replace(inference, usable=source.survey.usable)
        watcher.stage(f"Denoising the middle of {path.name}", z.stop - z.start)
        new = []
        for plane in own.planes(lambda k, source=source, tile=tile: source.window(k, tile), z.start, z.stop):  # type: ignore[misc]
            new.append(np.zeros((tile[0].length, tile[1].length), np.float32) if plane is None else plane)
            watcher.advance(1)
        found += [np.stack([source.window(k, tile) for k in range(z.start, z.stop)]), np.stack(new)]
    if found[0].shape != found[2].shape:
        raise InputError(
            f"the halves differ in shape: {job.halves[0]} and {job.halves[1]}; give volumes of one specimen and size"
        )
    return found[0], found[2], found[1], found[3]


def _write_record(
    run: Resolved,
    weights: Weights,
    verdict: Verdict | None,
    made: tuple[VolumeStatistics, float | None],
    context: tuple[Place, dict[str, float], dict[str, Any]],
) -> None:
    """The sidecar: what was made of what, and what the guard says."""
    place, times, _ = context
    volume, job = run.source.volume, run.job
    source = read_record_beside(job.volume)  # geometry and images used are those of the volume that was denoised
    write_json(
        job.sidecar,
        {
            "program": {"name": "CryoLithe", "version": __version__, "torch": torch.__version__},
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "inputs": context[2],
            "input": {"path": job.volume, "fingerprint": run.source.fingerprint(), "notes": volume.notes},
            "source": {"inputs": source["inputs"]} if "inputs" in source else None,
            "geometry": source.get("geometry"),
            "choices": job.choices,
            "volume": {
                "path": job.output.name,
                "shape_zyx": volume.shape,
                "voxel_size_angstrom": volume.voxel_size_angstrom,
                "dtype": run.target.dtype.name,
                "contrast": source.get("volume", {}).get("contrast"),
                "statistics": asdict(made[0]),
            },
            "method": {
                "name": "samba",
                "lmax_training": weights.card.get("recipe", {}).get("largest_gap"),
                "lmax_inference": run.gaps[1],
                "augment": job.augment,
                "input_kept_below_sigma_px": made[1],
                "crop": job.crop or CROP,
                "weights": {"path": job.weights if job.trains else job.model, "sha256": weights.sha256},
                "card": weights.card,
            },
            "compute": {
                "device": str(place.device),
                "precision": precision_name(place.precision),
                "threads": torch.get_num_threads(),
            },
            "seconds": {name: round(value, 1) for name, value in times.items()},
            "guard": verdict,
        },
    )
