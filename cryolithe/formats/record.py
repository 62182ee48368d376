"""The records (.json) that this program writes beside what it makes: what was made, of which inputs, and how.

An output is done when its record says that it was made of inputs whose hashes are those of the files that are there
now. That a file of the right name exists says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryolithe.errors import FileFormatError, InputError
from cryolithe.files.hashing import content_sha256
from cryolithe.files.names import exists, is_file
from cryolithe.formats.files import read_text

LIMIT_BYTES = 50_000_000


def record_path(output: Path) -> Path:
    """Where the record of an output lies: ``tomo.mrc`` has ``tomo.json``."""
    return output.with_suffix(".json")


def read_record_beside(output: Path) -> dict[str, Any]:
    """The record beside an output, empty where there is none, or one of something else.

    Any JSON file may lie there: ours are objects that describe a volume, and one that names its volume must name this.
    """
    path = record_path(output)
    if path == output or not is_file(path):
        return {}
    try:
        content = json.loads(read_text(path, "a JSON file", LIMIT_BYTES))
    except (ValueError, RecursionError, FileFormatError, InputError):
        return {}
    volume = content.get("volume") if isinstance(content, dict) else None
    if not isinstance(volume, dict) or volume.get("path", output.name) != output.name:
        return {}
    return dict(content)


def part_of(record: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """An object within a record, by the names that lead to it; empty where it is not there, or is no object."""
    found: Any = record
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def z_reversed(record: Mapping[str, Any]) -> bool:
    """Whether z of a volume runs against the angles of the files: those of its record then have the other sign."""
    geometry = part_of(record, "geometry")
    return (geometry.get("handedness") in ("aretomo", "warp")) != bool(geometry.get("flip_z"))


def recorded_angles_deg(record: Mapping[str, Any]) -> tuple[float, ...]:
    """The tilt angles that a record tells; empty where they are none of a series."""
    angles = part_of(record, "geometry").get("tilt_angles_deg", ())
    usable = isinstance(angles, list) and len(angles) > 1 and all(isinstance(a, int | float) for a in angles)
    return tuple(float(a) for a in angles) if usable and min(angles) < max(angles) else ()


def turned_over_told(name: str, record: Mapping[str, Any]) -> tuple[str, ...]:
    """A note on positions of a file where the volume's z was turned round; none where it was not.

    Nobody tells of which sense the positions are: those that were found in this very volume fit it, and where the
    angles have the other sign it is the turned one that lies as RELION's does.

    Args:
        name: of the file of positions.
        record: of the volume; empty where nobody knows how it was made.
    """
    if not z_reversed(record):
        return ()
    geometry = part_of(record, "geometry")
    how = [f"--handedness {geometry['handedness']}"] if geometry.get("handedness") in ("aretomo", "warp") else []
    how += ["--flip-z"] if geometry.get("flip_z") else []
    return (
        f"The volume's z is turned round ({' and '.join(how)}), and the positions in {name} are taken as they "
        "are: right if they were found in this volume, or in one of the same sense of z. Those of RELION, or of a "
        "volume whose z is not turned, lie at other depths, and all scores of particles are then wrong: look at both "
        f"in napari, or give a volume that is made without {' and '.join(how)}.",
    )


def source_of(volumes: Sequence[Path]) -> dict[str, Any] | None:
    """What the records beside volumes tell of the images that they were made from, for the record of what is made next.

    Args:
        volumes: one, or the two halves, of which one and the other stack of tilts are named ``even`` and ``odd``.

    Returns:
        ``inputs``, ``geometry``, ``settings`` and what was done to images, of the first; None where nothing is told.
    """
    records = [_reconstruction(read_record_beside(volume)) for volume in volumes]
    if not all("inputs" in record for record in records):
        return None
    first, inputs = records[0], dict(records[0]["inputs"])
    if len(records) == 2 and all("tilts" in record["inputs"] for record in records):
        stacks = [inputs.pop("tilts"), records[1]["inputs"]["tilts"]]
        inputs = {"even tilts": stacks[0], "odd tilts": stacks[1], **inputs}
    method = first.get("method")
    done = (
        {name: method[name] for name in ("corrections", "brightness_factors", "unevenness") if name in method}
        if method
        else {}
    )
    kept: dict[str, Any] = {name: first[name] for name in ("geometry", "settings") if name in first}
    return {"inputs": inputs, **kept, "method": done}


def _reconstruction(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a record that tells of images: of a volume that was denoised before, what it keeps of its source."""
    source = record.get("source")
    return source if isinstance(source, dict) and "inputs" in source else record


def own_record_beside(output: Path) -> dict[str, Any]:
    """`read_record_beside`, empty also where neither its volume nor this program is named: to be replaced or removed.

    Others' files may describe a volume, too; it does no harm to read them.
    """
    record = read_record_beside(output)
    program = record.get("program")
    ours = isinstance(program, dict) and program.get("name") == "CryoLithe"
    return record if ours or "path" in record.get("volume", {}) else {}


def hashed(files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """The entry ``inputs`` of a record: path and SHA-256 of each file or folder, by what it is.

    Raises:
        InputError: if one cannot be read.
    """
    return {name: {"path": str(path), "sha256": _sha256(path)} for name, path in files.items()}


def changed_input(record: Mapping[str, Any], files: Mapping[str, Path]) -> str | None:
    """What an output was made of that is not what is there now: the name of the first such input, or None.

    Args:
        record: of the output; one that names no hashes differs from everything.
        files: by the names in the record's ``inputs``.

    Raises:
        InputError: if a file cannot be read.
    """
    made_of = record.get("inputs")
    made_of = made_of if isinstance(made_of, Mapping) else {}
    for name in {**files, **made_of}:
        entry = made_of.get(name)
        known = entry.get("sha256") if isinstance(entry, Mapping) else None
        if known is None or name not in files or _sha256(files[name]) != known:
            return name
    return None


def _sha256(path: Path) -> str:
    if not exists(path):
        raise InputError(f"{path} does not exist; check its name and folder")
    try:
        return content_sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
