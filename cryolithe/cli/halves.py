"""Even and odd halves of a tilt series: two reconstructions, their average, and where they agree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from cryolithe.evaluation.comparing import VOXEL_SIZE_TOLERANCE
from cryolithe.evaluation.half_images import doubts_of_halves
from cryolithe.evaluation.half_whole import all_frames, doubts_of_whole
from cryolithe.evaluation.halves import open_half, spectra_bytes, write_agreement, write_average
from cryolithe.formats import read_mrc
from cryolithe.formats.alignment.alignments import format_of_table
from cryolithe.formats.files import refuse_existing
from cryolithe.formats.record import read_record_beside
from cryolithe.formats.series_names import without_half
from cryolithe.metrics import fourier_shell_correlation, mean_correlation
from cryolithe.reconstruction.jobs.job import Job
from cryolithe.reconstruction.jobs.made_before import is_record_of
from cryolithe.reconstruction.jobs.sources import ODD
from cryolithe.reconstruction.output.outputs import drop_maps, drop_preview
from cryolithe.report.figures import plot_fsc
from cryolithe.report.json_files import write_json

AVERAGE = "average of two halves"
ALL_FRAMES = "all frames together"


def default_output(even: Path) -> Path:
    """``<base>_rec.mrc`` beside the even stack, without what its name says of halves."""
    stem = Path(even.name.removesuffix(".gz").removesuffix(".bz2")).stem
    return even.with_name(f"{without_half(stem)}_rec.mrc")


def volumes_beside(whole: Path) -> tuple[Path, Path]:
    """Where the volumes of the halves lie: ``<whole>_EVN.mrc`` and ``<whole>_ODD.mrc``.

    Raises:
        OutputError: if the whole is not called an MRC file.
    """
    if whole.suffix != ".mrc":
        raise OutputError(f"{whole}: halves are written as MRC only; give a name ending in .mrc with -o")
    return whole.with_name(f"{whole.stem}_EVN.mrc"), whole.with_name(f"{whole.stem}_ODD.mrc")


def check_stacks(
    stacks: tuple[Path, Path],
    whole: Path | None = None,
    pixel_size: float | None = None,
    left_out: Collection[int] = (),
    to_learn: bool = False,
) -> tuple[str, ...]:
    """Refuse stacks that are no two halves of one series, or not of this one.

    Args:
        stacks: of even and of odd frames.
        whole: of all frames, or None.
        pixel_size: that the user gave for all of them, in place of those in the headers.
        left_out: numbers, from 1, of images that are not used.
        to_learn: one half is to be foretold from the other, which noise in common would spoil.

    Returns:
        what was warned of.

    Raises:
        InputError: says what differs.
    """
    even, odd = stacks
    table = next((path for path in stacks if format_of_table(path)), None)
    if table is not None:
        raise InputError(
            f"{table} is a table; halves of the frames are stacks, with one alignment for both: write those that it "
            f"names with cryolithe halves {table} -o FOLDER, and give --star {table} beside them"
        )
    images = [read_mrc(path).data for path in stacks]
    shapes = [stack.shape for stack in images]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{even} holds {' x '.join(map(str, shapes[0]))} pixels (tilts, y, x) but {odd} "
            f"{' x '.join(map(str, shapes[1]))}; give the halves of one series"
        )
    # Headers tell programs and dates: only the pixels say whether images are the same.
    if even.samefile(odd) or all(np.array_equal(a, b) for a, b in zip(*images, strict=True)):
        raise InputError(f"{even} and {odd} are the same images; give the two halves of the frames")
    if whole is not None and (shape := read_mrc(whole).data.shape) != shapes[0]:
        raise InputError(
            f"{whole} holds {' x '.join(map(str, shape))} pixels (tilts, y, x) but its half {even} "
            f"{' x '.join(map(str, shapes[0]))}; give the halves of this series"
        )
    if pixel_size is None:
        _check_pixel_sizes((*stacks, *([whole] if whole else [])))
    doubts = doubts_of_halves(images[0], images[1], left_out)
    if doubts.opposite:
        raise InputError(f"{even} and {odd} {doubts.opposite}")
    if doubts.same:
        raise InputError(f"{even} and {odd} {doubts.same}")
    if doubts.learnable and to_learn:
        raise InputError(f"{even} and {odd} {doubts.shared}")
    found = filter(None, (doubts.unlike, doubts.apart, doubts.single, doubts.scaled, doubts.shared))
    warnings = tuple(f"{even.name} and {odd.name} {doubt}" for doubt in found)
    if whole is not None:
        warnings += _checked_whole(whole, dict(zip(stacks, images, strict=True)), left_out, bool(doubts.unlike))
    for warning in warnings:
        say(f"Warning: {warning}", err=True)
    return warnings


def _checked_whole(
    whole: Path, halves: dict[Path, NDArray[Any]], left_out: Collection[int], unlike: bool
) -> tuple[str, ...]:
    """Refuse a stack that is not that of all frames of the halves; what was warned of.

    Args:
        whole: the stack.
        halves: their images by their files.
        left_out: numbers, from 1, of images that are not used.
        unlike: of the halves, one belongs elsewhere: which of them does not matter.
    """
    images = read_mrc(whole).data
    for path, half in halves.items():
        if path.samefile(whole) or all(np.array_equal(a, b) for a, b in zip(half, images, strict=True)):
            raise InputError(
                f"{whole} holds the images of one half, {path}; give the stack of all frames, or leave TILTS out"
            )
    frames = all_frames(images, left_out)
    for path, half in halves.items():
        found = doubts_of_whole(half, frames)
        if found.other and not unlike:
            raise InputError(f"{path} and {whole} {found.other}")
        if doubt := found.other or found.doubtful:  # of both halves mostly the same
            return (f"{path.name} and {whole.name} {doubt}",)
    return ()


def _check_pixel_sizes(stacks: Sequence[Path]) -> None:
    """Refuse stacks whose headers tell of different pixels."""
    told = {path: size for path in stacks if (size := read_mrc(path).voxel_size_angstrom)}
    for path, size in told.items():
        first = next(iter(told))
        if abs(size / told[first] - 1) > VOXEL_SIZE_TOLERANCE:
            raise InputError(
                f"{first} has pixels of {told[first]:g} Å but {path} of {size:g} Å; give stacks of one binning, or the "
                "size of all with --pixel-size"
            )


def _is_unfinished(average: Path) -> bool:
    """Whether an average is one of ours that a run wrote which was cut off before it wrote the record."""
    record = average.with_suffix(".json")
    if record.exists():
        # A network's volume of all frames has the record of its own run until all is done.
        told = read_record_beside(average)
        return is_record_of(record, average) and ODD in told.get("inputs", {}) and "halves" not in told
    if not average.is_file():
        return False
    try:
        return any(label.startswith("CryoLithe") and AVERAGE in label for label in read_mrc(average).labels)
    except InputError:
        return False


def _beside(average: Path) -> tuple[Path, Path, Path]:
    """The map of local agreement, the figure of the FSC and the record of an average."""
    confidence, plot = (average.with_name(f"{average.stem}_{name}") for name in ("confidence.mrc", "fsc.png"))
    return confidence, plot, average.with_suffix(".json")


def check_average(average: Path, overwrite: bool) -> None:
    """Refuse an average whose files are there already; an unfinished one of ours is none.

    Raises:
        OutputError: if one is, and is not to be replaced.
    """
    overwrite = overwrite or _is_unfinished(average)
    for path in (average, *_beside(average)):
        refuse_existing(path, overwrite)


def reconstruct_halves(
    stacks: tuple[Path, Path],
    average: Path,
    overwrite: bool,
    reconstruct: Callable[[Job], str],
    job_of: Callable[[Path, Path], Job],
    whole: Job | None,
    memory_bytes: int,
) -> None:
    """Reconstruct both halves, then write their average, FSC (JSON and PNG) and a map of local agreement.

    A network makes more of all frames at once than of two halves of them (benchmarks/LOG.md): its volume of all frames
    takes the place of the average.

    Args:
        stacks: even and odd, see `check_stacks`.
        average: to write; the others' names are made of it.
        overwrite: replace what is there.
        reconstruct: makes one volume -> a line that tells of it.
        job_of: what it does then: (stack, output) -> files and settings.
        whole: what makes the volume of all frames, under the name of the average; None to average.
        memory_bytes: that comparing the halves may use, about: spectra that are larger lie in a file meanwhile.

    Raises:
        OutputError: if something is in the way.
    """
    volumes = volumes_beside(average)
    confidence, plot, record = _beside(average)
    jobs = [job_of(stack, volume) for stack, volume in zip(stacks, volumes, strict=True)]
    if not overwrite and average_is_done(average, volumes, (confidence, plot), jobs):
        say(f"{average}: already done with these inputs and settings")
        return
    check_average(average, overwrite)
    overwrite = overwrite or _is_unfinished(average)
    for job in jobs:
        say(reconstruct(job))
    pair = open_half(volumes[0]), open_half(volumes[1])
    a, b = (half.volume for half in pair)
    voxel = a.voxel_size_angstrom
    drop_maps(average)
    if whole is None:
        drop_preview(average.with_suffix(".png"))
        scaling, cut = write_average(pair, average, f"CryoLithe {__version__} {AVERAGE}", overwrite)
        if cut:
            say(cut, err=True)
    else:
        say(reconstruct(whole))
        scaling = {key: value for key, value in read_record_beside(average)["volume"].items() if key == "scaling"}
    scratch = average.parent if spectra_bytes(a.voxels.shape) > memory_bytes else None
    curve = fourier_shell_correlation(a.voxels, b.voxels, scratch=scratch)
    label = f"CryoLithe {__version__} local correlation of two halves"
    agreement = write_agreement(pair, confidence, label, overwrite, memory_bytes)
    network = jobs[0].settings.method == "network"
    data = back_projected(jobs, voxel) if network else None
    extra = {"back-projections": data["fsc"]} if data else None
    plot_fsc(plot, curve, voxel, title=average.stem, extra_curves=extra)
    found = resolutions(curve, voxel)
    shown = {
        "fsc": curve,
        "fsc_mean": mean_correlation(curve.total),
        "resolution": found,
        "back_projection": data,
        "confidence": {"path": confidence.name, **agreement.__dict__},
        "notes": [SHARED_PRIOR] if network else [],
    }
    made = "average of halves" if whole is None else ALL_FRAMES
    write_json(record, average_record((average, made), volumes, scaling, shown))
    what = "average of the halves," if whole is None else "of all frames; of its halves"
    say(f"{average}: {what} {told(found['0.5'])}; agreement in {confidence.name}, record in {record.name}")
    if data:
        say(f"Back-projections of the same halves: {told(data['resolution']['0.5'])}. {SHARED_PRIOR}")
