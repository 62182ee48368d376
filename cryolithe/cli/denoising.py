"""``cryolithe reconstruct --denoise``: what is done to a volume when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryolithe.cli.denoise import summary, training_precision
from cryolithe.denoise.methods import METHODS
from cryolithe.errors import OutputError

if TYPE_CHECKING:
    from cryolithe.denoise.job import Job
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

    def is_done(self, volume: Path, overwrite: bool) -> bool:
        """Whether this very volume has been denoised with these settings; a file of the right name says nothing.

        Raises:
            OutputError: if the denoised volume that is there was made of something else, and is not to be replaced.
        """
        from cryolithe.denoise.job import made_before

        job = self._job(volume, overwrite)
        item = job.items[0]
        if overwrite or not item.output.exists():
            return False
        other = made_before(job, item) if volume.exists() else f"{volume.name} is not there yet"
        if other is None:
            return True
        raise OutputError(f"{item.output} exists but {other}; remove it, or give --overwrite to replace it")

    def _job(self, volume: Path, overwrite: bool) -> Job:
        from cryolithe.denoise.job import Given

        choices = {
            "train_minutes": self.minutes,
            "is_volume": True,
            "overwrite": overwrite,
            "resume": not overwrite,
        }
        job: Job = METHODS[self.method].load().job(Given((volume,)), choices)
        return job

    def __call__(self, volume: Path, settings: ReconstructSettings, watcher: Watcher) -> str:
        """Denoise a volume, which is kept.

        Args:
            volume: the reconstruction.
            settings: of the reconstruction, for device, precision and whether files may be replaced.
            watcher: is told.

        Returns:
            the line that tells of it.
        """
        from cryolithe.denoise.run import denoise
        from cryolithe.device import choose_devices
        from cryolithe.optimise.distributed import Place

        if self.is_done(volume, settings.overwrite):
            return f"{volume}: already denoised"
        device = choose_devices(settings.device)[0]
        job, place = (
            self._job(volume, settings.overwrite),
            Place(device, training_precision(settings.precision, device)),
        )
        return summary(job, denoise(METHODS[self.method].load(), job, place, watcher))
