"""``cryolithe info``: what a file holds."""

from __future__ import annotations

import itertools
import json
import math
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from cryolithe.errors import CryoLitheError, FileFormatError
from cryolithe.formats import MrcArray, RunningStatistics, read_angles_deg, read_mrc, read_series_list
from cryolithe.formats.files import input_size_bytes, printable, read_text, unreadable

SAMPLED_SECTIONS = 64
MRC_SUFFIXES = (".mrc", ".mrcs", ".st", ".ali", ".rec", ".map", ".preali")
ANGLE_SUFFIXES = (".tlt", ".rawtlt", ".txt")
WIDEST_LINE = 200
TENSOR_HEADER_LIMIT_BYTES = 100_000_000  # that of the safetensors format
JSON_LIMIT_BYTES = 50_000_000
MOST_DATASETS = 1000


@dataclass(frozen=True)
class Fact:
    """One entry of the answer: what a program reads, and the line or lines that a person reads instead."""

    name: str
    value: Any
    text: str | list[str] | None = None

    @property
    def title(self) -> str:
        """The name for people: their text carries the unit."""
        return re.sub("_(angstrom|deg|bytes)$", "", self.name).replace("_", " ")

    @property
    def lines(self) -> list[str]:
        """The text for people; empty for an empty list."""
        shown = self.value if self.text is None else self.text
        return [str(line) for line in shown] if isinstance(shown, list) else [str(shown)]


@click.command("info")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per file.")
def command(files: tuple[Path, ...], as_json: bool) -> None:
    """Say what files hold: stacks, volumes, angles, series lists, models, sidecars, HDF5.

    A file that cannot be read does not stop the others; the exit code is then 2.

    \b
    Examples
      cryolithe info tilts.mrc angles.tlt
      cryolithe info tomogram_rec.mrc --json
    """
    answers: list[dict[str, Any]] = []
    failed = 0
    for number, path in enumerate(files):
        try:
            facts = describe(path)
        except CryoLitheError as error:
            if len(files) == 1:
                raise
            failed += 1
            click.echo(f"Error: {error}", err=True)
            answers.append({"file": str(path), "error": str(error)})
            continue
        if as_json:
            answers.append({fact.name: _jsonable(fact.value) for fact in facts})
            continue
        if number:
            click.echo()
        _echo(path, facts)
    if as_json:
        click.echo(json.dumps(answers, indent=2, allow_nan=False))
    if failed:
        raise click.exceptions.Exit(2)


def describe(path: Path) -> list[Fact]:
    """Return the facts about one file.

    Raises:
        InputError: if it cannot be read or is none of the known kinds.
    """
    size = input_size_bytes(path)
    suffix = path.suffix.lower()
    describer = _DESCRIBERS.get(suffix, _mrc_facts)
    facts = describer(path)
    return [Fact("file", str(path)), *facts, Fact("size_on_disk", size, _bytes_text(size))]


def _echo(path: Path, facts: list[Fact]) -> None:
    click.echo(printable(str(path)))
    shown = [fact for fact in facts if fact.name != "file"]
    width = max(len(fact.title) for fact in shown) + 2
    for fact in shown:
        for title, line in itertools.zip_longest([fact.title], fact.lines or ["none"], fillvalue=""):
            click.echo(f"  {title:<{width}}{printable(line)[:WIDEST_LINE]}".rstrip())


def _jsonable(value: Any) -> Any:
    """Return ``value`` with None for the numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    return [_jsonable(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _bytes_text(size: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _mrc_facts(path: Path) -> list[Fact]:
    try:
        mrc = read_mrc(path)
    except FileFormatError as error:
        if path.suffix.lower() in (*MRC_SUFFIXES, ".gz", ".bz2"):
            raise
        known = ", ".join([*MRC_SUFFIXES, *_DESCRIBERS])
        raise FileFormatError(f"{path} is of no known kind; expected MRC data or one of the endings {known}") from error
    depth, rows, columns = mrc.data.shape
    pixel = mrc.voxel_size_angstrom
    return [
        Fact("kind", _mrc_kind(mrc, path)),
        Fact("shape", [depth, rows, columns], f"{depth} × {rows} × {columns} (z or tilt, y, x)"),
        Fact("dtype", mrc.data.dtype.name, f"{mrc.data.dtype.name} (MRC mode {mrc.mode})"),
        Fact("pixel_size_angstrom", pixel, "unknown (0 in the header)" if pixel is None else f"{pixel:g} Å"),
        *_value_facts(mrc.data),
        Fact(
            "origin_angstrom",
            list(mrc.origin_angstrom),
            ", ".join(f"{o:g}" for o in mrc.origin_angstrom) + " Å (z, y, x)",
        ),
        Fact("space_group", mrc.ispg, f"{mrc.ispg} (mz {mrc.mz})"),
        Fact("byte_order", mrc.byte_order),
        Fact("extended_header_bytes", mrc.extended_header_bytes, _bytes_text(mrc.extended_header_bytes)),
        Fact("labels", list(mrc.labels)),
        Fact("notes", list(mrc.notes)),
    ]


def _mrc_kind(mrc: MrcArray, path: Path) -> str:
    if mrc.data.shape[0] == 1:
        return "image"
    if mrc.ispg > 0:
        # Many programs mark tilt stacks as volumes; the name then knows better.
        return "tilt stack (by its name; marked as a volume)" if _named_stack(path) else "volume"
    if mrc.mz == 1 or _named_stack(path):
        return "tilt stack"
    return "tilt stack or volume (the header does not say)"


def _named_stack(path: Path) -> bool:
    return path.suffix.lower() in (".st", ".ali", ".mrcs", ".preali") or path.stem.endswith("_ali")


def _value_facts(data: np.ndarray[Any, Any]) -> list[Fact]:
    """Statistics of the finite values in sections spread evenly over the file."""
    sections = np.unique(np.linspace(0, len(data) - 1, min(len(data), SAMPLED_SECTIONS)).round().astype(int))
    running, not_finite = RunningStatistics(), 0
    for section in sections:
        plane = np.asarray(data[section])
        finite = np.isfinite(plane)
        kept = int(np.count_nonzero(finite))
        not_finite += plane.size - kept
        running.add(plane if kept == plane.size else plane[finite])
    found = running.result()
    values = {"minimum": found.minimum, "maximum": found.maximum, "mean": found.mean, "std": found.rms}
    return [
        *(Fact(name, value, f"{value:.6g}") for name, value in values.items()),
        Fact("non_finite_pixels", not_finite),
        Fact("sampled_sections", len(sections), f"{len(sections)} of {len(data)}, for the five values above"),
    ]


def _angle_facts(path: Path) -> list[Fact]:
    angles = read_angles_deg(path)
    distinct = sorted(set(angles))
    step = statistics.median(b - a for a, b in itertools.pairwise(distinct)) if len(distinct) > 1 else None
    twice = [angle for angle in distinct if angles.count(angle) > 1]
    return [
        Fact("kind", "tilt angles"),
        Fact("angles", len(angles)),
        Fact("range_deg", [distinct[0], distinct[-1]], f"{distinct[0]:g}° to {distinct[-1]:g}°"),
        Fact("median_step_deg", step, "-" if step is None else f"{step:.4g}°"),
        Fact("order", angle_order(angles)),
        Fact("duplicates_deg", twice, ", ".join(f"{angle:g}°" for angle in twice) or "none"),
    ]


def angle_order(angles: tuple[float, ...]) -> str:
    """Name the order of tilt angles: ascending, descending, dose-symmetric-like or mixed."""
    steps = np.diff(angles)
    if (steps >= 0).all():
        return "ascending"
    if (steps <= 0).all():
        return "descending"
    # Dose-symmetric: from the first angle outwards, to both sides. Half a step of slack for refined angles.
    outward = np.abs(np.asarray(angles) - angles[0])
    sides = np.sign(np.asarray(angles[1:]) - angles[0])
    slack = 0.5 * float(np.median(np.diff(np.unique(angles))))
    if (np.diff(outward) >= -slack).all() and {-1, 1} <= set(sides.tolist()):
        return "dose-symmetric-like"
    return "mixed"


def _series_list_facts(path: Path) -> list[Fact]:
    entries = read_series_list(path)
    missing = [str(file) for entry in entries for file in (entry.tilts, entry.angles) if file and not file.exists()]
    settings = sorted({name for entry in entries for name in entry.settings})
    return [
        Fact("kind", "list of tilt series"),
        Fact("series", len(entries)),
        Fact("settings", settings, ", ".join(settings) or "none"),
        Fact("missing_files", missing),
    ]


def _json_facts(path: Path) -> list[Fact]:
    try:
        content = json.loads(read_text(path, "a JSON file", JSON_LIMIT_BYTES))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path} is not a sidecar: expected a JSON object, found a {type(content).__name__}")
    return [Fact("kind", "JSON sidecar"), Fact("content", content, _key_lines(content))]


def _key_lines(content: dict[str, Any]) -> list[str]:
    """One line per key, down to the keys of objects in the object."""
    entries: list[tuple[str, Any]] = []
    for key, value in content.items():
        inner = [(f"{key}.{name}", entry) for name, entry in value.items()] if isinstance(value, dict) else []
        entries += inner or [(key, value)]
    width = max((len(key) for key, _ in entries), default=0)
    return [f"{key:<{width}}  {_short(value)}" for key, value in entries]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{len(value)} keys}}"
    if isinstance(value, list) and len(value) > 6:
        return f"[{len(value)} items]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _safetensors_facts(path: Path) -> list[Fact]:
    header, data_bytes = _safetensors_header(path)
    metadata = header.pop("__metadata__", {})
    try:
        parameters = sum(math.prod(tensor["shape"]) for tensor in header.values())
        dtypes = sorted({str(tensor["dtype"]) for tensor in header.values()})
        expected = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
        metadata = {str(key): str(value) for key, value in metadata.items()}
        counted = f"{int(parameters):,}"
    except (TypeError, KeyError, IndexError, ValueError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"{path} is damaged: its list of tensors cannot be read; copy it again") from error
    if expected != data_bytes:
        raise FileFormatError(
            f"{path} is damaged: its tensors need {expected} bytes, found {data_bytes}; copy it again"
        )
    return [
        Fact("kind", "model weights (safetensors)"),
        Fact("tensors", len(header)),
        Fact("parameters", parameters, counted),
        Fact("dtypes", dtypes, ", ".join(dtypes) or "none"),
        Fact("metadata", metadata, _key_lines(metadata)),
    ]


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the JSON header and the number of bytes behind it, without reading a tensor.

    Read by hand (8 bytes little-endian length, then JSON), so that the message can say what is wrong.
    """
    size = input_size_bytes(path)
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, TENSOR_HEADER_LIMIT_BYTES):
                raise FileFormatError(
                    f"{path} is not a safetensors file: expected a header of {length} bytes in {size} bytes"
                )
            header = json.loads(stream.read(length))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is not a safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise FileFormatError(f"{path} is not a safetensors file: its header is not a JSON object")
    return header, size - 8 - length


def _hdf5_facts(path: Path) -> list[Fact]:
    import h5py

    lines: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            lines.append(f"{name}  {tuple(item.shape or ())} {item.dtype}")
        return True if len(lines) >= MOST_DATASETS else None  # anything but None ends the visit

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
            attributes = sorted(map(str, file.attrs))
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} is not a readable HDF5 file: {printable(str(error))}") from error
    return [
        Fact("kind", "HDF5"),
        Fact("datasets", lines),
        Fact("attributes", attributes, ", ".join(attributes) or "none"),
    ]


_DESCRIBERS: dict[str, Callable[[Path], list[Fact]]] = {
    **dict.fromkeys(ANGLE_SUFFIXES, _angle_facts),
    ".csv": _series_list_facts,
    ".json": _json_facts,
    ".safetensors": _safetensors_facts,
    ".h5": _hdf5_facts,
    ".hdf5": _hdf5_facts,
}
