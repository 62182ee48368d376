"""Progress bars and notes on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cryolithe.cli.plain import plain


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


@contextmanager
def progress_watcher() -> Iterator[ProgressWatcher]:
    """Bars on standard error for the length of a job; plain lines where that is no terminal."""
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
