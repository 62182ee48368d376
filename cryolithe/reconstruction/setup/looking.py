"""A run looks at the polarity of its images before a network does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cryolithe.errors import ModelError, OutputError
from cryolithe.network import Network
from cryolithe.network.checkpoint import load_model
from cryolithe.reconstruction.evidence.asymmetry import measure_evidence
from cryolithe.reconstruction.evidence.polarity import Evidence, Polarity, average, polarity_of_record, settle
from cryolithe.reconstruction.images.preparation import prepare_stack
from cryolithe.reconstruction.images.prepared_stack import PreparedStack
from cryolithe.reconstruction.jobs.job import ResolvedJob

# Whatever model is to run, a small bundled one is asked: the same images have the same polarity for all models.
JUDGE = "draft"


def settled_polarity(run: ResolvedJob, stack: PreparedStack) -> Polarity:
    """What dense matter is taken to be in a run of a network."""
    evidence = run.job.evidence or _look(run, stack)
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
            return average([_look(run, prepare_stack(run.series, run.preparation, stacks)) for run in runs])
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror or error}; choose another -o") from error


@torch.inference_mode()
def _look(run: ResolvedJob, stack: PreparedStack) -> Evidence:
    return measure_evidence(stack, run.grid.shape[0], judge())


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
