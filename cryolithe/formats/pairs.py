"""Training pairs in HDF5: a tilt series and the volume that it should become, laid out for reading by rows.

    /images     (tilt, y, x) float16 or float32     the series as recorded (all frames), dense = dark
    /even /odd  the same, from half of the frames each; optional
    /clean      the same without noise; optional
    /truth      (z, y, x) float16 or float32        the target, dense = dark
    /labels     (z, y, x) uint16                    classes; 0 is ice; optional
    /angles_deg (tilt,) float64
    attributes  format, version, voxel_size_angstrom, origin (JSON text: recipe, seed, everything drawn)

Chunks hold all tilts (or all z) of a few rows: a run of rows is one contiguous read of each dataset.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cryolithe.arrays.narrow import common_value, narrowed
from cryolithe.errors import FileFormatError, GeometryError, InputError, OutputError
from cryolithe.formats.files import PathLike, input_size_bytes
from cryolithe.formats.hdf5_file import new_hdf5_file, open_hdf5, refuse_empty_chunks
from cryolithe.geometry import check_angles_deg

FORMAT, VERSION = "cryolithe-pair", 1
ROWS_PER_CHUNK = 8
MOST_ANGLES = 100_000
DENSITIES = ("images", "truth", "even", "odd", "clean")
OPTIONAL = ("even", "odd", "clean", "labels")
_MEND = "the file is damaged: copy it again, or make it anew"


@dataclass(frozen=True)
class Pair:
    """A tilt series with its target; arrays may be a `StoredArray` each, which reads only what is indexed.

    Attributes:
        images: shape ``(tilt, y, x)``.
        truth: shape ``(z, y, x)``, the y and x of the images.
        angles_deg: tilt angles in the order of the images.
        voxel_size_angstrom: pixel and voxel size.
        extras: any of even, odd, clean (like the images) and labels (like the truth).
        origin: plain values that tell where the pair comes from.

    Raises:
        InputError: if shapes, angles and voxel size do not fit each other.
    """

    images: NDArray[Any]
    truth: NDArray[Any]
    angles_deg: tuple[float, ...]
    voxel_size_angstrom: float
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_shapes(self)


class StoredArray:
    """An array in an open HDF5 file: what is indexed is read, and damage found then names the file.

    Checksums are tested when a chunk is read, which may be hours after the file was opened.

    Args:
        dataset: in an open file.
        path: of the file, for messages.
        name: of the array, for messages.
        densities: whether it holds greys, of which a constant may be taken off to keep their digits in float32.

    Raises:
        FileFormatError: if it holds no plain numbers, lacks chunks (HDF5 would give zeros for them), or has one
            without bytes (HDF5 would end the process).
    """

    def __init__(self, dataset: h5py.Dataset, path: Path, name: str, densities: bool = False) -> None:
        self._dataset, self._path, self._name = dataset, path, name
        self.shape: tuple[int, ...] = dataset.shape or ()
        self.dtype: np.dtype[Any] = dataset.dtype
        self._common: float | None = None if densities else 0.0  # None: not known yet
        if dataset.is_virtual or dataset.external:
            raise FileFormatError(f"{path}: '{self._name}' lies in other files, which are not read; {_MEND}")
        if self.dtype.kind not in "fiu":
            raise FileFormatError(f"{path}: '{self._name}' holds {self.dtype}, expected plain numbers; {_MEND}")
        if dataset.chunks is None:
            complete = dataset.id.get_storage_size() >= self.size * self.dtype.itemsize
        else:
            grid = (-(-size // chunk) for size, chunk in zip(self.shape, dataset.chunks, strict=True))
            complete = dataset.id.get_num_chunks() == math.prod(grid)
        refuse_empty_chunks(dataset, path)
        if not complete:
            raise FileFormatError(f"{path}: parts of '{self._name}' are lacking; {_MEND}")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        """Length along the first axis."""
        return self.shape[0]

    def __getitem__(self, place: Any) -> Any:
        """Read a part, as h5py would.

        Raises:
            FileFormatError: if it cannot be read.
        """
        try:
            if self._common is None:
                self._common = common_value(self._dataset, axis=1)
            values = self._dataset[place]
        except (OSError, RuntimeError, KeyError) as error:  # what h5py makes of HDF5's failures
            reason = " ".join(str(error).split())
            raise FileFormatError(f"{self._path}: '{self._name}' cannot be read ({reason}); {_MEND}") from error
        return narrowed(values, self._common) if self._common else values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all of it; raises FileFormatError as indexing does."""
        if copy is False:
            raise ValueError("an array in a file cannot be had without a copy")
        values: NDArray[Any] = self[()]
        return values if dtype is None else values.astype(dtype, copy=False)


def write_pair(path: PathLike, pair: Pair, overwrite: bool = False) -> None:
    """Write a pair; the file appears under its name only when it is complete.

    Raises:
        OutputError: if it exists and is not to be overwritten, or cannot be written.
    """
    arrays = {"images": pair.images, "truth": pair.truth, **pair.extras}
    needed = sum(values.size * values.dtype.itemsize for values in arrays.values())
    with new_hdf5_file(path, overwrite, needed) as file:
        for name, values in arrays.items():
            _add_array(file, name, values.shape, values.dtype)[...] = values
        _describe(file, pair.angles_deg, pair.voxel_size_angstrom, pair.origin)


def _add_array(file: h5py.File, name: str, shape: tuple[int, ...], dtype: Any) -> h5py.Dataset:
    """An empty array of a pair, in chunks of all tilts (or all z) of some rows."""
    chunk = (shape[0], min(ROWS_PER_CHUNK, shape[1]), shape[2])
    # Fletcher's checksum finds flipped bits; times are left out so that the same pair gives the same bytes.
    return file.create_dataset(name, shape, dtype, chunks=chunk, fletcher32=True, track_times=False)


def _describe(
    file: h5py.File, angles_deg: tuple[float, ...], voxel_size_angstrom: float, origin: dict[str, Any]
) -> None:
    """Write what is no image and no volume."""
    file.create_dataset("angles_deg", data=np.asarray(angles_deg, dtype=np.float64), track_times=False)
    file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
    file.attrs["voxel_size_angstrom"] = voxel_size_angstrom
    file.attrs["origin"] = json.dumps(origin, sort_keys=True)


@dataclass(frozen=True)
class PairLayout:
    """What a pair will hold, before its arrays are there; for `pair_writer`.

    Attributes:
        arrays: name -> shape and dtype of each array; images and truth are required.
        angles_deg: tilt angles in the order of the images.
        voxel_size_angstrom: pixel and voxel size.
        origin: plain values that tell where the pair comes from.
    """

    arrays: dict[str, tuple[tuple[int, int, int], str]]
    angles_deg: tuple[float, ...]
    voxel_size_angstrom: float
    origin: dict[str, Any] = field(default_factory=dict)


class RowSink:
    """Takes the arrays of a pair row by row; from `pair_writer`."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self._next = {name: 0 for name in file if name != "angles_deg"}

    def write_rows(self, name: str, block: NDArray[Any]) -> None:
        """Append rows to an array.

        Args:
            name: of the array.
            block: shape ``(tilt or z, rows, x)``; whole chunks of `ROWS_PER_CHUNK` rows are quickest.

        Raises:
            InputError: if the array is unknown or the block does not fit.
        """
        if name not in self._next:
            raise InputError(f"the pair has no array '{name}'; its layout names {', '.join(self._next)}")
        dataset, first = self._file[name], self._next[name]
        end = first + block.shape[1]
        if block.ndim != 3 or block.shape[::2] != dataset.shape[::2] or end > dataset.shape[1]:
            raise InputError(f"rows of shape {block.shape} from row {first} do not fit '{name}' of {dataset.shape}")
        dataset[:, first:end] = block
        self._next[name] = end

    def unfinished(self) -> list[str]:
        """Names of arrays that lack rows."""
        return [name for name, rows in self._next.items() if rows < self._file[name].shape[1]]


@contextmanager
def pair_writer(path: PathLike, layout: PairLayout, overwrite: bool = False) -> Iterator[RowSink]:
    """Write a pair by rows, which need not fit into memory together.

    The file appears under its name when the context ends without an error; it is then the same as `write_pair`'s.

    Raises:
        InputError: if the parts of the layout disagree.
        OutputError: if the file exists and is not to be overwritten, cannot be written, or lacks rows at the end.
    """
    shapes = {name: np.broadcast_to(np.empty((), dtype), shape) for name, (shape, dtype) in layout.arrays.items()}
    extras = {name: values for name, values in shapes.items() if name not in ("images", "truth")}
    Pair(shapes["images"], shapes["truth"], layout.angles_deg, layout.voxel_size_angstrom, extras)
    needed = sum(values.size * values.dtype.itemsize for values in shapes.values())
    with new_hdf5_file(path, overwrite, needed) as file:
        for name, (shape, dtype) in layout.arrays.items():
            _add_array(file, name, shape, dtype)
        _describe(file, layout.angles_deg, layout.voxel_size_angstrom, layout.origin)
        sink = RowSink(file)
        yield sink
        if lacking := sink.unfinished():
            raise OutputError(f"{path} was not written: rows of {', '.join(lacking)} are lacking")


@contextmanager
def open_pair(path: PathLike) -> Iterator[Pair]:
    """Open a pair for as long as the context lasts; its arrays read from the file when they are indexed.

    Raises:
        InputError: if the file is missing or empty.
        FileFormatError: if it is not such a file, or its parts disagree; says which. Likewise later, when an array
            is indexed, if it cannot be read (`StoredArray`).
    """
    path = Path(path)
    input_size_bytes(path)
    try:
        file = open_hdf5(path)
    except OSError as error:
        raise FileFormatError(f"{path} is not an HDF5 file, or is truncated: {error}") from error
    with file:
        try:
            if file.attrs.get("format") != FORMAT or file.attrs.get("version", 0) != VERSION:
                raise FileFormatError(
                    f"{path} is not a training pair: expected the attributes format={FORMAT}, version={VERSION}"
                )
            for name in ("images", "truth", "angles_deg"):
                if not isinstance(file.get(name), h5py.Dataset):
                    raise FileFormatError(f"{path} lacks the dataset '{name}'")
            pair = Pair(
                images=_stored(file, "images", path),
                truth=_stored(file, "truth", path),
                angles_deg=_angles_deg(file, path),
                voxel_size_angstrom=float(file.attrs["voxel_size_angstrom"]),
                extras={name: _stored(file, name, path) for name in OPTIONAL if name in file},
                origin=json.loads(file.attrs.get("origin", "{}")),
            )
        # What is damaged inside HDF5 shows as any of these.
        except (OSError, KeyError, ValueError, ArithmeticError, TypeError, AttributeError, RuntimeError) as error:
            raise FileFormatError(f"{path} is a damaged training pair: {error}") from error
        except FileFormatError:
            raise
        except InputError as error:
            raise FileFormatError(f"{path}: {error}") from error
        yield pair


def _stored(file: h5py.File, name: str, path: Path) -> Any:
    """An array of an open file; stands for an ndarray wherever parts of one are read."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise FileFormatError(f"{path}: '{name}' is a link to elsewhere, which is not followed; {_MEND}")
    return StoredArray(file[name], path, name, name in DENSITIES)


def _angles_deg(file: h5py.File, path: Path) -> tuple[float, ...]:
    stored = _stored(file, "angles_deg", path)
    if stored.ndim != 1 or stored.size > MOST_ANGLES:
        raise FileFormatError(f"{path}: 'angles_deg' has the shape {stored.shape}, expected one angle for each image")
    angles = tuple(float(angle) for angle in stored[()])
    try:
        check_angles_deg(angles)
    except GeometryError as error:
        raise FileFormatError(f"{path}: 'angles_deg': {error}") from error
    return angles


def _check_shapes(pair: Pair) -> None:
    images, truth = pair.images, pair.truth
    if len(images.shape) != 3 or len(truth.shape) != 3:
        raise InputError(f"images and truth of a pair have three axes, got {images.shape} and {truth.shape}")
    if images.shape[0] != len(pair.angles_deg):
        raise InputError(f"a pair has one angle for each image, got {len(pair.angles_deg)} for {images.shape[0]}")
    if images.shape[1:] != truth.shape[1:]:
        raise InputError(f"images of {images.shape[1:]} (y, x) do not fit a target of {truth.shape[1:]}")
    if not 0 < pair.voxel_size_angstrom < math.inf:
        raise InputError(f"the voxel size of a pair must be positive, got {pair.voxel_size_angstrom} Å")
    for name, values in pair.extras.items():
        wanted = truth.shape if name == "labels" else images.shape
        if name not in OPTIONAL or values.shape != wanted:
            raise InputError(f"'{name}' of a pair has shape {values.shape}, expected {wanted}")
