"""RELION's table of tomograms with the volumes of a session in it, as a new file: the user's own is never changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cryolithe.formats.alignment.tomogram_star import OWN_COPY, MadeTomogram, project_folder, write_tomogram_star
from cryolithe.session.batch import Outcome
from cryolithe.session.tasks import Session, unlike_relion


def write_star_of(session: Session, outcomes: Sequence[Outcome]) -> Path:
    """Write ``<name>_cryolithe.star`` beside the summary; paths start at RELION's project folder, as RELION's do.

    Volumes that RELION's table cannot tell (`unlike_relion`) are not in it.

    Raises:
        OutputError: if it cannot be written.
    """
    assert session.star is not None
    project = project_folder(session.star, session.reading)
    volumes = {}
    for outcome in outcomes:
        if outcome.status in ("done", "skipped") and not unlike_relion(outcome.task.job.settings):
            output = outcome.task.job.output.resolve()
            path = os.path.relpath(output, project) if project else str(output)
            volume = outcome.record["volume"]
            z, y, x = volume["shape_zyx"]
            step = outcome.record["geometry"]["bin"]
            volumes[outcome.task.name] = MadeTomogram(path, (z, y, x), volume["voxel_size_angstrom"], step)
    target = session.folder / f"{session.star.stem}{OWN_COPY}.star"
    write_tomogram_star(session.star, target, volumes, overwrite=True, reading=session.reading)
    return target
