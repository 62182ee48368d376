"""What a denoised volume is for, and which network and loss suit that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryolithe.denoising.n2n.losses import LossName

PurposeName = Literal["look", "membranes", "picking"]


@dataclass(frozen=True)
class Purpose:
    """Choices where the user makes none.

    Attributes:
        backbone: None leaves it to the device.
        loss: that is minimised.
        note: what the user should know, or None.
    """

    backbone: str | None
    loss: LossName
    note: str | None = None


# By benchmarks/backbones.py; the numbers of the note are those of Jones, Deshmukh and Pande (Acta Cryst. D 2026).
PURPOSES: dict[PurposeName, Purpose] = {
    "look": Purpose(None, "l2"),
    "membranes": Purpose(None, "mixed"),
    "picking": Purpose(
        None,
        "mixed",
        "Note: match templates in the CTF-corrected back-projection itself, not in a denoised volume. On EMPIAR-10164 "
        "(Jones et al. 2026) the area under precision and recall was 0.93 in the raw volume, 0.82 after CryoSamba, "
        "0.79 after Noise2Noise, 0.68 after IsoNet, 0.44 after DeepDeWedge; this result is for picking by eye",
    ),
}
