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
    done = {name: method[name] for name in ("corrections", "unevenness") if name in method} if method else {}
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
