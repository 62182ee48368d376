"""What became of a session, as a table for programs (CSV) and a page for people (HTML).

Both are written anew after every series, so that they tell the truth at any moment.
"""

from __future__ import annotations

import csv
import html
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
from cryolithe.session.batch import Outcome

CSV_NAME, HTML_NAME = "cryolithe_summary.csv", "cryolithe_summary.html"
COLUMNS = (
    "series", "status", "output", "z", "y", "x", "voxel_size_angstrom", "tilts", "left_out", "method", "model",
    "seconds", "minimum", "maximum", "mean", "rms", "fit_to_images", "shift_z_px", "shift_y_px", "shift_x_px",
    "warnings", "message",
)  # fmt: skip

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }}
h1 {{ font-size: 1.5rem; margin-bottom: .2rem; }}
.about {{ color: #555; margin: 0 0 1rem; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }}
th, td {{ padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e3e3e3; }}
td.n, th.n {{ text-align: right; white-space: nowrap; }}
.failed {{ color: #a34700; font-weight: 600; }}
section {{ margin-top: 2rem; border-top: 1px solid #e3e3e3; }}
section h2 {{ font-size: 1.1rem; margin-bottom: .2rem; overflow-wrap: anywhere; }}
.warning {{ border-left: .35rem solid #d55e00; background: #fff3ea; padding: .5rem .9rem; margin: .6rem 0; }}
img {{ max-width: 100%; max-height: 36rem; display: block; margin-top: .6rem; }}
p {{ overflow-wrap: anywhere; }}
</style>
</head>
<body>
"""


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
    volume, check = _part(record, "volume"), _part(record, "self_check")
    method, statistics = _part(record, "method"), _part(volume, "statistics")
    geometry = _part(record, "geometry")
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
        "model": _part(method, "model").get("name"),
        "seconds": _part(record, "seconds").get("total"),
        **{name: statistics.get(name) for name in ("minimum", "maximum", "mean", "rms")},
        "fit_to_images": check.get("correlation"),
        **{"shift_z_px": dz, "shift_y_px": dy, "shift_x_px": dx},
        "warnings": "; ".join(record.get("warnings", ())),
        "message": outcome.message if outcome.status in ("failed", "to do") else "",
    }
    return {name: _cell(cell) for name, cell in cells.items()}


def _part(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = record.get(key)
    return found if isinstance(found, Mapping) else {}


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else value


def _page(folder: Path, source: Path, outcomes: Sequence[Outcome], rows: Sequence[Mapping[str, Any]]) -> str:
    title = f"Session {source.resolve().name}"
    counts = {status: sum(o.status == status for o in outcomes) for status in ("done", "skipped", "failed", "to do")}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        _HEAD.format(title=html.escape(title)),
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="about">{html.escape(str(source.resolve()))}<br>{len(outcomes)} series: {told}. '
        f"CryoLithe {__version__}, {date}.</p>",
        "<table><thead><tr><th>series</th><th>status</th><th class=n>z × y × x</th><th class=n>voxel, Å</th>"
        "<th class=n>tilts</th><th class=n>left out</th><th class=n>seconds</th>"
        "<th class=n>fit to images</th><th class=n>shift z, y, x (px)"
        "</th><th class=n>warnings</th></tr></thead><tbody>",
        *(_table_row(number, outcome, row) for number, (outcome, row) in enumerate(zip(outcomes, rows, strict=True))),
        "</tbody></table>",
        "<p>Fit to images: coherence of the volume's low frequencies with a back-projection of the same images, at the "
        "best shift (1: the same; noisy images give less).</p>",
        *(
            _section(number, folder, outcome, row)
            for number, (outcome, row) in enumerate(zip(outcomes, rows, strict=True))
        ),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _table_row(number: int, outcome: Outcome, row: Mapping[str, Any]) -> str:
    def short(name: str, digits: int) -> str:
        return f"{round(float(row[name]), digits) + 0.0:.{digits}f}" if row[name] != "" else "–"

    size = f"{row['z']} × {row['y']} × {row['x']}" if row["z"] != "" else "–"
    shift = ", ".join(short(f"shift_{axis}_px", 1) for axis in "zyx")
    voxel = f"{float(row['voxel_size_angstrom']):.4g}" if row["voxel_size_angstrom"] != "" else "–"
    counts = (row["tilts"] or "–", row["left_out"] or "–")
    numbers = (size, voxel, *counts, short("seconds", 1), short("fit_to_images", 2), shift)
    warnings = len(outcome.record.get("warnings", ()))
    cells = "".join(f"<td class=n>{cell}</td>" for cell in (*numbers, warnings or "–"))
    mark = ' class="failed"' if outcome.status == "failed" else ""
    name = html.escape(outcome.task.name)
    return f'<tr><td><a href="#s{number}">{name}</a></td><td{mark}>{outcome.status}</td>{cells}</tr>'


def _section(number: int, folder: Path, outcome: Outcome, row: Mapping[str, Any]) -> str:
    job = outcome.task.job
    lines = [f'<section id="s{number}"><h2>{html.escape(outcome.task.name)}</h2>']
    if outcome.status in ("failed", "to do"):
        kind = "warning" if outcome.status == "failed" else "about"
        lines.append(f'<p class="{kind}">{html.escape(outcome.message)}</p>')
    else:
        lines.append(f"<p>{html.escape(str(job.output))}</p>")
        lines += [f'<p class="warning">{html.escape(text)}</p>' for text in outcome.record.get("warnings", ())]
        if left_out := _part(outcome.record, "geometry").get("excluded_sections"):
            lines.append(f"<p>Images left out: {', '.join(map(str, left_out))}.</p>")
        low, high, mean, rms = (row[name] for name in ("minimum", "maximum", "mean", "rms"))
        lines.append(f"<p>Values {low} to {high}, mean {mean}, deviation {rms}.</p>")
        if job.preview.is_file():
            link = quote(os.path.relpath(job.preview, folder))
            lines.append(f'<img loading="lazy" alt="Central slices" src="{link}">')
    return "\n".join([*lines, "</section>"])
