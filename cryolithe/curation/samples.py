"""Candidates read at small size: streamed, averaged over cubes, with what is needed to judge them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.curation.arrays import oriented
from cryolithe.curation.candidates import Candidate, Collection
from cryolithe.curation.check import OpenedPair, image_on_field, open_files, planes_on_field
from cryolithe.curation.manifest import Manifest
from cryolithe.errors import CryoLitheError, InputError
from cryolithe.files.names import is_file
from cryolithe.formats import MrcArray, read_angles_deg
from cryolithe.formats.pairs import Pair, open_pair
from cryolithe.formats.volumes.axes import Axes
from cryolithe.formats.volumes.volume_file import VolumeFile, open_volume_file, refuse_stack, upright
from cryolithe.formats.volumes.volume_kind import refuse_map
from cryolithe.projector.classical import fbp_of_images

LARGEST_PX = 160  # of an edge after averaging
FEWEST_PX = 8  # of an edge: nothing can be said about less
BLOCK_BYTES = 2**26

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """A candidate at small size.

    Attributes:
        volume: shape ``(z, y, x)``; values that were not finite are replaced by the mean of their neighbours or 0.
        halves: the even and the odd half, the shape of ``volume``, or None.
        shape: of the file, ``(z, y, x)``.
        voxel_size_angstrom: of the file, or None where it does not say.
        factor: voxels of the file along an edge of one of ``volume``.
        tilt_range_deg: lowest and highest tilt, or None where nobody says.
        nonfinite: values of the file that are NaN or infinite.
        origin: what an HDF5 pair says about where it comes from.
        nonfinite_images: the same of the images of an HDF5 pair, and of those that halves are made of.
        turned: whether the file's axes are those of --orientation xzy.
    """

    volume: Float32
    halves: tuple[Float32, Float32] | None
    shape: tuple[int, int, int]
    voxel_size_angstrom: float | None
    factor: int
    tilt_range_deg: tuple[float, float] | None
    nonfinite: int
    origin: dict[str, Any]
    nonfinite_images: int = 0
    turned: bool = False

    @property
    def sample_angstrom(self) -> float | None:
        """Edge of a voxel of ``volume``."""
        return None if self.voxel_size_angstrom is None else self.voxel_size_angstrom * self.factor


def read_sample(collection: Collection, candidate: Candidate) -> Sample:
    """Read a candidate; memory stays within some blocks of `BLOCK_BYTES` and arrays of `LARGEST_PX` along an edge.

    Raises:
        CryoLitheError: if a file is missing, damaged or too small, or halves do not fit.
    """
    if candidate.kind == "pair":
        return _of_pair(collection.folder / candidate.path)
    if candidate.kind == "entry":
        assert collection.manifest is not None
        return _of_entry(collection.manifest, candidate.name, collection.folder)
    return _of_tomogram(collection.folder, candidate)


def reduction(shape: tuple[int, ...]) -> int:
    """How many voxels become one, so that no edge has more than `LARGEST_PX`.

    Raises:
        InputError: if too little would be left.
    """
    factor = max(1, math.ceil(max(shape) / LARGEST_PX))
    if min(shape) // factor < FEWEST_PX:
        raise InputError(
            f"a volume of {' x '.join(map(str, shape))} (z, y, x) averaged by {factor} leaves less than {FEWEST_PX} "
            "voxels along an axis; is this a tomogram?"
        )
    return factor


def averaged(data: NDArray[Any], factor: int, axis: int = 0, keep_axis: bool = False) -> tuple[Float32, int]:
    """Average an array ``(a, y, x)`` over cubes of ``factor``, a block of ``axis`` at a time.

    Voxels that fill no cube are left out, equally at both ends.

    Args:
        data: may be a memory map or an HDF5 dataset.
        factor: edge of the cubes.
        axis: 0 or 1: along which it lies in blocks on disk.
        keep_axis: leave axis 0 (tilts) as it is.

    Returns:
        the averages, and how many values were not finite; those are left out of their averages.
    """
    factors = (1 if keep_axis else factor, factor, factor)
    starts = [(n - n // f * f) // 2 for n, f in zip(data.shape, factors, strict=True)]
    counts = [n // f for n, f in zip(data.shape, factors, strict=True)]
    out = np.empty(counts, dtype=np.float32)
    others = math.prod(n for a, n in enumerate(data.shape) if a != axis)
    step = max(1, BLOCK_BYTES // (4 * others * factors[axis]))
    bad = 0
    for first in range(0, counts[axis], step):
        last = min(first + step, counts[axis])
        part = [slice(s, s + c * f) for s, c, f in zip(starts, counts, factors, strict=True)]
        part[axis] = slice(starts[axis] + first * factors[axis], starts[axis] + last * factors[axis])
        block = np.asarray(data[tuple(part)], dtype=np.float32)
        target: list[slice] = [slice(None)] * 3
        target[axis] = slice(first, last)
        out[tuple(target)], lost = _cube_means(block, factors)
        bad += lost
    return out, bad


def _cube_means(block: Float32, factors: tuple[int, int, int]) -> tuple[Float32, int]:
    """Means over cubes; values that are not finite do not count, and cubes of nothing else become 0."""
    (a, y, x), (fa, fy, fx) = block.shape, factors
    shape, axes = (a // fa, fa, y // fy, fy, x // fx, fx), (1, 3, 5)
    finite = np.isfinite(block)
    bad = block.size - int(np.count_nonzero(finite))
    if not bad:
        return block.reshape(shape).mean(axis=axes), 0
    sums = np.where(finite, block, 0).reshape(shape).sum(axis=axes)
    return sums / np.maximum(finite.reshape(shape).sum(axis=axes), 1), bad


def _of_pair(path: Path) -> Sample:
    with open_pair(path) as pair:
        shape = _three(pair.truth.shape)
        factor = reduction(shape)
        # Chunks hold all z of some rows: reading by rows reads each of them once.
        volume, bad = averaged(pair.truth, factor, axis=1)
        stacks = [pair.images, *(pair.extras[name] for name in ("even", "odd") if name in pair.extras)]
        return Sample(
            volume,
            _halves_of_pair(pair, factor, len(volume)),
            shape,
            pair.voxel_size_angstrom,
            factor,
            _range(pair.angles_deg),
            bad,
            pair.origin,
            sum(map(_count_nonfinite, stacks)),
        )


def _count_nonfinite(images: Any) -> int:
    """Values of a stack ``(tilt, y, x)`` that are NaN or infinite; read by rows, as its chunks lie."""
    if images.dtype.kind != "f":
        return 0
    tilts, rows, width = images.shape
    step = max(1, BLOCK_BYTES // (4 * tilts * width))
    blocks = (np.asarray(images[:, first : first + step]) for first in range(0, rows, step))
    return sum(block.size - int(np.count_nonzero(np.isfinite(block))) for block in blocks)


def _halves_of_pair(pair: Pair, factor: int, depth: int) -> tuple[Float32, Float32] | None:
    if not {"even", "odd"} <= pair.extras.keys():
        return None
    even, odd = (
        fbp_of_images(averaged(pair.extras[name], factor, axis=1, keep_axis=True)[0], pair.angles_deg, depth)
        for name in ("even", "odd")
    )
    return even, odd


def _of_entry(manifest: Manifest, name: str, folder: Path) -> Sample:
    (pair,) = manifest.select((name,))
    paths = [folder / path for path in manifest.paths(pair).values()]
    if missing := [path for path in paths if not is_file(path)]:
        raise InputError(f"{len(missing)} of {len(paths)} files are missing, the first: {missing[0]}")
    opened = open_files(manifest, pair, folder)
    field = opened.field
    factor = reduction(field.shape)
    stored = oriented(opened.target.data, manifest)
    volume, bad = _plane_means(planes_on_field(stored, len(stored), manifest, field), field.shape, factor)
    angles = tuple(opened.angles_deg[n] for n in opened.kept)
    halves, lost = None, 0
    if {"even", "odd"} <= opened.stacks.keys():
        read = [_images_of(opened, opened.stacks[role], manifest, factor) for role in ("even", "odd")]
        even, odd = (fbp_of_images(images, angles, len(volume)) for images, _ in read)
        halves, lost = (even, odd), sum(count for _, count in read)
    return Sample(volume, halves, field.shape, manifest.voxel_size_angstrom, factor, _range(angles), bad, {}, lost)


def _images_of(opened: OpenedPair, stack: MrcArray, manifest: Manifest, factor: int) -> tuple[Float32, int]:
    images = (image_on_field(stack.data[n], manifest, opened.field) for n in opened.kept)
    small = [averaged(image[None], factor, keep_axis=True) for image in images]
    return np.stack([image[0] for image, _ in small]), sum(lost for _, lost in small)


def _plane_means(planes: Iterable[Float32], shape: tuple[int, int, int], factor: int) -> tuple[Float32, int]:
    """`averaged` of planes as they come."""
    start, count = (shape[0] % factor) // 2, shape[0] // factor
    rows, bad = [], 0
    for group in _groups(planes, start, count, factor):
        mean, lost = averaged(group, factor)
        rows.append(mean[0])
        bad += lost
    return np.stack(rows), bad


def _groups(planes: Iterable[Float32], start: int, count: int, factor: int) -> Iterator[Float32]:
    group: list[Float32] = []
    for number, plane in enumerate(planes):
        if start <= number < start + count * factor:
            group.append(plane)
        if len(group) == factor:
            yield np.stack(group)
            group = []


def _of_tomogram(folder: Path, candidate: Candidate) -> Sample:
    stored, whole = _open_tomogram(folder / candidate.path)
    shape = whole.shape
    factor = reduction(shape)
    volume, bad = averaged(whole.voxels(), factor)
    halves = None
    if candidate.halves:
        read = []
        for path in candidate.halves:
            _, opened = _open_tomogram(folder / path)
            if opened.shape != shape:
                raise InputError(
                    f"{folder / path} has the shape {opened.shape}, expected that of {candidate.path}, {shape}"
                )
            half, lost = averaged(opened.voxels(), factor)
            read.append(half)
            bad += lost
        halves = (read[0], read[1])
        if candidate.path in candidate.halves:  # there is no tomogram of all frames
            volume = np.asarray((read[0] + read[1]) / 2, dtype=np.float32)
    angles = _angles_beside(folder / candidate.path, candidate.name)
    return Sample(
        volume, halves, shape, whole.voxel_size_angstrom, factor, _range(angles), bad, {}, turned=stored != "zyx"
    )


def _open_tomogram(path: Path) -> tuple[Axes, VolumeFile]:
    """A tomogram with its axes as z, y, x, and as which they are stored.

    Raises:
        InputError: if it is a stack of images, or a map of trust, or cannot be read.
    """
    found = open_volume_file(path)
    refuse_stack(found)
    refuse_map(path, found.labels)
    return found.axes, upright(found)


def _angles_beside(path: Path, name: str) -> tuple[float, ...]:
    """Angles in a file named like the tomogram; none if there is none that can be read."""
    for stem in (path.stem, name, path.stem.removesuffix("_rec")):
        for suffix in (".tlt", ".rawtlt"):
            beside = path.with_name(stem + suffix)
            if is_file(beside):
                try:
                    return read_angles_deg(beside)
                except CryoLitheError:
                    return ()
    return ()


def _range(angles_deg: tuple[float, ...]) -> tuple[float, float] | None:
    if len(angles_deg) < 2 or min(angles_deg) == max(angles_deg):
        return None
    return max(-90.0, min(angles_deg)), min(90.0, max(angles_deg))


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], shape[1], shape[2]
