"""``cryolithe.reconstruct``, ``fbp`` and ``sirt``: tilt images in, a volume out, by the engine of the command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from cryolithe.arrays.narrow import narrowed
from cryolithe.errors import SettingsError
from cryolithe.formats import read_angles_deg, read_mrc
from cryolithe.formats.stacks.stack_images import read_one_by_one
from cryolithe.idle import idle_settings
from cryolithe.library.arrays import array_of, is_path, numbers_of, path_of, size_of
from cryolithe.library.undisturbed import undisturbed
from cryolithe.library.volumes import Volume
from cryolithe.library.watching import Heard
from cryolithe.reconstruction.in_memory import reconstruct_in_memory
from cryolithe.reconstruction.jobs.job import Job, ResolvedJob, job_of, resolve
from cryolithe.reconstruction.jobs.remedies import checked_inputs
from cryolithe.reconstruction.jobs.sources import Held, held_sources
from cryolithe.report.json_files import plain_json
from cryolithe.settings import ReconstructSettings, resolve_settings

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cryolithe.library.arrays import Angles, Array, Files

    TiltsLike = Array | Files
    AnglesLike = Angles | Files

# Settings of the command that are about its output files; here the volume's `save` decides.
OF_FILES = ("orientation", "format", "confidence", "preview", "overwrite")
# What `fbp` and `sirt` do not take.
_OF_NETWORKS = ("model", "fbp_share", "wedge_trust", "precision")


class Settings(TypedDict, total=False):
    """Settings of all methods, as ``cryolithe reconstruct --help`` explains them; checked by `ReconstructSettings`."""

    thickness: int | None
    bin: int | None
    contrast: Literal["auto", "dark", "bright"]
    brightness: Literal["auto", "keep"]
    tilt_axis: float
    exclude: str | None
    xf: str | None
    newst_com: str | None
    tilt_com: str | None
    aln: str | None
    star: str | None
    warp: str | None
    local_alignment: bool
    ctf_state: Literal["uncorrected", "flipped", "wiener", "none"] | None
    defocus: float | None
    dose: str | None
    specimen_thickness: float | None
    ctf: Literal["none", "flip", "multiply", "wiener"]
    ctf_3d: bool
    ctf_file: str | None
    defocus_hand: Literal[1, -1, "auto"] | None
    voltage: float | None
    cs: float | None
    amplitude_contrast: float | None
    dose_weight: bool
    centre: Literal["imod", "relion"] | None
    handedness: Literal["imod", "relion", "aretomo", "warp"]
    flip_z: bool
    projector: Literal["torch", "tomosipo"]
    device: str
    max_memory: float | None
    dtype: Literal["float32", "float16", "int8"]
    fix_nonfinite: bool


@undisturbed
def reconstruct(
    tilts: TiltsLike,
    angles_deg: AnglesLike | None = None,
    voxel_size_angstrom: float | None = None,
    *,
    model: str = "default",
    fbp_share: float | None = None,
    wedge_trust: Literal["auto", "full", "none"] | None = None,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    **settings: Unpack[Settings],
) -> Volume:
    """Reconstruct an aligned tilt series with a network: the voxels of ``cryolithe reconstruct``, byte for byte.

    Args:
        tilts: images, shape ``(tilt, y, x)``, tilt axis along y: an array, a tensor, or the path of a stack (MRC, or a
            table of single images). Raw stacks are aligned by the files of an alignment (``aln=``, ``star=``, ...).
        angles_deg: one tilt angle for each image, in degrees, or the path of a file of angles; None where an alignment
            brings them.
        voxel_size_angstrom: edge of a pixel of ``tilts`` in Å, which is that of a voxel where nothing is binned; None
            to take it from the stack's header.
        model: name of a model (``cryolithe models list``), or the path of a .safetensors file.
        fbp_share: share of filtered back-projection where the tilts measured, 0 to 0.9; None for the model's own.
        wedge_trust: how much of what the network puts into the missing wedge stays: as far as tilts that are left out
            of a trial confirm it ("auto"), all of it ("full"), or nothing ("none"); None for what suits the model.
        precision: of the network's matrix products.
        settings: thickness, bin, contrast, tilt_axis, handedness, device ... as the flags of the command, with ``_``
            for ``-``; their defaults are the command's.

    Returns:
        the volume ``(z, y, x)``. Dense matter keeps the polarity of the images. Its ``notes`` tell what was assumed,
        its ``record`` how it was made. Images and volume are held in memory, and nothing is written: the command
        streams what is larger.

    Raises:
        CryoLitheError: for everything that the caller can mend, in one line.

    Warns:
        CryoLitheWarning: where the command would print a warning.

    >>> import cryolithe
    >>> series = cryolithe.simulate(shape=(16, 32, 32), seed=1)
    >>> volume = cryolithe.reconstruct(
    ...     series.tilts, series.angles_deg, series.voxel_size_angstrom, model="draft", thickness=16, contrast="dark"
    ... )
    >>> volume
    Volume(16 x 32 x 32 (z, y, x), float32, voxels of 10 Å)
    """
    own = {
        "method": "network",
        "model": model,
        "fbp_share": fbp_share,
        "wedge_trust": wedge_trust,
        "precision": precision,
    }
    return _made(tilts, angles_deg, voxel_size_angstrom, own, settings)


@undisturbed
def fbp(
    tilts: TiltsLike,
    angles_deg: AnglesLike | None = None,
    voxel_size_angstrom: float | None = None,
    *,
    filter: Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"] = "cosine",  # noqa: A002 - the flag's name
    **settings: Unpack[Settings],
) -> Volume:
    """Filtered back-projection: the voxels of ``cryolithe reconstruct --method fbp``.

    Args:
        tilts: images, see `reconstruct`.
        angles_deg: in degrees, see `reconstruct`.
        voxel_size_angstrom: of a pixel of ``tilts``.
        filter: window of the ramp filter.
        settings: see `reconstruct`.

    Returns:
        the volume ``(z, y, x)``.

    Raises:
        CryoLitheError: for everything that the caller can mend, in one line.

    >>> import numpy as np, cryolithe
    >>> images = np.random.default_rng(0).standard_normal((5, 16, 24))
    >>> cryolithe.fbp(images, [-40, -20, 0, 20, 40], 10, bin=2, dtype="float16")
    Volume(6 x 8 x 12 (z, y, x), float16, voxels of 20 Å)
    """
    return _made(tilts, angles_deg, voxel_size_angstrom, {"method": "fbp", "filter": filter}, settings)


@undisturbed
def sirt(
    tilts: TiltsLike,
    angles_deg: AnglesLike | None = None,
    voxel_size_angstrom: float | None = None,
    *,
    iterations: int = 30,
    **settings: Unpack[Settings],
) -> Volume:
    """Simultaneous iterative reconstruction: the voxels of ``cryolithe reconstruct --method sirt``.

    Args:
        tilts: images, see `reconstruct`.
        angles_deg: in degrees, see `reconstruct`.
        voxel_size_angstrom: of a pixel of ``tilts``.
        iterations: of SIRT.
        settings: see `reconstruct`.

    Returns:
        the volume ``(z, y, x)``.

    Raises:
        CryoLitheError: for everything that the caller can mend, in one line.

    >>> import numpy as np, cryolithe
    >>> images = np.random.default_rng(0).standard_normal((5, 8, 12))
    >>> cryolithe.sirt(images, [-40, -20, 0, 20, 40], iterations=3, thickness=6)
    Volume(6 x 8 x 12 (z, y, x), float32, voxel size unknown)
    """
    return _made(tilts, angles_deg, voxel_size_angstrom, {"method": "sirt", "iterations": iterations}, settings)


def _made(
    tilts: TiltsLike,
    angles_deg: AnglesLike | None,
    voxel_size_angstrom: float | None,
    own: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Volume:
    settings = _settings(own, given, size_of(voxel_size_angstrom, "voxel_size_angstrom"))
    run = _run(tilts, angles_deg, settings)
    heard = Heard()
    made = reconstruct_in_memory(run, heard)
    record = plain_json(made.record)
    for warning in heard.warnings:
        _warn(warning)
    return Volume(
        made.voxels, made.voxel_size_angstrom, (0.0, 0.0, 0.0), tuple(heard.notes), tuple(heard.warnings), record,
        made.labels,
    )  # fmt: skip


def _warn(text: str) -> None:
    """Warn at the line that called the library's function, which is within `undisturbed`."""
    import warnings

    from cryolithe.errors import CryoLitheWarning

    warnings.warn(text, CryoLitheWarning, stacklevel=5)


def _settings(own: Mapping[str, Any], given: Mapping[str, Any], size: float | None) -> ReconstructSettings:
    """The command's settings from what a caller gave.

    Raises:
        SettingsError: for a setting that is unknown, out of range, or of files alone.
    """
    function = {"network": "reconstruct", "fbp": "fbp", "sirt": "sirt"}[own["method"]]
    for name in given:
        if name in OF_FILES:
            raise SettingsError(
                f"cryolithe.{function}: '{name}' is about the files that the command writes; leave it out, and write "
                "the volume with volume.save(path)"
            )
        if name == "pixel_size":
            raise SettingsError(f"cryolithe.{function}: give voxel_size_angstrom= instead of 'pixel_size'")
        if name == "method" or (function != "reconstruct" and name in _OF_NETWORKS):
            raise SettingsError(
                f"cryolithe.{function} has no '{name}': cryolithe.reconstruct is for networks, cryolithe.fbp and "
                "cryolithe.sirt are without"
            )
        if name == "filter" and function != "fbp":
            raise SettingsError(f"cryolithe.{function} has no 'filter': it is for cryolithe.fbp")
        if name == "projector" and function == "reconstruct":
            raise SettingsError("cryolithe.reconstruct has no 'projector': it is for cryolithe.fbp and cryolithe.sirt")
        if name == "iterations" and function != "sirt":
            raise SettingsError(f"cryolithe.{function} has no 'iterations': it is for cryolithe.sirt")
    values = {**own, **given, "pixel_size": size}
    named = {name: _plain(value) for name, value in values.items() if value is not None}
    settings = resolve_settings({}, {}, named, "", f"cryolithe.{function}")
    for name, reason in idle_settings([name for name in given if name in named], [settings]).items():
        raise SettingsError(f"cryolithe.{function}: '{name}' {reason}: it would change nothing; leave it out")
    return settings


def _plain(value: Any) -> Any:
    """A path as text, a number of NumPy's as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if is_path(value) else value


def _run(tilts: TiltsLike, angles_deg: AnglesLike | None, settings: ReconstructSettings) -> ResolvedJob:
    """What is to be done, checked."""
    angles = path_of(angles_deg, "angles_deg") if is_path(angles_deg) else None  # type: ignore[arg-type]
    if is_path(tilts) and (angles is not None or angles_deg is None):
        stack = Path(tilts)  # type: ignore[arg-type]
        return checked_inputs(job_of((stack, angles), stack.with_suffix(".none"), settings))
    if settings.alignment_files:
        names = " and ".join(f"{name}=" for name in settings.alignment_files)
        raise SettingsError(
            f"{names} goes with a stack and angles in files: give their paths as tilts and angles_deg, or aligned "
            f"images without {names}"
        )
    if angles_deg is None:
        raise SettingsError("angles_deg: expected one tilt angle in degrees for each image, or the path of a file")
    if is_path(tilts):
        mrc = read_mrc(path_of(tilts, "tilts"))  # type: ignore[arg-type]
        held = Held(read_one_by_one(mrc.data), settings.pixel_size or mrc.voxel_size_angstrom, mrc.notes, mrc.labels)
    else:
        held = Held(narrowed(array_of(tilts, "tilts", "tilt, y, x")), settings.pixel_size)
    numbers = read_angles_deg(angles) if angles is not None else numbers_of(angles_deg, "angles_deg")
    job = Job(Path("tilts"), None, Path("volume.mrc"), settings)
    return resolve(job, sources=held_sources(held, numbers, settings))
