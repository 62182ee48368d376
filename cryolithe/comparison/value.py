"""What is compared, and what was found: plain values, from which a page is drawn and a record written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cryolithe.denoising.ceiling import HalfScore
from cryolithe.evaluation.matching import MatchingScore
from cryolithe.fidelity import Region

Array = NDArray[Any]
FloatArray = NDArray[np.float64]
# How the halves were split: frames of each tilt, every other tilt, or volumes of which nobody says.
Split = Literal["frames", "tilts", "volumes"]
# raw: back-projection, or the volumes as given; linear: filters and SIRT; network, denoiser: learned.
Kind = Literal["raw", "linear", "network", "denoiser"]


@dataclass(frozen=True)
class Sure:
    """How sure a network is of its volume: the maps of ``--confidence``.

    Attributes:
        means: of each map, by kind.
        maps: by kind, each of the volume's shape.
    """

    means: Mapping[str, float]
    maps: Mapping[str, Array]


@dataclass(frozen=True)
class Candidate:
    """What a method made of each half and of all images; volumes ``(z, y, x)`` of one shape.

    Attributes:
        name: as the user chose it.
        title: as the page shows it.
        kind: of method.
        first: of the first half alone.
        second: of the second half alone.
        whole: what a user is given.
        seconds: that it took to make all three, or None.
        warnings: that came with them, in words.
        sure: how sure a network is of ``whole``, if it was asked.
    """

    name: str
    title: str
    kind: Kind
    first: Array
    second: Array
    whole: Array
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    sure: Sure | None = None


@dataclass(frozen=True)
class Truth:
    """A simulated specimen.

    Attributes:
        volume: density, the shape of the candidates.
        labels: class of each voxel, the same shape, or None.
        regions: classes to judge, by name.
    """

    volume: Array
    labels: Array | None = None
    regions: Mapping[str, Region] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """Particles whose places are known.

    Attributes:
        template: map, dense = bright.
        template_scale: voxels of the template per voxel of the volumes.
        positions_px: ``(z, y, x)`` in voxels, shape ``(N, 3)``.
        diameter_angstrom: of the particle.
        dark: whether dense matter is dark in the volumes.
    """

    template: Array
    template_scale: float
    positions_px: FloatArray
    diameter_angstrom: float
    dark: bool


@dataclass(frozen=True)
class Setting:
    """What all methods are compared under.

    Attributes:
        tilt_range_deg: lowest and highest tilt.
        split: of the halves.
        voxel_size_angstrom: or None.
        shared_per_px: frequency up to which halves of tilts hold the same information, cycles/pixel; None for no limit.
        truth: or None.
        target: or None.
    """

    tilt_range_deg: tuple[float, float]
    split: Split
    voxel_size_angstrom: float | None = None
    shared_per_px: float | None = None
    truth: Truth | None = None
    target: Target | None = None


@dataclass(frozen=True)
class TruthScore:
    """Likeness to the truth.

    Attributes:
        measured: FSC in the measured region by shell, shape ``(S,)``.
        missing: FSC in the missing wedge by shell, shape ``(S,)``.
        measured_mean: mean of the former.
        missing_mean: mean of the latter.
        fidelity: correlation within each class, mean over bands of frequency.
        sign: -1 where dense matter is dark in the volume and bright in the truth, or the reverse; else 1.
    """

    measured: FloatArray
    missing: FloatArray
    measured_mean: float
    missing_mean: float
    fidelity: Mapping[str, float]
    sign: float


@dataclass(frozen=True)
class Gain:
    """Neighbouring shells in which a method is more like the raw other half than the raw half is.

    Attributes:
        from_per_px: lowest frequency, cycles/pixel.
        to_per_px: highest frequency.
        most: largest difference of the FSC.
    """

    from_per_px: float
    to_per_px: float
    most: float


@dataclass(frozen=True)
class Scores:
    """What was found of one method; S shells.

    Attributes:
        name: as the user chose it.
        title: as the page shows it.
        kind: of method.
        fsc: of a half with the *raw* other half, measured region, mean of both directions; NaN where the halves share
            no information or a shell is empty. Shape ``(S,)``.
        fsc_mean: its mean.
        half: correlation of a half with the raw other half, and its ceiling; over all shells of ``fsc`` together.
        leak_shells: where ``fsc`` lies above what the signal itself could reach.
        gain: where ``fsc`` is most clearly above that of the raw halves, or None.
        worst_change: lowest of ``fsc`` less that of the raw halves, over the shells in which these agree (above 0.143).
        worst_per_px: its frequency, or None.
        smoothing_px: deviation of the Gaussian that would dampen the raw volume as this method does.
        wedge_share: power in the missing wedge over all power, 0 to 1.
        wedge_fill: power of a coefficient in the wedge over that of a measured one of its shell, shape ``(S,)``.
        truth: where it is known.
        matching: of a template, where there is one.
        seconds: to make two halves and the whole.
        warnings: that came with the volumes, in words.
        sure: means of the maps of ``--confidence`` by kind, where they were made.
    """

    name: str
    title: str
    kind: Kind
    fsc: FloatArray
    fsc_mean: float
    half: HalfScore
    leak_shells: tuple[int, ...]
    gain: Gain | None
    worst_change: float
    worst_per_px: float | None
    smoothing_px: float
    wedge_share: float
    wedge_fill: FloatArray
    truth: TruthScore | None = None
    matching: MatchingScore | None = None
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    sure: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """Everything that was found.

    Attributes:
        shape_zyx: voxels.
        voxel_size_angstrom: or None.
        tilt_range_deg: lowest and highest tilt.
        split: of the halves.
        shared_per_px: see `Setting`.
        frequency_per_px: centres of the shells, shape ``(S,)``.
        raw: scores of what all are compared with.
        methods: scores of all, the raw one first.
        isotropic_wedge_share: ``wedge_share`` of a specimen without directions.
    """

    shape_zyx: tuple[int, int, int]
    voxel_size_angstrom: float | None
    tilt_range_deg: tuple[float, float]
    split: Split
    shared_per_px: float | None
    frequency_per_px: FloatArray
    methods: tuple[Scores, ...]
    isotropic_wedge_share: float

    @property
    def raw(self) -> Scores:
        """What all are compared with."""
        return self.methods[0]

    @property
    def ceiling(self) -> FloatArray:
        """FSC that the signal itself would have with a raw half, by shell: ``sqrt(FSC of the raw halves)``."""
        return np.sqrt(np.maximum(self.raw.fsc, 0.0))

    def period(self, frequency_per_px: float | None) -> str:
        """A frequency as ``23 Å`` (or ``2.3 px``)."""
        if not frequency_per_px:
            return "–"
        size = self.voxel_size_angstrom
        return f"{(size or 1.0) / frequency_per_px:.3g} {'Å' if size else 'px'}"
