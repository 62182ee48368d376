"""A trained network applied to a volume: planes by tiles with a journal, put together, written."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.arrays.spectra import central
from cryolithe.artefacts.faces import filled_outside
from cryolithe.denoising.guard import LONGEST
from cryolithe.denoising.output import write_result
from cryolithe.denoising.samba.inference import Inference
from cryolithe.denoising.samba.job import Resolved
from cryolithe.denoising.samba.low import KeptLow, Plane, crossover_per_px, sigma_px
from cryolithe.denoising.samba.model import Weights
from cryolithe.denoising.samba.tiles import Blend, Tile, tiles
from cryolithe.errors import InputError
from cryolithe.formats import VolumeStatistics, VolumeWriter
from cryolithe.formats.stacks.mrc import read_mrc
from cryolithe.work.folder import WorkFolder, checksum
from cryolithe.work.label import file_label
from cryolithe.work.watcher import Watcher

CROP, OVERLAP = 256, 32
PLANES_PER_ENTRY = 4  # of the journal
FEWEST_VOXELS = 8


@dataclass(frozen=True)
class Planes:
    """Finished planes of a tile: number of the tile, first plane, plane after the last, checksum of their values."""

    tile: int
    start: int
    stop: int
    crc32: int


def inference_tiles(run: Resolved, inference: Inference) -> tuple[list[Tile], int]:
    """Tiles of the planes, and their overlap."""
    crop = run.job.crop or CROP
    overlap = min(OVERLAP, crop // 4)
    _, height, width = run.source.volume.shape
    return tiles((height, width), crop, overlap, inference.network.config.multiple), overlap


def make_output(
    run: Resolved, inference: Inference, weights: Weights, watcher: Watcher
) -> tuple[VolumeStatistics, float | None]:
    """Denoise all tiles, put them together, write the result; returns what `_assemble` does."""
    folder = WorkFolder(run.item.output.with_name(run.item.output.name + ".partial"), Planes)
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
        with VolumeWriter.create(path, shape, None, np.float32, target=run.item.output):
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
        with VolumeWriter.open(path, shape, np.float32, target=run.item.output) as writer:
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
                    run.source.refuse_changed()
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
    """Blend the tiles into the output; planes without content, and borders of one value, are copied.

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

    def plane(z: int) -> NDArray[Any]:
        watcher.advance(1)
        original = survey.scale.levels(volume.read(z))
        if not survey.usable[z]:
            return original
        return np.where(filled_outside(original), original, survey.scale.undo(kept(z)))

    label = file_label(f"samba Lmax {run.gaps[1]} weights {weights.sha256[:12]}")
    statistics = write_result(run.target, volume, plane, label, run.job.overwrite)
    return statistics, low.sigma if low else None


def _kept_low(run: Resolved, before: Plane, after: Plane) -> KeptLow | None:
    """What puts the input's low frequencies back, if that is wanted and the volume large enough to tell which."""
    volume, usable = run.source.volume, run.source.survey.usable
    if not run.job.keep_low or min(volume.shape) < FEWEST_VOXELS:
        return None
    z, y, x = central(volume.shape, LONGEST)
    planes = [n for n in range(z.start, z.stop) if usable[n]]
    if len(planes) < FEWEST_VOXELS:
        return None
    pair = [np.stack([read(n)[y, x] for n in planes]) for read in (before, after)]
    sigma = sigma_px(crossover_per_px(*pair))
    return KeptLow(before, after, usable, sigma) if sigma else None
