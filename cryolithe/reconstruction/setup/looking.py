"""A run looks at the polarity of its images before a network does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryolithe.artefacts.borders import is_mostly_border
from cryolithe.errors import ModelError, OutputError
from cryolithe.network import Network
from cryolithe.network.checkpoint import load_model
from cryolithe.reconstruction.evidence.asymmetry import measure_evidence
from cryolithe.reconstruction.evidence.polarity import Evidence, Polarity, average, polarity_of_record, settle
from cryolithe.reconstruction.images.preparation import prepare_stack
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.jobs.job import ResolvedJob
from cryolithe.tilts import TiltSeries

# Whatever model is to run, a small bundled one is asked: the same images have the same polarity for all models.
JUDGE = "draft"
BORDERS_ASKED = 7  # images of a series, evenly


def settled_polarity(run: ResolvedJob, stack: PreparedStack) -> Polarity:
    """What dense matter is taken to be in a run of a network."""
    evidence = run.job.evidence or look_at(run.series, stack, run.grid.shape[0])
    return settle(run.job.settings.contrast, run.series.labels, evidence)


def evidence_of_parts(runs: Sequence[ResolvedJob], folder: Path) -> Evidence:
    """Evidence of a series of which each run has a part of the frames; the stacks are prepared once more for it.

    Args:
        runs: of the parts.
        folder: for temporary files.

    Raises:
        OutputError: if they cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".contrast-") as place:
            stacks = Path(place) / "stack.f32"
            looks = [_prepared_and_looked_at(run, stacks) for run in runs]
            return average([look for look in looks if look != Evidence()] or looks)  # one of wide borders tells nothing
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}; choose another -o") from error


def _prepared_and_looked_at(run: ResolvedJob, stacks: Path) -> Evidence:
    return look_at(run.series, prepare_stack(run.series, run.preparation, stacks), run.grid.shape[0])


@torch.inference_mode()
def look_at(series: TiltSeries, stack: PreparedStack, depth: int) -> Evidence:
    """What images say of their polarity.

    Args:
        series: the images as they were given.
        stack: the same, prepared.
        depth: planes of the back-projection that is looked at.

    Returns:
        none where a border fills so much of most images that it was not replaced: of its edge nothing can be told.
    """
    asked = np.linspace(0, series.geometry.tilts - 1, min(BORDERS_ASKED, series.geometry.tilts)).round().astype(int)
    wide = sum(is_mostly_border(series.image(tilt)) for tilt in asked.tolist())
    return Evidence() if 2 * wide > len(asked) else measure_evidence(stack, depth, judge())


def judge() -> Network | None:
    """The network that looks at the contrast; None in an installation that lacks it, where the images alone tell."""
    try:
        return load_model(JUDGE).network
    except ModelError:
        return None


def planned_polarity(plan: dict[str, Any]) -> Polarity | None:
    """What the journal's first line says of it; None where it does not yet, or for methods to which it is all one."""
    record = plan.get("polarity")
    return None if record is None else polarity_of_record(record)
