"""The contact sheet of candidates: curate.html, curate.csv and curate.json."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.curation.candidates import Collection
from cryolithe.curation.choices import FORMAT, VERSION
from cryolithe.curation.manifest import Manifest
from cryolithe.curation.ranking import Ranked, Thresholds, Unreadable
from cryolithe.formats.files import all_or_none, make_folder, refuse_existing, replacing
from cryolithe.report.figures import round_length_nm
from cryolithe.report.greys import grey_scale, to_grey
from cryolithe.report.json_files import write_json
from cryolithe.report.page import document, embedded, escaped, listing

TEXTS = ("name", "path", "comment", "against", "remark")
PAGE = Path(__file__).parent / "page"
NAMES = ("curate.html", "curate.csv", "curate.json")
JPEG_QUALITY = 70
LEAST_THUMBNAIL_PX = 64  # along x: smaller ones are enlarged by whole factors, lest JPEG blur them
# Column title, unit, key of the number, digits, and what it means.
COLUMNS = (
    ("FSC", "mean", "fsc_mean", 3, "mean half-map Fourier shell correlation; more is better"),
    ("at 0.143", "", "resolution", 3, "where the FSC of the averaged halves falls below 0.143; for comparison only"),
    ("streaks", "dB", "streak_db", 1, "power along the wedge's borders over their surroundings; less is better"),
    ("contrast", "", "contrast", 2, "robust spread of the low-passed volume over the noise; more is better"),
    ("empty", "%", "empty_fraction", 0, "slabs across z that hold vacuum or bare ice; less is better"),
)  # fmt: skip


def check_outputs(folder: Path, overwrite: bool) -> None:
    """Raise OutputError if the folder cannot be made or one of the files is there already."""
    make_folder(folder)
    for name in NAMES:
        refuse_existing(folder / name, overwrite, "another folder with -o")


def write_sheet(
    folder: Path,
    collection: Collection,
    manifest: Manifest | None,
    ranked: Sequence[Ranked],
    unreadable: Sequence[Unreadable],
    overwrite: bool = False,
) -> None:
    """Write the three files.

    Args:
        folder: must exist.
        collection: where the candidates come from.
        manifest: that has the candidates among its pairs, its data folder an absolute path or None.
        ranked: the best first.
        unreadable: candidates without numbers.
        overwrite: replace files that exist.

    Raises:
        OutputError: if a file exists and is not to be overwritten, or cannot be written.
    """
    record = sheet_record(collection, manifest, ranked, unreadable)
    check_outputs(folder, overwrite)
    with all_or_none(folder / name for name in NAMES):
        write_json(folder / "curate.json", record)
        with replacing(folder / "curate.csv", overwrite=True) as temporary:
            temporary.write_text(_table(record["candidates"]), encoding="utf-8")
        with replacing(folder / "curate.html", overwrite=True) as temporary:
            temporary.write_text(page(record, ranked), encoding="utf-8")


def sheet_record(
    collection: Collection, manifest: Manifest | None, ranked: Sequence[Ranked], unreadable: Sequence[Unreadable]
) -> dict[str, Any]:
    """The content of curate.json: plain values, in the order of the ranks."""
    notes = {pair.name: pair.note for pair in manifest.pairs} if manifest else {}
    return {
        "format": FORMAT,
        "version": VERSION,
        "program": f"CryoLithe {__version__}",
        "folder": str(collection.folder.resolve()),
        "thresholds": dataclasses.asdict(Thresholds()),
        "manifest": manifest and manifest.model_dump(mode="json", exclude_defaults=True),
        "candidates": [_described(one, notes.get(one.measured.candidate.name) or "") for one in ranked],
        "unreadable": [dataclasses.asdict(one) for one in unreadable],
    }


def _described(one: Ranked, comment: str) -> dict[str, Any]:
    candidate, sample = one.measured.candidate, one.measured.sample
    numbers = dataclasses.asdict(one.measured.numbers)
    if numbers["resolution"] is not None and not math.isfinite(numbers["resolution"]):
        numbers["resolution"] = None  # JSON has no infinity; a mean below 0.143 says as much
    return {
        "name": candidate.name,
        "path": candidate.path.as_posix(),
        "keep": one.keep,
        "comment": comment,
        "rank": one.rank,
        "score": one.score,
        **numbers,
        "shape_zyx": list(sample.shape),
        "voxel_size_angstrom": sample.voxel_size_angstrom,
        "averaged_by": sample.factor,
        "tilt_range_deg": list(sample.tilt_range_deg) if sample.tilt_range_deg else None,
        "against": list(one.reasons),
        "remark": candidate.remark,
    }


def _table(candidates: list[dict[str, Any]]) -> str:
    """The candidates as CSV; lists are joined."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(candidates[0]), lineterminator="\n")
    writer.writeheader()
    for row in candidates:
        plain = {key: "; ".join(map(str, value)) if isinstance(value, list) else value for key, value in row.items()}
        # A spreadsheet takes a text that starts so for a formula.
        risky = {key: f"'{plain[key]}" for key in TEXTS if str(plain[key] or "").startswith(("=", "+", "-", "@"))}
        writer.writerow({**plain, **risky})
    return text.getvalue()


def page(record: dict[str, Any], ranked: Sequence[Ranked]) -> str:
    """The whole of curate.html; it needs nothing beside it and no network."""
    # Choices are remembered for this set of candidates and numbers only.
    shown = {**record, "id": hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]}
    # "</script>" in a name must not end the block.
    block = json.dumps(shown, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")
    rows = "\n".join(_row(c, one) for c, one in zip(record["candidates"], ranked, strict=True))
    parts = {
        "LOGIC": (PAGE / "choices.js").read_text(encoding="utf-8"),
        "SCRIPT": (PAGE / "sheet.js").read_text(encoding="utf-8"),
        "DATA": block,
        "HEADINGS": "".join(_heading(title, unit, key, meaning) for title, unit, key, _, meaning in COLUMNS),
        "ROWS": rows,
        "UNREADABLE": _unreadable(record["unreadable"]),
    }
    template = (PAGE / "curate.html").read_text(encoding="utf-8")
    body = re.sub(r"<!--([A-Z]+)-->", lambda match: parts[match[1]], template)
    title = f"{len(ranked)} candidates of {Path(record['folder']).name}"
    return document(title, (PAGE / "curate.css").read_text(encoding="utf-8"), [body])


def _heading(title: str, unit: str, key: str, meaning: str) -> str:
    shown = f"{title} <small>{unit}</small>" if unit else title
    return f'<th scope="col"><button type="button" data-sort="{key}" title="{escaped(meaning)}">{shown}</button></th>'


def _row(candidate: dict[str, Any], one: Ranked) -> str:
    name = escaped(candidate["name"])
    cells = "".join(f'<td class="number">{_shown(candidate, key, digits)}</td>' for _, _, key, digits, _ in COLUMNS)
    voxel = candidate["voxel_size_angstrom"]
    size = " × ".join(map(str, candidate["shape_zyx"])) + (f", {voxel:g} Å" if voxel else "")
    remarks = "; ".join([*candidate["against"], *([candidate["remark"]] if candidate["remark"] else [])])
    checked = " checked" if candidate["keep"] else ""
    return (
        f'<tr data-name="{name}" tabindex="-1"><td class="number">{candidate["rank"]}</td>'
        f'<td class="views">{_views(one)}</td>'
        f"<td><b>{name}</b><br><small>{escaped(size)}<br>{escaped(candidate['path'])}</small>"
        f'<p class="against">{escaped(remarks)}</p></td>'
        f'<td class="number">{candidate["score"]:.2f}</td>{cells}'
        f'<td><label class="keep"><input type="checkbox"{checked}> <span>keep</span></label></td>'
        f'<td><textarea rows="3" aria-label="comment on {name}">{escaped(candidate["comment"])}</textarea></td>'
        "</tr>"
    )


def _shown(candidate: dict[str, Any], key: str, digits: int) -> str:
    value = candidate[key]
    if value is None:
        return "–"
    if key == "empty_fraction":
        return f"{100 * value:.0f}"
    if key == "resolution":
        bound = "" if candidate["resolution_reached"] else "&lt; "  # a value is there only where it was measured
        return f"{bound}{value:.{digits}g} {candidate['resolution_unit']}"
    return f"{value:.{digits}f}"


def _unreadable(unreadable: list[dict[str, str]]) -> str:
    if not unreadable:
        return ""
    items = listing(f"<b>{escaped(u['name'])}</b>: {escaped(u['reason'])}" for u in unreadable)
    return f'<details class="unreadable"><summary>{len(unreadable)} could not be read</summary>{items}</details>'


def _views(one: Ranked) -> str:
    """Central slices as they are drawn elsewhere: x to the right, y and z upwards, with a scale bar."""
    volume = one.measured.sample.volume
    slices = {"xy": volume[len(volume) // 2], "xz": volume[:, volume.shape[1] // 2]}
    scale = grey_scale(slices.values())
    figures = []
    for view, image in slices.items():
        bar = _scale_bar(image.shape[1], one.measured.sample.sample_angstrom) if view == "xy" else ""
        name = escaped(f"{one.measured.candidate.name}, {view}")
        source = _jpeg(to_grey(image[::-1], scale))
        figures.append(f'<figure><img alt="{name}" src="{source}"><figcaption>{view}</figcaption>{bar}</figure>')
    return "".join(figures)


def _scale_bar(width_px: int, voxel_size_angstrom: float | None) -> str:
    """A bar of a round length, a seventh to a third of the image."""
    if not voxel_size_angstrom:
        return ""
    width_nm = width_px * voxel_size_angstrom / 10
    length_nm = round_length_nm(width_nm)
    return f'<span class="bar" style="width:{100 * length_nm / width_nm:.2f}%">{length_nm:g} nm</span>'


def _jpeg(greys: NDArray[np.float32]) -> str:
    """Greys from 0 to 1 as the address of an image."""
    from matplotlib.image import imsave

    times = max(1, -(-LEAST_THUMBNAIL_PX // greys.shape[1]))
    enlarged = np.repeat(np.repeat(greys, times, axis=0), times, axis=1)
    stream = io.BytesIO()
    imsave(
        stream, enlarged, vmin=0, vmax=1, cmap="gray", format="jpeg",
        pil_kwargs={"quality": JPEG_QUALITY, "optimize": True},
    )  # fmt: skip
    return embedded(stream.getvalue(), "jpeg")
