"""The report as one HTML file that needs nothing else: style and figures inside, for screen and paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from cryolithe import __version__
from cryolithe.evaluation.drawing import Drawn
from cryolithe.evaluation.evaluate import Curves, Evaluation
from cryolithe.evaluation.heldout import CALLED, TELLS
from cryolithe.formats.sizes import decimal_told
from cryolithe.metrics import Resolution
from cryolithe.report.page import REPORT_STYLE, document, embedded, escaped, listing, table

Rows = list[Sequence[str]]

STYLE = (
    REPORT_STYLE
    + """h2 { margin: 2.2rem 0 .5rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
td.what { color: #555; font-size: .88rem; padding-right: 0; }
figure { margin: 1.2rem 0 1.6rem; }
figure img { height: auto; }
figcaption { font-size: .9rem; color: #444; max-width: 46rem; margin-top: .3rem; }
figcaption b { color: #1a1a1a; }
ul { padding-left: 1.2rem; }
footer { margin-top: 2.5rem; font-size: .85rem; color: #555; }
@page { size: A4; margin: 15mm; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 10.5pt; }
  figure, table, .warning { break-inside: avoid; }
  h2 { break-after: avoid; }
  figure img { max-height: 200mm; }
}
"""
)

SOURCES = (
    "FSC: Harauz & van Heel, Optik 73 (1986); directional FSC: Diebolder, Faas, Koster & Koning, Biophys. J. "
    "(2015) and Tan et al., Nat. Methods 14, 793 (2017); of tomograms: Kishore et al., End-to-end localized deep "
    "learning for cryo-ET (2025), section 4, and Jones, Deshmukh & Pande (2026), eq. 9.",
    "SNR from halves: Frank & Al-Ali, Nature 256, 376 (1975), used as by Bepler, Kelley, Noble & Berger, Topaz-Denoise "
    "(2020), “Signal-to-noise quantification”; region SNR: ibid., and Jones, Deshmukh & Pande (2026), eq. 8.",
    "SSIM: Wang et al., IEEE TIP 13, 600 (2004), as used by Zeng et al., DUAL (2024), eqs. 10 and 11; "
    "difference-of-Gaussians picking: ibid., “Template-free particle picking”, after Voss et al. (2009).",
    "Template matching: Roseman, Ultramicroscopy 94, 225 (2003); precision, recall, F1 and PR-AUC: Jones, Deshmukh & "
    "Pande (2026), section 2.2.2 and eq. 7.",
    "Fourier ring correlation: van Heel & Stöffler-Meilicke, EMBO J. 4, 2389 (1985).",
)


def render(found: Evaluation, figures: Sequence[Drawn], date: str) -> str:
    """Return the report's HTML.

    Args:
        found: the scores.
        figures: drawn by `cryolithe.evaluation.figures.draw_figures`.
        date: shown below the title.
    """
    size = "unknown voxel size" if found.voxel_size_angstrom is None else f"{found.voxel_size_angstrom:g} Å voxels"
    shape = " × ".join(str(n) for n in found.shape_zyx)
    low, high = found.tilt_range_deg
    title = f"Evaluation of {found.volume.replace(chr(92), '/').rsplit('/', 1)[-1]}"
    parts = [
        f"<h1>{escaped(title)}</h1>",
        f'<p class="about">{escaped(found.volume)}<br>{shape} (z, y, x), {size}, tilt range {low:g}° to {high:g}°. '
        f"CryoLithe {__version__}, {escaped(date)}.</p>",
        *(f'<p class="warning"><b>Warning:</b> {escaped(warning)}</p>' for warning in found.warnings),
        "<h2>Scores</h2>",
        _table(("", "", ""), summary_rows(found), ("", "n", "what")),
    ]
    for heading, curves in (
        ("with the reference", found.reference.curves if found.reference else None),
        ("of the halves", found.halves.curves if found.halves else None),
    ):
        if curves:
            parts += [f"<h2>Resolution: correlation {heading}</h2>", _resolution_table(curves)]
    if found.skipped:
        reasons = listing(f"<b>{escaped(test)}</b>: {escaped(why)}." for test, why in found.skipped.items())
        parts.append(f"<h2>Not tested</h2>{reasons}")
    parts.append("<h2>Figures</h2>")
    parts += [_figure(number, figure) for number, figure in enumerate(figures, start=1)]
    if found.notes:
        parts.append("<h2>Notes</h2>" + listing(map(escaped, found.notes)))
    parts.append(f"<footer><h2>Definitions and sources</h2>{listing(map(escaped, SOURCES))}</footer>")
    return document(title, STYLE, parts, alone=True)


def summary_rows(found: Evaluation) -> Rows:
    """The scores in the order of the report: name, value, meaning. The terminal shows the first two."""
    rows: Rows = []
    if found.reference:
        scores, curves = found.reference.similarity, found.reference.curves
        rows += [
            ("SNR against the reference", _db(scores.snr_db), "after the best scale and offset, -10 log10(1 - ρ²)"),
            ("PSNR", _db(scores.psnr_db), "standardised volumes; peak: the reference's range"),
            ("SSIM", _number(scores.ssim), "standardised volumes; 1 is perfect"),
            ("correlation", _number(scores.correlation), "Pearson's ρ of the voxels"),
            *_mean_rows("FSC with the reference", curves),
        ]
    if found.halves:
        snr, agreement = found.halves.snr, found.halves.agreement
        rows += [
            ("SNR from the halves", _db(snr.half_db), f"of one half, ρ/(1 - ρ); {_db(snr.whole_db)} of their mean"),
            *_mean_rows("FSC of the halves", found.halves.curves),
            ("local agreement, median", _number(agreement.median), f"above 0.5 in {agreement.share_above['0.5']:.0%} "
             f"of the voxels, above 0.8 in {agreement.share_above['0.8']:.0%}"),
        ]  # fmt: skip
    if found.reprojection:
        again = found.reprojection
        called = CALLED[again.use]
        rows += [
            (f"correlation with {called}", _number(again.mean_correlation), f"{len(again.angles_deg)} tilts; "
             + TELLS[again.use]),
            (f"ring correlation, {called}", _number(_mean(again.ring_correlation[1:-1])), "mean over the rings"),
        ]  # fmt: skip
    wedge, truth = found.wedge, found.reference.wedge if found.reference else None
    also = f"; reference: {_number(truth.fill)}" if truth else ""
    rows += [
        ("energy in the wedge / expected", _number(wedge.fill), f"0: none, 1: as strong as what was measured{also}"),
        ("share of energy in the wedge", _number(wedge.share), f"reference: {_number(truth.share)}" if truth else ""),
        ("streak index", _number(wedge.streak_index), "steps of the power between directions, 0: none"
         + (f"; reference: {_number(truth.streak_index)}" if truth else "")),
    ]  # fmt: skip
    if found.region_snr:
        rows.append(
            ("region SNR", _db(found.region_snr.snr_db), f"{found.region_snr.pairs} pairs of particle and background")
        )
    if found.picking:
        pick = found.picking
        rows += [
            ("picking: F1", _number(pick.f1), f"difference of Gaussians for {pick.diameter_angstrom:g} Å"),
            ("picking: precision, recall", f"{pick.precision:.2f}, {pick.recall:.2f}",
             f"{pick.true} of {pick.found} picks are among {pick.known} known, within {pick.tolerance_angstrom:.0f} Å"),
        ]  # fmt: skip
    if found.matching:
        rows.append(("template matching: PR-AUC", _number(found.matching.pr_auc), f"{found.matching.known} known, "
                     f"{found.matching.rotations} orientations at {found.matching.voxel_size_angstrom:g} Å; best F1 "
                     f"{_number(found.matching.best_f1)}"))  # fmt: skip
    return rows


def resolution_rows(found: Evaluation) -> list[tuple[str, str]]:
    """Resolutions of all coefficients and of those that were measured, with their thresholds."""
    names = {"total": "all", "measured": "measured"}
    rows = []
    for what, curves in (
        ("resolution, reference", found.reference.curves if found.reference else None),
        ("resolution, halves", found.halves.curves if found.halves else None),
    ):
        for name in names if curves else ():
            if curves and name in curves.resolution:
                values = curves.resolution[name]
                told = [_threshold_told(values[threshold], threshold) for threshold in ("0.5", "0.143")]
                rows.append((f"{what}: {names[name]}", ", ".join(told)))
    return rows


def _threshold_told(resolution: Resolution, threshold: str) -> str:
    """``23.4 Å at FSC 0.143``."""
    if not math.isfinite(resolution.value):
        return f"none at FSC {threshold}"
    better = "" if resolution.reached else "better than "
    return f"{better}{resolution.value:.1f} {resolution.unit} at FSC {threshold}"


def period(resolution: Resolution) -> str:
    """A resolution as text: ``<`` where the curve never falls below, a dash where it never lies above."""
    if not math.isfinite(resolution.value):
        return "–"
    return f"{'' if resolution.reached else '< '}{resolution.value:.1f} {resolution.unit}"


def _mean_rows(what: str, curves: Curves) -> Iterable[Sequence[str]]:
    names = {"total": "all", "measured": "measured", "missing": "wedge"}
    for name, value in curves.mean.items():
        found = curves.resolution[name]
        yield (f"{what}: {names[name]}", _number(value), f"mean over the shells; {period(found['0.5'])} at 0.5, "
               f"{period(found['0.143'])} at 0.143")  # fmt: skip


def _resolution_table(curves: Curves) -> str:
    labels = {"total": "all coefficients", "measured": "measured", "missing": "missing wedge"}
    rows: Rows = [
        (labels[name], *(period(found[t]) for t in ("0.5", "0.143"))) for name, found in curves.resolution.items()
    ]
    wanted = [name for name in ("x", "y", "z", "+45°", "-45°") if name in curves.cone_resolution]
    for name in wanted:
        shown = {"x": "x", "y": "y, the tilt axis", "z": "z, the beam"}.get(name, f"{name} from x towards z")
        found = curves.cone_resolution[name]
        rows.append((f"along {shown}", period(found["0.5"]), period(found["0.143"])))
    return _table(("", "at 0.5", "at 0.143"), rows, ("", "n", "n"))


def _table(heads: Sequence[str], rows: Rows, classes: Sequence[str]) -> str:
    return table(heads, (map(escaped, row) for row in rows), classes)


def _figure(number: int, figure: Drawn) -> str:
    source = embedded(figure.png, "png")
    style = f"width: {figure.width_inches:.2f}in"
    return (
        f'<figure><img alt="{escaped(figure.title)}" style="{style}" src="{source}">'
        f"<figcaption><b>Figure {number}. {escaped(figure.title)}.</b> {escaped(figure.caption)}</figcaption></figure>"
    )


def _mean(values: Iterable[float]) -> float:
    finite = [float(v) for v in values if math.isfinite(v)]
    return sum(finite) / len(finite) if finite else math.nan


def _number(value: float) -> str:
    return decimal_told(value, 3) if math.isfinite(value) else "–"


def _db(value: float) -> str:
    if math.isinf(value):
        return "∞ dB" if value > 0 else "-∞ dB"
    return f"{decimal_told(value, 1)} dB" if math.isfinite(value) else "–"
