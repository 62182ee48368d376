"""``cryolithe info`` on what describes images: metadata, alignments, command files, STAR tables."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from cryolithe.errors import FileFormatError, InputError
from cryolithe.formats.alignment_warp import warp_facts
from cryolithe.formats.facts import Fact, range_fact
from cryolithe.formats.files import printable, read_text
from cryolithe.formats.mdoc import read_mdoc_angles_deg
from cryolithe.formats.tomogram_star import find_named

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
    axis = re.search(r"[Tt]ilt axis(?: angle)?\s*=\s*([-+]?\d+(?:\.\d*)?)", text)
    doses = [float(dose) for dose in re.findall(r"^\s*ExposureDose\s*=\s*([\d.]+)\s*$", text, re.MULTILINE)]
    pixel = head.get("PixelSpacing") or next(
        iter(re.findall(r"^\s*PixelSpacing\s*=\s*(\S+)", text, re.MULTILINE)), None
    )
    return [
        Fact("kind", "SerialEM metadata of a tilt series (.mdoc)"),
        Fact("images", len(angles)),
        range_fact(angles),
        Fact("tilt_axis_deg", float(axis[1]) if axis else None, f"{float(axis[1]):g}°" if axis else "not told"),
        Fact("pixel_size_angstrom", pixel, "not told" if pixel is None else f"{pixel} Å"),
        Fact("image_file", head.get("ImageFile"), head.get("ImageFile") or "not told"),
        Fact("dose", sum(doses), f"{sum(doses):g} e/Å² in {len(doses)} images" if any(doses) else "not told"),
    ]


def star_facts(path: Path) -> list[Fact]:
    """A STAR file: tomograms, the images of a series, particles, or any other tables."""
    tables = _tables(path)
    for name, tags, rows in tables:
        if _SERIES in tags:
            return _tomogram_facts(path, tags, rows)
        if any(tag in tags for tag in _POSITIONS):
            return _particle_facts(tags, rows)
        if _IMAGE in tags and any(tag in tags for tag in _ANGLES):
            return _series_facts(path, name, tags, rows)
        if "wrpAngleTilt" in tags:
            return warp_facts(path)
    return [
        Fact("kind", "STAR file"),
        Fact("tables", [name for name, _, _ in tables],
             [f"{name or '(no name)'}: {len(rows)} rows, {len(tags)} columns" for name, tags, rows in tables]),
    ]  # fmt: skip


def _tables(path: Path) -> list[tuple[str, list[str], list[list[str]]]]:
    """Name, column names and rows of each table; one of names and values has one row."""
    from gemmi import cif

    text = read_text(path, "a STAR file", LIMIT_BYTES)
    try:
        document: Any = cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise FileFormatError(f"{path} is not a STAR file: {printable(str(error))[:160]}") from error
    found = []
    for block in document:
        pairs = [tuple(item.pair) for item in block if item.pair is not None]
        if pairs:
            found.append((block.name, [tag[1:] for tag, _ in pairs], [[cif.as_string(value) for _, value in pairs]]))
        for item in block:
            if item.loop is not None:
                tags = [tag[1:] for tag in item.loop.tags]
                values = [cif.as_string(value) for value in item.loop.values]
                found.append((block.name, tags, [values[n : n + len(tags)] for n in range(0, len(values), len(tags))]))
    if not found:
        raise FileFormatError(f"{path} holds no table; expected a STAR file")
    return found


def _tomogram_facts(path: Path, tags: list[str], rows: list[list[str]]) -> list[Fact]:
    series = _column(tags, rows, _SERIES)
    names = _column(tags, rows, _NAME)
    missing = [name for name in series if find_named(path, name) is None]
    volumes = [name for name in _column(tags, rows, _VOLUME) if name not in ("", "None")]
    return [
        Fact("kind", "table of tilt series or tomograms (RELION-5)"),
        Fact("series", len(rows)),
        Fact("names", names, _some(names)),
        Fact("volumes", len(volumes)),
        Fact("missing_files", missing, _lines(missing)),
    ]


def _series_facts(path: Path, name: str, tags: list[str], rows: list[list[str]]) -> list[Fact]:
    images = _column(tags, rows, _IMAGE)
    stacks = sorted({image.partition("@")[2] for image in images if "@" in image})
    missing = [image for image in (stacks or images) if find_named(path, image) is None]
    column = next(tag for tag in _ANGLES if tag in tags)
    angles = _floats(path, column, _column(tags, rows, column))
    aligned = {"rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst"} <= set(tags)
    return [
        Fact("kind", "images of a tilt series (RELION-5)"),
        Fact("series", name),
        Fact("images", len(rows)),
        range_fact(angles),
        Fact("angles_from", column),
        Fact("aligned", aligned, "yes" if aligned else "no: it lacks rlnTomoZRot and shifts"),
        Fact("stacks", stacks, _some(stacks) if stacks else "none: one file for each image"),
        Fact("missing_files", missing, _lines(missing)),
    ]


def _particle_facts(tags: list[str], rows: list[list[str]]) -> list[Fact]:
    tomograms = Counter(_column(tags, rows, _NAME))
    kind = next((tag for tag in ("cryolitheMolecule", "rlnClassNumber") if tag in tags), "")
    kinds = Counter(_column(tags, rows, kind))
    centred = _POSITIONS[0] in tags
    return [
        Fact("kind", "particles"),
        Fact("particles", len(rows)),
        Fact("tomograms", dict(tomograms), [f"{name}: {count}" for name, count in tomograms.most_common(_SHOWN)]),
        Fact("kinds", dict(kinds), [f"{name}: {count}" for name, count in kinds.most_common(_SHOWN)]),
        Fact("coordinates", "centred, Å" if centred else "pixels"),
    ]


def _column(tags: list[str], rows: list[list[str]], name: str) -> list[str]:
    return [row[tags.index(name)] for row in rows] if name in tags else []


def _floats(path: Path, column: str, words: list[str]) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise FileFormatError(f"{path}: {column} holds what is no number: {printable(str(error))[:80]}") from error
    if not values or not all(map(math.isfinite, values)):
        raise InputError(f"{path}: {column} holds {'no value' if not values else 'a value that is not finite'}")
    return values


def _lines(names: list[str]) -> list[str]:
    return names[:_SHOWN] + ([f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else [])


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
