"""The sidecar: enough to know what was made of what, and to make it again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from cryolithe import __version__
from cryolithe.alignment import largest_bend_px
from cryolithe.formats import VolumeStatistics
from cryolithe.machine.device import precision_name
from cryolithe.reconstruction.evidence.polarity import told_contrast
from cryolithe.reconstruction.jobs.job import ResolvedJob
from cryolithe.reconstruction.jobs.thickness import aligned_shape
from cryolithe.reconstruction.setup.looking import planned_polarity

CENTRES = {"imod": "(N - 1) / 2", "relion": "N // 2"}


def geometry_line(run: ResolvedJob) -> str:
    """One line on what decides where matter comes to lie."""
    settings, left_out = run.job.settings, run.alignment.excluded
    parts = [
        f"rotation axis at {CENTRES[run.alignment.centre]}, counted from 0",
        f"sense of z as in {settings.handedness}{', z mirrored' if settings.flip_z else ''}",
        f"file axes {settings.orientation}",
    ]
    if run.preparation.views is not None:
        parts.append(f"{len(run.alignment.images)} images aligned in memory")
        if run.alignment.local:
            largest = largest_local_shift_px(run)
            parts.append(f"local shifts of up to {largest:.2f} pixels undone ({run.alignment.local})")
    elif not run.preparation.tilt_axis_deg:
        parts.append("images taken as aligned, tilt axis along y")
    else:
        parts.append(f"images turned by {-run.preparation.tilt_axis_deg:g}°, so that the tilt axis lies along y")
    if left_out:
        parts.append(f"left out: {', '.join(str(section + 1) for section in left_out)} of {run.alignment.sections}")
    if run.x_tilt_deg:
        parts.append(f"turned by {run.x_tilt_deg:g}° about x")
    return f"Geometry: {'; '.join(parts)}."


def largest_local_shift_px(run: ResolvedJob) -> float:
    """By how many pixels of the stack the local alignment moves matter at most, at any depth of the volume."""
    shape = aligned_shape(run.alignment, run.series.geometry.image_shape)
    return largest_bend_px(run.alignment, shape, run.depth * run.preparation.bin)


def _local(run: ResolvedJob) -> dict[str, Any] | None:
    """The local alignment: its file, the images that are bent, and by how many pixels of the stack at most."""
    bent = [image.section + 1 for image in run.alignment.images if image.bend is not None]
    if not bent:
        return None
    largest = largest_local_shift_px(run)
    return {"file": run.alignment.local, "largest_shift_px": largest, "sections": bent}


def _input(run: ResolvedJob, plan: dict[str, Any], name: str) -> dict[str, str]:
    """Path and hash of an input; of a table that lists other series, too, the hash of what decides beside its own."""
    entry, decides = {"path": str(run.files.files[name])}, plan["work"][f"{name}_sha256"]
    if name not in run.files.rows:
        return {**entry, "sha256": decides}
    return {**entry, "sha256": run.files.named.reading.sha256(run.files.files[name]), "row_sha256": decides}


def sidecar_record(run: ResolvedJob, plan: dict[str, Any], statistics: VolumeStatistics) -> dict[str, Any]:
    """Plain values of a finished run.

    Args:
        run: what was done.
        plan: the journal's first line.
        statistics: of the voxels as stored.
    """
    settings, polarity = run.job.settings, planned_polarity(plan)
    told = told_contrast(settings.contrast, run.series.labels)
    return {
        "program": {
            "name": "CryoLithe",
            "version": __version__,
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "inputs": {name: _input(run, plan, name) for name in run.files.files},
        "volume": {
            "path": run.job.output.name,
            "shape_zyx": (run.depth, *run.grid.shape[1:]),
            "voxel_size_angstrom": run.voxel_size_angstrom,
            "dtype": settings.dtype,
            "format": settings.format,
            "contrast": polarity.contrast if polarity else told,
            "statistics": asdict(statistics),
        },
        "geometry": {
            "axis_order": "zyx" if settings.orientation == "xyz" else "yzx",
            "depth_axis": "z" if settings.orientation == "xyz" else "-z",
            "tilt_axis": "y",
            "projection": "u = (x - cx) cos(tilt) + (z - cz) sin(tilt) + cu",
            "centre": CENTRES[run.alignment.centre],
            "handedness": settings.handedness,
            "flip_z": settings.flip_z,
            "bin": run.preparation.bin,
            "x_tilt_deg": run.x_tilt_deg,
            "shift_xz_px": run.alignment.shift_px,
            "sections": [image.section + 1 for image in run.alignment.images],
            "excluded_sections": [section + 1 for section in run.alignment.excluded],
            **({} if run.job.part is None else {"part": run.job.part}),
            "transforms": None
            if run.preparation.views is None
            else [[*i.matrix[0], *i.matrix[1], *i.shift_px] for i in run.alignment.images],
            "local_alignment": _local(run),
            "tilt_angles_deg": run.series.geometry.angles_deg,
            "stack_shape": run.series.images.shape,
            "stack_pixel_size_angstrom": run.series.pixel_size_angstrom,
            "stack_notes": run.series.notes,
        },
        "polarity": polarity.record() if polarity else None,
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
            "fusion": plan.get("fusion"),
            "wedge_trust": plan.get("wedge_trust"),
            **({"noise_whitened": plan["noise_whitened"]} if "noise_whitened" in plan else {}),
            **{name: plan[name] for name in ("brightness_factors", "unevenness", "slow_share") if name in plan},
            "known": run.facts.record(),
            "corrections": run.corrections.record,
        },
        **({"confidence": plan["confidence"]} if "confidence" in plan else {}),
        "settings": settings.model_dump(mode="json"),
        "compute": {
            "devices": [str(device) for device in run.devices],
            "precision": precision_name(run.precision),
            "made_again": plan.get("made_again"),
            "slab_rows": plan["slab_rows"],
            "threads": plan["threads"],
            "pooling": plan.get("pooling"),
        },
    }
