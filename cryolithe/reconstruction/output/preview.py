"""A drawing of a finished volume: its central slices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.files.hashing import file_sha256
from cryolithe.formats import read_mrc
from cryolithe.formats.volumes.ome_zarr import read_ome_zarr
from cryolithe.reconstruction.jobs.job import Job
from cryolithe.reconstruction.jobs.preview_mark import PREVIEW_SOURCE, is_preview
from cryolithe.report.figures import drawn_source, plot_central_slices
from cryolithe.report.greys import MAP_RANGES, GreyScale, dark_sign, even_scale, told_polarity

_UNITS = {"error": " deviations"}
MAPS_TOLD = "maps from black to white: " + ", ".join(
    f"{kind} {low:g} to {high:g}{_UNITS.get(kind, '')}" for kind, (low, high) in MAP_RANGES.items()
)


def write_preview(job: Job, record: dict[str, Any], title: str = "") -> None:
    """Draw the volume's central slices beside it.

    Args:
        job: names the volume and the drawing.
        record: the sidecar's content.
        title: above the drawing; the volume's name if empty.

    Raises:
        CryoLitheError: if the volume cannot be read or the drawing not be written.
    """
    contrast = record["volume"].get("contrast")
    volume = _upright(job, job.output)
    shown = volume if dark_sign(contrast) > 0 else -np.asarray(volume, dtype=np.float32)
    panels = [(title or job.output.name, shown)]
    scales: list[GreyScale | None] = [None]
    for kind, path in job.maps.items():
        panels.append((kind, _upright(job, path)))
        scales.append(even_scale(*MAP_RANGES[kind]))
    plot_central_slices(
        job.preview,
        panels,
        record["volume"]["voxel_size_angstrom"],
        preview_source(job),
        _caption(record) + (f" · {MAPS_TOLD}" if job.maps else ""),
        scales,
    )


def _upright(job: Job, path: Path) -> NDArray[Any]:
    """A volume or a map of a job, axes ``(z, y, x)``."""
    if path.suffix == ".zarr":
        return read_ome_zarr(path)
    volume = read_mrc(path).data
    return volume.transpose(1, 0, 2)[::-1] if job.settings.orientation == "xzy" else volume


def _caption(record: dict[str, Any]) -> str:
    """Method, model, voxel size and polarity, as far as the record tells them."""
    method = record.get("method") or {}
    model, voxel = (method.get("model") or {}).get("name"), record["volume"].get("voxel_size_angstrom")
    parts = [f"{method.get('name', 'unknown')}{f', model {model}' if model else ''}"]
    parts.append(f"{voxel:.4g} Å per voxel" if voxel else "size of a voxel unknown")
    return " · ".join([*parts, told_polarity(record["volume"].get("contrast"))])


def preview_source(job: Job) -> str:
    """What a preview is drawn of: the hash of the volume's record, which is another for every run."""
    try:
        return f"{PREVIEW_SOURCE}{file_sha256(job.sidecar)}"
    except OSError:
        return ""


def preview_is_current(job: Job) -> bool:
    """Whether the preview beside a volume was drawn of this very volume."""
    wanted = preview_source(job)
    return bool(wanted) and job.preview.is_file() and drawn_source(job.preview) == wanted


def lacks_preview(job: Job) -> bool:
    """Whether there is no preview of this very volume; where the drawing of others is in its place, that stays."""
    if preview_is_current(job):
        return False
    return job.settings.overwrite or not os.path.lexists(job.preview) or is_preview(job.preview)
