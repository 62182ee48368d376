"""What a user gives: halves of a tilt series, or of volumes, and what is known beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cryolithe.comparison.score import shared_frequency_per_px
from cryolithe.comparison.value import Split
from cryolithe.errors import InputError, SettingsError
from cryolithe.formats.reading import Reading
from cryolithe.formats.record import hashed, read_record_beside, record_path
from cryolithe.reconstruction.jobs.job import Job, ResolvedJob, resolve, source_files, with_own_table
from cryolithe.reconstruction.jobs.sources import SourceFiles
from cryolithe.settings import ReconstructSettings

FEWEST_TILTS = 6  # in a series that is split


@dataclass(frozen=True)
class Stack:
    """A stack of images with its angles (None: they stand elsewhere), or some of its images.

    Attributes:
        tilts: the stack.
        angles: of all its images.
        sections: the images that are meant, by their numbers from 0; None for all. Tables that go with the stack tell
            of all images, so that no stack of these alone is written.
    """

    tilts: Path
    angles: Path | None
    sections: tuple[int, ...] | None = None


@dataclass(frozen=True)
class SeriesSource:
    """A tilt series.

    Attributes:
        halves: two stacks.
        whole: the stack of all images, or None: the mean of what is made of the halves stands for it.
        settings: of the reconstruction; method and model are set for each method.
        split: of the halves.
        increment_deg: between neighbouring tilts of the whole series.
        name: of the series, as tables of particles may name it.
        reading: what is parsed already.
    """

    halves: tuple[Stack, Stack]
    whole: Stack | None
    settings: ReconstructSettings
    split: Split
    increment_deg: float
    name: str
    reading: Reading = field(default_factory=Reading, repr=False, compare=False)

    @property
    def stacks(self) -> dict[str, Stack]:
        """The stacks that are files of their own, by what they are."""
        halves = {"half1": self.halves[0], "half2": self.halves[1]} if self.split == "frames" else {}
        return halves | ({"whole": self.whole} if self.whole else {})

    @property
    def files(self) -> dict[str, Path]:
        """The files that a user named for the series, by what they are."""
        found = {name: stack.tilts for name, stack in self.stacks.items()}
        found |= {f"{name} angles": stack.angles for name, stack in self.stacks.items() if stack.angles is not None}
        return found | {name: Path(path) for name, path in self.settings.alignment_files.items()}

    def hashes(self) -> dict[str, str]:
        """SHA-256 of all files that decide what is made, models left out: also of defocus and doses, found beside."""
        found = self._sources()
        return {f"{name} {what}": digest for name, files in found.items() for what, digest in files.hashes().items()}

    def hashed_files(self) -> dict[str, Path]:
        """The files of `hashes`."""
        return {f"{name} {what}": path for name, found in self._sources().items() for what, path in found.files.items()}

    def _sources(self) -> dict[str, SourceFiles]:
        places = {name: stack.tilts.with_name("none.mrc") for name, stack in self.stacks.items()}
        return {name: source_files(self.job(stack, places[name], "fbp")) for name, stack in self.stacks.items()}

    def job(self, stack: Stack, output: Path, method: str, model: str | None = None) -> Job:
        """The reconstruction of a stack by a method; maps are made of what a network makes of the whole series."""
        maps = self.settings.confidence and model is not None and stack == self.whole
        changed: dict[str, object] = {"method": method, "overwrite": False, "confidence": maps}
        if model is not None:
            changed["model"] = model
        settings = self.settings.model_copy(update=changed)
        return Job(stack.tilts, stack.angles, output, settings, sections=stack.sections, reading=self.reading)

    def resolved(self, stack: Stack | None = None, method: str = "fbp", model: str | None = None) -> ResolvedJob:
        """What is known of a reconstruction before it begins."""
        stack = stack or self.whole or self.halves[0]
        return resolve(self.job(stack, stack.tilts.with_name("none.mrc"), method, model))


@dataclass(frozen=True)
class VolumeSource:
    """Two half volumes of any program.

    Attributes:
        halves: their files.
        name: of the tomogram, as tables of particles may name it.
    """

    halves: tuple[Path, Path]
    name: str

    @property
    def files(self) -> dict[str, Path]:
        """All files, by what they are."""
        return {"half1": self.halves[0], "half2": self.halves[1]}

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files, and of their records, which tell contrast and scale."""
        return {name: entry["sha256"] for name, entry in hashed(self.hashed_files()).items()}

    def hashed_files(self) -> dict[str, Path]:
        """The files of `hashes`."""
        records = {f"{name} record": record_path(path) for name, path in self.files.items() if read_record_beside(path)}
        return {**self.files, **records}


Source = SeriesSource | VolumeSource


def series_of_halves(
    halves: tuple[Path, Path], whole: Path | None, angles: Path | None, settings: ReconstructSettings
) -> SeriesSource:
    """A series whose frames were split.

    Args:
        halves: stacks of even and of odd frames.
        whole: stack of all frames, or None.
        angles: of all of them, or None where the alignment brings them.
        settings: of the reconstruction.

    Raises:
        CryoLitheError: if they cannot be read.
    """
    source = SeriesSource(
        (Stack(halves[0], angles), Stack(halves[1], angles)),
        None if whole is None else Stack(whole, angles),
        settings,
        "frames",
        0.0,
        (whole or halves[0]).name,
    )
    found = source.resolved()
    return SeriesSource(
        source.halves, source.whole, settings, "frames", _increment_deg(found.series.geometry.angles_deg), source.name,
        source.reading,
    )  # fmt: skip


def series_of_tilts(tilts: Path, angles: Path | None, settings: ReconstructSettings) -> SeriesSource:
    """A series of which every other tilt, in the order of angles, becomes a half.

    Args:
        tilts: aligned stack, or a raw one with what aligns it in the settings, or a table of images.
        angles: its tilt angles, or None where the alignment brings them.
        settings: of the reconstruction.

    Raises:
        InputError: if there are too few tilts, or the files cannot be read.
        SettingsError: if nothing brings angles.
    """
    settings = with_own_table(tilts, settings)
    if angles is None and not settings.alignment_files:
        raise SettingsError(
            f"give ANGLES beside {tilts}, whose tilts are split into halves; or give the halves of its frames (--even, "
            "--odd), or half volumes (--half1, --half2)"
        )
    whole, reading = Stack(tilts, angles), Reading()
    of_all = SeriesSource((whole, whole), whole, settings, "tilts", 0.0, tilts.name, reading)
    images = of_all.resolved().alignment.images
    if len(images) < FEWEST_TILTS:
        raise InputError(f"{tilts} has {len(images)} tilts; expected {FEWEST_TILTS} or more to split them into halves")
    known = tuple(image.angle_deg for image in images)
    order = np.argsort(np.array(known), kind="stable")
    first, second = (
        Stack(tilts, angles, tuple(sorted(images[int(number)].section for number in order[half::2]))) for half in (0, 1)
    )
    return SeriesSource((first, second), whole, settings, "tilts", _increment_deg(known), tilts.name, reading)


def shared_per_px(source: Source, depth: int) -> float | None:
    """Frequency up to which the halves hold the same information, cycles/pixel; None for all.

    Args:
        source: what the user gave.
        depth: of the volume, voxels.
    """
    if isinstance(source, VolumeSource) or source.split != "tilts":
        return None
    return shared_frequency_per_px(source.increment_deg, depth)


def _increment_deg(angles: tuple[float, ...]) -> float:
    """Between neighbouring tilts: the median, which gaps do not change."""
    return float(np.median(np.diff(np.sort(np.array(angles)))))
