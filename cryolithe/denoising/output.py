"""The denoised volume in the form of the input: same kind of file, type of values, voxel size, origin."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import OutputError
from cryolithe.formats import RunningStatistics, VolumeStatistics, VolumeWriter
from cryolithe.formats.files import (
    MRC_VOLUME_ENDINGS,
    all_or_none,
    check_ending,
    refuse_existing,
    replacing,
    unwritable,
)
from cryolithe.formats.leftovers import remove_leftovers, temporary_beside
from cryolithe.formats.stacks.mrc_header import MODES
from cryolithe.formats.volumes.int8 import Int8Scale
from cryolithe.formats.volumes.int8_files import known_scale_of
from cryolithe.formats.volumes.ome_zarr import version_of, write_ome_zarr
from cryolithe.formats.volumes.ome_zarr_reader import is_ome_zarr
from cryolithe.formats.volumes.tiff import ENDINGS, write_tiff
from cryolithe.formats.volumes.volume_file import Kind, VolumeFile
from cryolithe.formats.volumes.volume_kind import plain_name

Plane = Callable[[int], NDArray[Any]]
COMPRESSED = (".gz", ".bz2")
MOST_STEP = 0.2  # of whole numbers, in deviations of the result: rounding then has a variance of 0.3 % of its


@dataclass(frozen=True)
class Target:
    """Where and how the result is written.

    Attributes:
        path: file, or folder of a sequence.
        kind: of storage.
        dtype: of the values.
        note: what the user should know about it, or None.
        scale: what 8-bit values stand for, where the input tells: the result has its values.
    """

    path: Path
    kind: Kind
    dtype: np.dtype[Any]
    note: str | None = None
    scale: Int8Scale | None = None

    @property
    def scaling(self) -> dict[str, Any]:
        """What a record tells of the scale; empty without one."""
        return {"scaling": self.scale.told} if self.scale else {}

    def coarse(self, statistics: VolumeStatistics) -> str:
        """A line for the user where the steps of its values are large for what is written; else empty.

        Those of floating point are large beside a large constant.

        Args:
            statistics: of the values as stored.
        """
        whole = self.dtype.kind in "ui"
        step = 1.0 if whole else float(np.spacing(self.dtype.type(abs(statistics.mean))))
        if not 0 < MOST_STEP * statistics.rms < step:
            return ""
        told = f"whose steps are {step / statistics.rms:.2g} standard deviations of what is denoised"
        if whole:
            return (
                f"Note: {self.path.name} is {self.dtype.name} as its input is, {told}, which loses detail; give a "
                "volume of float32 (reconstruct --dtype float32; IMOD: newstack -mode 2), and so is the result"
            )
        told = f"{told} beside their mean of {statistics.mean:g}, which loses detail"
        if self.note:
            return (
                f"Note: {self.path.name} is {self.dtype.name}, {told}; give -o with a name that ends in .tif or .zarr"
            )
        return (
            f"Note: {self.path.name} is {self.dtype.name} as its input is, {told}; take the mean off where the volume "
            f"is made, before its values become {self.dtype.name}"
        )


def default_output(path: Path, suffix: str = "_samba") -> Path:
    """``tomo.mrc`` to ``tomo_samba.mrc``, ``tomo.zarr`` to ``tomo_samba.zarr``; a folder of planes to a folder."""
    if path.suffix.lower() == ".zarr" or is_ome_zarr(path):  # also of a volume that is still to be made
        return path.with_name(path.resolve().name.removesuffix(".zarr") + suffix + ".zarr")
    if path.is_dir():
        return path.with_name(path.resolve().name + suffix)
    name = plain_name(path)
    ending = name.suffix if name.suffix.lower() in (*MRC_VOLUME_ENDINGS, *ENDINGS) else ".mrc"
    return path.with_name(name.stem + suffix + ending)


def choose_target(volume: VolumeFile, path: Path) -> Target:
    """What the name of the output asks for: MRC, TIFF, OME-Zarr, or a folder of TIFF (no ending, for a sequence).

    The scale of 8-bit values is that of the input, where it is known.

    Raises:
        OutputError: if the name asks for a compressed file, or has an ending that says nothing.
    """
    ending, scale = path.suffix.lower(), known_scale_of(volume)
    if ending in COMPRESSED:
        raise OutputError(f"{path}: volumes are written uncompressed; give a name ending in .mrc with -o")
    if ending in ENDINGS:
        return Target(path, "tiff", volume.dtype, scale=scale)
    if volume.kind == "sequence" and not ending:
        return Target(path, "sequence", volume.dtype, scale=scale)
    if ending == ".zarr":
        return Target(path, "ome-zarr", volume.dtype, scale=scale)
    check_ending(path, MRC_VOLUME_ENDINGS, f"an MRC volume ({', '.join(ENDINGS)}: TIFF, .zarr: OME-Zarr)")
    if volume.dtype.str[1:] in MODES.values():
        return Target(path, "mrc", volume.dtype, scale=scale)
    wider = np.dtype(np.uint16 if volume.dtype == np.uint8 else np.float32)
    note = f"MRC files hold no {volume.dtype.name} values: the output is {wider.name}"
    return Target(path, "mrc", wider, note)


def as_type(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values in another type: rounded and clipped to the range of integers, clipped to that of narrower floats.

    Args:
        values: float32 or float64.
        dtype: of the result.
    """
    if dtype.kind in "ui":
        limits, held = np.iinfo(dtype), values.dtype.type
        # The largest float below 2^31 and the like is what survives the conversion.
        top = np.nextafter(held(limits.max), held(0)) if int(held(limits.max)) > limits.max else limits.max
        return np.clip(np.rint(values), limits.min, top).astype(dtype)
    if dtype.itemsize < values.dtype.itemsize:
        top = float(np.finfo(dtype).max)
        return np.clip(values, -top, top).astype(dtype)
    return values.astype(dtype)


def write_result(target: Target, volume: VolumeFile, planes: Plane, label: str, overwrite: bool) -> VolumeStatistics:
    """Write all planes; the output appears only when it is complete.

    Args:
        target: from `choose_target`.
        volume: the input, for shape, voxel size and origin.
        planes: grey levels of plane z, in rising order.
        label: of an MRC file.
        overwrite: replace an existing output.

    Returns:
        statistics of the values as stored.

    Raises:
        OutputError: if it cannot be written.
    """
    statistics = RunningStatistics()

    def stored(z: int) -> NDArray[Any]:
        values = as_type(planes(z), target.dtype)
        statistics.add(values)
        return values

    if target.kind == "sequence":
        _write_sequence(target, volume, stored, overwrite)
        return statistics.result()
    if target.kind == "ome-zarr":
        _write_zarr(target, volume, stored, overwrite)
        return statistics.result()
    with replacing(target.path, overwrite) as temporary:
        if target.kind == "tiff":
            write_tiff(temporary, stored, volume.shape, target.dtype, volume.voxel_size_angstrom)
            return statistics.result()
        size = volume.voxel_size_angstrom
        with VolumeWriter.create(temporary, volume.shape, size, target.dtype, target=target.path) as writer:
            for z in range(volume.shape[0]):
                writer.write_sections(z, stored(z)[None])
            labels = (label, target.scale.label) if target.scale else label  # the scale is read from the last one
            writer.finish(statistics.result(), labels, volume.voxel_sizes_angstrom, volume.origin_angstrom)
    return statistics.result()


def _write_zarr(target: Target, volume: VolumeFile, stored: Callable[[int], NDArray[Any]], overwrite: bool) -> None:
    """An OME-Zarr image: planes come one by one but chunks hold many, so that they wait in a file beside it."""
    refuse_existing(target.path, overwrite and is_ome_zarr(target.path))
    remove_leftovers(target.path)
    planes, made = temporary_beside(target.path, "planes"), temporary_beside(target.path)
    try:
        scratch = np.memmap(planes, dtype=target.dtype, mode="w+", shape=volume.shape)
        for z in range(volume.shape[0]):
            scratch[z] = stored(z)
        sizes = volume.voxel_sizes_angstrom if all(volume.voxel_sizes_angstrom) else volume.voxel_size_angstrom
        version, origin = version_of(volume.path), volume.origin_angstrom
        write_ome_zarr(made, scratch, sizes, target.path.stem, version=version, origin=origin)
        if target.path.exists():
            shutil.rmtree(target.path)
        made.replace(target.path)
    except OSError as error:
        raise unwritable(target.path, error) from error
    finally:
        planes.unlink(missing_ok=True)
        shutil.rmtree(made, ignore_errors=True)


def remove_result(path: Path, names: Sequence[str]) -> None:
    """Remove what was written, if it is there; from a folder of planes, beside which there may be other files, these.

    Args:
        path: a file or a folder.
        names: of the planes.
    """
    if path.is_file():
        path.unlink()
    elif is_ome_zarr(path):
        shutil.rmtree(path, ignore_errors=True)
    elif path.is_dir():
        for name in names:
            (path / name).unlink(missing_ok=True)
        with suppress(OSError):
            path.rmdir()


def _write_sequence(target: Target, volume: VolumeFile, stored: Callable[[int], NDArray[Any]], overwrite: bool) -> None:
    """A folder with files of the names that the input has."""
    new = not target.path.exists()
    try:
        target.path.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(target.path, error) from error
    try:
        with all_or_none(target.path / name for name in volume.names):
            for z, name in enumerate(volume.names):
                plane = stored(z)
                with replacing(target.path / name, overwrite) as file:
                    write_tiff(file, lambda _, p=plane: p, (1, *plane.shape), target.dtype, volume.voxel_size_angstrom)  # type: ignore[misc]
    except BaseException:
        if new:
            with suppress(OSError):
                target.path.rmdir()
        raise
