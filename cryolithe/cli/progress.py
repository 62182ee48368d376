"""How far a job is, on standard error: bars on a terminal, a plain line now and then in a log file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cryolithe.cli.plain import plain, say
from cryolithe.work.clock import clock
from cryolithe.work.watcher import Watcher

# A line when a tenth more is done and a minute has passed since the last one; in any case after ten minutes. The
# first one of a stage comes after a minute, so that one soon knows how long it will take.
EVERY_SHARE, EVERY_SECONDS, LONGEST_SECONDS = 0.1, 60.0, 600.0
# Stages that were shorter are told of together, in one line at the end of the job.
_SHORT_SECONDS = 30.0
# What is told to be done so soon after the beginning of a stage was done by a run before.
_AT_ONCE_SECONDS = 1.0
_TICK_SECONDS = 5.0


class ProgressWatcher:
    """Shows the stages of a job as bars; satisfies `cryolithe.work.watcher.Watcher`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def stage(self, name: str, total: float) -> None:
        """Start a stage of ``total`` units; the one before it is complete."""
        self._complete()
        self._task = self._progress.add_task(name, total=total)

    def advance(self, amount: float) -> None:
        """Add to the current stage."""
        if self._task is not None:
            self._progress.advance(self._task, amount)

    def note(self, text: str) -> None:
        """Show a line above the bars."""
        self._progress.console.print(plain(text), markup=False, highlight=False, soft_wrap=True)

    def _complete(self) -> None:
        if self._task is not None:
            total = self._progress.tasks[self._task].total
            self._progress.update(self._task, completed=total)


class LogWatcher:
    """Tells of the stages of a job in plain lines, as a log file wants them; satisfies `Watcher`.

    Args:
        write: takes a line.
        now: the time in seconds.
    """

    def __init__(
        self, write: Callable[[str], object] = lambda text: say(text, err=True), now: Callable[[], float] | None = None
    ) -> None:
        self._write, self._now = write, now or time.monotonic
        self._lock = threading.RLock()  # `tick` comes from another thread
        self._name: str | None = None
        self._total = self._done = self._before = self._told = 0.0
        self._started = self._last = self._advanced = 0.0
        self._lines = 0
        self._short: list[str] = []

    def stage(self, name: str, total: float) -> None:
        """Start a stage of ``total`` units; the one before it is complete."""
        with self._lock:
            self._complete()
            self._name, self._total = name, max(total, 1e-9)
            self._done = self._before = self._told = 0.0
            self._started = self._last = self._advanced = self._now()
            self._lines = 0

    def advance(self, amount: float) -> None:
        """Add to the current stage; a line if one is due."""
        with self._lock:
            self._done += amount
            self._advanced = self._now()
            if self._advanced - self._started < _AT_ONCE_SECONDS:
                self._before = self._done
            self.tick()

    def note(self, text: str) -> None:
        """Write a line."""
        with self._lock:
            self._write(text)

    def tick(self) -> None:
        """Write a line if one is due."""
        with self._lock:
            if self._name is None or self._share >= 1:
                return  # the end of a stage is told when the next one begins, or the job ends
            since = self._now() - self._last
            more = self._share - self._told
            # A share that was told is a sum of many small ones.
            if since >= LONGEST_SECONDS or (since >= EVERY_SECONDS and (not self._lines or more >= EVERY_SHARE - 1e-9)):
                self._tell(f"{self._share:.0%}".replace("%", " %"), self._left())

    def finish(self) -> None:
        """The job is done, and so is its last stage."""
        with self._lock:
            self._complete()
            if self._short:
                self._write("100 %: " + ", ".join(self._short))
            self._short.clear()

    @property
    def _share(self) -> float:
        return min(1.0, self._done / self._total)

    def _left(self) -> str:
        """Time that the rest will take if it goes on as it did in this run."""
        made, rest = self._done - self._before, self._total - self._done
        if made <= 0:
            return ""
        waited = self._now() - self._advanced
        return f", about {clock(max(0.0, (self._advanced - self._started) * rest / made - waited))} left"

    def _tell(self, share: str, left: str = "") -> None:
        self._write(f"{self._name}: {share} after {clock(self._now() - self._started)}{left}")
        self._last, self._told, self._lines = self._now(), self._share, self._lines + 1

    def _complete(self) -> None:
        if self._name is None:
            return
        self._done = self._total
        took = self._now() - self._started
        if self._lines or took >= _SHORT_SECONDS:
            self._tell("100 %")
        else:
            self._short.append(f"{self._name} ({clock(took)})")
        self._name = None


@contextmanager
def progress_watcher() -> Iterator[Watcher]:
    """Bars on standard error for the length of a job; plain lines where that is no terminal."""
    with _bars() if sys.stderr.isatty() else _lines() as watcher:
        yield watcher


@contextmanager
def _bars() -> Iterator[Watcher]:
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True))
    progress.start()
    try:
        yield ProgressWatcher(progress)
    except BaseException:
        progress.live.transient = True  # bars that stopped half-way would hide the line that says why
        progress.live.stop()
        raise
    progress.stop()


@contextmanager
def _lines() -> Iterator[Watcher]:
    watcher, ended = LogWatcher(), threading.Event()

    def tick() -> None:
        while not ended.wait(_TICK_SECONDS):
            watcher.tick()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield watcher
    finally:
        ended.set()
        thread.join()
    watcher.finish()
