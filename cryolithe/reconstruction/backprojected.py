"""Filtered back-projections of the middle rows of a series: what its images alone say, without a network's knowledge.

Two halves that went through one network agree in what the network adds. Their back-projections share nothing but the
specimen, so that their correlation tells how far the data reach.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolithe.projector import by_bands, make_projector
from cryolithe.projector.classical import fbp
from cryolithe.reconstruction.images.preparation import prepare_stack
from cryolithe.reconstruction.jobs.job import Job, resolve
from cryolithe.reconstruction.setup.asked_optics import settled_optics

MOST_ROWS = 128
_MOST_BYTES = 256_000_000
_ROWS_AT_A_TIME = 8
WINDOW = "cosine"


def middle_rows(shape: tuple[int, int, int]) -> range:
    """The rows (y) of a volume ``(z, y, x)`` that are back-projected: up to 128, of up to 256 MB."""
    depth, height, width = shape
    rows = max(1, min(height, MOST_ROWS, _MOST_BYTES // (4 * depth * width)))
    first = (height - rows) // 2
    return range(first, first + rows)


def back_projection(job: Job, scratch: Path) -> tuple[NDArray[np.float32], range]:
    """Back-project the middle rows with a job's files, alignment and preparation.

    Args:
        job: its method is not used; its other settings are.
        scratch: folder for the prepared stack, which is removed.

    Returns:
        voxels ``(z, rows, x)`` and the rows.

    Raises:
        CryoLitheError: as for the reconstruction itself.
    """
    settings = job.settings.model_copy(update={"method": "fbp"})
    run = settled_optics(resolve(Job(job.tilts, job.angles, job.output, settings, optics=job.optics)))
    depth, _, width = run.grid.shape
    rows = middle_rows(run.grid.shape)
    with tempfile.TemporaryDirectory(prefix=".cryolithe-", dir=scratch) as folder:
        stack = prepare_stack(run.series, run.preparation, Path(folder) / "stack.f32")
        projector = make_projector(stack.geometry, (depth, width), run.device)
        made = np.empty((depth, len(rows), width), dtype=np.float32)
        for first in range(rows.start, rows.stop, _ROWS_AT_A_TIME):
            count = min(_ROWS_AT_A_TIME, rows.stop - first)
            seen = stack.read_rows(first, count).to(run.device)
            slab = by_bands(projector, first, seen, lambda band, part: fbp(band, part, WINDOW))
            made[:, first - rows.start : first - rows.start + count] = slab.cpu().numpy()
    return made, rows
