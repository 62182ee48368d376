"""The record of the average of two halves: everything that the halves' own records say, and what both share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cryolithe.evaluation.html import period
from cryolithe.files.hashing import file_sha256
from cryolithe.formats import RunningStatistics, read_mrc
from cryolithe.formats.record import changed_input, hashed, read_record_beside
from cryolithe.metrics import FscCurve, Resolution, fourier_shell_correlation, mean_correlation, resolution_at
from cryolithe.reconstruction.backprojected import WINDOW, back_projection
from cryolithe.reconstruction.jobs.job import Job, already_done

THRESHOLDS = (0.5, 0.143)
SHARED_PRIOR = (
    "Both halves went through one network and share what it learned: where it adds the same structure to both, they "
    "agree although the data say nothing. Their FSC is no measure of resolution; that of the back-projections, which "
    "share nothing, tells how far the images reach."
)


def resolutions(curve: FscCurve, voxel_size_angstrom: float | None) -> dict[str, Resolution]:
    """Where the total falls below each threshold."""
    return {str(t): resolution_at(curve.total, curve.frequency_per_px, t, voxel_size_angstrom) for t in THRESHOLDS}


def told(resolution: Resolution) -> str:
    """``FSC 0.5 at 23 Å``, with ``<`` where the curve never falls below it up to Nyquist."""
    if not np.isfinite(resolution.value):
        return "no shell reaches FSC 0.5"
    return f"FSC 0.5 at {period(resolution)}{'' if resolution.reached else ' (Nyquist)'}"


def back_projected(jobs: Sequence[Job], voxel_size_angstrom: float | None) -> dict[str, Any]:
    """FSC of back-projections of the same halves: of their middle rows, which take little time.

    Args:
        jobs: of the even and of the odd half.
        voxel_size_angstrom: of the volumes.
    """
    (a, rows), (b, _) = (back_projection(job, job.output.parent) for job in jobs)
    curve = fourier_shell_correlation(a, b)
    return {
        "method": f"filtered back-projection, {WINDOW} window",
        "rows": [rows.start + 1, rows.stop],
        "shape_zyx": a.shape,
        "fsc": curve,
        "fsc_mean": mean_correlation(curve.total),
        "resolution": resolutions(curve, voxel_size_angstrom),
    }


def average_record(
    whole: tuple[Path, str], volumes: tuple[Path, Path], scaling: dict[str, Any], found: dict[str, Any]
) -> dict[str, Any]:
    """What is told of the average, or of the volume that takes its place.

    Args:
        whole: its file, which is there, and how it was made, in words.
        volumes: of the halves, whose records lie beside them.
        scaling: what its stored values stand for, where that is told; may be empty.
        found: FSC and what else was computed of the halves.
    """
    (average, made), (even, odd) = whole, (read_record_beside(path) for path in volumes)
    tilts = {f"{name} tilts": half["inputs"]["tilts"] for name, half in (("even", even), ("odd", odd))}
    shared = {name: entry for name, entry in even["inputs"].items() if name != "tilts"}
    stored = read_mrc(average).data
    statistics = RunningStatistics()
    for section in stored:
        statistics.add(np.asarray(section))
    volume = {key: value for key, value in even["volume"].items() if key != "scaling"}
    return {
        "program": even["program"],
        "date": odd["date"],
        "inputs": {**hashed({"even": volumes[0], "odd": volumes[1]}), **tilts, **shared},
        "volume": {
            **volume,
            "path": average.name,
            "dtype": stored.dtype.name,
            "made": made,
            "statistics": asdict(statistics.result()),
            **scaling,
        },
        "geometry": even["geometry"],
        "method": even["method"],
        "settings": even["settings"],
        "compute": even["compute"],
        "halves": [
            {"path": path.name, "sha256": file_sha256(path), "record": path.with_suffix(".json").name}
            for path in volumes
        ],
        **found,
    }  # fmt: skip


def average_is_done(average: Path, volumes: tuple[Path, Path], beside: Sequence[Path], jobs: Sequence[Job]) -> bool:
    """Whether the average, and what is written beside it, were made of these very halves, made of these very images."""
    record = read_record_beside(average)
    if not record or not all(path.is_file() for path in (average, *volumes, *beside)):
        return False
    inputs = {name: record.get("inputs", {}).get(name) for name in ("even", "odd")}
    return (
        all(already_done(job) for job in jobs)
        and changed_input({"inputs": inputs}, {"even": volumes[0], "odd": volumes[1]}) is None
    )
