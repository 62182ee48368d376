"""The training of Noise2Noise as `cryolithe.denoising.session` runs it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryolithe import __version__
from cryolithe.denoising.method import Training
from cryolithe.denoising.n2n.gains import ONE
from cryolithe.denoising.n2n.halves import HalfPair, contrast_of
from cryolithe.denoising.n2n.job import N2nJob
from cryolithe.denoising.n2n.network import BACKBONES, save_denoiser
from cryolithe.denoising.n2n.pairs import Patches
from cryolithe.denoising.n2n.recipe import make_recipe
from cryolithe.denoising.n2n.train import Hooks, N2nState, load_state, new_state, save_state, train, validated
from cryolithe.denoising.n2n.validation import Held
from cryolithe.denoising.periods import told
from cryolithe.machine.device import precision_name
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.loop import Hooks as AnyHooks
from cryolithe.optimise.state import STARTS_FROM, means_told

GENERAL = "the file of general weights"  # that a training starts from without a model


class N2nTraining(Training[N2nState, Held]):
    """Learning from pairs of halves.

    Args:
        job: the choices.
        pairs: at least one.
        place: of this process.
    """

    columns = ("loss", "correlation", "lost")

    def __init__(self, job: N2nJob, pairs: Sequence[HalfPair], place: Place) -> None:
        self._job, self._pairs, self._place = job, list(pairs), place
        start = job.begun_with(place.device)
        self._start, self._began = start.network if start else None, start.sha256 if start else None
        self._prior = start.gain if start else ONE
        self._config = start.config if start else BACKBONES[job.backbone_on(place.device)]
        self.recipe = make_recipe(self._config, place.device, loss=job.wanted_loss, batch=job.batch, seed=job.seed)
        self._patches = Patches(self._pairs, self.recipe.edge, self._config.multiple, self.recipe.seed)
        self.fingerprint = fingerprint_of(self._pairs)
        self.anew = start is None
        self.began_with = {STARTS_FROM if job.model else GENERAL: start.sha256} if start else {}
        self.settings = self.recipe.plain()
        chosen = {"batch": job.batch, "config": job.model or job.chosen_backbone}
        self.left_open = ("edge", *(name for name, value in chosen.items() if value is None))
        self.most_steps = self.recipe.most_steps

    def plan(self) -> str:
        """In words."""
        job, recipe, place = self._job, self.recipe, self._place
        name = "weights of --model" if job.model else job.backbone_on(place.device)
        rows = "the last tenth of the" if len(self._pairs) > 1 else f"the last {self._patches.held_count}"
        if self._began and not job.model:
            name += ", beginning with the general weights"
        return (
            f"Plan: {name}, loss {recipe.loss}; training at most {job.limit_seconds(place.device) / 60:g} min on "
            f"{place.device} ({precision_name(place.precision)}), less if what is held back ({rows} rows along y) no "
            "longer gets better"
        )

    def begin(self) -> N2nState:
        """The state before the first step."""
        self.state = new_state(self.recipe, self._place, self._start)
        return self.state

    def run(self, hooks: AnyHooks, on_validation: Callable[[N2nState, Held], object]) -> None:
        """Train the state on."""
        train(self.recipe, self._patches, self._place, Hooks(**vars(hooks), on_validation=on_validation), self.state)

    def save_state(self, path: Path) -> None:
        """Write all that is needed to go on exactly."""
        save_state(path, self.state, self.recipe, self.fingerprint, self.began_with)

    def load_state(self, path: Path) -> None:
        """Go back to a saved state."""
        load_state(path, self.state, self.recipe, self.fingerprint, self.began_with)

    def row(self, found: Held) -> tuple[float, ...]:
        """Loss, correlation, the most that a shell lost."""
        return 1 - found.correlation, found.correlation, found.lost

    def first_look(self) -> float:
        """One minus the correlation before the first step."""
        return 1 - validated(self.recipe, self._patches, self._place, self.state.averaged).correlation

    def gained(self) -> tuple[str, float]:
        """The correlation before and now: of clean halves the loss has far to fall, of noisy ones the correlation."""
        first, best = 1 - self.state.first_loss, 1 - self.state.best_loss
        if not (math.isfinite(first) and math.isfinite(best)):
            return "", math.inf
        rise = best / first - 1 if first > 0 else float(best > 0)
        fall = 1 - self.state.best_loss / self.state.first_loss if self.state.first_loss > 0 else 0.0
        return f"correlation with the other half, held back, {first:.3f} before, {best:.3f} at best", max(rise, fall)

    def told(self, found: Held) -> tuple[str, float, int]:
        """The correlation."""
        return "correlation with the other half, held back,", found.correlation, 4

    def save_weights(self, path: Path) -> str | None:
        """Write the best network and the gain that suits it; a warning if it smooths signal away."""
        held = validated(self.recipe, self._patches, self._place, self.state.best, self._prior)
        save_denoiser(path, self.state.best, self._config, held.gain, self._card(held))
        if not held.too_smooth:
            return None
        at = told(held.lost_at_per_px, None, self._pairs[0].voxel_size_angstrom)
        return (
            f"the network smooths signal away: at {at} the denoised halves correlate with the other half by "
            f"{held.lost:.2f} less than the raw ones (in the rows held back); train longer (--train-minutes), or try "
            "--loss fsc"
        )

    def _card(self, held: Held) -> dict[str, Any]:
        """What the weights' file tells of its making."""
        state, place = self.state, self._place
        halves = [_told(pair) for pair in self._pairs]
        return {
            "cryolithe": __version__,
            "method": "n2n",
            "halves": halves[0] if len(halves) == 1 else {"pairs": halves, "fingerprint": self.fingerprint},
            "recipe": self.recipe.plain(),
            "began_with_sha256": self._began,
            "steps": state.step,
            "seconds": round(state.seconds),
            "hardly_trained": self.hardly_trained(),
            "held_back": {
                "correlation": held.correlation,
                "correlation_before": 1 - state.first_loss if math.isfinite(state.first_loss) else None,
                "most_lost": held.lost,
                "most_lost_at_per_px": held.lost_at_per_px,
            },
            "device": str(place.device),
            "precision": precision_name(place.precision),
            **means_told(state),
        }


def _told(pair: HalfPair) -> dict[str, Any]:
    return {
        "names": [half.volume.path.name for half in (pair.first, pair.second)],
        "shape_zyx": list(pair.shape),
        "voxel_size_angstrom": pair.voxel_size_angstrom,
        "contrast": contrast_of(pair.first.volume.path),
        "fingerprint": pair.fingerprint(),
    }


def learned_from(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pairs that a network was trained on, as its file tells: ``names``, ``fingerprint`` and so on."""
    halves = card.get("halves")
    if not isinstance(halves, Mapping):
        return []
    pairs = halves.get("pairs", [halves])
    return [dict(pair) for pair in pairs if isinstance(pair, Mapping)] if isinstance(pairs, list) else []


def fingerprint_of(pairs: Sequence[HalfPair]) -> str:
    """Tells sets of pairs apart: the fingerprint of one, or SHA-256 of all of them."""
    found = [pair.fingerprint() for pair in pairs]
    return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()
