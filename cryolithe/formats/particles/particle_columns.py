"""What the columns of RELION's particle tables tell: whose the particles are, how large their pixels are, their shifts.

In RELION 4 and 5 ``rlnCoordinateX`` counts pixels of the tilt series that is not binned (rlnTomoTiltSeriesPixelSize, in
the table of optics groups), whatever the size of the particles' images (rlnImagePixelSize). Older tables tell the size
by rlnDetectorPixelSize and rlnMagnification (Warp, M), or by rlnPixelSize, or not at all: then they mean voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.formats.files import printable
from cryolithe.formats.series_names import matching_name, possible_names, tells_series, without_ending
from cryolithe.formats.star_tables import StarTable

TOMOGRAM, MICROGRAPH = "rlnTomoName", "rlnMicrographName"
UNBINNED, IMAGES, GROUP = "rlnTomoTiltSeriesPixelSize", "rlnImagePixelSize", "rlnOpticsGroup"
DETECTOR, MAGNIFICATION = "rlnDetectorPixelSize", "rlnMagnification"
SAME_SIZE = 0.01  # relative: sizes are often written with three digits
SIZES_ANGSTROM = (1e-2, 1e4)  # of pixels; a size beyond tells nothing

FloatArray = NDArray[np.float64]


def tomogram_column(table: StarTable) -> str | None:
    """The column that tells whose the particles are, or None: micrographs where there is no name of a tomogram."""
    for column in (TOMOGRAM, MICROGRAPH):
        if column in table and any(name not in ("", "None") for name in table.text(column)):
            return column
    return None


def rows_of_tomogram(table: StarTable, name: str) -> tuple[str, list[int], tuple[str, ...]]:
    """A volume's tomogram, its rows, and what to tell; the only tomogram where names tell nothing.

    Names of micrographs are names of files, which may be called anyhow: the only one is taken, which is told.

    Args:
        table: of particles.
        name: of the volume's file, see `matching_name`.

    Raises:
        InputError: if the table's tomograms have other names.
    """
    column = tomogram_column(table)
    if column is None:
        return "", list(range(len(table))), ()
    of_rows = table.text(column)
    tomograms = sorted(set(of_rows))
    chosen = matching_name(tomograms, name)
    if chosen is None and column == MICROGRAPH:  # it names a file, to whose name programs added something, too
        ours = set(possible_names(name))
        fitting = [each for each in tomograms if ours & set(possible_names(each))]
        chosen = fitting[0] if len(fitting) == 1 else None
    notes: tuple[str, ...] = ()
    told = tells_series(name)
    if chosen is None and len(tomograms) == 1 and (column == MICROGRAPH or not told):
        chosen = tomograms[0]
        if told and tells_series(chosen):
            notes = (f"Particles of {table.path.name} are of {printable(chosen)[:100]}; {name} is taken for it.",)
    if chosen is None:
        shown = printable(", ".join(tomograms[:4]) + (", ..." if len(tomograms) > 4 else ""))[:200]
        held = f"particles of {len(tomograms)} tomograms ({shown})" if len(tomograms) > 1 else f"particles of {shown}"
        raise InputError(
            f"{table.path} holds {held}, but no particles of {without_ending(name)}, as the volume {name} is called; "
            f"give the particles of this tomogram (its name as {column}), or call the volume "
            f"{without_ending(tomograms[0])}_rec.mrc if it is that one"
        )
    return chosen, [row for row in range(len(table)) if of_rows[row] == chosen], notes


def pixel_sizes_angstrom(
    tables: Sequence[StarTable], table: StarTable, rows: Sequence[int], voxel_size_angstrom: float | None
) -> tuple[FloatArray, str] | None:
    """Size of the pixels that ``rlnCoordinateX`` counts, of each row, and the column that tells it.

    Args:
        tables: of the file, among which that of the optics groups may be.
        table: of particles.
        rows: of the table.
        voxel_size_angstrom: edge of a voxel of the volume; sizes that differ are no matter where it is not known.

    Returns:
        None where the table does not tell, and the coordinates count voxels.

    Raises:
        InputError: if columns contradict each other, or tell the size of the particles' images alone and that is not
            the volume's.
    """
    for column in (UNBINNED, "rlnMicrographPixelSize"):  # these are said of what the coordinates count
        if (sizes := _told(tables, table, rows, column)) is not None and _is_size(sizes):
            return sizes, column
    found = {name: _told(tables, table, rows, name) for name in ("rlnPixelSize", DETECTOR)}
    if (detector := found[DETECTOR]) is not None:
        # µm of the detector by the magnification; without that it is Å (pytom-match-pick), as with Warp's 10000.
        magnification = _told(tables, table, rows, MAGNIFICATION)
        with np.errstate(over="ignore"):  # such a size tells nothing
            found[DETECTOR] = detector if magnification is None else detector * (1e4 / magnification)
    told = {name: of_rows for name, of_rows in found.items() if of_rows is not None and _is_size(of_rows)}
    images = _told(tables, table, rows, IMAGES)
    voxel = voxel_size_angstrom
    if not told:
        if images is None or voxel is None or not _is_size(images) or _same(images, voxel):
            return None
        raise _refused(table, f"the particles' images have pixels of {_shown(images)} ({IMAGES})", voxel)
    first, *others = told
    for other in others:
        if voxel_size_angstrom is not None and not _same(told[other], told[first]):
            raise _refused(
                table,
                f"it tells {_shown(told[first])} ({first}) and {_shown(told[other])} ({other})",
                voxel_size_angstrom,
            )
    return told[first], first


def origins_zyx(table: StarTable, rows: Sequence[int], unit: str) -> FloatArray | None:
    """What is to be subtracted from the coordinates, shape ``(N, 3)`` in z, y, x; None where there is nothing.

    A turn of the subtomogram (rlnTomoSubtomogramRot) turns its shift, too, as RELION does it.

    Args:
        table: of particles.
        rows: of the table.
        unit: ``Angst`` for Å, empty for pixels (RELION 3.0 and older).
    """
    columns = [f"rlnOrigin{axis}{unit}" for axis in "XYZ"]
    if not any(column in table for column in columns):
        return None
    none = np.zeros(len(table))
    shifts = np.stack([table.numbers(column) if column in table else none for column in columns], axis=-1)[list(rows)]
    turns = [f"rlnTomoSubtomogram{angle}" for angle in ("Rot", "Tilt", "Psi")]
    if all(column in table for column in turns) and len(rows):
        from scipy.spatial.transform import Rotation

        angles = np.stack([table.numbers(column) for column in turns], axis=-1)[list(rows)]
        # RELION's matrix of the three angles is the inverse of the intrinsic rotation about z, y and z.
        shifts = Rotation.from_euler("ZYZ", angles, degrees=True).inv().apply(shifts)
    return np.asarray(shifts[:, ::-1], dtype=np.float64) if shifts.any() else None


def _told(tables: Sequence[StarTable], table: StarTable, rows: Sequence[int], column: str) -> FloatArray | None:
    """A size of each row, from the table itself or from the optics groups; None where there is none above 0."""
    sizes = table.numbers(column)[list(rows)] if column in table else _of_groups(tables, table, rows, column)
    return sizes if sizes is not None and len(sizes) and bool((sizes > 0).all()) else None


def _of_groups(tables: Sequence[StarTable], table: StarTable, rows: Sequence[int], column: str) -> FloatArray | None:
    other = next((t for t in tables if t is not table and column in t and len(t)), None)
    if other is None:
        return None
    sizes = other.numbers(column)
    if _same(sizes, sizes[0]):
        return np.full(len(rows), sizes[0])
    of_group = dict(zip(other.text(GROUP), sizes.tolist(), strict=True)) if GROUP in other else {}
    groups = table.text(GROUP) if GROUP in table else [""] * len(table)
    if missing := sorted({groups[row] for row in rows} - of_group.keys()):
        raise InputError(
            f"{table.path} tells {len(set(sizes.tolist()))} pixel sizes ({column}), but not which one the particles of "
            f"the optics group '{printable(missing[0])[:40]}' have; give them a group of the table ({GROUP})"
        )
    return np.array([of_group[groups[row]] for row in rows])


def _is_size(sizes: FloatArray) -> bool:
    return bool(((sizes >= SIZES_ANGSTROM[0]) & (sizes <= SIZES_ANGSTROM[1])).all())


def _same(sizes: FloatArray, other: FloatArray | float) -> bool:
    return bool((np.abs(sizes - other) <= SAME_SIZE * np.abs(other)).all())


def _shown(sizes: FloatArray) -> str:
    return " and ".join(f"{size:g}" for size in sorted(set(sizes.tolist()))[:3]) + " Å"


def _refused(table: StarTable, found: str, voxel_size_angstrom: float) -> InputError:
    return InputError(
        f"{table.path}: the size of the pixels that rlnCoordinateX counts is not known: {found}, the volume has voxels "
        f"of {voxel_size_angstrom:g} Å; tell the size of the coordinates' pixels as a column {UNBINNED}, in Å"
    )
