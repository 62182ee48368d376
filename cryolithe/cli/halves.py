"""Even and odd halves of a tilt series: two reconstructions, their average, and where they agree."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cryolithe import __version__
from cryolithe.cli.half_record import (
    SHARED_PRIOR,
    average_is_done,
    average_record,
    back_projected,
    resolutions,
    told,
)
from cryolithe.cli.plain import say
from cryolithe.errors import InputError, OutputError
from cryolithe.evaluation.local import agreement_map, summarise, window_sigma_px
from cryolithe.formats import read_mrc, read_volume, write_volume
from cryolithe.hashing import file_sha256
from cryolithe.metrics import fourier_shell_correlation, mean_correlation
from cryolithe.reconstruct.job import Job
from cryolithe.report import plot_fsc, write_json
from cryolithe.volume import Volume

# How programs end the names of halves.
_ENDING = re.compile(r"[_-](evn|even|odd|half1|half2)$", re.IGNORECASE)


def default_output(even: Path) -> Path:
    """``<base>_rec.mrc`` beside the even stack, without what its name says of halves."""
    stem = Path(even.name.removesuffix(".gz").removesuffix(".bz2")).stem
    return even.with_name(f"{_ENDING.sub('', stem)}_rec.mrc")


def reconstruct_halves(
    stacks: tuple[Path, Path],
    output: Path | None,
    overwrite: bool,
    reconstruct: Callable[[Path, Path], str],
    job_of: Callable[[Path, Path], Job],
) -> None:
    """Reconstruct both halves, then write their average, FSC (JSON and PNG) and a map of local agreement.

    Args:
        stacks: even and odd.
        output: of the average, or None for its default name; the others' names are made of it.
        overwrite: replace what is there.
        reconstruct: makes one volume, (stack, output) -> a line that tells of it.
        job_of: what it does then: (stack, output) -> files and settings.

    Raises:
        InputError: if the stacks are no two halves of one series.
        OutputError: if something is in the way.
    """
    even, odd = stacks
    shapes = [read_mrc(path).data.shape for path in stacks]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{even} holds {' x '.join(map(str, shapes[0]))} pixels (tilts, y, x) but {odd} "
            f"{' x '.join(map(str, shapes[1]))}; give the halves of one series"
        )
    if even.samefile(odd) or file_sha256(even) == file_sha256(odd):
        raise InputError(f"{even} and {odd} are the same images; give the two halves of the frames")
    average = output or default_output(even)
    if average.suffix != ".mrc":
        raise OutputError(f"{average}: give a name ending in .mrc with -o")
    volumes = average.with_name(f"{average.stem}_EVN.mrc"), average.with_name(f"{average.stem}_ODD.mrc")
    confidence, plot = (average.with_name(f"{average.stem}_{name}") for name in ("confidence.mrc", "fsc.png"))
    record = average.with_suffix(".json")
    jobs = [job_of(stack, volume) for stack, volume in zip(stacks, volumes, strict=True)]
    if not overwrite and average_is_done(average, volumes, (confidence, plot), jobs):
        say(f"{average}: already done with these inputs and settings")
        return
    for path in (average, confidence, plot, record):
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists; give --overwrite to replace it or another name with -o")
    for stack, volume in zip(stacks, volumes, strict=True):
        say(reconstruct(stack, volume))
    a, b = (read_volume(path) for path in volumes)
    mean = (np.asarray(a.voxels, dtype=np.float32) + np.asarray(b.voxels, dtype=np.float32)) / np.float32(2)
    label = f"CryoLithe {__version__} average of two halves"
    write_volume(average, Volume(mean, a.voxel_size_angstrom), label=label, dtype=a.voxels.dtype, overwrite=overwrite)
    del mean
    curve = fourier_shell_correlation(a.voxels, b.voxels)
    sigma = window_sigma_px(a.voxels.shape)
    agreement = agreement_map(a.voxels, b.voxels, sigma)
    write_volume(
        confidence,
        Volume(agreement, a.voxel_size_angstrom),
        label=f"CryoLithe {__version__} local correlation of two halves",
        overwrite=overwrite,
    )
    network = jobs[0].settings.method == "network"
    data = back_projected(jobs, a.voxel_size_angstrom) if network else None
    extra = {"back-projections": data["fsc"]} if data else None
    plot_fsc(plot, curve, a.voxel_size_angstrom, title=average.stem, extra_curves=extra)
    found = resolutions(curve, a.voxel_size_angstrom)
    shown = {
        "fsc": curve,
        "fsc_mean": mean_correlation(curve.total),
        "resolution": found,
        "back_projection": data,
        "confidence": {"path": confidence.name, **summarise(agreement, sigma).__dict__},
        "notes": [SHARED_PRIOR] if network else [],
    }
    write_json(record, average_record(average, volumes, {}, shown))
    where = f"agreement in {confidence.name}, record in {record.name}"
    say(f"{average}: average of the halves, {told(found['0.5'])}; {where}")
    if data:
        say(f"Back-projections of the same halves: {told(data['resolution']['0.5'])}. {SHARED_PRIOR}")
