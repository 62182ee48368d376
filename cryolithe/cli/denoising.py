"""``cryolithe reconstruct --denoise``: what is done to a volume, or to two halves of one, when they are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryolithe.cli.denoise import summary, training_precision
from cryolithe.denoising.methods import METHODS
from cryolithe.errors import OutputError, SettingsError

if TYPE_CHECKING:
    from cryolithe.denoising.job import Given, Job
    from cryolithe.settings import ReconstructSettings
    from cryolithe.work.watcher import Watcher


@dataclass(frozen=True)
class Denoising:
    """Denoises the volume of a reconstruction that was just made, beside it; an interrupted run is gone on with.

    Attributes:
        method: name of `METHODS`.
        minutes: limit of the training; None: as for ``cryolithe denoise``.
    """

    method: str
    minutes: float | None

    def check(self, settings: ReconstructSettings) -> None:
        """Refuse, before anything is made, a volume of these settings that could not be denoised then.

        Raises:
            SettingsError: says what to do.
        """
        check_orientation(settings)

    def is_done(self, volume: Path, overwrite: bool) -> bool:
        """Whether this very volume has been denoised with these settings; a file of the right name says nothing.

        Raises:
            OutputError: if the denoised volume that is there was made of something else, and is not to be replaced.
        """
        return _is_done(self._job(volume, overwrite))

    def __call__(self, volume: Path, settings: ReconstructSettings, watcher: Watcher) -> str:
        """Denoise a volume, which is kept.

        Args:
            volume: the reconstruction.
            settings: of the reconstruction, for device, precision and whether files may be replaced.
            watcher: is told.

        Returns:
            the line that tells of it.
        """
        if self.is_done(volume, settings.overwrite):
            return f"{volume}: already denoised"
        return _denoised(self.method, self._job(volume, settings.overwrite), settings, watcher)

    def _job(self, volume: Path, overwrite: bool) -> Job:
        from cryolithe.denoising.job import Given

        return _job(self.method, Given((volume,)), self.minutes, overwrite)


@dataclass(frozen=True)
class HalvesDenoising:
    """Denoises a volume by its halves, which were just made; an interrupted run is gone on with.

    Attributes:
        method: name of `METHODS`.
        minutes: limit of the training; None: as for ``cryolithe denoise``.
        halves: volumes of even and of odd images.
        whole: volume beside which the result lies.
        settings: of the reconstruction, for device, precision and whether files may be replaced.
    """

    method: str
    minutes: float | None
    halves: tuple[Path, Path]
    whole: Path
    settings: ReconstructSettings

    def check(self) -> None:
        """Refuse, before anything is made, what could not be denoised then.

        Raises:
            SettingsError: if the halves have no noise to learn from, or their planes are not those of z.
            OutputError: if the denoised volume that is there was made of something else, and is not to be replaced.
        """
        if self.settings.method == "network":
            raise SettingsError(
                f"--denoise {self.method} learns from the noise of back-projections, of which a network leaves hardly "
                "any: give --method fbp or sirt"
            )
        check_orientation(self.settings)
        _is_done(self._job)

    def plan(self) -> str:
        """What will be done, in a line."""
        from cryolithe.machine.device import choose_devices

        job = self._job
        minutes = job.limit_seconds(choose_devices(self.settings.device)[0]) / 60
        names = " and ".join(path.name for path in self.halves)
        return f"{job.items[0].output}: {self.method} learns from {names}, at most {minutes:g} min of training"

    def run(self, watcher: Watcher) -> str:
        """Denoise, unless it is done; returns the line that tells of it.

        Raises:
            OutputError: if what is there was made of something else, and is not to be replaced.
        """
        if _is_done(self._job):
            return f"{self._job.items[0].output}: already denoised"
        return _denoised(self.method, self._job, self.settings, watcher)

    @property
    def _job(self) -> Job:
        from cryolithe.denoising.job import Given
        from cryolithe.denoising.output import default_output

        output = default_output(self.whole, f"_{self.method}")
        given = Given(halves=(self.halves,), output=output)
        return _job(self.method, given, self.minutes, self.settings.overwrite)


def check_orientation(settings: ReconstructSettings) -> None:
    """Refuse to denoise a volume whose sections are no planes of z.

    Raises:
        SettingsError: says what to do.
    """
    if settings.orientation != "xyz":
        raise SettingsError(
            f"--denoise is for --orientation xyz, got {settings.orientation}: leave --orientation out, and turn the "
            "denoised volume by 90° about x"
        )


def _job(method: str, given: Given, minutes: float | None, overwrite: bool) -> Job:
    choices: dict[str, Any] = {
        "train_minutes": minutes,
        "is_volume": True,
        "overwrite": overwrite,
        "resume": not overwrite,
    }
    job: Job = METHODS[method].load().job(given, choices)
    return job


def _is_done(job: Job) -> bool:
    """Whether the only volume of a job was made of these very inputs with these choices.

    Raises:
        OutputError: if what is there was made of something else, and is not to be replaced.
    """
    from cryolithe.denoising.job import made_before

    item = job.items[0]
    if job.overwrite or not item.output.exists():
        return False
    missing = next((path for path in item.inputs.values() if not path.exists()), None)
    other = f"{missing.name} is not there yet" if missing else made_before(job, item)
    if other is None:
        return True
    raise OutputError(f"{item.output} exists but {other}; remove it, or give --overwrite to replace it")


def _denoised(method: str, job: Job, settings: ReconstructSettings, watcher: Watcher) -> str:
    from cryolithe.denoising.run import denoise
    from cryolithe.machine.device import choose_devices
    from cryolithe.optimise.distributed import Place

    device = choose_devices(settings.device)[0]
    place = Place(device, training_precision(settings.precision, device))
    return summary(job, denoise(METHODS[method].load(), job, place, watcher))
