"""Candidates measured, ranked, and kept or rejected by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cryolithe.curation.candidates import Candidate, Collection
from cryolithe.curation.quality import Numbers, measure
from cryolithe.curation.samples import Sample, read_sample
from cryolithe.errors import CryoLitheError

# Name of a number -> whether more of it is better.
RANKED = {"fsc_mean": True, "streak_db": False, "contrast": True, "empty_fraction": False}


@dataclass(frozen=True)
class Thresholds:
    """What a candidate must reach to be kept by default; a number that is not known is not held against it.

    Attributes:
        fsc_mean: least mean correlation of halves; below it little but noise is common to them.
        streak_db: most power along the borders of the wedge, dB over their surroundings.
        contrast: least contrast; white noise alone has 0.06.
        empty_fraction: largest part of slabs that may be empty.
    """

    fsc_mean: float = 0.02
    streak_db: float = 6.0
    contrast: float = 0.1
    empty_fraction: float = 0.8


@dataclass(frozen=True)
class Measured:
    """A candidate with its numbers.

    Attributes:
        candidate: what it is.
        sample: the candidate at small size.
        numbers: what was measured; all None for a constant volume.
        flags: what makes it unusable whatever its numbers.
    """

    candidate: Candidate
    sample: Sample
    numbers: Numbers
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Ranked:
    """A measured candidate with its place.

    Attributes:
        measured: the candidate.
        rank: 1 for the best.
        score: 0 to 1, see `rank`.
        reasons: why it is rejected by default; empty: it is kept.
    """

    measured: Measured
    rank: int
    score: float
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """Whether it is kept by default."""
        return not self.reasons


@dataclass(frozen=True)
class Unreadable:
    """A candidate that could not be measured, and why."""

    name: str
    reason: str


def measure_candidate(collection: Collection, candidate: Candidate) -> Measured:
    """Read and measure one candidate.

    Raises:
        CryoLitheError: if it cannot be read.
    """
    sample = read_sample(collection, candidate)
    flags = []
    if sample.nonfinite:
        flags.append(f"{sample.nonfinite} values are NaN or infinite")
    if sample.nonfinite_images:
        flags.append(f"{sample.nonfinite_images} values of the images are NaN or infinite")
    if sample.halves and np.array_equal(*sample.halves):
        flags.append("even and odd halves are the same")
    if sample.volume.min() == sample.volume.max():
        flags.append(f"all values are {float(sample.volume.flat[0]):g}")
        return Measured(candidate, sample, Numbers(), tuple(flags))
    numbers = measure(sample.volume, sample.halves, sample.tilt_range_deg, sample.sample_angstrom)
    return Measured(candidate, sample, numbers, tuple(flags))


def measure_all(
    collection: Collection, on_candidate: Callable[[], object] = lambda: None
) -> tuple[list[Measured], list[Unreadable]]:
    """Measure what can be read; the rest is listed with what is wrong."""
    measured, unreadable = [], []
    for candidate in collection.candidates:
        try:
            measured.append(measure_candidate(collection, candidate))
        except (CryoLitheError, OSError) as error:
            unreadable.append(Unreadable(candidate.name, " ".join(str(error).split())))
        on_candidate()
    return measured, unreadable


def rank(measured: Sequence[Measured], thresholds: Thresholds = Thresholds()) -> list[Ranked]:
    """Rank candidates, the best first.

    The score is the mean, over the numbers that are known of `RANKED`, of the share of other candidates that are
    worse, those that are equal counting half (a rank average: no unit or spread matters). Contrasts are compared only
    where the noise was measured alike. Candidates with flags come last with a score of 0; alone, one has 0.5.
    """
    shares: list[list[float]] = [[] for _ in measured]
    for name, more_is_better in RANKED.items():
        for i, one in enumerate(measured):
            value = getattr(one.numbers, name)
            if value is None:
                continue
            others = [
                getattr(other.numbers, name)
                for j, other in enumerate(measured)
                if j != i and (name != "contrast" or other.numbers.noise_from == one.numbers.noise_from)
            ]
            known = np.array([v for v in others if v is not None])
            if known.size:
                worse = known < value if more_is_better else known > value
                shares[i].append(float((worse + 0.5 * (known == value)).mean()))
    scores = [0.0 if m.flags else float(np.mean(s)) if s else 0.5 for m, s in zip(measured, shares, strict=True)]
    order = sorted(
        range(len(measured)), key=lambda i: (bool(measured[i].flags), -scores[i], measured[i].candidate.name)
    )
    return [
        Ranked(measured[i], place, round(scores[i], 4), reasons_against(measured[i], thresholds))
        for place, i in enumerate(order, start=1)
    ]


def reasons_against(measured: Measured, thresholds: Thresholds) -> tuple[str, ...]:
    """Flags, and the thresholds that a candidate misses, in words."""
    names = {
        "fsc_mean": "half-map FSC",
        "streak_db": "streak energy",
        "contrast": "contrast",
        "empty_fraction": "empty slabs",
    }
    reasons = list(measured.flags)
    for name, more_is_better in RANKED.items():
        value, limit = getattr(measured.numbers, name), getattr(thresholds, name)
        if value is not None and (value < limit if more_is_better else value > limit):
            reasons.append(f"{names[name]} {value:.3g} {'below' if more_is_better else 'above'} {limit:g}")
    return tuple(reasons)
