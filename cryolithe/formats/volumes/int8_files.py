"""8-bit volumes on disk: what their values stand for, by the record beside them or their last label."""

from __future__ import annotations

import json

import numpy as np

from cryolithe.errors import InputError
from cryolithe.files.names import is_file
from cryolithe.formats.record import record_path
from cryolithe.formats.volumes.int8 import Int8Scale, scale_told
from cryolithe.formats.volumes.volume_file import VolumeFile


def scale_of(found: VolumeFile) -> Int8Scale | None:
    """What the values of an 8-bit volume stand for; None of other types, and where another program wrote it.

    Raises:
        InputError: if it has a record that does not say how it is scaled.
    """
    if found.dtype != np.int8:
        return None
    record = record_path(found.path)
    try:
        told = json.loads(record.read_text(encoding="utf-8")) if is_file(record) else {}
        if isinstance(told, dict) and "volume" not in told:  # another program's notes on its volume, or no record
            scale = scale_told(found.labels)
            if scale is None:
                return None
        else:
            scaling = told["volume"]["scaling"]
            scale = Int8Scale(float(scaling["offset"]), float(scaling["step"]))
        # All densities are to be float32.
        if not (scale.step > 0 and abs(scale.offset) + 128 * scale.step < float(np.finfo(np.float32).max)):
            raise ValueError(f"an offset of {scale.offset} and a step of {scale.step}")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{found.path} holds 8-bit values, but {record} does not say how they are scaled; give the record that was "
            "written with the volume, or move another one elsewhere"
        ) from error
    return scale


def known_scale_of(found: VolumeFile) -> Int8Scale | None:
    """As `scale_of`, but None also where a record does not say it: for what takes the values as they are."""
    try:
        return scale_of(found)
    except InputError:
        return None
