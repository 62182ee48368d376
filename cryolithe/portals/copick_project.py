"""A copick project: its tomograms and picks read, a tomogram of ours written into it, through the copick library.

In copick a point lies at its location plus the translation of its transform, in Å from the tomogram's first voxel: a
voxel of index i lies at i times the voxel size. Tomograms are OME-Zarr images that the library itself reads and writes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError, OutputError, nearest_name, shown
from cryolithe.formats.particles.star import Particle
from cryolithe.machine.extras import install_command

LABEL = "cryolithe"
SIZE_TOLERANCE = 1e-3  # relative, between voxel sizes that are meant to be the same


@dataclass(frozen=True)
class RunContent:
    """What a run of a project holds.

    Attributes:
        name: of the run.
        tomograms: voxel size in Å and type of each.
        picks: object, user and session of each set of points, with how many there are.
    """

    name: str
    tomograms: tuple[tuple[float, str], ...]
    picks: tuple[tuple[str, str, str, int], ...]


@dataclass(frozen=True)
class Tomogram:
    """A tomogram of a project, shape ``(z, y, x)``."""

    voxels: NDArray[Any]
    voxel_size_angstrom: float
    kind: str


def open_project(config: Path) -> Any:
    """The root of a project.

    Args:
        config: its JSON file.

    Raises:
        InputError: if copick is missing, or the file is no configuration of a project.
    """
    if not config.is_file():
        raise InputError(f"{config} does not exist; give the configuration (.json) of a copick project")
    try:
        import copick
    except ImportError as error:
        raise InputError(
            f"copick projects need the package copick: {install_command('copick')}; it needs zarr 2, so that it "
            "does not go with cryolithe[zarr] in one environment"
        ) from error
    with _told(f"{config} is no copick project"):
        return copick.from_file(str(config))


def run_contents(root: Any) -> tuple[RunContent, ...]:
    """What the runs of a project hold, in the order of their names."""
    with _told("the copick project cannot be read"):
        return tuple(_content(run) for run in sorted(root.runs, key=lambda run: str(run.name)))


def _content(run: Any) -> RunContent:
    tomograms = [
        (float(spacing.voxel_size), str(tomogram.tomo_type))
        for spacing in run.voxel_spacings
        for tomogram in spacing.tomograms
    ]
    picks = [(str(p.pickable_object_name), str(p.user_id), str(p.session_id), len(p.points or ())) for p in run.picks]
    return RunContent(str(run.name), tuple(sorted(tomograms)), tuple(sorted(picks)))


def find_run(root: Any, name: str) -> Any:
    """A run by its name.

    Raises:
        InputError: if there is none; says which there are.
    """
    with _told("the copick project cannot be read"):
        names = sorted(str(run.name) for run in root.runs)
        if name in names:
            return root.get_run(name)
    raise InputError(
        f"the project has no run {shown(name)}{nearest_name(name, names)}; it has {', '.join(names[:8]) or 'none'}"
    )


def read_tomogram(run: Any, voxel_size_angstrom: float | None, kind: str | None) -> Tomogram:
    """A tomogram of a run at full size; voxel size and type need not be told where there is one alone.

    Raises:
        InputError: if there is none, or several that fit.
    """
    found = [
        (float(spacing.voxel_size), str(tomogram.tomo_type), tomogram)
        for spacing in run.voxel_spacings
        for tomogram in spacing.tomograms
    ]
    fitting = [
        entry
        for entry in found
        if (voxel_size_angstrom is None or _same_size(entry[0], voxel_size_angstrom)) and kind in (None, entry[1])
    ]
    if len(fitting) != 1:
        there = ", ".join(f"{type_} at {size:g} Å" for size, type_, _ in (fitting or found)[:8]) or "none"
        what = "no tomogram that fits" if not fitting else f"{len(fitting)} tomograms that fit"
        raise InputError(f"the run {run.name} has {what}; choose by --voxel-size and --type, it has: {there}")
    size, type_, tomogram = fitting[0]
    with _told(f"the tomogram {type_} of {run.name} cannot be read"):
        return Tomogram(np.asarray(tomogram.numpy()), size, type_)


def file_name(run: str) -> str:
    """What files of a run are called, and their tomogram in tables: its name without what file names cannot have."""
    return re.sub(r"[^\w.-]", "_", run)


def _labels(run: Any, names: list[str]) -> dict[str, int]:
    """Numbers of objects, alike in all runs: the project's labels, or places in its list where labels are not unique.

    Objects that the project does not list are numbered behind them.
    """
    listed = list(run.root.pickable_objects)
    labels = {str(each.name): int(each.label or 0) for each in listed}
    if len({*labels.values()} - {0}) < len(labels):
        labels = {str(each.name): number for number, each in enumerate(listed, start=1)}
    last = max(labels.values(), default=0)
    others = [name for name in names if name not in labels]
    return {**labels, **{name: number for number, name in enumerate(others, start=last + 1)}}


def read_particles(
    run: Any, voxel_size_angstrom: float, objects: tuple[str, ...] = (), users: tuple[str, ...] = ()
) -> list[Particle]:
    """Picks of a run as particles in voxels of a tomogram, which is called as `file_name` has it.

    Args:
        run: of a project.
        voxel_size_angstrom: of the tomogram.
        objects: names of those that are wanted; none for all.
        users: of whom; none for everybody.

    Raises:
        InputError: if an object has no picks.
    """
    particles: list[Particle] = []
    with _told(f"the picks of {run.name} cannot be read"):
        picks = [p for p in run.picks if not users or p.user_id in users]
        names = sorted({str(p.pickable_object_name) for p in picks})
        labels, tomogram = _labels(run, names), file_name(str(run.name))
        for wanted in objects:
            if wanted not in names:
                raise InputError(
                    f"the run {run.name} has no picks of {shown(wanted)}{nearest_name(wanted, names)}; it has "
                    f"{', '.join(names[:8]) or 'none'}"
                )
        for set_ in picks:
            name = str(set_.pickable_object_name)
            if objects and name not in objects:
                continue
            points, transforms = set_.numpy()
            for point, transform in zip(points, transforms, strict=True):
                x, y, z = (point + transform[:3, 3]) / voxel_size_angstrom
                euler = euler_deg(transform[:3, :3])
                particles.append(Particle(tomogram, name, labels[name], (float(z), float(y), float(x)), euler))
    return particles


def euler_deg(rotation_xyz: NDArray[np.float64]) -> tuple[float, float, float]:
    """RELION's rot, tilt and psi of a rotation ``(3, 3)`` that acts on x, y, z and takes the reference to the specimen.

    RELION's matrix, which does that, is the inverse of the intrinsic rotation by rot (z), tilt (y) and psi (z).
    """
    from scipy.spatial.transform import Rotation

    if not np.isfinite(rotation_xyz).all() or abs(np.linalg.det(rotation_xyz) - 1) > 1e-2:
        return 0.0, 0.0, 0.0
    turn = Rotation.from_matrix(rotation_xyz).inv()
    sine = float(np.hypot(turn.as_matrix()[0, 2], turn.as_matrix()[1, 2]))
    if sine < 1e-7:  # no tilt or half a turn: rot and psi are one angle, which is then given as rot
        m = turn.as_matrix()
        flipped = m[2, 2] < 0
        rot = float(np.degrees(np.arctan2(-m[1, 0] if flipped else m[1, 0], -m[0, 0] if flipped else m[0, 0])))
        return rot, 180.0 if flipped else 0.0, 0.0
    rot, tilt, psi = turn.as_euler("ZYZ", degrees=True)
    return float(rot), float(tilt), float(psi)


def write_tomogram(run: Any, tomogram: Tomogram, overwrite: bool) -> str:
    """Put a tomogram into a run, in the overlay that the project is written to.

    Args:
        run: of a project.
        tomogram: ours.
        overwrite: replace one of the same type and voxel size.

    Returns:
        the type as copick spells it: blanks, underscores and what file names cannot have are dashes there.

    Raises:
        OutputError: if there is one already, or the project cannot be written.
        InputError: if copick takes no such type.
    """
    size, kind = tomogram.voxel_size_angstrom, _type_of(tomogram.kind)
    with _told(f"the tomogram cannot be written into {run.name}", OutputError):
        spacing = next((s for s in run.voxel_spacings if _same_size(float(s.voxel_size), size)), None)
        if spacing is None:
            spacing = run.new_voxel_spacing(round(size, 3))
        there = spacing.get_tomograms(kind)
        has = f"the run {run.name} has a tomogram {kind} at {spacing.voxel_size:g} Å"
        if any(getattr(each, "read_only", False) for each in there):
            raise OutputError(f"{has} that is not in the project's overlay and cannot be replaced; give another --type")
        if there and not overwrite:
            raise OutputError(f"{has}; give --overwrite to replace it, or another --type")
        spacing.new_tomogram(kind, exist_ok=overwrite).from_numpy(
            np.asarray(tomogram.voxels, dtype=np.float32), dtype=np.dtype(np.float32)
        )
    return kind


def _type_of(kind: str) -> str:
    """A type as copick spells it, before anything is asked for it.

    Raises:
        InputError: if nothing is left of it.
    """
    try:
        from copick.util.escape import sanitize_name
    except ImportError:  # older ones take every name as it is
        return kind
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the name is told
        try:
            return str(sanitize_name(kind))
        except ValueError as error:
            raise InputError(
                f"--type {shown(kind)} is no name that copick takes: {error}; give letters, digits and dashes"
            ) from error


def _same_size(a: float, b: float) -> bool:
    return abs(a - b) <= SIZE_TOLERANCE * b


@contextmanager
def _told(what: str, kind: type[InputError] | type[OutputError] = InputError) -> Iterator[None]:
    """The library raises whatever it stumbles over; the user gets one line."""
    try:
        yield
    except (InputError, OutputError):
        raise
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
