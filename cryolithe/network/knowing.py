"""What is known about a series, as gains on the channels of a `RowSet`.

    W_θ = diag(a) W1 diag(b e(θ)) U          a, b: gains of the tilt; both 1 where nothing is known
    joined = g conv_y( h )                   g: gains of the series

A gain does not depend on the images and multiplies features, so f(s x) = s f(x) stays. It lies between 0 and 2: a
positive factor passes a ReLU, so `a` weighs a tilt in each channel of the mean, as weights by exposure do by frequency.
All gains come before or after linear maps and are folded into them when a network is applied: they cost nothing there.

Facts are encoded so that what is not known is zero. Without biases, and with a last layer that starts as zero, all
gains are then 1: a network begins as the same one without facts, and that is also what it is where nothing is told.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from cryolithe.errors import SettingsError
from cryolithe.known import CTF_STATES, Known

# Hidden units, and values of each fact: whether it is known, and what it is.
HIDDEN = 32
WIDTHS = {"ctf": len(CTF_STATES), "defocus": 2, "dose": 3, "thickness": 3, "voxel": 2}
# Values of an ordinary series: encoded numbers are small near them, and never far out.
USUAL_DEFOCUS_UM, USUAL_DOSE, USUAL_THICKNESS_ANGSTROM, USUAL_VOXEL_ANGSTROM = 3.0, 60.0, 1500.0, 10.0
MOST = 3.0
# The path through a slab is longer by 1 / cos, up to this tilt.
STEEPEST_COSINE = 0.1


def encode_known(known: Known, facts: tuple[str, ...], angles_rad: torch.Tensor) -> torch.Tensor:
    """Facts as numbers for each image; zero where they are not known.

    Args:
        known: of the series, its doses in the order of ``angles_rad``.
        facts: which of them a network takes (keys of `cryolithe.known.FACTS`).
        angles_rad: shape ``(tilts,)``.

    Returns:
        shape ``(tilts, sum of WIDTHS)``, float32, on the CPU.

    Raises:
        SettingsError: if there is not one dose for each image.
    """
    tilts = len(angles_rad)
    columns = [torch.zeros(tilts, 0)]
    for fact in facts:
        block = torch.zeros(tilts, WIDTHS[fact])
        if known.has(fact):
            _fill(block, fact, known, angles_rad)
        columns.append(block)
    return torch.cat(columns, dim=1)


def _fill(block: torch.Tensor, fact: str, known: Known, angles_rad: torch.Tensor) -> None:
    """Write a known fact into its columns."""
    if fact == "ctf":
        block[:, CTF_STATES.index(str(known.ctf_state))] = 1
        return
    block[:, 0] = 1
    if fact == "defocus" and known.defocus_um is not None:
        block[:, 1] = _bounded(known.defocus_um / USUAL_DEFOCUS_UM - 1)
    elif fact == "dose" and known.doses is not None:
        if len(known.doses) != len(block):
            raise SettingsError(f"{len(known.doses)} doses do not fit {len(block)} images")
        dose = torch.tensor(known.doses, dtype=torch.float32) / USUAL_DOSE
        block[:, 1], block[:, 2] = dose.clamp(max=MOST), (1 + 10 * dose).log2().div(3).clamp(max=MOST)
    elif fact == "thickness" and known.thickness_angstrom is not None:
        thickness = math.log2(known.thickness_angstrom / USUAL_THICKNESS_ANGSTROM)
        cosine = angles_rad.detach().cpu().float().cos().clamp(min=STEEPEST_COSINE)
        block[:, 1] = _bounded(thickness)
        block[:, 2] = (thickness - cosine.log2()).clamp(-MOST, MOST)
    elif fact == "voxel" and known.voxel_size_angstrom is not None:
        block[:, 1] = _bounded(2 * math.log2(known.voxel_size_angstrom / USUAL_VOXEL_ANGSTROM))


def _bounded(value: float) -> float:
    return min(MOST, max(-MOST, value))


class KnownGains(nn.Module):
    """Encoded facts -> gains.

    Attributes:
        hidden: of the facts.
        before: gains b of a tilt's channels before W1; starts as zero, as those below.
        after: gains a behind it.
        blocks: gains g of the combiner's channels.
    """

    def __init__(self, facts: tuple[str, ...], channels: int, combiner_width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(sum(WIDTHS[fact] for fact in facts), HIDDEN, bias=False)
        self.before = nn.Linear(HIDDEN, channels, bias=False)
        self.after = nn.Linear(HIDDEN, channels, bias=False)
        self.blocks = nn.Linear(HIDDEN, combiner_width, bias=False)
        with torch.no_grad():
            for layer in (self.before, self.after, self.blocks):
                layer.weight.zero_()

    def of_tilts(self, facts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gains of each tilt's channels before and after W1, each ``(tilts, channels)``, from ``(tilts, facts)``."""
        hidden = torch.relu(self.hidden(facts))
        return 1 + torch.tanh(self.before(hidden)), 1 + torch.tanh(self.after(hidden))

    def of_series(self, facts: torch.Tensor) -> torch.Tensor:
        """Gains of the combiner's channels, shape ``(combiner_width,)``: those of the mean over the tilts."""
        gains: torch.Tensor = 1 + torch.tanh(self.blocks(torch.relu(self.hidden(facts)).mean(0)))
        return gains
