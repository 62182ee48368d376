"""``cryolithe.denoise``: a volume in, the same volume with less noise out."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from cryolithe.arrays.narrow import common_value, narrowed
from cryolithe.denoising.entry import Entry, Option
from cryolithe.denoising.job import Given
from cryolithe.denoising.methods import METHODS, own_options, owners
from cryolithe.denoising.run import Denoised
from cryolithe.denoising.run import denoise as denoised
from cryolithe.errors import InputError, OutputError, SettingsError, nearest_name, shown
from cryolithe.formats.files import replacing
from cryolithe.formats.volumes.volume_file import open_volume_file
from cryolithe.library.arrays import Files, is_path, path_of
from cryolithe.library.undisturbed import undisturbed
from cryolithe.library.volumes import Volume, refuse_unknown, volume_of
from cryolithe.library.watching import Heard
from cryolithe.machine.device import choose_device, choose_precision
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.step import trainable

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cryolithe.library.volumes import VolumeLike

# Options of the command that name files which it writes, or are arguments here.
_OF_FILES = ("lmax_sweep", "report", "resume", "overwrite", "output", "is_volume")


class Choices(TypedDict, total=False):
    """As the flags of ``cryolithe denoise``, with ``_`` for ``-``; each is of the methods that its help names."""

    batch: int | None
    seed: int
    fix_nonfinite: bool
    device: str
    precision: str
    lmax: int | None
    augment: bool
    keep_low: bool
    crop: int | None
    size: Literal["published", "small"]
    backbone: Literal["unet-small", "unet", "msd", "scunet"] | None
    loss: Literal["l2", "l1", "l0", "fsc", "mixed"] | None
    for_: Literal["look", "membranes", "picking"] | None
    start: Literal["general", "fresh"] | None


_COMMON = {"batch": 1, "seed": None}  # whole numbers, and their least


@undisturbed
def denoise(
    volume: VolumeLike | None = None,
    voxel_size_angstrom: float | None = None,
    *,
    method: Literal["samba", "n2n"] = "samba",
    halves: tuple[VolumeLike, VolumeLike] | None = None,
    model: Files | None = None,
    train_minutes: float | None = None,
    weights_to: Files | None = None,
    **choices: Unpack[Choices],
) -> Volume:
    """Denoise a tomogram: the voxels of ``cryolithe denoise``, byte for byte.

    The engine trains and denoises through files, so that tomograms larger than the memory go through it: this function
    gives it a temporary folder (of `tempfile`, so TMPDIR says where) and takes the result back; nothing is left there.

    Args:
        volume: to denoise ``(z, y, x)``: `Volume`, array, tensor, or path. None where ``halves`` are denoised (n2n).
        voxel_size_angstrom: edge of a voxel, in place of what the volume says.
        method: samba learns from the volume's own planes, n2n from two halves.
        halves: volumes of the even and of the odd images or frames: n2n learns from them, samba's guard compares them.
        model: weights (.safetensors) to use in place of a training; with ``train_minutes`` those to start from. The
            name ``"general"`` is n2n's, which is taken for a whole volume anyway.
        train_minutes: limit of the training; None for the method's own: samba 30 on a CPU, n2n 10.
        weights_to: file (.safetensors) to keep the trained weights in; it must not be there.
        choices: lmax, backbone, loss, seed, device, precision ... as the flags of the command.

    Returns:
        the volume, with the type of values of the input. Its ``record`` has what the guard found.

    Raises:
        CryoLitheError: for everything that the caller can mend, in one line.

    Warns:
        CryoLitheWarning: what the guard warns of: signal that was lost, or energy that came from nowhere.

    >>> import numpy as np, cryolithe
    >>> noise = np.random.default_rng(0).standard_normal((16, 16, 16)).astype(np.float32)
    >>> cryolithe.denoise(noise, method="n2n", model="missing.safetensors")
    Traceback (most recent call last):
    cryolithe.errors.InputError: model: missing.safetensors does not exist; check its name and folder, or give an array
    """
    entry = _entry(method)
    options = _options(entry, choices)
    minutes = _minutes(train_minutes)
    device = choose_device(options.pop("device", "auto"))
    precision = trainable(choose_precision(options.pop("precision", "auto"), device), device)
    kept = None if weights_to is None else _free(Path(weights_to))
    if kept is not None and model is not None and train_minutes is None:
        raise SettingsError("weights_to keeps what a training learned: with model= alone nothing is trained")
    if volume is None and halves is None:
        raise InputError("give a volume to denoise, or halves=(even, odd) with method='n2n'")
    if halves is not None and (is_path(halves) or len(halves) != 2):
        raise InputError("halves: expected a pair of volumes, of the even and of the odd frames or tilts")
    heard = Heard()
    with tempfile.TemporaryDirectory(prefix="cryolithe-") as scratch:
        folder = _Folder(Path(scratch), voxel_size_angstrom, heard)
        volumes = () if volume is None else (folder.file(volume, "volume"),)
        pairs = () if halves is None else ((folder.file(halves[0], "half1"), folder.file(halves[1], "half2")),)
        load = entry.load()
        all_options: dict[str, Any] = {option.name: option.default for option in entry.options}
        all_options |= {"model": _model(model), "train_minutes": minutes, "report": None, "batch": None}
        all_options |= {"seed": 0, "fix_nonfinite": False, "resume": False, "overwrite": False, "is_volume": True}
        job = load.job(Given(volumes, pairs, folder.path / "denoised.mrc"), {**all_options, **options})
        found = denoised(load, job, Place(device, precision), heard)[0]
        made = _read(found, heard)
        if kept is not None:
            with replacing(kept, overwrite=False) as temporary:
                shutil.copyfile(job.weights, temporary)
    heard.warn()
    return made


@dataclass(frozen=True)
class _Folder:
    """Files for the engine.

    Attributes:
        path: of the folder.
        voxel_size_angstrom: that the caller gave, or None.
        heard: is told what was assumed.
    """

    path: Path
    voxel_size_angstrom: float | None
    heard: Heard

    def file(self, value: VolumeLike, name: str) -> Path:
        """The file of a volume: its own, or one that is written here."""
        if is_path(value) and self.voxel_size_angstrom is None:
            place = path_of(value, name)  # type: ignore[arg-type]
            if open_volume_file(place).axes == "zyx":
                return place
        found = volume_of(value, name, self.voxel_size_angstrom)
        if common := common_value(found.voxels):
            self.heard.note(
                f"{common:g} is taken off all voxels of {name}, and stays off the result: beside it, the float32 that "
                "they become keeps little of what varies"
            )
            found = replace(found, voxels=narrowed(found.voxels, common))
        place = self.path / f"{name}.mrc"
        return found.save(place)


def _read(found: Denoised, heard: Heard) -> Volume:
    """The result, out of the folder that is about to go."""
    made = Volume.read(found.output)
    record = json.loads(found.output.with_suffix(".json").read_text(encoding="utf-8"))
    told = tuple(heard.notes), tuple(heard.warnings)
    return Volume(np.array(made.voxels), made.voxel_size_angstrom, made.origin_angstrom, *told, record, made.labels)


def _entry(method: object) -> Entry:
    if not isinstance(method, str) or method not in METHODS:
        raise SettingsError(
            f"method: expected {' or '.join(map(repr, METHODS))}, got {shown(method)}"
            f"{nearest_name(str(method), METHODS)}"
        )
    return METHODS[method]


def _options(entry: Entry, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a method that a caller gave, checked as the command checks its flags."""
    for name in given:
        if name in _OF_FILES:
            raise SettingsError(f"cryolithe.denoise: '{name}' is about files of the command; leave it out")
        if name in own_options() and name not in entry.option_names:
            raise SettingsError(f"{name} goes with method {' or '.join(owners(name))}, not with {entry.name}")
    refuse_unknown(given, frozenset(Choices.__annotations__), "cryolithe.denoise")
    known = {option.name: option for option in entry.options}
    return {name: _checked(name, value, known.get(name)) for name, value in given.items() if value is not None}


def _checked(name: str, value: Any, option: Option | None) -> Any:
    """A value of the type and range of its option."""
    value = value.item() if isinstance(value, np.generic) else value
    kind: Any = option.kind if option else {"fix_nonfinite": bool, "device": str, "precision": str}.get(name, int)
    least = option.least if option else _COMMON.get(name)
    if isinstance(kind, tuple):
        fits, wanted = value in kind, " or ".join(map(repr, kind))
    elif kind is bool or kind is str:
        fits, wanted = isinstance(value, kind), "True or False" if kind is bool else "a text"
    else:
        number = isinstance(value, int | float if kind is float else int) and not isinstance(value, bool)
        fits = number and (least is None or value >= least)
        wanted = "a whole number" + (f" of at least {least}" if least is not None else "")
    if not fits:
        raise SettingsError(f"cryolithe.denoise: '{name}': expected {wanted}, got {shown(value)}")
    return value


def _minutes(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and number > 0):
        raise SettingsError(f"train_minutes: expected a positive number of minutes, got {value!r}")
    return number


def _model(value: Files | None) -> Path | None:
    """A file of weights, or a name that the method knows."""
    if value is None:
        return None
    from cryolithe.denoising.n2n.bundled import named_weights

    return path_of(named_weights(Path(value)), "model")


def _free(path: Path) -> Path:
    """A name for weights that can be written."""
    if path.suffix != ".safetensors":
        raise OutputError(f"weights_to: expected a name ending in .safetensors, got {path}")
    if path.exists():
        raise OutputError(f"weights_to: {path} exists; give another name")
    if not path.parent.is_dir():
        raise OutputError(f"weights_to: the folder {path.parent} does not exist; make it first")
    return path
