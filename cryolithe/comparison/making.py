"""Making what is compared: each method in a folder of its own, kept, so that what is done is not done again."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryolithe import __version__
from cryolithe.comparison.gaussian import best_sigma_px, shell_gaussian
from cryolithe.comparison.sources import SeriesSource, Source, VolumeSource
from cryolithe.comparison.upright import is_upright, write_upright
from cryolithe.comparison.value import Candidate, Sure
from cryolithe.comparison.wishes import Wish
from cryolithe.denoising.job import Given
from cryolithe.denoising.methods import METHODS
from cryolithe.denoising.run import denoise
from cryolithe.errors import InputError, SettingsError
from cryolithe.evaluation.halves import open_half, write_average
from cryolithe.evaluation.matching import ROTATIONS
from cryolithe.files.hashing import file_sha256
from cryolithe.formats.reading import changed_error
from cryolithe.formats.record import read_record_beside
from cryolithe.formats.volumes.volume_file import open_volume_file
from cryolithe.machine.device import choose_device, choose_precision
from cryolithe.models import find_model
from cryolithe.optimise.distributed import Place
from cryolithe.optimise.step import trainable
from cryolithe.reconstruction.confidence.members import MEMBERS
from cryolithe.reconstruction.ensemble import check_confidence
from cryolithe.reconstruction.estimate import expected_seconds
from cryolithe.reconstruction.evidence.optics_evidence import OpticsEvidence
from cryolithe.reconstruction.evidence.polarity import Evidence
from cryolithe.reconstruction.jobs.job import MAP_KINDS, already_done
from cryolithe.reconstruction.run import reconstruct
from cryolithe.reconstruction.setup.asked_optics import optics_of_parts
from cryolithe.reconstruction.setup.fitting import fit
from cryolithe.reconstruction.setup.looking import evidence_of_parts
from cryolithe.work.folder import WorkFolder
from cryolithe.work.watcher import Silent, Watcher

Array = NDArray[Any]
# Settings of a reconstruction on which its voxels do not depend.
_FREE = {"overwrite", "max_memory", "confidence"}
# Beside a network's volumes, for --confidence: of its four further runs, and the maps.
VOLUMES_OF_MAPS = MEMBERS + len(MAP_KINDS)
PARTS = ("half1", "half2", "whole")
_LEARNED = "learned.mrc"  # both halves by a network that learned from them: no half of it is denoised alone
# Voxels that the general network denoises in a second on one core, and Samba's share of time beside its training.
_GENERAL_VOXELS_PER_SECOND = 60_000.0
_GPU_TIMES = 50.0
_SAMBA_BESIDE_TRAINING = 2.0
# Seconds of one core for each voxel: transforms and sums of a method's scores; one orientation of a template.
_SCORING_SECONDS, _MATCHING_SECONDS = 4e-6, 1.2e-7


@dataclass(frozen=True)
class Done:
    """A method whose volumes are there.

    Attributes:
        method: its name.
        key: of what they were made of and how.
        seconds: that it took.
        files: SHA-256 of what is read of its folder, by name.
    """

    method: str
    key: str
    seconds: float
    files: dict[str, str]


@dataclass(frozen=True)
class Choices:
    """What decides the volumes beside the source.

    Attributes:
        train_minutes: of each denoiser that learns.
        device: name of the device.
        precision: of networks, a name.
        seed: of trainings.
    """

    train_minutes: float
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0


class Workshop:
    """Makes candidates, and keeps their volumes.

    Args:
        source: what the user gave.
        choices: how.
        folder: working folder, locked.
        watcher: is told.
    """

    def __init__(self, source: Source, choices: Choices, folder: WorkFolder[Done], watcher: Watcher) -> None:
        self._source, self._choices, self._folder, self._watcher = source, choices, folder, watcher
        self._hashes, self._files = source.hashes(), source.hashed_files()
        self._evidence: Evidence | None = None
        self._optics: OpticsEvidence | None = None
        if folder.plan is None:
            folder.begin({"program": "CryoLithe compare", "version": __version__})

    def candidates(self, wishes: Sequence[Wish]) -> Iterator[Candidate]:
        """Make methods one by one, the raw one first."""
        for number, wish in enumerate(wishes, start=1):
            self._watcher.note(f"[{number}/{len(wishes)}] {wish.title}")
            yield self.candidate(wish)

    def candidate(self, wish: Wish) -> Candidate:
        """What a method makes; read where it was made before.

        Raises:
            CryoLitheError: for everything that the user can mend.
        """
        if wish.by == "gaussian":
            return self._gaussian(wish)
        place = self._folder.path / _folder_name(wish)
        seconds = self._seconds(wish, place)
        if wish.by == "fbp":
            first, second = (_voxels(path) for path in self._raw()[:2])
        else:
            first, second = (_voxels(place / f"{part}.mrc") for part in PARTS[:2])
        whole = _voxels(place / "whole.mrc")
        sure = _sure(place / "whole.mrc") if wish.by == "model" and self._source_maps else None
        return Candidate(wish.name, wish.title, wish.kind, first, second, whole, seconds, _warnings(place), sure)

    @property
    def _source_maps(self) -> bool:
        return isinstance(self._source, SeriesSource) and self._source.settings.confidence

    def _seconds(self, wish: Wish, place: Path) -> float:
        """Make the volumes of a method unless they are there; the time that it took."""
        key, mark = self._key(wish), place / "key"
        # A method may have been made otherwise since: what lies in its folder is what its mark tells, whatever else the
        # journal remembers.
        of_this = mark.is_file() and mark.read_text(encoding="utf-8", errors="replace") == key
        entries = self._folder.entries if of_this else []
        known = next((done for done in entries if (done.method, done.key) == (wish.name, key)), None)
        if known is not None:
            there = _file_hashes(place)
            if known.files.items() <= there.items():
                self._watcher.note(f"{wish.title}: made before, in {place}")
                return known.seconds
            self._watcher.note(f"{wish.title}: made anew, as files in {place} are no longer those that were made")
            for name in known.files.keys() & there.keys():
                (place / name).unlink()
        self._folder.keep(lambda done: done.method != wish.name)
        if place.is_dir() and not of_this:
            shutil.rmtree(place)
        place.mkdir(exist_ok=True)
        mark.write_text(key, encoding="utf-8")
        started = time.monotonic()
        self._make(wish, place)
        seconds = round(time.monotonic() - started, 2)
        now = self._source.hashes()
        if now != self._hashes:  # what was made now would be taken for that of the first files
            shutil.rmtree(place)
            names = (name for name in {**self._hashes, **now} if now.get(name) != self._hashes.get(name))
            raise changed_error({**self._source.hashed_files(), **self._files}[next(names)], "it was compared")
        if self._key(wish) != key:
            shutil.rmtree(place)
            raise changed_error(find_model(wish.name), "it was compared")
        self._folder.done(Done(wish.name, key, seconds, _file_hashes(place)))
        return seconds

    def _key(self, wish: Wish) -> str:
        """Hash of all that decides the volumes of a method."""
        told: dict[str, Any] = {"by": wish.by, "inputs": self._hashes, "version": __version__}
        if isinstance(self._source, SeriesSource):
            told["settings"] = self._source.settings.model_dump(mode="json", exclude=_FREE)
        if wish.by == "model":
            told["model"] = file_sha256(find_model(wish.name))
            told |= {"maps": True} if self._source_maps else {}
        if wish.by in ("n2n", "samba"):
            told["training"] = [self._choices.train_minutes, self._choices.seed]
        if wish.by in ("n2n-general", "n2n", "samba"):
            place = self._place()
            told["network"] = [place.device.type, str(place.precision)]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _make(self, wish: Wish, place: Path) -> None:
        if wish.by in ("fbp", "sirt", "model"):
            if isinstance(self._source, SeriesSource):
                self._reconstruct(self._source, wish, place)
            else:
                if not self._as_given:
                    for path, part in zip(self._source.halves, PARTS, strict=False):
                        write_upright(path, place / f"{part}.mrc")
                _average(self._raw()[:2], place / "whole.mrc")
            return
        if wish.by == "n2n-general":
            self._apply("n2n", Path("general"), place)
            return
        raw = self._raw()
        output = place / (_LEARNED if wish.by == "n2n" else f"{PARTS[2]}.mrc")  # Samba learns from the whole
        given = Given(halves=(raw[:2],), output=output) if wish.by == "n2n" else Given((raw[2],), output=output)
        choices = {"train_minutes": self._choices.train_minutes, "seed": self._choices.seed, "resume": True}
        self._denoise(wish.by, given, choices, _Quiet(self._watcher))
        self._apply(wish.by, output.with_suffix(".safetensors"), place)

    def _reconstruct(self, source: SeriesSource, wish: Wish, place: Path) -> None:
        method, model = ("network", wish.name) if wish.by == "model" else (wish.by, None)
        quiet = _Quiet(self._watcher)
        stacks = [*source.halves, *([source.whole] if source.whole else [])]
        for stack, part in zip(stacks, PARTS, strict=False):
            job = source.job(stack, place / f"{part}.mrc", method, model)
            if already_done(job):
                continue
            if wish.by == "model" and part != "whole":
                # Halves are noisier than the series, and must not differ in what they are taken for.
                job = replace(job, evidence=self._seen(source))
            reconstruct(replace(job, optics=self._asked(source)), quiet)
        if source.whole is None:
            _average((place / "half1.mrc", place / "half2.mrc"), place / "whole.mrc")

    def _seen(self, source: SeriesSource) -> Evidence:
        if self._evidence is None:
            runs = [source.resolved(stack) for stack in source.halves]
            self._evidence = evidence_of_parts(runs, self._folder.path)
        return self._evidence

    def _asked(self, source: SeriesSource) -> OpticsEvidence | None:
        """What all images tell of the optics, so that halves are corrected alike."""
        if self._optics is None and source.settings.ctf != "none":
            # Of tilts each half has too few: images that are tilted as far to either side are asked together.
            stacks = source.halves if source.split == "frames" or source.whole is None else (source.whole,)
            self._optics = optics_of_parts([source.resolved(stack) for stack in stacks])
        return self._optics

    def _raw(self) -> tuple[Path, Path, Path]:
        """Files of the raw halves and of the whole."""
        place = self._folder.path / "fbp"
        halves = self._as_given
        first, second = halves or (place / "half1.mrc", place / "half2.mrc")
        return first, second, place / "whole.mrc"

    @property
    def _as_given(self) -> tuple[Path, Path] | None:
        """The half volumes that the user gave, if they can be used as they are; else copies are."""
        if not isinstance(self._source, VolumeSource) or not all(map(is_upright, self._source.halves)):
            return None
        return self._source.halves

    def _apply(self, method: str, model: Path, place: Path) -> None:
        """Denoise each half alone; of Noise2Noise the mean of both is the whole."""
        quiet = _Quiet(self._watcher, warnings=False)
        for path, part in zip(self._raw(), PARTS, strict=True):
            if (place / f"{part}.safetensors") == model:
                continue  # made when the network had learned from it
            if part == "whole" and METHODS[method].of_halves:
                _average((place / "half1.mrc", place / "half2.mrc"), place / "whole.mrc")
                return
            given = Given((path,), output=place / f"{part}.mrc")
            self._denoise(method, given, {"model": model, "resume": True}, quiet)

    def _denoise(self, method: str, given: Given, choices: dict[str, Any], watcher: Watcher) -> None:
        entry = METHODS[method].load()
        denoise(entry, entry.job(given, {**choices, "is_volume": True}), self._place(), watcher)

    def _place(self) -> Place:
        """Where denoisers work, and with which numbers."""
        device = choose_device(self._choices.device)
        return Place(device, trainable(choose_precision(self._choices.precision, device), device))

    def _gaussian(self, wish: Wish) -> Candidate:
        started = time.monotonic()
        first, second, whole = (_voxels(path) for path in self._raw())
        sigma = best_sigma_px(first, second)
        made = [shell_gaussian(volume, sigma) for volume in (first, second, whole)]
        title = f"{wish.title}, σ {sigma:g} px"
        return Candidate(wish.name, title, wish.kind, made[0], made[1], made[2], time.monotonic() - started)


class _Quiet(Silent):
    """Shows progress, and of the notes the warnings, each once.

    Args:
        watcher: who shows them.
        warnings: whether there are any worth showing: none of a half that is denoised by itself, for which they are not
            written.
    """

    def __init__(self, watcher: Watcher, warnings: bool = True) -> None:
        self._watcher, self._warnings = watcher, warnings
        self._told: set[str] = set()

    def note(self, text: str) -> None:
        """Pass a warning on."""
        if self._warnings and text.startswith("Warning") and text not in self._told:
            self._told.add(text)
            self._watcher.note(text)

    def stage(self, name: str, total: float) -> None:
        """Pass it on."""
        self._watcher.stage(name, total)

    def advance(self, amount: float) -> None:
        """Pass it on."""
        self._watcher.advance(amount)


def check_maps(source: Source, wishes: Sequence[Wish]) -> None:
    """Refuse maps of ``--confidence`` that cannot be made.

    Raises:
        SettingsError: without a stack of the whole series.
        InputError: for too few tilts.
    """
    if not isinstance(source, SeriesSource) or not source.settings.confidence:
        return
    if source.whole is None:
        raise SettingsError(
            "--confidence asks networks how sure they are of the whole series: give its stack, TILTS, beside --even "
            "and --odd, or leave --confidence out"
        )
    for wish in wishes:
        if wish.by == "model":
            check_confidence(source.resolved(None, "network", wish.name))


def expected_minutes(source: Source, wish: Wish, choices: Choices, shape: tuple[int, int, int]) -> float:
    """About how long a method takes.

    Args:
        source: what the user gave.
        wish: the method.
        choices: how.
        shape: voxels of a volume.
    """
    voxels = float(np.prod(shape))
    speed = _GENERAL_VOXELS_PER_SECOND * (_GPU_TIMES if choose_device(choices.device).type == "cuda" else 1.0)
    if wish.by in ("fbp", "sirt", "model") and isinstance(source, SeriesSource):
        method, model = ("network", wish.name) if wish.by == "model" else (wish.by, None)
        stacks = [*source.halves, *([source.whole] if source.whole else [])]
        runs = [source.resolved(stack, method, model) for stack in stacks]
        return sum(expected_seconds(run, fit(run)) + 2 for run in runs) / 60
    if wish.by == "n2n-general":
        return 2 * voxels / speed / 60
    if wish.by == "n2n":
        return choices.train_minutes + 4 * voxels / speed / 60
    if wish.by == "samba":
        return choices.train_minutes * _SAMBA_BESIDE_TRAINING
    return voxels * 1e-6 / 60


def scoring_minutes(shape: tuple[int, int, int], matched_binning: int | None) -> float:
    """About how long the scores of one method take.

    Args:
        shape: voxels of a volume.
        matched_binning: of the search for a template; None without one.
    """
    voxels = float(np.prod(shape))
    seconds = _SCORING_SECONDS * voxels
    if matched_binning is not None:
        seconds += ROTATIONS * _MATCHING_SECONDS * voxels / matched_binning**3
    return seconds / 60


def _folder_name(wish: Wish) -> str:
    """A folder for a method: models of one name in different places have different folders, whatever their titles."""
    if wish.by != "model":
        return wish.by
    mark = hashlib.sha256(wish.name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    stem = wish.name.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".safetensors")
    plain = "".join(c if c.isalnum() and c.isascii() else "_" for c in stem)
    return f"model_{plain[:40]}_{mark}"


def _file_hashes(place: Path) -> dict[str, str]:
    """SHA-256 of the volumes and records of a method, by name."""
    files = (path for path in place.iterdir() if path.suffix in (".mrc", ".json") and path.is_file())
    return {path.name: file_sha256(path) for path in sorted(files)}


def _warnings(place: Path) -> tuple[str, ...]:
    """What was warned of when the volumes of a method were made, by their records."""
    found: list[str] = []
    for name in (_LEARNED, *(f"{part}.mrc" for part in PARTS)):
        record = read_record_beside(place / name)
        guard = record.get("guard")
        told = guard.get("warnings") if isinstance(guard, dict) else record.get("warnings")
        found += [str(text) for text in told] if isinstance(told, list) else []
    return tuple(dict.fromkeys(found))


def _sure(path: Path) -> Sure:
    """The maps beside a network's volume."""
    told = read_record_beside(path)["confidence"]["maps"]
    return Sure(
        {kind: float(entry["mean"]) for kind, entry in told.items()},
        {kind: _voxels(path.with_name(entry["path"])) for kind, entry in told.items()},
    )


def _voxels(path: Path) -> Array:
    return np.asarray(open_volume_file(path).voxels())


def _average(halves: tuple[Path, Path], path: Path) -> None:
    first, second = (open_half(half) for half in halves)
    if first.volume.voxels.shape != second.volume.voxels.shape:
        raise InputError(
            f"the halves differ in shape (z, y, x): {halves[0]} has {first.volume.voxels.shape}, {halves[1]} has "
            f"{second.volume.voxels.shape}; give the halves of one tomogram"
        )
    write_average((first, second), path, f"CryoLithe {__version__} average of two halves", overwrite=True)
