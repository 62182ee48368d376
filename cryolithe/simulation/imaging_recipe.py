"""How tilt series are recorded: the ranges of a recipe, and draws from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from cryolithe.errors import SettingsError, nearest_name
from cryolithe.optics.transfer import CTF_MODES, CtfMode, Optics
from cryolithe.simulation.detector import Detector
from cryolithe.simulation.faults import FaultRecipe, Range, check_range
from cryolithe.simulation.schemes import KINDS, SchemeKind, TiltPlan, TiltScheme

NOISE_KINDS = ("counting", "white")
PROFILE_ENDINGS = (".h5", ".hdf5")
Surroundings = Literal["repeated", "even"]
SURROUNDINGS: tuple[str, ...] = get_args(Surroundings)


@dataclass(frozen=True)
class SchemeRecipe:
    """Tilt schemes to draw; pairs are (least, most).

    Attributes:
        kinds: schemes to choose from.
        reach_deg: half of the tilt range.
        step_deg: step between neighbouring tilts.
        pretilt_deg: start angle.
        group: images on one side of a dose-symmetric series.
        jitter_deg: standard deviation of the angles' irregularity.
        missing: number of missing images.

    Raises:
        SettingsError: if no scheme is named.
    """

    kinds: tuple[SchemeKind, ...] = ("dose-symmetric",)
    reach_deg: Range = (60.0, 60.0)
    step_deg: Range = (3.0, 3.0)
    pretilt_deg: Range = (0.0, 0.0)
    group: tuple[int, int] = (1, 1)
    jitter_deg: Range = (0.0, 0.0)
    missing: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not self.kinds:
            raise SettingsError(f"name at least one tilt scheme of {', '.join(KINDS)}")
        check_range("reach_deg", self.reach_deg, 0, 90)
        check_range("step_deg", self.step_deg, 0.1, 90)
        check_range("pretilt_deg", self.pretilt_deg, -90, 90)
        check_range("group", self.group, 1, 3)
        check_range("jitter_deg", self.jitter_deg, 0, 10)
        check_range("missing", self.missing, 0, 1000)


@dataclass(frozen=True)
class OpticsRecipe:
    """Optics to draw; pairs are (least, most), for the series except where stated.

    Attributes:
        voltage_kv: acceleration voltage.
        spherical_aberration_mm: Cs.
        amplitude_contrast: part of the contrast.
        defocus_um: mean defocus.
        defocus_spread_um: standard deviation of the defocus of single images.
        astigmatism_um: half of the difference of the extreme defoci.
        phase_shift_deg: of a phase plate.
        handedness: direction of the beam, see `cryolithe.optics.transfer`.
        illumination_mrad: size of the source, see `optics.transfer.source_envelope`: 0.03 to 0.05 for field emission
            guns (Vulović et al. 2013, J. Struct. Biol. 183, 19-32: the values of their program), 0 for a point.
    """

    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: Range = (0.07, 0.1)
    defocus_um: Range = (2.0, 5.0)
    defocus_spread_um: Range = (0.0, 0.1)
    astigmatism_um: Range = (0.0, 0.1)
    phase_shift_deg: Range = (0.0, 0.0)
    handedness: int = 1
    illumination_mrad: float = 0.0

    def __post_init__(self) -> None:
        Optics(self.voltage_kv, self.spherical_aberration_mm)
        check_range("amplitude_contrast", self.amplitude_contrast, 0, 1)
        check_range("defocus_um", self.defocus_um, -20, 50)
        check_range("defocus_spread_um", self.defocus_spread_um, 0, 5)
        check_range("astigmatism_um", self.astigmatism_um, 0, 5)
        check_range("phase_shift_deg", self.phase_shift_deg, -360, 360)
        check_range("illumination_mrad", (self.illumination_mrad, self.illumination_mrad), 0, 1)


@dataclass(frozen=True)
class ImagingRecipe:
    """How tilt series are recorded and treated; pairs are (least, most) of a uniform draw.

    Attributes:
        noise: "counting" for the whole of image formation, "white" for projections with white noise and nothing else,
            or the file (.h5) of a noise profile: image formation up to the counting, then what was measured.
        snr_db: for "white": 10 log10 of the variance of the projections over that of the noise (paper, section 4.1).
        scheme: tilt angles, their order and their gaps.
        total_exposure: exposure of a series, e/Å².
        optics: of the microscope.
        specimen_contrast: strength of the specimen's scattering, relative to what its atoms amount to.
        ctf: "left" in the images, "phase-flipped", "wiener", or "none" for a perfect phase plate.
        wiener_snr: spectral SNR of the Wiener filter.
        exposure_weighting: whether images are weighted by their exposure.
        thickness_angstrom: of the slab that electrons are lost in; None for that of the cell, or the density's depth.
        detector: that counts.
        faults: of the images.
        surroundings: what lies beyond the density along x: it "repeated", or an "even" slab of its means.

    Raises:
        SettingsError: if a name is unknown or a range is upside down or out of bounds.
    """

    noise: str = "counting"
    snr_db: Range = (-10.0, 10.0)
    scheme: SchemeRecipe = field(default_factory=SchemeRecipe)
    total_exposure: Range = (60.0, 160.0)
    optics: OpticsRecipe = field(default_factory=OpticsRecipe)
    specimen_contrast: Range = (1.0, 1.0)
    ctf: CtfMode = "phase-flipped"
    wiener_snr: Range = (1.0, 10.0)
    exposure_weighting: bool = True
    thickness_angstrom: Range | None = None
    detector: Detector = field(default_factory=Detector)
    faults: FaultRecipe = field(default_factory=FaultRecipe)
    surroundings: Surroundings = "repeated"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("noise", "counting" if self.is_measured else self.noise, NOISE_KINDS),
            ("ctf", self.ctf, CTF_MODES),
            ("surroundings", self.surroundings, SURROUNDINGS),
        ):
            if value not in known:
                also = " and files of noise profiles (.h5)" if name == "noise" else ""
                raise SettingsError(
                    f"unknown {name} '{value}'{nearest_name(value, known)}; known: {', '.join(known)}{also}"
                )
        check_range("snr_db", self.snr_db, -60, 60)
        check_range("total_exposure", self.total_exposure, 0.1, 10_000)
        check_range("specimen_contrast", self.specimen_contrast, 0, 10)
        check_range("wiener_snr", self.wiener_snr, 1e-6, 1e6)
        if self.thickness_angstrom is not None:
            check_range("thickness_angstrom", self.thickness_angstrom, 0, 20_000)

    @property
    def is_measured(self) -> bool:
        """Whether the noise is that of a profile."""
        return self.noise.lower().endswith(PROFILE_ENDINGS)


def draw_scheme(recipe: ImagingRecipe, rng: np.random.Generator) -> TiltScheme:
    """The scheme of one series."""
    ranges = recipe.scheme
    kind = ranges.kinds[int(rng.integers(len(ranges.kinds)))]
    reach, step, pretilt, jitter, exposure = (
        float(rng.uniform(*pair))
        for pair in (ranges.reach_deg, ranges.step_deg, ranges.pretilt_deg, ranges.jitter_deg, recipe.total_exposure)
    )
    group, missing = (int(rng.integers(low, high + 1)) for low, high in (ranges.group, ranges.missing))
    return TiltScheme(kind, (-reach, reach), step, pretilt, group, jitter, missing, exposure)


def draw_optics(recipe: OpticsRecipe, plan: TiltPlan, rng: np.random.Generator) -> tuple[Optics, ...]:
    """The optics of each image of a series."""
    amplitude, defocus, spread, astigmatism, phase = (
        float(rng.uniform(*pair))
        for pair in (
            recipe.amplitude_contrast,
            recipe.defocus_um,
            recipe.defocus_spread_um,
            recipe.astigmatism_um,
            recipe.phase_shift_deg,
        )
    )
    direction = float(rng.uniform(0, 180))
    return tuple(
        Optics(
            recipe.voltage_kv,
            recipe.spherical_aberration_mm,
            amplitude,
            defocus + spread * float(deviation),
            astigmatism,
            direction,
            phase,
        )
        for deviation in rng.standard_normal(plan.tilts)
    )
