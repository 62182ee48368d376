"""What a network that learns from a lab's pairs keeps of what it could do, on simulated specimens of all classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryolithe.network import Network
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.training.config import TrainConfig
from cryolithe.training.validation import fidelity_told, judge, mean_fidelity, validation_set

# What is simulated: half of the specimens are scenes of membranes, filaments and bodies.
_SIMULATED = {
    "specimens": {"diverse": 0.5},
    "validation": {"specimens": 2, "snr_db": (0.0,)},
}
# A loss on these specimens that a user should know of, dB.
WORTH_A_WARNING_DB = 0.5


@dataclass(frozen=True)
class Kept:
    """How a network does on simulated specimens.

    Attributes:
        snr_db: mean over the specimens.
        fidelity: by class of structure, where there are any.
    """

    snr_db: float
    fidelity: dict[str, float]


def on_simulated(networks: tuple[Network, ...], compute: Compute, advance: Callable[[], object]) -> list[Kept]:
    """How networks do on the same simulated specimens, of procedural molecules, with white noise.

    Args:
        networks: float32 weights on the CPU.
        compute: device and precision.
        advance: called after each network.
    """
    config = TrainConfig.model_validate(_SIMULATED)
    examples = validation_set(config, Path())
    found = []
    for network in networks:
        verdicts, _ = judge(network, examples, config, compute)
        found.append(Kept(float(np.mean([verdict.snr_db for verdict in verdicts])), mean_fidelity(verdicts)))
        advance()
    return found


def told(before: Kept, after: Kept) -> str:
    """What is kept, in a line."""
    changes = fidelity_told(before.fidelity, after.fidelity)
    of_classes = f"; fidelity: {changes}" if changes else ""
    return f"on simulated specimens: {before.snr_db:.2f} -> {after.snr_db:.2f} dB{of_classes}"


def loss_told(before: Kept, after: Kept) -> str:
    """A warning where much was lost; empty where it was not."""
    lost = before.snr_db - after.snr_db
    if math.isfinite(lost) and lost < WORTH_A_WARNING_DB:
        return ""
    return (
        f"the model forgot {lost:.1f} dB on simulated specimens: use it for data like these pairs alone; fewer steps, "
        "a lower learning_rate or more pairs keep more"
    )
