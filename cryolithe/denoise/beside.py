"""What lies beside the output of a denoising, whatever the method: weights, training, record."""

from __future__ import annotations

from pathlib import Path


class Beside:
    """Names of files, for jobs that say what is written and whence weights come.

    Attributes:
        output: the volume to write.
        model: weights to use instead of training; with ``train_minutes`` those to start from.
        train_minutes: limit of the training; None for the method's own.
    """

    output: Path
    model: Path | None
    train_minutes: float | None

    @property
    def weights(self) -> Path:
        """The trained network beside the output."""
        return self._beside(".safetensors")

    @property
    def folder(self) -> Path:
        """State, tables and curves of the training."""
        return self._beside(".run")

    @property
    def state(self) -> Path:
        """What an interrupted training goes on from."""
        return self.folder / "state.safetensors"

    @property
    def sidecar(self) -> Path:
        """The record beside the output."""
        return self._beside(".json")

    @property
    def trains(self) -> bool:
        """Whether a network is to be trained."""
        return self.model is None or self.train_minutes is not None

    def _beside(self, ending: str) -> Path:
        return self.output.with_name(self.output.stem + ending)
