"""Points of the CryoET Data Portal's annotations: one JSON object a line, positions in voxels of their tomogram."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from cryolithe.errors import FileFormatError
from cryolithe.formats.files import read_text
from cryolithe.formats.particles.star import Particle
from cryolithe.portals.copick_project import euler_deg

LIMIT_BYTES = 500_000_000


def read_points(path: Path, tomogram: str, kind: str, label: int) -> list[Particle]:
    """The points of an annotation's .ndjson file.

    Args:
        path: the file.
        tomogram: name of the series.
        kind: of the particles.
        label: number of the kind.

    Raises:
        FileFormatError: if a line is no point.
    """
    particles = []
    for number, line in enumerate(read_text(path, "an annotation (.ndjson)", LIMIT_BYTES).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            point = json.loads(line)
            z, y, x = (float(point["location"][axis]) for axis in "zyx")
            turn = np.array(point.get("xyz_rotation_matrix") or np.eye(3), dtype=np.float64).reshape(3, 3)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise FileFormatError(f"{path}, line {number}: expected a point with a location x, y, z") from error
        if not np.isfinite([z, y, x]).all():
            raise FileFormatError(f"{path}, line {number}: the location is not finite")
        particles.append(Particle(tomogram, kind, label, (z, y, x), euler_deg(turn)))
    return particles
