"""`Volume`: what the library's functions take and return."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.errors import InputError, OutputError, SettingsError
from cryolithe.formats.files import MRC_VOLUME_ENDINGS, check_ending
from cryolithe.formats.record import own_record_beside, read_record_beside, record_path
from cryolithe.formats.stacks.mrc_writer import write_volume
from cryolithe.formats.volumes.axes import turned_record
from cryolithe.formats.volumes.volume_file import NETWORK_LABEL, open_volume_file, refuse_stack, upright
from cryolithe.library.arrays import Files, array_of, is_path, numbers_of, path_of, size_of
from cryolithe.volume import Volume as Voxels

if TYPE_CHECKING:
    from typing import TypeAlias

    from cryolithe.library.arrays import Array

    VolumeLike: TypeAlias = "Volume | Array | Files"


@dataclass(frozen=True, eq=False, repr=False)
class Volume(Voxels):
    """A 3-D density with the size of its voxels, and how it was made.

    Its voxels: ``numpy.asarray(volume)``, ``volume[z]``; ``volume.shape`` and ``dtype`` are theirs.
    It does no arithmetic of its own.

    Attributes:
        voxels: shape ``(z, y, x)``.
        voxel_size_angstrom: edge of a voxel, or None where nobody knows it.
        origin_angstrom: position ``(z, y, x)`` of the first voxel.
        notes: what was assumed when it was made, as the command prints it.
        warnings: what is wrong with it; the function that made it warned of it, too, and its record tells.
        record: how it was made, as the command writes it into the sidecar.
        labels: for the header of an MRC file.

    Raises:
        InputError: if the voxels are no volume, or the origin has not three numbers.

    >>> import numpy as np
    >>> volume = Volume(np.zeros((4, 6, 8), np.float32), voxel_size_angstrom=10)
    >>> volume
    Volume(4 x 6 x 8 (z, y, x), float32, voxels of 10 Å)
    >>> np.asarray(volume).shape, volume[2].shape
    ((4, 6, 8), (6, 8))
    """

    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        origin = numbers_of(self.origin_angstrom, "origin_angstrom")
        if len(origin) != 3:
            raise InputError(f"origin_angstrom: expected three numbers (z, y, x), got {len(origin)}")
        object.__setattr__(self, "voxels", array_of(self.voxels, "voxels", "z, y, x"))
        object.__setattr__(self, "voxel_size_angstrom", size_of(self.voxel_size_angstrom, "voxel_size_angstrom"))
        object.__setattr__(self, "origin_angstrom", origin)

    @classmethod
    def read(cls, path: Files) -> Volume:
        """Open a volume: MRC, TIFF, folder of TIFF, OME-Zarr; its voxels stay on the disk where the file allows it.

        A volume of ``--orientation xzy`` is turned to (z, y, x), as its record tells.

        Raises:
            InputError: if the file is not usable, or holds a stack of images.
        """
        place = path_of(path, "volume")
        stored = open_volume_file(place)
        found, record = upright(stored), read_record_beside(place)
        refuse_stack(found)
        assumed = found.told.content == "unknown"
        notes = (*found.notes, *((f"{place} is taken for a volume: {found.told.reason}",) if assumed else ()))
        size, origin = found.voxel_size_angstrom, found.origin_angstrom
        told = record.get("warnings", ())
        warnings = tuple(map(str, told)) if isinstance(told, list | tuple) else ()
        record = record if found is stored else turned_record(record)
        return cls(found.voxels(), size, origin, notes, warnings, record, found.labels)

    @property
    def data(self) -> NDArray[Any]:
        """The voxels, shape ``(z, y, x)``."""
        return self.voxels

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along ``(z, y, x)``."""
        return self.grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return self.voxels.dtype

    @property
    def ndim(self) -> int:
        """3."""
        return self.voxels.ndim

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = np.asarray(self.voxels, dtype=dtype)
        # Of NumPy 1.26 comes no copy at all, of 2 and later what the caller wants.
        if copy is False and found is not self.voxels and not np.shares_memory(found, self.voxels):
            raise ValueError("the voxels have another type: they cannot be given without a copy")
        return found.copy() if copy and np.shares_memory(found, self.voxels) else found

    # Arrays have no one answer: a volume is equal to itself.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __getitem__(self, place: Any) -> Any:
        return self.voxels[place]

    def __len__(self) -> int:
        return len(self.voxels)

    def __repr__(self) -> str:
        size = f"voxels of {self.voxel_size_angstrom:.4g} Å" if self.voxel_size_angstrom else "voxel size unknown"
        return f"Volume({' x '.join(map(str, self.shape))} (z, y, x), {self.dtype.name}, {size})"

    @property
    def of_network(self) -> bool:
        """Whether a network made it, as far as its record and its labels tell."""
        method = self.record.get("method")
        named = isinstance(method, Mapping) and method.get("name") == "network"
        return named or any(NETWORK_LABEL.match(label) for label in self.labels)

    def save(self, path: Files, *, overwrite: bool = False) -> Path:
        """Write the volume, and beside it its record where it has one, as the command does.

        What lies beside a volume that is replaced and tells of that one goes with it: its record, and its maps and
        preview unless the new one has the same record.

        Args:
            path: a name ending in .mrc, .rec or .map; or in .zarr for OME-Zarr, which needs ``cryolithe[zarr]``.
            overwrite: replace what is there.

        Returns:
            the path.

        Raises:
            OutputError: if the file exists and is not to be replaced, its folder does not exist, or cannot be written.
        """
        place = Path(path)
        record, before = place.with_suffix(".json") if self.record else None, own_record_beside(place)
        if not place.parent.is_dir():
            raise OutputError(f"the output folder {place.parent} does not exist; make it first")
        for one in (place, record if record is not None or not before else record_path(place)):
            if one is not None and os.path.lexists(one) and not overwrite:
                raise OutputError(f"{one} exists; give overwrite=True to replace it, or another name")
        if record is not None and record.exists() and not before:
            raise OutputError(f"{record} exists and is no record of {place.name}: take another name")
        if place.suffix == ".zarr":
            self._write_zarr(place)
        else:
            check_ending(place, MRC_VOLUME_ENDINGS, "an MRC volume (or .zarr for OME-Zarr)")
            labels = self.labels or (f"CryoLithe {__version__}",)
            write_volume(place, self, label=labels, dtype=self._stored_dtype(), overwrite=overwrite)
        if before:
            _drop_beside(place, before, self.record)
        if record is not None:
            from cryolithe.report.json_files import write_json

            kind = "ome-zarr" if place.suffix == ".zarr" else "mrc"
            told = {**self.record.get("volume", {}), "path": place.name, "format": kind}
            write_json(record, {**self.record, "volume": told})
        return place

    def _stored_dtype(self) -> np.dtype[Any]:
        """A type of MRC: that of the voxels, or float32 for those which it does not have."""
        kept = self.dtype.str[1:] in ("i1", "i2", "u2", "f2", "f4")
        return self.dtype.newbyteorder("=") if kept else np.dtype(np.float32)

    def _write_zarr(self, place: Path) -> None:
        import shutil
        import tempfile

        from cryolithe.formats.volumes.ome_zarr import write_ome_zarr

        if place.is_symlink() or (place.exists() and not place.is_dir()):
            kind = "link" if place.is_symlink() else "file"
            raise OutputError(f"{place} is a {kind}, and OME-Zarr a folder, which cannot replace it; take another name")
        # Complete, or not there: a folder beside the final place is renamed.
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".cryolithe-") as folder:
            made = Path(folder) / "volume.zarr"
            origin = self.origin_angstrom
            write_ome_zarr(made, self.voxels, self.voxel_size_angstrom, place.stem, lambda block: block, origin=origin)
            if place.is_dir():
                shutil.rmtree(place)
            made.replace(place)


def _drop_beside(place: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Remove what told of the volume that was here before, where the new one is of another making."""
    from cryolithe.reconstruction.output.outputs import drop_maps, drop_preview

    if now and {**before, "volume": None} == {**now, "volume": None}:
        return
    drop_maps(place)
    drop_preview(place.with_suffix(".png"))
    record_path(place).unlink()


def volume_of(value: VolumeLike, what: str, voxel_size_angstrom: float | None = None) -> Volume:
    """The volume that a user means.

    Args:
        value: a `Volume`, an array or tensor ``(z, y, x)``, or the path of a file.
        what: its name in messages.
        voxel_size_angstrom: where it is given, it counts more than what the value says.

    Raises:
        InputError: if it is none.
    """
    size = size_of(voxel_size_angstrom, "voxel_size_angstrom")
    if is_path(value):
        found = Volume.read(value)  # type: ignore[arg-type]
    elif isinstance(value, Volume):
        found = value
    elif isinstance(value, Voxels):
        found = Volume(value.voxels, value.voxel_size_angstrom, value.origin_angstrom)
    else:
        found = Volume(array_of(value, what, "z, y, x"))
    return found if size is None else replace(found, voxel_size_angstrom=size)


def refuse_unknown(settings: Mapping[str, Any], known: Mapping[str, Any] | frozenset[str], function: str) -> None:
    """Raise SettingsError for the first setting that a function does not have."""
    from cryolithe.errors import nearest_name, shown

    for name in settings:
        if name not in known:
            raise SettingsError(f"{function}: unknown setting {shown(name)}{nearest_name(name, known)}")
