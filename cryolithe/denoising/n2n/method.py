"""Noise2Noise as one of the denoisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryolithe.denoising.job import Given
from cryolithe.denoising.method import Applied, Halves, Method
from cryolithe.denoising.n2n.apply import apply, compared, scratch_bytes
from cryolithe.denoising.n2n.bundled import doubts_about, general_weights, is_general, named_weights
from cryolithe.denoising.n2n.gather import gather
from cryolithe.denoising.n2n.halves import MOST_APART, contrast_of
from cryolithe.denoising.n2n.job import N2nJob
from cryolithe.denoising.n2n.learning import N2nTraining, learned_from
from cryolithe.denoising.n2n.network import Denoiser, kind_of, load_denoiser
from cryolithe.denoising.n2n.train import FORMAT
from cryolithe.denoising.n2n.view import N2nView, check_together, look
from cryolithe.errors import InputError, ModelError, SettingsError
from cryolithe.optimise.distributed import Place
from cryolithe.work.watcher import Watcher


class N2n(Method[N2nJob, N2nView, Denoiser]):
    """One half predicted from the other (Lehtinen et al. 2018; Topaz-Denoise, Bepler et al. 2020)."""

    name = "n2n"
    state_format = FORMAT
    advice = "train longer (--train-minutes), or try --loss fsc"
    scored = True

    def job(self, given: Given, choices: Mapping[str, Any]) -> N2nJob:
        """Pairs of halves, given or in a folder, or one whole volume with weights that were trained before.

        Raises:
            InputError: if there is neither a pair of halves nor a model.
            SettingsError: for settings of a training where nothing is trained, or of a network that is there.
        """
        left = dict(choices)
        items, learned, notes = gather(given, left.pop("report", None))
        if left.get("model") is not None:
            left["model"] = named_weights(left["model"])
        elif left.get("train_minutes") is None and all(len(item.inputs) < 2 for item in items):
            left["model"] = general_weights()
        job = N2nJob(items=items, learned=learned, notes=notes, **left)
        if job.trains and any(len(item.inputs) < 2 for item in items):
            raise InputError(
                "Noise2Noise learns from two halves: give --half1 and --half2 (volumes of even and odd images or "
                "frames), or --model with weights that were trained before, without --train-minutes"
            )
        if not job.trains and (choices.get("model") is None or job.start is not None):
            _check_untrained(job)
        if job.model is not None and job.backbone is not None:
            raise SettingsError("--backbone is for a network that begins anew: the one of --model has its own")
        if not job.trains and (job.loss is not None or job.batch is not None):
            name = "--loss" if job.loss is not None else "--batch"
            raise SettingsError(
                f"{name} is for the training: with --model alone nothing is trained; give --train-minutes"
            )
        return job

    def look(self, job: N2nJob, watcher: Watcher) -> list[N2nView]:
        """Open the volumes, look at all of them, say what was found."""
        check_together(job)
        if job.purpose and job.purpose.note:
            watcher.note(job.purpose.note)
        return [look(job, item, watcher) for item in job.items]

    def disk_bytes(self, job: N2nJob, view: N2nView) -> int:
        """Scratch and result."""
        return scratch_bytes(view)

    def training(self, job: N2nJob, views: Sequence[N2nView], place: Place) -> N2nTraining:
        """A training on all pairs."""
        return N2nTraining(job, [view.pair for view in views if view.pair is not None], place)

    def load(self, path: Path) -> Denoiser:
        """Read weights.

        Raises:
            ModelError: if they are weights for tilt images, or none that can be read.
        """
        found = load_denoiser(path)
        if kind_of(found.config) == "planar":
            raise ModelError(f"{path} holds weights for tilt images, which --images takes; give those of a volume")
        return found

    def doubts(self, job: N2nJob, views: Sequence[N2nView], weights: Denoiser) -> list[str]:
        """Whether they were trained on other volumes, or on halves while whole volumes are denoised."""
        pairs = [view.pair for view in views if view.pair is not None]
        if is_general(weights.card):
            found = [text for view in views for text in doubts_about(weights.card, view.voxel_size_angstrom)]
            return list(dict.fromkeys(found))
        learned = learned_from(weights.card)
        found = [f"Warning: {text}" for view in views for text in _unlike(job, view, learned)]
        if len(pairs) < len(views):
            return [
                *found,
                "Note: the weights were trained on halves, which have twice the noise of this whole volume; with "
                "--half1 and --half2 the result has less noise, and its score is known",
            ]
        known = {pair.get("fingerprint") for pair in learned}
        if all(pair.fingerprint() in known for pair in pairs):
            return found
        named = [str(name) for pair in learned for name in pair.get("names", [])]
        names = " and ".join(named[:2] or ["other volumes"]) + (" and more" if len(named) > 2 else "")
        return [*found, f"Warning: {job.model} was trained on other volumes ({names}): look at the result with care"]

    def apply(self, job: N2nJob, view: N2nView, weights: Denoiser, place: Place, watcher: Watcher) -> Applied:
        """Denoise by tiles."""
        return apply(view, weights, job.overwrite, place, watcher)

    def halves(self, job: N2nJob, view: N2nView, weights: Denoiser, place: Place, watcher: Watcher) -> Halves | None:
        """The middle of both halves, before and after."""
        return compared(view, weights, place) if view.pair is not None else None


def _unlike(job: N2nJob, view: N2nView, learned: Sequence[Mapping[str, Any]]) -> list[str]:
    """In what a volume is unlike those that weights were trained on: scale, contrast."""
    name, found = view.volume.path.name, []
    sizes = [size for pair in learned if isinstance(size := pair.get("voxel_size_angstrom"), int | float) and size > 0]
    own = view.voxel_size_angstrom
    if own and sizes and not any(1 / MOST_APART <= own / size <= MOST_APART for size in sizes):
        found.append(
            f"{name} has voxels of {own:g} Å, {job.model} was trained on {min(sizes, key=lambda s: abs(s - own)):g} Å: "
            "details have other sizes there; train on volumes of this voxel size"
        )
    contrasts = {contrast for pair in learned if isinstance(contrast := pair.get("contrast"), str)}
    contrast = contrast_of(view.volume.path)
    if contrast and contrasts and contrast not in contrasts:
        found.append(
            f"{name} is {contrast} by its record, {job.model} was trained on {' and '.join(sorted(contrasts))} "
            "volumes: a network knows the contrast that it has seen; reconstruct with the other --contrast, or train "
            "anew"
        )
    return found


def _check_untrained(job: N2nJob) -> None:
    """Refuse choices of a training where there is none."""
    for name in ("backbone", "loss", "start"):
        if getattr(job, name) is not None:
            raise InputError(
                f"--{name} is a choice of the training, and there is none with finished weights; leave it away, or "
                "give --half1, --half2 and --train-minutes"
            )
