"""What a laboratory's images have and clean simulated ones lack, by ring of frequency and tilt.

Signal is what neighbouring tilts share: ``Re <A B*>`` of real neighbours over that of simulated neighbours, as many
degrees apart, is the square of the factor a by which the simulated contrast must be multiplied. Noise is independent
from tilt to tilt and drops out. The rest of an image's power is noise. What signal to subtract is told by what the
stack's own neighbours share, over the share that they do in clean images (so that it does not matter how crowded this
specimen is), where that share is large, and by ``a² P_clean`` at the frequencies and tilts where it is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import torch
from numpy.typing import NDArray

from cryolithe.errors import InputError
from cryolithe.style.rings import Rings
from cryolithe.style.target import Stack

FloatArray = NDArray[np.float64]

LARGEST_PX = 256
MOST_NODES = 41
SHARED_PER_PX = 0.12  # below it neighbouring tilts are compared
LEAST_CERTAIN = 3.0  # standard errors
SMOOTHED_TILTS = 3
LEAST_NOISE = 1e-3  # of the power of an image
LEAST_SHARED = 0.3  # of the clean power by neighbours: below it they say nothing of the signal
LEAST_DATA = 1e-3  # of the patches of images with borders
TOO_STRONG = 0.1  # of the rings: worth a word


@dataclass(frozen=True)
class Curves:
    """Power by tilt and ring.

    Attributes:
        angles_deg: of A tilts, rising.
        frequency_per_px: of R rings.
        power: of the laboratory's images, shape ``(A, R)``.
        noise: what of it no signal explains, shape ``(A, R)``.
        contrast: by what clean images are multiplied.
        notes: what a user should know.
    """

    angles_deg: FloatArray
    frequency_per_px: FloatArray
    power: FloatArray
    noise: FloatArray
    contrast: float
    notes: tuple[str, ...]


def largest_patch(stacks: tuple[Stack, ...]) -> int:
    """Edge of the patches that all images have room for, even."""
    return min(LARGEST_PX, *(2 * (min(stack.images.shape[1:]) // 2) for stack in stacks))


def measure(real: tuple[Stack, ...], clean: tuple[Stack, ...]) -> Curves:
    """Compare recorded stacks with clean simulated images.

    Args:
        real: standardised.
        clean: in their own units; same pixels.

    Raises:
        InputError: if neighbouring tilts of the stacks share nothing: not aligned, or nothing in them.
    """
    rings = Rings(largest_patch((*real, *clean)))
    step = float(np.median(np.concatenate([np.diff(stack.angles_deg) for stack in real])))
    contrast = _contrast(real, clean, rings, step)
    nodes = _nodes(real)
    power, shared = at_nodes(real, rings, nodes), at_nodes(real, rings, nodes, step)
    simulated, alike = at_nodes(clean, rings, nodes), at_nodes(clean, rings, nodes, step)
    share = np.clip(alike / np.maximum(simulated, np.finfo(np.float32).tiny), 0, 1)
    own = np.maximum(shared, 0) / np.maximum(share, LEAST_SHARED)
    trust = np.clip((share - LEAST_SHARED) / LEAST_SHARED, 0, 1)
    signal = contrast**2 * simulated
    rest = power - trust * own - (1 - trust) * signal
    # Noise changes little from tilt to tilt; differences of large numbers, at low frequencies, change more.
    noise = np.clip(scipy.ndimage.uniform_filter1d(rest, SMOOTHED_TILTS, axis=0), LEAST_NOISE * power, power)
    return Curves(nodes, rings.frequency_per_px, power, noise, contrast, _excess(signal, power))


def _excess(signal: FloatArray, power: FloatArray) -> tuple[str, ...]:
    """A note where the simulated signal has more than all of the power there is."""
    strong = signal > power
    if strong.mean() <= TOO_STRONG:
        return ()
    excess = 10 * np.log10(np.median((signal / power)[strong]))
    return (
        f"the recipe's signal is stronger than all of the stacks' power in {strong.mean():.0%} of the rings (median "
        f"{excess:+.1f} dB): the recipe's specimens or optics are not those of the stacks",
    )


def on_curves(values: FloatArray, angles_deg: FloatArray, angle_deg: float) -> FloatArray:
    """A row of a table by tilts at another tilt, linear between them, even beyond their ends."""
    place = float(np.interp(angle_deg, angles_deg, np.arange(len(angles_deg))))
    low = min(int(place), len(angles_deg) - 2)
    return np.asarray(values[low] + (place - low) * (values[low + 1] - values[low]))


def _nodes(stacks: tuple[Stack, ...]) -> FloatArray:
    count = min(MOST_NODES, max(len(stack.angles_deg) for stack in stacks))
    least, most = (float(limit(limit(s.angles_deg) for s in stacks)) for limit in (min, max))
    return np.linspace(least, most, count)


def at_nodes(
    stacks: tuple[Stack, ...], rings: Rings, nodes_deg: FloatArray, apart_deg: float | None = None
) -> FloatArray:
    """Mean power of the images around tilts, in a triangle of these tilts' spacing, shape ``(A, R)``.

    Args:
        stacks: of images.
        rings: of the patches that the power is of.
        nodes_deg: tilts, evenly spaced.
        apart_deg: given, of what images so far apart share instead of their power.
    """
    angles, rows, held = [], [], []
    for stack in stacks:
        if apart_deg is None:
            angles.append(stack.angles_deg)
            rows += [rings.powers(rings.cut(image)).mean(0) for image in stack.images]
            held += [rings.held(stack, n) for n in range(len(stack.images))]
            continue
        pairs = _pairs(stack, apart_deg)
        angles.append(np.array([stack.angles_deg[list(pair)].mean() for pair in pairs]))
        rows += [rings.cross(*(rings.cut(stack.images[n]) for n in pair)).mean(0) for pair in pairs]
        held += [rings.held(stack, *pair) for pair in pairs]
    away = np.abs(np.concatenate(angles) - nodes_deg[:, None])
    weights = np.maximum(1 - away / (nodes_deg[1] - nodes_deg[0]), 0)
    alone = weights.sum(axis=1) < 0.5
    weights[alone] = away[alone] == away[alone].min(axis=1, keepdims=True)
    # Each counts by what of it is data.
    of_data = np.maximum(weights @ np.array(held), LEAST_DATA)[:, None]
    return np.asarray(weights @ torch.stack(rows).double().numpy() / of_data)


def _pairs(stack: Stack, apart_deg: float) -> list[tuple[int, int]]:
    """Each image with the one after it whose tilt is nearest to so many degrees on."""
    found = []
    for number in range(len(stack.angles_deg) - 1):
        away = np.abs(stack.angles_deg - stack.angles_deg[number] - apart_deg)
        away[: number + 1] = np.inf
        found.append((number, int(away.argmin())))
    return found


def _contrast(real: tuple[Stack, ...], clean: tuple[Stack, ...], rings: Rings, step_deg: float) -> float:
    low = rings.frequency_per_px <= max(SHARED_PER_PX, 2.5 / rings.size)
    weights = torch.from_numpy(np.where(low, rings.counts, 0.0)).float()
    (shared, error), (simulated, _) = (_shared(stacks, rings, weights, step_deg) for stacks in (real, clean))
    if not shared > LEAST_CERTAIN * error:
        raise InputError(
            f"neighbouring tilts of {real[0].name}{' and the others' if len(real) > 1 else ''} share nothing at low "
            f"frequencies ({shared:.3g} ± {error:.3g}); give aligned stacks with something in them"
        )
    if not simulated > 0:
        raise InputError("neighbouring tilts of the recipe's clean images share nothing; put more into its cells")
    return math.sqrt(shared / simulated)


def _shared(stacks: tuple[Stack, ...], rings: Rings, weights: torch.Tensor, step_deg: float) -> tuple[float, float]:
    """Mean cross-power of images about ``step_deg`` apart, and its standard error if they shared nothing."""
    total, variance, of_data = 0.0, 0.0, 0.0
    for stack in stacks:
        for pair in _pairs(stack, step_deg):
            first, second = (rings.cut(stack.images[n]) for n in pair)
            held = max(rings.held(stack, *pair), LEAST_DATA)
            cross = rings.cross(first, second).mean(0) @ weights
            # Re(A B*) of independent images has half the product of their powers as its variance; each of the
            # coefficients of a real image is counted twice, and the window leaves about half of them independent,
            # and borders as many fewer.
            product = (rings.powers(first).mean(0) * rings.powers(second).mean(0)) @ weights
            total += float(cross)
            variance += 2 * float(product) / len(first) / held
            of_data += held
    return total / of_data, math.sqrt(variance) / of_data
