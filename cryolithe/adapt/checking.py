"""How a network does on what it was not adapted to: rows held back, tilts left out, simulated specimens."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryolithe.adapt.cubes import Cube
from cryolithe.adapt.spectrum import ShellSums
from cryolithe.errors import OutputError
from cryolithe.network import Network
from cryolithe.optimise.distributed import Place
from cryolithe.reconstruction.slabwise.methods import Compute
from cryolithe.training.config import TrainConfig
from cryolithe.training.loop import batches_values, gather_for, smaller_cube
from cryolithe.training.losses import cube_voxels
from cryolithe.training.validation import Example, judge, mean_fidelity

# Of the score, at least, that weights must gain: less was no gain by the truth (benchmarks/LOG.md).
CHANCE = 0.03


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        step: after which it was made.
        fsc_half: correlation of the network's volume of one half with the raw other half, mean over shells, where the
            tilts that the network saw measured.
        fsc_left_out: the same where only tilts that were left out measured.
        anchor_db: SNR on simulated specimens, mean.
        shells_half: ``fsc_half`` of each shell.
        shells_left_out: likewise.
        fidelity: on these specimens by class of structure, where there are any.
        share: of the way from the weights before the first step to those of this one.
        white: whether the noise of the lab's images was made white.
    """

    step: int
    fsc_half: float
    fsc_left_out: float
    anchor_db: float
    shells_half: tuple[float, ...]
    shells_left_out: tuple[float, ...]
    fidelity: dict[str, float]
    share: float = 1.0
    white: bool = False

    @property
    def score(self) -> float:
        """What the best check has most of."""
        return self.fsc_half + self.fsc_left_out

    @property
    def words(self) -> str:
        """The numbers in a line."""
        return (
            f"FSC with the other half {self.fsc_half:.4f}, in left-out tilts {self.fsc_left_out:.4f}, simulated "
            f"{self.anchor_db:.2f} dB"
        )

    def record(self) -> dict[str, Any]:
        """Plain values; None for what is no number."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def check_of_record(values: dict[str, Any]) -> Check:
    """The check that a record tells of."""
    numbers = {name: _number(value) for name, value in values.items() if not isinstance(value, list | tuple | dict)}
    shells = {name: tuple(_number(value) for value in values[name]) for name in ("shells_half", "shells_left_out")}
    return Check(**{**values, **numbers, **shells})


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    return math.nan if value is None else value


def read_checks(path: Path, last_step: int) -> list[Check]:
    """Checks of the run that goes on, up to a step.

    Raises:
        OutputError: if they are not there or damaged.
    """
    try:
        found = [check_of_record(values) for values in json.loads(path.read_text(encoding="utf-8"))]
        return [check for check in found if check.step <= last_step]
    except (OSError, ValueError, ArithmeticError, TypeError, KeyError, AttributeError, RecursionError) as error:
        told = " ".join(str(error).split())[:200]
        raise OutputError(f"{path} cannot be read: {told}; give --overwrite to start anew") from error


def why_not(check: Check, before: Check, most_loss_db: float) -> str:
    """Why weights are not to be written, in words; empty if they may be.

    Args:
        check: of them.
        before: of the weights that the adaptation began with.
        most_loss_db: on simulated specimens.
    """
    if not math.isfinite(check.score + check.anchor_db):
        return "its volumes are not finite"
    if check.fsc_half < before.fsc_half:
        return "it agrees less with the other half"
    if check.score < before.score:
        return "what it gains on the other half it loses in left-out tilts"
    if check.anchor_db < before.anchor_db - most_loss_db:
        return f"it lost more than {most_loss_db:g} dB on simulated specimens"
    if check.score < before.score + CHANCE * abs(before.score):
        return f"both FSC together gain less than {CHANCE:.0%}, which may be chance"
    return ""


def best_of(checks: Sequence[Check], most_loss_db: float) -> Check | None:
    """The best of those after the first that may be written; None if there is none."""
    before, *later = checks
    fit = [check for check in later if not why_not(check, before, most_loss_db)]
    return max(fit, key=lambda check: check.score, default=None)


def cube_volume(network: Network, cube: Cube, place: Place) -> torch.Tensor:
    """A network's voxels of a cube, ``(z, y, x)``, float32, on the network's device."""
    batch = gather_for(cube.run, network, place)
    (values,) = batches_values(network, [batch], place.device, place.precision)
    assert cube.run.cube is not None
    blocks = smaller_cube(cube.run.cube) if network.config.trunk_reach else cube.run.cube
    return cube_voxels(values, blocks, network.config.head)


@torch.no_grad()
def half_curves(network: Network, cubes: Sequence[Cube], place: Place) -> tuple[list[float], list[float]]:
    """How a network's volumes of halves correlate with the other halves, by shell: in seen and in left-out sectors.

    Args:
        network: the weights, on the place's device.
        cubes: of rows held back, all of one shape.
        place: where to compute.
    """
    shape = cubes[0].run.targets.shape
    window = network.config.input.ramp_window
    sums = ShellSums((shape[0], shape[1], shape[2]))
    for cube in cubes:
        sums.add(cube_volume(network, cube, place).cpu(), cube, window)
    return sums.curves()


@torch.no_grad()
def check_network(
    network: Network,
    cubes: Sequence[Cube],
    anchors: tuple[Sequence[Example], TrainConfig],
    place: Place,
) -> Check:
    """Check weights, as of step 0.

    Args:
        network: the weights, on the place's device.
        cubes: of rows held back, all of one shape.
        anchors: simulated examples, and the configuration that they are of.
        place: where to compute.
    """
    half, left_out = half_curves(network, cubes, place)
    plain = copy.deepcopy(network).cpu().eval()
    verdicts, _ = judge(plain, anchors[0], anchors[1], Compute(place.device, place.precision))
    return Check(
        0,
        mean_of(half),
        mean_of(left_out),
        float(np.mean([verdict.snr_db for verdict in verdicts])),
        tuple(half),
        tuple(left_out),
        mean_fidelity(verdicts),
    )


def mean_of(curve: Sequence[float]) -> float:
    """Mean over the shells that hold anything; 0 without any. (Volumes that are not finite have no anchor_db.)"""
    found = [value for value in curve if math.isfinite(value)]
    return float(np.mean(found)) if found else 0.0
