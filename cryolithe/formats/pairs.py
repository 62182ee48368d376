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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.files import PathLike, input_size_bytes, replacing

FORMAT, VERSION = "cryolithe-pair", 1
ROWS_PER_CHUNK = 8
OPTIONAL = ("even", "odd", "clean", "labels")


@dataclass(frozen=True)
class Pair:
    """A tilt series with its target; arrays may be h5py datasets, which read only what is indexed.

    Attributes:
        images: shape ``(tilt, y, x)``.
        truth: shape ``(z, y, x)``, the y and x of the images.
        angles_deg: tilt angles in the order of the images.
        voxel_size_angstrom: pixel and voxel size.
        extras: any of even, odd, clean (like the images) and labels (like the truth).
        origin: plain values that tell where the pair comes from.
    """

    images: NDArray[Any]
    truth: NDArray[Any]
    angles_deg: tuple[float, ...]
    voxel_size_angstrom: float
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_shapes(self)


def write_pair(path: PathLike, pair: Pair, overwrite: bool = False) -> None:
    """Write a pair; the file appears under its name only when it is complete.

    Raises:
        OutputError: if it exists and is not to be overwritten, or cannot be written.
    """
    arrays = {"images": pair.images, "truth": pair.truth, **pair.extras}
    with replacing(path, overwrite) as temporary, h5py.File(temporary, "w", track_order=True) as file:
        for name, values in arrays.items():
            chunk = (values.shape[0], min(ROWS_PER_CHUNK, values.shape[1]), values.shape[2])
            # Fletcher's checksum finds flipped bits; times are left out so that the same pair gives the same bytes.
            file.create_dataset(name, data=values, chunks=chunk, fletcher32=True, track_times=False)
        file.create_dataset("angles_deg", data=np.asarray(pair.angles_deg, dtype=np.float64), track_times=False)
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        file.attrs["voxel_size_angstrom"] = pair.voxel_size_angstrom
        file.attrs["origin"] = json.dumps(pair.origin, sort_keys=True)


@contextmanager
def open_pair(path: PathLike) -> Iterator[Pair]:
    """Open a pair for as long as the context lasts; its arrays read from the file when they are indexed.

    Raises:
        InputError: if the file is missing or empty.
        FileFormatError: if it is not such a file, or its parts disagree; says which.
    """
    path = Path(path)
    input_size_bytes(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FileFormatError(f"{path} is not an HDF5 file, or is truncated: {error}") from error
    with file:
        if file.attrs.get("format") != FORMAT or int(file.attrs.get("version", 0)) != VERSION:
            raise FileFormatError(f"{path} is not a training pair: expected the attributes format={FORMAT}, version=1")
        for name in ("images", "truth", "angles_deg"):
            if not isinstance(file.get(name), h5py.Dataset):
                raise FileFormatError(f"{path} lacks the dataset '{name}'")
        try:
            pair = Pair(
                images=file["images"],
                truth=file["truth"],
                angles_deg=tuple(float(a) for a in file["angles_deg"][()]),
                voxel_size_angstrom=float(file.attrs["voxel_size_angstrom"]),
                extras={name: file[name] for name in OPTIONAL if name in file},
                origin=json.loads(file.attrs.get("origin", "{}")),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise FileFormatError(f"{path} is a damaged training pair: {error}") from error
        except InputError as error:
            raise FileFormatError(f"{path}: {error}") from error
        yield pair


def _check_shapes(pair: Pair) -> None:
    images, truth = pair.images, pair.truth
    if len(images.shape) != 3 or len(truth.shape) != 3:
        raise InputError(f"images and truth of a pair have three axes, got {images.shape} and {truth.shape}")
    if images.shape[0] != len(pair.angles_deg):
        raise InputError(f"a pair has one angle for each image, got {len(pair.angles_deg)} for {images.shape[0]}")
    if images.shape[1:] != truth.shape[1:]:
        raise InputError(f"images of {images.shape[1:]} (y, x) do not fit a target of {truth.shape[1:]}")
    if not pair.voxel_size_angstrom > 0:
        raise InputError(f"the voxel size of a pair must be positive, got {pair.voxel_size_angstrom} Å")
    for name, values in pair.extras.items():
        wanted = truth.shape if name == "labels" else images.shape
        if name not in OPTIONAL or values.shape != wanted:
            raise InputError(f"'{name}' of a pair has shape {values.shape}, expected {wanted}")
