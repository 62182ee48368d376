"""Noise2Noise as one of the denoisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryolithe.denoise.job import Given, Item, beside
from cryolithe.denoise.method import Applied, Halves, Method
from cryolithe.denoise.n2n.apply import apply, compared, scratch_bytes
from cryolithe.denoise.n2n.job import N2nJob, output_of
from cryolithe.denoise.n2n.learning import N2nTraining, fingerprint_of
from cryolithe.denoise.n2n.network import Denoiser, load_denoiser
from cryolithe.denoise.n2n.train import FORMAT
from cryolithe.denoise.n2n.view import N2nView, look
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
        """Two halves, or one whole volume with weights that were trained before."""
        left = dict(choices)
        inputs = _inputs(given)
        output = given.output or output_of(next(iter(inputs.values())))
        job = N2nJob(items=(Item(inputs, output, left.pop("report", None)),), learned=beside(output), **left)
        if job.trains and len(inputs) < 2:
            raise InputError(
                "Noise2Noise learns from two halves: give --half1 and --half2 (volumes of even and odd images or "
                "frames), or --model with weights that were trained before, without --train-minutes"
            )
        return job

    def look(self, job: N2nJob, watcher: Watcher) -> list[N2nView]:
        """Open the volumes, look at all of them, say what was found."""
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
        learned = weights.card.get("halves", {})
        if learned.get("fingerprint") == fingerprint_of(pairs):
            return []
        names = " and ".join(learned.get("names", ["other volumes"]))
        return [f"Warning: {job.model} was trained on other volumes ({names}): look at the result with care"]

    def apply(self, job: N2nJob, view: N2nView, weights: Denoiser, place: Place, watcher: Watcher) -> Applied:
        """Denoise by tiles."""
        return apply(view, weights, job.overwrite, place, watcher)

    def halves(self, job: N2nJob, view: N2nView, weights: Denoiser, place: Place, watcher: Watcher) -> Halves | None:
        """The middle of both halves, before and after."""
        return compared(view, weights, place) if view.pair is not None else None


def _inputs(given: Given) -> dict[str, Path]:
    """Two halves or one whole volume, by their names in the record."""
    if given.halves and given.volumes:
        raise InputError(
            f"give either VOLUME or --half1 and --half2: the halves are denoised, {given.volumes[0]} would not be used"
        )
    if given.halves:
        return dict(zip(("half1", "half2"), given.halves[0], strict=True))
    if given.volumes:
        return {"volume": given.volumes[0]}
    raise InputError("give --half1 and --half2 (volumes of even and odd images), or VOLUME and --model")
