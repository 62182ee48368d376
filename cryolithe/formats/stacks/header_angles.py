"""Tilt angles that microscopes' programs leave in the extended header of an MRC stack.

Three layouts: SerialEM's and IMOD's (``SERI``: short integers, by flags; the first is the angle in hundredths of a
degree), FEI's (``FEI1``, ``FEI2``: named fields) and Agard's (integers, then reals, of which the first is the angle;
FEI's older files are of this kind). Sources: IMOD's page on the MRC format, the package mrcfile.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from mrcfile.dtypes import get_ext_header_dtype

from cryolithe.errors import GeometryError
from cryolithe.formats.stacks.mrc_header import HEADER_BYTES, Header, byte_orders, has_map_stamp
from cryolithe.geometry import check_angles_deg

LIMIT_BYTES = 50_000_000
# Angles of stacks without a tilt are noise of the stage.
LEAST_RANGE_DEG = 2.0
# What SerialEM's flags stand for, in bytes of a section.
_BYTES_OF_FLAGS = {1: 2, 2: 6, 4: 4, 8: 2, 16: 2, 32: 4}


def read_header_angles_deg(path: Path) -> tuple[float, ...]:
    """Angles of a stack's images as its extended header has them; none where it has none, or what are no tilts."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(HEADER_BYTES)
            if len(raw) < HEADER_BYTES or not has_map_stamp(raw):
                return ()
            header = next((found for order in byte_orders(raw)[0] if (found := Header(raw, order)).plausible), None)
            size = 0 if header is None else header.data_offset - HEADER_BYTES
            extended = stream.read(size) if 0 < size <= LIMIT_BYTES else b""
    except OSError:
        return ()
    if header is None or not extended:
        return ()
    angles = _angles(header, extended)
    try:
        check_angles_deg(angles)
    except GeometryError:
        return ()
    return angles if max(angles) - min(angles) > LEAST_RANGE_DEG else ()


def _angles(header: Header, extended: bytes) -> tuple[float, ...]:
    """What would be angles, one for each section."""
    kind, (count, *_) = bytes(header.fields["exttyp"]), header.shape
    if kind in (b"FEI1", b"FEI2"):
        fields = get_ext_header_dtype(kind, header.order)
        (step,) = struct.unpack_from(f"{header.order}i", extended.ljust(4, b"\0"))
        place, layout, unit = fields.fields["Alpha tilt"][1], "d", 1.0
        step = step if step >= fields["Alpha tilt"].itemsize + place else 0
    else:
        integers, reals = struct.unpack_from(f"{header.order}hh", header.raw, 128)
        flagged = sum(size for flag, size in _BYTES_OF_FLAGS.items() if reals & flag)
        if reals & 1 and (kind == b"SERI" or integers == flagged):
            step, place, layout, unit = integers, 0, "h", 0.01
        elif kind == b"SERI" or reals < 1 or integers < 0:
            return ()
        else:
            step, place, layout, unit = 4 * (integers + reals), 4 * integers, "f", 1.0
    if step < 2 or count * step > len(extended):
        return ()
    values = [struct.unpack_from(header.order + layout, extended, n * step + place)[0] for n in range(count)]
    return tuple(unit * float(value) for value in values) if np.isfinite(values).all() else ()
