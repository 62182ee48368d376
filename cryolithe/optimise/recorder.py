"""What the first process does beside training: a folder with tables and TensorBoard's files, and an end for all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from cryolithe.errors import OutputError
from cryolithe.optimise.distributed import Place, Together
from cryolithe.optimise.interrupt import asked_to_stop
from cryolithe.optimise.loop import Progress
from cryolithe.optimise.state import State
from cryolithe.optimise.tables import Events, Table


class Recorder:
    """Tables and curves of a training.

    Args:
        folder: of the training; made if it is not there.
        columns: of the tables of steps (names of `Progress`, and ``seconds``) and validations.
        resumed: step to go on from; None to start anew.
        leftovers: patterns of files in the folder that an earlier training may have left; they are removed.

    Raises:
        OutputError: if the folder cannot be written to.
    """

    def __init__(
        self, folder: Path, columns: tuple[Sequence[str], Sequence[str]], resumed: int | None, leftovers: Sequence[str]
    ) -> None:
        self.folder, self._columns = folder, columns[0]
        try:
            if resumed is None:
                _forget(folder, leftovers)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror or error}") from error
        self.steps = Table(folder / "train.csv", columns[0], resumed or 0)
        self.validations = Table(folder / "validation.csv", columns[1], resumed or 0)
        self.board = Events(folder / "tensorboard")

    def log(self, state: State[Any], progress: Progress, due: bool) -> None:
        """Take note of a step; where it is due, write the mean of the losses since the last time."""
        state.recent.append(progress.loss)
        if not due:
            return
        mean = sum(state.recent) / len(state.recent)
        state.recent.clear()
        told = {**vars(progress), "loss": mean, "seconds": state.seconds}
        self.steps.add([told[name] for name in self._columns])
        self.board.step(state.step, {"loss": mean, "learning_rate": progress.learning_rate})


R = TypeVar("R", bound=Recorder)


@dataclass(frozen=True)
class Recording(Generic[R]):
    """A training that is recorded.

    Attributes:
        recorder: of the first process; None in the others.
        interrupted: set when this process is asked to stop.
        together: ends all processes when the recorder fails.
    """

    recorder: R | None
    interrupted: threading.Event
    together: Together

    def told(self, method: str) -> Callable[..., bool]:
        """A method of the recorder as a hook, which ends all processes if it fails; in the others nothing."""
        if self.recorder is None:
            return lambda *arguments: False
        return self.together.guarded(getattr(self.recorder, method))


@contextmanager
def recording(place: Place, begin: Callable[[], R]) -> Iterator[Recording[R]]:
    """Train within: the first Ctrl-C only asks to stop, and a recorder that fails ends all processes.

    Args:
        place: of this process.
        begin: makes the recorder; called in the first process.

    Raises:
        CryoLitheError: in all processes if the first one cannot begin, or could not go on.
    """
    together, interrupted = Together(place), threading.Event()
    recorder = together.tried(begin) if place.rank == 0 else None
    together.settle()
    try:
        with asked_to_stop(interrupted):
            yield Recording(recorder, interrupted, together)
        together.settle()
    finally:
        if recorder is not None:
            recorder.board.close()


def _forget(folder: Path, patterns: Sequence[str]) -> None:
    """Remove the files of an earlier training, and nothing that is not one."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            with suppress(OSError):
                path.unlink()
