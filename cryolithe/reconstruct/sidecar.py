"""The sidecar: enough to know what was made of what, and to make it again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from cryolithe import __version__
from cryolithe.device import precision_name
from cryolithe.formats import VolumeStatistics
from cryolithe.reconstruct.job import ResolvedJob


def sidecar_record(run: ResolvedJob, plan: dict[str, Any], statistics: VolumeStatistics) -> dict[str, Any]:
    """Plain values of a finished run.

    Args:
        run: what was done.
        plan: the journal's first line.
        statistics: of the voxels as stored.
    """
    settings = run.job.settings
    return {
        "program": {
            "name": "CryoLithe",
            "version": __version__,
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "inputs": {
            "tilts": {"path": str(run.job.tilts), "sha256": plan["work"]["tilts_sha256"]},
            "angles": {"path": str(run.job.angles), "sha256": plan["work"]["angles_sha256"]},
        },
        "volume": {
            "path": run.job.output.name,
            "shape_zyx": run.grid.shape,
            "voxel_size_angstrom": run.voxel_size_angstrom,
            "dtype": settings.dtype,
            "format": settings.format,
            "contrast": settings.contrast,
            "statistics": asdict(statistics),
        },
        "geometry": {
            "axis_order": "zyx" if settings.orientation == "xyz" else "y, z reversed, x",
            "tilt_axis": "y",
            "projection": "u = (x - cx) cos(tilt) + (z - cz) sin(tilt) + cu",
            "centre": "(N - 1) / 2",
            "tilt_angles_deg": run.series.geometry.angles_deg,
            "stack_shape": run.series.images.shape,
            "stack_pixel_size_angstrom": run.series.pixel_size_angstrom,
            "stack_notes": run.series.notes,
        },
        "method": {
            "name": settings.method,
            "model": {
                "name": run.model.name,
                "sha256": run.model.sha256,
                "convention": run.model.convention.record,
                "card": run.model.card,
            }
            if run.model
            else None,
        },
        "settings": settings.model_dump(mode="json"),
        "compute": {
            "devices": [str(device) for device in run.devices],
            "precision": precision_name(run.precision),
            "slab_rows": plan["slab_rows"],
            "threads": plan["threads"],
        },
    }
