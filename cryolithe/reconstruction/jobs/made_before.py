"""What the volume that lies where a job would write was made of, by its record: of the same, or of what else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cryolithe.errors import CryoLitheError, InputError, in_one_line
from cryolithe.formats.alignment.alignments import alignment_files
from cryolithe.formats.volumes.ome_zarr_reader import is_complete
from cryolithe.formats.volumes.volume_file import open_volume_file
from cryolithe.network.checkpoint import load_model

if TYPE_CHECKING:
    from cryolithe.reconstruction.jobs.job import Job
    from cryolithe.reconstruction.jobs.sources import SourceFiles

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
        rows = {str(name): used["row_sha256"] for name, used in record["inputs"].items() if "row_sha256" in used}
        model, part = record["method"]["model"], dict(record["geometry"]).get("part")
        made_with = {**record["settings"], **job.settings.model_dump(include=FREE_SETTINGS)}
        made_by = str(model["name"]) if model else ""
        model_hash = model["sha256"] if model else None
        whole = is_record_of(job.sidecar, job.output) and not _lacks(job.output, record["volume"])
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
    # A table of series may have changed where it tells of others.
    now |= {name: made_of[name] for name, row in files.row_hashes().items() if rows.get(name, "") == row}
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
        return _untold(job)
    if not found:
        return " (it is of these inputs and settings)"
    more = f" and {len(found) - _MOST_TOLD} more" if len(found) > _MOST_TOLD else ""
    return f" (it was made with {in_one_line('; '.join(found[:_MOST_TOLD]))}{more})"


def _untold(job: Job) -> str:
    """Why nothing is known of what is in the way, where a record of this program would tell."""
    if not job.sidecar.is_file():
        return f" (there is no record {job.sidecar.name} that tells what it was made of)"
    if not is_record_of(job.sidecar, job.output):
        return ""
    if not os.path.lexists(job.output):
        return " (its volume is not there)"
    try:
        lacks = _lacks(job.output, json.loads(job.sidecar.read_text(encoding="utf-8"))["volume"])
    except (OSError, ValueError, ArithmeticError, KeyError, TypeError, RecursionError):
        return ""
    return f" (it is not as its record tells: {in_one_line(lacks)})" if lacks else ""


def _given(value: object) -> object:
    return "not given" if value is None else value


def is_record_of(sidecar: Path, output: Path) -> bool:
    """Whether a file is a sidecar that this program wrote for a volume of this name."""
    try:
        record = json.loads(sidecar.read_text(encoding="utf-8"))
        return bool(record["program"]["name"] == "CryoLithe" and record["volume"]["path"] == output.name)
    except (OSError, ValueError, ArithmeticError, KeyError, TypeError, RecursionError):
        return False


def _lacks(output: Path, told: dict[str, Any]) -> str:
    """What keeps the file from being the volume that a record tells of, whole; nothing where it is that."""
    try:
        found = open_volume_file(output)
        shape, dtype = sorted(int(n) for n in told["shape_zyx"]), np.dtype(str(told["dtype"]))
    except InputError as error:
        return str(error)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return "the record is damaged"
    if sorted(found.shape) != shape or found.dtype != dtype:
        return f"it holds {found.dtype} of shape {found.shape}, expected {dtype} of shape {told['shape_zyx']}"
    return "chunks are missing" if found.kind == "ome-zarr" and not is_complete(output) else ""


def _is_map(path: Path, record: dict[str, Any]) -> bool:
    """Whether a map of ``--confidence`` is there that belongs to the volume of a record."""
    told = record.get("confidence")
    return isinstance(told, dict) and "maps" in told and not _lacks(path, {**record["volume"], "dtype": "float32"})
