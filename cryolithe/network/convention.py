"""What a network expects around it: how its input is prepared and where its points lie.

Our own networks need no such record. Imported weights of the published program were trained with that program's
habits, which are part of what they compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cryolithe.errors import ModelError

TAPS_LEAF = "filter.taps"

# What is stored, and what it means. Other values are refused: a program that does not know them would be wrong.
PUBLISHED_RECORD = {
    "sampling": "published",  # points on linspace(-1, 1) grids, wavelet coefficients as PyWavelets pads them
    "outside": "zero",  # what is read beyond the detector; points are averaged over all tilts
    "standardisation": "stack",  # one mean and one standard deviation for all images, not undone in the result
    "filter": "taps",  # the impulse response that is stored with the weights
    "dense": "dark",  # images as the microscope records them; the volume has their polarity
}


@dataclass(frozen=True, eq=False)
class Convention:
    """The way a network is applied.

    Attributes:
        taps: impulse response of the row filter of a published model, shape ``(T,)``, float32 (see
            `cryolithe.filters.filter_rows_by_taps`); None for this program's own way.
    """

    taps: torch.Tensor | None = None

    @property
    def published(self) -> bool:
        """Whether it is the published program's."""
        return self.taps is not None

    @property
    def record(self) -> dict[str, str]:
        """What is stored in a model file; empty for our own."""
        return dict(PUBLISHED_RECORD) if self.published else {}


OWN = Convention()


def check_record(record: Any, where: str) -> bool:
    """Whether a stored record is that of the published program.

    Raises:
        ModelError: if it is neither that nor empty.
    """
    if record == {}:
        return False
    if record != PUBLISHED_RECORD:
        raise ModelError(f"{where} has the convention {record!r}; this program knows {PUBLISHED_RECORD!r}")
    return True
