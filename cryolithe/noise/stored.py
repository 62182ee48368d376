"""Noise profiles on disk: HDF5, no pickle, checked when read.

/angles_deg /series /levels                (T,)
/frequency_per_px                          (K,)
/noise_power /signal_power                 (T, K)
/noise_surface /signal_surface             (splines, terms)
/backgrounds (T, 5)  /histogram (48,)
/tiles (B, S, S) float16  /tile_scale /tile_image (B,)
attributes  format, version, kind, polarity, pixel_size_angstrom, image_shape, exposure, variance_slope,
            thickness_paths, facts (JSON text)
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.files import PathLike, input_size_bytes
from cryolithe.formats.hdf5_file import new_hdf5_file, open_hdf5
from cryolithe.formats.pairs import StoredArray
from cryolithe.noise.contrast import HISTOGRAM_BINS
from cryolithe.noise.profile import BACKGROUND_TERMS, KINDS, Profile
from cryolithe.noise.surface import SPLINES, surface_of

FORMAT, VERSION = "cryolithe-noise-profile", 1
LIMIT_BYTES = 50_000_000
_MOST_IMAGES, _MOST_RINGS, _MOST_TILE_PX, _MOST_TERMS = 100_000, 128, 256, 4
_MEND = "the file is damaged or of another program: measure it again"
_ARRAYS: tuple[str, ...] = (
    "angles_deg",
    "series",
    "levels",
    "frequency_per_px",
    "noise_power",
    "signal_power",
    "backgrounds",
)
_ARRAYS += ("histogram", "tiles", "tile_scale", "tile_image")


def write_profile(path: PathLike, profile: Profile, overwrite: bool = False) -> None:
    """Write a profile; the same profile gives the same bytes.

    Raises:
        OutputError: if the file exists and is not to be overwritten, or cannot be written.
    """
    arrays: dict[str, Any] = {name: getattr(profile, name) for name in _ARRAYS}
    arrays |= {"noise_surface": profile.noise.coefficients, "signal_surface": profile.signal.coefficients}
    with new_hdf5_file(path, overwrite, sum(np.asarray(values).nbytes for values in arrays.values())) as file:
        for name, values in arrays.items():
            data = np.asarray(values)
            chunked = {"chunks": (1, *data.shape[1:]), "fletcher32": True} if name == "tiles" and len(data) else {}
            file.create_dataset(name, data=data, track_times=False, **chunked)
        for name, value in {
            "format": FORMAT,
            "version": VERSION,
            "kind": profile.kind,
            "polarity": profile.polarity,
            "pixel_size_angstrom": profile.pixel_size_angstrom,
            "image_shape": list(profile.image_shape),
            "exposure": profile.exposure,
            "variance_slope": list(profile.variance_slope),
            "thickness_paths": profile.thickness_paths,
            "facts": json.dumps(profile.facts, sort_keys=True),
        }.items():
            file.attrs[name] = value


def read_profile(path: PathLike) -> Profile:
    """Read and check a profile.

    Raises:
        InputError: if the file is missing or empty.
        FileFormatError: if it is no profile, or its parts disagree; says which.
    """
    path = Path(path)
    size = input_size_bytes(path)
    if size > LIMIT_BYTES:
        raise FileFormatError(
            f"{path} is not a noise profile: it has {size / 1e6:.0f} MB, expected at most {LIMIT_BYTES / 1e6:.0f} MB"
        )
    try:
        file = open_hdf5(path)
    except OSError as error:
        raise FileFormatError(
            f"{path} is not a noise profile: expected an HDF5 file made by cryolithe noise measure"
        ) from error
    with file:
        try:
            if file.attrs.get("format") != FORMAT:
                raise FileFormatError(
                    f"{path} is not a noise profile: expected the attribute format={FORMAT}, "
                    f"found {file.attrs.get('format')!r}; make one with cryolithe noise measure"
                )
            if file.attrs.get("version") != VERSION:
                raise FileFormatError(
                    f"{path} is a noise profile of version {file.attrs.get('version')}, expected {VERSION}; "
                    "measure it again with this version"
                )
            return _profile(file, path)
        # What is damaged inside HDF5 shows as any of these.
        except (
            OSError,
            KeyError,
            ValueError,
            ArithmeticError,
            TypeError,
            AttributeError,
            RuntimeError,
            RecursionError,
        ) as error:
            raise FileFormatError(
                f"{path} is a damaged noise profile ({' '.join(str(error).split())}); {_MEND}"
            ) from error


def load_profile(path: PathLike) -> Profile:
    """As `read_profile`, kept in memory while the file stays the same: series after series is made with it."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return read_profile(path)
    return _kept(str(path), found.st_mtime_ns, found.st_size, found.st_ino)


@functools.lru_cache(maxsize=8)
def _kept(path: str, _changed: int, _size: int, _inode: int) -> Profile:
    return read_profile(path)


def _profile(file: h5py.File, path: Path) -> Profile:
    def array(name: str, *shape: int | None, kinds: str = "f") -> Any:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(file[name], h5py.Dataset):
            raise FileFormatError(f"{path} lacks the array '{name}' of a noise profile; {_MEND}")
        stored = StoredArray(file[name], path, name) if file[name].size else file[name]
        fits = len(stored.shape) == len(shape) and all(
            wanted in (None, found) for wanted, found in zip(shape, stored.shape, strict=True)
        )
        if not fits or stored.dtype.kind not in kinds:
            wanted = " x ".join("any" if n is None else str(n) for n in shape)
            raise FileFormatError(f"{path}: '{name}' has the shape {stored.shape}, expected {wanted}; {_MEND}")
        return stored[()]

    def finite(name: str, *shape: int | None) -> Any:
        values = array(name, *shape)
        if not np.isfinite(values).all():
            raise FileFormatError(f"{path}: '{name}' holds values that are not finite; {_MEND}")
        return values.astype(np.float64)

    def number(name: str) -> float:
        return float(file.attrs[name])

    angles, frequency = finite("angles_deg", None), finite("frequency_per_px", None)
    tilts, rings = angles.size, frequency.size
    tiles = array("tiles", None, None, None)
    count, edge = tiles.shape[0], tiles.shape[1]
    expected = np.arange(1, rings + 1) / (2 * max(rings, 1))
    noise, signal = (finite(name, SPLINES, None) for name in ("noise_surface", "signal_surface"))
    terms = max(noise.shape[1], signal.shape[1])
    series, tile_image = array("series", tilts, kinds="iu"), array("tile_image", count, kinds="iu")
    noise_power, scale = finite("noise_power", tilts, rings), finite("tile_scale", count)
    for wrong, what in (
        (not 1 <= tilts <= _MOST_IMAGES or np.abs(angles).max() > 90, "angles"),
        (not 8 <= rings <= _MOST_RINGS or not np.allclose(frequency, expected), "frequencies"),
        (tiles.shape[1] != tiles.shape[2] or edge > _MOST_TILE_PX or tiles.dtype != np.float16, "tiles"),
        (not np.isfinite(tiles).all() or (scale <= 0).any(), "tiles"),
        (count and not 0 <= tile_image.min() <= tile_image.max() < tilts, "numbers of the tiles' images"),
        (not 1 <= min(noise.shape[1], signal.shape[1]) <= terms <= _MOST_TERMS, "smooth curves"),
        (max(np.abs(noise).max(), np.abs(signal).max()) > 1e4, "smooth curves"),
        (series.min() < 0, "numbers of the series"),
        (not (noise_power > 0).all(), "noise power"),
        (file.attrs["kind"] not in KINDS, "kind"),
        (file.attrs["kind"] == "halves" and not count, "tiles"),
        (file.attrs["polarity"] not in ("dark", "bright"), "polarity"),
        (not 0 < number("pixel_size_angstrom") < math.inf, "pixel size"),
        (len(file.attrs["image_shape"]) != 2 or min(file.attrs["image_shape"]) < 1, "shape of the images"),
    ):
        if wrong:
            raise FileFormatError(f"{path}: the {what} of this noise profile cannot be; {_MEND}")
    bounds = (float(frequency[0]), float(frequency[-1])), (float(angles.min()), float(angles.max()))
    facts = json.loads(file.attrs["facts"])
    if not isinstance(facts, dict):
        raise FileFormatError(f"{path}: the facts of this noise profile cannot be; {_MEND}")
    slope = tuple(float(value) for value in file.attrs["variance_slope"])
    return Profile(
        kind=file.attrs["kind"],
        pixel_size_angstrom=number("pixel_size_angstrom"),
        polarity=file.attrs["polarity"],
        image_shape=(int(file.attrs["image_shape"][0]), int(file.attrs["image_shape"][1])),
        frequency_per_px=frequency,
        angles_deg=angles,
        series=series.astype(np.int64),
        noise_power=noise_power,
        signal_power=finite("signal_power", tilts, rings),
        noise=surface_of(noise, *bounds),
        signal=surface_of(signal, *bounds),
        levels=array("levels", tilts).astype(np.float64),
        backgrounds=finite("backgrounds", tilts, BACKGROUND_TERMS),
        histogram=finite("histogram", HISTOGRAM_BINS),
        variance_slope=(slope[0], slope[1]),
        thickness_paths=number("thickness_paths"),
        tiles=tiles,
        tile_scale=scale,
        tile_image=tile_image.astype(np.int64),
        exposure=number("exposure"),
        facts=facts,
    )


def profile_or_refuse(path: PathLike, pixel_size_angstrom: float) -> Profile:
    """A profile that serves images of a pixel size.

    Raises:
        InputError: if it does not, or cannot be read.
    """
    profile = load_profile(path)
    try:
        profile.pixel_ratio(pixel_size_angstrom)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return profile
