"""``cryolithe info`` on what describes images: metadata, alignments, command files, STAR tables."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.alignment.bends_told import relion_local_fact, relion_series_facts
from cryolithe.formats.alignment.tomogram_star import MOVIE, find_image, find_named
from cryolithe.formats.alignment.warp import warp_facts
from cryolithe.formats.facts import Fact, range_fact
from cryolithe.formats.files import finite_numbers, read_text
from cryolithe.formats.microscope.ctf_text import has_columns, read_columns
from cryolithe.formats.microscope.defocus_views import is_views, read_views
from cryolithe.formats.microscope.doses import exposures_in_passing
from cryolithe.formats.particles.particle_columns import tomogram_column
from cryolithe.formats.reading import Reading
from cryolithe.formats.stacks.mdoc import read_mdoc_angles_deg
from cryolithe.formats.stacks.mdoc_text import read_mdoc_text
from cryolithe.formats.star_tables import StarTable, read_star

LIMIT_BYTES = 50_000_000
_SHOWN = 6
# Columns of RELION's tables.
_NAME, _SERIES, _IMAGE, _VOLUME = (
    "rlnTomoName", "rlnTomoTiltSeriesStarFile", "rlnMicrographName", "rlnTomoReconstructedTomogram",
)  # fmt: skip
_POSITIONS = ("rlnCenteredCoordinateXAngst", "rlnCoordinateX")
_ANGLES = ("rlnTomoYTilt", "rlnTomoNominalStageTiltAngle")


def mdoc_facts(path: Path) -> list[Fact]:
    """SerialEM's metadata of a stack."""
    text = read_text(path, "an .mdoc file", LIMIT_BYTES)
    head = dict(re.findall(r"^\s*(\w+)\s*=\s*(.*?)\s*$", text.partition("[ZValue")[0], re.MULTILINE))
    angles = read_mdoc_angles_deg(path)
    axis = read_mdoc_text(path).axis_deg
    doses = finite_numbers(re.findall(r"^\s*ExposureDose\s*=\s*([\d.]+)\s*$", text, re.MULTILINE)) or []
    pixel = head.get("PixelSpacing") or next(
        iter(re.findall(r"^\s*PixelSpacing\s*=\s*(\S+)", text, re.MULTILINE)), None
    )
    return [
        Fact("kind", "SerialEM metadata of a tilt series (.mdoc)"),
        Fact("images", len(angles)),
        range_fact(angles),
        Fact("tilt_axis_deg", axis, "not told" if axis is None else f"{axis:g}°"),
        Fact("pixel_size_angstrom", pixel, "not told" if pixel is None else f"{pixel} Å"),
        Fact("image_file", head.get("ImageFile"), head.get("ImageFile") or "not told"),
        Fact("dose", sum(doses), f"{sum(doses):g} e/Å² in {len(doses)} images" if any(doses) else "not told"),
        *dose_facts(path),
    ]


def tells_defocus(path: Path) -> bool:
    """Whether a text file is one of defocus values: by its columns' names, the name that AreTomo3 gives it, or rows."""
    return path.name.lower().endswith("_ctf_imod.txt") or has_columns(path) or is_views(path)


def dose_facts(path: Path) -> list[Fact]:
    """The doses before the images of an .mdoc or of AreTomo3's _TLT.txt, as they are weighed by."""
    found = exposures_in_passing(path, path, Reading())
    ends = [min(found.doses), max(found.doses)] if found.doses else None
    line = found.dose_problem or ("not told" if ends is None else f"{ends[0]:g} to {ends[1]:g} e/Å²")
    return [Fact("dose_before_images", ends, [line, *found.notes])]


def defocus_facts(path: Path) -> list[Fact]:
    """A table of CTFFIND or AreTomo3, or IMOD's .defocus."""
    if path.suffix.lower() != ".defocus" and has_columns(path):
        table = read_columns(path)
        program = "AreTomo3" if table.sorted_by_angle else "CTFFIND"
        images, voltage, of_angles = table.ctf.images, table.ctf.microscope.voltage_kv, []
    else:
        views = read_views(path)
        program, images, voltage = "IMOD (.defocus)", tuple(row.ctf for row in views), None
        of_angles = [range_fact([angle for row in views for angle in (row.low_deg, row.high_deg)])]
    defocus, shifts = ([(i.u_um + i.v_um) / 2 for i in images], [image.phase_shift_deg for image in images])
    return [
        Fact("kind", f"defocus of the images of a stack, by {program}"),
        Fact("rows", len(images)),
        *of_angles,
        Fact("defocus_um", [min(defocus), max(defocus)], f"{min(defocus):.4g} to {max(defocus):.4g} µm"),
        Fact("phase_shift_deg", [min(shifts), max(shifts)], f"{min(shifts):.4g}° to {max(shifts):.4g}°"),
        Fact("voltage_kv", voltage, "not told" if voltage is None else f"{voltage:g} kV"),
    ]


def star_facts(path: Path) -> list[Fact]:
    """A STAR file: tomograms, the images of a series, particles, or any other tables.

    Raises:
        FileFormatError: if it holds no table.
        InputError: if a column of angles is empty.
    """
    tables = read_star(path)
    series = [table for table in tables if _IMAGE in table and any(column in table for column in _ANGLES)]
    if len(series) > 1 and not any(_SERIES in table for table in tables):
        return _several_series_facts(series)
    for table in tables:
        if _SERIES in table:
            return _tomogram_facts(table)
        if any(column in table for column in _POSITIONS):
            return _particle_facts(table)
        if _IMAGE in table and any(column in table for column in _ANGLES):
            return _series_facts(table)
        if MOVIE in table and any(column in table for column in _ANGLES):
            return _movie_facts(table)
        if "wrpAngleTilt" in table:
            return warp_facts(path)
    if not tables:
        raise FileFormatError(f"{path} holds no table; expected a STAR file")
    return [
        Fact("kind", "STAR file"),
        Fact("tables", [table.block for table in tables],
             [f"{table.block or '(no name)'}: {len(table)} rows, {len(table.names)} columns" for table in tables]),
    ]  # fmt: skip


def _tomogram_facts(table: StarTable) -> list[Fact]:
    names = _column(table, _NAME)
    missing = [name for name in table.text(_SERIES) if find_named(table.path, name) is None]
    volumes = [name for name in _column(table, _VOLUME) if name not in ("", "None")]
    return [
        Fact("kind", "table of tilt series or tomograms (RELION-5)"),
        Fact("series", len(table)),
        Fact("names", names, _some(names)),
        Fact("volumes", len(volumes)),
        Fact("missing_files", missing, _lines(missing)),
        *relion_series_facts(table),
    ]


def _series_facts(table: StarTable) -> list[Fact]:
    images = table.text(_IMAGE)
    stacks = sorted({image.partition("@")[2] for image in images if "@" in image})
    missing = [image for image in stacks or images if (find_named if stacks else find_image)(table.path, image) is None]
    column = next(column for column in _ANGLES if column in table)
    angles = table.numbers(column).tolist()
    if not angles:
        raise InputError(f"{table.path}: {column} holds no value")
    aligned = all(column in table for column in ("rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst"))
    return [
        Fact("kind", "images of a tilt series (RELION-5)"),
        Fact("series", table.block),
        Fact("images", len(table)),
        range_fact(angles),
        Fact("angles_from", column),
        Fact("aligned", aligned, "yes" if aligned else "no: it lacks rlnTomoZRot and shifts"),
        Fact("stacks", stacks, _some(stacks) if stacks else "none: one file for each image"),
        Fact("missing_files", missing, _lines(missing)),
        relion_local_fact(table),
    ]


def _movie_facts(table: StarTable) -> list[Fact]:
    """A series as RELION imports it: of movies, which are no images yet."""
    column = next(column for column in _ANGLES if column in table)
    return [
        Fact("kind", "movies of a tilt series, not corrected or aligned yet (RELION-5)"),
        Fact("series", table.block),
        Fact("movies", len(table)),
        range_fact(table.numbers(column).tolist()),
    ]


def _several_series_facts(tables: list[StarTable]) -> list[Fact]:
    """The tables of several series in one file: what each holds."""
    found = [(table.block, _series_facts(table)) for table in tables]
    told = [{fact.name: fact.value for fact in facts if fact.name != "kind"} for _, facts in found]
    lines = []
    for block, facts in found:
        text = {fact.name: fact.lines[0] if fact.lines else "none" for fact in facts}
        aligned = "aligned" if text["aligned"] == "yes" else "not aligned"
        lines.append(f"{block or '(no name)'}: {text['images']} images, {text['range_deg']}, {aligned}")
    missing = [name for facts in told for name in facts["missing_files"]]
    return [
        Fact("kind", "images of several tilt series (RELION-5)"),
        Fact("series", [block for block, _ in found], _lines(lines)),
        Fact("tables", told, f"{len(found)}, of which the stack's name tells one"),
        Fact("missing_files", missing, _lines(missing)),
    ]


def _particle_facts(table: StarTable) -> list[Fact]:
    tomograms = Counter(_column(table, tomogram_column(table) or _NAME))
    kind = next((column for column in ("cryolitheMolecule", "rlnClassNumber") if column in table), "")
    kinds = Counter(_column(table, kind))
    centred = _POSITIONS[0] in table
    return [
        Fact("kind", "particles"),
        Fact("particles", len(table)),
        Fact("tomograms", dict(tomograms), [f"{name}: {count}" for name, count in tomograms.most_common(_SHOWN)]),
        Fact("kinds", dict(kinds), [f"{name}: {count}" for name, count in kinds.most_common(_SHOWN)]),
        Fact("coordinates", "centred, Å" if centred else "pixels"),
    ]


def _column(table: StarTable, name: str) -> list[str]:
    return table.text(name) if name in table else []


def _lines(names: list[str]) -> list[str]:
    return names[:_SHOWN] + ([f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
