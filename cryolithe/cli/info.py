"""``cryolithe info``: what a file holds."""

from __future__ import annotations

import itertools
import json
import math
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from cryolithe.cli.info_arrays import mrc_facts, volume_facts
from cryolithe.cli.info_outputs import made_facts, page_facts, picture_facts, record_told, run_facts
from cryolithe.cli.info_tables import defocus_facts, dose_facts, mdoc_facts, star_facts, tells_defocus
from cryolithe.cli.plain import plain
from cryolithe.errors import CryoLitheError, FileFormatError, InputError
from cryolithe.files.names import exists
from cryolithe.files.yaml_table import read_yaml_table
from cryolithe.formats import read_angles_deg, read_series_list
from cryolithe.formats.alignment.alignments import FORMATS
from cryolithe.formats.facts import Fact, bytes_text, range_fact
from cryolithe.formats.files import input_size_bytes, printable, read_text, unreadable
from cryolithe.formats.microscope.doses import is_acquired
from cryolithe.formats.reading import Reading
from cryolithe.formats.series.not_stacks import what_else
from cryolithe.formats.series.session_folder import NoSeriesError, read_session_folder
from cryolithe.formats.stacks.angles import FEWEST_COUNTED, angles_in_one_line
from cryolithe.formats.volumes.ome_zarr_reader import is_ome_zarr

MRC_SUFFIXES = (".mrc", ".mrcs", ".st", ".ali", ".rec", ".map", ".preali")
ANGLE_SUFFIXES = (".tlt", ".rawtlt", ".txt")
WIDEST_LINE = 200
TENSOR_HEADER_LIMIT_BYTES = 100_000_000  # that of the safetensors format
JSON_LIMIT_BYTES = 50_000_000
MOST_DATASETS = 1000
MOST_LINES = 20


@click.command("info")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list with one object per file.")
def command(files: tuple[Path, ...], as_json: bool) -> None:
    """Say what files hold: stacks, volumes (MRC, TIFF, OME-Zarr), angles, models, records, HDF5.

    Also metadata and alignments of SerialEM (.mdoc), IMOD (.xf, newst.com, tilt.com), AreTomo (.aln), RELION (.star)
    and Warp (.xml, .tomostar); defocus of CTFFIND, AreTomo3 and IMOD (.defocus); lists and folders of series;
    pages, pictures, tables and folders that commands leave beside a result.

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
    if path.is_dir():
        facts = _folder_facts(path)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    else:
        size = input_size_bytes(path)
        facts = _DESCRIBERS.get(path.suffix.lower(), _other_facts)(path)
    return [Fact("file", str(path)), *facts, Fact("size_on_disk", size, bytes_text(size))]


def _folder_facts(path: Path) -> list[Fact]:
    """An OME-Zarr image, planes of a volume, a session, or what a run left; of any other it is said what it lacks."""
    if is_ome_zarr(path):
        return volume_facts(path)
    reading = Reading()
    try:
        content = read_session_folder(path, reading)
    except NoSeriesError:
        if any(file.suffix.lower() in (".tif", ".tiff") for file in path.iterdir()):
            return volume_facts(path)
        if left := run_facts(path):
            return left
        raise
    from cryolithe.session.tasks import folder_pairs, folder_problems  # brings torch, which no other kind of file needs

    paired = folder_pairs(content.entries, path, reading)
    problems, told = folder_problems(content.entries, path, reading)
    notes = [*content.passed_over, *told]
    entries, left_out = content.entries, [file.name for stacks in content.reasons.values() for file in stacks]
    return [
        Fact("kind", "folder of tilt series"),
        Fact("series", len(entries)),
        Fact("stacks", [str(entry.tilts) for entry in entries], [entry.tilts.name for entry in entries[:MOST_LINES]]),
        Fact("paired", [_paired_names(stack, files) for stack, files in paired], _paired_lines(paired)),
        Fact("problems", problems),
        Fact("notes", notes, notes[:MOST_LINES]),
        Fact("left_out", left_out, ", ".join(left_out[:MOST_LINES]) or "none"),
    ]


def _paired_names(stack: Path, files: dict[str, Path]) -> dict[str, str]:
    """The same for one stack, in plain values."""
    return {"stack": str(stack), **{what: str(file) for what, file in files.items()}}


def _paired_lines(paired: list[tuple[Path, dict[str, Path]]]) -> list[str]:
    """One line for each stack: the files that `reconstruct` would take for it."""
    lines = []
    for stack, files in paired[:MOST_LINES]:
        told = ", ".join(f"{what} {os.path.relpath(file, stack.parent)}" for what, file in files.items())
        lines.append(f"{stack.name}: {told or 'nothing'}")
    return lines


def _other_facts(path: Path) -> list[Fact]:
    """MRC data of any name, or a refusal that names the kinds that are known."""
    try:
        return mrc_facts(path)
    except FileFormatError as error:
        if path.suffix.lower() in (*MRC_SUFFIXES, ".gz", ".bz2"):
            raise
        if told := what_else(path):
            raise FileFormatError(told) from error
        known = ", ".join([*MRC_SUFFIXES, *_DESCRIBERS])
        raise FileFormatError(f"{path} is of no known kind; expected MRC data or one of the endings {known}") from error


def _echo(path: Path, facts: list[Fact]) -> None:
    click.echo(plain(str(path).replace("\n", " ")))
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


def _text_facts(path: Path) -> list[Fact]:
    if is_acquired(path):
        _, *facts = _angle_facts(path)
        return [Fact("kind", "tilt angles, with order of acquisition and doses (AreTomo3)"), *facts, *dose_facts(path)]
    return defocus_facts(path) if tells_defocus(path) else _angle_facts(path)


def _angle_facts(path: Path) -> list[Fact]:
    angles = read_angles_deg(path)
    line = angles_in_one_line(path) if len(angles) == 1 else ()
    in_one_line = len(line) >= FEWEST_COUNTED
    angles = line if in_one_line else angles
    distinct = sorted(set(angles))
    step = statistics.median(b - a for a, b in itertools.pairwise(distinct)) if len(distinct) > 1 else None
    twice = [angle for angle in distinct if angles.count(angle) > 1]
    return [
        Fact("kind", "tilt angles"),
        Fact("angles", len(angles), f"{len(angles)}{', all in one line' if in_one_line else ''}"),
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


def _csv_facts(path: Path) -> list[Fact]:
    """A list of series, or the numbers that stand beside a record of this program."""
    try:
        return _series_list_facts(path)
    except InputError:
        if made := made_facts(path):
            return [Fact("kind", "table of numbers (CSV)"), *made]
        raise


def _series_list_facts(path: Path) -> list[Fact]:
    entries = read_series_list(path)
    missing = [str(file) for entry in entries for file in (entry.tilts, entry.angles) if file and not exists(file)]
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
    return [
        Fact("kind", "JSON sidecar"),
        Fact("record", record_told(path, content)),
        Fact("content", content, _key_lines(content)),
    ]


def _yaml_facts(path: Path) -> list[Fact]:
    """Settings, a recipe, a configuration or a manifest."""
    content = read_yaml_table(path, "table")
    kinds = {
        "pairs": ("accession", "manifest of curated pairs"),
        "drawn": ("recipe", "record of simulated series"),
        "cell": ("imaging", "recipe of cryolithe simulate"),
        "data": ("steps", "configuration of cryolithe train"),
    }
    kind = next((text for key, (other, text) in kinds.items() if key in content and other in content), "")
    plain = json.loads(json.dumps(content, default=str))
    return [Fact("kind", kind or "YAML table"), Fact("content", plain, _key_lines(plain))]


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

    from cryolithe.formats.hdf5_file import open_hdf5
    from cryolithe.formats.pairs import FORMAT as PAIR_FORMAT

    lines: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        if isinstance(item, h5py.Dataset):
            lines.append(f"{name}  {tuple(item.shape or ())} {item.dtype}")
        return True if len(lines) >= MOST_DATASETS else None  # anything but None ends the visit

    try:
        with open_hdf5(path) as file:
            file.visititems(visit)
            attributes = sorted(map(str, file.attrs))
            pair = str(file.attrs.get("format", "")) == PAIR_FORMAT
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise FileFormatError(f"{path} is not a readable HDF5 file: {printable(str(error))}") from error
    return [
        *(_pair_facts(path) if pair else [Fact("kind", "HDF5")]),
        Fact("datasets", lines),
        Fact("attributes", attributes, ", ".join(attributes) or "none"),
    ]


def _pair_facts(path: Path) -> list[Fact]:
    """A training pair."""
    from cryolithe.formats.pairs import open_pair

    with open_pair(path) as pair:
        origin = {str(key): value for key, value in pair.origin.items() if isinstance(value, str)}
        return [
            Fact("kind", "training pair (HDF5)"),
            Fact("images", len(pair.angles_deg)),
            range_fact(pair.angles_deg),
            Fact("voxel_size_angstrom", pair.voxel_size_angstrom, f"{pair.voxel_size_angstrom:g} Å"),
            Fact("made", origin, [f"{key}: {value}" for key, value in origin.items()]),
        ]


_DESCRIBERS: dict[str, Callable[[Path], list[Fact]]] = {
    **dict.fromkeys(ANGLE_SUFFIXES, _angle_facts),
    ".txt": _text_facts,
    ".defocus": defocus_facts,
    ".mdoc": mdoc_facts,
    ".star": star_facts,
    **{ending: describe for made in FORMATS for ending, describe in made.describe.items()},
    **dict.fromkeys((".tif", ".tiff"), volume_facts),
    **dict.fromkeys((".yaml", ".yml"), _yaml_facts),
    ".csv": _csv_facts,
    ".json": _json_facts,
    ".safetensors": _safetensors_facts,
    ".png": picture_facts,
    **dict.fromkeys((".html", ".htm"), page_facts),
    ".h5": _hdf5_facts,
    ".hdf5": _hdf5_facts,
    ".hdf": _hdf5_facts,  # EMAN2's
}
