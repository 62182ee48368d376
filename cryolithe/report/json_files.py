"""Numbers to files of JSON: whatever the program computes, in the few types that JSON has."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cryolithe.formats.files import replacing


def write_json(path: str | Path, obj: object) -> None:
    """Write an object as JSON, so that the file is either complete or not there.

    Dataclasses become objects, paths strings, tuples and numpy arrays lists, numpy scalars numbers, and NaN and
    infinity, which JSON lacks, null. Keys keep their order.

    Raises:
        OutputError: if the file cannot be written.
        TypeError: if the object holds something else.
    """
    text = json.dumps(_plain(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Names that are not UTF-8 become escapes of JSON, which give the very names back.
    with (
        replacing(path, overwrite=True) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def plain_json(obj: object) -> Any:
    """What reading the file of `write_json` gives: dicts, lists, strings, numbers, bools and None."""
    return json.loads(json.dumps(_plain(obj), allow_nan=False))


def _plain(obj: object) -> object:
    """Return the object in the types of JSON; what is unknown stays as it is."""
    if isinstance(obj, float | np.floating):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, np.generic):
        return obj.item()
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {field.name: _plain(getattr(obj, field.name)) for field in dataclasses.fields(obj)}
    if isinstance(obj, Mapping):
        return {key: _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple | np.ndarray):
        return [_plain(value) for value in obj]
    return obj
