"""Two half volumes: their average, written section by section, and a map of where they agree, block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.narrow import common_value, narrowed
from cryolithe.evaluation.local import Agreement, agreement_slabs, summarise, window_sigma_px
from cryolithe.formats import RunningStatistics, VolumeWriter, read_volume
from cryolithe.formats.files import replacing
from cryolithe.formats.volumes.int8 import Int8Values, int8_scale
from cryolithe.formats.volumes.int8_files import scale_of
from cryolithe.formats.volumes.volume_file import VolumeFile, open_volume_file, refuse_stack
from cryolithe.volume import Volume

# Spread of the values of one half over that of the other: three frames against two are at most 1.22 times as noisy, or
# 1.5 times as large where they are sums.
MOST_SPREAD_RATIO = 1.6
_SECTIONS = 16


@dataclass(frozen=True)
class HalfVolume:
    """A volume on disk and what its stored values stand for.

    Attributes:
        volume: voxels as stored.
        offset: density of the value 0.
        step: density of the value 1, less ``offset``.
        note: what was assumed of the scale, or taken off; empty for nothing.
        common: taken off the values as stored, see `common_value`.
    """

    volume: Volume
    offset: float = 0.0
    step: float = 1.0
    note: str = ""
    common: float = 0.0

    def density(self, z: int) -> NDArray[np.float32]:
        """A section."""
        stored = np.asarray(narrowed(self.volume.voxels[z], self.common), dtype=np.float32)
        return stored * np.float32(self.step) + np.float32(self.offset)


def open_half(path: Path) -> HalfVolume:
    """A volume as it is stored, in whatever order of axes, with the scale of its 8-bit values, which its record tells.

    Raises:
        InputError: if it cannot be read, or has a record that does not say how it is scaled.
    """
    found = open_volume_file(path)
    refuse_stack(found)
    return half_of(found)


def half_of(found: VolumeFile) -> HalfVolume:
    """A volume that is open, as it is stored, with the scale of its 8-bit values, which its record or its label tells.

    Those of other programs have neither: their values are taken as they are.

    Raises:
        InputError: if it has a record that does not say how it is scaled.
    """
    volume = Volume(found.voxels(), found.voxel_size_angstrom, found.origin_angstrom)
    scale = scale_of(found)
    if scale is not None:
        return HalfVolume(volume, scale.offset, scale.step)
    if common := common_value(volume.voxels):
        note = (
            f"{common:g} is taken off all voxels of {found.path.name}: beside it float32 keeps little of what varies."
        )
        return HalfVolume(volume, note=note, common=common)
    foreign = f"{found.path.name} holds 8-bit values, which are taken as they are."
    return HalfVolume(volume, note=foreign if found.dtype == np.int8 else "")


def doubt_about_scales(halves: tuple[HalfVolume, HalfVolume], names: tuple[str, str]) -> tuple[str, ...]:
    """What speaks against an average of two halves: one is so much larger that it is that half.

    Args:
        halves: as they are opened.
        names: for messages.
    """
    widths = [_width(half) for half in halves]
    if min(widths) <= 0:
        return ()
    ratio = widths[0] / widths[1]
    if 1 / MOST_SPREAD_RATIO <= ratio <= MOST_SPREAD_RATIO:
        return ()
    large, small, times = (0, 1, ratio) if ratio > 1 else (1, 0, 1 / ratio)
    told = f"{times:,.0f}" if times > 10 else f"{times:.1f}"
    return (
        f"the halves are not scaled alike: values of {names[large]} spread {told} times as far as those of "
        f"{names[small]}, so that their average shows the first more than the second; scale both alike",
    )


def _width(half: HalfVolume) -> float:
    """Spread of the densities of some sections; beads and filled borders do not matter."""
    depth = len(half.volume.voxels)
    numbers = sorted({int(z) for z in np.linspace(depth / 4, 3 * depth / 4, _SECTIONS)})
    low, high = np.percentile(np.stack([half.density(z) for z in numbers]), (16, 84))
    return float(high - low) / 2


def write_average(
    halves: tuple[HalfVolume, HalfVolume], path: Path, label: str, overwrite: bool
) -> tuple[dict[str, Any], str]:
    """Write the mean of the densities of two halves, section by section.

    Of 8-bit values it is scaled anew, of two halves of float16 it is float16, else float32: the mean of whole numbers
    is none.

    Returns:
        what a record tells of its scaling, as that of a reconstruction does, empty for floating point; and what to tell
        of voxels that were cut off.

    Raises:
        OutputError: if it cannot be written.
    """
    first, second = halves
    voxels = first.volume.voxels

    def mean(z: int) -> NDArray[np.float32]:
        return (first.density(z) + second.density(z)) / np.float32(2)

    int8, labels = None, [label]
    kept = voxels.dtype == second.volume.voxels.dtype and voxels.dtype in (np.int8, np.float16)
    dtype = voxels.dtype if kept else np.dtype(np.float32)
    if dtype == np.int8:
        seen = RunningStatistics()
        for z in range(len(voxels)):
            seen.add(mean(z))
        int8 = Int8Values(int8_scale(seen.result()))
        labels.append(int8.scale.label)

    stored: Callable[[int], NDArray[Any]] = (lambda z: int8(mean(z))) if int8 else mean
    with replacing(path, overwrite) as temporary:
        _write_sections(stored, first.volume, dtype, labels, (temporary, path))
    return (int8.record, int8.note(path.name)) if int8 else ({}, "")


def write_densities(half: HalfVolume, path: Path, labels: Sequence[str]) -> None:
    """Write the densities of a volume as float32, section by section; replaces a file.

    Args:
        half: the volume.
        path: of the copy.
        labels: of its header.

    Raises:
        OutputError: if it cannot be written.
    """
    with replacing(path, overwrite=True) as temporary:
        _write_sections(half.density, half.volume, np.dtype(np.float32), labels, (temporary, path))


def _write_sections(
    section: Callable[[int], NDArray[Any]],
    like: Volume,
    dtype: np.dtype[Any],
    labels: Sequence[str],
    paths: tuple[Path, Path],
) -> None:
    """Write sections ``(y, x)`` of a volume that is like another but for its values.

    Args:
        section: the values of one.
        like: of the same shape, voxel size and origin.
        dtype: of the values in the file.
        labels: of its header.
        paths: where it is written, and what to call it in messages.
    """
    depth, height, width = like.voxels.shape
    size, running = like.voxel_size_angstrom, RunningStatistics()
    with VolumeWriter.create(paths[0], (depth, height, width), size, dtype, target=paths[1]) as writer:
        for z in range(depth):
            values = writer.cast(section(z))
            running.add(values)
            writer.write_sections(z, values[None])
        writer.finish(running.result(), tuple(labels), size, like.origin_angstrom)


def write_agreement(
    halves: tuple[HalfVolume, HalfVolume], path: Path, label: str, overwrite: bool, memory_bytes: int | None = None
) -> Agreement:
    """Write the map of `cryolithe.evaluation.local.agreement_map` slab by slab; scale and offset do not matter to it.

    Args:
        halves: the volumes.
        path: of the map.
        label: of its header.
        overwrite: replace an existing file.
        memory_bytes: to use, about.

    Returns:
        the map's summary.

    Raises:
        OutputError: if it cannot be written.
    """
    a, b = (half.volume for half in halves)
    shape, size = a.grid.shape, a.voxel_size_angstrom
    sigma = window_sigma_px(a.voxels.shape)
    running = RunningStatistics()
    with (
        replacing(path, overwrite) as temporary,
        VolumeWriter.create(temporary, shape, size, np.float32, target=path) as writer,
    ):
        for start, slab in agreement_slabs(a.voxels, b.voxels, sigma, memory_bytes):
            running.add(slab)
            writer.write_sections(start, slab)
        writer.finish(running.result(), label, size, a.origin_angstrom)
    return summarise(read_volume(path).voxels, sigma)


def spectra_bytes(shape: tuple[int, ...]) -> int:
    """Memory of the two half spectra of a Fourier shell correlation."""
    return 2 * 8 * shape[0] * shape[1] * (shape[2] // 2 + 1)
