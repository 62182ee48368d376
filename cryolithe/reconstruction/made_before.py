"""What the volume that lies where a job would write was made of, by its record: of the same, or of what else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryolithe.errors import CryoLitheError, InputError, in_one_line
from cryolithe.formats.alignments import alignment_files
from cryolithe.formats.volume_file import open_volume_file
from cryolithe.network.checkpoint import load_model

if TYPE_CHECKING:
    from cryolithe.reconstruction.job import Job
    from cryolithe.reconstruction.sources import SourceFiles

# Settings that do not change a volume, and those that name files: it is their content that counts, not where they lie.
FREE_SETTINGS = {"overwrite", "max_memory", "confidence", "preview", "dose", "ctf_file", *alignment_files()}
_MOST_TOLD = 3


def differences(job: Job, files: SourceFiles) -> tuple[str, ...] | None:
    """What distinguishes a job from the one that made the volume that is there; nothing if it is the same work.

    Files are compared by their contents, last and only where all else is the same: that reads them.

    Args:
        job: files and settings.
        files: all inputs but the model.

    Returns:
        One entry for each difference, or None if there is no volume, or none with its record.
    """
    try:
        record = json.loads(job.sidecar.read_text(encoding="utf-8"))
        made_of = {str(name): used["sha256"] for name, used in record["inputs"].items()}
        model, part = record["method"]["model"], dict(record["geometry"]).get("part")
        made_with = {**record["settings"], **job.settings.model_dump(include=FREE_SETTINGS)}
        made_by = str(model["name"]) if model else ""
        model_hash = model["sha256"] if model else None
        whole = is_record_of(job.sidecar, job.output) and _is_whole(job.output, record["volume"])
    except (OSError, ValueError, ArithmeticError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not whole:
        return None
    asked = job.settings.model_dump(mode="json")
    found = [
        f"--{name.replace('_', '-')} {_given(made_with.get(name))}, now {_given(value)}"
        for name, value in asked.items()
        if name not in made_with or made_with[name] != value
    ]
    found += [f"a setting {name} that there is no more" for name in made_with if name not in asked]
    wanted = load_model(job.settings.model) if job.settings.method == "network" else None
    if (wanted.sha256 if wanted else None) != model_hash and asked["model"] == made_with.get("model"):
        found.append(f"another model of the name {made_by}")
    if part != job.part:
        found.append("another part of the field")
    if not all(_is_map(path, record) for path in job.maps.values()):
        found.append("no maps of --confidence")
    if found:
        return tuple(found)
    now = files.hashes()
    return tuple(f"other contents of {name}" for name in sorted({*now, *made_of}) if now.get(name) != made_of.get(name))


def differences_told(job: Job, files: SourceFiles) -> str:
    """In brackets, with a blank before: what the volume that is in the way was made with; nothing if nothing is known.

    Args:
        job: files and settings.
        files: all inputs but the model.
    """
    try:
        found = differences(job, files)
    except CryoLitheError:
        return ""
    if found is None:
        return ""
    if not found:
        return " (it is of these inputs and settings)"
    more = f" and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
    return f" (it was made with {in_one_line('; '.join(found[:_MOST_TOLD]))}{more})"


def _given(value: object) -> object:
    return "not given" if value is None else value


def is_record_of(sidecar: Path, output: Path) -> bool:
    """Whether a file is a sidecar that this program wrote for a volume of this name."""
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        return bool(record["program"]["name"] == "CryoLithe" and record["volume"]["path"] == output.name)
    except (OSError, ValueError, ArithmeticError, KeyError, TypeError, RecursionError):
        return False


def _is_whole(output: Path, told: dict[str, Any]) -> bool:
    """Whether the volume that a record tells of is there, with its shape and type of values; not cut off, say."""
    try:
        found = open_volume_file(output)
        shape = sorted(int(n) for n in told["shape_zyx"])
    except (InputError, KeyError, TypeError, ValueError, ArithmeticError):
        return False
    return sorted(found.shape) == shape and found.dtype == np.dtype(str(told["dtype"]))


def _is_map(path: Path, record: dict[str, Any]) -> bool:
    """Whether a map of ``--confidence`` is there that belongs to the volume of a record."""
    told = record.get("confidence")
    return isinstance(told, dict) and "maps" in told and _is_whole(path, {**record["volume"], "dtype": "float32"})
