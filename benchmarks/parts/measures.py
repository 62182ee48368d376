"""How near a volume comes to the truth, by several measures; their means, spreads, and who beats whom."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import Cell
from numpy.typing import NDArray

from cryolithe.evaluation.picking import TOLERANCE, match, pick_blobs, picking_score
from cryolithe.evaluation.similarity import similarity
from cryolithe.evaluation.wedge import wedge_energy
from cryolithe.metrics import fourier_shell_correlation, mean_correlation, resolution_at, scaled_snr_db
from parts.scenes import Case

Volume = NDArray[np.float32]

FEWEST_PARTICLES = 5
RESOLUTION_THRESHOLD = 0.5
# Measure -> whether more is better; the others are compared with the truth's own value.
BETTER = {
    "snr_db": 1,
    "fsc_measured": 1,
    "fsc_missing": 1,
    "resolution_angstrom": -1,
    "ssim": 1,
    "picking_f1": 1,
}
NAMES = {
    "snr_db": "SNR dB",
    "fsc_measured": "FSC measured",
    "fsc_missing": "FSC missing",
    "resolution_angstrom": "resolution Å",
    "ssim": "SSIM",
    "picking_f1": "picking F1",
    "wedge_fill": "wedge fill",
    "streak_index": "streaks",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Scores:
    """A volume against the truth; None where a measure does not apply.

    Attributes:
        snr_db: reconstruction SNR after the best scale and offset.
        fsc_measured: mean FSC over all shells but the first and the last, within the tilt range.
        fsc_missing: the same in the missing wedge.
        resolution_angstrom: where the FSC over all coefficients falls below 0.5; infinite if it starts below.
        ssim: mean structural similarity of the standardised volumes.
        picking_f1: of as many picked blobs as there are particles, so that no threshold matters.
        wedge_fill: power in the missing wedge over that of an isotropic volume; compare with the truth's.
        streak_index: unevenness of the power over directions; compare with the truth's.
        seconds: to make the volume.
    """

    snr_db: float | None
    fsc_measured: float | None
    fsc_missing: float | None
    resolution_angstrom: float | None
    ssim: float | None
    picking_f1: float | None
    wedge_fill: float
    streak_index: float
    seconds: float | None


def measure(case: Case, volume: Volume, seconds: float | None) -> Scores:
    """Compare a volume, dense = bright, with the truth of its series."""
    tilt_range = (min(case.angles_deg), max(case.angles_deg))
    wedge = wedge_energy(volume, tilt_range)
    picked = picking_f1(case, volume)
    if volume is case.truth:
        return Scores(None, None, None, None, None, picked, wedge.fill, wedge.streak_index, None)
    curve = fourier_shell_correlation(case.truth, volume, tilt_range_deg=tilt_range)
    assert curve.measured is not None
    assert curve.missing is not None
    resolution = resolution_at(curve.total, curve.frequency_per_px, RESOLUTION_THRESHOLD, case.voxel_angstrom)
    return Scores(
        snr_db=scaled_snr_db(case.truth, volume),
        fsc_measured=mean_correlation(curve.measured),
        fsc_missing=mean_correlation(curve.missing),
        resolution_angstrom=resolution.value,
        ssim=similarity(case.truth, volume).ssim,
        picking_f1=picked,
        wedge_fill=wedge.fill,
        streak_index=wedge.streak_index,
        seconds=seconds,
    )


def picking_f1(case: Case, volume: Volume) -> float | None:
    """F1 of as many blobs as there are particles; None for too few of them, or too small ones."""
    known = case.known_px
    if len(known) < FEWEST_PARTICLES or case.diameter_px < 4:
        return None
    picks, _ = pick_blobs(volume, case.diameter_px, most=len(known))
    hits = match(picks, known, TOLERANCE * case.diameter_px)
    return picking_score(hits, len(known), case.diameter_px * case.voxel_angstrom).f1


def mean_of(runs: Sequence[Scores], name: str) -> float | None:
    """Mean of a measure over series, the median for resolutions, which may be infinite; None without values."""
    values = [value for run in runs if (value := getattr(run, name)) is not None]
    if not values:
        return None
    return float(np.median(values) if name == "resolution_angstrom" else np.mean(values))


def spread_cell(values: Sequence[float]) -> str:
    """``1.23 ± 0.45``: mean and standard deviation over series, which takes at least two."""
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def lost_cell(runs: Sequence[Scores], reference: Sequence[Scores], name: str) -> str:
    """``1/3``: in one of three series the measure is below that of the reference for the same series."""
    pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(runs, reference, strict=True)]
    return f"{sum(a < b for a, b in pairs)}/{len(pairs)}"


def rounded(value: float | None, name: str) -> Cell:
    """A mean as a cell: as many digits as mean something."""
    if value is None or not math.isfinite(value):
        return None
    digits = {"resolution_angstrom": 1, "seconds": 1, "vacuum": 1, "brightest": 1}.get(name, 3)
    return f"{value:.{digits}f}"


def better_than(
    means: Mapping[str, Mapping[str, float | None]], model: str, baselines: Sequence[str], where: str
) -> list[dict[str, Any]]:
    """Measures by which a baseline beats a model, on the means over series.

    Args:
        means: method -> measure -> mean; the entry "truth", where there is one, is what wedge fill and streaks should
            be near to.
        model: a key of ``means``.
        baselines: others.
        where: the set, for the record.

    Returns:
        where, measure, baseline and both values, for each.
    """
    found = []
    truth = means.get("truth", {})
    for name in (*BETTER, "wedge_fill", "streak_index"):
        for baseline in baselines:
            ours, theirs, aim = means[model].get(name), means[baseline].get(name), truth.get(name)
            if ours is None or theirs is None:
                continue
            if name in BETTER:
                wins = BETTER[name] * theirs > BETTER[name] * ours
            elif aim is None:
                continue
            else:
                wins = abs(theirs - aim) < abs(ours - aim)
            if wins:
                found.append(
                    {"where": where, "measure": NAMES[name], "baseline": baseline, "value": theirs, "model": ours}
                )
    return found


def means_of(runs: Mapping[str, Sequence[Scores]]) -> dict[str, dict[str, float | None]]:
    """Method -> measure -> mean over its series."""
    names = [field.name for field in dataclasses.fields(Scores)]
    return {method: {name: mean_of(scores, name) for name in names} for method, scores in runs.items()}
