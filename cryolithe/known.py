"""What is known about a tilt series besides its images and angles: how they were made, and of what.

Every value may be unknown. A network that takes such facts was trained with any of them left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from cryolithe.errors import SettingsError

CtfState = Literal["uncorrected", "flipped", "wiener", "none"]
CTF_STATES: tuple[str, ...] = get_args(CtfState)
# Names of facts, as a network's configuration lists them, and the fields that hold them.
FACTS = {
    "ctf": "ctf_state",
    "defocus": "defocus_um",
    "dose": "doses",
    "thickness": "thickness_angstrom",
    "voxel": "voxel_size_angstrom",
}


@dataclass(frozen=True)
class Known:
    """What is known of a series; None is not known.

    Attributes:
        ctf_state: what the contrast transfer function has left in the images: it as it is ("uncorrected"), its
            absolute value ("flipped"), what a Wiener filter left ("wiener"), or nothing, as in plain projections
            ("none").
        defocus_um: mean defocus, µm, positive when underfocused.
        doses: what the specimen had received before each image, e/Å², in the order of the images.
        thickness_angstrom: of the specimen, not of the volume.
        voxel_size_angstrom: edge of a voxel of the volume and of a pixel of the images it is made from.

    Raises:
        SettingsError: for an unknown state, or a number that cannot be.
    """

    ctf_state: str | None = None
    defocus_um: float | None = None
    doses: tuple[float, ...] | None = None
    thickness_angstrom: float | None = None
    voxel_size_angstrom: float | None = None

    def __post_init__(self) -> None:
        if self.ctf_state is not None and self.ctf_state not in CTF_STATES:
            raise SettingsError(f"unknown CTF state '{self.ctf_state}'; expected one of {', '.join(CTF_STATES)}")
        for name, value in (("thickness", self.thickness_angstrom), ("voxel size", self.voxel_size_angstrom)):
            if value is not None and not 0 < value < math.inf:
                raise SettingsError(f"the {name} must be a positive number of Å, got {value}")
        if self.defocus_um is not None and not math.isfinite(self.defocus_um):
            raise SettingsError(f"the defocus must be a finite number of µm, got {self.defocus_um}")
        if self.doses is not None and not all(0 <= dose < math.inf for dose in self.doses):
            raise SettingsError("doses must be finite numbers of e/Å², 0 or more")

    def has(self, fact: str) -> bool:
        """Whether a fact (a key of `FACTS`) is known."""
        return getattr(self, FACTS[fact]) is not None

    def without(self, facts: Collection[str]) -> Known:
        """The same with some facts not known."""
        return replace(self, **{FACTS[fact]: None for fact in facts})

    def of_images(self, numbers: Sequence[int]) -> Known:
        """What is known of a series of some of the images, by their numbers from 0."""
        if self.doses is None:
            return self
        return replace(self, doses=tuple(self.doses[number] for number in numbers))

    def record(self) -> dict[str, Any]:
        """Plain values by field."""
        values = {name: getattr(self, name) for name in FACTS.values()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


NOTHING = Known()
