"""What is known of the contrast transfer function of a series: one value for each image, and the microscope's.

Defocus is positive when underfocused. The defocus of a tilted specimen changes across an image: with the hand ``h`` it
is ``Δf + h u tan θ`` at the distance u from where Δf was measured, θ being the angle of the file of angles, x and u
running to the right. ``h`` is +1 in IMOD's ctfphaseflip, -1 times rlnTomoHand in RELION, -1 times dfHand in AreTomo3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryolithe.errors import SettingsError

MOST_DEFOCUS_UM = 100.0


@dataclass(frozen=True)
class ImageCtf:
    """Of one image.

    Attributes:
        u_um: defocus along ``angle_deg``, µm.
        v_um: defocus across it.
        angle_deg: from x towards y, in the image as it was recorded.
        phase_shift_deg: of a phase plate.

    Raises:
        SettingsError: for numbers that cannot be.
    """

    u_um: float
    v_um: float
    angle_deg: float = 0.0
    phase_shift_deg: float = 0.0

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.u_um, self.v_um, self.angle_deg, self.phase_shift_deg))):
            raise SettingsError("the defocus of an image is not finite")
        if max(abs(self.u_um), abs(self.v_um)) > MOST_DEFOCUS_UM:
            raise SettingsError(
                f"a defocus of {max(self.u_um, self.v_um, key=abs):g} µm cannot be, expected at most "
                f"{MOST_DEFOCUS_UM:g}: is the file in another unit?"
            )

    @property
    def defocus_um(self) -> float:
        """The mean of both directions."""
        return (self.u_um + self.v_um) / 2

    @property
    def astigmatism_um(self) -> float:
        """Half of the difference of both directions; negative where that along ``angle_deg`` is the smaller one."""
        return (self.u_um - self.v_um) / 2


@dataclass(frozen=True)
class Microscope:
    """What files say of the microscope; None is not said."""

    voltage_kv: float | None = None
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None


@dataclass(frozen=True)
class Ctf:
    """Of a series.

    Attributes:
        images: one value for each.
        microscope: for all of them.
        hand: 1 or -1, see the module; None where nothing tells it.
        notes: for the user.
        told_by: names of the files that tell attributes of the microscope, or "hand", where others than the defocus'.
    """

    images: tuple[ImageCtf, ...]
    microscope: Microscope = Microscope()
    hand: int | None = None
    notes: tuple[str, ...] = ()
    told_by: Mapping[str, str] = field(default_factory=dict)

    @property
    def defocus_um(self) -> float:
        """The mean of all images."""
        return sum(image.defocus_um for image in self.images) / len(self.images)
