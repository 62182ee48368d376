"""What a model that was adapted to a lab's images is told where it is applied to images that were treated otherwise."""

from __future__ import annotations

from typing import Any

from cryolithe.network.checkpoint import Model
from cryolithe.settings import ReconstructSettings


def adapted_notes(model: Model | None, settings: ReconstructSettings) -> tuple[str, ...]:
    """A note where CTF or doses are corrected in other ways than in the images that the model was adapted to.

    Args:
        model: with the card that ``cryolithe adapt`` wrote; others have no such series on theirs.
        settings: of this run.
    """
    if model is None or "adapted" not in model.card:
        return ()
    series = model.card.get("series")
    of_series = [one["corrections"] for one in series if "corrections" in one] if isinstance(series, list) else []
    theirs = {_options(told) for told in of_series}
    ours = _flags(settings.ctf, settings.dose_weight)
    if len(theirs) != 1 or theirs == {ours}:
        return ()
    return (f"Warning: model {model.name} was adapted to images with {theirs.pop()}, these have {ours}",)


def _options(told: dict[str, Any] | None) -> str:
    told = told or {}
    return _flags(str(told.get("ctf", {}).get("how", "none")), "dose_weight" in told)


def _flags(ctf: str, weighed: bool) -> str:
    return f"--ctf {ctf}" + (" --dose-weight" if weighed else "")
