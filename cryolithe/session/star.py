"""RELION's table of tomograms with the volumes of a session in it, as a new file: the user's own is never changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cryolithe.formats.tomogram_star import project_folder, write_tomogram_star
from cryolithe.session.batch import Outcome
from cryolithe.session.tasks import Session


def write_star_of(session: Session, outcomes: Sequence[Outcome]) -> Path:
    """Write ``<name>_cryolithe.star`` beside the summary; paths start at RELION's project folder, as RELION's do.

    Raises:
        OutputError: if it cannot be written.
    """
    assert session.star is not None
    project = project_folder(session.star, session.reading)
    volumes = {}
    for outcome in outcomes:
        if outcome.status in ("done", "skipped"):
            output = outcome.task.job.output.resolve()
            path = os.path.relpath(output, project) if project else str(output)
            volumes[outcome.task.name] = (path, outcome.record["geometry"]["bin"])
    target = session.folder / f"{session.star.stem}_cryolithe.star"
    write_tomogram_star(session.star, target, volumes, overwrite=True, reading=session.reading)
    return target
