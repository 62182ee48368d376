"""A trained network applied to halves or a whole volume: tiles in bounded memory, put together, written."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from cryolithe.arrays.spectra import central
from cryolithe.denoising.guard import LONGEST
from cryolithe.denoising.method import Applied, Halves
from cryolithe.denoising.n2n.network import Denoiser, kind_of
from cryolithe.denoising.n2n.tiles import Runner, apply_gain, denoise_volume, plan_tiles, prepared
from cryolithe.denoising.n2n.view import N2nView
from cryolithe.denoising.output import write_result
from cryolithe.errors import InputError, ResourceError
from cryolithe.formats import VolumeStatistics
from cryolithe.formats.sizes import size_told
from cryolithe.machine.limits import group_limits
from cryolithe.optimise.distributed import Place
from cryolithe.work.label import file_label
from cryolithe.work.watcher import Watcher

Array = NDArray[np.float32]
_SHARE_OF_FREE = {"cpu": 0.4, "cuda": 0.7}
SCORED = 128  # voxels along an axis in which the halves are compared


def apply(view: N2nView, denoiser: Denoiser, overwrite: bool, place: Place, watcher: Watcher) -> Applied:
    """Denoise what is given, each half alone, and write the mean.

    Raises:
        CryoLitheError: if memory or disk do not suffice, or the result is not finite.
    """
    run, output = _runner(denoiser, place), view.item.output
    with _scratch(output, view.shape) as values:
        tiling = plan_tiles(view.shape, denoiser.config, _budget_bytes(place.device), _itemsize(place))
        watcher.stage("Denoising", tiling.count * len(view.halves))
        denoise_volume(run, [half.box for half in view.halves], tiling, values, lambda: watcher.advance(1))
        if not denoiser.gain.is_one:
            with _scratch(output, view.shape) as amplified:
                apply_gain(denoiser.gain, values, amplified)
                values[...] = amplified
        statistics = _write(view, denoiser, values, overwrite, watcher)
        part = central(view.shape, LONGEST)
        middle = view.mean_box(part), np.array(values[part])
    record = {"tiles": {"edges_zyx": tiling.edges, "count": tiling.count}, "gain": denoiser.gain.plain()}
    return Applied(statistics, middle, record)


def compared(view: N2nView, denoiser: Denoiser, place: Place) -> Halves:
    """The middle of both halves before, and after each was denoised alone."""
    run, middle = _runner(denoiser, place), central(view.shape, SCORED)
    raw = [half.box(middle) for half in view.halves]
    z, y, x = raw[0].shape
    tiling = plan_tiles((z, y, x), denoiser.config, _budget_bytes(place.device), _itemsize(place))
    new = [np.empty_like(values) for values in raw]
    for values, out in zip(raw, new, strict=True):
        denoise_volume(run, [lambda box, v=values: v[box]], tiling, out)  # type: ignore[misc]
        out[...] = denoiser.gain.apply(out)
    return raw[0], raw[1], new[0], new[1]


def scratch_bytes(view: N2nView) -> int:
    """Disk that the scratch of a denoising and its result take, at most."""
    return math.prod(view.shape) * (4 + max(4, view.target.dtype.itemsize))


def _runner(denoiser: Denoiser, place: Place) -> Runner:
    return Runner(prepared(denoiser.network, denoiser.config, place.device), place.device, place.precision)


def _write(view: N2nView, denoiser: Denoiser, values: Array, overwrite: bool, watcher: Watcher) -> VolumeStatistics:
    """The result in the form of the first half."""
    watcher.stage("Writing", view.shape[0])

    def plane(z: int) -> NDArray[Any]:
        watcher.advance(1)
        if not np.isfinite(values[z]).all():
            raise InputError(f"plane {z + 1} of the result is not finite; try --precision fp32")
        filled, levels = view.filled(z)
        if filled.any():  # what holds no data stays as it is; the guard looks at the values
            every = slice(None)
            values[z][filled] = view.mean_box((slice(z, z + 1), every, every))[0][filled]
        return np.where(filled, levels, view.undone(values[z]))

    label = file_label(f"n2n {kind_of(denoiser.config)} weights {denoiser.sha256[:12]}")
    return write_result(view.target, view.volume, plane, label, overwrite)


def _budget_bytes(device: torch.device) -> int:
    """Memory for one tile."""
    if device.type == "cuda":
        return int(_SHARE_OF_FREE["cuda"] * torch.cuda.mem_get_info(device)[0])
    free, group = int(psutil.virtual_memory().available), group_limits().free_bytes
    return int(_SHARE_OF_FREE["cpu"] * min(free, free if group is None else group))


def _itemsize(place: Place) -> int:
    """Bytes of a value inside a network, as far as memory goes: a CPU computes bf16 in float32 buffers."""
    return 2 if place.device.type == "cuda" and place.precision != torch.float32 else 4


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
            raise ResourceError(f"{output.parent}: cannot write {size_told(size)} of scratch: {error}") from error
        yield np.memmap(file, np.float32, "r+", shape=shape)
