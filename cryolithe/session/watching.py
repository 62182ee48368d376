"""Following a running acquisition: which series have all their files, and have stopped changing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryolithe.formats.microscope.ctf_files import tells_defocus
from cryolithe.formats.microscope.doses import tells_doses
from cryolithe.formats.reading import State, file_state
from cryolithe.reconstruction.jobs.job import Job
from cryolithe.session.tasks import Task

Fingerprint = tuple[State, ...]


@dataclass
class Settled:
    """Remembers since when the files of each series have been as they are.

    A file's own time is not trusted: copies and network disks bring times from elsewhere. What counts is for how long
    its size and time have not changed under our eyes.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    _seen: dict[Job, tuple[Fingerprint, float]] = field(default_factory=dict)
    _taken: dict[Job, Fingerprint] = field(default_factory=dict)

    def ready(self, tasks: list[Task]) -> list[Task]:
        """Tasks whose files have not changed for ``seconds`` and were not taken like this before.

        A raw stack is never taken before its alignment has come, nor any before the defocus and the doses that its
        settings ask for.
        """
        found, now, jobs = [], self.clock(), {task.job for task in tasks}
        # Of a series that goes by other files or another name now nothing is to come under the old ones.
        self._seen = {job: seen for job, seen in self._seen.items() if job in jobs}
        for task in tasks:
            key, state = task.job, None if task.unaligned or _untold(task) else _fingerprint(task.own_inputs)
            if state is None:
                self._seen.pop(key, None)
                continue
            before = self._seen.get(key)
            if before is None or before[0] != state:
                self._seen[key] = before = (state, now)
            if now - before[1] >= self.seconds and self._taken.get(key) != state:
                self._taken[key] = state
                found.append(task)
        return found

    def waits(self, tasks: list[Task]) -> list[str]:
        """What each series that cannot be taken yet waits for, one text each: asked after `ready`."""
        found = []
        for task in tasks:
            missing = _missing(task.inputs)
            seen = self._seen.get(task.job)
            if missing:
                found.append(f"{task.name} ({missing})")
            elif task.unaligned:
                found.append(f"{task.name} (its alignment is not there; it is taken for raw: {task.unaligned})")
            elif untold := _untold(task):
                found.append(f"{task.name} ({untold})")
            elif seen is not None and self._taken.get(task.job) != seen[0]:
                found.append(f"{task.name} (its files changed less than {self.seconds:g} s ago)")
        return found

    @property
    def taken(self) -> Collection[Job]:
        """What was taken so far, in this order."""
        return self._taken.keys()

    @property
    def waiting(self) -> int:
        """Series that have been seen and not been taken as they are now."""
        return sum(self._taken.get(key) != state for key, (state, _) in self._seen.items())


def _missing(paths: tuple[Path, ...]) -> str:
    """What is against the first of some files that is not there yet, or an empty string."""
    for path in paths:
        try:
            if path.stat().st_size == 0:
                return f"{path.name} is empty"
        except OSError:
            return f"{path.name} is not there"
    return ""


def _untold(task: Task) -> str:
    """What the settings of a series ask for and no file tells yet, or an empty string."""
    job, settings = task.job, task.job.settings
    alignment = settings.alignment_files
    if settings.ctf != "none" and not settings.ctf_file and not tells_defocus(job.tilts, alignment, job.reading):
        return f"no file tells its defocus, which --ctf {settings.ctf} needs"
    named = [job.angles, *alignment.values()]
    if settings.dose_weight and not settings.dose and not tells_doses(job.tilts, named, job.reading):
        return "no file tells its doses, which --dose-weight needs"
    return ""


def _fingerprint(paths: tuple[Path, ...]) -> Fingerprint | None:
    """Inode, size and time of files, or None where one is missing or empty."""
    found = [file_state(path) for path in paths]
    return tuple(state for state in found if state) if all(state and state[1] for state in found) else None


def rounds(idle_seconds: float | None, pause_seconds: float, busy: Callable[[], bool]) -> Iterator[int]:
    """Count rounds with pauses between them, for ever or until nothing has been going on for a while.

    Args:
        idle_seconds: time without work after which to end, or None to go on until interrupted.
        pause_seconds: between two looks.
        busy: whether the round just done had work or series that are still changing.
    """
    quiet_since = time.monotonic()
    number = 0
    while True:
        yield number
        number += 1
        now = time.monotonic()
        if busy():
            quiet_since = now
        if idle_seconds is not None and now - quiet_since >= idle_seconds:
            return
        time.sleep(pause_seconds)
