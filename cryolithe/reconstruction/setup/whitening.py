"""Prepared images whose noise is made white, as a model may ask that learned so on a lab's own series.

Such a model's card has ``noise_gain``, see `cryolithe.artefacts.noise_colour`. Images that do not have that colour stay
as they are: those of another microscope, or simulated ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryolithe.artefacts.noise_colour import LEAST_GAIN, MOST_GAIN, POINTS, Gain, filtered, has_colour, radial_power
from cryolithe.errors import ModelError
from cryolithe.network.checkpoint import Model
from cryolithe.reconstruction.images.preparation import prepare_stack
from cryolithe.reconstruction.images.prepared_stack import PreparedStack, changed, images_of
from cryolithe.reconstruction.jobs.job import ResolvedJob
from cryolithe.reconstruction.setup.fitting import image_workers_of

# Images by which the colour is judged.
MOST_LOOKED_AT = 12


def noise_gain(model: Model | None) -> Gain | None:
    """The factors by which a model wants images filtered; None for none.

    Raises:
        ModelError: if its card says something else than factors.
    """
    found = None if model is None else model.card.get("noise_gain")
    if found is None:
        return None
    good = isinstance(found, list) and len(found) == POINTS
    if not good or not all(type(one) in (int, float) and LEAST_GAIN <= one <= MOST_GAIN for one in found):
        assert model is not None
        raise ModelError(
            f"the card of model {model.name} has a noise_gain that is not {POINTS} factors of {LEAST_GAIN:g} to "
            f"{MOST_GAIN:g}; write the model again"
        )
    return tuple(float(one) for one in found)


def prepare_run(run: ResolvedJob, path: Path | None, on_image: Callable[[], object] = lambda: None) -> PreparedStack:
    """Prepare a run's images (see `prepare_stack`), with white noise where its model asks for it.

    Raises:
        OutputError: if the file cannot be written.
        ModelError: if the model's card cannot be understood.
    """
    gain = noise_gain(run.model)
    stack = prepare_stack(run.series, run.preparation, path, on_image, image_workers_of(run))
    return stack if gain is None or not stack_has_colour(stack, gain) else whitened(stack, gain)


def stack_has_colour(stack: PreparedStack, gain: Gain) -> bool:
    """Whether the noise of prepared images has the colour that a gain makes white."""
    tilts = stack.geometry.tilts
    looked_at = np.unique(np.linspace(0, tilts - 1, min(tilts, MOST_LOOKED_AT)).round().astype(int))
    images = images_of(stack)
    return has_colour(np.mean([radial_power(images[number]) for number in looked_at], axis=0), gain)


def whitened(stack: PreparedStack, gain: Gain, path: Path | None = None) -> PreparedStack:
    """Prepared images, filtered.

    Args:
        stack: to filter; without a path, in place.
        gain: factors.
        path: file for them instead.
    """

    def white(image: NDArray[np.float32], _number: int) -> NDArray[np.float32]:
        one = filtered(image, gain)
        return one - one.mean(dtype=np.float64).astype(np.float32)

    # Of so low frequencies a filter changes the strength alone.
    slow = None if stack.slow is None else replace(stack.slow, squares=stack.slow.squares * np.float32(gain[0]))
    return replace(changed(stack, white, path), whitened=True, slow=slow)


def colour_line(model: Model | None, stack: PreparedStack) -> str | None:
    """What became of the noise's colour, for the user; None where the model asks for nothing."""
    gain = noise_gain(model)
    if gain is None:
        return None
    if stack.whitened:
        factors = f"{min(gain):.2g} to {max(gain):.2g}"
        return f"Noise: has the colour of the series that the model was adapted to; made white (factors {factors})."
    return "Noise: has not the colour of the series that the model was adapted to; the images stay as they are."
