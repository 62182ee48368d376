"""What the numbers say, in words; what nobody measured here is quoted from a published review and said to be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cryolithe.comparison.score import LEAST_CHANGE
from cryolithe.comparison.value import Comparison, Scores
from cryolithe.denoising.ceiling import half_snr_db, mean_half_snr_db
from cryolithe.formats.sizes import decimal_told

Level = Literal["use", "know", "warning"]

# Jones, Deshmukh and Pande, Acta Cryst. D (2026): EMPIAR-10164 at 5.4 Å, GAPSTOP-TM; EMPIAR-10045 at 4.35 Å, STOPGAP.
PUBLISHED_MATCHING = (
    "published on EMPIAR-10164 (Jones, Deshmukh & Pande 2026): PR-AUC 0.93 in the raw back-projection, 0.82 after "
    "CryoSamba, 0.79 after cryoCARE, 0.68 after IsoNet, 0.44 after DeepDeWedge"
)
PUBLISHED_AVERAGING = (
    "published on EMPIAR-10045 (ibid.): 16.4 Å at FSC 0.5 with alignments found in raw volumes, 21.2 Å with those "
    "found after cryoCARE"
)
_EQUAL_AUC = 0.02
_EQUAL_DB = 0.2
_WORTH_TELLING = -0.05  # change of an FSC
_FILLED = 0.3  # power of a coefficient of the wedge over that of a measured one


@dataclass(frozen=True)
class Advice:
    """A sentence or two.

    Attributes:
        level: what to use, what to know, or what to beware of.
        text: plain.
    """

    level: Level
    text: str


def advice(found: Comparison) -> tuple[Advice, ...]:
    """Everything that the numbers let one say, warnings first."""
    parts = (
        *_leaks(found),
        *_warned(found),
        *_split(found),
        *_looking(found),
        *_matching(found),
        *_averaging(),
        *_each(found),
    )
    parts = (*parts, *_wedge(found), *_truth(found))
    order = {"warning": 0, "use": 1, "know": 2}
    return tuple(sorted(parts, key=lambda one: order[one.level]))


def is_leak(found: Comparison, scores: Scores) -> bool:
    """Whether a method's halves have more in common with the raw other half than signal.

    Halves of tilts miss different gaps between the tilts: a method that fills these is above the ceiling and no leak,
    in single shells as over all.
    """
    return found.split != "tilts" and _exceeds(scores)


def _exceeds(scores: Scores) -> bool:
    """Whether a method is above the ceiling, over all shells or in some side by side."""
    return scores.kind != "raw" and (bool(scores.leak_shells) or scores.half.leaks)


def _where_above(found: Comparison, one: Scores) -> str:
    """The numbers by which a method is above the ceiling: over all shells if it is there, else in the clearest one."""
    ends = [
        found.period(float(found.frequency_per_px[n])) for n in one.leak_shells[:: max(1, len(one.leak_shells) - 1)]
    ]
    over = f"({one.half.mean:.3f}; the signal itself could reach {one.half.ceiling:.3f})"
    if one.half.leaks:
        return over + (f", most clearly from {ends[0]} to {ends[-1]}" if ends else "")
    most = max(one.leak_shells, key=lambda n: float(one.fsc[n] - found.ceiling[n]))
    at = found.period(float(found.frequency_per_px[most]))
    return (
        f"from {ends[0]} to {ends[-1]} (FSC {one.fsc[most]:.3f} at {at}; "
        f"the signal itself could reach {found.ceiling[most]:.3f})"
    )


def half_db(scores: Scores) -> float:
    """Half SNR of a method, dB; NaN where there is none."""
    return half_snr_db(scores.half.raw) if scores.kind == "raw" else mean_half_snr_db(scores.half.denoised)


def _leaks(found: Comparison) -> Iterator[Advice]:
    for one in found.methods:
        if not _exceeds(one):
            continue
        above = f"correlate with the raw other half above the ceiling {_where_above(found, one)}"
        if not is_leak(found, one):
            yield Advice(
                "know",
                f"{one.title}: its halves {above}. Odd and even tilts miss different gaps between the tilts, and a "
                "method that fills these gets there without a leak; of one that trained on both halves, nothing here "
                "tells whether it has learned their noise.",
            )
            continue
        yield Advice(
            "warning",
            f"{one.title}: leak. Its halves {above}: they share noise, or the network has learned this volume by "
            "heart. Do not trust its details.",
        )
    if found.split == "volumes" and found.raw.half.raw > 0.9:
        yield Advice(
            "warning",
            f"The halves as given correlate by {found.raw.half.raw:.3f}: hardly any noise is left in them. If they "
            "were filtered, denoised or made by a network, they share what was put in, and no score here means much.",
        )
    if found.raw.half.raw < -found.raw.half.chance:
        yield Advice(
            "warning",
            f"The raw halves are of opposite contrast (they correlate by {found.raw.half.raw:.3f}): nothing below "
            "means anything before one of them is inverted.",
        )
    elif found.raw.half.raw <= found.raw.half.chance:
        yield Advice(
            "warning",
            f"The raw halves do not correlate ({found.raw.half.raw:.3f}): do they show the same specimen, in the same "
            "place? Without a common signal nothing below can be judged.",
        )


def _warned(found: Comparison) -> Iterator[Advice]:
    """What came with the volumes: a denoiser that hardly trained, a contrast that is not known."""
    for one in found.methods:
        for text in one.warnings:
            yield Advice("warning", f"{one.title}: {text}.")


def _split(found: Comparison) -> Iterator[Advice]:
    if found.split != "tilts":
        return
    limit = found.period(found.shared_per_px)
    yield Advice(
        "warning",
        "The halves are odd and even tilts, the second choice. What lies along the tilt axis is in every tilt, so both "
        "halves share it whatever the geometry: a wrong tilt axis can raise these correlations. Finer than "
        f"{limit} neighbouring tilts see different parts of Fourier space and share nothing; these shells are left "
        "out. Streaks differ between the halves, so that all scores are lower than with halves of frames, and a "
        "ceiling "
        "that is exceeded may mean that gaps between tilts were filled. With movies, give --even and --odd.",
    )


def _looking(found: Comparison) -> Iterator[Advice]:
    honest = [one for one in found.methods if not is_leak(found, one) and math.isfinite(half_db(one))]
    if len(honest) < 2:
        return
    # Among equals by half SNR, which filters raise too, the one that the curves speak for.
    top = max(map(half_db, honest))
    best = max((one for one in honest if half_db(one) > top - _EQUAL_DB), key=lambda one: one.fsc_mean)
    gain = half_db(best) - half_db(found.raw)
    plain = next((one for one in honest if one.name == "gaussian"), None)
    if best.kind == "raw" or gain < _EQUAL_DB:
        yield Advice("use", "To look: nothing here is better than the raw volume by its halves.")
        return
    text = (
        f"To look and to annotate: {best.title}, {decimal_told(gain, 1, sign=True)} dB of half SNR over the raw halves"
    )
    if plain is not None and best is not plain:
        over = half_db(best) - half_db(plain)
        text += f" and {decimal_told(over, 1, sign=True)} dB over a Gaussian of the best width"
        if over < _EQUAL_DB:
            text += ", which does as well"
    room = half_snr_db(best.half.ceiling) - half_db(best)
    text += f"; the ceiling is {decimal_told(room, 1)} dB higher." if math.isfinite(room) and room >= 0.05 else "."
    yield Advice("use", text)


def _matching(found: Comparison) -> Iterator[Advice]:
    scored = [one for one in found.methods if one.matching is not None]
    raw = found.raw.matching
    if raw is None or not scored:
        yield Advice("use", f"Match templates in the FBP, not in a denoised volume: {PUBLISHED_MATCHING}.")
        return
    best = max(scored, key=lambda one: one.matching.pr_auc if one.matching else -1.0)
    others = ", ".join(f"{one.title} {one.matching.pr_auc:.2f}" for one in scored[1:] if one.matching)
    assert best.matching is not None
    if best.matching.pr_auc - raw.pr_auc < _EQUAL_AUC:
        yield Advice(
            "use",
            f"Match templates in the FBP: PR-AUC {raw.pr_auc:.2f} for {raw.known} particles ({others or 'no other'}). "
            f"For comparison, {PUBLISHED_MATCHING}.",
        )
        return
    few = " With so few particles that may be chance." if raw.known < 50 else ""
    yield Advice(
        "use",
        f"Template matching: {best.title} scores best here, PR-AUC {best.matching.pr_auc:.2f} against "
        f"{raw.pr_auc:.2f} in the FBP, for {raw.known} particles, by coarse search ({raw.rotations} orientations)."
        f"{few} Look at the hits before you rely on it; {PUBLISHED_MATCHING}.",
    )


def _averaging() -> Iterator[Advice]:
    yield Advice(
        "use", f"Align and average particles from the raw volumes or images, nothing denoised: {PUBLISHED_AVERAGING}."
    )


def _each(found: Comparison) -> Iterator[Advice]:
    """What each learned method adds, and loses, by shell."""
    for one in found.methods:
        if one.kind not in ("network", "denoiser") or is_leak(found, one):
            continue
        gain = one.gain
        if gain is None:
            text = f"{one.title} adds nothing, in any shell, that the raw other half confirms"
            more = half_db(one) - half_db(found.raw)
            if math.isfinite(more) and more > _EQUAL_DB:
                text += f": its {more:+.1f} dB of half SNR are a matter of weighting frequencies, as a filter does"
        else:
            ends = found.period(gain.from_per_px), found.period(gain.to_per_px)
            text = (
                f"{one.title}: what it adds from {ends[0]} to {ends[1]} is confirmed by the raw other half (FSC up to "
                f"{gain.most:+.2f})"
            )
            if gain.to_per_px < float(found.frequency_per_px[-1]):
                text += f"; finer than {ends[1]} nothing that it adds is"
        if one.worst_per_px is not None and one.worst_change < _WORTH_TELLING:
            text += (
                f"; at {found.period(one.worst_per_px)} it has lost signal that the halves agree on "
                f"(FSC {one.worst_change:+.2f})"
            )
        yield Advice("know", text + ".")


def _wedge(found: Comparison) -> Iterator[Advice]:
    filled = [one for one in found.methods if one.wedge_share > _FILLED * found.isotropic_wedge_share]
    learned = [one for one in filled if one.kind in ("network", "denoiser")]
    if not learned:
        return
    told = ", ".join(f"{one.title} {100 * one.wedge_share:.0f} %" for one in learned)
    text = (
        f"Into the missing wedge goes, of all power: {told} (a specimen without directions has "
        f"{100 * found.isotropic_wedge_share:.0f} %, the {found.raw.title} {100 * found.raw.wedge_share:.1f} %). No "
        "image measured it: halves cannot confirm it, and shapes along z are the network's guess."
    )
    yield Advice("know", text)


def _truth(found: Comparison) -> Iterator[Advice]:
    scored = [(one, one.truth) for one in found.methods if one.truth is not None]
    if len(scored) < 2:
        return
    raw = found.raw.truth
    assert raw is not None
    best, truth = max(scored, key=lambda pair: pair[1].measured_mean)
    if truth.measured_mean - raw.measured_mean > LEAST_CHANGE:
        yield Advice(
            "know",
            f"By the truth, {best.title} is best in the measured region: mean FSC {truth.measured_mean:.3f} against "
            f"{raw.measured_mean:.3f} in the {found.raw.title}.",
        )
    for name in raw.fidelity:
        top, held = max(scored, key=lambda pair: pair[1].fidelity.get(name, -1.0))
        yield Advice(
            "know",
            f"By the truth, {name} are most faithful in {top.title}: {held.fidelity[name]:.2f} against "
            f"{raw.fidelity[name]:.2f} in the {found.raw.title}.",
        )
