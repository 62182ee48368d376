"""Noise2Noise as one of the denoisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryolithe.denoise.job import Given
from cryolithe.denoise.method import Applied, Halves, Method
from cryolithe.denoise.n2n.apply import apply, compared, scratch_bytes
from cryolithe.denoise.n2n.gather import gather
from cryolithe.denoise.n2n.job import N2nJob
from cryolithe.denoise.n2n.learning import N2nTraining, learned_from
from cryolithe.denoise.n2n.network import Denoiser, load_denoiser
from cryolithe.denoise.n2n.train import FORMAT
from cryolithe.denoise.n2n.view import N2nView, check_scales, look
from cryolithe.errors import InputError
from cryolithe.optimise.distributed import Place
from cryolithe.work.watcher import Watcher


class N2n(Method[N2nJob, N2nView, Denoiser]):
    """One half predicted from the other (Lehtinen et al. 2018; Topaz-Denoise, Bepler et al. 2020)."""

    name = "n2n"
    state_format = FORMAT
    advice = "train longer (--train-minutes), or try --loss fsc"
    scored = True

    def job(self, given: Given, choices: Mapping[str, Any]) -> N2nJob:
        """Pairs of halves, given or in a folder, or one whole volume with weights that were trained before."""
        left = dict(choices)
        items, learned, notes = gather(given, left.pop("report", None))
        job = N2nJob(items=items, learned=learned, notes=notes, **left)
        if job.trains and any(len(item.inputs) < 2 for item in items):
            raise InputError(
                "Noise2Noise learns from two halves: give --half1 and --half2 (volumes of even and odd images or "
                "frames), or --model with weights that were trained before, without --train-minutes"
            )
        return job

    def look(self, job: N2nJob, watcher: Watcher) -> list[N2nView]:
        """Open the volumes, look at all of them, say what was found."""
        check_scales(job)
        return [look(job, item, watcher) for item in job.items]

    def disk_bytes(self, job: N2nJob, view: N2nView) -> int:
        """Scratch and result."""
        return scratch_bytes(view)

    def training(self, job: N2nJob, views: Sequence[N2nView], place: Place) -> N2nTraining:
        """A training on all pairs."""
        return N2nTraining(job, [view.pair for view in views if view.pair is not None], place)

    def load(self, path: Path) -> Denoiser:
        """Read weights."""
        return load_denoiser(path)

    def doubts(self, job: N2nJob, views: Sequence[N2nView], weights: Denoiser) -> list[str]:
        """Whether they were trained on other volumes, or on halves while whole volumes are denoised."""
        pairs = [view.pair for view in views if view.pair is not None]
        if len(pairs) < len(views):
            return [
                "Note: the weights were trained on halves, which have twice the noise of this whole volume; with "
                "--half1 and --half2 the result has less noise, and its score is known"
            ]
        learned = learned_from(weights.card)
        known = {pair.get("fingerprint") for pair in learned}
        if all(pair.fingerprint() in known for pair in pairs):
            return []
        named = [str(name) for pair in learned for name in pair.get("names", [])]
        names = " and ".join(named[:2] or ["other volumes"]) + (" and more" if len(named) > 2 else "")
        return [f"Warning: {job.model} was trained on other volumes ({names}): look at the result with care"]

    def apply(self, job: N2nJob, view: N2nView, weights: Denoiser, place: Place, watcher: Watcher) -> Applied:
        """Denoise by tiles."""
        return apply(view, weights, job.overwrite, place, watcher)

    def halves(self, job: N2nJob, view: N2nView, weights: Denoiser, place: Place, watcher: Watcher) -> Halves | None:
        """The middle of both halves, before and after."""
        return compared(view, weights, place) if view.pair is not None else None
