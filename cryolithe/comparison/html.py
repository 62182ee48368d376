"""A comparison as one HTML file that needs nothing else, and as a table of plain cells."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from cryolithe import __version__
from cryolithe.comparison.advice import Advice, half_db, is_leak
from cryolithe.comparison.value import Comparison
from cryolithe.denoising.ceiling import half_snr_db
from cryolithe.evaluation.drawing import Drawn
from cryolithe.formats.sizes import decimal_told
from cryolithe.metrics import resolution_at
from cryolithe.report.page import REPORT_STYLE, document, embedded, escaped, listing, table

STYLE = (
    REPORT_STYLE.replace("max-width: 60rem", "max-width: 76rem")
    + """h2 { margin: 2.2rem 0 .5rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
.use { border-left: .35rem solid #009e73; background: #eefaf5; padding: .6rem .9rem; margin: .8rem 0; }
.know { border-left: .35rem solid #0072b2; background: #eff6fb; padding: .6rem .9rem; margin: .8rem 0; }
.scroll { overflow-x: auto; }
table.scores { font-size: .86rem; }
table.scores th, table.scores td { padding-right: .7rem; }
table.scores td { white-space: nowrap; }
table.scores th.n { white-space: normal; }
th { font-size: .85rem; vertical-align: bottom; color: #444; }
.best { font-weight: 700; }
.leak { color: #a34700; font-weight: 700; }
figure { margin: 1.2rem 0 1.6rem; }
figure img { height: auto; }
figcaption { font-size: .9rem; color: #444; max-width: 60rem; margin-top: .3rem; }
ul { padding-left: 1.2rem; }
li { margin: .25rem 0; }
footer { margin-top: 2.5rem; font-size: .85rem; color: #555; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  figure, table, .warning, .use, .know { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
)

ROUNDED = 0.005  # of an FSC: less is nothing in a table of two digits
HOW_TO_READ = (
    "<b>half SNR</b>: correlation of a half with the raw other half in the measured region, in dB, and the gain over "
    "the raw halves; it rises with smoothing, so compare with the Gaussian.",
    "<b>mean FSC</b>: the same by shell of frequency, mean over the shells, measured region; no filter can raise it. "
    "The surest of these numbers.",
    "<b>confirmed gain</b>: how much better than the raw half a method agrees with the raw other half at most, and "
    "down to which detail.",
    "<b>worst loss</b>: what a method loses of the signal on which the raw halves agree, and where.",
    "<b>smoothing</b>: the Gaussian (σ) that would dampen the raw volume as the method does, noise included.",
    "<b>wedge</b>: share of the volume's power that stands in the missing wedge, where nothing was measured.",
)
CANNOT_SAY = (
    "Halves tell what repeats, not what is right: a fault that both halves share (a wrong alignment, tilt axis or CTF, "
    "a network's habit) is confirmed by both.",
    "Nothing here judges the missing wedge: no image measured it.",
    "The numbers are of one volume; another specimen, thickness or dose may rank the methods differently.",
    "A network that was trained on these very data (Noise2Noise trained, Samba) has seen the other half in its "
    "training: the ceiling tells only of gross memorising.",
    "Time is that of this machine, with whatever else it was doing.",
)
SOURCES = (
    "Jones, Deshmukh & Pande, review of cryo-ET denoisers, Acta Cryst. D (2026): which volume for which purpose.",
    "Half SNR: Frank & Al-Ali, Nature 256, 376 (1975); Bepler, Kelley, Noble & Berger, Topaz-Denoise (2020).",
    "FSC: Harauz & van Heel, Optik 73 (1986).",
)


@dataclass(frozen=True)
class About:
    """What stands above the page.

    Attributes:
        title: of the page.
        lines: on the data.
        notes: what was assumed.
        date: of the comparison.
    """

    title: str
    lines: Sequence[str]
    notes: Sequence[str]
    date: str


def render(found: Comparison, told: Sequence[Advice], figures: Sequence[Drawn], about: About) -> str:
    """The page.

    Args:
        found: the scores.
        told: made by `cryolithe.comparison.advice.advice`.
        figures: made by `cryolithe.comparison.figures.draw`; their captions are HTML.
        about: what stands above.
    """
    heads, rows = score_table(found)
    best = _best(found)
    cells = [[_cell(text, (row, column) in best) for column, text in enumerate(line)] for row, line in enumerate(rows)]
    names = {"warning": "Beware", "use": "Use", "know": "Know"}
    classes = ["", *["n"] * (len(heads) - 1)]
    scores = table(heads, cells, classes).replace("<table>", '<table class="scores">', 1)
    parts = [
        f"<h1>{escaped(about.title)}</h1>",
        f'<p class="about">{"<br>".join(escaped(line) for line in about.lines)}<br>'
        f"CryoLithe {__version__}, {escaped(about.date)}.</p>",
        *(_figure(one) for one in figures[:1]),
        "<h2>What the numbers say</h2>",
        *(f'<p class="{one.level}"><b>{names[one.level]}:</b> {escaped(one.text)}</p>' for one in told),
        "<h2>Scores</h2>",
        f'<div class="scroll">{scores}</div>',
        listing(HOW_TO_READ),
        *(_figure(one) for one in figures[1:]),
        "<h2>What this page cannot say</h2>",
        listing(CANNOT_SAY),
        *(["<h2>Assumed</h2>", listing(escaped(note) for note in about.notes)] if about.notes else []),
        f"<footer><p>{'<br>'.join(map(escaped, SOURCES))}</p></footer>",
    ]
    return document(about.title, STYLE, parts, alone=True)


def _figure(one: Drawn) -> str:
    # As wide as it was drawn, so that letters are as large in one figure as in the next.
    width = round(one.width_inches * 96)
    return (
        f"<h2>{escaped(one.title)}</h2><figure>"
        f'<img src="{embedded(one.png, "png")}" width="{width}" alt="{escaped(one.title)}">'
        f"<figcaption>{one.caption}</figcaption></figure>"
    )


def _cell(text: str, best: bool) -> str:
    plain = escaped(text)
    if text.endswith("leak"):
        return f'<span class="leak">{plain}</span>'
    return f'<span class="best">{plain}</span>' if best else plain


def score_table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Titles of the columns and plain cells, a row for each method."""
    ceiling = half_snr_db(found.raw.half.ceiling)
    classes = list(found.raw.truth.fidelity) if found.raw.truth else []
    unit = "Å" if found.voxel_size_angstrom else "px"
    heads = ["method", f"half SNR, dB (ceiling {_number(ceiling, 1)})", "gain, dB", "mean FSC", f"FSC 0.143, {unit}",
             "confirmed gain", "worst loss", f"smoothing σ, {unit}", "wedge, %"]  # fmt: skip
    if found.raw.truth:
        heads += ["truth, measured", "truth, wedge", *(f"truth, {name}" for name in classes)]
    heads += (["PR-AUC"] if found.raw.matching else []) + ["seconds"]
    rows = []
    for one in found.methods:
        crossing = resolution_at(one.fsc, found.frequency_per_px, 0.143, found.voxel_size_angstrom)
        reach = f"{'' if crossing.reached else '<'}{crossing.value:.3g}" if math.isfinite(crossing.value) else "–"
        gain = half_db(one) - half_db(found.raw)
        row = [one.title, _number(half_db(one), 1) + (" leak" if is_leak(found, one) else "")]
        raw = one.kind == "raw"
        row += ["" if raw else _number(gain, 1, True), _number(one.fsc_mean, 3), reach]
        row.append(
            "" if raw else f"{one.gain.most:+.2f}, to {found.period(one.gain.to_per_px)}" if one.gain else "nothing"
        )
        lost = one.worst_per_px is not None and one.worst_change < -ROUNDED
        worst = f"{one.worst_change:+.2f} at {found.period(one.worst_per_px)}" if lost else "nothing"
        row.append("" if raw else worst)
        row += ["" if raw else _number(one.smoothing_px * (found.voxel_size_angstrom or 1.0), 1)]
        row.append(_number(100 * one.wedge_share, 1))
        if one.truth:
            row += [_number(one.truth.measured_mean, 3), _number(one.truth.missing_mean, 3)]
            row += [_number(one.truth.fidelity.get(name, math.nan), 2) for name in classes]
        if one.matching:
            row.append(_number(one.matching.pr_auc, 2))
        rows.append([*row, "–" if one.seconds is None else f"{one.seconds:.0f}"])
    return heads, rows


def _best(found: Comparison) -> set[tuple[int, int]]:
    """Cells (row, column) that hold the best of their column, where more is better."""
    heads, rows = score_table(found)
    marked: set[tuple[int, int]] = set()
    for column, head in enumerate(heads):
        if not (head.startswith(("half SNR", "mean FSC", "truth", "PR-AUC"))):
            continue
        values = {}
        for row, line in enumerate(rows):
            text = line[column]
            if is_leak(found, found.methods[row]) or text in ("", "–"):
                continue
            values[row] = float(text.replace("−", "-"))
        if values:
            top = max(values.values())
            marked |= {(row, column) for row, value in values.items() if value == top}
    return marked


def _number(value: float, digits: int, sign: bool = False) -> str:
    if not math.isfinite(value):
        return "–"
    return decimal_told(value, digits, sign)


def as_csv(found: Comparison) -> str:
    """The scores as a table for spreadsheets."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    heads, rows = score_table(found)
    writer.writerow(heads)
    writer.writerows(rows)
    return out.getvalue()
