"""What became of a session, as a table for programs (CSV) and a page for people (HTML).

Both are written anew after every series, so that they tell the truth at any moment.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryolithe import __version__
from cryolithe.formats.files import replacing
from cryolithe.formats.record import part_of
from cryolithe.report.page import REPORT_STYLE, document, escaped, table
from cryolithe.session.batch import Outcome

CSV_NAME, HTML_NAME = "cryolithe_summary.csv", "cryolithe_summary.html"
COLUMNS = (
    "series", "status", "output", "z", "y", "x", "voxel_size_angstrom", "tilts", "left_out", "method", "model",
    "seconds", "minimum", "maximum", "mean", "rms", "fit_to_images", "shift_z_px", "shift_y_px", "shift_x_px",
    "warnings", "message",
)  # fmt: skip

HEADS = (
    "series", "status", "method", "model", "z × y × x", "voxel, Å", "tilts", "left out", "seconds", "fit to images",
    "shift z, y, x (px)", "warnings",
)  # fmt: skip
TEXT_COLUMNS = 4
# What a page for people calls a status that has another name in the table for programs.
SHOWN_STATUS = {"skipped": "done before"}
SCRIPT = Path(__file__).with_name("summary.js")
STYLE = (
    REPORT_STYLE
    + """body { max-width: 84rem; }
table { font-size: .9rem; display: block; overflow-x: auto; }
th[aria-sort], thead th { cursor: pointer; }
th[aria-sort=ascending]::after { content: " ▲"; }
th[aria-sort=descending]::after { content: " ▼"; }
thead th:hover, thead th:focus-visible { background: #f2f2f2; }
.tools input, .tools select { font: inherit; padding: .2rem .5rem; margin-right: .8rem; }
.tools output { color: #555; }
[hidden] { display: none; }
.failed { color: #a34700; font-weight: 600; }
section { margin-top: 2rem; border-top: 1px solid #e3e3e3; }
section h2 { font-size: 1.1rem; margin-bottom: .2rem; }
img { max-height: 36rem; margin-top: .6rem; }
"""
)


def write_summary(folder: Path, source: Path, outcomes: Sequence[Outcome]) -> tuple[Path, Path]:
    """Write both files, replacing those of an earlier run.

    Args:
        folder: where to.
        source: the session's folder or list, for the title.
        outcomes: one for each series.

    Returns:
        the CSV file and the page.

    Raises:
        OutputError: if a file cannot be written.
    """
    table, page = folder / CSV_NAME, folder / HTML_NAME
    rows = [_row(outcome) for outcome in outcomes]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    for path, content in ((table, text.getvalue()), (page, _page(folder, source, outcomes, rows))):
        with replacing(path, overwrite=True) as temporary:
            temporary.write_text(content, encoding="utf-8", errors="backslashreplace")
    return table, page


def _row(outcome: Outcome) -> dict[str, Any]:
    """The cells of a series; empty where there is nothing to tell."""
    record = outcome.record
    volume, check = part_of(record, "volume"), part_of(record, "self_check")
    method, statistics = part_of(record, "method"), part_of(volume, "statistics")
    geometry = part_of(record, "geometry")
    z, y, x = volume.get("shape_zyx") or ("", "", "")
    dz, dy, dx = check.get("shift_zyx_px") or ("", "", "")
    cells = {
        "series": outcome.task.name,
        "status": outcome.status,
        "output": str(outcome.task.job.output),
        **{"z": z, "y": y, "x": x},
        "voxel_size_angstrom": volume.get("voxel_size_angstrom"),
        "tilts": len(geometry.get("tilt_angles_deg", ())) or "",
        "left_out": len(geometry["excluded_sections"]) if "excluded_sections" in geometry else "",
        "method": method.get("name"),
        "model": part_of(method, "model").get("name"),
        "seconds": part_of(record, "seconds").get("total"),
        **{name: statistics.get(name) for name in ("minimum", "maximum", "mean", "rms")},
        "fit_to_images": check.get("correlation"),
        **{"shift_z_px": dz, "shift_y_px": dy, "shift_x_px": dx},
        "warnings": "; ".join(record.get("warnings", ())),
        "message": outcome.message if outcome.status in ("failed", "to do") else "",
    }
    return {name: _cell(cell) for name, cell in cells.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else value


def _page(folder: Path, source: Path, outcomes: Sequence[Outcome], rows: Sequence[Mapping[str, Any]]) -> str:
    title = f"Session {source.resolve().name}"
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "failed", "to do")}
    told = ", ".join(f"{count} {SHOWN_STATUS.get(status, status)}" for status, count in counts.items() if count)
    numbered = [(number, outcome, row) for number, (outcome, row) in enumerate(zip(outcomes, rows, strict=True))]
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        f"<h1>{escaped(title)}</h1>",
        f'<p class="about">{escaped(source.resolve())}<br>{len(outcomes)} series: {told}. '
        f"CryoLithe {__version__}, {date}.</p>",
        table(HEADS, (_cells(*one) for one in numbered), (*[""] * TEXT_COLUMNS, *"n" * (len(HEADS) - TEXT_COLUMNS))),
        "<p>Fit to images: coherence of the volume's low frequencies with a back-projection of the same images, at the "
        "best shift (1: the same; noisy images give less).</p>",
        *(_section(folder, *one) for one in numbered),
    ]
    return document(title, STYLE, parts, script=SCRIPT.read_text(encoding="utf-8"))


def _cells(number: int, outcome: Outcome, row: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the line of a series in the table."""

    def short(name: str, digits: int) -> str:
        return f"{round(float(row[name]), digits) + 0.0:.{digits}f}" if row[name] != "" else "–"

    size = f"{row['z']} × {row['y']} × {row['x']}" if row["z"] != "" else "–"
    shift = ", ".join(short(f"shift_{axis}_px", 1) for axis in "zyx")
    voxel = f"{float(row['voxel_size_angstrom']):.4g}" if row["voxel_size_angstrom"] != "" else "–"
    counts = (row["tilts"] or "–", row["left_out"] or "–")
    numbers = (size, voxel, *counts, short("seconds", 1), short("fit_to_images", 2), shift)
    warnings = len(outcome.record.get("warnings", ()))
    status = SHOWN_STATUS.get(outcome.status, outcome.status)
    if outcome.status == "failed":
        status = f'<a class="failed" href="#s{number}">failed</a>'
    link = f'<a href="#s{number}">{escaped(outcome.task.name)}</a>'
    made = (escaped(row["method"] or "–"), escaped(row["model"] or "–"))
    return link, status, *made, *map(str, numbers), str(warnings or "–")


def _section(folder: Path, number: int, outcome: Outcome, row: Mapping[str, Any]) -> str:
    job = outcome.task.job
    lines = [f'<section id="s{number}"><h2>{escaped(outcome.task.name)}</h2>']
    if outcome.status in ("failed", "to do"):
        kind = "warning" if outcome.status == "failed" else "about"
        lines.append(f'<p class="{kind}">{escaped(outcome.message)}</p>')
    else:
        lines.append(f"<p>{escaped(job.output)}<br>{escaped(_made_by(row))}.</p>")
        lines += [f'<p class="warning">{escaped(text)}</p>' for text in outcome.record.get("warnings", ())]
        if left_out := part_of(outcome.record, "geometry").get("excluded_sections"):
            lines.append(f"<p>Images left out: {', '.join(map(str, left_out))}.</p>")
        low, high, mean, rms = (row[name] for name in ("minimum", "maximum", "mean", "rms"))
        lines.append(f"<p>Values {low} to {high}, mean {mean}, deviation {rms}.</p>")
        if job.preview.is_file():
            link = quote(os.path.relpath(job.preview, folder))
            picture = f'<img loading="lazy" alt="Central slices" src="{link}">'
            lines.append(
                f'<p><a href="{link}" title="In full size">{picture}</a> <a href="{link}">In full size</a></p>'
            )
    return "\n".join([*lines, "</section>"])


def _made_by(row: Mapping[str, Any]) -> str:
    """Method, model and sizes in words."""
    parts = [f"Method {row['method'] or 'unknown'}"]
    if row["model"]:
        parts.append(f"model {row['model']}")
    if row["z"] != "":
        parts.append(f"{row['z']} × {row['y']} × {row['x']} voxels (z, y, x)")
    if row["voxel_size_angstrom"] != "":
        parts.append(f"{float(row['voxel_size_angstrom']):.4g} Å")
    return ", ".join(parts)
