"""The training of Samba as `cryolithe.denoising.session` runs it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cryolithe import __version__
from cryolithe.denoising.method import Training
from cryolithe.denoising.samba.blocks import Blocks
from cryolithe.denoising.samba.job import Resolved
from cryolithe.denoising.samba.model import SIZES, load_weights, save_weights
from cryolithe.denoising.samba.recipe import make_recipe
from cryolithe.denoising.samba.training import (
    Hooks,
    SambaState,
    load_state,
    loss_held_back,
    new_state,
    save_state,
    saved_batch,
    train,
)
from cryolithe.machine.device import precision_name
from cryolithe.optimise.distributed import Place, least
from cryolithe.optimise.loop import Hooks as AnyHooks
from cryolithe.optimise.state import STARTS_FROM, means_told


class SambaTraining(Training[SambaState, float]):
    """Learning from one volume.

    Args:
        run: the volume and the choices.
        place: of this process.
    """

    columns = ("loss",)
    # Of --lmax, which is first of all that of inference: the record tells both.
    asked_anew = ("largest_gap", "most_steps")

    def __init__(self, run: Resolved, place: Place) -> None:
        self._run, self._place, job = run, place, run.job
        start = load_weights(job.model) if job.model is not None else None
        self._start = None if start is None else start.network
        self.began_with = {} if start is None else {STARTS_FROM: start.sha256}
        sizes = SIZES[job.size] if self._start is None else self._start.config
        # A batch that was left open follows the memory that is free, but for a training that goes on.
        batch = saved_batch(job.state) if job.batch is None and job.resume else job.batch
        recipe = make_recipe(run.gaps[0], place.device, sizes, crop=job.crop, batch=batch, seed=job.seed)
        self.recipe = replace(recipe, batch=least(recipe.batch, place))
        self.fingerprint = run.source.fingerprint()
        self.anew = self._start is None
        self.settings = self.recipe.plain()
        self.left_open = ("validation_blocks", *(name for name in ("crop", "batch") if getattr(job, name) is None))
        self.most_steps = self.recipe.most_steps

    def plan(self) -> str:
        """In words."""
        run, place = self._run, self._place
        limit = run.job.limit_seconds(place.device)
        end = f"{limit / 60:g} min" if math.isfinite(limit) else "until what is held back no longer gets better,"
        count = torch.get_num_threads()
        threads = f", {count} thread{'s' if count > 1 else ''}" if place.device.type == "cpu" else ""
        shape = " x ".join(map(str, run.volume.shape))
        first = "" if run.job.lmax_sweep is None else "; the network trains first, then several Lmax are drawn"
        return (
            f"Plan: {shape} (z, y, x), Lmax {run.gaps[0]} in training and {run.gaps[1]} in inference; training {end} "
            f"on {place.device} ({precision_name(place.precision)}{threads}; squares of {self.recipe.crop} pixels, "
            f"{self.recipe.batch} at a time){first}"
        )

    def begin(self) -> SambaState:
        """The state before the first step."""
        self._blocks = Blocks(self._run.source, self.recipe)
        self.state = new_state(self.recipe, self._place, self._start)
        return self.state

    def run(self, hooks: AnyHooks, on_validation: Callable[[SambaState, float], object]) -> None:
        """Train the state on."""
        train(self.recipe, self._blocks, self._place, Hooks(**vars(hooks), on_validation=on_validation), self.state)

    def save_state(self, path: Path) -> None:
        """Write all that is needed to go on exactly."""
        save_state(path, self.state, self.recipe, self.fingerprint, self.began_with)

    def load_state(self, path: Path) -> None:
        """Go back to a saved state."""
        load_state(path, self.state, self.recipe, self.fingerprint, self.began_with)

    def row(self, found: float) -> tuple[float, ...]:
        """The loss."""
        return (found,)

    def first_look(self) -> float:
        """The loss before the first step."""
        return loss_held_back(self.state, self._blocks, self._place)

    def told(self, found: float) -> tuple[str, float, int]:
        """The loss."""
        return "loss held back", found, 5

    def save_weights(self, path: Path) -> None:
        """Write the best network."""
        save_weights(path, self.state.best, self._card())

    def _card(self) -> dict[str, Any]:
        """What the weights' file tells of its making."""
        volume, scale, state, place = self._run.volume, self._run.source.survey.scale, self.state, self._place
        return {
            "cryolithe": __version__,
            "method": "samba",
            "volume": {
                "name": volume.path.name,
                "shape_zyx": list(volume.shape),
                "voxel_size_angstrom": volume.voxel_size_angstrom,
                "fingerprint": self.fingerprint,
                "centre": scale.centre,
                "unit": scale.unit,
            },
            "recipe": self.recipe.plain(),
            "steps": state.step,
            "seconds": round(state.seconds),
            "loss_held_back": state.best_loss,
            "loss_held_back_before": state.first_loss if math.isfinite(state.first_loss) else None,
            "hardly_trained": self.hardly_trained(),
            "device": str(place.device),
            "precision": precision_name(place.precision),
            "processes": place.world,
            **means_told(state),
        }
