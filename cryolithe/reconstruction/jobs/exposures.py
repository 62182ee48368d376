"""Doses and defocus of a series: by options, else by files that are read anyway; found once for all that use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from cryolithe.errors import FileFormatError, InputError, SettingsError
from cryolithe.formats.image_rows import NOTHING_ELSE, Others
from cryolithe.formats.microscope.doses import (
    Exposures,
    doses_beside,
    exposures_in_passing,
    is_acquired,
    read_exposures,
)
from cryolithe.formats.microscope.treated import weighted_doses
from cryolithe.formats.reading import Reading
from cryolithe.settings import ReconstructSettings
from cryolithe.tilts import TiltSeries

T = TypeVar("T")
# Numbers of an option and a file that differ by less say the same.
SAME_DEFOCUS_UM, SAME_SHARE = 0.3, 0.1


@dataclass(frozen=True)
class SeriesFiles:
    """Files of a series that may tell something.

    Attributes:
        tilts: the stack.
        angles: its angle file, or None.
        series: its images that are used, and the labels of its header.
        angles_deg: of these images, as their files have them: not mirrored.
        reading: what is parsed already.
        others: angles of images that the alignment leaves out, as far as they are known, and its offset.
    """

    tilts: Path
    angles: Path | None
    series: TiltSeries
    angles_deg: tuple[float, ...]
    reading: Reading
    others: Others = NOTHING_ELSE


@dataclass(frozen=True)
class ToldValue(Generic[T]):
    """A fact.

    Attributes:
        value: None where nothing tells it.
        source: what tells it: an option, or a file's name.
        notes: what is not certain of it, or why what a file tells cannot be taken.
    """

    value: T | None = None
    source: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ToldExposures:
    """What is told of the exposures of a series.

    Attributes:
        doses: before each image, e/Å².
        defocus_um: the mean, positive when underfocused.
        frame_weights: what says that the frames of each image were weighed; else empty.
    """

    doses: ToldValue[tuple[float, ...]] = field(default_factory=ToldValue)
    defocus_um: ToldValue[float] = field(default_factory=ToldValue)
    frame_weights: str = ""


NO_EXPOSURES = ToldExposures()
_Passing = Sequence[tuple[Path, Exposures]]


def told_exposures(files: SeriesFiles, settings: ReconstructSettings, taken: Sequence[str]) -> ToldExposures:
    """Gather what is told of "dose" and "defocus".

    Args:
        files: of the series.
        settings: with what the user tells.
        taken: facts that a model takes; doses are wanted for --dose-weight, too.

    Raises:
        SettingsError: if an option and a file disagree, or doses have been weighed already.
        InputError: if the file of --dose cannot be read or does not tell the doses of these images, or doses are to be
            weighed by a file that cannot be read.
    """
    wanted = {"dose", "defocus"} & {*taken, *(["dose"] if settings.dose_weight else [])}
    if not wanted:
        return NO_EXPOSURES
    frame_weights = _frame_weights(files) if settings.dose_weight else ""
    asked = _doses_of_option(files, settings.dose) if settings.dose is not None and "dose" in wanted else None
    # Files that the run reads anyway; most tell no exposures.
    named = [*([] if files.angles is None else [files.angles]), *settings.alignment_files.values()]
    if settings.dose_weight and settings.dose is None:
        beside = doses_beside(files.tilts, named, files.reading)
        named += [beside] if beside else []
    passing = [
        (path, exposures_in_passing(path, files.tilts, files.reading)) for path in sorted(named, key=is_acquired)
    ]
    return ToldExposures(
        _doses(files, settings, asked, passing) if "dose" in wanted else ToldValue(),
        _defocus(settings.defocus, passing) if "defocus" in wanted else ToldValue(),
        frame_weights,
    )


def _frame_weights(files: SeriesFiles) -> str:
    """What says that the frames of each image were weighed, which is not what is done here; else empty.

    Raises:
        SettingsError: if the images were, and must not be once more.
    """
    weighted, who = weighted_doses(files.tilts, files.series.labels)
    if weighted:
        raise SettingsError(
            f"--dose-weight: {who} says that the images are weighed by dose already, and twice is too much; leave it "
            "out, or give the stack before mtffilter"
        )
    return who


def _doses_of_option(files: SeriesFiles, path: str) -> ToldValue[tuple[float, ...]]:
    told = read_exposures(path, files.tilts, files.reading)
    if told.dose_problem:
        raise FileFormatError(told.dose_problem)
    doses = told.of_images(files.angles_deg, files.others)
    if doses is None:
        raise InputError(
            f"--dose {path} does not tell the doses of these {len(files.angles_deg)} images: "
            f"{_other_images(path, told, files)}, or leave --dose out"
        )
    return ToldValue(doses, f"--dose {Path(path).name}", told.doubt(Path(path), files.angles_deg, files.others))


def _doses(
    files: SeriesFiles, settings: ReconstructSettings, asked: ToldValue[tuple[float, ...]] | None, passing: _Passing
) -> ToldValue[tuple[float, ...]]:
    """Doses of the option, else of the first file that tells those of these images."""
    made, problem, who = asked, "", f"--dose {settings.dose}"
    for path, told in passing:
        problem = told.dose_problem or problem
        found = told.of_images(files.angles_deg, files.others)
        if found is None:
            problem = problem or (_other_images(path, told, files) if told.doses else "")
        elif made is None:
            made, who = ToldValue(found, path.name, told.doubt(path, files.angles_deg, files.others)), str(path)
        # AreTomo3 may have been told other doses than the microscope wrote.
        elif made.value is not None and not is_acquired(path) and _differ(made.value, found):
            most = int(np.argmax(np.abs(np.subtract(made.value, found))))
            number = (files.others.used or range(len(found)))[most] + 1
            raise SettingsError(
                f"{who} says {made.value[most]:.3g} e/Å² before image {number}, {path} says {found[most]:.3g}; give "
                f"one of them{''.join(f' ({note})' for note in made.notes)}"
            )
    if made is None and problem and settings.dose_weight:
        raise FileFormatError(problem)
    return made or ToldValue(notes=_taken_for_not_told("dose", problem))


def _defocus(asked_um: float | None, passing: _Passing) -> ToldValue[float]:
    """The defocus of the option, else of the first file that tells one."""
    made, problem = None if asked_um is None else ToldValue(asked_um, "--defocus"), ""
    for path, told in passing:
        problem = told.defocus_problem or problem
        if told.defocus_um is None:
            continue
        limit = max(SAME_DEFOCUS_UM, SAME_SHARE * abs(told.defocus_um))
        if asked_um is not None and abs(asked_um - told.defocus_um) > limit:
            raise SettingsError(
                f"--defocus {asked_um:g} µm, but {path} says {told.defocus_um:.2f} µm; leave --defocus out"
            )
        made = made or ToldValue(told.defocus_um, path.name)
    return made or ToldValue(notes=_taken_for_not_told("defocus", problem))


def _taken_for_not_told(name: str, problem: str) -> tuple[str, ...]:
    return (f"the {name} is taken for not told: {problem}",) if problem else ()


def _other_images(path: Path | str, told: Exposures, files: SeriesFiles) -> str:
    """Why a file tells the doses of other images, or of unknown ones."""
    theirs, ours = told.angles_deg, files.angles_deg
    if not told.doses:
        return f"{path} tells none; give a file with one for each, at its tilt angle"
    return (
        f"{path} has {len(theirs)} of {min(theirs):g}° to {max(theirs):g}°, and which of them these {len(ours)} of "
        f"{min(ours):g}° to {max(ours):g}° are is not told by their angles; give the file of this series and of its "
        "very images"
    )


def _differ(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether doses are not the same: files count up to one image's own exposure more or less."""
    steps = np.diff(np.sort(b))
    limit = SAME_SHARE * max(b) + 1.5 * float(steps.max(initial=0.0))
    return bool(np.abs(np.subtract(a, b)).max() > limit)
