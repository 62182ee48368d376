"""Several Lmax side by side, to choose from (published figure S1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolithe.denoising.figures import plot_sweep
from cryolithe.denoising.samba.blocks import Source
from cryolithe.denoising.samba.inference import Inference
from cryolithe.denoising.samba.job import Resolved
from cryolithe.denoising.samba.tiles import Span, Tile
from cryolithe.formats.record import read_record_beside
from cryolithe.work.watcher import Watcher

CROP, PLANES = 256, 16
STRIP, DEPTH = 32, 128  # rows denoised for a section along z, and its planes
SHOWN = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24)


def central_tile(source: Source, longest: int | tuple[int, int], multiple: int) -> Tile:
    """A tile in the middle of the planes, no longer than this (along y and x)."""
    sides = []
    limits = (longest, longest) if isinstance(longest, int) else longest
    for size, longest in zip(source.volume.shape[1:], limits, strict=True):
        length = max(multiple, min(longest, size) // multiple * multiple)
        sides.append(Span(max(0, (size - length) // 2), length, size))
    return sides[0], sides[1]


def sweep(run: Resolved, inference: Inference, path: Path, watcher: Watcher) -> None:
    """Denoise the middle of a few planes with several Lmax, and draw them with their Fourier transforms.

    Args:
        run: the volume.
        inference: with the largest gap to look at.
        path: figure to write.
        watcher: is told.
    """
    source = run.source
    tile = central_tile(source, CROP, inference.network.config.multiple)
    usable = [int(z) for z in np.flatnonzero(source.survey.usable)]
    middle = usable[len(usable) // 2]
    wanted = sorted({gap for gap in SHOWN if gap < inference.largest_gap} | {inference.largest_gap})
    planes = [z for z in usable if middle - PLANES // 2 <= z < middle + PLANES // 2]
    # Planes near the ends have fewer gaps.
    planes = [z for z in planes if usable[0] + wanted[-1] <= z <= usable[-1] - wanted[-1]] or [middle]

    def read(z: int) -> NDArray[np.float32]:
        return source.window(z, tile)

    watcher.stage("Trying several Lmax", len(planes))
    shown: list[NDArray[np.float32]] = []
    power = np.zeros((len(wanted) + 1, tile[0].length, tile[1].length))
    for z in planes:
        versions = [read(z), *inference.running_means(read, z, wanted)]
        power += np.stack([_magnitude(version) for version in versions])
        if z == middle:
            shown = versions
        watcher.advance(1)
    sections = _sections(source, inference, wanted, watcher)
    titles = ["input", *(f"Lmax {gap}" for gap in wanted)]
    size = run.voxel_size_angstrom
    transforms = list(np.log10(power / len(planes) + 1e-12))
    contrast = read_record_beside(run.volume.path).get("volume", {}).get("contrast")
    plot_sweep(path, list(zip(titles, shown, strict=True)), transforms, size, sections, contrast)


def _sections(source: Source, inference: Inference, wanted: list[int], watcher: Watcher) -> list[NDArray[np.float32]]:
    """The middle of the volume along z: the input, and each Lmax; shape ``(z, x)``."""
    tile = central_tile(source, (STRIP, CROP), inference.network.config.multiple)
    depth = source.volume.shape[0]
    start = max(0, (depth - DEPTH) // 2)
    stop, row = min(depth, start + DEPTH), tile[0].length // 2
    watcher.stage("Trying them along z", stop - start)

    def read(z: int) -> NDArray[np.float32]:
        return source.window(z, tile)

    lines: list[list[NDArray[np.float32]]] = [[] for _ in range(len(wanted) + 1)]
    for z, versions in enumerate(inference.several(read, start, stop, wanted), start):
        given = read(z)
        for line, version in zip(lines, [given, *(versions or [given] * len(wanted))], strict=True):
            line.append(version[row])
        watcher.advance(1)
    return [np.stack(line) for line in lines]


def _magnitude(plane: NDArray[np.float32]) -> NDArray[np.float64]:
    """Magnitude of the Fourier transform, zero frequency in the middle, borders tapered."""
    taper = np.hanning(plane.shape[0])[:, None] * np.hanning(plane.shape[1])
    magnitude: NDArray[np.float64] = np.fft.fftshift(np.abs(np.fft.fft2((plane - plane.mean()) * taper)))
    return magnitude
