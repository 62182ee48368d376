"""What is known of a series that is trained on, and how much of it a network is told.

A simulated series knows what its recipe drew, also when it comes from a file. Of recorded pairs the voxel size is
known. Users know some facts and not others: each is withheld by chance, and sometimes all are, so that a network
learns what to do without.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cryolithe.errors import SettingsError
from cryolithe.formats.pairs import Pair
from cryolithe.known import Known
from cryolithe.network.knowing import encode_known

# Chances that nothing is told, and else that a fact is not.
NOTHING_CHANCE, UNKNOWN_CHANCE = 0.15, 0.3
# Modes of a recipe, by what users call what they leave.
STATES = {"left": "uncorrected", "phase-flipped": "flipped", "wiener": "wiener", "none": "none"}


def known_of_plain(voxel_size_angstrom: float) -> Known:
    """What is known of plain projections: no microscope had a part in them."""
    return Known(ctf_state="none", voxel_size_angstrom=voxel_size_angstrom)


def known_of_pair(pair: Pair) -> Known:
    """What is known of a pair; what its record does not tell, or tells in another way, is not known."""
    drawn = pair.origin.get("drawn")
    if not isinstance(drawn, dict):
        return Known(voxel_size_angstrom=pair.voxel_size_angstrom)
    if drawn.get("noise") == "white":
        return known_of_plain(pair.voxel_size_angstrom)
    state, plan, optics = STATES.get(str(drawn.get("ctf"))), drawn.get("plan"), drawn.get("optics")
    doses = _numbers(plan.get("exposure_before")) if isinstance(plan, dict) else ()
    images = optics if isinstance(optics, list | tuple) else ()
    defoci = _numbers([one.get("defocus_um") for one in images if isinstance(one, dict)])
    thickness = _numbers([drawn.get("thickness_angstrom")])
    try:
        return Known(
            ctf_state=state,
            defocus_um=float(np.mean(defoci)) if defoci and state != "none" else None,
            doses=doses if len(doses) == len(pair.angles_deg) else None,
            thickness_angstrom=thickness[0] if thickness else None,
            voxel_size_angstrom=pair.voxel_size_angstrom,
        )
    except SettingsError:  # of a file that someone wrote otherwise
        return Known(voxel_size_angstrom=pair.voxel_size_angstrom)


def draw_facts(
    known: Known, facts: tuple[str, ...], angles_rad: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """Facts as a network is told them, some of them withheld.

    Args:
        known: of the run's images.
        facts: that the network takes.
        angles_rad: of the images.
        rng: source of randomness; as many numbers are drawn whatever is known.

    Returns:
        shape ``(tilts, facts)``, see `encode_known`.
    """
    nothing, withheld = rng.random() < NOTHING_CHANCE, rng.random(len(facts)) < UNKNOWN_CHANCE
    kept_back = [fact for fact, drop in zip(facts, withheld, strict=True) if nothing or drop]
    return encode_known(known.without(kept_back), facts, angles_rad)


def _numbers(values: Any) -> tuple[float, ...]:
    """Plain numbers, or nothing if any value is something else."""
    if not isinstance(values, list | tuple) or not all(isinstance(v, int | float) for v in values):
        return ()
    return tuple(float(value) for value in values)
