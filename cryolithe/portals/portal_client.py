"""The CryoET Data Portal through its own client library: what a run has, and its files brought to this disk."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cryolithe.errors import InputError
from cryolithe.formats import read_mrc
from cryolithe.formats.files import replacing
from cryolithe.formats.particles.star import Particle, Positions, write_particles
from cryolithe.machine.extras import install_command
from cryolithe.portals.portal_alignment import PortalAlignment, Section
from cryolithe.portals.portal_points import read_points

POINTS = ("Point", "OrientedPoint")
SIZE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class PointSet:
    """Points of an annotation.

    Attributes:
        annotation: the portal's object.
        kind: what they are.
        file: the portal's object of the .ndjson file.
        voxel_size_angstrom: of the tomogram in whose voxels they are.
        alignment: number of that tomogram's alignment, or None where the portal does not tell it.
    """

    annotation: Any
    kind: str
    file: Any
    voxel_size_angstrom: float
    alignment: int | None = None


@dataclass(frozen=True)
class Points:
    """The points of an alignment.

    Attributes:
        sets: of them; none where there are no points.
        numbers: of each kind that the run has, also of those that are left out: of one run, whatever is fetched.
        shape: voxels ``(z, y, x)`` of the tomogram in which they were found.
        voxel_size_angstrom: of that tomogram.
        left_out: sentences on the other points of the run.
    """

    sets: tuple[PointSet, ...]
    numbers: dict[str, int]
    shape: tuple[int, int, int]
    voxel_size_angstrom: float
    left_out: tuple[str, ...]


def portal_run(run_id: int) -> Any:
    """A run of the portal.

    Raises:
        InputError: if the client library is missing, the portal is not reached, or there is no such run.
    """
    try:
        import cryoet_data_portal
    except ImportError as error:
        raise InputError(
            f"the CryoET Data Portal needs the package cryoet-data-portal: {install_command('portal')}"
        ) from error
    with asked(f"the run {run_id}"):
        run = cryoet_data_portal.Run.get_by_id(cryoet_data_portal.Client(), run_id)
    if run is None:
        raise InputError(f"the CryoET Data Portal has no run {run_id}; its number stands in the address of its page")
    return run


@contextmanager
def asked(what: str) -> Iterator[None]:
    """The library raises whatever its network raises; the user gets one line.

    Raises:
        InputError: in place of any other error, with what was asked for.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"the CryoET Data Portal did not give {what}: {type(error).__name__}: {text}") from error


def choose(found: Sequence[Any], wanted: int | None, what: str, option: str) -> Any:
    """The one that is wanted, or the only one.

    Raises:
        InputError: says which there are.
    """
    fitting = [each for each in found if wanted in (None, each.id)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(str(each.id) for each in found[:12]) or "none"
    if wanted is not None:
        raise InputError(f"the run has no {what} {wanted}; it has {there}")
    if not found:
        raise InputError(f"the run has no {what}, so that there is nothing to reconstruct")
    raise InputError(f"the run has {len(found)} of: {what}; choose one by {option}, it has {there}")


def choose_alignment(tilt_series: Any, wanted: int | None) -> Any:
    """The alignment that is wanted, the portal's standard one, or the only one."""
    with asked("the alignments"):
        found = list(tilt_series.alignments)
    standard = [each for each in found if each.is_portal_standard]
    return choose(standard if wanted is None and len(standard) == 1 else found, wanted, "alignment", "--alignment")


def alignment_of(tilt_series: Any, alignment: Any) -> PortalAlignment:
    """What the portal has of an alignment, checked.

    Raises:
        InputError: if it is of no use, or the portal is not reached.
    """
    with asked("the parameters of the alignment"):
        sections = list(alignment.per_section_alignments)
    return PortalAlignment(
        tuple(_section(section) for section in sorted(sections, key=lambda section: section.z_index)),
        int(tilt_series.size_z or 0),
        float(tilt_series.pixel_spacing or 0),
        float(alignment.volume_z_dimension or 0) or None,
        float(alignment.tilt_offset or 0),
        float(alignment.x_rotation_offset or 0),
        (
            float(alignment.volume_x_offset or 0),
            float(alignment.volume_y_offset or 0),
            float(alignment.volume_z_offset or 0),
        ),
        str(alignment.alignment_type or "").upper() == "LOCAL",
    )


def _section(section: Any) -> Section:
    try:
        (xx, xy), (yx, yy) = section.in_plane_rotation
        return Section(
            int(section.z_index),
            float(section.tilt_angle),
            ((float(xx), float(xy)), (float(yx), float(yy))),
            (float(section.x_offset or 0), float(section.y_offset or 0)),
            float(section.volume_x_rotation or 0),
        )
    except (TypeError, ValueError, ArithmeticError) as error:
        raise InputError(
            f"the portal's parameters of image {section.z_index} are not complete: expected a tilt angle and a "
            f"rotation of 2 x 2 numbers, found {section.tilt_angle} and {section.in_plane_rotation}"
        ) from error


def fetch_stack(tilt_series: Any, path: Path, overwrite: bool) -> None:
    """Bring a tilt series' stack to this disk; it appears there only when it is whole.

    Raises:
        InputError: if it does not come, or is no stack of the size that the portal says.
        OutputError: if it cannot be written.
    """
    if not tilt_series.https_mrc_file:
        raise InputError(f"the portal has no MRC file of the tilt series {tilt_series.id}")

    def fetch(folder: Path) -> None:
        tilt_series.download_mrcfile(str(folder))

    with replacing(path, overwrite) as temporary, _fetched(path.parent, fetch, f"the stack {path.name}") as file:
        shape = read_mrc(file).data.shape
        wanted = (tilt_series.size_z, tilt_series.size_y, tilt_series.size_x)
        if all(wanted) and shape != wanted:
            raise InputError(f"the stack that came has {shape} pixels, the portal says {wanted}; fetch it again")
        file.replace(temporary)


def point_sets(run: Any) -> list[PointSet]:
    """Sets of points of a run's annotations, in the order of their kinds."""
    found = []
    with asked("the annotations"):
        for annotation in run.annotations:
            for shape in annotation.annotation_shapes:
                if shape.shape_type not in POINTS:
                    continue
                for file in shape.annotation_files:
                    if file.format == "ndjson":
                        size = float(file.tomogram_voxel_spacing.voxel_spacing)
                        kind = re.sub(r"\s+", "_", str(annotation.object_name or "particle").strip())
                        found.append(PointSet(annotation, kind, file, size, alignment_id(file)))
    return sorted(found, key=lambda each: (each.kind, each.file.id))


def alignment_id(part: Any) -> int | None:
    """The number of the alignment that a tomogram or a file of points belongs to; older clients do not have it."""
    number = getattr(part, "alignment_id", None)
    return number if isinstance(number, int) else None


def points_of(run: Any, alignment: int) -> Points:
    """The points of a run that were found in tomograms of an alignment, and in which tomogram they are.

    Raises:
        InputError: if that tomogram is not known.
    """
    every = point_sets(run)
    kinds = sorted({each.kind for each in every})
    sets = [each for each in every if each.alignment in (None, alignment)]
    left_out = []
    for other in sorted({each.alignment for each in every if each.alignment is not None} - {alignment}):
        names = sorted({each.kind for each in every if each.alignment == other})
        left_out.append(
            f"points of {', '.join(names[:4])}{', ...' if len(names) > 4 else ''} are left out: they belong to the "
            f"alignment {other} (--alignment {other})"
        )
    if not sets:
        return Points((), {}, (0, 0, 0), 0.0, tuple(left_out))
    sizes = sorted({each.voxel_size_angstrom for each in sets})
    size = sizes[0]
    others = [other for other in sizes if not _same_size(other, size)]
    if others:
        left_out.append(f"points in tomograms of {', '.join(f'{other:g}' for other in others)} Å are left out")
    sets = [each for each in sets if _same_size(each.voxel_size_angstrom, size)]
    numbers = {kind: number for number, kind in enumerate(kinds, start=1)}
    return Points(tuple(sets), numbers, _tomogram_shape(run, size, alignment), size, tuple(left_out))


def fetch_particles(points: Points, name: str, path: Path, overwrite: bool) -> tuple[str, ...]:
    """Write points as one STAR file, in Å from the middle of the tomogram they were found in.

    Returns:
        lines for the user.

    Raises:
        InputError: if the points cannot be fetched or read.
        OutputError: if the file exists and is not to be replaced, or cannot be written.
    """
    particles: list[Particle] = []
    for each in points.sets:

        def fetch(folder: Path, file: Any = each.file) -> None:
            file.download(str(folder))

        with _fetched(path.parent, fetch, f"the points of {each.kind}") as file:
            particles += read_points(file, name, each.kind, points.numbers[each.kind])
    z, y, x = points.shape
    write_particles(path, particles, points.shape, points.voxel_size_angstrom, overwrite)
    positions = np.array([p.position_px for p in particles], dtype=np.float64).reshape(-1, 3)
    found = sorted({p.kind for p in particles})
    classes = ", ".join(f"{points.numbers[kind]} {kind}" for kind in found[:8]) + (", ..." if len(found) > 8 else "")
    return (
        f"{path}: {len(particles)} particles of {len(found)} kinds, where they are in the portal's tomogram of "
        f"{z} x {y} x {x} (z, y, x), {points.voxel_size_angstrom:g} Å voxels",
        f"rlnClassNumber: {classes}; numbers of this run, cryolitheMolecule has the name",
        *Positions(positions, ("",) * len(positions)).outside_told(points.shape),
    )


def _tomogram_shape(run: Any, voxel_size_angstrom: float, alignment: int) -> tuple[int, int, int]:
    """Of the tomogram of an alignment and a voxel size; one whose alignment is not told where there is no other."""
    with asked("the tomograms"):
        fitting = [each for each in run.tomograms if _same_size(float(each.voxel_spacing), voxel_size_angstrom)]
    chosen = [each for each in fitting if alignment_id(each) == alignment]
    chosen = chosen or [each for each in fitting if alignment_id(each) is None]
    shapes = sorted({(int(each.size_z), int(each.size_y), int(each.size_x)) for each in chosen})
    if len(shapes) == 1:
        return shapes[0]
    if not shapes:
        raise InputError(
            f"the portal has points in voxels of {voxel_size_angstrom:g} Å, but no tomogram of this size and of the "
            f"alignment {alignment}: their places cannot be told; leave them out by --no-particles"
        )
    there = ", ".join(f"{each.id} of {each.size_z} x {each.size_y} x {each.size_x} (z, y, x)" for each in chosen[:6])
    raise InputError(
        f"the portal has points in voxels of {voxel_size_angstrom:g} Å of the alignment {alignment}, and tomograms of "
        f"several shapes at this size ({there}): in which of them the points are is not told; leave them out by "
        "--no-particles"
    )


def _same_size(a: float, b: float) -> bool:
    return abs(a / b - 1) <= SIZE_TOLERANCE


@contextmanager
def _fetched(folder: Path, fetch: Callable[[Path], None], what: str) -> Iterator[Path]:
    """The only file that a function of the library brings into a folder, which then goes away."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".portal-") as place:
        with asked(what):
            fetch(Path(place))
        files = sorted(path for path in Path(place).rglob("*") if path.is_file())
        if len(files) != 1:
            raise InputError(f"the CryoET Data Portal gave {len(files)} files for {what}, expected one; try again")
        yield files[0]
