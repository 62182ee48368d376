"""A drawing of a finished volume: its central slices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe.formats import read_mrc
from cryolithe.formats.ome_zarr import read_ome_zarr
from cryolithe.greys import dark_sign, told_polarity
from cryolithe.hashing import file_sha256
from cryolithe.reconstruction.job import Job
from cryolithe.report import drawn_source, plot_central_slices


def write_preview(job: Job, record: dict[str, Any], title: str = "") -> None:
    """Draw the volume's central slices beside it.

    Args:
        job: names the volume and the drawing.
        record: the sidecar's content.
        title: above the drawing; the volume's name if empty.

    Raises:
        CryoLitheError: if the volume cannot be read or the drawing not be written.
    """
    volume: NDArray[np.generic]
    if job.output.suffix == ".zarr":
        volume = read_ome_zarr(job.output)
    else:
        volume = read_mrc(job.output).data
        if job.settings.orientation == "xzy":
            volume = volume.transpose(1, 0, 2)[::-1]
    contrast = record["volume"].get("contrast")
    shown = volume if dark_sign(contrast) > 0 else -np.asarray(volume, dtype=np.float32)
    plot_central_slices(
        job.preview,
        [(title or job.output.name, shown)],
        record["volume"]["voxel_size_angstrom"],
        preview_source(job),
        _caption(record),
    )


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
        return f"record {file_sha256(job.sidecar)}"
    except OSError:
        return ""


def preview_is_current(job: Job) -> bool:
    """Whether the preview beside a volume was drawn of this very volume."""
    wanted = preview_source(job)
    return bool(wanted) and job.preview.is_file() and drawn_source(job.preview) == wanted
