"""Some of the images of a series: what is known of the whole, with the rows of these images.

Files tell of the images of a whole stack, by their number or angle. So a whole series is resolved first, but for the
images that the user leaves out, and a part of it is taken from what was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from cryolithe.alignment import Alignment
from cryolithe.errors import SettingsError
from cryolithe.reconstruction.images.correcting import Corrections
from cryolithe.reconstruction.images.preparation import Preparation
from cryolithe.tilts import TiltSeries

if TYPE_CHECKING:
    from cryolithe.reconstruction.jobs.job import ResolvedJob

_T = TypeVar("_T")


def without_excluded(run: ResolvedJob) -> ResolvedJob:
    """A run without the images that ``exclude`` names: files need not tell of them, no more than of a program's own.

    Raises:
        SettingsError: if ``exclude`` names images that the stack has not, or all that its files use.
    """
    settings = run.job.settings
    excluded = settings.excluded
    alone = [number for number in excluded if number > run.alignment.sections]
    if alone:
        raise SettingsError(
            f"--exclude {settings.exclude}: {run.job.tilts} has no image {min(alone)}; expected numbers from 1 to "
            f"{run.alignment.sections}"
        )
    numbers = [number for number, image in enumerate(run.alignment.images) if image.section + 1 not in excluded]
    if not numbers:
        raise _none_left(run)
    return _of_images(run, numbers)


def wanted_part(run: ResolvedJob) -> ResolvedJob:
    """A run of those images of its stack that a job names, with what was found for the whole.

    Raises:
        SettingsError: if ``exclude`` leaves none of them.
    """
    sections = run.job.sections
    images = run.alignment.images
    numbers = [number for number, image in enumerate(images) if sections is None or image.section in sections]
    if not numbers:
        raise _none_left(run)
    return _of_images(run, numbers)


def _none_left(run: ResolvedJob) -> SettingsError:
    return SettingsError(f"--exclude {run.job.settings.exclude} leaves no image of {run.job.tilts}; name fewer")


def _of_images(run: ResolvedJob, numbers: Sequence[int]) -> ResolvedJob:
    """A run of images by their numbers."""
    if len(numbers) == len(run.alignment.images):
        return run
    return replace(
        run,
        series=series_of(run.series, numbers),
        alignment=alignment_of(run.alignment, numbers),
        preparation=preparation_of(run.preparation, numbers),
        facts=replace(run.facts, known=run.facts.known.of_images(numbers)),
        corrections=corrections_of(run.corrections, numbers),
    )


def alignment_of(alignment: Alignment, numbers: Sequence[int]) -> Alignment:
    """The alignment of images by their numbers; the others count as left out, with their angles."""
    others = [image for number, image in enumerate(alignment.images) if number not in numbers]
    left_out = (*alignment.left_out_deg, *((image.section, image.angle_deg) for image in others))
    kept = alignment.kept or tuple(image.section for image in alignment.images)
    return replace(alignment, images=_of(alignment.images, numbers), left_out_deg=left_out, kept=kept)


def series_of(series: TiltSeries, numbers: Sequence[int]) -> TiltSeries:
    """The series of images by their numbers; none is copied."""
    sections = tuple(map(series.section, numbers))
    return replace(series, geometry=series.geometry.select(list(numbers)), sections=sections)


def preparation_of(preparation: Preparation, numbers: Sequence[int]) -> Preparation:
    """How images are prepared, by their numbers."""
    shifts = preparation.shifts
    return replace(
        preparation,
        views=None if preparation.views is None else _of(preparation.views, numbers),
        corrections=None if preparation.corrections is None else _of(preparation.corrections, numbers),
        shifts=None if shifts is None else shifts.select(list(numbers)),
    )


def corrections_of(made: Corrections, numbers: Sequence[int]) -> Corrections:
    """What is done to images by their numbers; the mean defocus stays that of the series."""
    images = None if made.images is None else _of(made.images, numbers)
    record: dict[str, Any] | None = None
    if made.record is not None:
        record = {what: dict(told) for what, told in made.record.items()}
        for what, column in (("ctf", "images"), ("dose_weight", "exposures")):
            if what in record:
                record[what][column] = list(_of(record[what][column], numbers))
    return replace(made, images=images, record=record)


def _of(values: Sequence[_T], numbers: Sequence[int]) -> tuple[_T, ...]:
    return tuple(values[number] for number in numbers)
